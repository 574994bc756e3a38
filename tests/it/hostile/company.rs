//! Real streams that run during a scenario and must arrive complete and in time.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use lea::cc::vault::manifest::EndReason;

use super::ground::Ground;
use crate::support::capture::packets;
use crate::support::sender::CHUNK_BYTES;
use crate::support::{DEADLINE, Handshake, Sender, assert_same, long, testdata, wait_closed, wait_until};

const CAPTURE: &str = "pcap/answered-call.pcap";

/// Interval between two packets of a real stream. A call has 50 packets per second and direction.
const PACKET_INTERVAL: Duration = Duration::from_millis(10);

/// Limit for the median delay, on a busy machine and without optimisation. On an idle machine nearly all
/// packets take less than 50 ms, which the benchmarks measure.
const MEDIAN_MAX: Duration = Duration::from_millis(500);

/// Running streams.
pub(super) struct Company {
    over: Arc<AtomicBool>,
    streams: Vec<(String, JoinHandle<Vec<Duration>>)>,
    output: PathBuf,
}

/// Delay of each packet from the send of its last byte until it was in the file.
pub(super) struct Delays(Vec<Duration>);

impl Company {
    /// Starts `count` streams. `service` distinguishes them from other streams of the same server.
    pub(super) fn start(ground: &Ground, service: &str, count: usize) -> Company {
        let over = Arc::new(AtomicBool::new(false));
        let (addr, output) = (ground.addr(), ground.output());
        let stream = |number: usize| {
            let name = format!("+4477009001{number:02}-2-{service}_21_11_2026_20:59:41.pcap");
            let (file, over) = (output.join(&name), Arc::clone(&over));
            let sender = Sender::open(addr, &name, Handshake::Newline);
            (name, thread::spawn(move || run(sender, &file, &over)))
        };
        let streams: Vec<_> = (0..count).map(stream).collect();
        wait_until(DEADLINE, "the files of real streams", || {
            streams.iter().all(|(name, _)| ground.files().contains(name))
        });
        Company { over, streams, output }
    }

    /// Ends the streams after the scenario and checks that they are complete.
    #[track_caller]
    pub(super) fn end(self) -> Delays {
        self.over.store(true, Ordering::Relaxed);
        let sent = testdata(CAPTURE);
        let mut delays = Vec::new();
        for (name, stream) in self.streams {
            delays.extend(stream.join().unwrap_or_else(|_| panic!("{name} has failed")));
            let manifest = wait_closed(&self.output, &name);
            assert_same(&self.output.join(&name), &sent);
            assert_eq!(
                (manifest.bytes, manifest.end_reason),
                (sent.len() as u64, Some(EndReason::Eof)),
                "{name}"
            );
        }
        delays.sort();
        let delays = Delays(delays);
        assert!(long() || delays.at(50) <= MEDIAN_MAX, "real streams were held up: {}", delays.told());
        delays
    }
}

impl Delays {
    fn at(&self, percent: usize) -> Duration {
        self.0
            .get((self.0.len() * percent / 100).min(self.0.len().saturating_sub(1)))
            .copied()
            .unwrap_or_default()
    }

    /// Returns the delays as text for the document.
    pub(super) fn told(&self) -> String {
        let ms = |percent| self.at(percent).as_millis();
        format!(
            "packet to file p50 {} ms, p99 {} ms, max {} ms of {} packets",
            ms(50),
            ms(99),
            ms(100),
            self.0.len()
        )
    }
}

/// Sends packet by packet and watches the file, until the scenario has ended or the last packet is reached.
/// The rest is sent at once.
fn run(mut sender: Sender, file: &Path, over: &AtomicBool) -> Vec<Duration> {
    let capture = testdata(CAPTURE);
    let packets = packets(&capture);
    let (mut sent, mut delays) = (0, Vec::new());
    for packet in &packets[..packets.len() - 1] {
        if over.load(Ordering::Relaxed) {
            break;
        }
        sender.send_chunks(&capture[sent..packet.end], CHUNK_BYTES);
        sent = packet.end;
        let at = Instant::now();
        while fs::metadata(file).map_or(0, |metadata| metadata.len()) < sent as u64 {
            assert!(at.elapsed() < DEADLINE, "a packet is not in {} after {DEADLINE:?}", file.display());
            thread::sleep(Duration::from_millis(1));
        }
        delays.push(at.elapsed());
        thread::sleep(PACKET_INTERVAL);
    }
    wait_until(20 * DEADLINE, "the end of the scenario", || over.load(Ordering::Relaxed));
    sender.send_chunks(&capture[sent..], CHUNK_BYTES);
    sender.finish();
    delays
}
