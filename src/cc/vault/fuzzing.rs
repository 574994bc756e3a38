//! Entry points for fuzzing: the parsers of the files that a start reads after a crash. They return what can be compared
//! between two ways of reading the same bytes. Not used otherwise.

use std::io::{self, BufRead};

use super::checkpoint::Checkpoint;
use super::scan::FileScan;
use super::{checkpoint, journal, resume_state};

/// Reads a journal. Returns the files that are open, and the journal rewritten with only them.
pub fn read_journal(bytes: impl BufRead) -> io::Result<(Vec<String>, Vec<u8>)> {
    let open = journal::replay(bytes)?.open;
    let rewritten = journal::to_lines(&open)?;
    Ok((open.into_keys().collect(), rewritten))
}

/// Reads a checkpoint log. Returns it rewritten as one batch.
pub fn read_checkpoints(bytes: impl BufRead) -> io::Result<Vec<u8>> {
    let checkpoint: Checkpoint = checkpoint::replay(bytes)?;
    checkpoint.to_lines()
}

/// Decodes the resume state of a stream of `received` bytes, continues with `more`, and encodes it again. `None`: the
/// state is rejected, and the file would be read instead.
pub fn continue_resume_state(text: &str, received: u64, more: &[u8]) -> Option<String> {
    let mut scan: FileScan = resume_state::decode(text, received, false).ok()?;
    scan.feed(more);
    assert!(scan.tracker.packet_boundary() <= scan.tracker.received());
    Some(resume_state::encode(&scan))
}
