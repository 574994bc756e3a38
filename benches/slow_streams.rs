//! Load generator of the benchmark "many slow streams": N senders of 100 bytes at a time. Measures how long a
//! packet takes from the send to the receiver's file.
//!
//! There are only two threads, because the machine is shared with the receiver: `main` connects and sends
//! (with non-blocking sockets and a schedule that needs no timer per stream), `watch` checks the sizes of a
//! sample of files. Every send completes exactly one packet. The content of a stream is a function of its
//! number and the offset, so nothing is stored to finish a partial send or to compare the files at the end.
//!
//! Prints one JSON line. Exits with 0 if every file is complete, with 3 otherwise.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::SendFlags;
use serde::Serialize;
use socket2::{Domain, Protocol, Socket, Type};

use lea::runtime::logging;
use lea::{Error, Exit, Result};

/// Size of the pcap file header, which is sent alone before the first packet.
const HEADER_BYTES: u64 = 24;
/// Size of a packet: a header of 16 and a payload of 84 bytes, in one send.
const PACKET_BYTES: u64 = 100;
/// Number of concurrent connection attempts: less than the shortest usual backlog, 128.
const CONNECTING_MAX: usize = 100;
/// Silence after the name, as real senders keep it.
const NAME_GAP: Duration = Duration::from_secs(1);
/// Interval of checks of the sampled files: the resolution of the latency.
const WATCH_EVERY: Duration = Duration::from_millis(1);
/// Maximum bytes per send when a stream catches up.
const CATCH_UP_BYTES_MAX: u64 = 64 * 1024;

/// Simulate many slow streams and measure the latency of packets from the send to the file
#[derive(Parser, Debug)]
struct Args {
    /// The receiver
    #[arg(long, value_name = "ADDR:PORT")]
    tcp: SocketAddr,
    /// Directory where the receiver writes its files, each under the stream's name
    #[arg(long, required_unless_present = "no_files")]
    dir: Option<PathBuf>,
    /// The receiver's files are not accessible: measure no latency, compare nothing
    #[arg(long, conflicts_with = "dir")]
    no_files: bool,
    /// Number of concurrent streams
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    streams: u32,
    /// Sends per second of each stream
    #[arg(long, value_name = "R", default_value_t = 1.0)]
    rate: f64,
    /// Duration of sending, in seconds
    #[arg(long, value_name = "T", default_value_t = 10.0)]
    seconds: f64,
    /// Number of streams whose latency is measured, evenly distributed
    #[arg(long, value_name = "N", default_value_t = 200)]
    sample: u32,
    /// Time limit for connecting, and for completing the files after the last send
    #[arg(long, value_name = "MS", default_value_t = 60_000)]
    deadline_ms: u64,
}

impl Args {
    fn packets(&self) -> u32 {
        (self.rate * self.seconds).round() as u32
    }

    fn stream_bytes(&self) -> u64 {
        HEADER_BYTES + u64::from(self.packets()) * PACKET_BYTES
    }

    fn check(&self) -> Result<()> {
        let usage = |text: &str| Err(Error::Usage(text.to_owned()));
        match () {
            () if !(self.rate > 0.0 && self.rate <= 1e6) => usage("--rate must be above 0, and 1e6 at most"),
            () if !(self.seconds > 0.0 && self.seconds <= 1e6) => usage("--seconds must be above 0"),
            () if self.packets() == 0 => usage("--rate times --seconds must make a send at least"),
            () => Ok(()),
        }
    }
}

/// Result, printed as one JSON line.
#[derive(Serialize, Debug, Default)]
struct Report {
    streams: u32,
    connect_failures: u32,
    /// Streams that the receiver closed early.
    send_failures: u32,
    sends: u64,
    bytes: u64,
    /// Maximum lateness of sends against the schedule, caused by the generator or by full sockets.
    schedule_late_max_ms: f64,
    /// Files identical to what was sent.
    whole: u32,
    /// Files that are missing, short or different.
    lacking: u32,
    latency_packets: usize,
    /// Sampled packets that did not appear in a file before the deadline.
    latency_unseen: usize,
    latency_p50_ms: Option<f64>,
    latency_p90_ms: Option<f64>,
    latency_p99_ms: Option<f64>,
    latency_max_ms: Option<f64>,
    seconds: f64,
}

fn main() -> std::process::ExitCode {
    let exit = run(&Args::parse()).unwrap_or_else(|error| {
        logging::status_line(format_args!("slow_streams: {}", lea::error::chain(&error)));
        error.exit()
    });
    exit.into()
}

fn run(args: &Args) -> Result<Exit> {
    args.check()?;
    lea::limits::raise_descriptor_limit();
    let mut report = Report { streams: args.streams, ..Report::default() };
    let started = Instant::now();
    let mut streams = connect(args, &mut report)?;
    thread::sleep(NAME_GAP);

    let samples = Arc::new(samples(args, started));
    let over = Arc::new(AtomicBool::new(false));
    let watcher = thread::Builder::new()
        .name("watch".to_owned())
        .spawn({
            let (samples, over) = (samples.clone(), over.clone());
            move || watch(&samples, &over)
        })
        .map_err(Error::system("start a thread"))?;
    send_all(args, &mut streams, &samples, &mut report);
    let deadline = Instant::now() + Duration::from_millis(args.deadline_ms);
    flush(&mut streams, deadline, &mut report)?;
    report.seconds = started.elapsed().as_secs_f64();
    drop(streams);

    if let Some(dir) = &args.dir {
        compare(args, dir, deadline, &mut report);
    }
    over.store(true, Ordering::Relaxed);
    let (latencies, unseen) = watcher.join().map_err(|_| Error::Thread("watch".to_owned()))?;
    report_latencies(latencies, unseen, &mut report);
    let line = serde_json::to_string(&report).map_err(|error| Error::system("print")(error.into()))?;
    writeln!(io::stdout(), "{line}").map_err(Error::system("print"))?;
    let good = report.connect_failures + report.send_failures + report.lacking == 0;
    Ok(if good { Exit::Done } else { Exit::Incomplete })
}

/// Name of stream number `stream`, in the usual form.
fn name(stream: u32) -> String {
    format!("+447700900{:03}-{}-3_21_11_2026_20:59:41.pcap", stream % 1000, stream / 1000 + 1)
}

/// Writes the bytes `from..to` of a stream into `out`: a pcap file header, then packets that all differ.
fn content(stream: u32, from: u64, to: u64, out: &mut Vec<u8>) {
    out.clear();
    let mut at = from;
    while at < to {
        let (part, part_start): (Vec<u8>, u64) = if at < HEADER_BYTES {
            (header(), 0)
        } else {
            let packet = (at - HEADER_BYTES) / PACKET_BYTES;
            (packet_bytes(stream, packet), HEADER_BYTES + packet * PACKET_BYTES)
        };
        let end = to.min(part_start + part.len() as u64);
        out.extend_from_slice(&part[(at - part_start) as usize..(end - part_start) as usize]);
        at = end;
    }
}

fn header() -> Vec<u8> {
    // Version 2.4, snaplen 262144, LINKTYPE_USER0, which no dissector interprets.
    let words = [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 262_144, 147];
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn packet_bytes(stream: u32, packet: u64) -> Vec<u8> {
    let payload_bytes = PACKET_BYTES as u32 - 16;
    let words = [1_795_294_772 + packet as u32, stream % 1_000_000, payload_bytes, payload_bytes];
    let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let seed = u64::from(stream).wrapping_mul(31).wrapping_add(packet.wrapping_mul(7));
    bytes.extend((0..u64::from(payload_bytes)).map(|at| seed.wrapping_add(at) as u8));
    bytes
}

/// Stream: bytes up to `sent` were accepted by the kernel, bytes up to `owed` are due.
struct Stream {
    number: u32,
    peer: Option<TcpStream>,
    sent: u64,
    owed: u64,
}

impl Stream {
    /// Sends the due bytes, as far as the socket accepts them.
    fn push(&mut self, buffer: &mut Vec<u8>, report: &mut Report) {
        while let Some(peer) = &self.peer
            && self.sent < self.owed
        {
            content(self.number, self.sent, self.owed.min(self.sent + CATCH_UP_BYTES_MAX), buffer);
            match rustix::net::send(peer, buffer, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(bytes) => {
                    self.sent += bytes as u64;
                    report.bytes += bytes as u64;
                    report.sends += 1;
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Err(_) => {
                    self.peer = None;
                    report.send_failures += 1;
                }
            }
        }
    }
}

/// Connects all streams, a few at a time, and sends their names.
fn connect(args: &Args, report: &mut Report) -> Result<Vec<Stream>> {
    let deadline = Instant::now() + Duration::from_millis(args.deadline_ms);
    let mut waiting: VecDeque<(u32, Socket)> = VecDeque::new();
    let mut streams = Vec::new();
    let mut next = 0;
    while (next < args.streams || !waiting.is_empty()) && Instant::now() < deadline {
        while next < args.streams && waiting.len() < CONNECTING_MAX {
            waiting.push_back((next, begin_connect(args.tcp)?));
            next += 1;
        }
        let ready = writable(waiting.iter().map(|(_, socket)| socket), Duration::from_millis(100))?;
        for ready in ready {
            let (number, socket) = waiting.pop_front().expect("as many as were polled");
            match ready {
                false => waiting.push_back((number, socket)),
                true => match greet(number, socket) {
                    Ok(peer) => streams.push(Stream { number, peer: Some(peer), sent: 0, owed: 0 }),
                    Err(_) => report.connect_failures += 1,
                },
            }
        }
    }
    report.connect_failures += waiting.len() as u32 + (args.streams - next);
    // The order of the streams in the schedule must not depend on the order of connecting.
    streams.sort_by_key(|stream| stream.number);
    Ok(streams)
}

fn begin_connect(addr: SocketAddr) -> Result<Socket> {
    let start = || -> io::Result<Socket> {
        let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_tcp_nodelay(true)?;
        socket.set_nonblocking(true)?;
        match socket.connect(&addr.into()) {
            Err(error) if error.raw_os_error() != Some(Errno::INPROGRESS.raw_os_error()) => Err(error),
            _ => Ok(socket),
        }
    };
    start().map_err(Error::net("connect to", addr))
}

/// Sends the name on a new connection, with the handshake `gap`.
fn greet(number: u32, socket: Socket) -> io::Result<TcpStream> {
    if let Some(error) = socket.take_error()? {
        return Err(error);
    }
    let name = name(number);
    let sent = rustix::net::send(&socket, name.as_bytes(), SendFlags::NOSIGNAL)?;
    // An empty send buffer always accepts 40 bytes.
    if sent == name.len() { Ok(socket.into()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

/// Reports for each socket whether it is writable or has failed.
fn writable<S: std::os::fd::AsFd>(sockets: impl Iterator<Item = S>, wait: Duration) -> Result<Vec<bool>> {
    let sockets: Vec<S> = sockets.collect();
    let mut fds: Vec<PollFd<'_>> = sockets.iter().map(|fd| PollFd::new(fd, PollFlags::OUT)).collect();
    let wait = Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: wait.subsec_nanos().into() };
    match poll(&mut fds, Some(&wait)) {
        Ok(_) | Err(Errno::INTR) => Ok(fds.iter().map(|fd| !fd.revents().is_empty()).collect()),
        Err(error) => Err(Error::system("wait for sockets")(error.into())),
    }
}

/// Sampled stream: the sender records when it sent each packet, the watcher reads it.
struct Sample {
    number: u32,
    path: PathBuf,
    started: Instant,
    sent_ns: Vec<AtomicU64>,
    sent: AtomicU32,
}

fn samples(args: &Args, started: Instant) -> Vec<Sample> {
    let Some(dir) = &args.dir else { return Vec::new() };
    let count = u64::from(args.sample.min(args.streams));
    let sample = |nth: u64| {
        let number = (nth * u64::from(args.streams) / count) as u32;
        let sent_ns = (0..args.packets()).map(|_| AtomicU64::new(0)).collect();
        Sample { number, path: dir.join(name(number)), started, sent_ns, sent: AtomicU32::new(0) }
    };
    (0..count).map(sample).collect()
}

impl Sample {
    /// Records that the next packet is being sent. Called before the send, because the packet may reach the
    /// file before send(2) returns.
    fn note(&self) {
        let packet = self.sent.load(Ordering::Relaxed);
        self.sent_ns[packet as usize].store(self.started.elapsed().as_nanos() as u64, Ordering::Relaxed);
        self.sent.store(packet + 1, Ordering::Release);
    }
}

/// Sends every packet of every stream on time. Send number `g` is due at `g / (streams * rate)` and belongs
/// to stream `g % streams`, so sends are evenly distributed and no stream needs a timer.
fn send_all(args: &Args, streams: &mut [Stream], samples: &[Sample], report: &mut Report) {
    let mut buffer = Vec::new();
    for stream in &mut *streams {
        stream.owed = HEADER_BYTES;
        stream.push(&mut buffer, report);
    }
    let mut sample_of = vec![None; args.streams as usize];
    for sample in samples {
        sample_of[sample.number as usize] = Some(sample);
    }
    let between = 1.0 / (args.rate * f64::from(args.streams));
    let start = Instant::now();
    for packet in 0..u64::from(args.packets()) {
        for stream in &mut *streams {
            let nth = packet * u64::from(args.streams) + u64::from(stream.number);
            let due = Duration::from_secs_f64(nth as f64 * between);
            let now = start.elapsed();
            match due.checked_sub(now) {
                Some(early) => thread::sleep(early),
                None => {
                    report.schedule_late_max_ms = report.schedule_late_max_ms.max(millis(now - due));
                }
            }
            stream.owed += PACKET_BYTES;
            if let Some(sample) = sample_of[stream.number as usize]
                && stream.peer.is_some()
            {
                sample.note();
            }
            stream.push(&mut buffer, report);
        }
    }
}

/// Sends the bytes that full sockets did not accept.
fn flush(streams: &mut [Stream], deadline: Instant, report: &mut Report) -> Result<()> {
    let mut buffer = Vec::new();
    loop {
        let mut unfinished: Vec<&mut Stream> =
            streams.iter_mut().filter(|stream| stream.peer.is_some() && stream.sent < stream.owed).collect();
        if unfinished.is_empty() || Instant::now() >= deadline {
            report.send_failures += unfinished.len() as u32;
            return Ok(());
        }
        writable(unfinished.iter().filter_map(|stream| stream.peer.as_ref()), Duration::from_millis(100))?;
        unfinished.iter_mut().for_each(|stream| stream.push(&mut buffer, report));
    }
}

/// Checks the sampled files until the end. Returns the latency of each packet, and the number of packets that
/// never appeared.
fn watch(samples: &[Sample], over: &AtomicBool) -> (Vec<Duration>, usize) {
    let mut latencies = Vec::new();
    let mut files: Vec<(Option<File>, u32)> = samples.iter().map(|_| (None, 0)).collect();
    loop {
        // Read before the check, so that one more check follows the end.
        let last = over.load(Ordering::Relaxed);
        for (sample, (file, seen)) in samples.iter().zip(&mut files) {
            let sent = sample.sent.load(Ordering::Acquire);
            if *seen == sent {
                continue; // no packet is pending: save the system call
            }
            if file.is_none() {
                *file = File::open(&sample.path).ok();
            }
            let Some(bytes) = file.as_ref().and_then(|file| file.metadata().ok()).map(|meta| meta.len())
            else {
                continue;
            };
            let now = sample.started.elapsed();
            let whole = (bytes.saturating_sub(HEADER_BYTES) / PACKET_BYTES).min(u64::from(sent)) as u32;
            for packet in *seen..whole {
                let sent = Duration::from_nanos(sample.sent_ns[packet as usize].load(Ordering::Relaxed));
                latencies.push(now.saturating_sub(sent));
            }
            *seen = whole.max(*seen);
        }
        if last {
            let sent: usize = samples.iter().map(|sample| sample.sent.load(Ordering::Relaxed) as usize).sum();
            let unseen = sent - latencies.len();
            return (latencies, unseen);
        }
        thread::sleep(WATCH_EVERY);
    }
}

/// Waits until each file has its size, or until the deadline, then compares it with what was sent.
fn compare(args: &Args, dir: &Path, deadline: Instant, report: &mut Report) {
    let mut expected = Vec::new();
    for number in 0..args.streams {
        let path = dir.join(name(number));
        while fs::metadata(&path).map_or(0, |meta| meta.len()) < args.stream_bytes()
            && Instant::now() < deadline
        {
            thread::sleep(Duration::from_millis(10));
        }
        content(number, 0, args.stream_bytes(), &mut expected);
        match fs::read(&path) {
            Ok(found) if found == expected => report.whole += 1,
            _ => report.lacking += 1,
        }
    }
}

fn report_latencies(mut latencies: Vec<Duration>, unseen: usize, report: &mut Report) {
    latencies.sort_unstable();
    let at = |share: f64| {
        let last = latencies.len().checked_sub(1)?;
        Some(millis(latencies[(last as f64 * share).round() as usize]))
    };
    report.latency_packets = latencies.len();
    report.latency_unseen = unseen;
    report.latency_p50_ms = at(0.5);
    report.latency_p90_ms = at(0.9);
    report.latency_p99_ms = at(0.99);
    report.latency_max_ms = at(1.0);
}

fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}
