//! The dead letters: records that cannot be used, kept whole.

use std::fs::File;
use std::io::{self, Write};

use super::super::Shared;
use super::{Ledger, PartitionId, Taken};

/// The file of records that cannot be used, in the folder of our own files.
pub const DEAD_LETTERS: &str = "dead-letters.jsonl";

/// Records that cannot be used, each a line.
pub(super) struct Letters {
    pub file: File,
    pub bytes: u64,
    pub changed: bool,
}

impl Letters {
    /// Opens the dead letters, and cuts off what a crash left behind the last checkpoint.
    pub fn open(shared: &Shared, bytes: Option<u64>) -> io::Result<Letters> {
        let file = shared.dir.own_append(DEAD_LETTERS)?;
        let found = file.metadata()?.len();
        let bytes = bytes.map_or(found, |bytes| bytes.min(found));
        file.set_len(bytes)?;
        Ok(Letters { file, bytes, changed: false })
    }
}

impl Ledger {
    /// Keeps a record that cannot be used, as a line of the dead letters.
    pub fn keep_letter(&mut self, partition: PartitionId, offset: i64, line: &[u8]) -> io::Result<Taken> {
        if offset < self.partitions[partition.0].state.next_offset {
            return Ok(Taken::Repeated);
        }
        let Letters { file, bytes, changed } = &mut self.letters;
        self.shared.pressure.persist("dead letter", DEAD_LETTERS, || {
            // Half a line (a full disk) must not stand before the next attempt's.
            file.set_len(*bytes)?;
            file.write_all(line)
        })?;
        (*bytes, *changed) = (*bytes + line.len() as u64, true);
        self.pass(partition, offset);
        Ok(Taken::New)
    }
}
