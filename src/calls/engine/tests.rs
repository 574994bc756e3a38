//! Captures through the engine: what a stored state changes, and damaged packets.

use super::*;
use crate::capture::reader::PacketReader;

const NAME: CaptureName<'_> = CaptureName { capture: "file", stream: "stream" };

/// Numbers that look random, the same each time (xorshift).
struct Random(u64);

impl Random {
    fn range(&mut self, low: u64, high: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        low + self.0 % (high - low)
    }
}

/// A packet of a capture: place, link type, bytes.
type CapturedPacket = (PacketPlace, u32, Vec<u8>);

fn packets(name: &str) -> Vec<CapturedPacket> {
    let path = format!("{}/testdata/{name}", env!("CARGO_MANIFEST_DIR"));
    let file = std::fs::read(path).unwrap();
    let mut source = &file[..];
    let mut reader = PacketReader::open(&mut source, file.len() as u64).unwrap().unwrap();
    let mut packets = Vec::new();
    while let Some(packet) = reader.next(&mut source).unwrap() {
        let record = &file[packet.start as usize..packet.end as usize];
        let data = reader.packet_data(record).unwrap();
        let time_ns = packet.time_ns.unwrap_or_default();
        let place = PacketPlace { offset: packet.start, bytes: record.len() as u32, time_ns };
        packets.push((place, data.link_type, data.bytes(record).to_vec()));
    }
    packets
}

fn captures() -> Vec<Vec<CapturedPacket>> {
    let names = ["pcap/answered-call.pcap", "pcap/three-calls.pcapng", "audio/baresip-g722.pcap"];
    names.map(packets).into()
}

#[test]
fn a_state_that_was_stored_and_loaded_goes_on() {
    for packets in captures() {
        let (mut whole, mut stored) = (Engine::default(), Engine::default());
        for (index, (place, link_type, bytes)) in packets.iter().enumerate() {
            whole.add(*place, *link_type, bytes);
            if index % 101 == 7 {
                let state = postcard::to_allocvec(&stored.to_snapshot()).unwrap();
                stored = Engine::from_snapshot(postcard::from_bytes(&state).unwrap());
            }
            stored.add(*place, *link_type, bytes);
        }
        assert_eq!(whole.open_calls(NAME), stored.open_calls(NAME));
        assert!(whole.open_calls(NAME).iter().all(|call| !call.streams.is_empty()));
    }
}

/// Bits of addresses, ports, lengths and texts change, packets are cut, repeated and reordered, and times are anything.
#[test]
fn damaged_packets_do_no_harm() {
    for (round, packets) in captures().into_iter().cycle().take(24).enumerate() {
        let mut random = Random(round as u64 + 1);
        let mut engine = Engine::default();
        for _ in 0..2_000 {
            let (mut place, link_type, mut bytes) =
                packets[random.range(0, packets.len() as u64) as usize].clone();
            for _ in 0..random.range(0, 4) {
                let at = random.range(0, bytes.len().max(1) as u64) as usize;
                bytes[at] ^= 1 << random.range(0, 8);
            }
            if random.range(0, 8) == 0 {
                bytes.truncate(random.range(0, bytes.len() as u64 + 1) as usize);
            }
            if random.range(0, 16) == 0 {
                place.time_ns = [i64::MIN, i64::MAX, 0, -1][random.range(0, 4) as usize];
            }
            let link_type = if random.range(0, 16) == 0 { random.range(0, 300) as u32 } else { link_type };
            engine.add(place, link_type, &bytes);
            engine.take_complete(NAME, &mut |call| assert!(call.talk_ns().is_none_or(|ns| ns >= 0)));
        }
        engine.finish();
        let calls = engine.open_calls(NAME);
        engine.unbound_streams();
        let documents = calls.iter().map(crate::calls::document::to_document).filter(|call| call.is_object());
        assert_eq!(documents.count(), calls.len());
    }
}
