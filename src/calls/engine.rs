//! State of the analysis of one capture: takes its packets in the order of the file and knows the calls so far. Pure.

mod findings;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use hashbrown::HashMap;
use serde::{Deserialize, Serialize};

use super::dialog::{CallRecord, Calls, PacketMeta, Totals, to_view};
use super::endpoint::{Endpoint, PacketPlace};
use super::media::{
    BoundCall, CallNumber, MediaCounters, MediaEntry, MediaFormat, MediaPacket, MediaTable, SignalledMedia,
};
use super::packet::{
    Connections, Fragments, PacketCounters, Peeled, StreamMessage, StreamTransport, UdpDatagram,
    looks_like_sip, peel,
};
use super::rtp::{Kind, RtcpKind, RtpHeader, StreamContext, classify, parse_rtcp};
use super::sip::Message;
use super::view::{Binding, Call, MediaStream, SipTransport};

/// Time of the capture between looks for calls that are complete.
const COMPLETION_INTERVAL_NS: i64 = 1_000_000_000;

/// Time after which an answered call without BYE, and without any SIP, is given up. Longer calls have session timers
/// (RFC 4028), which refresh them by SIP.
const ANSWERED_IDLE_NS: i64 = 24 * 3_600 * 1_000_000_000;

/// Silence of a call, SIP and media, after which it is shown as ended. It goes on if more comes.
const SILENT_NS: i64 = 60_000_000_000;

/// Streams of one call that are kept after they gave way to newer ones.
const EVICTED_STREAMS_MAX: usize = 64;

/// Names of the capture, which the IDs of its calls depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CaptureName<'n> {
    /// Path, or name in the vault.
    pub capture: &'n str,
    /// Name of the stream as its sender named it; the file name if there is none.
    pub stream: &'n str,
}

/// Counters of RTCP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RtcpCounters {
    pub packets: u64,
    pub encrypted: u64,
    pub malformed: u64,
}

/// State of an analysis. An index stores it.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Engine {
    fragments: Fragments,
    connections: Connections,
    signalling: Signalling,
    packets: PacketCounters,
    rtcp: RtcpCounters,
    /// Streams of open calls that gave way to newer ones.
    evicted: BTreeMap<CallNumber, Vec<MediaStream>>,
    last_ns: i64,
    next_completion_ns: i64,
}

/// Calls and streams: what SIP messages change.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Signalling {
    calls: Calls,
    media: MediaTable,
    /// Messages that could not be parsed.
    malformed: u64,
    /// Calls that gave way to newer ones and wait to be taken.
    cut: Vec<CallRecord>,
}

impl Engine {
    /// Losses that were not compared with those of other streams.
    pub(crate) fn omitted_gaps(&self) -> u64 {
        self.signalling.media.loss().omitted()
    }

    pub(crate) fn packet_counters(&self) -> &PacketCounters {
        &self.packets
    }

    pub(crate) fn sip_totals(&self) -> &Totals {
        self.signalling.calls.totals()
    }

    /// SIP messages that could not be parsed.
    pub(crate) fn malformed_messages(&self) -> u64 {
        self.signalling.malformed
    }

    pub(crate) fn media_counters(&self) -> MediaCounters {
        self.signalling.media.counters()
    }

    pub(crate) fn rtcp_counters(&self) -> RtcpCounters {
        self.rtcp
    }

    /// Adds a packet. `link_type` is a LINKTYPE_ value of tcpdump.org.
    #[inline]
    pub(crate) fn add(&mut self, place: PacketPlace, link_type: u32, bytes: &[u8]) {
        self.last_ns = place.time_ns;
        self.add_peeled(place, &peel(link_type, bytes));
    }

    fn add_peeled(&mut self, place: PacketPlace, peeled: &Peeled<'_>) {
        self.packets.count(peeled);
        match peeled {
            Peeled::Udp(datagram) => self.add_datagram(place, datagram),
            Peeled::Tcp(segment) => {
                self.connections.add(place, segment, &mut self.packets, &mut |message| {
                    self.signalling.add_stream_message(&message);
                });
            }
            Peeled::Fragment(fragment) => {
                if let Some(datagram) = self.fragments.add(place, fragment, &mut self.packets) {
                    self.add_peeled(datagram.last, &datagram.peel());
                }
            }
            Peeled::Sctp(_) | Peeled::Other(_) => {}
        }
    }

    #[inline]
    fn add_datagram(&mut self, place: PacketPlace, datagram: &UdpDatagram<'_>) {
        match classify(datagram.payload) {
            Kind::Rtcp => self.add_rtcp(place, datagram),
            Kind::Rtp => {
                let Some(header) = RtpHeader::parse(datagram.payload, datagram.payload.len()) else { return };
                let payload = header.payload(datagram.payload);
                let packet = MediaPacket { place, ip_id: datagram.ip_id, header, payload };
                self.signalling.media.add(&datagram.flow, &packet);
            }
            // The letters of SIP are the numbers of TURN channels.
            _ if looks_like_sip(datagram.payload) => {
                let packet = PacketMeta {
                    place,
                    first_offset: place.offset,
                    flow: datagram.flow,
                    ip_id: datagram.ip_id,
                    vlan: 0,
                    transport: SipTransport::Udp,
                };
                self.signalling.add_message(packet, datagram.payload);
            }
            _ => {}
        }
    }

    fn add_rtcp(&mut self, place: PacketPlace, datagram: &UdpDatagram<'_>) {
        let media = &mut self.signalling.media;
        let kind = parse_rtcp(datagram.payload, datagram.is_cut, |report| {
            media.add_report(&datagram.flow, &report, place.time_ns);
        });
        self.rtcp.packets += 1;
        self.rtcp.encrypted += u64::from(kind == RtcpKind::Encrypted);
        self.rtcp.malformed += u64::from(kind == RtcpKind::Malformed);
    }

    /// Reads what streams still hold back because bytes before it are missing. To be called at the end of a capture that does
    /// not grow any more.
    pub(crate) fn finish(&mut self) {
        self.connections.finish(self.last_ns, &mut self.packets, &mut |message| {
            self.signalling.add_stream_message(&message);
        });
    }

    /// Takes the calls that are complete, or gave way to newer ones. To be called after each packet.
    #[inline]
    pub(crate) fn take_complete(&mut self, name: CaptureName<'_>, take: &mut impl FnMut(Call)) {
        if self.last_ns >= self.next_completion_ns {
            self.take_complete_now(name, take);
        }
    }

    #[cold]
    fn take_complete_now(&mut self, name: CaptureName<'_>, take: &mut impl FnMut(Call)) {
        self.next_completion_ns = self.last_ns.saturating_add(COMPLETION_INTERVAL_NS);
        let evicted = self.signalling.media.take_evicted();
        let cut = std::mem::take(&mut self.signalling.cut);
        let finished = self.signalling.calls.take_finished(self.last_ns, ANSWERED_IDLE_NS);
        if evicted.is_empty() && cut.is_empty() && finished.is_empty() {
            return;
        }
        // Comparing the gaps of all streams takes a while.
        let lost = self.lost_by_capture();
        for entry in evicted {
            for bound in &entry.calls {
                let stream = self.stream_view(&entry, Some(*bound), &lost);
                let streams = self.evicted.entry(bound.call).or_default();
                if streams.len() < EVICTED_STREAMS_MAX {
                    streams.push(stream);
                }
            }
        }
        for record in cut.into_iter().chain(finished) {
            take(self.view(&record, name, &lost));
            self.evicted.remove(&record.number);
            self.signalling.media.remove_call(record.number, media_endpoints(&record));
        }
    }

    /// Returns the calls that are not complete yet, and the streams that belong to no call.
    pub(crate) fn open(&self, name: CaptureName<'_>) -> (Vec<Call>, Vec<MediaStream>) {
        let lost = self.lost_by_capture();
        let Signalling { calls, media, cut, .. } = &self.signalling;
        let view = |record: &CallRecord| {
            let last_ns = record.last_ns.max(media.last_ns_of(record.number));
            if self.last_ns.saturating_sub(last_ns) <= SILENT_NS {
                return self.view(record, name, &lost);
            }
            let mut settled = record.clone();
            settled.settle();
            self.view(&settled, name, &lost)
        };
        let mut unbound: Vec<&MediaEntry> = media.unbound().collect();
        unbound.sort_unstable_by_key(|entry| entry.serial);
        let unbound = unbound.into_iter().map(|entry| self.stream_view(entry, None, &lost));
        (cut.iter().chain(calls.iter()).map(view).collect(), unbound.collect())
    }

    /// Packets that the recorder lost, by the serial number of their stream.
    fn lost_by_capture(&self) -> HashMap<u32, u64> {
        self.signalling.media.loss().shared().into_iter().map(|gaps| (gaps.stream, gaps.missing)).collect()
    }

    fn view(&self, record: &CallRecord, name: CaptureName<'_>, lost: &HashMap<u32, u64>) -> Call {
        let mut call = to_view(record, name.capture, name.stream);
        call.streams = self
            .signalling
            .media
            .streams_of(record.number)
            .map(|(stream, bound)| self.stream_view(stream, Some(bound), lost))
            .collect();
        call.is_cut |=
            self.signalling.media.streams_of(record.number).any(|(stream, _)| stream.state.cut_off() > 0);
        call.streams.extend(self.evicted.get(&record.number).into_iter().flatten().cloned());
        call.streams.sort_by_key(|stream| (stream.first_ns, stream.first_offset));
        call.last_ns = call.streams.iter().map(|stream| stream.last_ns).fold(call.last_ns, i64::max);
        findings::add(&mut call, record.copies);
        call
    }

    fn stream_view(
        &self,
        entry: &MediaEntry,
        bound: Option<BoundCall>,
        lost: &HashMap<u32, u64>,
    ) -> MediaStream {
        let codec = entry.state.codec_type().and_then(|payload_type| entry.format(payload_type));
        let codec = codec.map(|format| format.name.as_str()).filter(|name| !name.is_empty());
        entry.state.to_view(&StreamContext {
            flow: entry.flow,
            first_offset: entry.first_offset,
            last_offset: entry.last_offset,
            side: bound.map(|bound| bound.sender),
            binding: bound.map_or(Binding::None, |bound| bound.binding),
            codec,
            formats: &entry.formats,
            is_encrypted: entry.is_encrypted,
            lost_by_capture: lost.get(&entry.serial).copied().unwrap_or(0),
            reports: Some(&entry.reports),
            delay_ms: None,
        })
    }
}

impl Signalling {
    fn add_stream_message(&mut self, message: &StreamMessage<'_>) {
        let packet = PacketMeta {
            place: message.place,
            first_offset: message.first_place.offset,
            flow: message.flow,
            ip_id: 0,
            vlan: 0,
            transport: match message.transport {
                StreamTransport::Tcp => SipTransport::Tcp,
                StreamTransport::WebSocket => SipTransport::WebSocket,
            },
        };
        self.add_message(packet, message.bytes);
    }

    /// Adds a message, and tells the streams where its call receives media.
    fn add_message(&mut self, packet: PacketMeta, bytes: &[u8]) {
        let Ok(message) = Message::parse(bytes) else {
            self.malformed += 1;
            return;
        };
        let event = self.calls.add(packet, &message, bytes);
        self.cut.extend(event.cut);
        let (Some(call), Some(sdp_use)) = (event.call, event.sdp) else { return };
        let calls = &self.calls;
        for line in sdp_use.sdp.media.iter().filter(|line| line.is_rtp()) {
            let formats: Vec<MediaFormat> = line.formats.iter().map(MediaFormat::of_sdp).collect();
            for endpoint in line.endpoints() {
                let signalled = SignalledMedia {
                    call,
                    receiver: sdp_use.side,
                    endpoint,
                    formats: &formats,
                    is_encrypted: line.is_encrypted(),
                };
                let is_ended = |call| calls.get(call).is_none_or(|call| call.end.is_some());
                self.media.signal(&signalled, packet.place.time_ns, is_ended);
            }
        }
    }
}

/// Endpoints where a call receives media.
fn media_endpoints(call: &CallRecord) -> impl Iterator<Item = Endpoint> + '_ {
    call.sdps.iter().flat_map(|sdp_use| &sdp_use.sdp.media).flat_map(|line| line.endpoints())
}
