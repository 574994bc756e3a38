//! What the queue asks of the disk, in one place: tests fail the n-th call of it.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, mkdirat, statvfs};
use rustix::io::Errno;

/// The folder of the queue.
#[derive(Debug)]
pub struct Disk {
    dir: PathBuf,
    /// Calls until one fails, and how many fail then.
    #[cfg(test)]
    pub fail: std::sync::Mutex<Option<(u64, u64)>>,
}

impl Disk {
    /// Makes the folder if need be, for the service's user alone.
    pub fn open(dir: &Path) -> io::Result<Disk> {
        match mkdirat(CWD, dir, Mode::RWXU) {
            Ok(()) => dir.parent().map_or(Ok(()), |above| File::open(above)?.sync_all())?,
            Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(Disk {
            dir: dir.to_owned(),
            #[cfg(test)]
            fail: std::sync::Mutex::default(),
        })
    }

    /// The path of a segment.
    pub fn path(&self, base: u64) -> PathBuf {
        self.dir.join(format!("{base:016x}.log"))
    }

    /// The segments that are there, the oldest first.
    pub fn segments(&self) -> io::Result<Vec<u64>> {
        let mut bases = Vec::new();
        for entry in self.dir.read_dir()? {
            let name = entry?.file_name();
            let digits = name.to_str().and_then(|name| name.strip_suffix(".log"));
            let digits = digits.filter(|digits| digits.len() == 16);
            bases.extend(digits.and_then(|digits| u64::from_str_radix(digits, 16).ok()));
        }
        bases.sort_unstable();
        Ok(bases)
    }

    /// Makes a segment; what stood under its name was never counted as written.
    pub fn create(&self, base: u64) -> io::Result<File> {
        self.may_fail()?;
        open(&self.path(base), OpenOptions::new().create(true).truncate(true))
    }

    /// Opens a segment to read it and go on in it.
    pub fn open_segment(&self, base: u64) -> io::Result<File> {
        open(&self.path(base), &mut OpenOptions::new())
    }

    /// Opens a file beside the segments.
    pub fn open_file(&self, name: &str) -> io::Result<File> {
        open(&self.dir.join(name), OpenOptions::new().create(true))
    }

    /// Writes all of it there.
    pub fn write(&self, file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
        if let Err(error) = self.may_fail() {
            // What a full disk does: part of it is there.
            file.write_all_at(&bytes[..bytes.len() / 2], at)?;
            return Err(error);
        }
        file.write_all_at(bytes, at)
    }

    /// Makes a file's content durable.
    pub fn sync(&self, file: &File) -> io::Result<()> {
        self.may_fail()?;
        file.sync_data()
    }

    /// Makes the names in the folder durable.
    pub fn sync_names(&self) -> io::Result<()> {
        self.may_fail()?;
        File::open(&self.dir)?.sync_all()
    }

    /// Cuts a file.
    pub fn cut(&self, file: &File, bytes: u64) -> io::Result<()> {
        self.may_fail()?;
        file.set_len(bytes)
    }

    /// Takes a segment away.
    pub fn remove(&self, base: u64) -> io::Result<()> {
        self.may_fail()?;
        std::fs::remove_file(self.path(base))
    }

    /// Bytes that may still be written.
    pub fn free_bytes(&self) -> io::Result<u64> {
        let found = statvfs(&self.dir)?;
        Ok(found.f_bavail.saturating_mul(found.f_frsize))
    }

    #[cfg(not(test))]
    #[inline]
    fn may_fail(&self) -> io::Result<()> {
        Ok(())
    }

    #[cfg(test)]
    fn may_fail(&self) -> io::Result<()> {
        let mut fail = self.fail.lock().unwrap();
        match &mut *fail {
            Some((0, 0)) | None => Ok(()),
            Some((0, times)) => {
                *times -= 1;
                Err(Errno::NOSPC.into())
            }
            Some((calls, _)) => {
                *calls -= 1;
                Ok(())
            }
        }
    }
}

fn open(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    options.read(true).write(true).mode(0o600).custom_flags(libc::O_NOFOLLOW).open(path)
}
