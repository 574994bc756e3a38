//! Decides where the file of a stream ends and the next one starts: `--rotate-size`, `--rotate-interval`. Pure, except that
//! it reads the monotonic clock.
//!
//! A file ends with the first packet that reaches the size. After the interval it ends with the last complete packet, as
//! soon as more bytes arrive. A stream that ends just there therefore gets no further file.

use std::io::{self, Read};
use std::time::{Duration, Instant};

use crate::capture::header_copy::HeaderCopy;
use crate::capture::tracker::PacketTracker;

/// When a growing stream goes on in a new file.
#[derive(Clone, Copy, Debug, Default)]
pub struct RotationLimits {
    /// Length of a file.
    pub bytes: Option<u64>,
    /// Time since the file was created, or opened again.
    pub age: Option<Duration>,
}

impl RotationLimits {
    /// Returns whether streams have one file each.
    pub fn is_off(&self) -> bool {
        self.bytes.is_none() && self.age.is_none()
    }
}

/// Where a file ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cut {
    /// Number of the next bytes that still belong to the file.
    pub bytes: usize,
    /// What the next file starts with.
    pub headers: Vec<u8>,
}

/// Decides for one stream.
#[derive(Debug)]
pub(super) struct Rotator {
    limits: RotationLimits,
    /// Headers of the content so far.
    pub headers: HeaderCopy,
    opened_at: Instant,
    /// Whether the stream cannot be cut.
    is_refused: bool,
}

impl Rotator {
    pub(super) fn new(limits: RotationLimits) -> Rotator {
        Rotator { limits, headers: HeaderCopy::default(), opened_at: Instant::now(), is_refused: false }
    }

    /// Starts with a file that has content with these headers.
    pub(super) fn restart(&mut self, headers: HeaderCopy) {
        *self = Rotator { headers, ..Rotator::new(self.limits) };
    }

    /// Records that the stream goes on in a new file.
    pub(super) fn mark_rotated(&mut self) {
        self.opened_at = Instant::now();
    }

    /// Records that the stream keeps its file. Returns true on the first call.
    pub(super) fn refuse(&mut self) -> bool {
        !std::mem::replace(&mut self.is_refused, true)
    }

    /// Returns where the file ends, if that is before the end of `chunk`. `tracker` has the bytes of the file before it.
    /// Fails with the reason if the stream cannot be cut.
    pub(super) fn next_cut(
        &self,
        tracker: &PacketTracker,
        chunk: &[u8],
    ) -> Result<Option<Cut>, &'static str> {
        let received = tracker.received();
        let is_old = self.limits.age.is_some_and(|age| self.opened_at.elapsed() >= age);
        let is_long = |bytes: &u64| received + chunk.len() as u64 > *bytes;
        let end = match self.limits.bytes.filter(is_long) {
            _ if self.is_refused => return Ok(None),
            _ if is_old => received,
            Some(bytes) => bytes.max(received),
            None => return Ok(None),
        };
        if let Some(reason) = tracker.cut_obstacle() {
            return Err(reason);
        }
        let after = |bytes: usize| {
            let mut after = tracker.clone();
            after.feed(&chunk[..bytes]);
            after
        };
        let cut = first_where(chunk.len(), |bytes| {
            let after = after(bytes);
            after.packet_boundary() >= end && after.packets() >= 2
        });
        let Some(bytes) = cut.filter(|bytes| *bytes < chunk.len()) else { return Ok(None) };
        let after = after(bytes);
        if let Some(reason) = after.cut_obstacle() {
            return Err(reason);
        }
        // The bytes after a boundary may have told that it was none.
        if !after.is_at_cut() {
            return Ok(None);
        }
        let mut headers = self.headers.clone();
        headers.feed(&chunk[..bytes]);
        let headers = headers.headers(after.summary().format)?.to_vec();
        Ok(Some(Cut { bytes, headers }))
    }
}

/// Returns the first number up to `max` for which `holds`, given that it holds for all numbers after it.
fn first_where(max: usize, holds: impl Fn(usize) -> bool) -> Option<usize> {
    if !holds(max) {
        return None;
    }
    let (mut from, mut to) = (0, max);
    while from < to {
        let middle = (from + to) / 2;
        if holds(middle) {
            to = middle;
        } else {
            from = middle + 1;
        }
    }
    Some(to)
}

/// Collects the headers of a file that is read.
pub(super) struct HeaderReader<'a, R> {
    pub inner: R,
    pub headers: &'a mut HeaderCopy,
}

impl<R: Read> Read for HeaderReader<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.inner.read(buffer)?;
        self.headers.feed(&buffer[..bytes]);
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAPTURE: &[u8] = include_bytes!("../../../testdata/pcap/rejected-call.pcap");

    fn tracker(content: &[u8]) -> PacketTracker {
        let mut tracker = PacketTracker::new();
        tracker.feed(content);
        tracker
    }

    /// Ends of the packets, from the second one on.
    fn packet_ends() -> Vec<usize> {
        (1..=CAPTURE.len()).filter(|end| tracker(&CAPTURE[..*end]).is_at_cut()).collect()
    }

    /// Where a file of these limits ends that has `before` bytes and gets the others at once.
    fn cut(limits: RotationLimits, before: usize) -> Option<usize> {
        let mut rotator = Rotator::new(limits);
        rotator.headers.feed(&CAPTURE[..before]);
        let cut = rotator.next_cut(&tracker(&CAPTURE[..before]), &CAPTURE[before..]).unwrap()?;
        assert_eq!(cut.headers, &CAPTURE[..24]);
        Some(before + cut.bytes)
    }

    #[test]
    fn a_file_ends_with_the_first_packet_that_reaches_the_size() {
        let ends = packet_ends();
        for size in [1, ends[0] - 1, ends[0], ends[0] + 1, ends[1], CAPTURE.len() - 1, CAPTURE.len()] {
            let limits = RotationLimits { bytes: Some(size as u64), age: None };
            let expected = ends.iter().copied().find(|end| *end >= size && *end < CAPTURE.len());
            for before in [0, 30, ends[0].min(size)] {
                assert_eq!(cut(limits, before), expected, "size {size}, {before} bytes before");
            }
        }
    }

    #[test]
    fn an_old_file_ends_with_its_last_packet() {
        let ends = packet_ends();
        let old = RotationLimits { bytes: None, age: Some(Duration::ZERO) };
        assert_eq!(cut(old, ends[0]), Some(ends[0]));
        assert_eq!(cut(old, ends[0] + 1), Some(ends[1]));
        assert_eq!(cut(old, 24), Some(ends[0]));
        let young = RotationLimits { bytes: None, age: Some(Duration::from_secs(3600)) };
        assert_eq!(cut(young, ends[0]), None);
    }

    #[test]
    fn what_cannot_be_cut_is_refused_with_a_reason() {
        let mut rotator = Rotator::new(RotationLimits { bytes: Some(10), age: None });
        let appended = [CAPTURE, CAPTURE].concat();
        let damaged = [&CAPTURE[..24], &[0xff; 100]].concat();
        let refused: [(&[u8], &str); 4] = [
            (b"no capture, but a text that is long enough to tell", "not_a_capture"),
            (b"\x1f\x8b\x08 compressed, and long enough", "compressed"),
            (&appended, "appended_capture"),
            (&damaged, "malformed"),
        ];
        for (content, reason) in refused {
            assert_eq!(rotator.next_cut(&tracker(content), b"more"), Err(reason));
        }
        assert!(rotator.refuse() && !rotator.refuse());
        assert_eq!(rotator.next_cut(&tracker(&appended), b"more"), Ok(None));
    }
}
