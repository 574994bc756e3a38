//! Table of open calls.

use std::collections::{BTreeMap, BTreeSet};

use hashbrown::{Equivalent, HashMap};
use serde::{Deserialize, Serialize, Serializer};

use super::super::sdp::{self, Sdp};
use super::super::sip::{Message, Method};
use super::super::view::Side;
use super::log::{Identity, find_repeat};
use super::record::{CallRecord, SdpUse};
use super::session::{Sessions, begins_call, may_be_in_call};
use super::{
    Event, EventKind, ID_BYTES_MAX, MessageCounts, OPEN_CALLS_MAX, PacketMeta, Repeat, STATE_BYTES_MAX,
    UNANSWERED_IDLE_NS,
};

/// Open calls of a capture, and counters of all its messages.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(from = "Snapshot")]
pub(crate) struct Calls {
    totals: Totals,
    calls: BTreeMap<u64, Box<CallRecord>>,
    /// Newest call of a Call-ID and a caller's tag.
    index: HashMap<Key, u64>,
    /// One entry for each call: (activity, number). The activity may be older than the call's, never newer; an entry
    /// is brought up to date when it is the first one.
    by_activity: BTreeSet<(u64, u64)>,
    /// One entry for each call: (deadline, number). The deadline may be earlier than the call's, never later.
    by_deadline: BTreeSet<(i64, u64)>,
    /// Entries of each call in the two sets, and its activity.
    schedules: HashMap<u64, Schedule>,
    /// Activity of the latest message of a call.
    activity: u64,
    memory: usize,
}

/// Counters that do not belong to an open call.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Totals {
    /// All messages, as `tshark -z sip,stat` counts them.
    pub counts: MessageCounts,
    /// Messages outside calls.
    pub sessions: Sessions,
    /// Calls that [`OPEN_CALLS_MAX`] or [`STATE_BYTES_MAX`] cut.
    pub cut: u64,
    /// Messages with an ID over [`ID_BYTES_MAX`].
    pub ids_too_long: u64,
    /// Copies of packets of calls.
    pub copies: u64,
    /// Retransmissions of messages of calls.
    pub retransmissions: u64,
    /// Bodies with Content-Type `application/sdp` that are not SDP.
    pub sdp_invalid: u64,
    /// Messages of calls with header lines, values or parts of a body over a limit of the parser.
    pub messages_cut: u64,
    /// Session descriptions of calls with something over a limit of the parser.
    pub sdps_cut: u64,
    /// Number of the newest call.
    calls: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Schedule {
    activity: u64,
    activity_entry: u64,
    deadline_entry: i64,
}

/// What is stored of the table. The rest is made of it.
#[derive(Deserialize)]
struct Snapshot {
    totals: Totals,
    /// In order of activity.
    calls: Vec<CallRecord>,
}

#[derive(Serialize)]
struct SnapshotRef<'a> {
    totals: &'a Totals,
    calls: Vec<&'a CallRecord>,
}

impl Serialize for Calls {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let activity = |number| self.schedules.get(number).map_or(0, |schedule| schedule.activity);
        let mut calls: Vec<(u64, &CallRecord)> =
            self.calls.iter().map(|(number, call)| (activity(number), &**call)).collect();
        calls.sort_by_key(|(activity, _)| *activity);
        let calls = calls.into_iter().map(|(_, call)| call).collect();
        SnapshotRef { totals: &self.totals, calls }.serialize(serializer)
    }
}

impl From<Snapshot> for Calls {
    fn from(snapshot: Snapshot) -> Calls {
        let mut table = Calls { totals: snapshot.totals, ..Calls::default() };
        for call in snapshot.calls {
            table.insert(call);
        }
        // In order of number, so that the newest call of an ID is in the index.
        let keys: Vec<(Key, u64)> = table.calls.values().map(|call| (Key::of(call), call.number)).collect();
        table.index.extend(keys);
        table
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    call_id: Box<[u8]>,
    tag: Box<[u8]>,
}

#[derive(Hash)]
struct KeyRef<'a> {
    call_id: &'a [u8],
    tag: &'a [u8],
}

impl Key {
    fn of(call: &CallRecord) -> Key {
        Key { call_id: call.call_id.clone(), tag: call.from_tag.clone() }
    }
}

impl Equivalent<Key> for KeyRef<'_> {
    fn equivalent(&self, key: &Key) -> bool {
        *self.call_id == *key.call_id && *self.tag == *key.tag
    }
}

impl Calls {
    /// Takes a message. `bytes` is the whole message, by which copies are recognized.
    pub(crate) fn add(&mut self, packet: PacketMeta, message: &Message<'_>, bytes: &[u8]) -> Event {
        self.totals.counts.add(message);
        let ids = [message.call_id, message.from.tag(), message.to.tag()];
        if ids.iter().any(|id| id.len() > ID_BYTES_MAX) {
            self.totals.ids_too_long = self.totals.ids_too_long.saturating_add(1);
            return Event::outside_calls(EventKind::Rejected);
        }
        let place = if may_be_in_call(message) { self.find(message) } else { None };
        let Some((number, dialog_side)) = place else {
            if !begins_call(message) {
                return Event::outside_calls(self.totals.sessions.add(&packet, message, bytes));
            }
            return self.add_first(&packet, message, bytes, 0);
        };
        let side = sender(message, dialog_side);
        let Some(call) = self.calls.get_mut(&number) else {
            return Event::outside_calls(EventKind::Rejected);
        };
        let before = call.memory;
        let leg = call.leg_index(callee_tag(message, dialog_side));
        let identity = Identity::new(message, bytes, side, leg);
        let repeat = find_repeat(&call.messages, &packet, &identity);
        if matches!(repeat, Repeat::None | Repeat::Hop) && call.is_replaced_by(&packet, message, &identity) {
            let reuse = call.reuse.saturating_add(1);
            return self.add_first(&packet, message, bytes, reuse);
        }
        let (kind, sdp) = add_to_call(call, &mut self.totals, &packet, message, &identity, repeat);
        let after = call.memory;
        self.memory = self.memory.saturating_sub(before).saturating_add(after);
        self.touch(number);
        let cut = self.make_room(number);
        Event { kind, call: Some(number), side: Some(side), sdp, cut }
    }

    /// Call of a message, and the side that is in From: the sender of requests, the receiver of responses.
    fn find(&self, message: &Message<'_>) -> Option<(u64, Side)> {
        let call_id = message.call_id;
        if let Some(number) = self.index.get(&KeyRef { call_id, tag: message.from.tag() }) {
            return Some((*number, Side::Caller));
        }
        let tag = message.to.tag();
        let number = self.index.get(&KeyRef { call_id, tag }).filter(|_| !tag.is_empty())?;
        Some((*number, Side::Callee))
    }

    /// Takes the first message of a call. If it is not the INVITE, the one in From is thought to be the caller.
    fn add_first(&mut self, packet: &PacketMeta, message: &Message<'_>, bytes: &[u8], reuse: u32) -> Event {
        self.totals.calls = self.totals.calls.saturating_add(1);
        let number = self.totals.calls;
        let mut call = CallRecord::new(number, packet, message);
        call.reuse = reuse;
        let side = sender(message, Side::Caller);
        let leg = call.leg_index(message.to.tag());
        let identity = Identity::new(message, bytes, side, leg);
        let (_, sdp) = add_to_call(&mut call, &mut self.totals, packet, message, &identity, Repeat::None);
        self.index.insert(Key::of(&call), number);
        self.insert(call);
        let cut = self.make_room(number);
        Event { kind: EventKind::NewCall, call: Some(number), side: Some(side), sdp, cut }
    }

    /// Inserts a call as the one that was active last.
    fn insert(&mut self, call: CallRecord) {
        self.activity = self.activity.saturating_add(1);
        let activity = self.activity;
        let deadline = call.deadline_ns(UNANSWERED_IDLE_NS);
        let number = call.number;
        self.memory = self.memory.saturating_add(call.memory);
        self.by_activity.insert((activity, number));
        self.by_deadline.insert((deadline, number));
        self.schedules
            .insert(number, Schedule { activity, activity_entry: activity, deadline_entry: deadline });
        self.calls.insert(number, Box::new(call));
    }

    /// Notes that a call was active.
    fn touch(&mut self, number: u64) {
        self.activity = self.activity.saturating_add(1);
        let (Some(call), Some(schedule)) = (self.calls.get(&number), self.schedules.get_mut(&number)) else {
            return;
        };
        schedule.activity = self.activity;
        let deadline = call.deadline_ns(UNANSWERED_IDLE_NS);
        if deadline < schedule.deadline_entry {
            self.by_deadline.remove(&(schedule.deadline_entry, number));
            self.by_deadline.insert((deadline, number));
            schedule.deadline_entry = deadline;
        }
    }

    /// Cuts the calls that were idle longest until the limits hold. Never cuts `kept`.
    fn make_room(&mut self, kept: u64) -> Vec<CallRecord> {
        let mut cut = Vec::new();
        while self.calls.len() > 1 && (self.calls.len() > OPEN_CALLS_MAX || self.memory > STATE_BYTES_MAX) {
            let Some((activity, number)) = self.by_activity.pop_first() else { break };
            let Some(schedule) = self.schedules.get_mut(&number) else { continue };
            if schedule.activity != activity || number == kept {
                schedule.activity_entry = schedule.activity;
                self.by_activity.insert((schedule.activity, number));
                continue;
            }
            if let Some(mut call) = self.remove(number) {
                call.cut();
                self.totals.cut = self.totals.cut.saturating_add(1);
                cut.push(call);
            }
        }
        cut
    }

    /// Removes a call as it is.
    pub(crate) fn remove(&mut self, number: u64) -> Option<CallRecord> {
        let call = *self.calls.remove(&number)?;
        self.memory = self.memory.saturating_sub(call.memory);
        if let Some(schedule) = self.schedules.remove(&number) {
            self.by_activity.remove(&(schedule.activity_entry, number));
            self.by_deadline.remove(&(schedule.deadline_entry, number));
        }
        let key = KeyRef { call_id: &call.call_id, tag: &call.from_tag };
        if self.index.get(&key) == Some(&number) {
            self.index.remove(&key);
        }
        Some(call)
    }

    /// Removes and returns the calls that are finished at `now_ns` of the capture: ended and idle for 64 s, unanswered
    /// and idle for 300 s, or answered without end and idle for `answered_idle_ns` (at least 300 s).
    pub(crate) fn take_finished(&mut self, now_ns: i64, answered_idle_ns: i64) -> Vec<CallRecord> {
        let answered_idle_ns = answered_idle_ns.max(UNANSWERED_IDLE_NS);
        let mut finished = Vec::new();
        while let Some(&(entry, number)) =
            self.by_deadline.first().filter(|(deadline, _)| *deadline <= now_ns)
        {
            let deadline =
                self.calls.get(&number).map_or(i64::MIN, |call| call.deadline_ns(answered_idle_ns));
            if deadline > now_ns {
                self.by_deadline.remove(&(entry, number));
                self.by_deadline.insert((deadline, number));
                if let Some(schedule) = self.schedules.get_mut(&number) {
                    schedule.deadline_entry = deadline;
                }
                continue;
            }
            match self.remove(number) {
                Some(mut call) => {
                    call.settle();
                    finished.push(call);
                }
                None => {
                    self.by_deadline.remove(&(entry, number));
                }
            }
        }
        finished
    }

    /// Removes and returns all calls, for the end of a capture that will not grow.
    #[cfg(test)]
    pub(crate) fn take_all(&mut self) -> Vec<CallRecord> {
        let totals = std::mem::take(&mut self.totals);
        let table = std::mem::replace(self, Calls { totals, ..Calls::default() });
        let mut calls: Vec<CallRecord> = table.calls.into_values().map(|call| *call).collect();
        calls.iter_mut().for_each(CallRecord::settle);
        calls
    }

    /// Call of a number that [`Calls::add`] gave.
    pub(crate) fn get(&self, number: u64) -> Option<&CallRecord> {
        self.calls.get(&number).map(|call| &**call)
    }

    /// Open calls in order of their first message.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &CallRecord> {
        self.calls.values().map(|call| &**call)
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.calls.len()
    }

    pub(crate) fn totals(&self) -> &Totals {
        &self.totals
    }

    /// Memory of the open calls in bytes, about.
    #[cfg(test)]
    pub(crate) fn memory(&self) -> usize {
        self.memory
    }
}

/// Takes a message into its call.
fn add_to_call(
    call: &mut CallRecord,
    totals: &mut Totals,
    packet: &PacketMeta,
    message: &Message<'_>,
    identity: &Identity<'_>,
    repeat: Repeat,
) -> (EventKind, Option<SdpUse>) {
    call.last_ns = call.last_ns.max(packet.place.time_ns);
    let kind = match repeat {
        Repeat::Copy(_) => {
            call.copies = call.copies.saturating_add(1);
            totals.copies = totals.copies.saturating_add(1);
            return (EventKind::Copy, None);
        }
        Repeat::Retransmission(index) => {
            call.count_retransmission(index, packet);
            totals.retransmissions = totals.retransmissions.saturating_add(1);
            return (EventKind::Retransmission, None);
        }
        Repeat::Hop => EventKind::Hop,
        Repeat::None => EventKind::Message,
    };
    let content = message.content();
    let sdp = content.sdp.map(sdp::parse).transpose().unwrap_or_else(|_| {
        totals.sdp_invalid = totals.sdp_invalid.saturating_add(1);
        None
    });
    totals.messages_cut += u64::from(message.is_cut() || content.parts_omitted > 0);
    totals.sdps_cut += u64::from(sdp.as_ref().is_some_and(Sdp::is_cut));
    let index = call.push_message(packet, message, identity, sdp.is_some());
    call.note(message, &content, identity.side);
    call.apply(packet, message, identity);
    if kind == EventKind::Message {
        call.note_digit(packet, &content, identity);
    }
    let (place, side, leg) = (packet.place, identity.side, identity.leg);
    let sdp_use = sdp.map(|sdp| SdpUse { message: index, place, side, leg, sdp });
    if let Some(sdp_use) = &sdp_use {
        let is_provisional = identity.code.is_some_and(|code| code < 200);
        call.has_early_media |= is_provisional && identity.method == Method::Invite;
        call.push_sdp(sdp_use);
    }
    (kind, sdp_use)
}

/// Side that sent a message whose From is `dialog_side`.
fn sender(message: &Message<'_>, dialog_side: Side) -> Side {
    if message.code().is_some() { dialog_side.opposite() } else { dialog_side }
}

/// Tag of the callee, in To or From.
fn callee_tag<'a>(message: &Message<'a>, dialog_side: Side) -> &'a [u8] {
    match dialog_side {
        Side::Caller => message.to.tag(),
        Side::Callee => message.from.tag(),
    }
}
