//! The file with the acked position. It has two slots that are written alternately, so one of them is always
//! valid. Its blocks are allocated when it is created, so a full disk does not prevent updates.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::LogPosition;
use super::disk::SpoolDisk;

const FILE: &str = "acked";

/// Each slot has its own sector.
const SLOT_BYTES: u64 = 512;

const USED_BYTES: usize = 36;

#[derive(Debug)]
pub(super) struct AckFile {
    file: File,
    log: u64,
    round: u64,
}

impl AckFile {
    /// Opens the file and returns its position, if it belongs to this log.
    pub(super) fn open(disk: &SpoolDisk, log: u64) -> io::Result<(AckFile, Option<LogPosition>)> {
        let file = disk.open_file(FILE)?;
        if file.metadata()?.len() < 2 * SLOT_BYTES {
            disk.write(&file, &[0; 2 * SLOT_BYTES as usize], 0)?;
            disk.sync(&file)?;
            disk.sync_names()?;
        }
        let slots = [0, 1].map(|nth| {
            let mut bytes = [0; USED_BYTES];
            file.read_exact_at(&mut bytes, nth * SLOT_BYTES).map(|()| parse_slot(&bytes, log))
        });
        let [one, other] = slots;
        let last = one?.into_iter().chain(other?).max_by_key(|(round, _)| *round);
        let round = last.map_or(0, |(round, _)| round);
        Ok((AckFile { file, log, round }, last.map(|(_, position)| position)))
    }

    /// Writes a position durably.
    pub(super) fn write(&mut self, disk: &SpoolDisk, position: LogPosition) -> io::Result<()> {
        let round = self.round + 1;
        let mut bytes = [0; USED_BYTES];
        for (nth, value) in [self.log, round, position.byte, position.number].into_iter().enumerate() {
            bytes[8 * nth..8 * nth + 8].copy_from_slice(&value.to_le_bytes());
        }
        let crc = crc32c::crc32c(&bytes[..32]);
        bytes[32..].copy_from_slice(&crc.to_le_bytes());
        disk.write(&self.file, &bytes, round % 2 * SLOT_BYTES)?;
        disk.sync(&self.file)?;
        self.round = round;
        Ok(())
    }
}

fn parse_slot(bytes: &[u8; USED_BYTES], log: u64) -> Option<(u64, LogPosition)> {
    let crc = u32::from_le_bytes(bytes[32..].try_into().ok()?);
    let value = |nth: usize| Some(u64::from_le_bytes(bytes[8 * nth..8 * nth + 8].try_into().ok()?));
    let is_right = crc == crc32c::crc32c(&bytes[..32]) && value(0)? == log;
    is_right.then_some((value(1)?, LogPosition { byte: value(2)?, number: value(3)? }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn torn_write_leaves_the_previous_position() {
        let dir = tempfile::tempdir().unwrap();
        let disk = SpoolDisk::open(dir.path()).unwrap();
        let at = |number: u64| LogPosition { byte: 1_000 + number, number };
        let (mut confirmed, none) = AckFile::open(&disk, 7).unwrap();
        assert_eq!(none, None);
        for number in 1..=5 {
            confirmed.write(&disk, at(number)).unwrap();
            assert_eq!(AckFile::open(&disk, 7).unwrap().1, Some(at(number)));
        }
        assert_eq!(AckFile::open(&disk, 8).unwrap().1, None, "that of another log");
        *disk.fail.lock().unwrap() = Some((0, 1));
        assert!(confirmed.write(&disk, at(6)).is_err());
        assert_eq!(AckFile::open(&disk, 7).unwrap().1, Some(at(5)));
        // Overwrites the damaged slot.
        confirmed.write(&disk, at(7)).unwrap();
        assert_eq!(AckFile::open(&disk, 7).unwrap().1, Some(at(7)));
        let file = disk.open_file(FILE).unwrap();
        for slot in [0, SLOT_BYTES] {
            file.write_all_at(b"x", slot + 9).unwrap();
        }
        assert_eq!(AckFile::open(&disk, 7).unwrap().1, None);
    }
}
