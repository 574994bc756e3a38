//! State of an RTP stream: the packets of one SSRC in one flow.

use serde::{Deserialize, Serialize};

use super::events::{EventPacket, Events, looks_like_event};
use super::header::RtpHeader;
use super::jitter::{Jitter, MediaPacket, TimingTotals};
use super::payload_types::{Format, PayloadTypes, Role, static_format};
use super::recent::RecentPackets;
use super::sequence::{Arrival, Sequence, SequenceTotals};
use super::windows::{Window, Windows};

/// First of the dynamic payload types (RFC 3551 section 3).
const FIRST_DYNAMIC_TYPE: u8 = 96;

/// RTP packet of a capture.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RtpPacket<'a> {
    /// Nanoseconds since 1970.
    pub time_ns: i64,
    /// Identification of the IPv4 header; 0 with IPv6.
    pub ip_id: u16,
    pub header: RtpHeader,
    /// Captured part of the payload.
    pub payload: &'a [u8],
}

/// What a packet was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The next of its stream.
    Next,
    /// After `missing` packets that did not come yet. `start_ns` is the arrival of the packet before.
    Gap {
        start_ns: i64,
        missing: u32,
    },
    Reordered,
    Duplicate,
    /// The capture has it twice.
    Copy,
    /// Far from the sequence; the next packet tells why.
    Held,
    /// The second packet after a restart of the sender.
    Restart,
    /// Out of any sequence.
    Stray,
}

/// State of a stream.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct StreamState {
    ssrc: u32,
    /// Length of the last media payload in bytes.
    payload_bytes_last: u32,
    first_ns: i64,
    last_ns: i64,
    packets: u64,
    payload_bytes: u64,
    copies: u64,
    sequence: Sequence,
    jitter: Jitter,
    windows: Windows,
    types: PayloadTypes,
    recent: RecentPackets,
    /// Most streams have none.
    events: Option<Box<Events>>,
}

impl StreamState {
    pub(crate) fn new(ssrc: u32) -> StreamState {
        StreamState {
            ssrc,
            payload_bytes_last: 0,
            first_ns: 0,
            last_ns: 0,
            packets: 0,
            payload_bytes: 0,
            copies: 0,
            sequence: Sequence::default(),
            jitter: Jitter::default(),
            windows: Windows::default(),
            types: PayloadTypes::default(),
            recent: RecentPackets::default(),
            events: None,
        }
    }

    /// Accounts a packet of the stream. Packets come in the order of the file. `format` is what is known of its payload
    /// type at this time; it may become known later, and may change.
    pub(crate) fn add(&mut self, packet: &RtpPacket<'_>, format: Format) -> Outcome {
        if self.recent.is_copy(packet) {
            self.copies += 1;
            return Outcome::Copy;
        }
        self.count(packet);
        let role = self.role(packet, format);
        self.types.add(packet.header.payload_type, role);
        let start_ns = self.sequence.highest_ns();
        let header = &packet.header;
        let outcome = match self.sequence.add(header.sequence, header.timestamp, packet.time_ns) {
            Arrival::Next { missing: 0 } => Outcome::Next,
            Arrival::Next { missing } => Outcome::Gap { start_ns, missing },
            Arrival::Reordered => Outcome::Reordered,
            Arrival::Duplicate => return Outcome::Duplicate,
            Arrival::Held => return Outcome::Held,
            Arrival::Stray => return Outcome::Stray,
            Arrival::Restart => {
                self.jitter.restart();
                if let Some(events) = &mut self.events {
                    events.restart();
                }
                Outcome::Restart
            }
        };
        self.add_content(packet, format, role);
        outcome
    }

    #[inline]
    fn count(&mut self, packet: &RtpPacket<'_>) {
        if self.packets == 0 {
            self.first_ns = packet.time_ns;
            self.last_ns = packet.time_ns;
            self.windows.start(packet.time_ns);
        }
        self.packets += 1;
        self.payload_bytes += u64::from(packet.header.payload_bytes());
        self.last_ns = self.last_ns.max(packet.time_ns);
        if self.windows.is_over(packet.time_ns) {
            self.end_window(packet.time_ns);
        }
    }

    #[inline]
    fn role(&self, packet: &RtpPacket<'_>, format: Format) -> Role {
        if let Some(role) = format.role {
            return role;
        }
        match packet.header.payload_type {
            // 19 is reserved; old gateways send comfort noise with it.
            13 | 19 => Role::ComfortNoise,
            number if number >= FIRST_DYNAMIC_TYPE && looks_like_event(packet.payload) => {
                // A type that was media before stays it, whatever a short payload looks like.
                self.types.role(number).unwrap_or(Role::Event)
            }
            _ => Role::Media,
        }
    }

    #[inline]
    fn add_content(&mut self, packet: &RtpPacket<'_>, format: Format, role: Role) {
        let header = &packet.header;
        if role == Role::Event {
            self.jitter.add_gap();
            return self.events.get_or_insert_default().add(&EventPacket {
                time_ns: packet.time_ns,
                timestamp: header.timestamp,
                payload_type: header.payload_type,
                is_marker: header.is_marker,
                payload: packet.payload,
                clock_hz: format.clock_hz,
            });
        }
        // Comfort noise has the clock of the codec, whatever its static type says: it does not tell the clock.
        let clock_hz = match role {
            Role::Media if format.clock_hz == 0 => {
                static_format(header.payload_type).map_or(0, |(_, clock_hz)| clock_hz)
            }
            Role::Media => format.clock_hz,
            _ => 0,
        };
        if role == Role::Media {
            self.payload_bytes_last = header.payload_bytes();
        }
        if clock_hz != 0 && self.jitter.has_unknown_clock() {
            self.bind_windows(clock_hz);
        }
        let media = MediaPacket {
            time_ns: packet.time_ns,
            timestamp: header.timestamp,
            is_marker: header.is_marker,
            is_comfort_noise: role == Role::ComfortNoise,
        };
        self.jitter.add(&media, clock_hz);
    }

    #[cold]
    fn end_window(&mut self, time_ns: i64) {
        let jitter_us = self.jitter.window_max_us();
        self.windows.end(time_ns, self.sequence.expected(), self.sequence.unique(), jitter_us);
        self.jitter.end_window();
    }

    /// The clock becomes known: the windows so far get the jitter at this clock.
    #[cold]
    fn bind_windows(&mut self, clock_hz: u32) {
        if let Some(jitter) = self.jitter.candidate_windows(clock_hz) {
            self.windows.set_jitter(jitter);
        }
    }

    /// Tells the clock of the stream after its last packet, when SDP came late.
    pub(crate) fn set_clock(&mut self, clock_hz: u32) {
        if clock_hz != 0 {
            self.bind_windows(clock_hz);
            self.jitter.bind(clock_hz);
        }
    }

    pub(crate) fn ssrc(&self) -> u32 {
        self.ssrc
    }

    pub(crate) fn first_ns(&self) -> i64 {
        self.first_ns
    }

    pub(crate) fn last_ns(&self) -> i64 {
        self.last_ns
    }

    pub(crate) fn packets(&self) -> u64 {
        self.packets
    }

    pub(crate) fn payload_bytes(&self) -> u64 {
        self.payload_bytes
    }

    /// Length of the last media payload in bytes.
    pub(crate) fn payload_bytes_last(&self) -> u32 {
        self.payload_bytes_last
    }

    pub(crate) fn copies(&self) -> u64 {
        self.copies
    }

    pub(crate) fn sequence_totals(&self) -> SequenceTotals {
        self.sequence.totals()
    }

    pub(crate) fn timing_totals(&self) -> TimingTotals {
        self.jitter.totals()
    }

    pub(crate) fn payload_types(&self) -> &PayloadTypes {
        &self.types
    }

    pub(crate) fn events(&self) -> Option<&Events> {
        self.events.as_deref()
    }

    /// Number of things that limits of the analysis cut off: digits, payload types, and packets that came too fast to
    /// look for copies.
    pub(crate) fn cut_off(&self) -> u64 {
        let digits = self.events.as_ref().map_or(0, |events| events.omitted());
        u64::from(digits) + u64::from(self.types.omitted()) + u64::from(self.recent.displaced())
    }

    /// Windows of the stream, and their length in nanoseconds.
    pub(crate) fn windows(&self) -> (Vec<Window>, i64) {
        let mut windows = self.windows.clone();
        if let Some(jitter) = self.jitter.candidate_windows(self.jitter.clock_hz()) {
            windows.set_jitter(jitter);
        }
        let jitter_us = self.jitter.window_max_us();
        (windows.list(self.sequence.expected(), self.sequence.unique(), jitter_us), windows.length_ns())
    }
}
