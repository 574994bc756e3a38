//! `lea decode`: from captured dumps of Kafka topics to stream files, or to stdout. Reads in the main thread; files are
//! written by the vault's threads.

mod letters;
mod show;
mod store;

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::cc::chunk_sink::ChunkSink;
use crate::cc::frame::dump::Letter;
use crate::cc::source::dump::{Counts, Dumps, Next, Origin, in_order};
use crate::cc::vault::Losses;
use crate::cc::vault::manifest::EndReason;
use crate::cli::Globals;
use crate::logging::{self, LevelFilter};
use crate::stop::Stop;
use crate::{Error, Exit, Result};
use letters::Letters;
use show::{Chunks, List, Raw};

/// How often the progress bar moves.
const PROGRESS_EVERY: Duration = Duration::from_millis(100);

/// Make stream files from captured dumps of Kafka topics
///
/// Reads, told apart by itself: records' values one a line; the envelopes of `kcat -J`; the console consumer's lines
/// with any of its print properties; the text of `DumpLogSegments --print-data-log`; raw log segments of any
/// compression; Logstash lines; lea's own dead letters. Each may be compressed with gzip or zstd. Several dumps are
/// read in the order of their offsets, and a record that is in more than one of them counts once.
///
/// What cannot be used is named, and kept in DIR/.lea/dead-letters.jsonl, which this command reads again; the rest goes
/// on, and the exit code is 3. A dump that ends in the middle of a record is nothing unusual: it is noted, no more.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// The dumps; - is standard input [default: -]
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Folder for stream files and their manifests; made if it is not there
    #[arg(short, long, value_name = "DIR", default_value = "interceptions", conflicts_with_all = ["stream", "list", "json"])]
    output: PathBuf,
    /// Write the bytes of this stream to stdout, and no files
    #[arg(long, value_name = "NAME", conflicts_with = "list")]
    stream: Option<OsString>,
    /// Print a row for each stream, and write no files
    #[arg(long)]
    list: bool,
    /// Print a JSON object a line: one for each chunk, with --list one for each stream; and write no files
    #[arg(long)]
    json: bool,
}

impl Args {
    /// Runs the command.
    pub fn run(self, globals: &Globals) -> Result<Exit> {
        logging::start(globals.level(LevelFilter::Warn));
        let paths = if self.files.is_empty() { vec![PathBuf::from("-")] } else { self.files.clone() };
        let origins: Vec<Origin> = paths.iter().map(|path| Origin::new(path)).collect();
        if origins.iter().filter(|origin| **origin == Origin::Stdin).count() > 1 {
            return Err(Error::Usage("standard input (-) can be read once only".to_owned()));
        }
        let run = Run {
            origins: in_order(origins)?,
            stop: Stop::on_signals()?,
            progress: globals.quiet == 0,
            started: Instant::now(),
        };
        match (self.stream, self.list, self.json) {
            (Some(name), _, false) => run.show_raw(name.into_vec()),
            (_, true, json) => run.show_list(json),
            (name, false, true) => run.show_chunks(name.map(OsStringExt::into_vec)),
            (None, false, false) => run.store(self.output),
        }
    }
}

/// What each form of the command needs.
struct Run {
    origins: Vec<Origin>,
    stop: Stop,
    progress: bool,
    started: Instant,
}

impl Run {
    /// Files in a folder.
    fn store(&self, dir: PathBuf) -> Result<Exit> {
        let (mut store, threads) = store::open(&dir)?;
        let mut letters = Letters::new(&dir, &self.origins);
        let read = self.read(&mut store, &mut |letter| letters.keep(letter));
        let streams = store.finish(EndReason::Eof);
        // First the vault: a dead writer is the cause, a failed stream is not.
        let losses = threads.join()?;
        let (counts, next) = read?;
        letters.sync()?;
        let stored = streams?;
        self.summarize(&counts, stored.streams, stored.bytes);
        if !losses.is_none() {
            let Losses { bytes, .. } = losses;
            logging::say(format_args!("lea: {bytes} bytes could not be written"));
            return Ok(Exit::Failed);
        }
        Ok(exit(&counts, next))
    }

    fn show_raw(&self, name: Vec<u8>) -> Result<Exit> {
        let mut raw = Raw::new(name);
        let (counts, next) = self.read(&mut raw, &mut |_| Ok(()))?;
        let end = raw.finish()?;
        self.summarize(&counts, usize::from(end.found), end.bytes);
        if !end.found {
            log::warn!("stream_missing note=\"no record names it\"");
        }
        Ok(if end.found || end.enough { exit_shown(&counts, next, end.enough) } else { Exit::Differs })
    }

    fn show_list(&self, json: bool) -> Result<Exit> {
        let mut list = List::default();
        let (counts, next) = self.read(&mut list, &mut |_| Ok(()))?;
        let (streams, bytes) = list.print(json)?;
        self.summarize(&counts, streams, bytes);
        Ok(exit(&counts, next))
    }

    fn show_chunks(&self, name: Option<Vec<u8>>) -> Result<Exit> {
        let mut chunks = Chunks::new(name);
        let (counts, next) = self.read(&mut chunks, &mut |_| Ok(()))?;
        let end = chunks.finish()?;
        self.summarize(&counts, end.streams, end.bytes);
        Ok(exit_shown(&counts, next, end.enough))
    }

    /// Reads all dumps; says whether to the end.
    fn read(
        &self,
        sink: &mut dyn ChunkSink,
        keep: &mut dyn FnMut(&Letter<'_>) -> Result<()>,
    ) -> Result<(Counts, Next)> {
        let read_bytes = Arc::new(AtomicU64::new(0));
        let bar = self.bar();
        let (shown, done) = (Arc::clone(&read_bytes), bar.clone());
        let ended = crossbeam_channel::bounded::<()>(0);
        let mut dumps = Dumps::new(sink, keep, &self.stop, read_bytes);
        std::thread::scope(|scope| {
            let (end, wait) = ended;
            if !bar.is_hidden() {
                scope.spawn(move || {
                    while wait.recv_timeout(PROGRESS_EVERY).is_err_and(|error| error.is_timeout()) {
                        done.set_position(shown.load(Ordering::Relaxed));
                    }
                });
            }
            let mut next = Next::GoOn;
            let mut failed = Ok(());
            for origin in &self.origins {
                match dumps.read(origin) {
                    Ok(read) => next = read,
                    Err(error) => failed = Err(error),
                }
                if next == Next::Leave || failed.is_err() {
                    break;
                }
            }
            drop(end);
            bar.finish_and_clear();
            failed.map(|()| (dumps.counts.clone(), next))
        })
    }

    fn bar(&self) -> ProgressBar {
        let length = |origin: &Origin| match origin {
            Origin::File(path) => {
                path.metadata().ok().filter(std::fs::Metadata::is_file).map(|file| file.len())
            }
            Origin::Stdin => None,
        };
        let total: Option<u64> = self.origins.iter().map(length).sum();
        let target = if self.progress { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(total, target);
        let template = match total {
            Some(_) => "{wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {elapsed}",
            None => "{spinner} {bytes} {bytes_per_sec} {elapsed}",
        };
        bar.set_style(
            ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()),
        );
        bar
    }

    fn summarize(&self, counts: &Counts, streams: usize, bytes: u64) {
        let Counts { files, records, refused, damaged, repeated, cut, aborted } = counts;
        let seconds = self.started.elapsed().as_secs_f64();
        logging::say(format_args!(
            "decoded files={files} records={records} streams={streams} bytes={bytes} refused={refused} \
             damaged={damaged} repeated={repeated} cut={cut} aborted_transactions={aborted} seconds={seconds:.3}"
        ));
    }
}

fn exit(counts: &Counts, next: Next) -> Exit {
    let lost = counts.refused + counts.damaged > 0 || next == Next::Leave;
    if lost { Exit::Differs } else { Exit::Done }
}

/// A reader of stdout that went away has what it wanted.
fn exit_shown(counts: &Counts, next: Next, enough: bool) -> Exit {
    if enough { Exit::Done } else { exit(counts, next) }
}
