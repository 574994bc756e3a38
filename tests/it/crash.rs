//! The receiver is killed (SIGKILL) at random moments: while streams grow, while re-sends are compared,
//! during recovery, and while it creates many files. After each kill each file is a prefix of what was sent.
//! After a final re-send each file equals what was sent, and there are no other files.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use lea::cc::vault::manifest::SUFFIX;

use crate::support::process::Process;
use crate::support::sender::CHUNK_BYTES;
use crate::support::stored::{assert_only, assert_whole, names_in};
use crate::support::{DEADLINE, Random, Server, Workdir, generated, lea, long, testdata};

/// Streams that are re-sent in each round.
const STREAMS: usize = 24;

/// New small streams in a round that creates files.
const NEW_STREAMS: usize = 100;

/// A capture, and how its sender sends it.
struct Stream {
    name: String,
    content: Vec<u8>,
    chunk_bytes: usize,
    pause: Duration,
}

/// When the receiver is killed.
#[derive(Clone, Copy, Debug)]
enum Moment {
    /// While all streams are re-sent: first they are compared, then they grow.
    Load,
    /// While it starts and recovers, without senders.
    Recovery,
    /// While many new streams start.
    Creation,
}

const MOMENTS: [Moment; 5] = [Moment::Load, Moment::Creation, Moment::Load, Moment::Recovery, Moment::Load];

#[test]
fn every_file_is_whole_after_kills_and_a_full_re_send() {
    let rounds = if long() { 200 } else { 10 };
    let mut random = Random::new("crash");
    let work = Workdir::new();
    let output = work.join("out");
    let mut streams: Vec<Stream> = (0..STREAMS).map(|number| stream(number, &mut random)).collect();
    let mut server = Server::start(&output, &[]);
    for round in 0..rounds {
        let moment = MOMENTS[round % MOMENTS.len()];
        let started = Instant::now();
        match moment {
            Moment::Load => kill_under_load(&mut server, &streams, &mut random),
            Moment::Creation => {
                streams.extend((0..NEW_STREAMS).map(|number| small(round, number, &mut random)));
                kill_under_load(&mut server, &streams[streams.len() - NEW_STREAMS..], &mut random);
            }
            Moment::Recovery => {
                server.kill9();
                kill_at_start(&output, &mut random);
            }
        }
        check_starts(&output, &streams);
        let stored: u64 = names_in(&output).iter().map(|name| file_len(&output.join(name))).sum();
        eprintln!("crash: round {round} {moment:?} {:?}, {stored} bytes stored", started.elapsed());
        server.restart();
    }
    let addr = server.addr();
    // All at once, because threads are cheap.
    for some in streams.chunks(STREAMS + NEW_STREAMS) {
        thread::scope(|scope| {
            for stream in some {
                scope.spawn(move || stream.send(addr).unwrap());
            }
        });
    }
    server.term();
    for stream in &streams {
        assert_whole(&output, &stream.name, &stream.content);
    }
    assert_only(&output, streams.iter().map(|stream| &*stream.name));
}

/// A stream of random size, speed and format, or one of the recorded calls.
fn stream(number: usize, random: &mut Random) -> Stream {
    let ending = ["pcap", "pcapng"][number % 2];
    let content = match number {
        0 => testdata("pcap/answered-call.pcap"),
        1 => testdata("pcap/three-calls.pcapng"),
        _ => {
            let bytes_min = 1 << (9 + random.below(12));
            let make = [generated::pcap, generated::pcapng][number % 2];
            make(random, bytes_min).bytes
        }
    };
    let (chunk_bytes, pause_us) = match random.below(4) {
        0 => (CHUNK_BYTES, 200 + random.below(1000)),
        1 => (1 + random.below(3000) as usize, 500),
        2 => (64 << 10, 1000 * random.below(20)),
        _ => (content.len(), 0),
    };
    // Each stream takes at most some seconds.
    let chunk_bytes = chunk_bytes.max(content.len() / 2000);
    let name = format!("+447700900{number:03}-2-3_21_11_2026_20:59:41.{ending}");
    Stream { name, content, chunk_bytes, pause: Duration::from_micros(pause_us) }
}

fn small(round: usize, number: usize, random: &mut Random) -> Stream {
    let content = generated::pcap(random, 300).bytes;
    Stream { name: format!("small-{round}-{number}"), content, chunk_bytes: 100, pause: Duration::ZERO }
}

impl Stream {
    /// Sends everything from the first byte. Fails when the receiver is gone.
    fn send(&self, addr: SocketAddr) -> io::Result<()> {
        let mut tcp = TcpStream::connect(addr)?;
        tcp.set_nodelay(true)?;
        tcp.set_write_timeout(Some(DEADLINE))?;
        tcp.set_read_timeout(Some(DEADLINE))?;
        tcp.write_all(format!("{}\n", self.name).as_bytes())?;
        for chunk in self.content.chunks(self.chunk_bytes) {
            tcp.write_all(chunk)?;
            thread::sleep(self.pause);
        }
        tcp.shutdown(std::net::Shutdown::Write)?;
        match tcp.read(&mut [0])? {
            0 => Ok(()),
            _ => panic!("the receiver sent something; it never does"),
        }
    }
}

/// Sends all streams at once, and kills the receiver meanwhile.
fn kill_under_load(server: &mut Server, streams: &[Stream], random: &mut Random) {
    let addr = server.addr();
    // Short times are preferred; long ones let streams grow.
    let time_max = [50, 200, 800][random.below(3) as usize];
    let time = Duration::from_millis(random.below(time_max));
    thread::scope(|scope| {
        for stream in streams {
            // An error is expected, because the receiver is killed.
            scope.spawn(move || stream.send(addr).unwrap_or_default());
        }
        thread::sleep(time);
        server.kill9();
    });
}

/// Starts a receiver on the directory and kills it before or shortly after it listens.
fn kill_at_start(output: &Path, random: &mut Random) {
    let mut command = Command::new(lea());
    command.args(["serve-tcp", "--listen", "127.0.0.1:0", "--output"]).arg(output);
    let mut process = Process::start(command.stdin(Stdio::null()).stdout(Stdio::null()));
    thread::sleep(Duration::from_millis(random.below(60)));
    process.kill();
}

/// Checks that only prefixes of what was sent are stored, one file each, with or without a manifest.
fn check_starts(output: &Path, streams: &[Stream]) {
    let sent: BTreeMap<&str, &[u8]> =
        streams.iter().map(|stream| (&*stream.name, &*stream.content)).collect();
    for name in names_in(output) {
        if name == ".lea" || name.strip_suffix(SUFFIX).is_some_and(|file| sent.contains_key(file)) {
            continue;
        }
        let content = sent.get(&*name).unwrap_or_else(|| panic!("a stray file: {name}"));
        let stored = fs::read(output.join(&name)).unwrap();
        assert!(content.starts_with(&stored), "{name} is not the start of what was sent");
    }
}

fn file_len(file: &Path) -> u64 {
    fs::metadata(file).map_or(0, |metadata| metadata.len())
}
