//! A mark of what was acknowledged: how many commits or records a log must have.
//!
//! A log that ends too early looks like a log that was never longer. The mark tells the difference: the writer writes it after
//! everything that is on disk, and a log with less than its mark has lost something. The mark is not synced: after a crash of
//! the process it is exact, and after a power failure it may be a little behind, never ahead.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, openat};

const MAGIC: [u8; 4] = *b"LeaM";
const SLOT_BYTES: usize = 32;

/// What a log must have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::search) struct Mark {
    /// Number of commits or records since the log was created.
    pub commits: u64,
    /// Number of the next document of a store, or the id of a spool.
    pub next_doc: u64,
}

impl Mark {
    fn encode(self) -> [u8; SLOT_BYTES] {
        let mut slot = [0; SLOT_BYTES];
        slot[..4].copy_from_slice(&MAGIC);
        slot[8..16].copy_from_slice(&self.commits.to_le_bytes());
        slot[16..24].copy_from_slice(&self.next_doc.to_le_bytes());
        let sum = crc32c::crc32c(&slot[..28]);
        slot[28..].copy_from_slice(&sum.to_le_bytes());
        slot
    }

    fn decode(slot: &[u8]) -> Option<Mark> {
        let number = |at: usize| Some(u64::from_le_bytes(slot.get(at..at + 8)?.try_into().ok()?));
        let mark = Mark { commits: number(8)?, next_doc: number(16)? };
        (slot == mark.encode()).then_some(mark)
    }
}

/// The mark that a file has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::search) struct StoredMark {
    /// `None`: the store is new, or a slot was never written.
    pub mark: Option<Mark>,
    /// True if a slot does not have its checksum. The other one is older by a commit.
    pub is_damaged: bool,
}

/// Reads the mark of a store. There is none before the first commit.
pub(in crate::search) fn read(path: &Path) -> io::Result<StoredMark> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = match openat(CWD, path, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(rustix::io::Errno::NOENT) => return Ok(StoredMark::default()),
        Err(error) => return Err(error.into()),
    };
    let mut bytes = Vec::new();
    file.take(4 * SLOT_BYTES as u64).read_to_end(&mut bytes)?;
    let slots = bytes.chunks(SLOT_BYTES);
    let is_damaged = bytes.len() > 2 * SLOT_BYTES
        || slots.clone().any(|slot| Mark::decode(slot).is_none() && slot.iter().any(|&byte| byte != 0));
    Ok(StoredMark { mark: slots.filter_map(Mark::decode).max(), is_damaged })
}

/// Writes marks, in turn into two slots, so that one of them is always complete.
#[derive(Debug)]
pub(in crate::search) struct MarkFile {
    file: File,
    slot: bool,
}

impl MarkFile {
    pub(in crate::search) fn open(path: &Path, mode: Mode) -> io::Result<MarkFile> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(MarkFile { file: openat(CWD, path, flags, mode)?.into(), slot: false })
    }

    pub(in crate::search) fn write(&mut self, mark: Mark) -> io::Result<()> {
        self.slot = !self.slot;
        self.file.write_all_at(&mark.encode(), u64::from(self.slot) * SLOT_BYTES as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newer_slot_counts_and_a_damaged_one_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mark");
        assert_eq!(read(&path).unwrap(), StoredMark::default());
        let mut file = MarkFile::open(&path, Mode::RUSR | Mode::WUSR).unwrap();
        for commits in 1..=3 {
            let mark = Mark { commits, next_doc: 10 * commits };
            file.write(mark).unwrap();
            assert_eq!(read(&path).unwrap(), StoredMark { mark: Some(mark), is_damaged: false });
        }
        let bytes = std::fs::read(&path).unwrap();
        for bit in 0..8 * bytes.len() {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(&path, &damaged).unwrap();
            let found = read(&path).unwrap();
            assert!(found.is_damaged && found.mark.unwrap().commits >= 2, "bit {bit}: {found:?}");
        }
        std::fs::write(&path, &bytes[..40]).unwrap();
        assert!(read(&path).unwrap().is_damaged);
    }
}
