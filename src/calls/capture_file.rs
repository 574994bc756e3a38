//! A capture file on disk, read through a window, and its packets.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use serde::{Deserialize, Serialize};

use super::endpoint::PacketPlace;
use crate::capture::reader::{PacketData, PacketReader, ReadAt};

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

/// A packet with the bytes of its record.
pub(crate) struct CaptureRecord<'f> {
    pub place: PacketPlace,
    pub bytes: &'f [u8],
    /// `None`: the packet has no bytes that are on a network.
    pub data: Option<PacketData>,
}

impl CaptureRecord<'_> {
    /// End of the record in the file.
    pub(crate) fn end(&self) -> u64 {
        self.place.offset + self.bytes.len() as u64
    }
}

/// Reads the packets of a capture, and gives those without a time that of the packet before.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct RecordReader {
    reader: PacketReader,
    time_ns: i64,
}

impl RecordReader {
    /// Opens a capture of `bytes` bytes. `None`: it is not one.
    pub(crate) fn open(file: &mut impl ReadAt, bytes: u64) -> io::Result<Option<RecordReader>> {
        Ok(PacketReader::open(file, bytes)?.map(|reader| RecordReader { reader, time_ns: 0 }))
    }

    /// Copies the reader to the start of another packet of the capture.
    pub(crate) fn moved_to(&self, offset: u64, time_ns: i64) -> RecordReader {
        RecordReader { reader: self.reader.moved_to(offset), time_ns }
    }

    /// Sets the end of a capture that has grown.
    pub(crate) fn set_end(&mut self, bytes: u64) {
        self.reader.set_end(bytes);
    }

    pub(crate) fn is_malformed(&self) -> bool {
        self.reader.is_malformed()
    }

    /// Returns false for a deserialized reader that no input leads to, as far as continuing with it could do harm.
    pub(crate) fn is_consistent(&self) -> bool {
        self.reader.is_consistent()
    }

    /// Returns the next packet. `None`: there are no more.
    #[inline]
    pub(crate) fn next<'f>(&mut self, file: &'f mut impl ReadAt) -> io::Result<Option<CaptureRecord<'f>>> {
        let Some(packet) = self.reader.next(file)? else { return Ok(None) };
        let bytes = file.read_at(packet.start, (packet.end - packet.start) as usize)?;
        self.time_ns = packet.time_ns.unwrap_or(self.time_ns);
        let place = PacketPlace { offset: packet.start, bytes: bytes.len() as u32, time_ns: self.time_ns };
        Ok(Some(CaptureRecord { place, bytes, data: self.reader.packet_data(bytes) }))
    }
}
