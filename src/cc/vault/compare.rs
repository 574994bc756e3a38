//! Comparison of a re-sent stream with its stored parts. Runs in the stream's own thread.
//!
//! All parts are candidates until they differ from the stream. Nothing is written while a candidate contains
//! all received bytes.

use std::io;
use std::os::unix::fs::FileExt;

use super::continuation::Continuation;
use super::dir::VaultDir;
use super::disk_retry::DiskRetry;
use super::manifest::Manifest;
use super::packet_aligner::PacketAligner;

/// A part that is stored and closed. If rotations cut the stream into several files, they are one part here.
#[derive(Clone, Debug)]
pub(super) struct StoredPart {
    /// Manifest of the file, the last one of a rotated stream.
    pub manifest: Manifest,
    /// Length of the stream: that of the file, unless it is rotated.
    pub bytes: u64,
    /// Whether the stream may be appended to it.
    pub continuation: Continuation,
    /// Earlier files of a rotated stream, in order.
    pub earlier: Vec<StoredPiece>,
}

/// Bytes of a rotated stream that a file has.
#[derive(Clone, Debug)]
pub(super) struct StoredPiece {
    pub file: String,
    /// Bytes at the start of the file that are not part of the stream.
    pub header_bytes: u64,
    /// Offset in the stream of the first byte after them.
    pub at: u64,
    /// Offset in the stream of the end of the file.
    pub end: u64,
}

impl StoredPart {
    /// Length of the last file.
    pub(super) fn file_bytes(&self) -> u64 {
        self.manifest.header_bytes() + self.bytes - self.last_at()
    }

    /// Offset in the stream of the last file.
    fn last_at(&self) -> u64 {
        self.earlier.last().map_or(0, |piece| piece.end)
    }

    /// Returns false for the rest of a rotated stream whose earlier files are missing.
    pub(super) fn has_start(&self) -> bool {
        self.manifest.rotation.is_none() || !self.earlier.is_empty()
    }

    pub(super) fn is_rotated(&self) -> bool {
        self.manifest.rotation.is_some()
    }

    /// Reads the bytes at offset `at` of the stream.
    pub(super) fn read_exact_at(&self, dir: &VaultDir, buffer: &mut [u8], at: u64) -> io::Result<()> {
        let end = at + buffer.len() as u64;
        let last = StoredPiece {
            file: self.manifest.file.clone(),
            header_bytes: self.manifest.header_bytes(),
            at: self.last_at(),
            end: u64::MAX,
        };
        let first = self.earlier.partition_point(|piece| piece.end <= at);
        for piece in self.earlier[first..].iter().chain([&last]).take_while(|piece| piece.at < end) {
            let from = piece.at.max(at);
            let range = (from - at) as usize..(piece.end.min(end) - at) as usize;
            // Opened for each chunk: there may be many candidates, and keeping them open could exhaust the descriptors.
            let file = dir.open_to_read(&piece.file)?;
            file.read_exact_at(&mut buffer[range], from - piece.at + piece.header_bytes)?;
        }
        Ok(())
    }
}

/// A comparison under way.
#[derive(Debug)]
pub(super) struct ResendComparison {
    /// Tracks the stream without writing anything.
    pub aligner: PacketAligner,
    /// Parts that are equal to the stream so far, each up to its own length.
    pub candidates: Vec<StoredPart>,
}

/// Result of comparing one chunk.
#[derive(Debug)]
pub(super) enum CompareOutcome {
    /// A part contains all received bytes.
    Equal,
    /// No part contains all received bytes.
    Diverged(Box<Divergence>),
}

/// The parts to continue with after a chunk that no part contains.
#[derive(Debug)]
pub(super) struct Divergence {
    /// The longest part that is a prefix of the stream and may be continued. The stream continues this part. `None`: it
    /// needs a new part.
    pub longest_prefix: Option<StoredPart>,
    /// The longest part that is a prefix of the stream.
    pub repeated: Option<StoredPart>,
    /// A part that contains all bytes before the chunk.
    pub reference: Option<StoredPart>,
}

impl Divergence {
    /// Returns the length of the part to continue, or 0 if there is none.
    pub(super) fn prefix_bytes(&self) -> u64 {
        self.longest_prefix.as_ref().map_or(0, |stored| stored.bytes)
    }
}

impl ResendComparison {
    /// Starts at byte 0 with all parts as candidates.
    pub(super) fn new(mut aligner: PacketAligner, candidates: Vec<StoredPart>) -> ResendComparison {
        // Nothing is written during the comparison, so all bytes count as stored.
        aligner.mark_stored(u64::MAX);
        ResendComparison { aligner, candidates }
    }

    /// Compares the next chunk. `scratch` is a buffer for stored bytes. The aligner takes the chunk only if
    /// it is equal.
    pub(super) fn compare(
        &mut self,
        dir: &VaultDir,
        disk_retry: &DiskRetry,
        chunk: &[u8],
        scratch: &mut [u8],
    ) -> CompareOutcome {
        let at = self.aligner.tracker().received();
        let end = at + chunk.len() as u64;
        let reference = self.candidates.iter().find(|stored| stored.bytes >= at).cloned();
        self.candidates.retain(|stored| {
            let reach = usize::try_from(stored.bytes.saturating_sub(at)).unwrap_or(usize::MAX);
            let beside = &chunk[..reach.min(chunk.len())];
            let file = &stored.manifest.file;
            let compared = disk_retry.retry("read", file, || has_bytes(dir, stored, at, beside, scratch));
            compared.unwrap_or_else(|error| {
                log::warn!("compare_failed file={file} at={at} error=\"{error}\"");
                false
            })
        });
        if self.candidates.iter().any(|stored| stored.bytes >= end) {
            self.aligner.feed(chunk);
            return CompareOutcome::Equal;
        }
        // Prefers the first of several parts of the same length; `max_by_key` alone would return the last
        // one.
        let longest = |candidates: &mut dyn Iterator<Item = &StoredPart>| {
            candidates.max_by_key(|stored| stored.bytes).cloned()
        };
        let may_continue = |stored: &&StoredPart| stored.continuation == Continuation::Allowed;
        let longest_prefix = longest(&mut self.candidates.iter().rev().filter(may_continue));
        let repeated = longest(&mut self.candidates.iter().rev());
        CompareOutcome::Diverged(Box::new(Divergence { longest_prefix, repeated, reference }))
    }

    /// Returns a part that contains all received bytes.
    pub(super) fn matching_part(&self) -> Option<&StoredPart> {
        let received = self.aligner.tracker().received();
        self.candidates.iter().find(|stored| stored.bytes >= received)
    }
}

/// Returns whether a stored part contains `bytes` at offset `at`.
fn has_bytes(
    dir: &VaultDir,
    stored: &StoredPart,
    at: u64,
    bytes: &[u8],
    scratch: &mut [u8],
) -> io::Result<bool> {
    let mut offset = at;
    for piece in bytes.chunks(scratch.len()) {
        let found = &mut scratch[..piece.len()];
        stored.read_exact_at(dir, found, offset)?;
        if found != piece {
            return Ok(false);
        }
        offset += piece.len() as u64;
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::cc::vault::dir::Access;
    use crate::cc::vault::manifest::{Manifest, StreamSource};

    const STREAM: &[u8] = b"a stream that is sent again from its first byte";

    /// Compares `stream`, in chunks of `step` bytes, with stored parts. Returns `Ok` with the file that
    /// equals it, or `Err` with the length and the file to continue.
    fn check(parts: &[&[u8]], stream: &[u8], step: usize) -> Result<String, (u64, Option<String>)> {
        let temp = tempfile::tempdir().unwrap();
        let dir = VaultDir::open(temp.path(), Access::PRIVATE).unwrap();
        let stored = |(number, content): (usize, &&[u8])| {
            let manifest = Manifest::new(b"name", (number + 1).to_string(), 1, StreamSource::Tcp);
            std::fs::write(temp.path().join(&manifest.file), content).unwrap();
            StoredPart {
                manifest,
                bytes: content.len() as u64,
                continuation: Continuation::Allowed,
                earlier: Vec::new(),
            }
        };
        let candidates = parts.iter().enumerate().map(stored).collect();
        let mut comparison = ResendComparison::new(PacketAligner::new(false), candidates);
        // Shorter than most chunks, so that they are compared in pieces.
        let mut scratch = [0; 5];
        for chunk in stream.chunks(step) {
            let at = comparison.aligner.tracker().received();
            match comparison.compare(&dir, &DiskRetry::new(Arc::default()), chunk, &mut scratch) {
                CompareOutcome::Equal => assert!(comparison.matching_part().is_some()),
                CompareOutcome::Diverged(divergence) => {
                    assert_eq!(
                        comparison.aligner.tracker().received(),
                        at,
                        "the aligner has not taken the chunk"
                    );
                    let reference =
                        divergence.reference.as_ref().expect("a part contains all bytes before the chunk");
                    let held = std::fs::read(temp.path().join(&reference.manifest.file)).unwrap();
                    assert!(held.starts_with(&stream[..at as usize]));
                    let longest_prefix =
                        divergence.longest_prefix.as_ref().map(|stored| stored.manifest.file.clone());
                    return Err((divergence.prefix_bytes(), longest_prefix));
                }
            }
        }
        Ok(comparison.matching_part().unwrap().manifest.file.clone())
    }

    /// Checks that the result is the same for every chunk length.
    #[track_caller]
    fn check_all(parts: &[&[u8]], stream: &[u8], expected: Result<&str, (u64, Option<&str>)>) {
        for step in 1..=stream.len() {
            let ended = check(parts, stream, step);
            let ended = ended
                .as_ref()
                .map(|file| &**file)
                .map_err(|(bytes, longest_prefix)| (*bytes, longest_prefix.as_deref()));
            assert_eq!(ended, expected, "step {step}");
        }
    }

    #[test]
    fn the_part_that_contains_the_stream_is_found() {
        let (differs, early) = (b"a stream that differs", b"no stream");
        check_all(&[STREAM], STREAM, Ok("1"));
        check_all(&[STREAM], &STREAM[..10], Ok("1"));
        check_all(&[differs, STREAM], STREAM, Ok("2"));
        check_all(&[early, &STREAM[..4], STREAM, STREAM], STREAM, Ok("3"));
    }

    #[test]
    fn a_longer_stream_continues_the_longest_equal_part() {
        let rest = STREAM.len() as u64;
        check_all(&[&STREAM[..20]], STREAM, Err((20, Some("1"))));
        check_all(&[&STREAM[..20], b"a stream that differs"], STREAM, Err((20, Some("1"))));
        check_all(&[&STREAM[..7], &STREAM[..20]], STREAM, Err((20, Some("2"))));
        check_all(&[&STREAM[..20], &STREAM[..20]], STREAM, Err((20, Some("1"))));
        check_all(&[b""], STREAM, Err((0, Some("1"))));
        check_all(&[STREAM], &[STREAM, b"!"].concat(), Err((rest, Some("1"))));
    }

    #[test]
    fn a_different_stream_is_new_or_continues_a_prefix() {
        let mut other = STREAM.to_vec();
        other[30] ^= 1;
        check_all(&[STREAM], &other, Err((0, None)));
        check_all(&[STREAM, b"another one"], &other, Err((0, None)));
        // The second part is a prefix of the stream, although the first part was equal for longer.
        check_all(&[STREAM, &STREAM[..12]], &other, Err((12, Some("2"))));
        check_all(&[STREAM, &STREAM[..12], b""], &other, Err((12, Some("2"))));
    }

    #[test]
    fn an_unreadable_part_is_not_a_candidate() {
        let temp = tempfile::tempdir().unwrap();
        let dir = VaultDir::open(temp.path(), Access::PRIVATE).unwrap();
        let manifest = Manifest::new(b"name", "gone".to_owned(), 1, StreamSource::Tcp);
        let stored =
            StoredPart { manifest, bytes: 100, continuation: Continuation::Allowed, earlier: Vec::new() };
        let mut comparison = ResendComparison::new(PacketAligner::new(false), vec![stored]);
        let disk_retry = DiskRetry::new(Arc::default());
        let outcome = comparison.compare(&dir, &disk_retry, STREAM, &mut [0; 5]);
        assert!(
            matches!(outcome, CompareOutcome::Diverged(divergence) if divergence.longest_prefix.is_none())
        );
    }

    #[test]
    fn a_part_that_must_not_be_continued_is_compared_only() {
        let temp = tempfile::tempdir().unwrap();
        let dir = VaultDir::open(temp.path(), Access::PRIVATE).unwrap();
        let parts = [(20, Continuation::OtherAddress), (10, Continuation::Allowed)];
        let candidates = parts.map(|(bytes, continuation)| {
            let manifest = Manifest::new(b"name", bytes.to_string(), 1, StreamSource::Tcp);
            std::fs::write(temp.path().join(&manifest.file), &STREAM[..bytes]).unwrap();
            StoredPart { manifest, bytes: bytes as u64, continuation, earlier: Vec::new() }
        });
        let mut comparison = ResendComparison::new(PacketAligner::new(false), candidates.into());
        let disk_retry = DiskRetry::new(Arc::default());
        let CompareOutcome::Diverged(divergence) = comparison.compare(&dir, &disk_retry, STREAM, &mut [0; 5])
        else {
            panic!("the stream is longer than both");
        };
        assert_eq!(divergence.prefix_bytes(), 10);
        assert_eq!(divergence.repeated.unwrap().bytes, 20);
    }
}
