//! Joins files to one stream: the files of a rotated capture, or the parts of a stream.
//!
//! In pcapng a file can follow another one as it is. In other formats the file header of the following files is left
//! out. A file that does not start as a capture is a continuation: its bytes follow as they are.

use std::path::PathBuf;

use crate::capture::formats::{CaptureFormat, DECISION_BYTES_MAX, HEADER_BYTES_MAX};
use crate::capture::reader::PacketReader;
use crate::capture::tracker::PacketTracker;
use crate::replay::selection::Selection;
use crate::replay::source::{self, FileRange, ReplayFile, open_range};
use crate::{Error, Result};

/// Bytes that decide the format and contain the file header.
const START_BYTES: usize =
    if DECISION_BYTES_MAX > HEADER_BYTES_MAX { DECISION_BYTES_MAX } else { HEADER_BYTES_MAX };

impl ReplayFile {
    /// Opens files as one content, and selects its packets. Fails if they cannot be in one capture.
    pub(crate) fn open_chain(paths: &[PathBuf], selection: &Selection) -> Result<ReplayFile> {
        let mut ranges = Vec::new();
        let mut first = None;
        for path in paths {
            let range = open_range(path, end(&ranges))?;
            let header = FileHeader::read(path, &range)?;
            let left_out = match &first {
                None => 0,
                Some(first) => header.bytes_after(first).map_err(|reason| {
                    Error::Usage(format!(
                        "cannot chain {} to {}: {reason}",
                        path.display(),
                        paths[0].display()
                    ))
                })?,
            };
            ranges.push(FileRange { at: left_out, bytes: range.bytes - left_out, ..range });
            first.get_or_insert(header);
        }
        match paths.first() {
            Some(path) => ReplayFile::of_ranges(path, ranges)?.selected(selection),
            None => Err(Error::Usage("there is no file to send".to_owned())),
        }
    }

    /// Opens files whose bytes follow each other, whatever they are.
    pub(crate) fn open_joined(paths: &[PathBuf]) -> Result<ReplayFile> {
        let mut ranges = Vec::new();
        for path in paths {
            ranges.push(open_range(path, end(&ranges))?);
        }
        match paths.first() {
            Some(path) => ReplayFile::of_ranges(path, ranges),
            None => Err(Error::Usage("there is no file to read".to_owned())),
        }
    }
}

fn end(ranges: &[FileRange]) -> u64 {
    ranges.last().map_or(0, |range| range.start + range.bytes)
}

/// Start of a file that is joined to others.
struct FileHeader {
    format: CaptureFormat,
    /// File header. Empty if the format has none.
    bytes: Vec<u8>,
}

impl FileHeader {
    fn read(path: &PathBuf, range: &FileRange) -> Result<FileHeader> {
        let alone = FileRange { start: 0, ..range.clone() };
        let mut start = vec![0; START_BYTES];
        let filled = source::fill(&mut start, &[alone], 0).map_err(Error::path("read", path))?;
        start.truncate(filled);
        let reader = PacketReader::open(&mut &start[..], filled as u64).map_err(Error::path("read", path))?;
        let Some(reader) = reader else {
            return Ok(FileHeader { format: CaptureFormat::Other, bytes: Vec::new() });
        };
        let mut tracker = PacketTracker::new();
        for (at, byte) in start.iter().enumerate() {
            tracker.feed(std::slice::from_ref(byte));
            if tracker.packet_boundary() > 0 {
                // A format whose first unit is a packet has no file header.
                let header_bytes = if tracker.packets() > 0 { 0 } else { at + 1 };
                return Ok(FileHeader { format: reader.format(), bytes: start[..header_bytes].to_vec() });
            }
        }
        Ok(FileHeader { format: reader.format(), bytes: Vec::new() })
    }

    /// Number of bytes to leave out after a file with the header `first`.
    fn bytes_after(&self, first: &FileHeader) -> Result<u64, String> {
        match (first.format, self.format) {
            (_, CaptureFormat::Other) | (CaptureFormat::Pcapng, CaptureFormat::Pcapng) => Ok(0),
            (CaptureFormat::Other, _) => Err("one is a capture and the other is not".to_owned()),
            (first, second) if first != second => Err("they have different formats".to_owned()),
            _ if first.bytes != self.bytes => {
                Err("their file headers differ; `mergecap` converts them to one format".to_owned())
            }
            _ => Ok(self.bytes.len() as u64),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    fn pcap(link_type: u32, seconds: u32) -> Vec<u8> {
        words(&[0xa1b2_c3d4, 0x0004_0002, 0, 0, 65_535, link_type, seconds, 0, 4, 4, seconds])
    }

    fn chain(contents: &[&[u8]]) -> Result<Vec<u8>, String> {
        let dir = tempfile::tempdir().unwrap();
        let paths: Vec<PathBuf> = (0..contents.len()).map(|n| dir.path().join(n.to_string())).collect();
        for (path, content) in paths.iter().zip(contents) {
            std::fs::write(path, content).unwrap();
        }
        let chain =
            ReplayFile::open_chain(&paths, &Selection::default()).map_err(|error| error.to_string())?;
        Ok(chain.cursor(5).slice(0, chain.bytes()).unwrap().to_vec())
    }

    #[test]
    fn a_file_header_occurs_once() {
        let (first, second) = (pcap(1, 10), pcap(1, 20));
        let expected = [&first[..], &second[24..], &second[24..]].concat();
        assert_eq!(chain(&[&first, &second, &second]), Ok(expected));
        // A file that has only its header.
        assert_eq!(chain(&[&first, &second[..24]]), Ok(first.clone()));
        assert_eq!(chain(&[&first]), Ok(first));
    }

    #[test]
    fn sections_and_continuations_follow_as_they_are() {
        let section = words(&[0x0a0d_0d0a, 28, 0x1a2b_3c4d, 1, u32::MAX, u32::MAX, 28]);
        assert_eq!(chain(&[&section, &section]), Ok(section.repeat(2)));
        let whole = pcap(1, 10);
        for cut in [1, 30, whole.len()] {
            // A file of few bytes that could still become a capture is a continuation, too.
            assert_eq!(chain(&[&whole[..cut], &whole[cut..]]), Ok(whole.clone()), "{cut}");
        }
    }

    #[test]
    fn captures_that_do_not_fit_are_refused() {
        let section = words(&[0x0a0d_0d0a, 28, 0x1a2b_3c4d, 1, u32::MAX, u32::MAX, 28]);
        let refused = |contents: &[&[u8]], reason: &str| {
            let error = chain(contents).unwrap_err();
            assert!(error.starts_with("cannot chain ") && error.contains(reason), "{error}");
        };
        refused(&[&pcap(1, 10), &pcap(113, 10)], "their file headers differ");
        refused(&[&pcap(1, 10), &section], "they have different formats");
        refused(&[b"no capture, and long enough to know it", &section], "the other is not");
    }
}
