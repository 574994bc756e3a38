//! A stream that is sent again from its start, beside what is stored of it. Runs in the stream's own thread.
//!
//! All parts are candidates until they differ. As long as one of them holds all that has come, nothing is written.

use std::io;
use std::os::unix::fs::FileExt;

use super::dir::VaultDir;
use super::manifest::Manifest;
use super::pressure::Pressure;
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
    pub fn compare(
        &mut self,
        dir: &VaultDir,
        pressure: &Pressure,
        chunk: &[u8],
        scratch: &mut [u8],
    ) -> Outcome {
        let at = self.tail.follower().received();
        let end = at + chunk.len() as u64;
        let reference = self.candidates.iter().find(|stored| stored.bytes >= at).cloned();
        self.candidates.retain(|stored| {
            let reach = usize::try_from(stored.bytes.saturating_sub(at)).unwrap_or(usize::MAX);
            let beside = &chunk[..reach.min(chunk.len())];
            let file = &stored.manifest.file;
            let compared = pressure.persist("read", file, || equal(dir, file, at, beside, scratch));
            compared.unwrap_or_else(|error| {
                log::warn!("compare_failed file={file} at={at} error=\"{error}\"");
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::dir::Access;
    use super::super::manifest::{Manifest, Source};
    use super::*;

    const STREAM: &[u8] = b"a stream that is sent again from its first byte";

    /// Compares `stream`, in chunks of `step` bytes, with these stored parts. How it ended: `Ok` with the file that
    /// equals it, or where it went beyond them all, with the part to go on with and the one it equalled so far.
    fn check(parts: &[&[u8]], stream: &[u8], step: usize) -> Result<String, (u64, Option<String>)> {
        let folder = tempfile::tempdir().unwrap();
        let dir = VaultDir::open(folder.path(), Access::PRIVATE).unwrap();
        let stored = |(number, content): (usize, &&[u8])| {
            let manifest = Manifest::new(b"name", (number + 1).to_string(), 1, Source::Tcp);
            std::fs::write(folder.path().join(&manifest.file), content).unwrap();
            Stored { manifest, bytes: content.len() as u64 }
        };
        let candidates = parts.iter().enumerate().map(stored).collect();
        let mut comparison = Comparison::new(Tail::new(false), candidates);
        // Shorter than most chunks, so that they are read in pieces.
        let mut scratch = [0; 5];
        for chunk in stream.chunks(step) {
            let at = comparison.tail.follower().received();
            match comparison.compare(&dir, &Pressure::new(Arc::default()), chunk, &mut scratch) {
                Outcome::Equal => assert!(comparison.equal_to().is_some()),
                Outcome::Beyond(beyond) => {
                    assert_eq!(comparison.tail.follower().received(), at, "the tail has not taken the chunk");
                    let reference = beyond.reference.as_ref().expect("so far one of them had it all");
                    let held = std::fs::read(folder.path().join(&reference.manifest.file)).unwrap();
                    assert!(held.starts_with(&stream[..at as usize]));
                    let onto = beyond.onto.as_ref().map(|stored| stored.manifest.file.clone());
                    return Err((beyond.stored_bytes(), onto));
                }
            }
        }
        Ok(comparison.equal_to().unwrap().manifest.file.clone())
    }

    /// The same for every step: what comes out does not depend on the chunks.
    #[track_caller]
    fn check_all(parts: &[&[u8]], stream: &[u8], expected: Result<&str, (u64, Option<&str>)>) {
        for step in 1..=stream.len() {
            let ended = check(parts, stream, step);
            let ended = ended.as_ref().map(|file| &**file).map_err(|(bytes, onto)| (*bytes, onto.as_deref()));
            assert_eq!(ended, expected, "step {step}");
        }
    }

    #[test]
    fn the_part_that_holds_it_all_is_found() {
        let (differs, early) = (b"a stream that differs", b"no stream");
        check_all(&[STREAM], STREAM, Ok("1"));
        check_all(&[STREAM], &STREAM[..10], Ok("1"));
        check_all(&[differs, STREAM], STREAM, Ok("2"));
        check_all(&[early, &STREAM[..4], STREAM, STREAM], STREAM, Ok("3"));
    }

    #[test]
    fn past_the_longest_equal_part_it_goes_on() {
        let rest = STREAM.len() as u64;
        check_all(&[&STREAM[..20]], STREAM, Err((20, Some("1"))));
        check_all(&[&STREAM[..20], b"a stream that differs"], STREAM, Err((20, Some("1"))));
        check_all(&[&STREAM[..7], &STREAM[..20]], STREAM, Err((20, Some("2"))));
        check_all(&[&STREAM[..20], &STREAM[..20]], STREAM, Err((20, Some("1"))));
        check_all(&[b""], STREAM, Err((0, Some("1"))));
        check_all(&[STREAM], &[STREAM, b"!"].concat(), Err((rest, Some("1"))));
    }

    #[test]
    fn what_is_in_none_of_them_is_new_or_goes_on_with_a_start() {
        let mut other = STREAM.to_vec();
        other[30] ^= 1;
        check_all(&[STREAM], &other, Err((0, None)));
        check_all(&[STREAM, b"another one"], &other, Err((0, None)));
        // The second part is the stream's start, though the first one was equal for longer.
        check_all(&[STREAM, &STREAM[..12]], &other, Err((12, Some("2"))));
        check_all(&[STREAM, &STREAM[..12], b""], &other, Err((12, Some("2"))));
    }

    #[test]
    fn a_part_that_cannot_be_read_is_no_candidate() {
        let folder = tempfile::tempdir().unwrap();
        let dir = VaultDir::open(folder.path(), Access::PRIVATE).unwrap();
        let manifest = Manifest::new(b"name", "gone".to_owned(), 1, Source::Tcp);
        let mut comparison = Comparison::new(Tail::new(false), vec![Stored { manifest, bytes: 100 }]);
        let pressure = Pressure::new(Arc::default());
        let outcome = comparison.compare(&dir, &pressure, STREAM, &mut [0; 5]);
        assert!(matches!(outcome, Outcome::Beyond(beyond) if beyond.onto.is_none()));
    }
}
