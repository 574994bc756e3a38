//! Sender of the throughput benchmark, for all receivers: sends captures from memory, as fast as TCP accepts
//! them.
//!
//! There is one thread per stream. The clock starts when all streams are connected and have sent their names.
//! It stops when the receiver has stored everything: its files have their full length and, if it writes
//! manifests, all say `closed`. The output is one line: the bytes of all streams and the seconds.

use std::fs;
use std::io::{self, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};

use lea::cc::vault::manifest::{Manifest, ManifestState, SUFFIX};
use lea::runtime::logging;
use lea::{Error, Exit, Result, error};

/// Size of a pcap file header.
const HEADER_BYTES: usize = 24;
/// Approximate size of one write: larger than half of any socket buffer, smaller than the caches.
const BLOCK_BYTES: usize = 1 << 20;
/// Interval of checks of the receiver's files after everything was sent: the resolution of the measured time.
const LOOK_INTERVAL: Duration = Duration::from_millis(1);

/// Send captures from memory, as fast as TCP accepts them
#[derive(Debug, Parser)]
struct Args {
    /// A receiver; if repeated, the streams take turns
    #[arg(long, required = true, value_name = "ADDR:PORT")]
    tcp: Vec<SocketAddr>,
    /// Directory where the receiver writes its files
    #[arg(long)]
    dir: PathBuf,
    /// A pcap file whose packets are sent in a loop
    #[arg(long, value_name = "FILE")]
    capture: PathBuf,
    /// Number of concurrent streams
    #[arg(long, default_value_t = 1)]
    streams: usize,
    /// Bytes of all streams together, in MiB; rounded to whole blocks of about 1 MiB
    #[arg(long, value_name = "MIB", default_value_t = 1024)]
    mib: usize,
    /// Way to send the name
    #[arg(long, value_enum, default_value_t = Name::None)]
    name: Name,
    /// Wait until all manifests of the receiver say `closed`
    #[arg(long)]
    manifests: bool,
    /// Time limit for the receiver after the last byte was sent
    #[arg(long, value_name = "MS", default_value_t = 120_000)]
    deadline_ms: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Name {
    /// Send no name: the receiver expects only bytes
    None,
    /// Send the name and a newline
    Newline,
}

/// Content of each stream: a header, then the block `blocks` times.
struct Load {
    header: Vec<u8>,
    block: Vec<u8>,
    blocks: usize,
}

impl Load {
    /// Repeats the packets of a capture to about one block, and computes the number of blocks per stream.
    fn read(capture: &Path, stream_bytes: usize) -> Result<Load> {
        let capture_bytes = fs::read(capture).map_err(Error::path("read", capture))?;
        if capture_bytes.len() <= HEADER_BYTES {
            return Err(Error::Usage(format!("{} has no packets", capture.display())));
        }
        let (header, packets) = capture_bytes.split_at(HEADER_BYTES);
        let block = packets.repeat(BLOCK_BYTES.div_ceil(packets.len()));
        Ok(Load { header: header.to_owned(), blocks: (stream_bytes / block.len()).max(1), block })
    }

    fn bytes(&self) -> u64 {
        (self.header.len() + self.blocks * self.block.len()) as u64
    }

    fn send(&self, stream: &mut TcpStream) -> io::Result<()> {
        stream.write_all(&self.header)?;
        (0..self.blocks).try_for_each(|_| stream.write_all(&self.block))?;
        stream.shutdown(Shutdown::Write)
    }
}

fn main() -> std::process::ExitCode {
    let sent = run(&Args::parse());
    let exit = match sent {
        Ok(()) => Exit::Done,
        Err(error) => {
            logging::status_line(format_args!("send_fast: {}", error::chain(&error)));
            error.exit()
        }
    };
    exit.into()
}

fn run(args: &Args) -> Result<()> {
    let load = Load::read(&args.capture, (args.mib << 20) / args.streams.max(1))?;
    let streams = (0..args.streams).map(|number| open(args, number)).collect::<Result<Vec<_>>>()?;
    let barrier = Barrier::new(args.streams + 1);
    let start = thread::scope(|scope| {
        let senders: Vec<_> = streams
            .into_iter()
            .map(|(addr, mut stream)| {
                let (load, barrier) = (&load, &barrier);
                scope.spawn(move || {
                    barrier.wait();
                    load.send(&mut stream).map_err(Error::net("send to", addr))
                })
            })
            .collect();
        barrier.wait();
        let start = Instant::now();
        for sender in senders {
            sender.join().map_err(|_| Error::Thread("of a stream".to_owned()))??;
        }
        Ok::<_, Error>(start)
    })?;
    wait_complete(args, load.bytes() * args.streams as u64)?;
    let seconds = start.elapsed().as_secs_f64();
    writeln!(io::stdout(), "{} {seconds:.6}", load.bytes() * args.streams as u64)
        .map_err(Error::system("write to stdout"))
}

fn open(args: &Args, number: usize) -> Result<(SocketAddr, TcpStream)> {
    let addr = args.tcp[number % args.tcp.len()];
    let connect = || {
        let mut stream = TcpStream::connect(addr)?;
        if args.name == Name::Newline {
            stream.write_all(format!("+447700900{number:03}-2-3_21_11_2026_20:59:41.pcap\n").as_bytes())?;
        }
        Ok(stream)
    };
    Ok((addr, connect().map_err(Error::net("connect to", addr))?))
}

/// Waits until the receiver's files have `bytes` bytes in total and all manifests say that they are closed.
fn wait_complete(args: &Args, bytes: u64) -> Result<()> {
    let deadline = Instant::now() + Duration::from_millis(args.deadline_ms);
    loop {
        let (stored, closed) = look(&args.dir).map_err(Error::path("look into", &args.dir))?;
        if stored == bytes && (!args.manifests || closed == args.streams) {
            return Ok(());
        }
        if stored > bytes || Instant::now() > deadline {
            let lacking = format!("{stored} of {bytes} bytes stored, {closed} manifests closed");
            return Err(Error::path("complete", &args.dir)(io::Error::other(lacking)));
        }
        thread::sleep(LOOK_INTERVAL);
    }
}

/// Returns the total size of the stream files in `dir` and the number of manifests that say `closed`.
fn look(dir: &Path) -> io::Result<(u64, usize)> {
    let (mut stored, mut closed) = (0, 0);
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.ends_with(SUFFIX) {
            closed += usize::from(is_closed(&entry.path()));
        } else if entry.file_type()?.is_file() && !name.starts_with('.') {
            stored += entry.metadata()?.len();
        }
    }
    Ok((stored, closed))
}

fn is_closed(manifest: &Path) -> bool {
    let content = fs::read(manifest).unwrap_or_default();
    serde_json::from_slice::<Manifest>(&content).is_ok_and(|manifest| manifest.state == ManifestState::Closed)
}
