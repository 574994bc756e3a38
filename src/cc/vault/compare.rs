//! A stream that is sent again from its start, beside what is stored of it. Runs in the stream's own thread.
//!
//! All parts are candidates until they differ. As long as one of them holds all that has come, nothing is written.

use std::io;
use std::os::unix::fs::FileExt;

use super::dir::VaultDir;
use super::manifest::Manifest;
use super::tail::Tail;

/// A part that is stored and closed.
#[derive(Clone, Debug)]
pub struct Stored {
    /// Its manifest as it stands beside it.
    pub manifest: Manifest,
    /// The length of its file.
    pub bytes: u64,
}

/// A comparison under way.
#[derive(Debug)]
pub struct Comparison {
    /// Follows the stream; writes nothing.
    pub tail: Tail,
    /// The parts that hold the same bytes as the stream so far, as far as they reach.
    pub candidates: Vec<Stored>,
}

/// What a chunk turned out to be.
#[derive(Debug)]
pub enum Outcome {
    /// A part holds all that has come.
    Equal,
    /// No part holds all that has come.
    Beyond(Box<Beyond>),
}

/// How to go on from the chunk that is in no part.
#[derive(Debug)]
pub struct Beyond {
    /// The longest part that is wholly equal to the stream's begin: it goes on. `None`: a new part.
    pub onto: Option<Stored>,
    /// A part that holds all bytes before the chunk.
    pub reference: Option<Stored>,
}

impl Beyond {
    /// Where in the stream the file that goes on ends.
    pub fn stored_bytes(&self) -> u64 {
        self.onto.as_ref().map_or(0, |stored| stored.bytes)
    }
}

impl Comparison {
    /// Starts at byte 0 with all parts.
    pub fn new(mut tail: Tail, candidates: Vec<Stored>) -> Comparison {
        // Everything counts as stored until it is known what is not.
        tail.stored(u64::MAX);
        Comparison { tail, candidates }
    }

    /// Compares the next chunk; `scratch` is for stored bytes. The tail has not taken the chunk if it is `Beyond`.
    pub fn compare(&mut self, dir: &VaultDir, chunk: &[u8], scratch: &mut [u8]) -> Outcome {
        let at = self.tail.follower().received();
        let end = at + chunk.len() as u64;
        let reference = self.candidates.iter().find(|stored| stored.bytes >= at).cloned();
        self.candidates.retain(|stored| {
            let reach = usize::try_from(stored.bytes.saturating_sub(at)).unwrap_or(usize::MAX);
            let beside = &chunk[..reach.min(chunk.len())];
            equal(dir, &stored.manifest.file, at, beside, scratch).unwrap_or_else(|error| {
                log::warn!("compare_failed file={} at={at} error=\"{error}\"", stored.manifest.file);
                false
            })
        });
        if self.candidates.iter().any(|stored| stored.bytes >= end) {
            self.tail.feed(chunk);
            return Outcome::Equal;
        }
        // Of parts of the same length the first: `max_by_key` would take the last.
        let onto = self.candidates.iter().rev().max_by_key(|stored| stored.bytes).cloned();
        Outcome::Beyond(Box::new(Beyond { onto, reference }))
    }

    /// The part that holds all that has come.
    pub fn equal_to(&self) -> Option<&Stored> {
        let received = self.tail.follower().received();
        self.candidates.iter().find(|stored| stored.bytes >= received)
    }
}

/// True if `file` has `bytes` at offset `at`.
fn equal(dir: &VaultDir, file: &str, at: u64, bytes: &[u8], scratch: &mut [u8]) -> io::Result<bool> {
    if bytes.is_empty() {
        return Ok(true);
    }
    // Opened for each chunk: many parts may be candidates, and a descriptor held by each would have no bound.
    let file = dir.open_to_read(file)?;
    let mut offset = at;
    for piece in bytes.chunks(scratch.len()) {
        let stored = &mut scratch[..piece.len()];
        file.read_exact_at(stored, offset)?;
        if stored != piece {
            return Ok(false);
        }
        offset += piece.len() as u64;
    }
    Ok(true)
}
