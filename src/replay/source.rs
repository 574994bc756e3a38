//! What a stream sends: a file, several files one after another, or the packets of a time range. Small content is read
//! once and shared by all streams. Of large content each stream reads pieces, so memory depends on the number of streams
//! and not on file sizes.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::capture::reader::{PacketReader, ReadAt};
use crate::replay::selection::Selection;
use crate::{Error, Result};

/// Limit on the total size of content held in memory.
const SHARED_BYTES_MAX: u64 = 64 << 20;

/// Content to send.
#[derive(Debug)]
pub(crate) struct ReplayFile {
    /// Path of the first file.
    path: PathBuf,
    bytes: u64,
    content: FileContent,
    packets: Option<PacketReader>,
}

#[derive(Debug)]
enum FileContent {
    InMemory(Vec<u8>),
    OnDisk(Vec<FileRange>),
}

/// Bytes of a file that are part of the content.
#[derive(Clone, Debug)]
pub(super) struct FileRange {
    pub(super) file: Arc<File>,
    /// Position in the file.
    pub(super) at: u64,
    pub(super) bytes: u64,
    /// Position in the content.
    pub(super) start: u64,
}

/// Opens a regular file. Returns its current size: bytes appended later are not sent.
pub(super) fn open_range(path: &Path, start: u64) -> Result<FileRange> {
    let open = || -> io::Result<FileRange> {
        let file = File::open(path)?;
        let meta = file.metadata()?;
        if !meta.is_file() {
            return Err(io::Error::other("not a regular file"));
        }
        Ok(FileRange { file: Arc::new(file), at: 0, bytes: meta.len(), start })
    };
    open().map_err(Error::path("read", path))
}

impl ReplayFile {
    /// Opens each file by itself, and selects its packets. Fails at the first one that cannot be read.
    pub(crate) fn open_all(paths: &[PathBuf], selection: &Selection) -> Result<Vec<ReplayFile>> {
        let mut shared_bytes_left = SHARED_BYTES_MAX;
        let mut open = |path: &PathBuf| {
            let ranges = vec![open_range(path, 0)?];
            ReplayFile::new(path, ranges, &mut shared_bytes_left)?.selected(selection)
        };
        paths.iter().map(&mut open).collect()
    }

    /// Opens files whose bytes follow each other.
    pub(super) fn of_ranges(path: &Path, ranges: Vec<FileRange>) -> Result<ReplayFile> {
        ReplayFile::new(path, ranges, &mut SHARED_BYTES_MAX.clone())
    }

    fn new(path: &Path, ranges: Vec<FileRange>, shared_bytes_left: &mut u64) -> Result<ReplayFile> {
        let bytes = ranges.last().map_or(0, |range| range.start + range.bytes);
        let content = FileContent::OnDisk(ranges);
        let mut source = ReplayFile { path: path.to_owned(), bytes, content, packets: None };
        let mut load = || -> io::Result<()> {
            if source.bytes <= *shared_bytes_left {
                let content =
                    source.cursor(source.bytes as usize).read_at(0, source.bytes as usize)?.to_vec();
                // The size may have changed since it was queried.
                source.bytes = content.len() as u64;
                *shared_bytes_left -= source.bytes;
                source.content = FileContent::InMemory(content);
            }
            source.packets = PacketReader::open(&mut source.cursor(0), source.bytes)?;
            Ok(())
        };
        load().map_err(Error::path("read", path))?;
        Ok(source)
    }

    /// Reduces the content to the selected packets and what readers need besides.
    pub(super) fn selected(self, selection: &Selection) -> Result<ReplayFile> {
        if selection.is_everything() {
            return Ok(self);
        }
        let kept = selection.ranges(&self)?;
        let bytes = kept.iter().map(|range| range.end - range.start).sum();
        let content = match &self.content {
            FileContent::InMemory(content) => FileContent::InMemory(
                kept.iter()
                    .flat_map(|range| &content[range.start as usize..range.end as usize])
                    .copied()
                    .collect(),
            ),
            FileContent::OnDisk(ranges) => FileContent::OnDisk(within(ranges, &kept)),
        };
        let mut selected = ReplayFile { path: self.path, bytes, content, packets: None };
        let packets = PacketReader::open(&mut selected.cursor(0), bytes);
        selected.packets = packets.map_err(Error::path("read", &selected.path))?;
        Ok(selected)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Size at opening. Bytes appended later are not sent.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Reader of the packets, from the first one. `None` if the file is not a capture.
    pub(crate) fn packets(&self) -> Option<PacketReader> {
        self.packets.clone()
    }

    /// Returns the first bytes, at most `count`.
    pub(crate) fn start_bytes(&self, count: usize) -> Result<Vec<u8>> {
        let mut cursor = self.cursor(count);
        let start = cursor.read_at(0, count.min(self.bytes as usize));
        Ok(start.map_err(Error::path("read", &self.path))?.to_vec())
    }

    /// Creates a cursor for one stream that reads pieces of `piece_bytes`.
    pub(crate) fn cursor(&self, piece_bytes: usize) -> FileCursor<'_> {
        FileCursor { source: self, piece_bytes, start: 0, piece: Vec::new() }
    }
}

/// Position of one stream in a file.
#[derive(Debug)]
pub(crate) struct FileCursor<'a> {
    source: &'a ReplayFile,
    piece_bytes: usize,
    start: u64,
    piece: Vec<u8>,
}

impl FileCursor<'_> {
    /// Returns exactly the bytes `from..to`.
    pub(crate) fn slice(&mut self, from: u64, to: u64) -> Result<&[u8]> {
        let count = (to - from) as usize;
        let source = self.source;
        let fail = Error::path("read", &source.path);
        match self.read_at(from, count) {
            Ok(bytes) if bytes.len() == count => Ok(bytes),
            Ok(_) => Err(fail(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the file became shorter while it was read",
            ))),
            Err(error) => Err(fail(error)),
        }
    }

    /// Loads a piece with `count` bytes from `offset`, if the content has them.
    fn load(&mut self, ranges: &[FileRange], offset: u64, count: usize) -> io::Result<()> {
        self.start = offset;
        self.piece.resize(count.max(self.piece_bytes), 0);
        match fill(&mut self.piece, ranges, offset) {
            Ok(filled) => {
                self.piece.truncate(filled);
                Ok(())
            }
            Err(error) => {
                self.piece.clear();
                Err(error)
            }
        }
    }
}

/// Fills the piece with content from `offset`. Returns how many bytes the content has.
pub(super) fn fill(piece: &mut [u8], ranges: &[FileRange], offset: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < piece.len() {
        let at = offset + filled as u64;
        let next = ranges.partition_point(|range| range.start + range.bytes <= at);
        let Some(range) = ranges.get(next) else { break };
        let within = at - range.start;
        let wanted = (piece.len() - filled).min(usize::try_from(range.bytes - within).unwrap_or(usize::MAX));
        match range.file.read_at(&mut piece[filled..filled + wanted], range.at + within) {
            Ok(0) => break,
            Ok(bytes) => filled += bytes,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// The files' ranges of parts of the content.
fn within(ranges: &[FileRange], kept: &[Range<u64>]) -> Vec<FileRange> {
    let (mut found, mut start) = (Vec::new(), 0);
    for part in kept {
        let mut at = part.start;
        while at < part.end {
            let index = ranges.partition_point(|range| range.start + range.bytes <= at);
            let Some(range) = ranges.get(index) else { break };
            let bytes = part.end.min(range.start + range.bytes) - at;
            let file = Arc::clone(&range.file);
            found.push(FileRange { file, at: range.at + (at - range.start), bytes, start });
            at += bytes;
            start += bytes;
        }
    }
    found
}

impl ReadAt for FileCursor<'_> {
    fn read_at(&mut self, offset: u64, count: usize) -> io::Result<&[u8]> {
        let source = self.source;
        let ranges = match &source.content {
            FileContent::InMemory(content) => {
                let from = offset.min(content.len() as u64) as usize;
                return Ok(&content[from..content.len().min(from.saturating_add(count))]);
            }
            FileContent::OnDisk(ranges) => ranges,
        };
        let held = self.start..=self.start + self.piece.len() as u64;
        if !held.contains(&offset) || !held.contains(&(offset + count as u64)) {
            self.load(ranges, offset, count)?;
        }
        let from = (offset - self.start) as usize;
        Ok(&self.piece[from..self.piece.len().min(from + count)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(path: &Path, mut shared_bytes_left: u64) -> ReplayFile {
        ReplayFile::new(path, vec![open_range(path, 0).unwrap()], &mut shared_bytes_left).unwrap()
    }

    #[test]
    fn ranges_of_several_files_are_one_content() {
        let files: Vec<_> = (0..3).map(|_| tempfile::NamedTempFile::new().unwrap()).collect();
        let contents = [&b"0123456789"[..], b"", b"abcdef"];
        let (mut ranges, mut start) = (Vec::new(), 0);
        for (file, content) in files.iter().zip(contents) {
            std::fs::write(file, content).unwrap();
            ranges.push(open_range(file.path(), start).unwrap());
            start += content.len() as u64;
        }
        let all = contents.concat();
        for shared_bytes_left in [0, u64::MAX] {
            let source =
                ReplayFile::new(files[0].path(), ranges.clone(), &mut shared_bytes_left.clone()).unwrap();
            assert_eq!(source.bytes(), 16);
            for piece_bytes in [1, 3, 100] {
                for from in 0..16_usize {
                    for to in from..=16 {
                        let mut cursor = source.cursor(piece_bytes);
                        assert_eq!(cursor.slice(from as u64, to as u64).unwrap(), &all[from..to]);
                    }
                }
            }
        }
        let kept = within(&ranges, &[2..4, 8..12, 15..16]);
        let mut piece = [0; 20];
        let filled = fill(&mut piece, &kept, 0).unwrap();
        assert_eq!(&piece[..filled], b"2389abf");
        assert_eq!(fill(&mut piece, &kept, 5).unwrap(), 2);
    }

    #[test]
    fn pieces_and_shared_content_are_equal() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/pcap/three-calls.pcapng");
        let shared = open(path.as_ref(), u64::MAX);
        let pieces = open(path.as_ref(), 0);
        assert!(matches!(pieces.content, FileContent::OnDisk(_)));
        assert_eq!((shared.bytes(), pieces.bytes()), (381_348, 381_348));
        let (mut left, mut right) = (shared.cursor(1), pieces.cursor(1000));
        let (mut left_packets, mut right_packets) = (shared.packets().unwrap(), pieces.packets().unwrap());
        while let Some(packet) = left_packets.next(&mut left).unwrap() {
            assert_eq!(right_packets.next(&mut right).unwrap(), Some(packet));
            let expected = left.slice(packet.start, packet.end).unwrap().to_vec();
            assert_eq!(right.slice(packet.start, packet.end).unwrap(), expected);
        }
        assert_eq!(right_packets.next(&mut right).unwrap(), None);
        assert!(right.piece.len() <= 2000);
        assert_eq!(right.read_at(381_347, 10).unwrap().len(), 1);
        assert_eq!(right.read_at(1 << 40, 10).unwrap().len(), 0);
    }

    #[test]
    fn a_file_that_becomes_shorter_is_an_error() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(5000).unwrap();
        let source = open(file.path(), 0);
        file.as_file().set_len(100).unwrap();
        let error = source.cursor(1000).slice(50, 150).unwrap_err();
        assert!(crate::error::chain(&error).contains("the file became shorter while it was read"));
    }

    #[test]
    fn a_directory_is_rejected() {
        assert!(ReplayFile::open_all(&[std::env::temp_dir()], &Selection::default()).is_err());
    }
}
