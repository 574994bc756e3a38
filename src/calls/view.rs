//! Calls as they are shown: what `lea calls list`, `show` and `check`, the event store and the page see of a call.
//!
//! The engine makes these values of its own state. They hold no references into the capture, so they can be kept, sorted,
//! and compared. All times are nanoseconds since 1970, all durations nanoseconds.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::endpoint::{Endpoint, Flow, PacketPlace};
use super::media::MediaFormat;
use super::rtp::Window;

/// State of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum CallState {
    /// INVITE seen, no provisional response with more than 100.
    Trying,
    /// 180 or another 18x seen.
    Ringing,
    /// Answered (2xx), not ended yet.
    Answered,
    /// Answered and ended.
    Completed,
    /// Ended by CANCEL before an answer.
    Cancelled,
    /// Ended by the callee: 486, 600, 603 and similar.
    Rejected,
    /// Ended by another final error (4xx, 5xx, 6xx), or without any response.
    Failed,
}

impl CallState {
    pub(crate) const ALL: [CallState; 7] = [
        CallState::Trying,
        CallState::Ringing,
        CallState::Answered,
        CallState::Completed,
        CallState::Cancelled,
        CallState::Rejected,
        CallState::Failed,
    ];

    /// Name in JSON, in queries and in tables.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            CallState::Trying => "trying",
            CallState::Ringing => "ringing",
            CallState::Answered => "answered",
            CallState::Completed => "completed",
            CallState::Cancelled => "cancelled",
            CallState::Rejected => "rejected",
            CallState::Failed => "failed",
        }
    }

    pub(crate) fn parse(text: &str) -> Option<CallState> {
        CallState::ALL.into_iter().find(|state| state.as_str() == text)
    }
}

/// Why a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum EndReason {
    ByeOfCaller,
    ByeOfCallee,
    Cancel,
    /// Final error response.
    Response,
    /// Nothing more was seen of an answered call.
    NoBye,
    /// Nothing more was seen of a call without final response.
    NoResponse,
    /// A limit of the analysis ended it ([`Call::is_cut`]).
    Limit,
}

/// Side of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Side {
    Caller,
    Callee,
}

impl Side {
    /// Returns the other side.
    pub(crate) fn opposite(self) -> Side {
        match self {
            Side::Caller => Side::Callee,
            Side::Callee => Side::Caller,
        }
    }

    /// Name in JSON and in tables.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Side::Caller => "caller",
            Side::Callee => "callee",
        }
    }
}

/// Caller or callee.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Party {
    /// User part of the URI, unescaped. Usually a phone number. Empty if the URI has none.
    pub user: String,
    /// Whole URI without parameters, as in `sip:+447700900123@example.com`.
    pub uri: String,
    /// Display name. Empty if there is none.
    pub display: String,
    /// `User-Agent` or `Server` of this side. Empty if there is none.
    pub agent: String,
}

/// SIP message of a call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CallMessage {
    /// Packet with the last byte of the message.
    pub place: PacketPlace,
    /// Offset of the record of the packet with the first byte.
    pub first_offset: u64,
    pub source: Endpoint,
    pub destination: Endpoint,
    /// `INVITE`, or `200 OK`.
    pub text: String,
    /// Status code of a response.
    pub code: Option<u16>,
    /// CSeq: number and method.
    pub cseq: u32,
    pub method: String,
    /// To-tag; tells forks apart. Empty if there is none.
    pub to_tag: String,
    pub has_sdp: bool,
    /// Times that the same message was seen again (RFC 3261 section 17). Copies of the capture are not counted.
    pub retransmissions: u32,
    pub transport: SipTransport,
}

impl CallMessage {
    pub(crate) fn flow(&self) -> Flow {
        Flow { source: self.source, destination: self.destination }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum SipTransport {
    Udp,
    Tcp,
    WebSocket,
    Sctp,
}

/// How an RTP stream was assigned to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Binding {
    /// Its destination is an address and port of the call's SDP.
    Sdp,
    /// It is the opposite direction of a stream that is bound.
    Reverse,
    /// Its destination port occurs in the SDP of only one call of that time.
    Port,
    /// It belongs to no call.
    None,
}

/// RTP stream with its statistics.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct MediaStream {
    pub source: Endpoint,
    pub destination: Endpoint,
    pub ssrc: u32,
    /// Side that sent it. `None` if unknown.
    pub side: Option<Side>,
    pub binding: Binding,
    /// As in `PCMA`, `opus`. The payload type as `PT 97` if unknown.
    pub codec: String,
    /// RTP clock in hertz, and whether it was estimated from arrival times.
    pub clock_hz: u32,
    pub is_clock_estimated: bool,
    pub is_encrypted: bool,
    pub first_ns: i64,
    pub last_ns: i64,
    /// Packets received, without copies of the capture; with duplicates of the network.
    pub packets: u64,
    pub payload_bytes: u64,
    /// Packets that never arrived, by sequence number.
    pub lost: u64,
    /// Of `lost`, those missing in several unrelated streams at once: lost by the recorder, not by the network.
    pub lost_by_capture: u64,
    pub duplicates: u64,
    pub reordered: u64,
    /// Packets so late that a jitter buffer of 200 ms would have discarded them.
    pub late: u64,
    /// Copies of a packet that the capture has twice (mirror ports).
    pub copies: u64,
    /// Times that the sequence started anew.
    pub restarts: u64,
    /// Lengths of loss runs: 1, 2, ... 10, more than 10.
    pub loss_runs: [u64; 11],
    /// Inter-arrival jitter of RFC 3550 section 6.4.1, in milliseconds: mean and maximum.
    pub jitter_mean_ms: f64,
    pub jitter_max_ms: f64,
    /// Time between packets in milliseconds: mean and maximum.
    pub delta_mean_ms: f64,
    pub delta_max_ms: f64,
    /// Mean opinion score by G.107. `None` if no values are published for the codec, or audio is encrypted.
    pub mos: Option<f64>,
    /// Reported by the receiver in RTCP: fraction lost 0..1, jitter in ms, round trip in ms.
    pub reported_loss: Option<f64>,
    pub reported_jitter_ms: Option<f64>,
    pub reported_rtt_ms: Option<f64>,
    /// Mean opinion score that the receiver reports (RFC 3611).
    pub reported_mos: Option<f64>,
    pub digits: Vec<Digit>,
    /// Packets and jitter over time, and the length of a window in nanoseconds.
    pub windows: Vec<Window>,
    pub window_ns: i64,
    /// Payload types that SDP describes.
    pub formats: Vec<MediaFormat>,
    /// Offsets of the records of the first and the last packet in the capture, in bytes.
    pub first_offset: u64,
    pub last_offset: u64,
}

impl MediaStream {
    pub(crate) fn flow(&self) -> Flow {
        Flow { source: self.source, destination: self.destination }
    }
}

/// DTMF digit, from RFC 4733 events or SIP INFO.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Digit {
    pub time_ns: i64,
    pub digit: char,
    pub duration_ms: u32,
    pub side: Option<Side>,
}

/// Something about a call that an analyst should look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Finding {
    /// Answered, but there is no RTP.
    NoMedia,
    /// Answered, with RTP from one side only.
    OneWay,
    /// RTP went on for more than 2 s after the BYE.
    MediaAfterBye,
    /// Answered, and nothing more was seen of it.
    NoBye,
    /// The same Call-ID with several answered forks.
    SeveralAnswers,
    /// More than 1 % of the packets are copies of the capture.
    Copies,
    /// Packets are missing in several unrelated streams at once, or the capture is damaged.
    CaptureHasGap,
    /// Media are encrypted.
    Srtp,
    /// More than 1 % of the packets of a stream were lost.
    Loss,
    /// A limit of the analysis cut the call short.
    Cut,
}

impl Finding {
    /// Name in JSON, in queries and in tables.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Finding::NoMedia => "no_media",
            Finding::OneWay => "one_way",
            Finding::MediaAfterBye => "media_after_bye",
            Finding::NoBye => "no_bye",
            Finding::SeveralAnswers => "several_answers",
            Finding::Copies => "copies",
            Finding::CaptureHasGap => "capture_has_gap",
            Finding::Srtp => "srtp",
            Finding::Loss => "loss",
            Finding::Cut => "cut",
        }
    }
}

/// A call of a capture.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Call {
    /// First 10 hex digits of the SHA-256 of stream name, Call-ID and from-tag.
    pub id: String,
    /// Capture that has it: its path, or its name in the vault.
    pub capture: String,
    pub call_id: String,
    pub from_tag: String,
    pub caller: Party,
    pub callee: Party,
    pub state: CallState,
    pub end: Option<EndReason>,
    /// Status code of the final response to the first INVITE that was not challenged (401, 407).
    pub final_code: Option<u16>,
    pub start_ns: i64,
    pub ringing_ns: Option<i64>,
    pub answered_ns: Option<i64>,
    pub ended_ns: Option<i64>,
    /// Last packet of the call, signalling or media.
    pub last_ns: i64,
    /// Number of to-tags (forks).
    pub legs: u32,
    pub messages: Vec<CallMessage>,
    /// Messages over the limit, which are counted and not listed.
    pub messages_omitted: u64,
    pub streams: Vec<MediaStream>,
    /// DTMF digits of SIP INFO. Those of RTP are in the streams.
    pub info_digits: Vec<Digit>,
    pub findings: Vec<Finding>,
    pub is_cut: bool,
}

impl Call {
    /// Time between answer and end, or the last packet if the end is unknown. `None` if it was not answered.
    pub(crate) fn talk_ns(&self) -> Option<i64> {
        let end = self.ended_ns.unwrap_or(self.last_ns);
        self.answered_ns.map(|answered| end.saturating_sub(answered).max(0))
    }

    /// Time between the first INVITE and the first 18x, or the answer.
    pub(crate) fn setup_ns(&self) -> Option<i64> {
        self.ringing_ns.or(self.answered_ns).map(|ns| ns.saturating_sub(self.start_ns).max(0))
    }

    /// Returns the side without RTP, if the other one has some.
    pub(crate) fn silent_side(&self) -> Option<Side> {
        let is_silent =
            |side: &Side| !self.streams.iter().any(|stream| stream.side == Some(*side) && stream.packets > 0);
        let mut silent = [Side::Caller, Side::Callee].into_iter().filter(is_silent);
        silent.next().filter(|_| silent.next().is_none())
    }

    /// Number of streams per codec.
    pub(crate) fn codecs(&self) -> BTreeMap<&str, usize> {
        let mut codecs = BTreeMap::new();
        for stream in &self.streams {
            *codecs.entry(stream.codec.as_str()).or_default() += 1;
        }
        codecs
    }
}
