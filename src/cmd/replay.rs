//! `lea replay`: sends captures as real senders do. Checks its arguments in the main thread; each stream is sent by a
//! thread of `replay::run`.

use std::net::{SocketAddr, ToSocketAddrs};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::time::Duration;

use super::args::kafka::{KafkaConnectionArgs, VARIABLES};
use super::args::units;
use super::output::stdout;
use crate::cc::ingest::kafka::settings::parse_topic_name;
use crate::cmd::Command;
use crate::cmd::args::globals::Globals;
use crate::config;
use crate::limits;
use crate::manual::{self, Example, Manual};
use crate::replay::STREAMS_MAX;
use crate::replay::fault::{self, Fault};
use crate::replay::kafka::{self, Compression, KafkaSink, RecordKey};
use crate::replay::logstash::LogstashSink;
use crate::replay::names;
use crate::replay::pace::Pace;
use crate::replay::run::{self, Lane, ReplayPlan, ReplaySummary};
use crate::replay::sink::StreamSink;
use crate::replay::source::ReplayFile;
use crate::replay::stream::ReplayOptions;
use crate::replay::tcp::{HandshakeStyle, TcpSink, TcpTarget};
use crate::runtime::logging::{self, LevelFilter};
use crate::runtime::shutdown::Shutdown;
use crate::{Error, Exit, Result};

/// Memory for the read buffers of all streams together. With few streams, each gets a large buffer.
const BUFFERS_BYTES_MAX: usize = 64 << 20;
const BUFFER_BYTES_MAX: usize = 256 << 10;

/// Send captures as real senders do
///
/// Over TCP each stream is one connection that carries the stream's name and then the content of the file in small sends. To
/// Kafka each send is a record, to Logstash a line. By default packets are sent with the timing of the capture. Faults such
/// as a reset connection or a reordered record can be injected.
///
/// The exit status is 3 if a stream failed or was not sent to its end.
#[derive(clap::Args, Debug)]
#[command(group(clap::ArgGroup::new("receiver").required(true)))]
pub(crate) struct Args {
    /// Files to send: pcap, pcapng, or any other content
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Send to a TCP receiver
    #[arg(long, value_name = "ADDR:PORT", group = "receiver", help_heading = "Receiver")]
    tcp: Option<String>,
    /// Send to these Kafka brokers, separated by commas
    #[arg(long, value_name = "ADDR:PORT", group = "receiver", help_heading = "Receiver")]
    kafka: Option<String>,
    /// Send Logstash lines to this receiver, all streams over one connection
    #[arg(long, value_name = "ADDR:PORT", group = "receiver", help_heading = "Receiver")]
    logstash: Option<String>,
    /// How the stream name is separated from the content
    #[arg(long, value_enum, default_value_t = HandshakeStyle::Gap, conflicts_with_all = ["kafka", "logstash"],
          help_heading = "Receiver")]
    handshake: HandshakeStyle,
    #[command(flatten)]
    records: KafkaRecordArgs,
    /// Bytes per send
    #[arg(long, value_name = "BYTES", default_value_t = 100, help_heading = "Receiver",
          value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    chunk: u32,
    /// Retry for this long if the receiver does not accept a connection, or the brokers do not answer
    #[arg(long, value_name = "TIME", default_value = "30s", help_heading = "Receiver",
          value_parser = units::duration_in(1..=3_600_000))]
    connect_timeout: Duration,
    /// Stream name [default: the file's name]
    #[arg(long, help_heading = "Streams")]
    name: Option<std::ffi::OsString>,
    /// Send each file N times in sequence, each under a unique name
    #[arg(long = "loop", value_name = "N", default_value_t = 1, help_heading = "Streams",
          value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    rounds: u64,
    /// Send N copies of each file in parallel, each under a unique name
    #[arg(long, value_name = "N", default_value_t = 1, help_heading = "Streams",
          value_parser = clap::value_parser!(u64).range(1..=STREAMS_MAX as u64))]
    streams: u64,
    #[command(flatten)]
    pacing: PacingArgs,
    /// Inject this fault into each stream; if repeated, the streams use the faults in rotation
    #[arg(long, value_enum, help_heading = "Faults")]
    fault: Vec<Fault>,
    /// Seed of the faults, to repeat a run [default: random, printed at the start]
    #[arg(long, value_name = "N", requires = "fault", help_heading = "Faults")]
    seed: Option<u64>,
    /// Print the summary as JSON to stdout
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connect: KafkaConnectionArgs,
}

/// Options for Kafka records.
#[derive(clap::Args, Debug)]
struct KafkaRecordArgs {
    /// Topic; it must exist
    #[arg(long, default_value = "interception_data", value_parser = parse_topic_name, conflicts_with_all = ["tcp", "logstash"],
          help_heading = "Kafka")]
    topic: String,
    /// Key of each record
    #[arg(long, value_enum, default_value_t = RecordKey::Stream, conflicts_with_all = ["tcp", "logstash"],
          help_heading = "Kafka")]
    key: RecordKey,
    /// Compression of the records
    #[arg(long, value_enum, default_value_t = Compression::None, conflicts_with_all = ["tcp", "logstash"],
          help_heading = "Kafka")]
    compression: Compression,
}

/// Options for the sending rate. Without them captures are sent with their own timing, other files at top speed.
#[derive(clap::Args, Debug)]
#[group(multiple = false)]
struct PacingArgs {
    /// Send with the timing of the capture, X times faster
    #[arg(long, value_name = "X", value_parser = positive_number, help_heading = "Pacing")]
    multiplier: Option<f64>,
    /// Send X megabits (10^6 bits) per second and stream
    #[arg(long, value_name = "X", value_parser = positive_number, help_heading = "Pacing")]
    mbps: Option<f64>,
    /// Send X packets per second and stream
    #[arg(long, value_name = "X", value_parser = positive_number, help_heading = "Pacing")]
    pps: Option<f64>,
    /// Send as fast as the receiver accepts
    #[arg(long, help_heading = "Pacing")]
    topspeed: bool,
}

fn positive_number(text: &str) -> std::result::Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number > 0.0 && number.is_finite() => Ok(number),
        _ => Err("expected a number greater than 0".to_owned()),
    }
}

impl PacingArgs {
    fn capture_pace(&self) -> Pace {
        match *self {
            PacingArgs { topspeed: true, .. } => Pace::TopSpeed,
            PacingArgs { mbps: Some(mbps), .. } => Pace::Bits { per_second: mbps * 1e6 },
            PacingArgs { pps: Some(per_second), .. } => Pace::Packets { per_second },
            PacingArgs { multiplier, .. } => Pace::Captured { multiplier: multiplier.unwrap_or(1.0) },
        }
    }

    fn other_pace(&self) -> Pace {
        self.mbps.map_or(Pace::TopSpeed, |mbps| Pace::Bits { per_second: mbps * 1e6 })
    }
}

fn resolve_peer(option: &str, label: &str, connect_timeout: Duration) -> Result<TcpTarget> {
    let wrong = |reason: String| Error::Usage(format!("{option} {label}: {reason}"));
    let addrs: Vec<SocketAddr> = label.to_socket_addrs().map_err(|error| wrong(error.to_string()))?.collect();
    if addrs.is_empty() {
        return Err(wrong("the name has no address".to_owned()));
    }
    Ok(TcpTarget::new(addrs, label, connect_timeout))
}

impl Command for Args {
    const MANUAL: Manual = Manual {
        exits: &[(Exit::Incomplete, "A stream failed or was not sent to its end."), manual::INTERRUPTED],
        environment: VARIABLES,
        examples: &[
            Example {
                text: "Send a capture with its own timing",
                command: "lea replay call.pcap --tcp 127.0.0.1:5004",
            },
            Example {
                text: "Send 32 copies at top speed",
                command: "lea replay call.pcap --tcp 127.0.0.1:5004 --topspeed --streams 32",
            },
            Example {
                text: "Reset the connection within the stream",
                command: "lea replay call.pcap --tcp 127.0.0.1:5004 --fault reset --seed 7",
            },
        ],
        see_also: &["lea-serve-tcp(1)", "lea-consume-kafka(1)", "lea-verify(1)"],
        ..manual::EMPTY
    };

    fn run(self, globals: &Globals) -> Result<Exit> {
        logging::start(globals.level(LevelFilter::Info));
        self.check()?;
        // Handle signals before anything connects.
        let shutdown = Shutdown::on_signals()?;
        let sink = self.sink()?;
        let sources = ReplayFile::open_all(&self.files)?;
        let plan = self.plan(&sources, globals)?;
        limits::raise_descriptor_limit();
        if !self.fault.is_empty() {
            logging::status_line(format_args!("faults seed={}", plan.seed));
        }
        let (summary, failure) = run::run(&plan, &*sink, &shutdown)?;
        self.report(&summary)?;
        match failure {
            Some(failure) if summary.connections == 0 => Err(failure),
            _ if summary.failed + summary.stopped > 0 => Ok(Exit::Incomplete),
            _ => Ok(Exit::Done),
        }
    }
}

impl Args {
    fn check(&self) -> Result<()> {
        if self.files.len().saturating_mul(self.streams as usize) > STREAMS_MAX {
            return Err(Error::Usage(format!(
                "too many parallel streams: the number of files times --streams must be at most {STREAMS_MAX}"
            )));
        }
        if self.handshake == HandshakeStyle::Joined && self.fault.contains(&Fault::ReconnectContinue) {
            let text = "--fault reconnect-continue does not work with --handshake joined: the name would have no end; use --handshake gap";
            return Err(Error::Usage(text.to_owned()));
        }
        if self.kafka.is_none() && self.connect.is_given() {
            return Err(Error::Usage("--tls, --sasl-user and -X need --kafka".to_owned()));
        }
        if self.kafka.is_none() && self.fault.iter().any(|fault| fault.is_record_fault()) {
            let text = "--fault duplicate, reorder, bad-base64 and missing-field change Kafka records: they need --kafka";
            return Err(Error::Usage(text.to_owned()));
        }
        Ok(())
    }

    fn sink(&self) -> Result<Box<dyn StreamSink>> {
        let connect_timeout = self.connect_timeout;
        Ok(match (&self.tcp, &self.kafka, &self.logstash) {
            (Some(addr), ..) => {
                let peer = resolve_peer("--tcp", addr, connect_timeout)?;
                Box::new(TcpSink { peer, handshake: self.handshake })
            }
            (_, Some(brokers), _) => Box::new(KafkaSink::new(kafka::ProducerSettings {
                brokers: brokers.clone(),
                topic: self.records.topic.clone(),
                key: self.records.key,
                compression: self.records.compression,
                connect_timeout,
                properties: self.connect.clone().resolve(config::environment)?,
            })?),
            (_, _, Some(addr)) => {
                Box::new(LogstashSink::new(resolve_peer("--logstash", addr, connect_timeout)?))
            }
            // clap requires one option of the group.
            (None, None, None) => {
                return Err(Error::Usage("no receiver: give --tcp, --kafka or --logstash".to_owned()));
            }
        })
    }

    fn plan<'a>(&self, sources: &'a [ReplayFile], globals: &Globals) -> Result<ReplayPlan<'a>> {
        let bases: Vec<Vec<u8>> = sources.iter().map(|source| self.base_name(source)).collect();
        let namings = names::assign_names(&bases, self.streams, self.rounds)?;
        let lanes: Vec<Lane<'a>> = sources
            .iter()
            .zip(namings)
            .flat_map(|(source, namings)| namings.into_iter().map(move |naming| Lane { source, naming }))
            .collect();
        let chunk_bytes = self.chunk as usize;
        let manner = ReplayOptions {
            captures: self.pacing.capture_pace(),
            other_files: self.pacing.other_pace(),
            chunk_bytes,
            piece_bytes: (BUFFERS_BYTES_MAX / lanes.len()).min(BUFFER_BYTES_MAX),
        };
        self.warn_without_packets(sources);
        let seed = self.seed.unwrap_or_else(fault::random_seed);
        let progress = globals.quiet == 0;
        Ok(ReplayPlan {
            lanes,
            rounds: self.rounds,
            options: manner,
            faults: self.fault.clone(),
            seed,
            progress,
        })
    }

    fn base_name(&self, source: &ReplayFile) -> Vec<u8> {
        match &self.name {
            Some(name) => name.clone().into_vec(),
            // The path of a regular file has a last component.
            None => source.path().file_name().unwrap_or_default().as_bytes().to_vec(),
        }
    }

    fn warn_without_packets(&self, sources: &[ReplayFile]) {
        if self.pacing.multiplier.is_none() && self.pacing.pps.is_none() {
            return;
        }
        for source in sources.iter().filter(|source| source.packets().is_none()) {
            log::warn!("no_packets file={:?} action=\"sent at top speed\"", source.path());
        }
    }

    fn report(&self, summary: &ReplaySummary) -> Result<()> {
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
        logging::status_line(format_args!("{line}"));
        if summary.cut_off > 0 && self.fault.contains(&Fault::Reset) {
            // The kernel drops what it has not sent yet, and the receiver learns nothing of it.
            logging::status_line(format_args!(
                "note: a reset discards bytes in transit, so the receiver may have stored fewer than bytes={}",
                summary.bytes
            ));
        }
        if self.json {
            let json =
                serde_json::to_string(summary).map_err(|error| Error::system("print")(error.into()))?;
            stdout::print_line(&json)?;
        }
        Ok(())
    }
}
