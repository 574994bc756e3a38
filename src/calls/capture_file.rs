//! A capture file on disk, read through a window.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::capture::reader::ReadAt;

/// Size of the window. Packets are read in order, so a larger one would save little.
const WINDOW_BYTES: usize = 4 << 20;

/// A capture file. Files are read and not mapped: a recovery may cut a file while it is analysed.
#[derive(Debug)]
pub(crate) struct CaptureFile {
    file: File,
    window: Vec<u8>,
    /// Offset of the window.
    start: u64,
}

impl CaptureFile {
    pub(crate) fn new(file: File) -> CaptureFile {
        CaptureFile { file, window: Vec::new(), start: 0 }
    }

    /// Length of the file now.
    pub(crate) fn bytes(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// Appends `count` bytes from `offset`, without the window. Fails if the file has become shorter.
    pub(crate) fn append(&self, offset: u64, count: usize, bytes: &mut Vec<u8>) -> io::Result<()> {
        let start = bytes.len();
        bytes.resize(start + count, 0);
        self.file.read_exact_at(&mut bytes[start..], offset)
    }

    /// Fills the window from `offset`.
    fn load(&mut self, offset: u64, count: usize) -> io::Result<()> {
        self.window.resize(WINDOW_BYTES.max(count), 0);
        self.start = offset;
        let mut filled = 0;
        while let Some(rest) = self.window.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.file.read_at(rest, offset + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.window.clear();
                    return Err(error);
                }
            }
        }
        self.window.truncate(filled);
        Ok(())
    }
}

impl ReadAt for CaptureFile {
    #[inline]
    fn read_at(&mut self, offset: u64, count: usize) -> io::Result<&[u8]> {
        let is_held = offset >= self.start
            && offset.saturating_add(count as u64) <= self.start + self.window.len() as u64;
        if !is_held {
            self.load(offset, count)?;
        }
        let from = (offset - self.start) as usize;
        Ok(&self.window[from..self.window.len().min(from + count)])
    }
}
