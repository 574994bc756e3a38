//! Up to where the cluster has all: the file `confirmed`, two slots that are written in turn, so that one is always
//! whole. It has its blocks from the begin on, so a full disk does not hinder it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::Position;
use super::disk::Disk;

const FILE: &str = "confirmed";

/// Each in a sector of its own.
const SLOT_BYTES: u64 = 512;

const USED_BYTES: usize = 36;

/// The file.
#[derive(Debug)]
pub struct Confirmed {
    file: File,
    log: u64,
    round: u64,
}

impl Confirmed {
    /// Opens the file, and gives the position in it, if it is one of this log.
    pub fn open(disk: &Disk, log: u64) -> io::Result<(Confirmed, Option<Position>)> {
        let file = disk.open_file(FILE)?;
        if file.metadata()?.len() < 2 * SLOT_BYTES {
            disk.write(&file, &[0; 2 * SLOT_BYTES as usize], 0)?;
            disk.sync(&file)?;
            disk.sync_names()?;
        }
        let slots = [0, 1].map(|nth| {
            let mut bytes = [0; USED_BYTES];
            file.read_exact_at(&mut bytes, nth * SLOT_BYTES).map(|()| read(&bytes, log))
        });
        let [one, other] = slots;
        let last = one?.into_iter().chain(other?).max_by_key(|(round, _)| *round);
        let round = last.map_or(0, |(round, _)| round);
        Ok((Confirmed { file, log, round }, last.map(|(_, position)| position)))
    }

    /// Keeps a position durably.
    pub fn keep(&mut self, disk: &Disk, position: Position) -> io::Result<()> {
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

fn read(bytes: &[u8; USED_BYTES], log: u64) -> Option<(u64, Position)> {
    let crc = u32::from_le_bytes(bytes[32..].try_into().ok()?);
    let value = |nth: usize| Some(u64::from_le_bytes(bytes[8 * nth..8 * nth + 8].try_into().ok()?));
    let is_right = crc == crc32c::crc32c(&bytes[..32]) && value(0)? == log;
    is_right.then_some((value(1)?, Position { byte: value(2)?, number: value(3)? }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_position_comes_back_and_a_torn_one_gives_the_one_before() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Disk::open(dir.path()).unwrap();
        let at = |number: u64| Position { byte: 1_000 + number, number };
        let (mut confirmed, none) = Confirmed::open(&disk, 7).unwrap();
        assert_eq!(none, None);
        for number in 1..=5 {
            confirmed.keep(&disk, at(number)).unwrap();
            assert_eq!(Confirmed::open(&disk, 7).unwrap().1, Some(at(number)));
        }
        assert_eq!(Confirmed::open(&disk, 8).unwrap().1, None, "that of another log");
        *disk.fail.lock().unwrap() = Some((0, 1));
        assert!(confirmed.keep(&disk, at(6)).is_err());
        assert_eq!(Confirmed::open(&disk, 7).unwrap().1, Some(at(5)));
        // Written again into the same slot.
        confirmed.keep(&disk, at(7)).unwrap();
        assert_eq!(Confirmed::open(&disk, 7).unwrap().1, Some(at(7)));
        let file = disk.open_file(FILE).unwrap();
        for slot in [0, SLOT_BYTES] {
            file.write_all_at(b"x", slot + 9).unwrap();
        }
        assert_eq!(Confirmed::open(&disk, 7).unwrap().1, None);
    }
}
