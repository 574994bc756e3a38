//! `lea replay`: sends captures as real senders do. Checks its arguments in the main thread; each stream is sent by a
//! thread of `replay::run`.

use std::net::{SocketAddr, ToSocketAddrs};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::time::Duration;

use chrono::DateTime;

use super::args::config::ConfigArgs;
use super::args::kafka::{KafkaConnectionArgs, VARIABLES};
use super::args::time_zone::TimeZoneArg;
use super::args::units;
use super::output::stdout;
use crate::capture::formats::HEADER_BYTES_MAX;
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
use crate::replay::pace::{GapLimit, Pace};
use crate::replay::run::{self, Lane, ReplayPlan, ReplaySummary};
use crate::replay::selection::{Selection, TimeBound};
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
    #[command(flatten)]
    input: InputArgs,
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
    #[command(flatten)]
    config: ConfigArgs,
}

/// Options for what is sent of the files.
#[derive(clap::Args, Debug)]
struct InputArgs {
    /// Send all files as one stream: the files of a rotated capture, or the parts of a stream
    #[arg(long, help_heading = "Streams")]
    chain: bool,
    /// Send packets from this time on: a date or a time, or a duration since the first packet (90s)
    #[arg(long, value_name = "TIME", value_parser = time_bound, help_heading = "Streams")]
    from: Option<TimeBound>,
    /// Send packets before this time: a date or a time, or a duration since the first packet (5m)
    #[arg(long, value_name = "TIME", value_parser = time_bound, help_heading = "Streams")]
    to: Option<TimeBound>,
}

impl InputArgs {
    fn open(&self, files: &[PathBuf]) -> Result<Vec<ReplayFile>> {
        let selection = Selection { from: self.from, to: self.to };
        if self.chain {
            return Ok(vec![ReplayFile::open_chain(files, &selection)?]);
        }
        ReplayFile::open_all(files, &selection)
    }
}

/// Parses a duration since the first packet, or a time in the local time zone.
fn time_bound(text: &str) -> std::result::Result<TimeBound, String> {
    // A number without a unit is a date: a year, or a timestamp.
    if text.ends_with(|c: char| c.is_ascii_alphabetic())
        && let Ok(after) = units::duration(text)
    {
        return Ok(TimeBound::AfterStart(after));
    }
    let ns = match DateTime::parse_from_rfc3339(text) {
        Ok(time) => time.timestamp_nanos_opt(),
        Err(_) => {
            let now_ms = crate::runtime::time::now_ms();
            let ms = TimeZoneArg::Local.parse_time(text, now_ms).map_err(|error| error.to_string())?;
            ms.checked_mul(1_000_000)
        }
    };
    ns.map(TimeBound::At).ok_or_else(|| "the time is outside the range of 64-bit nanoseconds".to_owned())
}

/// Options for Kafka records.
#[derive(clap::Args, Debug)]
struct KafkaRecordArgs {
    /// Topic; it must exist [default: kafkaServer.topic of the configuration]
    #[arg(long, value_parser = parse_topic_name, conflicts_with_all = ["tcp", "logstash"], help_heading = "Kafka")]
    topic: Option<String>,
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
struct PacingArgs {
    #[command(flatten)]
    rate: RateArgs,
    /// Wait at most this long for a packet [default: a gap of more than a day is not waited for]
    #[arg(long, value_name = "TIME", value_parser = units::duration, conflicts_with_all = ["mbps", "pps", "topspeed"],
          help_heading = "Pacing")]
    max_gap: Option<Duration>,
}

/// Options for the rate, of which one can be given.
#[derive(clap::Args, Debug)]
#[group(multiple = false)]
struct RateArgs {
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
    fn gaps(&self) -> GapLimit {
        self.max_gap.map_or(GapLimit::ClockJumps, GapLimit::AtMost)
    }
}

impl RateArgs {
    fn capture_pace(&self) -> Pace {
        match *self {
            RateArgs { topspeed: true, .. } => Pace::TopSpeed,
            RateArgs { mbps: Some(mbps), .. } => Pace::Bits { per_second: mbps * 1e6 },
            RateArgs { pps: Some(per_second), .. } => Pace::Packets { per_second },
            RateArgs { multiplier, .. } => Pace::Captured { multiplier: multiplier.unwrap_or(1.0) },
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

/// Checks that each stream reaches the receiver under its name and with all its content.
fn check_names(plan: &ReplayPlan<'_>, sink: &dyn StreamSink) -> Result<()> {
    for lane in &plan.lanes {
        let path = lane.source.path();
        let start = lane.source.start_bytes(HEADER_BYTES_MAX)?;
        // The number of the last copy is the longest.
        let name = lane.naming.name_of_round(plan.rounds - 1);
        sink.check_name(&name, &start)
            .map_err(|reason| Error::Usage(format!("{}: cannot send this file: {reason}", path.display())))?;
    }
    Ok(())
}

impl Command for Args {
    const MANUAL: Manual = Manual {
        exits: &[(Exit::Incomplete, "A stream failed or was not sent to its end."), manual::INTERRUPTED],
        reads_configuration: true,
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
        let sources = self.input.open(&self.files)?;
        let plan = self.plan(&sources, globals)?;
        check_names(&plan, &*sink)?;
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
        let files = if self.input.chain { 1 } else { self.files.len() };
        if files.saturating_mul(self.streams as usize) > STREAMS_MAX {
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
            (_, Some(brokers), _) => {
                let topic = self.topic()?;
                log::info!("producing brokers={brokers} topic={topic}");
                Box::new(KafkaSink::new(kafka::ProducerSettings {
                    brokers: brokers.clone(),
                    topic,
                    key: self.records.key,
                    compression: self.records.compression,
                    connect_timeout,
                    properties: self.connect.clone().resolve(config::environment)?,
                })?)
            }
            (_, _, Some(addr)) => {
                Box::new(LogstashSink::new(resolve_peer("--logstash", addr, connect_timeout)?))
            }
            // clap requires one option of the group.
            (None, None, None) => {
                return Err(Error::Usage("no receiver: give --tcp, --kafka or --logstash".to_owned()));
            }
        })
    }

    /// The topic, by default the one that `lea consume-kafka` receives.
    fn topic(&self) -> Result<String> {
        match &self.records.topic {
            Some(topic) => Ok(topic.clone()),
            None => Ok(self.config.load()?.config.kafka_topic),
        }
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
            captures: self.pacing.rate.capture_pace(),
            other_files: self.pacing.rate.other_pace(),
            gaps: self.pacing.gaps(),
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
        let PacingArgs { rate, max_gap } = &self.pacing;
        if rate.multiplier.is_none() && rate.pps.is_none() && max_gap.is_none() {
            return;
        }
        for source in sources.iter().filter(|source| source.packets().is_none()) {
            log::warn!("no_packets file={:?} action=\"sent at top speed\"", source.path());
        }
    }

    fn report(&self, summary: &ReplaySummary) -> Result<()> {
        let mut line = format!(
            "replayed streams={} whole={} cut_off={} stopped={} failed={} bytes={} unconfirmed_bytes={} seconds={:.3} mbps={:.3}",
            summary.streams,
            summary.whole,
            summary.cut_off,
            summary.stopped,
            summary.failed,
            summary.bytes,
            summary.unconfirmed_bytes,
            summary.seconds,
            summary.mbps
        );
        let late = (summary.lateness_p50_ms, summary.lateness_p99_ms, summary.lateness_max_ms);
        if let (Some(p50), Some(p99), Some(max)) = late {
            line += &format!(" lateness_p50_ms={p50} lateness_p99_ms={p99} lateness_max_ms={max}");
        }
        if summary.gaps_shortened > 0 {
            line += &format!(" gaps_shortened={}", summary.gaps_shortened);
        }
        logging::status_line(format_args!("{line}"));
        if summary.unconfirmed_bytes > 0 && self.logstash.is_none() {
            // After a reset the kernels drop what they have not sent or delivered yet, and nobody learns how much.
            logging::status_line(format_args!(
                "note: of {} bytes it is unknown whether the receiver has them, because a connection was reset, failed or not closed by the receiver",
                summary.unconfirmed_bytes
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
