//! Messages outside calls: REGISTER, OPTIONS, SUBSCRIBE, PUBLISH, MESSAGE and similar. They are counted, not kept.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::super::sip::{Message, Method, StartLine};
use super::log::is_copy;
use super::{
    COPY_NS, EventKind, MessageCounts, PacketMeta, RETRANSMISSION_NS, SESSION_REPEATS_MAX, hash_bytes,
};

/// Counters of messages outside calls.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sessions {
    pub counts: MessageCounts,
    pub retransmissions: u64,
    pub copies: u64,
    /// The latest messages.
    latest: VecDeque<Transmission>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Transmission {
    /// Hash of the whole message and its flow.
    hash: u64,
    ip_id: u16,
    vlan: u16,
    time_ns: i64,
}

impl Sessions {
    pub(super) fn add(&mut self, packet: &PacketMeta, message: &Message<'_>, bytes: &[u8]) -> EventKind {
        self.counts.add(message);
        let flow = packet.flow;
        let ports = u64::from(flow.source.port) << 16 | u64::from(flow.destination.port);
        let hash = hash_bytes(bytes) ^ ports.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let time_ns = packet.place.time_ns;
        for last in self.latest.iter_mut().rev().filter(|last| last.hash == hash) {
            let elapsed = time_ns.saturating_sub(last.time_ns).saturating_abs();
            if elapsed <= COPY_NS && is_copy((last.ip_id, last.vlan), (packet.ip_id, packet.vlan)) {
                self.copies = self.copies.saturating_add(1);
                return EventKind::Copy;
            }
            if elapsed <= RETRANSMISSION_NS {
                self.retransmissions = self.retransmissions.saturating_add(1);
                *last = Transmission { hash, ip_id: packet.ip_id, vlan: packet.vlan, time_ns };
                return EventKind::Retransmission;
            }
        }
        if self.latest.len() >= SESSION_REPEATS_MAX {
            self.latest.pop_front();
        }
        self.latest.push_back(Transmission { hash, ip_id: packet.ip_id, vlan: packet.vlan, time_ns });
        EventKind::Session
    }
}

/// Returns whether a message that belongs to no known call begins one. A call may be seen from its middle, so the
/// methods that occur only in calls do; INFO, PRACK and UPDATE only within a dialog, because scanners send them alone.
pub(super) fn begins_call(message: &Message<'_>) -> bool {
    match message.method() {
        Method::Invite | Method::Ack | Method::Bye | Method::Cancel => true,
        Method::Prack | Method::Update | Method::Info => !message.to.tag().is_empty(),
        _ => false,
    }
}

/// Returns whether a message may belong to a call at all. A registration with the Call-ID and tag of a call does not.
pub(super) fn may_be_in_call(message: &Message<'_>) -> bool {
    let is_request_outside =
        matches!(message.start, StartLine::Request { .. }) && message.to.tag().is_empty();
    match message.method() {
        Method::Register | Method::Publish => false,
        Method::Options | Method::Subscribe | Method::Message | Method::Notify => !is_request_outside,
        _ => true,
    }
}
