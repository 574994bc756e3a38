//! Decodes dumps of Kafka topics and passes their chunks to a [`RecordVisitor`], in the caller's thread.
//! Rejected records are logged, counted and passed on as dead letters. Decoding continues after them.

mod dedup;
pub(crate) mod files;
pub mod format;
mod input;
mod order;
mod sort;
mod sources;
mod transactions;
pub(crate) mod visitor;

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

pub use input::DumpSource;
pub use order::{RecordCallback, for_each_record, sort_by_offset};
pub use sources::{ArchiveMember, DumpSources, find_dumps};

use crate::capture::formats::starts_plain_capture;
use crate::cc::kafka_dump::format::{
    Detected, DumpFormat, DumpItem, DumpLocation, DumpReader, KafkaPosition, RecordDeadLetter,
    parse_partition_dir, unwrap_envelope,
};
use crate::cc::kafka_dump::visitor::{DumpInfo, RecordPosition, RecordVisitor, VisitError, VisitOutcome};
use crate::cc::wire::chunk::{self, Chunk, ChunkError};
use crate::runtime::logging::Throttle;
use crate::runtime::shutdown::Shutdown;
use crate::{Error, Result};
use dedup::{Dedup, DedupTable};
use input::{DumpInput, InputDamage};
use sort::{RecordEntry, RecordSorter};
use transactions::{Fate, HeldRecord, Released, TransactionBuffer};

/// Number of rejected records that are logged individually. After that, one per second is logged.
const LOGGED_MAX: u64 = 1000;

/// Counts of what was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DumpCounts {
    pub files: u64,
    pub records: u64,
    /// Unusable records.
    pub rejected: u64,
    pub damaged: u64,
    /// Records that occurred before because dumps overlap.
    pub duplicates: u64,
    /// Records that the output directory already had.
    pub already_stored: u64,
    /// Records that precede those in the output directory and were not stored, or of which it is not known whether they
    /// are stored.
    pub late: u64,
    /// Records that may have occurred before: too many followed for all to be remembered.
    pub unchecked: u64,
    pub truncated: u64,
    /// Records of aborted transactions that do not count.
    pub aborted: u64,
    /// Records of transactions whose end is not in the dumps.
    pub undecided: u64,
    /// Dumps from which no record could be used.
    pub unread: u64,
}

/// What is known about dumps beyond their bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct DumpOptions<'a> {
    /// Topic of dumps that do not contain it. Empty if unknown.
    pub topic: &'a str,
    /// Partition of dumps that do not contain it.
    pub partition: Option<i32>,
    /// Format of all dumps. `None` if it is to be detected.
    pub format: Option<DumpFormat>,
    /// Whether records of aborted transactions count. Consumers skip them.
    pub keeps_aborted: bool,
}

/// Whether to read the next dump.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadFlow {
    Continue,
    /// The output is no longer read, or a shutdown was requested.
    Stop,
}

/// Decoder of one dump after another.
pub struct DumpDecoder<'a> {
    sink: &'a mut dyn RecordVisitor,
    options: DumpOptions<'a>,
    shutdown: &'a Shutdown,
    read_bytes: Arc<AtomicU64>,
    seen: DedupTable,
    throttle: Throttle,
    dump: DumpState,
    transactions: TransactionBuffer,
    pub counts: DumpCounts,
}

/// State of the dump that is being read.
#[derive(Debug, Default)]
struct DumpState {
    /// True once it was reported as truncated.
    is_cut: bool,
    /// Records without topic or partition. They prove nothing about other dumps.
    seen: DedupTable,
    /// True once a record's data was certainly hexadecimal.
    is_hex: bool,
    /// Records that were stored, now or before.
    used: u64,
    /// True if something was damaged or rejected.
    is_damaged: bool,
}

impl<'a> DumpDecoder<'a> {
    /// Creates a decoder that passes chunks to `sink`. `read_bytes` counts compressed bytes for a progress bar.
    pub fn new(
        sink: &'a mut dyn RecordVisitor,
        options: DumpOptions<'a>,
        shutdown: &'a Shutdown,
        read_bytes: Arc<AtomicU64>,
    ) -> DumpDecoder<'a> {
        DumpDecoder {
            sink,
            options,
            shutdown,
            read_bytes,
            seen: DedupTable::default(),
            throttle: Throttle::default(),
            dump: DumpState::default(),
            transactions: TransactionBuffer::default(),
            counts: DumpCounts::default(),
        }
    }

    /// Decodes a dump to its end.
    pub fn read(&mut self, origin: &DumpSource) -> Result<ReadFlow> {
        let mut input = DumpInput::open(origin, Some(self.shutdown), Arc::clone(&self.read_bytes))?;
        let file: Rc<str> = origin.name().into();
        let (detected, mut reader) = open_reader(origin, &mut input, &self.options);
        if starts_plain_capture(input.bytes()) {
            return Err(Error::Usage(format!(
                "{file} is not a Kafka dump: this is a packet capture (to store it, send it to a receiver with `lea replay`)"
            )));
        }
        if self.shutdown.is_triggered() {
            return Ok(ReadFlow::Stop);
        }
        let Detected { format, reason } = detected;
        log::info!("reading file={file:?} format={} reason=\"{reason}\"", format.as_str());
        self.sink.start_dump(DumpInfo {
            id: origin.dump_id(),
            is_dead_letters: format == DumpFormat::DeadLetters,
            has_no_gaps: format == DumpFormat::Segment,
        });
        self.seen.start_dump();
        self.counts.files += 1;
        self.dump = DumpState::default();
        input.fill_without_waiting();
        let again = open_reader(origin, &mut input, &self.options).1;
        let mut sorter = sort::is_decreasing(again, input.bytes(), input.has_ended()).then(RecordSorter::new);
        let is_empty = input.bytes().iter().all(|byte| byte.is_ascii_whitespace() || *byte == 0);
        loop {
            let step = reader.step(input.bytes(), input.has_ended());
            let consumed = step.consumed;
            match step.item {
                DumpItem::NeedBytes(bytes) => {
                    if input.may_wait() {
                        match self.sink.flush() {
                            Err(VisitError::Failed(error)) => return Err(error),
                            Err(_) => return Ok(ReadFlow::Stop),
                            Ok(()) => {}
                        }
                    }
                    input.fill(bytes);
                    if self.shutdown.is_triggered() {
                        return Ok(ReadFlow::Stop);
                    }
                    continue;
                }
                DumpItem::End { truncated_bytes: cut_bytes } => {
                    self.end_dump(&file, step.location, cut_bytes, input.damage())?;
                    if self.visit_sorted(&file, sorter)? == ReadFlow::Stop {
                        return Ok(ReadFlow::Stop);
                    }
                    // Nothing of an unknown partition continues in another dump.
                    if self.release_undecided(false)? == ReadFlow::Stop {
                        return Ok(ReadFlow::Stop);
                    }
                    if !is_empty {
                        self.check_use(&file, detected);
                    }
                    return Ok(ReadFlow::Continue);
                }
                DumpItem::Skip => {}
                DumpItem::Record { mut position, value, is_last_line: open_end, producer_id } => {
                    if let Some(position) = &mut position {
                        self.options.complete(position);
                    }
                    if let (Some(records), Some(position)) = (&mut sorter, &position) {
                        records.push(position, step.location, value).map_err(sort_error)?;
                        let full = sorter.take_if(|records| records.is_full());
                        sorter = sorter.or_else(|| Some(RecordSorter::new()));
                        if self.visit_sorted(&file, full)? == ReadFlow::Stop {
                            return Ok(ReadFlow::Stop);
                        }
                        input.consume(consumed);
                        continue;
                    }
                    let record = DumpRecord { file: &file, place: step.location, position, value, open_end };
                    if self.hold_or_visit(&record, &file, producer_id)? == ReadFlow::Stop {
                        return Ok(ReadFlow::Stop);
                    }
                }
                DumpItem::Damaged { reason, bytes, first } => {
                    self.record_damage(&file, step.location, &reason, bytes, first)?;
                }
                DumpItem::TransactionEnd { mut position, producer_id, is_abort } => {
                    self.options.complete(&mut position);
                    let released = self.transactions.end(&position, producer_id, is_abort);
                    if is_abort {
                        let place = step.location;
                        log::info!("transaction_aborted file={file:?} {place} producer_id={producer_id}");
                    }
                    if self.visit_released(released)? == ReadFlow::Stop {
                        return Ok(ReadFlow::Stop);
                    }
                }
            }
            input.consume(consumed);
        }
    }

    /// Visits records by offset.
    fn visit_sorted(&mut self, file: &str, sorter: Option<RecordSorter>) -> Result<ReadFlow> {
        let Some(mut sorter) = sorter else { return Ok(ReadFlow::Continue) };
        sorter.sort();
        let mut nth = 0;
        while let Some(entry) = sorter.get(nth).map_err(sort_error)? {
            let RecordEntry { position, location: place, value } = entry;
            let record = DumpRecord { file, place, position: Some(position), value, open_end: false };
            if self.visit_record(&record)? == ReadFlow::Stop {
                return Ok(ReadFlow::Stop);
            }
            nth += 1;
        }
        Ok(ReadFlow::Continue)
    }

    /// Ends the last dump: visits the records of transactions whose end is unknown.
    pub fn finish(&mut self) -> Result<ReadFlow> {
        self.release_undecided(true)
    }

    fn release_undecided(&mut self, all: bool) -> Result<ReadFlow> {
        for released in self.transactions.drain(all) {
            if self.visit_released(Some(released))? == ReadFlow::Stop {
                return Ok(ReadFlow::Stop);
            }
        }
        Ok(ReadFlow::Continue)
    }

    /// Visits a record, or holds it back until it is known whether it counts.
    fn hold_or_visit(
        &mut self,
        record: &DumpRecord<'_>,
        file: &Rc<str>,
        producer_id: Option<i64>,
    ) -> Result<ReadFlow> {
        let Some(position) = record.position.filter(|position| {
            !self.options.keeps_aborted && self.transactions.must_hold(position, producer_id)
        }) else {
            return self.visit_record(record);
        };
        let held = HeldRecord {
            file: Rc::clone(file),
            location: record.place,
            offset: position.offset,
            value: record.value.map(<[u8]>::to_vec),
            fate: producer_id.map_or(Fate::Counts, Fate::Open),
        };
        let released = self.transactions.hold(&position, held);
        self.visit_released(released)
    }

    fn visit_released(&mut self, released: Option<Released>) -> Result<ReadFlow> {
        let Some(Released { topic, partition, records }) = released else { return Ok(ReadFlow::Continue) };
        for held in &records {
            match held.fate {
                Fate::Counts => {}
                Fate::Aborted => {
                    self.counts.aborted += 1;
                    self.dump.used += 1;
                    continue;
                }
                Fate::Open(producer_id) => {
                    self.counts.undecided += 1;
                    self.throttle.warn(
                        "transaction_undecided",
                        format_args!(
                            "transaction_undecided file={:?} {} topic={topic:?} partition={partition} offset={} \
                             producer_id={producer_id} note=\"its end is not in the dumps; the record is decoded\"",
                            held.file, held.location, held.offset
                        ),
                    );
                }
            }
            let record = DumpRecord {
                file: &held.file,
                place: held.location,
                position: Some(KafkaPosition { topic: &topic, partition, offset: held.offset }),
                value: held.value.as_deref(),
                open_end: false,
            };
            if self.visit_record(&record)? == ReadFlow::Stop {
                return Ok(ReadFlow::Stop);
            }
        }
        Ok(ReadFlow::Continue)
    }

    fn visit_record(&mut self, record: &DumpRecord<'_>) -> Result<ReadFlow> {
        self.counts.records += 1;
        let was = record.position.map_or(Dedup::New, |position| {
            let is_placed = !position.topic.is_empty() && position.partition >= 0;
            let seen = if is_placed { &mut self.seen } else { &mut self.dump.seen };
            seen.check_and_insert(&position, record.value)
        });
        match was {
            Dedup::New => {}
            Dedup::Forgotten => self.counts.unchecked += 1,
            Dedup::Duplicate => {
                self.counts.duplicates += 1;
                self.dump.used += 1;
                return Ok(ReadFlow::Continue);
            }
            Dedup::Conflict => self.throttle.warn(
                "offset_reused",
                format_args!(
                    "offset_reused {record} note=\"a different record had this offset; both are decoded\""
                ),
            ),
        }
        let at = RecordPosition { position: record.position.as_ref(), is_reused: was == Dedup::Conflict };
        let visited = match record.value.ok_or(ChunkError::NoValue).and_then(chunk::parse) {
            Err(ChunkError::Envelope(member)) => self.visit_envelope(record, at, member),
            Err(rejected) => Err(VisitError::Rejected(rejected)),
            Ok(chunk) => self.visit_chunk(chunk, at),
        };
        match visited {
            Ok(took) => self.count_outcome(took, record),
            Err(VisitError::Rejected(refused)) => self.reject(record, at, &refused)?,
            Err(VisitError::StopReading) => return Ok(ReadFlow::Stop),
            Err(VisitError::Failed(error)) => return Err(error),
        }
        Ok(ReadFlow::Continue)
    }

    fn visit_chunk(
        &mut self,
        mut chunk: Chunk<'_>,
        at: RecordPosition<'_>,
    ) -> Result<VisitOutcome, VisitError> {
        self.dump.is_hex |= chunk.data.looks_like_hex();
        if self.dump.is_hex {
            chunk.data.read_as_hex();
        }
        self.sink.visit_chunk(&chunk, at)
    }

    /// Visits the chunk in an envelope that was itself the value of a record.
    fn visit_envelope(
        &mut self,
        record: &DumpRecord<'_>,
        at: RecordPosition<'_>,
        member: &'static str,
    ) -> Result<VisitOutcome, VisitError> {
        let Some(value) = record.value.and_then(unwrap_envelope) else {
            return Err(VisitError::Rejected(ChunkError::Envelope(member)));
        };
        self.visit_chunk(chunk::parse(&value)?, at)
    }

    fn count_outcome(&mut self, took: VisitOutcome, record: &DumpRecord<'_>) {
        self.dump.used += 1;
        match took {
            VisitOutcome::New => {}
            VisitOutcome::Duplicate => self.counts.already_stored += 1,
            VisitOutcome::Late => {
                self.counts.late += 1;
                self.throttle.warn(
                    "record_late",
                    format_args!(
                        "record_late {record} note=\"not stored: the directory has later records; decode this dump into another \
                         directory\""
                    ),
                );
            }
            VisitOutcome::Unknown => {
                self.counts.late += 1;
                self.throttle.warn(
                    "record_unknown",
                    format_args!(
                        "record_unknown {record} note=\"not stored: the directory has too many gaps to know whether it has \
                         this record; decode all dumps into another directory\""
                    ),
                );
            }
        }
    }

    fn reject(
        &mut self,
        record: &DumpRecord<'_>,
        at: RecordPosition<'_>,
        refused: &ChunkError,
    ) -> Result<()> {
        if record.open_end && matches!(refused, ChunkError::NotJson(_)) {
            self.counts.records -= 1;
            self.record_truncation(record.file, record.place, record.value.map_or(0, <[u8]>::len));
            return Ok(());
        }
        let reason = refused.to_string();
        let letter = RecordDeadLetter {
            position: record.position,
            source: Some((record.file, record.place)),
            reason: &reason,
            value: record.value,
        };
        match self.sink.visit_dead_letter(&letter, at)? {
            VisitOutcome::New => {
                self.counts.rejected += 1;
                self.dump.is_damaged = true;
                self.log_rejection(
                    refused.as_str(),
                    format_args!("record_rejected {record} reason=\"{reason}\""),
                );
            }
            took => self.count_outcome(took, record),
        }
        Ok(())
    }

    fn record_damage(
        &mut self,
        file: &str,
        place: DumpLocation,
        reason: &str,
        bytes: &[u8],
        first: bool,
    ) -> Result<()> {
        self.dump.is_damaged = true;
        self.sink.note_damage();
        if first {
            self.counts.damaged += 1;
            self.log_rejection(
                "damaged",
                format_args!("damaged file={file:?} {place} bytes={} reason=\"{reason}\"", bytes.len()),
            );
        }
        if !bytes.is_empty() {
            let letter =
                RecordDeadLetter { position: None, source: Some((file, place)), reason, value: Some(bytes) };
            self.sink.visit_dead_letter(&letter, RecordPosition { position: None, is_reused: false })?;
        }
        Ok(())
    }

    fn end_dump(
        &mut self,
        file: &str,
        place: DumpLocation,
        cut_bytes: usize,
        broken: Option<&InputDamage>,
    ) -> Result<()> {
        match broken {
            Some(InputDamage::Unreadable(reason)) => {
                self.counts.damaged += 1;
                self.dump.is_damaged = true;
                self.log_rejection(
                    "damaged",
                    format_args!(
                        "damaged file={file:?} {place} reason=\"{reason}\" note=\"the rest of the file cannot be decoded\""
                    ),
                );
            }
            Some(InputDamage::Truncated) => self.record_truncation(file, place, cut_bytes),
            None if cut_bytes > 0 => self.record_truncation(file, place, cut_bytes),
            None => {}
        }
        Ok(())
    }

    fn record_truncation(&mut self, file: &str, place: DumpLocation, bytes: usize) {
        if std::mem::replace(&mut self.dump.is_cut, true) {
            return;
        }
        self.counts.truncated += 1;
        log::warn!(
            "dump_truncated file={file:?} {place} bytes={bytes} note=\"the last record is incomplete\""
        );
    }

    /// Reports a dump that is not empty and from which no record could be used.
    fn check_use(&mut self, file: &str, Detected { format, reason }: Detected) {
        // Segments and their text may contain no records at all.
        let may_be_empty = matches!(format, DumpFormat::Segment | DumpFormat::LogText);
        if self.dump.used > 0 || may_be_empty && !self.dump.is_damaged && !self.dump.is_cut {
            return;
        }
        self.counts.unread += 1;
        log::warn!(
            "dump_unread file={file:?} format={} reason=\"{reason}\" note=\"no record of this dump could be used; {}\"",
            format.as_str(),
            format.advice(),
        );
    }

    /// Logs a rejection, at a limited rate once there are many.
    fn log_rejection(&self, reason: &'static str, line: std::fmt::Arguments<'_>) {
        if self.counts.rejected + self.counts.damaged <= LOGGED_MAX {
            log::warn!("{line}");
        } else {
            self.throttle.warn(reason, line);
        }
    }
}

/// Record with its location in the dump.
struct DumpRecord<'a> {
    file: &'a str,
    place: DumpLocation,
    position: Option<KafkaPosition<'a>>,
    value: Option<&'a [u8]>,
    open_end: bool,
}

/// Formats the record's location for the log.
impl std::fmt::Display for DumpRecord<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "file={:?} {}", self.file, self.place)?;
        let Some(KafkaPosition { topic, partition, offset }) = self.position else { return Ok(()) };
        write!(f, " topic={topic:?} partition={partition} offset={offset}")
    }
}

impl<'o> DumpOptions<'o> {
    /// Fills in what the dump does not contain.
    fn complete<'a>(self, position: &mut KafkaPosition<'a>)
    where
        'o: 'a,
    {
        if position.topic.is_empty() {
            position.topic = self.topic;
        }
        if position.partition < 0 {
            position.partition = self.partition.unwrap_or(-1);
        }
    }
}

/// Detects the dump's format and creates its reader.
fn open_reader(
    origin: &DumpSource,
    input: &mut DumpInput,
    options: &DumpOptions<'_>,
) -> (Detected, DumpReader) {
    let detected = input.detect();
    let detected = match options.format {
        Some(format) => Detected { format, reason: "--format says so" },
        None => detected,
    };
    let dir_name = origin.parent_dir_name();
    (detected, DumpReader::new(detected.format, dir_name.as_deref().and_then(parse_partition_dir)))
}

fn sort_error(error: std::io::Error) -> Error {
    Error::System { act: "sort records in a temporary file", source: error }
}
