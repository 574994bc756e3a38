//! A stream arrives byte by byte. At every moment its file ends with a complete packet, and each packet is in
//! the file soon after its last byte.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::support::wait_for;

/// Limit for the median delay from the last byte of a packet to the file. The goal is 50 ms, and the test
/// prints the measured values. This limit allows for a machine that runs many tests at once.
const SOON: Duration = Duration::from_millis(250);

/// Limit for the delay of each packet.
const LATE: Duration = Duration::from_secs(5);

/// Time that one write may take if its thread waits for a processor.
const WRITE: Duration = Duration::from_secs(1);

#[test]
fn a_growing_file_ends_at_a_packet_and_each_packet_is_there_soon() {
    let work = Workdir::new();
    let server = Server::start(&work.join("out"), &[]);
    let mut random = Random::new("packets");
    let captures = [
        ("a.pcap", generated::pcap(&mut random, 8_000)),
        ("b.pcap", generated::pcap(&mut random, 8_000)),
        ("c.pcapng", generated::pcapng(&mut random, 8_000)),
        ("d.pcapng", generated::pcapng(&mut random, 8_000)),
    ];
    let mut latencies: Vec<Duration> = thread::scope(|scope| {
        let threads: Vec<_> = captures
            .iter()
            .map(|(name, capture)| {
                let seed = random.next();
                let server = &server;
                scope.spawn(move || watch(server, name, capture, Random::with_seed(seed)))
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    latencies.sort_unstable();
    let at = |percent: usize| latencies[(latencies.len() - 1) * percent / 100];
    eprintln!("packets: {} packets, p50 {:?}, p99 {:?}, max {:?}", latencies.len(), at(50), at(99), at(100));
    assert!(at(50) <= SOON, "half of the packets took longer than {:?}", at(50));
    assert!(at(100) <= LATE, "a packet took {:?}", at(100));
    let output = server.output().to_owned();
    server.term();
    for (name, capture) in &captures {
        assert_whole(&output, name, &capture.bytes);
    }
}

/// Sends a capture byte by byte and watches its file. Returns the delay of each packet.
fn watch(server: &Server, name: &str, capture: &Generated, mut random: Random) -> Vec<Duration> {
    let file = server.output().join(name);
    let ended = AtomicBool::new(false);
    // Times at which the last byte of each unit was sent.
    let sent = Mutex::new(Vec::new());
    thread::scope(|scope| {
        scope.spawn(|| {
            let _end = EndOnDrop(&ended);
            let mut sender = Sender::open(server.addr(), name, Handshake::Newline);
            let mut ends = capture.ends[1..].iter().peekable();
            for (at, byte) in capture.bytes.iter().enumerate() {
                if ends.next_if(|end| **end == at + 1).is_some() {
                    // The time is taken before the send, so no delay is measured too short.
                    sent.lock().unwrap().push(Instant::now());
                }
                sender.send(std::slice::from_ref(byte));
                // Pauses now and then for long enough that the received bytes are written.
                let pause_us = if random.below(100) == 0 { random.below(60_000) } else { 0 };
                thread::sleep(Duration::from_micros(pause_us));
            }
            sender.finish();
        });
        let mut latencies = Vec::new();
        let mut ended_at = None;
        loop {
            if ended.load(Ordering::SeqCst) {
                let ended_at = *ended_at.get_or_insert_with(Instant::now);
                assert!(ended_at.elapsed() < DEADLINE, "{} packets of {name}", latencies.len());
            }
            let len = len_between_writes(&file, &capture.ends);
            let seen_at = Instant::now();
            let sent = sent.lock().unwrap();
            while latencies.len() < sent.len() && capture.ends[latencies.len() + 1] <= len {
                latencies.push(seen_at.saturating_duration_since(sent[latencies.len()]));
            }
            drop(sent);
            if latencies.len() == capture.ends.len() - 1 {
                return latencies;
            }
            thread::sleep(Duration::from_micros(500));
        }
    })
}

/// Returns the length of a file, which must be one of `ends`. The kernel extends a file page by page, so a
/// single look can fall into a write; later looks then find a valid length.
fn len_between_writes(file: &Path, ends: &[usize]) -> usize {
    let what = format!("an end at a packet of {}", file.display());
    wait_for(WRITE, &what, || {
        let len = fs::metadata(file).map_or(0, |metadata| metadata.len() as usize);
        ends.contains(&len).then_some(len)
    })
}

struct EndOnDrop<'a>(&'a AtomicBool);

impl Drop for EndOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}
