//! Files to send. Small ones are read once and shared by all streams. Of large ones each stream reads pieces,
//! so memory depends on the number of streams and not on file sizes.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::capture::reader::{PacketReader, ReadAt};
use crate::{Error, Result};

/// Limit on the total size of files held in memory.
const SHARED_BYTES_MAX: u64 = 64 << 20;

/// File to send.
#[derive(Debug)]
pub(crate) struct ReplayFile {
    path: PathBuf,
    bytes: u64,
    content: FileContent,
    packets: Option<PacketReader>,
}

#[derive(Debug)]
enum FileContent {
    InMemory(Vec<u8>),
    OnDisk(File),
}

impl ReplayFile {
    /// Opens the files. Fails at the first one that cannot be read.
    pub(crate) fn open_all(paths: &[PathBuf]) -> Result<Vec<ReplayFile>> {
        let mut shared_bytes_left = SHARED_BYTES_MAX;
        paths.iter().map(|path| ReplayFile::open(path, &mut shared_bytes_left)).collect()
    }

    fn open(path: &Path, shared_bytes_left: &mut u64) -> Result<ReplayFile> {
        let mut open = || -> io::Result<ReplayFile> {
            let file = File::open(path)?;
            let meta = file.metadata()?;
            if !meta.is_file() {
                return Err(io::Error::other("not a regular file"));
            }
            let mut source = ReplayFile {
                path: path.to_owned(),
                bytes: meta.len(),
                content: FileContent::OnDisk(file),
                packets: None,
            };
            if source.bytes <= *shared_bytes_left {
                let content =
                    source.cursor(source.bytes as usize).read_at(0, source.bytes as usize)?.to_vec();
                // The size may have changed since it was queried.
                source.bytes = content.len() as u64;
                *shared_bytes_left -= source.bytes;
                source.content = FileContent::InMemory(content);
            }
            source.packets = PacketReader::open(&mut source.cursor(0), source.bytes)?;
            Ok(source)
        };
        open().map_err(Error::path("read", path))
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

    /// Loads a piece with `count` bytes from `offset`, if the file has them.
    fn load(&mut self, file: &File, offset: u64, count: usize) -> io::Result<()> {
        self.start = offset;
        self.piece.resize(count.max(self.piece_bytes), 0);
        let mut filled = 0;
        while filled < self.piece.len() {
            match file.read_at(&mut self.piece[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(bytes) => filled += bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.piece.clear();
                    return Err(error);
                }
            }
        }
        self.piece.truncate(filled);
        Ok(())
    }
}

impl ReadAt for FileCursor<'_> {
    fn read_at(&mut self, offset: u64, count: usize) -> io::Result<&[u8]> {
        let source = self.source;
        let file = match &source.content {
            FileContent::InMemory(content) => {
                let from = offset.min(content.len() as u64) as usize;
                return Ok(&content[from..content.len().min(from.saturating_add(count))]);
            }
            FileContent::OnDisk(file) => file,
        };
        let held = self.start..=self.start + self.piece.len() as u64;
        if !held.contains(&offset) || !held.contains(&(offset + count as u64)) {
            self.load(file, offset, count)?;
        }
        let from = (offset - self.start) as usize;
        Ok(&self.piece[from..self.piece.len().min(from + count)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_and_shared_content_are_equal() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/pcap/three-calls.pcapng");
        let shared = ReplayFile::open(path.as_ref(), &mut u64::MAX.clone()).unwrap();
        let pieces = ReplayFile::open(path.as_ref(), &mut 0).unwrap();
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
        let source = ReplayFile::open(file.path(), &mut 0).unwrap();
        file.as_file().set_len(100).unwrap();
        let error = source.cursor(1000).slice(50, 150).unwrap_err();
        assert!(crate::error::chain(&error).contains("the file became shorter while it was read"));
    }

    #[test]
    fn a_directory_is_rejected() {
        assert!(ReplayFile::open_all(&[std::env::temp_dir()]).is_err());
    }
}
