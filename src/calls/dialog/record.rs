//! State of one call.

use serde::{Deserialize, Serialize};

use super::super::endpoint::{Flow, PacketPlace};
use super::super::sdp::Sdp;
use super::super::sip::{Address, Content, Message, Method, text};
use super::super::view::{Digit, EndReason, Party, Side};
use super::log::{Identity, MessageRecord};
use super::{DIGITS_MAX, LEGS_MAX, MESSAGES_MAX, PacketMeta, SDPS_MAX, limit_text};

/// Call with everything that its messages said. Times are nanoseconds since 1970.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct CallRecord {
    /// Number of the call in this capture, from 1.
    pub number: u64,
    pub call_id: Box<[u8]>,
    /// From tag of the caller.
    pub from_tag: Box<[u8]>,
    /// Times that the same Call-ID and tag were used before for another call that the table still had.
    pub reuse: u32,
    pub caller: Party,
    pub callee: Party,
    pub start_ns: i64,
    /// First 18x.
    pub ringing_ns: Option<i64>,
    /// First 2xx.
    pub answered_ns: Option<i64>,
    pub ended_ns: Option<i64>,
    pub last_ns: i64,
    pub end: Option<EndReason>,
    /// First final response to the INVITE that is not a challenge. That of the answer if it was answered.
    pub final_code: Option<u16>,
    /// A 2xx was seen, or messages that follow only a 2xx.
    pub is_answered: bool,
    /// The first message was not the INVITE.
    pub is_partial: bool,
    /// A limit of the table ended it.
    pub is_cut: bool,
    /// A provisional response had a session description (RFC 3960).
    pub has_early_media: bool,
    pub legs: Vec<Leg>,
    pub legs_omitted: u32,
    pub messages: Vec<MessageRecord>,
    pub messages_omitted: u64,
    pub sdps: Vec<SdpUse>,
    pub sdps_omitted: u64,
    pub info_digits: Vec<Digit>,
    pub digits_omitted: u64,
    pub retransmissions: u64,
    pub copies: u64,
    /// Target of a REFER (RFC 3515): the call was transferred.
    pub transfer_target: Option<String>,
    /// Replaces header of the INVITE (RFC 3891): the call takes the place of another one.
    pub replaces: Option<String>,
    /// P-Asserted-Identity of the caller (RFC 3325), else Remote-Party-ID.
    pub asserted_identity: Option<String>,
    /// The INVITE has Diversion or History-Info.
    pub has_diversion: bool,
    /// The call is a recording session (RFC 7866).
    pub is_siprec: bool,
    /// Memory in bytes, about.
    pub(super) memory: usize,
    pub(super) invite: Option<InviteTransaction>,
    pub(super) cancel_ns: Option<i64>,
    /// Challenge that no INVITE followed: status code and time.
    pub(super) challenge: Option<(u16, i64)>,
    /// Final error of another hop, which counts if the first hop has none: status code and time.
    pub(super) distant_final: Option<(u16, i64)>,
    pub(super) bye: Option<ByeTransaction>,
}

/// INVITE that begins the call, of the first hop that was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct InviteTransaction {
    pub cseq: u32,
    pub branch: u64,
    pub flow: Flow,
}

/// BYE that ended the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ByeTransaction {
    pub side: Side,
    pub cseq: u32,
    /// It was answered with 401 or 407, so it comes again.
    pub is_challenged: bool,
}

/// Dialog of a call: a To tag of the callee.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Leg {
    pub tag: Box<[u8]>,
    /// First 2xx to the INVITE.
    pub answered_ns: Option<i64>,
    /// The 2xx was acknowledged.
    pub is_acked: bool,
    /// A BYE was seen.
    pub is_ended: bool,
    /// Messages with this tag, on all hops.
    pub messages: u64,
}

/// Session description with its sender.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SdpUse {
    /// Index in [`CallRecord::messages`]. `None` if the message was over the limit.
    pub message: Option<u32>,
    pub place: PacketPlace,
    /// Side that sent it, so that receives at its addresses.
    pub side: Side,
    /// Index in [`CallRecord::legs`].
    pub leg: Option<u16>,
    pub sdp: Sdp,
}

impl CallRecord {
    /// A call that begins with `message`. The one in From is the caller.
    pub(super) fn new(number: u64, packet: &PacketMeta, message: &Message<'_>) -> CallRecord {
        let is_invite = message.method() == Method::Invite && message.code().is_none();
        let mut call = CallRecord {
            number,
            call_id: message.call_id.into(),
            from_tag: message.from.tag().into(),
            reuse: 0,
            caller: party(&message.from),
            callee: party(&message.to),
            start_ns: packet.place.time_ns,
            ringing_ns: None,
            answered_ns: None,
            ended_ns: None,
            last_ns: packet.place.time_ns,
            end: None,
            final_code: None,
            is_answered: false,
            is_partial: !(is_invite && message.to.tag().is_empty()),
            is_cut: false,
            has_early_media: false,
            legs: Vec::new(),
            legs_omitted: 0,
            messages: Vec::new(),
            messages_omitted: 0,
            sdps: Vec::new(),
            sdps_omitted: 0,
            info_digits: Vec::new(),
            digits_omitted: 0,
            retransmissions: 0,
            copies: 0,
            transfer_target: None,
            replaces: None,
            asserted_identity: None,
            has_diversion: false,
            is_siprec: false,
            memory: 0,
            invite: None,
            cancel_ns: None,
            challenge: None,
            distant_final: None,
            bye: None,
        };
        let parties = [&call.caller, &call.callee]
            .map(|party| party.user.len() + party.uri.len() + party.display.len());
        // The key of the table is another copy of Call-ID and tag.
        let ids = 2 * (call.call_id.len() + call.from_tag.len());
        call.memory = size_of::<CallRecord>() + ids + parties.iter().sum::<usize>();
        call
    }

    /// Index of the leg of a callee's tag, which is added if it is new. `None` without tag, or over the limit.
    pub(super) fn leg_index(&mut self, tag: &[u8]) -> Option<u16> {
        if tag.is_empty() {
            return None;
        }
        if let Some(index) = self.legs.iter().position(|leg| *leg.tag == *tag) {
            return u16::try_from(index).ok();
        }
        if self.legs.len() >= LEGS_MAX {
            self.legs_omitted = self.legs_omitted.saturating_add(1);
            return None;
        }
        self.memory += size_of::<Leg>() + tag.len();
        self.legs.push(Leg {
            tag: tag.into(),
            answered_ns: None,
            is_acked: false,
            is_ended: false,
            messages: 0,
        });
        u16::try_from(self.legs.len() - 1).ok()
    }

    pub(super) fn leg_mut(&mut self, leg: Option<u16>) -> Option<&mut Leg> {
        self.legs.get_mut(usize::from(leg?))
    }

    /// Keeps a message. Returns its index, or `None` if the limit is reached.
    pub(super) fn push_message(
        &mut self,
        packet: &PacketMeta,
        message: &Message<'_>,
        identity: &Identity<'_>,
        has_sdp: bool,
    ) -> Option<u32> {
        if let Some(leg) = self.leg_mut(identity.leg) {
            leg.messages = leg.messages.saturating_add(1);
        }
        if self.messages.len() >= MESSAGES_MAX {
            self.messages_omitted = self.messages_omitted.saturating_add(1);
            return None;
        }
        let record = MessageRecord::new(packet, message, identity, has_sdp);
        self.memory += record.memory();
        self.messages.push(record);
        u32::try_from(self.messages.len() - 1).ok()
    }

    /// Keeps a session description, unless it repeats the one before it of the same side and leg.
    pub(super) fn push_sdp(&mut self, sdp_use: &SdpUse) {
        let last = self.sdps.iter().rev().find(|last| last.side == sdp_use.side && last.leg == sdp_use.leg);
        if last.is_some_and(|last| last.sdp == sdp_use.sdp) {
            return;
        }
        if self.sdps.len() >= SDPS_MAX {
            self.sdps_omitted = self.sdps_omitted.saturating_add(1);
            return;
        }
        self.memory += size_of::<SdpUse>() + sdp_use.sdp.memory();
        self.sdps.push(sdp_use.clone());
    }

    pub(super) fn count_retransmission(&mut self, index: usize, packet: &PacketMeta) {
        if let Some(first) = self.messages.get_mut(index) {
            first.count_retransmission(packet);
        }
        self.retransmissions = self.retransmissions.saturating_add(1);
    }

    /// Takes the digit of an INFO request.
    pub(super) fn note_digit(&mut self, packet: &PacketMeta, content: &Content<'_>, identity: &Identity<'_>) {
        let is_info = identity.method == Method::Info && identity.code.is_none();
        let Some(signal) = content.dtmf.filter(|_| is_info) else { return };
        if self.info_digits.len() >= DIGITS_MAX {
            self.digits_omitted = self.digits_omitted.saturating_add(1);
            return;
        }
        self.memory += size_of::<Digit>();
        self.info_digits.push(Digit {
            time_ns: packet.place.time_ns,
            digit: signal.digit,
            duration_ms: signal.duration_ms,
            side: Some(identity.side),
        });
    }

    /// Takes what a message says besides the state: agents, identity, transfer, recording.
    pub(super) fn note(&mut self, message: &Message<'_>, content: &Content<'_>, side: Side) {
        self.is_siprec |= content.is_siprec;
        self.note_agent(message, side);
        if message.code().is_some() {
            return;
        }
        match message.method() {
            Method::Invite if side == Side::Caller => {
                self.has_diversion |= message.has_diversion;
                let identities = [message.asserted_identity, message.remote_party_id];
                let identity = identities.into_iter().find(|value| !value.is_empty());
                note_text(&mut self.asserted_identity, &mut self.memory, identity, |value| {
                    Address::parse_first(value).uri().bare_text()
                });
                let replaces = Some(message.replaces).filter(|value| !value.is_empty());
                note_text(&mut self.replaces, &mut self.memory, replaces, text);
            }
            Method::Refer => {
                let target = Some(message.refer_to).filter(|value| !value.is_empty());
                note_text(&mut self.transfer_target, &mut self.memory, target, |value| {
                    Address::parse(value).uri().bare_text()
                });
            }
            _ => {}
        }
    }

    /// Proxies answer with 100 and with challenges in their own name. The one who answered the call is the callee.
    fn note_agent(&mut self, message: &Message<'_>, side: Side) {
        let code = message.code().unwrap_or(0);
        if message.agent.is_empty() || matches!(code, 100 | 401 | 407) {
            return;
        }
        let agent = match side {
            Side::Caller => &mut self.caller.agent,
            Side::Callee => &mut self.callee.agent,
        };
        let is_answer = message.method() == Method::Invite && (200..300).contains(&code);
        if agent.is_empty() || (is_answer && !self.is_answered) {
            self.memory = self.memory.saturating_sub(agent.len());
            *agent = limit_text(text(message.agent));
            self.memory += agent.len();
        }
    }
}

/// Sets a text that is not set yet.
fn note_text(
    field: &mut Option<String>,
    memory: &mut usize,
    value: Option<&[u8]>,
    convert: impl FnOnce(&[u8]) -> String,
) {
    if let (None, Some(value)) = (&field, value) {
        let value = limit_text(convert(value));
        *memory += value.len();
        *field = Some(value);
    }
}

fn party(address: &Address<'_>) -> Party {
    let uri = address.uri();
    Party {
        user: limit_text(uri.user_text()),
        uri: limit_text(uri.bare_text()),
        display: limit_text(address.display_text()),
        agent: String::new(),
    }
}
