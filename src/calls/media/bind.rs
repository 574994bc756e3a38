//! Assigns streams to calls, when a stream starts and when a call signals an endpoint.

use std::hash::Hash;

use hashbrown::HashMap;
use hashbrown::hash_map::Entry;

use super::{
    BoundCall, CANDIDATES_MAX, CallNumber, ENDPOINTS_MAX, FORMATS_TOTAL_MAX, FlowStream, MediaEntry,
    MediaTable, MediaUse, REUSE_GAP_NS, STREAMS_EVICTED, SignalledEndpoint, SignalledMedia, USES_MAX,
    push_newest,
};
use crate::calls::endpoint::Endpoint;
use crate::calls::view::Binding;

impl MediaTable {
    /// Notes that a call receives media at an endpoint, and binds the streams with that destination. `is_ended` tells
    /// whether a call has ended: the next call of an endpoint starts new streams.
    pub(crate) fn signal(
        &mut self,
        media: &SignalledMedia<'_>,
        time_ns: i64,
        is_ended: impl Fn(CallNumber) -> bool,
    ) {
        let endpoint = media.endpoint;
        if !self.signalled.contains_key(&endpoint) && self.signalled.len() >= ENDPOINTS_MAX {
            self.counters.endpoints_over_limit += 1;
            return;
        }
        let new = MediaUse { call: media.call, receiver: media.receiver };
        let signalled = self.signalled.entry(endpoint).or_default();
        let is_known = signalled.uses.contains(&new);
        push_newest(&mut signalled.uses, new, USES_MAX);
        self.format_count -= signalled.formats.len();
        let has_room = self.format_count + media.formats.len() <= FORMATS_TOTAL_MAX;
        signalled.formats = if has_room { media.formats.to_vec() } else { Vec::new() };
        self.format_count += signalled.formats.len();
        signalled.is_encrypted = media.is_encrypted;
        self.counters.endpoints_over_limit += u64::from(!has_room);
        push_newest(self.uses_by_port.entry(endpoint.port).or_default(), new, USES_MAX);
        let there = self.by_destination.get(&endpoint).cloned().unwrap_or_default();
        for stream in there {
            if !is_known {
                self.close_if_of_earlier_call(stream, time_ns, &is_ended);
            }
            self.bind_signalled(stream, media);
        }
        if !is_known {
            self.bind_by_port(endpoint.port);
        }
    }

    /// Binds an open stream whose destination a call has signalled.
    fn bind_signalled(&mut self, stream: u32, media: &SignalledMedia<'_>) {
        let Some(entry) = self.entry_mut(stream).filter(|entry| entry.is_open) else { return };
        entry.add_formats(media.formats);
        entry.is_encrypted |= media.is_encrypted;
        let sender = media.receiver.opposite();
        self.bind(stream, BoundCall { call: media.call, sender, binding: Binding::Sdp });
        self.bind_reverse(stream);
        self.narrow(stream);
        let reverse = self.entry(stream).and_then(|entry| self.by_flow.get(&entry.flow.reversed()));
        if let Some(reverse) = reverse.map(|last| last.stream) {
            self.narrow(reverse);
        }
    }

    /// Decides between several calls that signal a stream's destination: those whose other side receives where the stream
    /// comes from are surer. Nearly all senders use one port for both directions (RFC 4961).
    fn narrow(&mut self, stream: u32) {
        let Some(entry) = self.entry(stream).filter(|entry| entry.calls.len() > 1) else { return };
        let Some(source) = self.signalled.get(&entry.flow.source) else { return };
        let is_symmetric =
            |bound: &BoundCall| source.uses.contains(&MediaUse { call: bound.call, receiver: bound.sender });
        let (kept, dropped): (Vec<_>, Vec<_>) = entry.calls.iter().copied().partition(is_symmetric);
        if kept.is_empty() {
            return;
        }
        if let Some(entry) = self.entry_mut(stream) {
            entry.calls = kept;
        }
        for bound in dropped {
            forget(&mut self.by_call, bound.call, |other| *other == stream);
        }
    }

    /// Closes a stream that belongs to calls which are over.
    fn close_if_of_earlier_call(
        &mut self,
        stream: u32,
        time_ns: i64,
        is_ended: &impl Fn(CallNumber) -> bool,
    ) {
        let Some(entry) = self.entry(stream).filter(|entry| entry.is_open && !entry.calls.is_empty()) else {
            return;
        };
        let is_silent = time_ns.saturating_sub(entry.last_ns) > REUSE_GAP_NS;
        if is_silent || entry.calls.iter().all(|bound| is_ended(bound.call)) {
            self.close(stream);
        }
    }

    /// Makes further packets of the same flow and SSRC start a new stream.
    fn close(&mut self, stream: u32) {
        let Some(entry) = self.entry_mut(stream) else { return };
        entry.is_open = false;
        let (flow, ssrc) = (entry.flow, entry.ssrc);
        if self.by_ssrc.get(&(flow, ssrc)) == Some(&stream) {
            self.by_ssrc.remove(&(flow, ssrc));
        }
        if self.by_flow.get(&flow).is_some_and(|last| last.stream == stream) {
            self.by_flow.remove(&flow);
        }
        forget(&mut self.by_destination, flow.destination, |other| *other == stream);
        forget(&mut self.by_port, flow.destination.port, |other| *other == stream);
    }

    /// Binds a stream that starts.
    pub(super) fn bind_new(&mut self, stream: u32) {
        let Some(flow) = self.entry(stream).map(|entry| entry.flow) else { return };
        let SignalledEndpoint { uses, formats, is_encrypted } =
            self.signalled.get(&flow.destination).cloned().unwrap_or_default();
        if let Some(entry) = self.entry_mut(stream) {
            entry.add_formats(&formats);
            entry.is_encrypted |= is_encrypted;
        }
        for MediaUse { call, receiver } in uses {
            self.bind(stream, BoundCall { call, sender: receiver.opposite(), binding: Binding::Sdp });
        }
        self.narrow(stream);
        self.copy_reverse(stream);
        if self.entry(stream).is_some_and(|entry| entry.calls.is_empty()) {
            self.bind_by_port(flow.destination.port);
        }
        self.bind_reverse(stream);
    }

    /// Binds a stream as the opposite direction of one that is bound.
    fn copy_reverse(&mut self, stream: u32) {
        let Some(flow) = self.entry(stream).filter(|entry| entry.calls.is_empty()).map(|entry| entry.flow)
        else {
            return;
        };
        let Some(FlowStream { stream: other, .. }) = self.by_flow.get(&flow.reversed()).copied() else {
            return;
        };
        let Some(other) = self.entry(other) else { return };
        let (calls, formats, is_encrypted) = (other.calls.clone(), other.formats.clone(), other.is_encrypted);
        for bound in calls {
            let binding = Binding::Reverse;
            self.bind(stream, BoundCall { sender: bound.sender.opposite(), binding, ..bound });
        }
        if let Some(entry) = self.entry_mut(stream) {
            entry.add_formats(&formats);
            entry.is_encrypted |= is_encrypted;
        }
    }

    /// Binds the opposite direction of a stream, if it is not bound.
    fn bind_reverse(&mut self, stream: u32) {
        let Some(entry) = self.entry(stream).filter(|entry| !entry.calls.is_empty()) else { return };
        let reverse = self.by_flow.get(&entry.flow.reversed()).map(|last| last.stream);
        if let Some(reverse) = reverse {
            self.copy_reverse(reverse);
        }
    }

    /// Binds the unbound streams to a port that occurs in the SDP of one call only: NAT has changed their address.
    fn bind_by_port(&mut self, port: u16) {
        let Some([only]) = self.uses_by_port.get(&port).map(Vec::as_slice) else { return };
        let bound = BoundCall { call: only.call, sender: only.receiver.opposite(), binding: Binding::Port };
        let there = self.by_port.get(&port).cloned().unwrap_or_default();
        for stream in there {
            if self.entry(stream).is_some_and(|entry| entry.is_open && entry.calls.is_empty()) {
                self.bind(stream, bound);
                self.bind_reverse(stream);
            }
        }
    }

    /// Adds a call to a stream. A surer binding replaces the ones by port or direction.
    fn bind(&mut self, stream: u32, bound: BoundCall) {
        let Some(entry) = self.entry_mut(stream) else { return };
        let is_sdp = bound.binding == Binding::Sdp;
        let replaced: Vec<BoundCall> = entry
            .calls
            .extract_if(.., |known| known.call == bound.call || (is_sdp && known.binding != Binding::Sdp))
            .collect();
        if entry.calls.len() < USES_MAX {
            entry.calls.push(bound);
        }
        for known in replaced.iter().filter(|known| known.call != bound.call) {
            forget(&mut self.by_call, known.call, |other| *other == stream);
        }
        let streams = self.by_call.entry(bound.call).or_default();
        if !streams.contains(&stream) && streams.len() < CANDIDATES_MAX {
            streams.push(stream);
        }
    }

    /// Returns the streams of a call with their side and binding, in the order in which they were found.
    pub(crate) fn streams_of(&self, call: CallNumber) -> impl Iterator<Item = (&MediaEntry, BoundCall)> {
        self.by_call.get(&call).into_iter().flatten().filter_map(move |stream| {
            let entry = self.entry(*stream)?;
            Some((entry, *entry.calls.iter().find(|bound| bound.call == call)?))
        })
    }

    /// Time of the last packet of a call's streams. [`i64::MIN`] if it has none.
    pub(crate) fn last_ns_of(&self, call: CallNumber) -> i64 {
        self.streams_of(call).map(|(entry, _)| entry.last_ns).fold(i64::MIN, i64::max)
    }

    /// Returns the streams that belong to no call.
    pub(crate) fn unbound(&self) -> impl Iterator<Item = &MediaEntry> {
        self.entries.iter().filter_map(|entry| entry.as_deref()).filter(|entry| entry.calls.is_empty())
    }

    /// Forgets a call, its endpoints and the streams that belong to it alone.
    pub(crate) fn remove_call(&mut self, call: CallNumber, endpoints: impl Iterator<Item = Endpoint>) {
        for endpoint in endpoints {
            if let Entry::Occupied(mut entry) = self.signalled.entry(endpoint) {
                entry.get_mut().uses.retain(|known| known.call != call);
                if entry.get().uses.is_empty() {
                    self.format_count -= entry.remove().formats.len();
                }
            }
            forget(&mut self.uses_by_port, endpoint.port, |known| known.call == call);
        }
        for stream in self.by_call.remove(&call).unwrap_or_default() {
            let Some(entry) = self.entry_mut(stream) else { continue };
            entry.calls.retain(|bound| bound.call != call);
            if entry.calls.is_empty() {
                self.remove(stream);
            }
        }
    }

    /// Removes a stream.
    fn remove(&mut self, stream: u32) -> Option<Box<MediaEntry>> {
        self.close(stream);
        let entry = self.entries.get_mut(stream as usize)?.take()?;
        self.free.push(stream);
        for bound in &entry.calls {
            forget(&mut self.by_call, bound.call, |other| *other == stream);
        }
        Some(entry)
    }

    /// Removes the streams that have been idle longest.
    pub(super) fn evict(&mut self) {
        let mut idle: Vec<(i64, u32)> = (0_u32..)
            .zip(&self.entries)
            .filter_map(|(stream, entry)| Some((entry.as_deref()?.last_ns, stream)))
            .collect();
        let count = STREAMS_EVICTED.min(idle.len().saturating_sub(1));
        idle.select_nth_unstable(count);
        for (_, stream) in idle.into_iter().take(count) {
            self.counters.streams_over_limit += 1;
            let removed = self.remove(stream);
            self.evicted.extend(removed.map(|entry| *entry));
        }
    }

    /// Takes the streams that gave way to newer ones.
    pub(crate) fn take_evicted(&mut self) -> Vec<MediaEntry> {
        std::mem::take(&mut self.evicted)
    }
}

/// Removes the values of a key that match, and the key when nothing is left.
fn forget<K: Eq + Hash, T>(lists: &mut HashMap<K, Vec<T>>, key: K, matches: impl Fn(&T) -> bool) {
    if let Entry::Occupied(mut entry) = lists.entry(key) {
        entry.get_mut().retain(|value| !matches(value));
        if entry.get().is_empty() {
            entry.remove();
        }
    }
}
