//! `lea decode`: converts dumps of Kafka topics to stream files, or prints their content. The main thread reads the dumps;
//! the vault's threads write the files.

mod show;

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::args::output_dir::OutputArgs;
use crate::cc::ingest::kafka::settings::parse_topic_name;
use crate::cc::kafka_dump::files::{DumpImporter, ImportTotals};
use crate::cc::kafka_dump::format::{DumpFormat, RecordDeadLetter};
use crate::cc::kafka_dump::visitor::{DumpInfo, RecordPosition, RecordVisitor, VisitError, VisitOutcome};
use crate::cc::kafka_dump::{
    DumpCounts, DumpDecoder, DumpOptions, DumpSource, DumpSources, ReadFlow, find_dumps, sort_by_offset,
};
use crate::cc::vault::{LossTotals, Vault, VaultConfig, VaultThreads};
use crate::cc::wire::chunk::Chunk;
use crate::cmd::Command;
use crate::cmd::args::globals::Globals;
use crate::limits::MachineLimits;
use crate::manual::{self, Example, Manual};
use crate::runtime::logging::{self, LevelFilter};
use crate::runtime::metrics::Metrics;
use crate::runtime::progress::Progress;
use crate::runtime::shutdown::Shutdown;
use crate::{Error, Exit, Result};
use show::{ChunkPrinter, StreamList, StreamPrinter};

/// Most stream files open at once. Writes are large, so more open files would not be faster.
const DESCRIPTORS_MAX: usize = 896;

/// Interval between updates of the progress bar.
const PROGRESS_EVERY: Duration = Duration::from_millis(100);

/// Convert dumps of Kafka topics to stream files
///
/// The format of each dump is detected: record values or the envelopes of many tools, as lines or as any other stream of
/// JSON values; lines with a key before the value; console-consumer lines with any print properties; the text of
/// `DumpLogSegments --print-data-log`; raw log segments; what Logstash writes; and lea's own dead letters. Dumps may be
/// compressed with gzip, zstd, xz, bzip2 or lz4. They are read in the order of their offsets; a record that occurs
/// in several dumps counts once.
///
/// The stream files are the same as those that `lea consume-kafka` writes for these records. Records that the output
/// directory already has are skipped. They are identified by topic, partition and offset, or by their position in the dump
/// if it has no offsets.
///
/// A record that cannot be decoded is reported and appended to DIR/.lea/dead-letters.jsonl, which this command can read
/// again. Decoding continues, and the exit status is 3. A dump that ends within a record is reported but not an error.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Dumps to read: files, directories, tar and zip archives; - is standard input [default: -]
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Topic of dumps that do not name one
    #[arg(short, long, value_name = "TOPIC", value_parser = parse_topic_name)]
    topic: Option<String>,
    /// Partition of dumps that do not name one
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(i32).range(0..))]
    partition: Option<i32>,
    /// Format of the dumps
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = FormatArg::Auto)]
    format: FormatArg,
    /// What to do with records of aborted transactions, which consumers skip
    #[arg(long, value_enum, value_name = "ACTION", default_value_t = AbortedArg::Drop)]
    aborted: AbortedArg,
    /// Write the bytes of this stream to stdout instead of storing files
    #[arg(long, value_name = "NAME", conflicts_with_all = ["list", "output"])]
    stream: Option<OsString>,
    /// Print one row per stream instead of storing files
    #[arg(long, conflicts_with = "output")]
    list: bool,
    /// Print one JSON object per record (with --list: per stream) instead of storing files
    #[arg(long, conflicts_with = "output")]
    json: bool,
    #[command(flatten)]
    store: OutputArgs,
}

/// Value of `--aborted`.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum AbortedArg {
    /// Skip and count them
    Drop,
    /// Decode them like other records
    Keep,
}

/// Value of `--format`.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum FormatArg {
    /// Detected from the start of each dump
    Auto,
    /// One record value per line
    Values,
    /// One envelope per line, as `kcat -J` prints it
    Kcat,
    /// A stream of JSON values or envelopes
    Json,
    /// Lines with text before the value
    Keyed,
    /// Lines of the console consumer
    Console,
    /// Text of `DumpLogSegments --print-data-log`
    LogText,
    /// Raw log segments
    Segment,
    /// Dead letters of lea
    DeadLetters,
}

impl FormatArg {
    fn format(self) -> Option<DumpFormat> {
        Some(match self {
            FormatArg::Auto => return None,
            FormatArg::Values => DumpFormat::Values,
            FormatArg::Kcat => DumpFormat::Kcat,
            FormatArg::Json => DumpFormat::Json,
            FormatArg::Keyed => DumpFormat::Keyed,
            FormatArg::Console => DumpFormat::Console,
            FormatArg::LogText => DumpFormat::LogText,
            FormatArg::Segment => DumpFormat::Segment,
            FormatArg::DeadLetters => DumpFormat::DeadLetters,
        })
    }
}

impl Command for Args {
    const MANUAL: Manual = Manual {
        exits: &[
            (
                Exit::Incomplete,
                "Finished, but a record was rejected, damaged or skipped, nothing could be read from a dump, or the stream was not found.",
            ),
            manual::INTERRUPTED,
        ],
        files: &[manual::OUTPUT_FILES, manual::DEAD_LETTER_FILES],
        examples: &[
            Example {
                text: "Store the streams of a dump",
                command: "lea decode dump.jsonl --output streams",
            },
            Example {
                text: "List the streams of a dump without storing them",
                command: "lea decode --list dump.jsonl",
            },
            Example {
                text: "Read from kcat",
                command: "kcat -C -e -b kafka -t interception -J | lea decode --output streams",
            },
        ],
        see_also: &["lea-consume-kafka(1)", "lea-merge(1)", "lea-ls(1)"],
        ..manual::EMPTY
    };

    fn run(self, globals: &Globals) -> Result<Exit> {
        logging::start(globals.level(LevelFilter::Warn));
        let paths = if self.files.is_empty() { vec![PathBuf::from("-")] } else { self.files.clone() };
        let DumpSources { dumps: origins, skipped, unread } = find_dumps(&paths)?;
        if origins.iter().filter(|origin| **origin == DumpSource::Stdin).count() > 1 {
            return Err(Error::Usage("standard input (-) can be given only once".to_owned()));
        }
        let topic = self.topic.unwrap_or_default();
        let (partition, format) = (self.partition, self.format.format());
        let keeps_aborted = self.aborted == AbortedArg::Keep;
        let options = DumpOptions { topic: &topic, partition, format, keeps_aborted };
        let run = DecodeRun {
            origins: sort_by_offset(origins, &options)?,
            topic,
            partition,
            format,
            keeps_aborted,
            skipped,
            unread,
            shutdown: Shutdown::on_signals()?,
            progress: globals.quiet == 0,
            started: Instant::now(),
        };
        match (self.stream, self.list, self.json) {
            (Some(name), _, false) => run.show_raw(name.into_vec()),
            (_, true, json) => run.show_list(json),
            (name, false, true) => run.show_chunks(name.map(OsStringExt::into_vec)),
            (None, false, false) => {
                let descriptors = MachineLimits::detect().descriptors_shared().min(DESCRIPTORS_MAX);
                run.store(&self.store.resolve(descriptors)?)
            }
        }
    }
}

/// The state that all forms of the command share.
struct DecodeRun {
    origins: Vec<DumpSource>,
    topic: String,
    partition: Option<i32>,
    format: Option<DumpFormat>,
    keeps_aborted: bool,
    /// Files in directories and archives that are not dumps.
    skipped: u64,
    /// Directories and archives without a dump.
    unread: u64,
    shutdown: Shutdown,
    progress: bool,
    started: Instant,
}

impl DecodeRun {
    /// Stores the streams in the output directory.
    fn store(&self, config: &VaultConfig) -> Result<Exit> {
        let mut store = DumpStore { config, sources: &self.origins, dump: None, opened: None };
        let read = self.read(&mut store);
        let (stored, losses) = store.finish()?;
        let (counts, next) = read?;
        self.summarize(&counts, stored.streams, stored.bytes);
        if !losses.is_zero() {
            let LossTotals { bytes, .. } = losses;
            logging::status_line(format_args!("lea: {bytes} bytes could not be written"));
            return Ok(Exit::Failed);
        }
        Ok(exit_code(&counts, next))
    }

    fn show_raw(&self, name: Vec<u8>) -> Result<Exit> {
        let mut raw = StreamPrinter::new(name);
        let (counts, next) = self.read(&mut raw)?;
        let end = raw.finish()?;
        self.summarize(&counts, u64::from(end.is_found), end.bytes);
        if !end.is_found {
            log::warn!("stream_missing note=\"no record has this stream name\"");
        }
        Ok(if end.is_found || end.is_reader_gone {
            exit_code_of_output(&counts, next, end.is_reader_gone)
        } else {
            Exit::Incomplete
        })
    }

    fn show_list(&self, json: bool) -> Result<Exit> {
        let mut list = StreamList::default();
        let (counts, next) = self.read(&mut list)?;
        let (streams, bytes) = list.print(json)?;
        self.summarize(&counts, streams as u64, bytes);
        Ok(exit_code(&counts, next))
    }

    fn show_chunks(&self, name: Option<Vec<u8>>) -> Result<Exit> {
        let mut chunks = ChunkPrinter::new(name);
        let (counts, next) = self.read(&mut chunks)?;
        let end = chunks.finish()?;
        self.summarize(&counts, end.streams as u64, end.bytes);
        Ok(exit_code_of_output(&counts, next, end.is_reader_gone))
    }

    /// Reads all dumps. `Next` says whether the last one was read to its end.
    fn read(&self, sink: &mut dyn RecordVisitor) -> Result<(DumpCounts, ReadFlow)> {
        let read_bytes = Arc::new(AtomicU64::new(0));
        let bar = self.bar();
        let (shown, done) = (Arc::clone(&read_bytes), bar.clone());
        let ended = crossbeam_channel::bounded::<()>(0);
        let mut dumps = DumpDecoder::new(sink, self.options(), &self.shutdown, read_bytes);
        dumps.counts.unread = self.unread;
        std::thread::scope(|scope| {
            let (end, wait) = ended;
            if !bar.is_hidden() {
                scope.spawn(move || {
                    while wait.recv_timeout(PROGRESS_EVERY).is_err_and(|error| error.is_timeout()) {
                        done.set_position(shown.load(Ordering::Relaxed));
                    }
                });
            }
            let mut next = ReadFlow::Continue;
            let mut failed = Ok(());
            for origin in &self.origins {
                match dumps.read(origin) {
                    Ok(read) => next = read,
                    Err(error) => failed = Err(error),
                }
                if next == ReadFlow::Stop || failed.is_err() {
                    break;
                }
            }
            if next == ReadFlow::Continue && failed.is_ok() {
                match dumps.finish() {
                    Ok(read) => next = read,
                    Err(error) => failed = Err(error),
                }
            }
            drop(end);
            drop(bar);
            failed.map(|()| (dumps.counts.clone(), next))
        })
    }

    fn options(&self) -> DumpOptions<'_> {
        DumpOptions {
            topic: &self.topic,
            partition: self.partition,
            format: self.format,
            keeps_aborted: self.keeps_aborted,
        }
    }

    fn bar(&self) -> Progress {
        let total: Option<u64> = self.origins.iter().map(DumpSource::bytes).sum();
        let template = match total {
            Some(_) => "{wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {elapsed}",
            None => "{spinner} {bytes} {bytes_per_sec} {elapsed}",
        };
        Progress::new(self.progress, total, template)
    }

    fn summarize(&self, counts: &DumpCounts, streams: u64, bytes: u64) {
        let DumpCounts {
            files,
            records,
            rejected,
            damaged,
            duplicates,
            already_stored,
            late,
            unchecked,
            truncated,
            aborted,
            undecided,
            unread,
        } = counts;
        let seconds = self.started.elapsed().as_secs_f64();
        logging::status_line(format_args!(
            "decoded files={files} records={records} streams={streams} bytes={bytes} rejected={rejected} \
             damaged={damaged} duplicates={duplicates} already_stored={already_stored} late={late} unchecked={unchecked} truncated={truncated} \
             aborted={aborted} undecided={undecided} unread={unread} skipped_files={} seconds={seconds:.3}",
            self.skipped
        ));
    }
}

/// Stores the records of dumps. The output directory is created and opened at the first record, so that an input without
/// records leaves nothing behind.
struct DumpStore<'a> {
    config: &'a VaultConfig,
    sources: &'a [DumpSource],
    /// The dump that is being read.
    dump: Option<DumpInfo>,
    opened: Option<(DumpImporter, Vault, VaultThreads)>,
}

impl DumpStore<'_> {
    fn importer(&mut self) -> Result<&mut DumpImporter> {
        if self.opened.is_none() {
            let (vault, threads) = Vault::spawn(self.config, Arc::new(Metrics::default()))?;
            let mut importer = DumpImporter::open(&vault, &self.config.dir, self.sources)?;
            if let Some(dump) = &self.dump {
                importer.start_dump(dump.clone());
            }
            self.opened = Some((importer, vault, threads));
        }
        let opened = self.opened.as_mut().map(|(importer, ..)| importer);
        Ok(opened.expect("it was opened above"))
    }

    /// Closes all streams, and ends the vault's threads.
    fn finish(self) -> Result<(ImportTotals, LossTotals)> {
        let Some((importer, vault, threads)) = self.opened else { return Ok(Default::default()) };
        let stored = importer.finish();
        drop(vault);
        // Join the threads first: if the writer died, that is the cause of a failed stream.
        let losses = threads.join()?;
        Ok((stored?, losses))
    }
}

impl RecordVisitor for DumpStore<'_> {
    fn start_dump(&mut self, dump: DumpInfo) {
        self.dump = Some(dump.clone());
        if let Some((importer, ..)) = &mut self.opened {
            importer.start_dump(dump);
        }
    }

    fn visit_chunk(&mut self, chunk: &Chunk<'_>, at: RecordPosition<'_>) -> Result<VisitOutcome, VisitError> {
        self.importer().map_err(VisitError::Failed)?.visit_chunk(chunk, at)
    }

    fn flush(&mut self) -> Result<(), VisitError> {
        self.opened.as_mut().map_or(Ok(()), |(importer, ..)| importer.flush())
    }

    fn note_damage(&mut self) {
        if let Some((importer, ..)) = &mut self.opened {
            importer.note_damage();
        }
    }

    fn visit_dead_letter(
        &mut self,
        letter: &RecordDeadLetter<'_>,
        at: RecordPosition<'_>,
    ) -> Result<VisitOutcome> {
        self.importer()?.visit_dead_letter(letter, at)
    }
}

fn exit_code(counts: &DumpCounts, next: ReadFlow) -> Exit {
    let rejected = counts.rejected + counts.damaged + counts.late;
    let unknown = counts.unchecked + counts.unread + counts.undecided;
    let lost = rejected + unknown > 0 || next == ReadFlow::Stop;
    if lost { Exit::Incomplete } else { Exit::Done }
}

/// Returns the exit code of a command that printed content. If the reader of stdout closed the pipe, it got what it wanted.
fn exit_code_of_output(counts: &DumpCounts, next: ReadFlow, enough: bool) -> Exit {
    if enough { Exit::Done } else { exit_code(counts, next) }
}
