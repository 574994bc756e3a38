//! `lea replay`: sends captures as real senders do.

use std::net::{SocketAddr, ToSocketAddrs};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::time::Duration;

use super::connect::ConnectArgs;
use crate::cc::source::kafka::settings::topic_name;
use crate::cli::Globals;
use crate::config;
use crate::limits;
use crate::logging::{self, LevelFilter};
use crate::replay::STREAMS_MAX;
use crate::replay::fault::{self, Fault};
use crate::replay::kafka::{self, Compression, KafkaSink, Key};
use crate::replay::logstash::LogstashSink;
use crate::replay::names;
use crate::replay::pace::Pace;
use crate::replay::run::{self, Lane, Plan, Summary};
use crate::replay::sink::Sink;
use crate::replay::source::Source;
use crate::replay::stream::Manner;
use crate::replay::tcp::{Handshake, Peer, TcpSink};
use crate::stop::Stop;
use crate::{Error, Exit, Result};

/// The pieces of all streams together; a few streams get large ones.
const PIECES_BYTES_MAX: usize = 64 << 20;
const PIECE_BYTES_MAX: usize = 256 << 10;

/// Send captures as real senders do
///
/// Over TCP a stream is a connection: its name, then the bytes of the file in small sends, by default at the times at
/// which the packets were captured. To Kafka and Logstash each send is a record or a line.
#[derive(clap::Args, Debug)]
#[command(group(clap::ArgGroup::new("receiver").required(true)))]
pub struct Args {
    /// The files to send: pcap or pcapng, or anything else
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// A receiver of streams over TCP
    #[arg(long, value_name = "ADDR:PORT", group = "receiver", help_heading = "Receiver")]
    tcp: Option<String>,
    /// Brokers of Kafka, several with commas
    #[arg(long, value_name = "ADDR:PORT", group = "receiver", help_heading = "Receiver")]
    kafka: Option<String>,
    /// A receiver of Logstash lines, all streams over one connection
    #[arg(long, value_name = "ADDR:PORT", group = "receiver", help_heading = "Receiver")]
    logstash: Option<String>,
    /// How the name goes before the data
    #[arg(long, value_enum, default_value_t = Handshake::Gap, conflicts_with_all = ["kafka", "logstash"],
          help_heading = "Receiver")]
    handshake: Handshake,
    #[command(flatten)]
    records: Records,
    /// Bytes a send
    #[arg(long, value_name = "BYTES", default_value_t = 100, help_heading = "Receiver",
          value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    chunk: u32,
    /// How long to try to connect, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 5000, help_heading = "Receiver",
          value_parser = clap::value_parser!(u32).range(1..=3_600_000))]
    connect_timeout_ms: u32,
    /// The stream's name, in place of the file's own
    #[arg(long, help_heading = "Streams")]
    name: Option<std::ffi::OsString>,
    /// Send each file so many times, one after another, each time under a name of its own
    #[arg(long = "loop", value_name = "N", default_value_t = 1, help_heading = "Streams",
          value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    rounds: u64,
    /// Send so many copies of each file at once, each under a name of its own
    #[arg(long, value_name = "N", default_value_t = 1, help_heading = "Streams",
          value_parser = clap::value_parser!(u64).range(1..=STREAMS_MAX as u64))]
    streams: u64,
    #[command(flatten)]
    pacing: Pacing,
    /// Let each stream fail in this way; given several times, the streams take them in turn
    #[arg(long, value_enum, help_heading = "Faults")]
    fault: Vec<Fault>,
    /// Where the faults come from: the same number, the same faults [default: at random, and printed]
    #[arg(long, value_name = "N", requires = "fault", help_heading = "Faults")]
    seed: Option<u64>,
    /// Print the summary as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connect: ConnectArgs,
}

/// How records go to Kafka.
#[derive(clap::Args, Debug)]
struct Records {
    /// The topic; it must be there
    #[arg(long, default_value = "interception_data", value_parser = topic_name, conflicts_with_all = ["tcp", "logstash"],
          help_heading = "Kafka")]
    topic: String,
    /// The records' keys
    #[arg(long, value_enum, default_value_t = Key::Stream, conflicts_with_all = ["tcp", "logstash"],
          help_heading = "Kafka")]
    key: Key,
    /// How records are compressed
    #[arg(long, value_enum, default_value_t = Compression::None, conflicts_with_all = ["tcp", "logstash"],
          help_heading = "Kafka")]
    compression: Compression,
}

/// How fast; by the captures' own packet times without any of them, files that are no captures at top speed.
#[derive(clap::Args, Debug)]
#[group(multiple = false)]
struct Pacing {
    /// By the capture's own packet times, so many times faster
    #[arg(long, value_name = "X", value_parser = positive, help_heading = "Pacing")]
    multiplier: Option<f64>,
    /// So many megabits (10^6) a second, each stream
    #[arg(long, value_name = "X", value_parser = positive, help_heading = "Pacing")]
    mbps: Option<f64>,
    /// So many packets a second, each stream
    #[arg(long, value_name = "X", value_parser = positive, help_heading = "Pacing")]
    pps: Option<f64>,
    /// As fast as the receiver takes it
    #[arg(long, help_heading = "Pacing")]
    topspeed: bool,
}

fn positive(text: &str) -> std::result::Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number > 0.0 && number.is_finite() => Ok(number),
        _ => Err("it must be a number above 0".to_owned()),
    }
}

impl Pacing {
    fn of_captures(&self) -> Pace {
        match *self {
            Pacing { topspeed: true, .. } => Pace::TopSpeed,
            Pacing { mbps: Some(mbps), .. } => Pace::Bits { per_second: mbps * 1e6 },
            Pacing { pps: Some(per_second), .. } => Pace::Packets { per_second },
            Pacing { multiplier, .. } => Pace::Captured { multiplier: multiplier.unwrap_or(1.0) },
        }
    }

    fn of_others(&self) -> Pace {
        self.mbps.map_or(Pace::TopSpeed, |mbps| Pace::Bits { per_second: mbps * 1e6 })
    }
}

fn peer(option: &str, label: &str, connect_timeout: Duration) -> Result<Peer> {
    let wrong = |reason: String| Error::Usage(format!("{option} {label}: {reason}"));
    let addrs: Vec<SocketAddr> = label.to_socket_addrs().map_err(|error| wrong(error.to_string()))?.collect();
    if addrs.is_empty() {
        return Err(wrong("no address has that name".to_owned()));
    }
    Ok(Peer { addrs, label: label.to_owned(), connect_timeout })
}

impl Args {
    /// Runs the command.
    pub fn run(self, globals: &Globals) -> Result<Exit> {
        logging::start(globals.level(LevelFilter::Info));
        self.check()?;
        // Before anything connects.
        let stop = Stop::on_signals()?;
        let sink = self.sink()?;
        let sources = Source::open_all(&self.files)?;
        let plan = self.plan(&sources, globals)?;
        limits::raise_descriptors();
        if !self.fault.is_empty() {
            logging::say(format_args!("faults seed={}", plan.seed));
        }
        let (summary, failure) = run::run(&plan, &*sink, &stop)?;
        self.report(&summary)?;
        match failure {
            Some(failure) if summary.connections == 0 => Err(failure),
            _ if summary.failed + summary.stopped > 0 => Ok(Exit::Differs),
            _ => Ok(Exit::Done),
        }
    }

    fn check(&self) -> Result<()> {
        if self.files.len().saturating_mul(self.streams as usize) > STREAMS_MAX {
            return Err(Error::Usage(format!(
                "files times --streams is above {STREAMS_MAX}, the most at once"
            )));
        }
        if self.handshake == Handshake::Joined && self.fault.contains(&Fault::ReconnectContinue) {
            let text = "--fault reconnect-continue needs another --handshake than joined: nothing would end the name";
            return Err(Error::Usage(text.to_owned()));
        }
        if self.kafka.is_none() && self.connect.is_given() {
            return Err(Error::Usage(
                "--tls, --sasl-user and -X are about brokers: they need --kafka".to_owned(),
            ));
        }
        if self.kafka.is_none() && self.fault.iter().any(|fault| fault.is_of_records()) {
            let text = "--fault duplicate, reorder, bad-base64 and missing-field are faults of records: they need --kafka";
            return Err(Error::Usage(text.to_owned()));
        }
        Ok(())
    }

    fn sink(&self) -> Result<Box<dyn Sink>> {
        let connect_timeout = Duration::from_millis(self.connect_timeout_ms.into());
        Ok(match (&self.tcp, &self.kafka, &self.logstash) {
            (Some(addr), ..) => {
                let peer = peer("--tcp", addr, connect_timeout)?;
                Box::new(TcpSink { peer, handshake: self.handshake })
            }
            (_, Some(brokers), _) => Box::new(KafkaSink::new(kafka::Settings {
                brokers: brokers.clone(),
                topic: self.records.topic.clone(),
                key: self.records.key,
                compression: self.records.compression,
                connect_timeout,
                properties: self.connect.clone().resolve(config::environment)?,
            })?),
            (_, _, Some(addr)) => Box::new(LogstashSink::new(peer("--logstash", addr, connect_timeout)?)),
            // The group of options needs one of them.
            (None, None, None) => return Err(Error::Usage("no receiver is given".to_owned())),
        })
    }

    fn plan<'a>(&self, sources: &'a [Source], globals: &Globals) -> Result<Plan<'a>> {
        let bases: Vec<Vec<u8>> = sources.iter().map(|source| self.base_name(source)).collect();
        let namings = names::assign(&bases, self.streams, self.rounds)?;
        let lanes: Vec<Lane<'a>> = sources
            .iter()
            .zip(namings)
            .flat_map(|(source, namings)| namings.into_iter().map(move |naming| Lane { source, naming }))
            .collect();
        let chunk_bytes = self.chunk as usize;
        let manner = Manner {
            captures: self.pacing.of_captures(),
            others: self.pacing.of_others(),
            chunk_bytes,
            piece_bytes: (PIECES_BYTES_MAX / lanes.len()).min(PIECE_BYTES_MAX),
        };
        self.warn_of_no_times(sources);
        let seed = self.seed.unwrap_or_else(fault::seed_at_random);
        let progress = globals.quiet == 0;
        Ok(Plan { lanes, rounds: self.rounds, manner, faults: self.fault.clone(), seed, progress })
    }

    fn base_name(&self, source: &Source) -> Vec<u8> {
        match &self.name {
            Some(name) => name.clone().into_vec(),
            // A regular file's path has a last part.
            None => source.path().file_name().unwrap_or_default().as_bytes().to_vec(),
        }
    }

    fn warn_of_no_times(&self, sources: &[Source]) {
        if self.pacing.multiplier.is_none() && self.pacing.pps.is_none() {
            return;
        }
        for source in sources.iter().filter(|source| source.packets().is_none()) {
            log::warn!("no_packets file={:?} action=\"sent at top speed\"", source.path());
        }
    }

    fn report(&self, summary: &Summary) -> Result<()> {
        let mut line = format!(
            "replayed streams={} whole={} cut_off={} stopped={} failed={} bytes={} seconds={:.3} mbps={:.3}",
            summary.streams,
            summary.whole,
            summary.cut_off,
            summary.stopped,
            summary.failed,
            summary.bytes,
            summary.seconds,
            summary.mbps
        );
        let late = (summary.lateness_p50_ms, summary.lateness_p99_ms, summary.lateness_max_ms);
        if let (Some(p50), Some(p99), Some(max)) = late {
            line += &format!(" lateness_p50_ms={p50} lateness_p99_ms={p99} lateness_max_ms={max}");
        }
        logging::say(format_args!("{line}"));
        if self.json {
            let json =
                serde_json::to_string(summary).map_err(|error| Error::system("print")(error.into()))?;
            logging::print(format_args!("{json}")).map_err(Error::system("print"))?;
        }
        Ok(())
    }
}
