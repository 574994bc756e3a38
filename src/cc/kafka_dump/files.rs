//! Stores chunks from dumps as stream files, through the ledger that Kafka consumers use. The ledger recognises duplicates
//! by their offsets. Runs in the main thread.
//!
//! Some records have no usable offset: those in a dump of bare values, dead letters, an offset that an earlier record
//! had. They are identified by their position in the dump instead, so they are recognised as long
//! as the dump's file is unchanged. If it changed, they are handled as any re-sent stream.

use std::collections::HashSet;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::ops::ControlFlow;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::cc::kafka_dump::format::{KafkaPosition, RecordDeadLetter};
use crate::cc::kafka_dump::visitor::{DumpInfo, RecordPosition, RecordVisitor, VisitError, VisitOutcome};
use crate::cc::kafka_dump::{DumpOptions, DumpSource, for_each_record};
use crate::cc::vault::Vault;
use crate::cc::vault::ledger::{self, Accepted, Ledger, PartitionId, STREAMS_MAX};
use crate::cc::vault::manifest::StreamSource;
use crate::cc::wire::chunk::Chunk;
use crate::{Error, Result};

/// Stores the chunks of dumps in the vault.
pub(crate) struct DumpImporter {
    ledger: Ledger,
    letters: ImportedDeadLetters,
    dump: DumpInfo,
    /// The pseudo-partition of this dump's records without usable offsets, and how many there were so far.
    unpositioned: Option<(PartitionId, i64)>,
    /// Position of the record that was rejected last, until it is stored as a dead letter.
    rejected_position: Option<(PartitionId, i64)>,
    routes: Vec<PartitionRoute>,
    /// Index of the last record's route, which the next record most often shares.
    last_route: usize,
}

/// A partition that occurs in the dumps.
struct PartitionRoute {
    topic: String,
    partition: i32,
    id: PartitionId,
}

/// Totals of what was stored.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ImportTotals {
    /// Streams; one that was closed and then continued counts twice.
    pub streams: u64,
    /// Content bytes.
    pub bytes: u64,
}

impl DumpImporter {
    /// Opens the ledger at the directory's last checkpoint. `read` lists the dumps that will be read.
    pub(crate) fn open(vault: &Vault, dir: &Path, read: &[DumpSource]) -> Result<DumpImporter> {
        let ledger = Ledger::open(vault, StreamSource::KafkaDump, "Kafka dump", STREAMS_MAX)?;
        let letters = ImportedDeadLetters::new(dir, read)?;
        let dump = DumpInfo { id: String::new(), is_dead_letters: false, has_no_gaps: false };
        let (placed, refused, routes) = (None, None, Vec::new());
        Ok(DumpImporter {
            ledger,
            letters,
            dump,
            unpositioned: placed,
            rejected_position: refused,
            routes,
            last_route: 0,
        })
    }

    /// Closes all streams. All accepted records are durable afterwards.
    pub(crate) fn finish(mut self) -> Result<ImportTotals> {
        let flushed = self.ledger.flush();
        let stored =
            ImportTotals { streams: self.ledger.streams_started(), bytes: self.ledger.accepted_bytes() };
        self.ledger.close();
        flushed.map(|_| stored).map_err(store_error)
    }

    /// Returns the partition and offset under which the ledger knows a record.
    fn ledger_position(&mut self, at: RecordPosition<'_>) -> (PartitionId, i64) {
        if let Some(position) = at.position.filter(|_| !at.is_reused && !self.dump.is_dead_letters) {
            return (self.find_or_add_route(position), position.offset);
        }
        let ledger = &mut self.ledger;
        // A separate partition: the dump may contain offsets of partitions that it does not name.
        let dump_id = format!("{}-nth", self.dump.id);
        let begin = || (ledger.add_dump_partition("", -1, Some(&dump_id), true), 0);
        let (id, records) = self.unpositioned.get_or_insert_with(begin);
        *records += 1;
        (*id, *records - 1)
    }

    fn find_or_add_route(&mut self, position: &KafkaPosition<'_>) -> PartitionId {
        let is = |route: &PartitionRoute| position.is_in(&route.topic, route.partition);
        if !self.routes.get(self.last_route).is_some_and(is) {
            self.last_route = self.routes.iter().position(is).unwrap_or_else(|| {
                let KafkaPosition { topic, partition, .. } = *position;
                // A partition without a topic belongs to this dump only.
                let whose = (topic.is_empty() || partition < 0).then_some(&*self.dump.id);
                let id = self.ledger.add_dump_partition(topic, partition, whose, self.dump.has_no_gaps);
                self.routes.push(PartitionRoute { topic: topic.to_owned(), partition, id });
                self.routes.len() - 1
            });
        }
        self.routes[self.last_route].id
    }
}

impl From<Accepted> for VisitOutcome {
    fn from(accepted: Accepted) -> VisitOutcome {
        match accepted {
            Accepted::New => VisitOutcome::New,
            Accepted::Duplicate => VisitOutcome::Duplicate,
            Accepted::Late => VisitOutcome::Late,
            Accepted::Unknown => VisitOutcome::Unknown,
        }
    }
}

impl RecordVisitor for DumpImporter {
    fn start_dump(&mut self, dump: DumpInfo) {
        // Each dump has its own kind, and a partition without a topic belongs to one dump only.
        self.routes.clear();
        self.unpositioned = None;
        self.dump = dump;
    }

    fn note_damage(&mut self) {
        self.routes.iter().for_each(|route| self.ledger.expect_gap(route.id));
    }

    fn visit_chunk(&mut self, chunk: &Chunk<'_>, at: RecordPosition<'_>) -> Result<VisitOutcome, VisitError> {
        let (id, offset) = self.ledger_position(at);
        match self.ledger.accept(id, offset, chunk) {
            Ok(accepted) => Ok(accepted.into()),
            Err(ledger::AcceptError::Rejected(refused)) => {
                self.rejected_position = Some((id, offset));
                Err(VisitError::Rejected(refused))
            }
            Err(ledger::AcceptError::Failed(error)) => Err(VisitError::Failed(store_error(error))),
        }
    }

    fn flush(&mut self) -> Result<(), VisitError> {
        self.ledger.flush_coalesced().map_err(|error| VisitError::Failed(store_error(error)))
    }

    fn visit_dead_letter(
        &mut self,
        letter: &RecordDeadLetter<'_>,
        at: RecordPosition<'_>,
    ) -> Result<VisitOutcome> {
        let (id, offset) = self.rejected_position.take().unwrap_or_else(|| self.ledger_position(at));
        let taken = match self.letters.is_already_kept(letter, self.dump.is_dead_letters)? {
            true if self.ledger.advance_past(id, offset) => Accepted::New,
            true => Accepted::Duplicate,
            false => self.ledger.store_dead_letter(id, offset, &letter.to_line()).map_err(store_error)?,
        };
        Ok(taken.into())
    }
}

/// Dead letters of the output directory.
struct ImportedDeadLetters {
    path: PathBuf,
    /// True if the dead-letter file is one of the dumps. Nothing is appended to a file that is being read.
    is_input: bool,
    /// Fingerprints of the dead letters in the file, read on first use.
    fingerprints: Option<HashSet<u64>>,
}

impl ImportedDeadLetters {
    fn new(dir: &Path, read: &[DumpSource]) -> Result<ImportedDeadLetters> {
        let path = dir.join(".lea").join(ledger::DEAD_LETTERS_FILE);
        let ours = fs::metadata(&path).map_err(Error::path("look at", &path))?;
        let is_ours = |found: fs::Metadata| (found.dev(), found.ino()) == (ours.dev(), ours.ino());
        let read = read.iter().any(|origin| match origin {
            DumpSource::File(path) => fs::metadata(path).is_ok_and(is_ours),
            DumpSource::Stdin => fs::metadata("/dev/stdin").is_ok_and(is_ours),
            DumpSource::Member(_) => false,
        });
        if read {
            log::warn!("dead_letters_not_written file={path:?} note=\"this file is one of the inputs\"");
        }
        Ok(ImportedDeadLetters { path, is_input: read, fingerprints: None })
    }

    /// Returns true if the directory has this dead letter already. `again`: it was read from a dead-letter file.
    fn is_already_kept(&mut self, letter: &RecordDeadLetter<'_>, again: bool) -> Result<bool> {
        if self.is_input || !again {
            return Ok(self.is_input);
        }
        if self.fingerprints.is_none() {
            let mut there = HashSet::new();
            for_each_record(
                &DumpSource::File(self.path.clone()),
                &DumpOptions::default(),
                &mut |position, value| {
                    there.insert(fingerprint(position, value));
                    ControlFlow::Continue(())
                },
            )?;
            self.fingerprints = Some(there);
        }
        let mark = fingerprint(letter.position.as_ref(), letter.value);
        Ok(self.fingerprints.as_ref().is_some_and(|there| there.contains(&mark)))
    }
}

/// Hash of a dead letter's position and value.
fn fingerprint(position: Option<&KafkaPosition<'_>>, value: Option<&[u8]>) -> u64 {
    let mut hasher = DefaultHasher::new();
    position.map(|KafkaPosition { topic, partition, offset }| (topic, partition, offset)).hash(&mut hasher);
    value.hash(&mut hasher);
    hasher.finish()
}

fn store_error(error: io::Error) -> Error {
    Error::System { act: "store a record", source: error }
}
