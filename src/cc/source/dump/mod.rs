//! Reads dumps of Kafka topics and hands their chunks to a [`ChunkSink`], in the caller's thread. What cannot be used
//! is named, counted and given to the caller to be kept; the rest goes on.

mod input;
mod order;
mod seen;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

pub use input::Origin;
pub use order::{Found, each_record, in_order};

use crate::Result;
use crate::cc::chunk_sink::{At, ChunkSink, Dump, Took, Untaken};
use crate::cc::frame::chunk::{self, Refused};
use crate::cc::frame::dump::{Format, Letter, Place, Position, Reader, What, partition_of_folder};
use crate::logging::Throttle;
use crate::stop::Stop;
use input::{Broken, Input};
use seen::{Seen, Was};

/// So many refused records are named one by one; of those behind them one a second.
const NAMED_MAX: u64 = 1000;

/// What was read, and what became of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Dumps read.
    pub files: u64,
    /// Records in them.
    pub records: u64,
    /// Records that could not be used.
    pub refused: u64,
    /// Damaged lines, batches or files.
    pub damaged: u64,
    /// Records that came before: dumps overlapped.
    pub repeated: u64,
    /// Records that the folder had before.
    pub known: u64,
    /// Records that stand before what the folder has, and were not taken.
    pub behind: u64,
    /// Dumps that end in the middle of a record.
    pub cut: u64,
    /// Transactions that were taken back.
    pub aborted: u64,
}

/// Whether to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// With the next dump.
    GoOn,
    /// Nothing more is wanted, or the stop was asked for.
    Leave,
}

/// Reads one dump after another.
pub struct Dumps<'a> {
    sink: &'a mut dyn ChunkSink,
    /// The topic of dumps that do not say it; empty if that is not known either.
    topic: &'a str,
    stop: &'a Stop,
    read_bytes: Arc<AtomicU64>,
    seen: Seen,
    named: Throttle,
    /// True once it was said of the dump under way that it is cut.
    is_cut: bool,
    /// What was read so far.
    pub counts: Counts,
}

impl<'a> Dumps<'a> {
    /// Chunks go to `sink`; dumps that do not say their topic are of `topic`; `read_bytes` counts the dumps' bytes, for a
    /// progress bar.
    pub fn new(
        sink: &'a mut dyn ChunkSink,
        topic: &'a str,
        stop: &'a Stop,
        read_bytes: Arc<AtomicU64>,
    ) -> Dumps<'a> {
        let (seen, named, counts) = (Seen::default(), Throttle::default(), Counts::default());
        Dumps { sink, topic, stop, read_bytes, seen, named, is_cut: false, counts }
    }

    /// Reads a dump to its end.
    pub fn read(&mut self, origin: &Origin) -> Result<Next> {
        let mut input = Input::open(origin, Arc::clone(&self.read_bytes))?;
        let (format, mut reader) = reader_of(origin, &mut input);
        let file = origin.name();
        log::info!("reading file={file:?} format={}", format.word());
        self.sink.begin(Dump { id: origin.id(), letters: format == Format::Letters });
        self.counts.files += 1;
        self.is_cut = false;
        loop {
            let step = reader.step(input.bytes(), input.has_ended());
            let consumed = step.consumed;
            match step.what {
                What::More(bytes) => {
                    if self.stop.is_asked() {
                        return Ok(Next::Leave);
                    }
                    input.fill(bytes);
                    continue;
                }
                What::End { cut_bytes } => {
                    self.end(&file, step.place, cut_bytes, input.broken())?;
                    return Ok(Next::GoOn);
                }
                What::Nothing => {}
                What::Record { mut position, value, open_end } => {
                    if let Some(position) = position.as_mut().filter(|position| position.topic.is_empty()) {
                        position.topic = self.topic;
                    }
                    let record = Record { file: &file, place: step.place, position, value, open_end };
                    if self.record(&record)? == Next::Leave {
                        return Ok(Next::Leave);
                    }
                }
                What::Damaged { reason, bytes, first } => {
                    self.damaged(&file, step.place, &reason, bytes, first)?;
                }
                What::Aborted { producer_id } => {
                    self.counts.aborted += 1;
                    let place = step.place;
                    log::warn!(
                        "transaction_aborted file={file:?} {place} producer_id={producer_id} note=\"its records are taken\""
                    );
                }
            }
            input.consume(consumed);
        }
    }

    fn record(&mut self, record: &Record<'_>) -> Result<Next> {
        self.counts.records += 1;
        let was = record.position.map_or(Was::New, |position| self.seen.note(&position, record.value));
        match was {
            Was::New => {}
            Was::Same => {
                self.counts.repeated += 1;
                return Ok(Next::GoOn);
            }
            Was::Other => self.named.warn(
                "offset_again",
                format_args!("offset_again {record} note=\"another record; it is taken too\""),
            ),
        }
        let at = At { position: record.position.as_ref(), again: was == Was::Other };
        let chunk = record.value.ok_or(Refused::NoValue).and_then(chunk::parse);
        let taken = chunk.map_err(Untaken::Refused).and_then(|chunk| self.sink.take(&chunk, at));
        match taken {
            Ok(took) => self.note(took, record),
            Err(Untaken::Refused(refused)) => self.refuse(record, at, &refused)?,
            Err(Untaken::Enough) => return Ok(Next::Leave),
            Err(Untaken::Failed(error)) => return Err(error),
        }
        Ok(Next::GoOn)
    }

    fn note(&mut self, took: Took, record: &Record<'_>) {
        match took {
            Took::New => {}
            Took::Known => self.counts.known += 1,
            Took::Behind => {
                self.counts.behind += 1;
                self.named.warn(
                    "record_behind",
                    format_args!(
                        "record_behind {record} note=\"not taken: the folder has later ones; decode it into a folder \
                         of its own\""
                    ),
                );
            }
        }
    }

    fn refuse(&mut self, record: &Record<'_>, at: At<'_>, refused: &Refused) -> Result<()> {
        if record.open_end && matches!(refused, Refused::NoJson(_)) {
            self.counts.records -= 1;
            self.note_cut(record.file, record.place, record.value.map_or(0, <[u8]>::len));
            return Ok(());
        }
        let reason = refused.to_string();
        let letter = Letter {
            position: record.position,
            found: Some((record.file, record.place)),
            reason: &reason,
            value: record.value,
        };
        match self.sink.keep(&letter, at)? {
            Took::New => {
                self.counts.refused += 1;
                self.name(refused.word(), format_args!("record_refused {record} reason=\"{reason}\""));
            }
            took => self.note(took, record),
        }
        Ok(())
    }

    fn damaged(&mut self, file: &str, place: Place, reason: &str, bytes: &[u8], first: bool) -> Result<()> {
        if first {
            self.counts.damaged += 1;
            self.name(
                "damaged",
                format_args!("damaged file={file:?} {place} bytes={} reason=\"{reason}\"", bytes.len()),
            );
        }
        if !bytes.is_empty() {
            let letter = Letter { position: None, found: Some((file, place)), reason, value: Some(bytes) };
            self.sink.keep(&letter, At { position: None, again: false })?;
        }
        Ok(())
    }

    fn end(&mut self, file: &str, place: Place, cut_bytes: usize, broken: Option<&Broken>) -> Result<()> {
        match broken {
            Some(Broken::Damaged(reason)) => {
                self.counts.damaged += 1;
                self.name(
                    "damaged",
                    format_args!(
                        "damaged file={file:?} {place} reason=\"{reason}\" note=\"its rest is lost\""
                    ),
                );
            }
            Some(Broken::Cut) => self.note_cut(file, place, cut_bytes),
            None if cut_bytes > 0 => self.note_cut(file, place, cut_bytes),
            None => {}
        }
        Ok(())
    }

    fn note_cut(&mut self, file: &str, place: Place, bytes: usize) {
        if std::mem::replace(&mut self.is_cut, true) {
            return;
        }
        self.counts.cut += 1;
        log::warn!("dump_cut file={file:?} {place} bytes={bytes} note=\"the record under way is not whole\"");
    }

    /// Names what cannot be used: each, as long as they are not very many.
    fn name(&self, reason: &'static str, line: std::fmt::Arguments<'_>) {
        if self.counts.refused + self.counts.damaged <= NAMED_MAX {
            log::warn!("{line}");
        } else {
            self.named.warn(reason, line);
        }
    }
}

/// A record and where it was found.
struct Record<'a> {
    file: &'a str,
    place: Place,
    position: Option<Position<'a>>,
    value: Option<&'a [u8]>,
    open_end: bool,
}

/// How the log names it.
impl std::fmt::Display for Record<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "file={:?} {}", self.file, self.place)?;
        let Some(Position { topic, partition, offset }) = self.position else { return Ok(()) };
        write!(f, " topic={topic:?} partition={partition} offset={offset}")
    }
}

/// Tells the dump's format and makes its reader.
fn reader_of(origin: &Origin, input: &mut Input) -> (Format, Reader) {
    input.fill_begin();
    let format = Format::tell(input.bytes());
    let folder = origin.folder();
    (format, Reader::new(format, folder.as_deref().and_then(partition_of_folder)))
}
