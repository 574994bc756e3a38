//! File operations of the spool, in one place so that tests can fail the n-th one.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, mkdirat, statvfs};
use rustix::io::Errno;

use crate::search::mark::{self, Mark, MarkFile};

/// The directory of the spool.
#[derive(Debug)]
pub(super) struct SpoolDisk {
    dir: PathBuf,
    /// Number of calls until the first failure, and the number of failures.
    #[cfg(test)]
    pub fail: std::sync::Mutex<Option<(u64, u64)>>,
}

impl SpoolDisk {
    /// Creates the directory if necessary, accessible only by the service's user.
    pub(super) fn open(dir: &Path) -> io::Result<SpoolDisk> {
        match mkdirat(CWD, dir, Mode::RWXU) {
            Ok(()) => dir.parent().map_or(Ok(()), |above| File::open(above)?.sync_all())?,
            Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(SpoolDisk {
            dir: dir.to_owned(),
            #[cfg(test)]
            fail: std::sync::Mutex::default(),
        })
    }

    pub(super) fn path(&self, base: u64) -> PathBuf {
        self.dir.join(format!("{base:016x}.log"))
    }

    /// Returns the existing segments, oldest first.
    pub(super) fn segments(&self) -> io::Result<Vec<u64>> {
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

    /// Creates a segment. A file of that name was never acknowledged, so it is overwritten.
    pub(super) fn create(&self, base: u64) -> io::Result<File> {
        self.may_fail()?;
        open(&self.path(base), OpenOptions::new().create(true).truncate(true))
    }

    pub(super) fn open_segment(&self, base: u64) -> io::Result<File> {
        open(&self.path(base), &mut OpenOptions::new())
    }

    /// Opens or creates another file in the directory.
    pub(super) fn open_file(&self, name: &str) -> io::Result<File> {
        open(&self.dir.join(name), OpenOptions::new().create(true))
    }

    /// Opens or creates the mark of what was acknowledged. Returns also what it contains.
    pub(super) fn open_mark(&self) -> io::Result<(MarkFile, Option<Mark>)> {
        let path = self.dir.join("mark");
        let mark = mark::read(&path)?.mark;
        Ok((MarkFile::open(&path, Mode::RUSR | Mode::WUSR)?, mark))
    }

    pub(super) fn write(&self, file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
        if let Err(error) = self.may_fail() {
            // A full disk writes a part, too.
            file.write_all_at(&bytes[..bytes.len() / 2], at)?;
            return Err(error);
        }
        file.write_all_at(bytes, at)
    }

    pub(super) fn sync(&self, file: &File) -> io::Result<()> {
        self.may_fail()?;
        file.sync_data()
    }

    /// Makes the directory entries durable.
    pub(super) fn sync_names(&self) -> io::Result<()> {
        self.may_fail()?;
        File::open(&self.dir)?.sync_all()
    }

    pub(super) fn truncate(&self, file: &File, bytes: u64) -> io::Result<()> {
        self.may_fail()?;
        file.set_len(bytes)
    }

    pub(super) fn remove(&self, base: u64) -> io::Result<()> {
        self.may_fail()?;
        std::fs::remove_file(self.path(base))
    }

    /// Free space on the file system.
    pub(super) fn free_bytes(&self) -> io::Result<u64> {
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
