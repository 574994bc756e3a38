//! Calls of a capture: which SIP messages belong to which call, and what they say about it.
//!
//! A call is a Call-ID with the From tag of its caller (RFC 3261 section 12). Responses and requests of the callee
//! belong to it with their tags swapped. Forks are legs of one call; a B2BUA makes two calls. The table is bounded in
//! calls and in memory, and it is stored in the index between runs.

mod counts;
mod log;
mod record;
mod session;
mod state;
mod table;
#[cfg(test)]
mod tests;
mod to_view;

use counts::MessageCounts;
use log::Repeat;
pub(crate) use record::{CallRecord, SdpUse};
pub(crate) use table::{Calls, Totals};
#[cfg(test)]
use to_view::short_id;
pub(crate) use to_view::to_view;

use super::endpoint::{Flow, PacketPlace};
use super::view::{Side, SipTransport};

/// Most open calls. A busy switch has some thousand. Beyond it the call that was idle longest is cut and counted in
/// [`Totals::cut`].
pub(crate) const OPEN_CALLS_MAX: usize = 65_536;

/// Most memory of open calls in bytes, about. A call of seven messages takes about 3 KiB, so that attackers need long headers
/// or many messages to reach it. Beyond it the call that was idle longest is cut and counted in [`Totals::cut`].
pub(crate) const STATE_BYTES_MAX: usize = 128 * 1024 * 1024;

/// Most messages that are kept of a call: voipmonitor keeps as many. More are counted in [`CallRecord::messages_omitted`].
pub(crate) const MESSAGES_MAX: usize = 2_000;

/// Most session descriptions that are kept of a call. Session timers repeat the same one, which is kept once. More are
/// counted in [`CallRecord::sdps_omitted`].
pub(crate) const SDPS_MAX: usize = 64;

/// Most legs (To tags) of a call. Hunt groups have some ten. More are counted in [`CallRecord::legs_omitted`].
pub(crate) const LEGS_MAX: usize = 64;

/// Most digits of SIP INFO in a call. More are counted in [`CallRecord::digits_omitted`].
pub(crate) const DIGITS_MAX: usize = 1_024;

/// Longest Call-ID and longest tag in bytes. Real ones are below 130. Messages with longer ones are not assigned and
/// are counted in [`Totals::ids_too_long`]: cutting them would join different calls.
pub(crate) const ID_BYTES_MAX: usize = 512;

/// Longest text in bytes that is kept of a display name, a URI or an agent.
pub(crate) const TEXT_BYTES_MAX: usize = 256;

/// Latest messages of a call among which repeats are looked for. A transaction has up to 11 transmissions of a request
/// (RFC 3261 section 17.1), on a few hops.
pub(crate) const REPEAT_WINDOW: usize = 64;

/// Latest messages outside calls (REGISTER, OPTIONS, ...) among which repeats are looked for.
pub(crate) const SESSION_REPEATS_MAX: usize = 64;

/// Time in which a copy of a packet follows it: mirror ports deliver within a few milliseconds, and a retransmission
/// comes after 500 ms (T1) at the earliest.
pub(crate) const COPY_NS: i64 = 20_000_000;

/// Time in which a message is retransmitted: 64 * T1 (RFC 3261 section 17.1.1.2, timer B).
pub(crate) const RETRANSMISSION_NS: i64 = 32_000_000_000;

/// Idle time after which an ended call is finished: two times [`RETRANSMISSION_NS`].
pub(crate) const ENDED_IDLE_NS: i64 = 64_000_000_000;

/// Idle time after which a call without answer is finished. Timer C of proxies (RFC 3261 section 16.6) is above 3
/// minutes.
pub(crate) const UNANSWERED_IDLE_NS: i64 = 300_000_000_000;

/// Packet that ended a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PacketMeta {
    pub place: PacketPlace,
    /// Offset of the record of the packet with the first byte of the message.
    pub first_offset: u64,
    pub flow: Flow,
    /// Identification of the IPv4 header. 0 for IPv6, and for TCP.
    pub ip_id: u16,
    /// Outermost VLAN. 0 if there is none.
    pub vlan: u16,
    pub transport: SipTransport,
}

/// What a message did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EventKind {
    /// It is the first message of a call.
    NewCall,
    /// It belongs to a call.
    Message,
    /// It belongs to a call, and was seen before on another hop.
    Hop,
    /// It was sent again.
    Retransmission,
    /// The capture has the packet twice.
    Copy,
    /// It belongs to no call: REGISTER, OPTIONS and similar.
    Session,
    /// Its Call-ID or a tag is longer than [`ID_BYTES_MAX`].
    Rejected,
}

/// Result of [`Calls::add`].
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Event {
    pub kind: EventKind,
    /// Number of the call. `None` if the message belongs to no call.
    pub call: Option<u64>,
    /// Side that sent the message.
    pub side: Option<Side>,
    /// Session description of the message, if it is not a repeat. Also if it is over a limit of the history.
    pub sdp: Option<SdpUse>,
    /// Calls that a limit cut to make room for this one.
    pub cut: Vec<CallRecord>,
}

impl Event {
    fn outside_calls(kind: EventKind) -> Event {
        Event { kind, call: None, side: None, sdp: None, cut: Vec::new() }
    }
}

/// 64-bit hash that is the same in each run. Not safe against collisions that are made on purpose: compare what else
/// identifies a message, too.
fn hash_bytes(bytes: &[u8]) -> u64 {
    const MULTIPLIER: u64 = 0x9E37_79B9_7F4A_7C15;
    let fold = |hash: u64, word: u64| {
        let product = u128::from(hash ^ word) * u128::from(MULTIPLIER);
        (product as u64) ^ ((product >> 64) as u64)
    };
    let (words, rest) = bytes.as_chunks::<8>();
    let hash = words
        .iter()
        .fold(MULTIPLIER ^ bytes.len() as u64, |hash, word| fold(hash, u64::from_le_bytes(*word)));
    let mut last = [0_u8; 8];
    last.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
    fold(fold(hash, u64::from_le_bytes(last)), MULTIPLIER)
}

/// Text cut to [`TEXT_BYTES_MAX`] at a character.
fn limit_text(mut text: String) -> String {
    if text.len() > TEXT_BYTES_MAX {
        text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
    }
    text
}
