//! Chunks into stream files, through the same ledger as records of a broker: which of them are new is told by their
//! offsets. Runs in the main thread.
//!
//! A record whose position cannot tell (a dump of bare values, dead letters, an offset that another record had before,
//! offsets that go back) has its place in its dump instead: known again as long as the dump's file is unchanged. Where
//! that is not known either, what holds is what holds for any stream that is sent again.

use std::collections::HashSet;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::ops::ControlFlow;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::cc::chunk_sink::{At, ChunkSink, Dump, Took, Untaken};
use crate::cc::frame::chunk::Chunk;
use crate::cc::frame::dump::{Letter, Position};
use crate::cc::source::dump::{Origin, each_record};
use crate::cc::vault::Vault;
use crate::cc::vault::ledger::{self, Ledger, PartitionId, STREAMS_MAX, Taken};
use crate::{Error, Result};

/// Stores chunks.
pub struct Files {
    ledger: Ledger,
    letters: Letters,
    dump: Dump,
    /// The records of this dump that have their place in it alone: their partition, and how many there were.
    placed: Option<(PartitionId, i64)>,
    /// The place of the record that was refused last, until it is kept.
    refused: Option<(PartitionId, i64)>,
    routes: Vec<Route>,
    /// The route of the last record: most often that of the next one.
    last: usize,
}

/// A partition that records come from.
struct Route {
    topic: String,
    partition: i32,
    id: PartitionId,
    /// What is to come in this run.
    next_offset: i64,
}

/// What was stored.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stored {
    /// Streams; one that was closed and came again counts again.
    pub streams: u64,
    /// Bytes of their content.
    pub bytes: u64,
}

impl Files {
    /// Goes on where the folder's last checkpoint is. `read` are the dumps that will be read.
    pub fn open(vault: &Vault, dir: &Path, read: &[Origin]) -> Result<Files> {
        let ledger = Ledger::open(vault, "dump", STREAMS_MAX)?;
        let letters = Letters::new(dir, read)?;
        let dump = Dump { id: String::new(), letters: false };
        let (placed, refused, routes) = (None, None, Vec::new());
        Ok(Files { ledger, letters, dump, placed, refused, routes, last: 0 })
    }

    /// Ends all streams. What was taken is durable then.
    pub fn finish(mut self) -> Result<Stored> {
        let flushed = self.ledger.flush();
        let stored = Stored { streams: self.ledger.begun(), bytes: self.ledger.taken_bytes() };
        self.ledger.close();
        flushed.map(|_| stored).map_err(failed)
    }

    /// The partition and the offset that a record has in the ledger.
    fn place(&mut self, at: At<'_>) -> (PartitionId, i64) {
        if let Some(position) = at.position.filter(|_| !at.again && !self.dump.letters) {
            let route = self.route(position);
            if position.offset >= route.next_offset {
                route.next_offset = position.offset.saturating_add(1);
                return (route.id, position.offset);
            }
        }
        let ledger = &mut self.ledger;
        // A partition of its own: a dump may have offsets of partitions that it does not name.
        let begin = || (ledger.take_up("", -1, Some(&format!("{}-nth", self.dump.id))), 0);
        let (id, records) = self.placed.get_or_insert_with(begin);
        *records += 1;
        (*id, *records - 1)
    }

    fn route(&mut self, position: &Position<'_>) -> &mut Route {
        let is = |route: &Route| position.is_in(&route.topic, route.partition);
        if !self.routes.get(self.last).is_some_and(is) {
            self.last = self.routes.iter().position(is).unwrap_or_else(|| {
                let Position { topic, partition, .. } = *position;
                // Without its topic a partition is one of this dump alone.
                let whose = (topic.is_empty() || partition < 0).then_some(&*self.dump.id);
                let id = self.ledger.take_up(topic, partition, whose);
                let topic = topic.to_owned();
                self.routes.push(Route { topic, partition, id, next_offset: i64::MIN });
                self.routes.len() - 1
            });
        }
        &mut self.routes[self.last]
    }

    /// What it means that a record's offset was passed.
    fn known(&self, id: PartitionId, offset: i64) -> Took {
        if self.ledger.was_passed_over(id, offset) { Took::Behind } else { Took::Known }
    }
}

impl ChunkSink for Files {
    fn begin(&mut self, dump: Dump) {
        self.routes.retain(|route| !route.topic.is_empty() && route.partition >= 0);
        self.routes.iter().for_each(|route| self.ledger.expect_gap(route.id));
        self.placed = None;
        self.dump = dump;
    }

    fn take(&mut self, chunk: &Chunk<'_>, at: At<'_>) -> Result<Took, Untaken> {
        let (id, offset) = self.place(at);
        match self.ledger.take(id, offset, chunk) {
            Ok(Taken::New) => Ok(Took::New),
            Ok(Taken::Repeated) => Ok(self.known(id, offset)),
            Err(ledger::Untaken::Refused(refused)) => {
                self.refused = Some((id, offset));
                Err(Untaken::Refused(refused))
            }
            Err(ledger::Untaken::Failed(error)) => Err(Untaken::Failed(failed(error))),
        }
    }

    fn keep(&mut self, letter: &Letter<'_>, at: At<'_>) -> Result<Took> {
        let (id, offset) = self.refused.take().unwrap_or_else(|| self.place(at));
        let taken = match self.letters.has(letter, self.dump.letters)? {
            true if self.ledger.pass(id, offset) => Taken::New,
            true => Taken::Repeated,
            false => self.ledger.keep_letter(id, offset, &letter.line()).map_err(failed)?,
        };
        Ok(if taken == Taken::New { Took::New } else { self.known(id, offset) })
    }
}

/// The folder's dead letters.
struct Letters {
    path: PathBuf,
    /// True if they are among the dumps: nothing is written into a file that is read.
    read: bool,
    /// Those that are there, once that is asked.
    there: Option<HashSet<u64>>,
}

impl Letters {
    fn new(dir: &Path, read: &[Origin]) -> Result<Letters> {
        let path = dir.join(".lea").join(ledger::DEAD_LETTERS);
        let ours = fs::metadata(&path).map_err(Error::path("look at", &path))?;
        let is_ours = |found: fs::Metadata| (found.dev(), found.ino()) == (ours.dev(), ours.ino());
        let read = read.iter().any(|origin| match origin {
            Origin::File(path) => fs::metadata(path).is_ok_and(is_ours),
            Origin::Stdin => fs::metadata("/dev/stdin").is_ok_and(is_ours),
        });
        if read {
            log::warn!("dead_letters_left_alone file={path:?} note=\"it is being read\"");
        }
        Ok(Letters { path, read, there: None })
    }

    /// True if a letter must not be written: the folder has it. `again`: it was read as a dead letter.
    fn has(&mut self, letter: &Letter<'_>, again: bool) -> Result<bool> {
        if self.read || !again {
            return Ok(self.read);
        }
        if self.there.is_none() {
            let mut there = HashSet::new();
            each_record(&Origin::File(self.path.clone()), &mut |position, value| {
                there.insert(mark(position, value));
                ControlFlow::Continue(())
            })?;
            self.there = Some(there);
        }
        let mark = mark(letter.position.as_ref(), letter.value);
        Ok(self.there.as_ref().is_some_and(|there| there.contains(&mark)))
    }
}

/// What tells a dead letter from others: where the record was, and what.
fn mark(position: Option<&Position<'_>>, value: Option<&[u8]>) -> u64 {
    let mut hasher = DefaultHasher::new();
    position.map(|Position { topic, partition, offset }| (topic, partition, offset)).hash(&mut hasher);
    value.hash(&mut hasher);
    hasher.finish()
}

fn failed(error: io::Error) -> Error {
    Error::System { act: "store a record", source: error }
}
