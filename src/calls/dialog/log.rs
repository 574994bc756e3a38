//! Messages of a call: which are new, which were sent again, and which the capture has twice.

use serde::{Deserialize, Serialize};

use super::super::endpoint::{Flow, PacketPlace};
use super::super::sip::{Message, Method, StartLine, text};
use super::super::view::{Side, SipTransport};
use super::{COPY_NS, PacketMeta, REPEAT_WINDOW, RETRANSMISSION_NS, hash_bytes, limit_text};

/// Message that is kept of a call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MessageRecord {
    pub place: PacketPlace,
    /// Offset of the record of the packet with the first byte.
    pub first_offset: u64,
    pub flow: Flow,
    pub transport: SipTransport,
    /// Side that sent it.
    pub side: Side,
    /// Index in [`super::CallRecord::legs`].
    pub leg: Option<u16>,
    /// Method of the request, or of the request that is answered.
    pub method: Method,
    /// Name of a method that is [`Method::Other`]. Empty otherwise.
    pub method_name: Box<str>,
    /// Status code of a response.
    pub code: Option<u16>,
    /// Reason phrase of a response.
    pub reason: Box<str>,
    pub cseq: u32,
    pub has_sdp: bool,
    pub retransmissions: u32,
    branch: u64,
    bytes: u64,
    /// Of the last transmission.
    last_ip_id: u16,
    last_vlan: u16,
    last_ns: i64,
}

/// How a message relates to those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Repeat {
    None,
    /// The same message on another hop: another flow or another top Via.
    Hop,
    /// Sent again by the same sender. Index of the message in the call.
    Retransmission(usize),
    /// The same packet once more.
    Copy(usize),
}

/// What identifies a message within its call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Identity<'a> {
    pub method: Method,
    pub method_name: &'a [u8],
    pub code: Option<u16>,
    pub cseq: u32,
    pub side: Side,
    pub leg: Option<u16>,
    pub branch: u64,
    pub bytes: u64,
}

impl<'a> Identity<'a> {
    pub(super) fn new(message: &Message<'a>, bytes: &[u8], side: Side, leg: Option<u16>) -> Identity<'a> {
        Identity {
            method: message.method(),
            method_name: message.cseq.method,
            code: message.code(),
            cseq: message.cseq.number,
            side,
            leg,
            branch: hash_bytes(message.via.branch()),
            bytes: hash_bytes(bytes),
        }
    }
}

impl MessageRecord {
    pub(super) fn new(
        packet: &PacketMeta,
        message: &Message<'_>,
        identity: &Identity<'_>,
        has_sdp: bool,
    ) -> Self {
        let reason = match message.start {
            StartLine::Response { reason, .. } => limit_text(text(reason)),
            StartLine::Request { .. } => String::new(),
        };
        let method_name = match identity.method {
            Method::Other => limit_text(text(identity.method_name)),
            _ => String::new(),
        };
        MessageRecord {
            place: packet.place,
            first_offset: packet.first_offset,
            flow: packet.flow,
            transport: packet.transport,
            side: identity.side,
            leg: identity.leg,
            method: identity.method,
            method_name: method_name.into(),
            code: identity.code,
            reason: reason.into(),
            cseq: identity.cseq,
            has_sdp,
            retransmissions: 0,
            branch: identity.branch,
            bytes: identity.bytes,
            last_ip_id: packet.ip_id,
            last_vlan: packet.vlan,
            last_ns: packet.place.time_ns,
        }
    }

    /// Method name as on the wire.
    pub(crate) fn method_text(&self) -> &str {
        if self.method == Method::Other { &self.method_name } else { self.method.as_str() }
    }

    pub(super) fn memory(&self) -> usize {
        size_of::<MessageRecord>() + self.method_name.len() + self.reason.len()
    }

    /// Hash of the branch of the top Via.
    pub(super) fn branch(&self) -> u64 {
        self.branch
    }

    pub(super) fn count_retransmission(&mut self, packet: &PacketMeta) {
        self.retransmissions = self.retransmissions.saturating_add(1);
        self.last_ns = packet.place.time_ns;
        self.last_ip_id = packet.ip_id;
        self.last_vlan = packet.vlan;
    }

    /// Compares all but branch and flow.
    fn is_same_message(&self, identity: &Identity<'_>) -> bool {
        self.cseq == identity.cseq
            && self.method == identity.method
            && self.code == identity.code
            && self.side == identity.side
            && self.leg == identity.leg
            && (self.method != Method::Other || *self.method_name == *limit_text(text(identity.method_name)))
    }

    fn repeat(&self, index: usize, packet: &PacketMeta, identity: &Identity<'_>) -> Repeat {
        let elapsed = packet.place.time_ns.saturating_sub(self.last_ns).saturating_abs();
        if elapsed > RETRANSMISSION_NS || !self.is_same_message(identity) {
            return Repeat::None;
        }
        if self.flow != packet.flow || self.branch != identity.branch {
            return Repeat::Hop;
        }
        let has_same_bytes = self.bytes == identity.bytes;
        let last = (self.last_ip_id, self.last_vlan);
        if has_same_bytes && elapsed <= COPY_NS && is_copy(last, (packet.ip_id, packet.vlan)) {
            return Repeat::Copy(index);
        }
        // Provisional responses may differ in RSeq (RFC 3262) or SDP, and are then new ones.
        let is_provisional = self.code.is_some_and(|code| code < 200);
        if has_same_bytes || !is_provisional { Repeat::Retransmission(index) } else { Repeat::None }
    }
}

/// Returns whether a packet with the same bytes shortly after another one is a copy of it. A sender that repeats a
/// message gives it a new IP identification; a mirror port does not. Without identification (IPv6, or 0) and on
/// another VLAN, the bytes decide alone. Both are given as (IP identification, VLAN).
pub(super) fn is_copy(first: (u16, u16), second: (u16, u16)) -> bool {
    first.0 == second.0 || first.0 == 0 || second.0 == 0 || first.1 != second.1
}

/// Looks for a message among the latest [`REPEAT_WINDOW`] ones.
pub(super) fn find_repeat(
    messages: &[MessageRecord],
    packet: &PacketMeta,
    identity: &Identity<'_>,
) -> Repeat {
    let mut result = Repeat::None;
    for (index, message) in messages.iter().enumerate().rev().take(REPEAT_WINDOW) {
        match message.repeat(index, packet, identity) {
            Repeat::None => {}
            Repeat::Hop => result = Repeat::Hop,
            repeat => return repeat,
        }
    }
    result
}
