//! The packets of one call as they were captured.

use std::io;
use std::net::IpAddr;

use hashbrown::HashMap;

use super::{CallPackets, offsets};
use crate::calls::capture_file::{CaptureFile, RecordReader};
use crate::calls::endpoint::{Flow, PacketPlace};
use crate::calls::packet::{Fragment, Peeled, UdpDatagram, peel};
use crate::calls::rtp::{Kind, RtpHeader, classify};

/// Memory for fragments that wait for the rest of their datagram.
const FRAGMENT_BYTES_MAX: usize = 16 << 20;

/// A captured packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RawPacket {
    /// LINKTYPE_ value of tcpdump.org.
    pub link_type: u32,
    /// Nanoseconds since 1970.
    pub time_ns: i64,
    /// Number of bytes on the wire.
    pub original: u32,
    pub bytes: Vec<u8>,
}

/// Fragments of a datagram: source, destination, protocol, identification.
type FragmentKey = (IpAddr, IpAddr, u8, u32);

#[derive(Default)]
struct WaitingFragments {
    packets: HashMap<FragmentKey, Vec<RawPacket>>,
    bytes: usize,
}

impl WaitingFragments {
    fn add(&mut self, key: FragmentKey, packet: RawPacket) {
        if self.bytes + packet.bytes.len() > FRAGMENT_BYTES_MAX {
            // Datagrams that were never completed.
            *self = WaitingFragments::default();
        }
        self.bytes += packet.bytes.len();
        self.packets.entry(key).or_default().push(packet);
    }

    fn take(&mut self, key: &FragmentKey) -> Vec<RawPacket> {
        let packets = self.packets.remove(key).unwrap_or_default();
        self.bytes -= packets.iter().map(|packet| packet.bytes.len()).sum::<usize>();
        packets
    }
}

impl CallPackets<'_> {
    /// Reads the packets of the call as they were captured: SIP, RTP, RTCP, and all fragments of these. The fragments of a
    /// datagram come together, when the last one is read.
    ///
    /// # Errors
    /// A read error, or an error of `take`.
    pub(crate) fn read_raw(
        mut self,
        file: &mut CaptureFile,
        reader: &RecordReader,
        mut take: impl FnMut(RawPacket) -> io::Result<()>,
    ) -> io::Result<()> {
        let Some((first, last)) = offsets(self.call) else { return Ok(()) };
        let mut reader = reader.moved_to(first, self.call.start_ns);
        let mut waiting = WaitingFragments::default();
        while let Some(record) = reader.next(file)?.filter(|record| record.place.offset <= last) {
            let (place, Some(data)) = (record.place, record.data) else { continue };
            let bytes = data.bytes(record.bytes);
            let raw = || RawPacket {
                link_type: data.link_type,
                time_ns: place.time_ns,
                original: data.original,
                bytes: bytes.to_vec(),
            };
            match peel(data.link_type, bytes) {
                Peeled::Udp(datagram) if self.has_datagram(place, &datagram) => take(raw())?,
                Peeled::Tcp(segment) if self.has_segment(place, segment.flow) => take(raw())?,
                Peeled::Fragment(fragment) => {
                    waiting.add(fragment_key(&fragment), raw());
                    let Some(datagram) = self.fragments.add(place, &fragment, &mut self.counters) else {
                        continue;
                    };
                    let packets = waiting.take(&fragment_key(&fragment));
                    let is_wanted = match datagram.peel() {
                        Peeled::Udp(inner) => self.has_datagram(datagram.last, &inner),
                        Peeled::Tcp(inner) => self.has_segment(datagram.last, inner.flow),
                        _ => false,
                    };
                    if is_wanted {
                        packets.into_iter().try_for_each(&mut take)?;
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn has_datagram(&self, place: PacketPlace, datagram: &UdpDatagram<'_>) -> bool {
        match classify(datagram.payload) {
            Kind::Rtcp => self.is_rtcp(datagram.flow),
            Kind::Rtp => RtpHeader::parse(datagram.payload, datagram.payload.len())
                .is_some_and(|header| self.streams.contains_key(&(datagram.flow, header.ssrc))),
            _ => self.messages.contains_key(&place.offset),
        }
    }

    /// Reports whether RTCP of a flow is about a stream of the call: on the same ports, or on the next ones, in either
    /// direction.
    fn is_rtcp(&self, flow: Flow) -> bool {
        let below = flow.of_rtp();
        let flows = [flow, flow.reversed(), below, below.reversed()];
        self.call.streams.iter().any(|stream| flows.contains(&stream.flow()))
    }

    /// Reports whether a segment has bytes of a message of the call.
    fn has_segment(&self, place: PacketPlace, flow: Flow) -> bool {
        self.stream_flows.contains(&flow)
            && self.call.messages.iter().any(|message| {
                message.source == flow.source
                    && (message.first_offset..=message.place.offset).contains(&place.offset)
            })
    }
}

fn fragment_key(fragment: &Fragment<'_>) -> FragmentKey {
    (fragment.source, fragment.destination, fragment.protocol, fragment.id)
}
