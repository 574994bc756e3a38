//! RTP streams and the calls that they belong to. Pure.
//!
//! Streams are found on their own, by flow and SSRC, and calls on their own. They are joined when either side learns
//! something: RTP before SIP, SDP behind NAT and re-INVITE lose no stream. A stream belongs to a call if its destination is
//! in the call's SDP; else if it is the opposite direction of such a stream; else if its destination port occurs in the SDP
//! of only one call.
//!
//! A stream belongs to several calls if they signal the same endpoint at the same time, as behind a B2BUA that leaves the
//! SDP alone. An endpoint that is signalled again after its call has ended starts new streams, even with the same SSRC.

mod bind;
mod snapshot;

use hashbrown::HashMap;
use serde::{Deserialize, Serialize};

use snapshot::Snapshot;

use super::endpoint::{Endpoint, Flow, PacketPlace};
use super::rtp::{
    CaptureLoss, Format, Outcome, ReceiverReports, Report, Role, RtpHeader, RtpPacket, StreamState,
};
use super::sdp;
use super::view::{Binding, Side};

/// Open streams. A capture of 10,000 calls at once with both directions and video has 40,000.
pub(crate) const STREAMS_MAX: usize = 65_536;

/// Streams that give way together when there are too many: a scan for the idlest costs as much for one as for many.
const STREAMS_EVICTED: usize = STREAMS_MAX / 16;

/// Calls that signal the same endpoint or port. The newest are kept.
const USES_MAX: usize = 16;

/// Endpoints in SDP. A call has a few; ICE adds candidates.
const ENDPOINTS_MAX: usize = 4 * STREAMS_MAX;

/// Flows whose first packet looks like RTP and waits for a second one. Past the limit all of them start anew.
const CANDIDATE_FLOWS_MAX: usize = 4_096;

/// Formats of all signalled endpoints together: with names and parameters up to 80 MB.
const FORMATS_TOTAL_MAX: usize = 262_144;

/// Payload types that are known for a stream.
const FORMATS_MAX: usize = 64;

/// Streams with the same destination or the same port that are looked at when a call signals it.
const CANDIDATES_MAX: usize = 64;

/// Silence after which a stream with the same SSRC belongs to the next call of its endpoint, although the BYE of the call
/// before it was not seen.
const REUSE_GAP_NS: i64 = 2_000_000_000;

/// Number of a call in the state of an analysis.
pub(crate) type CallNumber = u64;

/// A call that receives media at an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct MediaUse {
    call: CallNumber,
    /// Side that receives there.
    receiver: Side,
}

/// An endpoint of SDP: who receives there, and in which formats.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct SignalledEndpoint {
    uses: Vec<MediaUse>,
    /// Those of the newest description.
    formats: Vec<MediaFormat>,
    is_encrypted: bool,
}

/// A payload type of a media line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MediaFormat {
    pub payload_type: u8,
    /// Encoding name, as in `PCMA`.
    pub name: String,
    pub clock_hz: u32,
    pub channels: u8,
    /// Parameters of `a=fmtp`. Empty if there are none.
    pub parameters: String,
}

impl MediaFormat {
    pub(crate) fn of_sdp(format: &sdp::Format) -> MediaFormat {
        MediaFormat {
            payload_type: format.payload_type,
            name: format.name.to_string(),
            clock_hz: format.clock_hz,
            channels: format.channels,
            parameters: format.parameters.as_deref().unwrap_or_default().to_owned(),
        }
    }

    /// What the statistics need to know of it.
    fn rtp_format(&self) -> Format {
        let role = match self.name.as_str() {
            "" => None,
            name if name.eq_ignore_ascii_case("telephone-event") => Some(Role::Event),
            name if name.eq_ignore_ascii_case("CN") => Some(Role::ComfortNoise),
            _ => Some(Role::Media),
        };
        Format { clock_hz: self.clock_hz, role }
    }
}

/// An endpoint that a side has signalled as the one where it receives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SignalledMedia<'a> {
    pub call: CallNumber,
    pub receiver: Side,
    pub endpoint: Endpoint,
    pub formats: &'a [MediaFormat],
    pub is_encrypted: bool,
}

/// A call that a stream belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BoundCall {
    pub call: CallNumber,
    /// Side that sends the stream.
    pub sender: Side,
    pub binding: Binding,
}

/// An RTP stream.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct MediaEntry {
    pub flow: Flow,
    pub ssrc: u32,
    pub state: StreamState,
    pub formats: Vec<MediaFormat>,
    pub is_encrypted: bool,
    pub calls: Vec<BoundCall>,
    /// What its receiver reports.
    pub reports: ReceiverReports,
    /// Number that no other stream of the capture has.
    pub serial: u32,
    pub last_ns: i64,
    /// Offsets of the records of the first and the last packet in the capture.
    pub first_offset: u64,
    pub last_offset: u64,
    /// Whether new packets are added to it.
    is_open: bool,
}

impl MediaEntry {
    /// Returns what is known of a payload type.
    pub(crate) fn format(&self, payload_type: u8) -> Option<&MediaFormat> {
        self.formats.iter().find(|format| format.payload_type == payload_type)
    }

    fn add_formats(&mut self, formats: &[MediaFormat]) {
        for format in formats {
            let known = self.formats.iter().position(|known| known.payload_type == format.payload_type);
            match known {
                Some(index) => self.formats[index].clone_from(format),
                None if self.formats.len() < FORMATS_MAX => self.formats.push(format.clone()),
                None => {}
            }
        }
        let codec = self.state.codec_type().and_then(|payload_type| self.format(payload_type));
        if let Some(clock_hz) = codec.map(|format| format.clock_hz) {
            self.state.set_clock(clock_hz);
        }
    }
}

/// The last stream of a flow.
#[derive(Clone, Copy, Debug)]
struct FlowStream {
    ssrc: u32,
    stream: u32,
}

/// First packet of what may become a stream: a second one must follow in sequence.
#[derive(Clone, Debug)]
struct Candidate {
    header: RtpHeader,
    place: PacketPlace,
    ip_id: u16,
    payload: Box<[u8]>,
}

/// An RTP packet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MediaPacket<'p> {
    pub place: PacketPlace,
    /// Identification of the IPv4 header. 0 for IPv6.
    pub ip_id: u16,
    pub header: RtpHeader,
    /// Captured part of the payload.
    pub payload: &'p [u8],
}

/// Counters of media.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MediaCounters {
    pub rtp_packets: u64,
    /// Packets that look like RTP, but are not followed by another one in sequence.
    pub unconfirmed_packets: u64,
    /// Streams that gave way to newer ones ([`STREAMS_MAX`]).
    pub streams_over_limit: u64,
    /// Endpoints of SDP that were ignored ([`ENDPOINTS_MAX`]).
    pub endpoints_over_limit: u64,
}

/// RTP streams, and the endpoints that calls have signalled.
#[derive(Debug, Default, Deserialize)]
#[serde(from = "Snapshot")]
pub(crate) struct MediaTable {
    entries: Vec<Option<Box<MediaEntry>>>,
    free: Vec<u32>,
    by_flow: HashMap<Flow, FlowStream>,
    by_ssrc: HashMap<(Flow, u32), u32>,
    by_destination: HashMap<Endpoint, Vec<u32>>,
    by_port: HashMap<u16, Vec<u32>>,
    by_call: HashMap<CallNumber, Vec<u32>>,
    signalled: HashMap<Endpoint, SignalledEndpoint>,
    /// Formats of all signalled endpoints.
    format_count: usize,
    uses_by_port: HashMap<u16, Vec<MediaUse>>,
    candidates: HashMap<Flow, Candidate>,
    loss: CaptureLoss,
    next_serial: u32,
    counters: MediaCounters,
    /// Streams that gave way to newer ones and wait to be taken.
    evicted: Vec<MediaEntry>,
}

impl MediaTable {
    pub(crate) fn counters(&self) -> MediaCounters {
        self.counters
    }

    /// Packets that are missing in several unrelated streams at once.
    pub(crate) fn loss(&self) -> &CaptureLoss {
        &self.loss
    }

    /// Reports whether a call has signalled the endpoint.
    pub(crate) fn is_signalled(&self, endpoint: &Endpoint) -> bool {
        self.signalled.contains_key(endpoint)
    }

    /// Adds an RTP packet.
    #[inline]
    pub(crate) fn add(&mut self, flow: &Flow, packet: &MediaPacket<'_>) {
        let ssrc = packet.header.ssrc;
        let stream = match self.by_flow.get(flow) {
            Some(last) if last.ssrc == ssrc => last.stream,
            _ => match self.find_or_confirm(flow, packet) {
                Some(stream) => stream,
                None => return,
            },
        };
        self.add_to(stream, packet);
    }

    #[inline]
    fn add_to(&mut self, stream: u32, packet: &MediaPacket<'_>) {
        let Some(entry) = self.entries.get_mut(stream as usize).and_then(Option::as_deref_mut) else {
            return;
        };
        self.counters.rtp_packets += 1;
        let time_ns = packet.place.time_ns;
        entry.last_ns = time_ns;
        entry.last_offset = packet.place.offset;
        let format =
            entry.format(packet.header.payload_type).map_or(Format::default(), MediaFormat::rtp_format);
        let rtp = RtpPacket { time_ns, ip_id: packet.ip_id, header: packet.header, payload: packet.payload };
        if let Outcome::Gap { start_ns, missing } = entry.state.add(&rtp, format) {
            // Both directions of a call are related, and streams without a call by their flow.
            let group = entry.calls.first().map_or(u64::MAX - u64::from(entry.serial), |bound| bound.call);
            self.loss.add(entry.serial, group, start_ns, time_ns, missing);
        }
    }

    /// Returns the stream of a packet that is not of its flow's last stream. `None` while it may be something else.
    fn find_or_confirm(&mut self, flow: &Flow, packet: &MediaPacket<'_>) -> Option<u32> {
        let ssrc = packet.header.ssrc;
        if let Some(&stream) = self.by_ssrc.get(&(*flow, ssrc)) {
            self.by_flow.insert(*flow, FlowStream { ssrc, stream });
            return Some(stream);
        }
        if self.is_signalled(&flow.destination) {
            return Some(self.open(flow, ssrc, packet.place));
        }
        if self.candidates.len() >= CANDIDATE_FLOWS_MAX {
            self.counters.unconfirmed_packets += self.candidates.len() as u64;
            self.candidates.clear();
        }
        let MediaPacket { header, place, ip_id, payload } = *packet;
        let first =
            self.candidates.insert(*flow, Candidate { header, place, ip_id, payload: payload.into() })?;
        if !follows(&first.header, &header) {
            self.counters.unconfirmed_packets += 1;
            return None;
        }
        self.candidates.remove(flow);
        let stream = self.open(flow, ssrc, first.place);
        let Candidate { header, place, ip_id, payload } = first;
        self.add_to(stream, &MediaPacket { header, place, ip_id, payload: &payload });
        Some(stream)
    }

    /// Adds what an RTCP packet reports. It goes to the same port as RTP, or to the next one.
    pub(crate) fn add_report(&mut self, flow: &Flow, report: &Report<'_>, time_ns: i64) {
        match report {
            Report::Sender { ssrc, ntp_middle, .. } => {
                let entry = self.reported_stream(*flow, *ssrc);
                entry.map(|entry| entry.reports.add_sender_report(*ntp_middle, time_ns)).unwrap_or_default();
            }
            Report::Block { block, .. } => {
                let entry = self.reported_stream(flow.reversed(), block.ssrc);
                entry.map(|entry| entry.reports.add_block(block, time_ns)).unwrap_or_default();
            }
            Report::Voip { metrics, .. } => {
                let entry = self.reported_stream(flow.reversed(), metrics.ssrc);
                entry.map(|entry| entry.reports.add_voip_metrics(metrics)).unwrap_or_default();
            }
            Report::Bye { ssrc } => {
                self.reported_stream(*flow, *ssrc).map(|entry| entry.reports.add_bye()).unwrap_or_default();
            }
            Report::Cname { .. } => {}
        }
    }

    /// Finds a stream by the flow of its RTCP: the same ports (RFC 5761), or each one less (RFC 3550 section 11).
    fn reported_stream(&mut self, flow: Flow, ssrc: u32) -> Option<&mut MediaEntry> {
        let stream = [flow, flow.of_rtp()].iter().find_map(|flow| self.by_ssrc.get(&(*flow, ssrc)))?;
        self.entry_mut(*stream)
    }

    /// Opens a stream and binds it to the calls that expect it.
    fn open(&mut self, flow: &Flow, ssrc: u32, place: PacketPlace) -> u32 {
        if self.entries.len() - self.free.len() >= STREAMS_MAX {
            self.evict();
        }
        let entry = Box::new(MediaEntry {
            flow: *flow,
            ssrc,
            state: StreamState::new(ssrc),
            formats: Vec::new(),
            is_encrypted: false,
            calls: Vec::new(),
            reports: ReceiverReports::default(),
            serial: self.next_serial,
            last_ns: place.time_ns,
            first_offset: place.offset,
            last_offset: place.offset,
            is_open: true,
        });
        self.next_serial = self.next_serial.wrapping_add(1);
        let stream = match self.free.pop() {
            Some(stream) => stream,
            None => {
                self.entries.push(None);
                (self.entries.len() - 1) as u32
            }
        };
        if let Some(slot) = self.entries.get_mut(stream as usize) {
            *slot = Some(entry);
        }
        self.link(stream);
        self.bind_new(stream);
        stream
    }

    /// Adds a stream to the tables by which it is found.
    fn link(&mut self, stream: u32) {
        let Some(entry) = self.entry(stream) else { return };
        let (flow, ssrc) = (entry.flow, entry.ssrc);
        self.by_flow.insert(flow, FlowStream { ssrc, stream });
        self.by_ssrc.insert((flow, ssrc), stream);
        push_newest(self.by_destination.entry(flow.destination).or_default(), stream, CANDIDATES_MAX);
        push_newest(self.by_port.entry(flow.destination.port).or_default(), stream, CANDIDATES_MAX);
    }

    fn entry(&self, stream: u32) -> Option<&MediaEntry> {
        self.entries.get(stream as usize)?.as_deref()
    }

    fn entry_mut(&mut self, stream: u32) -> Option<&mut MediaEntry> {
        self.entries.get_mut(stream as usize)?.as_deref_mut()
    }
}

/// Reports whether two headers are of the same stream: the SSRC is equal, and the sequence goes on, with a loss at most as
/// long as a second, or repeats.
fn follows(first: &RtpHeader, second: &RtpHeader) -> bool {
    first.ssrc == second.ssrc && second.sequence.wrapping_sub(first.sequence) <= 50
}

/// Adds a value to a list of bounded length. The oldest one makes room.
fn push_newest<T: PartialEq>(list: &mut Vec<T>, value: T, max: usize) {
    if list.contains(&value) {
        return;
    }
    if list.len() >= max {
        list.remove(0);
    }
    list.push(value);
}
