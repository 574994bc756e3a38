//! The dead-letter file: stores records that cannot be used.

use std::fs::File;
use std::io::{self, Write};

use super::{Accepted, Ledger, PartitionId};
use crate::cc::vault::VaultInner;

/// Name of the dead-letter file in `.lea`. It has one JSON line per record.
pub(crate) const DEAD_LETTERS_FILE: &str = "dead-letters.jsonl";

/// The open dead-letter file.
pub(super) struct DeadLetterFile {
    pub file: File,
    pub bytes: u64,
    pub is_changed: bool,
}

impl DeadLetterFile {
    /// Opens the file and truncates it to its length at the last checkpoint.
    pub(super) fn open(shared: &VaultInner, bytes: Option<u64>) -> io::Result<DeadLetterFile> {
        let file = shared.dir.meta_append(DEAD_LETTERS_FILE)?;
        let found = file.metadata()?.len();
        let bytes = bytes.map_or(found, |bytes| bytes.min(found));
        file.set_len(bytes)?;
        Ok(DeadLetterFile { file, bytes, is_changed: false })
    }
}

impl Ledger {
    /// Appends a record that cannot be used as a line of the dead-letter file.
    pub(crate) fn store_dead_letter(
        &mut self,
        partition: PartitionId,
        offset: i64,
        line: &[u8],
    ) -> io::Result<Accepted> {
        if let Some(passed) = self.pass_known(partition, offset) {
            return Ok(passed);
        }
        let DeadLetterFile { file, bytes, is_changed: changed } = &mut self.dead_letters;
        self.shared.disk_retry.retry("dead letter", DEAD_LETTERS_FILE, || {
            // Half a line (after a full disk) must not precede the next attempt's line.
            file.set_len(*bytes)?;
            file.write_all(line)
        })?;
        (*bytes, *changed) = (*bytes + line.len() as u64, true);
        self.advance_past(partition, offset);
        Ok(Accepted::New)
    }
}
