//! Reads the packets of one call again: for its audio, for its messages, and to write them to a capture.

mod raw;

use std::io;

use hashbrown::{HashMap, HashSet};

pub(crate) use raw::RawPacket;

use super::capture_file::{CaptureFile, RecordReader};
use super::endpoint::{Flow, PacketPlace};
use super::packet::{Connections, Fragments, PacketCounters, Peeled, UdpDatagram, peel};
use super::rtp::{Kind, RtpHeader, classify};
use super::view::{Call, CallMessage, SipTransport};

/// A packet of a call.
pub(crate) enum CallPacket<'p> {
    /// RTP of the stream with this number in [`Call::streams`].
    Rtp {
        stream: usize,
        header: RtpHeader,
        payload: &'p [u8],
        /// Offset of the payload in the capture file. `None` if it was reassembled from fragments.
        payload_offset: Option<u64>,
    },
    /// SIP message with this number in [`Call::messages`].
    Message { message: usize, bytes: &'p [u8] },
}

/// Packets of one call, in the order of the capture.
pub(crate) struct CallPackets<'c> {
    call: &'c Call,
    streams: HashMap<(Flow, u32), Vec<usize>>,
    /// Numbers of the messages by the offset of the packet with their last byte.
    messages: HashMap<u64, Vec<usize>>,
    /// Flows of the messages in streams.
    stream_flows: HashSet<Flow>,
    fragments: Fragments,
    connections: Connections,
    counters: PacketCounters,
}

impl<'c> CallPackets<'c> {
    pub(crate) fn new(call: &'c Call) -> CallPackets<'c> {
        let mut streams: HashMap<_, Vec<usize>> = HashMap::new();
        for (number, stream) in call.streams.iter().enumerate() {
            streams.entry((stream.flow(), stream.ssrc)).or_default().push(number);
        }
        let mut messages: HashMap<_, Vec<usize>> = HashMap::new();
        for (number, message) in call.messages.iter().enumerate() {
            messages.entry(message.place.offset).or_default().push(number);
        }
        let in_streams = call.messages.iter().filter(|message| message.transport != SipTransport::Udp);
        CallPackets {
            call,
            streams,
            messages,
            stream_flows: in_streams.map(CallMessage::flow).collect(),
            fragments: Fragments::default(),
            connections: Connections::default(),
            counters: PacketCounters::default(),
        }
    }

    /// Reads the packets. `reader` is one of the same capture.
    ///
    /// # Errors
    /// A read error, or an error of `take`.
    pub(crate) fn read(
        mut self,
        file: &mut CaptureFile,
        reader: &RecordReader,
        mut take: impl FnMut(CallPacket<'_>, PacketPlace) -> io::Result<()>,
    ) -> io::Result<()> {
        let Some((first, last)) = offsets(self.call) else { return Ok(()) };
        let mut reader = reader.moved_to(first, self.call.start_ns);
        while let Some(record) = reader.next(file)?.filter(|record| record.place.offset <= last) {
            if let Some(data) = record.data {
                let peeled = peel(data.link_type, data.bytes(record.bytes));
                self.add(record.place, record.bytes, &peeled, &mut take)?;
            }
        }
        Ok(())
    }

    fn add(
        &mut self,
        place: PacketPlace,
        record: &[u8],
        peeled: &Peeled<'_>,
        take: &mut impl FnMut(CallPacket<'_>, PacketPlace) -> io::Result<()>,
    ) -> io::Result<()> {
        match peeled {
            Peeled::Udp(datagram) => self.add_datagram(place, record, datagram, take),
            Peeled::Fragment(fragment) => match self.fragments.add(place, fragment, &mut self.counters) {
                Some(datagram) => self.add(datagram.last, record, &datagram.peel(), take),
                None => Ok(()),
            },
            Peeled::Tcp(segment) if self.stream_flows.contains(&segment.flow) => {
                let messages = &self.messages;
                let call = self.call;
                let mut result = Ok(());
                self.connections.add(place, segment, &mut self.counters, &mut |found| {
                    let is_it = |number: &&usize| {
                        call.messages.get(**number).is_some_and(|message| {
                            message.source == found.flow.source
                                && message.first_offset == found.first_place.offset
                        })
                    };
                    let numbers = messages.get(&found.place.offset);
                    // Of several messages in one packet, the first byte decides.
                    if let Some(&message) = numbers.and_then(|numbers| numbers.iter().find(is_it))
                        && result.is_ok()
                    {
                        result = take(CallPacket::Message { message, bytes: found.bytes }, found.place);
                    }
                });
                result
            }
            _ => Ok(()),
        }
    }

    fn add_datagram(
        &mut self,
        place: PacketPlace,
        record: &[u8],
        datagram: &UdpDatagram<'_>,
        take: &mut impl FnMut(CallPacket<'_>, PacketPlace) -> io::Result<()>,
    ) -> io::Result<()> {
        let payload = datagram.payload;
        if classify(payload) == Kind::Rtp {
            let Some(header) = RtpHeader::parse(payload, payload.len()) else { return Ok(()) };
            let Some(numbers) = self.streams.get(&(datagram.flow, header.ssrc)) else { return Ok(()) };
            // An endpoint that is used again has several streams with the same SSRC.
            let is_it = |number: &&usize| {
                self.call
                    .streams
                    .get(**number)
                    .is_some_and(|stream| (stream.first_offset..=stream.last_offset).contains(&place.offset))
            };
            let Some(&stream) = numbers.iter().find(is_it) else { return Ok(()) };
            let payload = header.payload(payload);
            let payload_offset = offset_in(record, payload).map(|offset| place.offset + offset as u64);
            return take(CallPacket::Rtp { stream, header, payload, payload_offset }, place);
        }
        match self.messages.get(&place.offset).and_then(|numbers| numbers.first()) {
            Some(&message) => take(CallPacket::Message { message, bytes: payload }, place),
            None => Ok(()),
        }
    }
}

/// Offset of a part in a record. `None` if it is not a part of it.
fn offset_in(record: &[u8], part: &[u8]) -> Option<usize> {
    let offset = part.as_ptr().addr().checked_sub(record.as_ptr().addr())?;
    (offset + part.len() <= record.len()).then_some(offset)
}

/// Offsets of the first and the last packet of a call.
fn offsets(call: &Call) -> Option<(u64, u64)> {
    let messages = call.messages.iter().map(|message| (message.first_offset, message.place.offset));
    let streams = call.streams.iter().map(|stream| (stream.first_offset, stream.last_offset));
    messages.chain(streams).reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)))
}
