//! Captures through the engine: what a stored state changes, and damaged packets.

use super::*;
use crate::calls::samples::packets;
use crate::replay::fault::Random;

const NAME: CaptureName<'_> = CaptureName { capture: "file", stream: "stream" };

fn captures() -> Vec<Vec<(PacketPlace, u32, Vec<u8>)>> {
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
                let state = postcard::to_allocvec(&stored).unwrap();
                stored = postcard::from_bytes(&state).unwrap();
            }
            stored.add(*place, *link_type, bytes);
        }
        assert_eq!(whole.open(NAME), stored.open(NAME));
        assert!(whole.open(NAME).0.iter().all(|call| !call.streams.is_empty()));
    }
}

/// Bits of addresses, ports, lengths and texts change, packets are cut, repeated and reordered, and times are anything.
#[test]
fn damaged_packets_do_no_harm() {
    for (round, packets) in captures().into_iter().cycle().take(24).enumerate() {
        let mut random = Random::new(round as u64, 7);
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
        let (calls, _) = engine.open(NAME);
        let documents = calls.iter().map(crate::calls::document::to_document).filter(|call| call.is_object());
        assert_eq!(documents.count(), calls.len());
    }
}
