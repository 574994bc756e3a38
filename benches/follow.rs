//! Speed of the packet tracker: `cargo bench --bench follow`. Prints nanoseconds per packet and GB/s for
//! packets of 214 bytes (20 ms of G.711 over RTP). Chunks are as they come from a socket: large ones, which
//! stay in the cache between read and write as in the receiver, and the 100-byte chunks of slow senders.
//! Times are the thread's CPU time, so other load on the machine matters less.

#![allow(clippy::print_stdout)] // The output is the result.

use std::hint::black_box;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use lea::capture::tracker::PacketTracker;

const PACKET_BYTES: u32 = 214;
const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_millis(300);

fn main() {
    let pcap = |big| repeated(file_header(big), packet(big));
    let pcapng = |big| repeated(section(big), packet_block(big));
    let streams = [
        ("pcap", pcap(false)),
        ("pcap, big-endian", pcap(true)),
        ("pcapng", pcapng(false)),
        ("pcapng, big-endian", pcapng(true)),
    ];
    println!("{:<20} {:>9} {:>10} {:>8}", "stream", "chunk", "ns/packet", "GB/s");
    for (what, stream) in &streams {
        for chunk_bytes in [256 << 10, 16 << 10, 1460, 100] {
            let mut rounds: Vec<Measured> = (0..ROUNDS).map(|_| measure(stream, chunk_bytes)).collect();
            rounds.sort_by(|a, b| a.ns_per_packet.total_cmp(&b.ns_per_packet));
            let Measured { ns_per_packet, gb_per_s } = rounds[ROUNDS / 2];
            println!("{what:<20} {chunk_bytes:>9} {ns_per_packet:>10.2} {gb_per_s:>8.1}");
        }
    }
}

struct Measured {
    ns_per_packet: f64,
    gb_per_s: f64,
}

/// Tracks the stream repeatedly for the duration of a round.
fn measure(stream: &[u8], chunk_bytes: usize) -> Measured {
    let (mut packets, mut bytes) = (0, 0);
    let start = thread_time();
    while thread_time() - start < ROUND {
        let mut tracker = PacketTracker::new();
        for chunk in black_box(stream).chunks(chunk_bytes) {
            tracker.feed(chunk);
        }
        assert_eq!(tracker.summary().malformed_at, None);
        packets += tracker.packets();
        bytes += tracker.received();
    }
    let ns = (thread_time() - start).as_nanos() as f64;
    Measured { ns_per_packet: ns / packets as f64, gb_per_s: bytes as f64 / ns }
}

fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Builds a stream of about 256 KiB, which fits into the cache.
fn repeated(start: Vec<u8>, packet: Vec<u8>) -> Vec<u8> {
    let packets = (256 << 10) / packet.len();
    [start, packet.repeat(packets)].concat()
}

fn words(big: bool, words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| if big { word.to_be_bytes() } else { word.to_le_bytes() }).collect()
}

fn file_header(big: bool) -> Vec<u8> {
    words(big, &[0xa1b2_c3d4, if big { 0x0002_0004 } else { 0x0004_0002 }, 0, 0, 262_144, 1])
}

fn packet(big: bool) -> Vec<u8> {
    let header = words(big, &[1_795_294_781, 7, PACKET_BYTES, PACKET_BYTES]);
    [header, vec![0xd5; PACKET_BYTES as usize]].concat()
}

fn section(big: bool) -> Vec<u8> {
    let version = if big { 0x0001_0000 } else { 0x0000_0001 };
    let link_type = if big { 0x0001_0000 } else { 0x0000_0001 };
    let section = [0x0a0d_0d0a, 28, 0x1a2b_3c4d, version, u32::MAX, u32::MAX, 28];
    [words(big, &section), words(big, &[1, 20, link_type, 262_144, 20])].concat()
}

fn packet_block(big: bool) -> Vec<u8> {
    let padded = PACKET_BYTES.next_multiple_of(4);
    let total = padded + 32;
    let fields = words(big, &[6, total, 0, 0x0006_4123, 7, PACKET_BYTES, PACKET_BYTES]);
    [fields, vec![0xd5; padded as usize], words(big, &[total])].concat()
}
