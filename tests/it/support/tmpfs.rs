//! A small disk that can be filled: a tmpfs. Mounting needs root; scripts/test.sh arranges it.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::Workdir;

/// A mounted tmpfs, which is unmounted when dropped.
pub(crate) struct Tmpfs {
    path: PathBuf,
}

impl Tmpfs {
    /// Mounts a tmpfs of `bytes` bytes in the test's directory.
    #[track_caller]
    pub(crate) fn mount(work: &Workdir, bytes: u64) -> Tmpfs {
        let path = work.join("disk");
        fs::create_dir(&path).unwrap();
        let output = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={bytes},mode=0755"), "lea-test"])
            .arg(&path)
            .output()
            .unwrap_or_else(|error| panic!("cannot run mount: {error}"));
        assert!(
            output.status.success(),
            "cannot mount a tmpfs; this test needs root and a mount namespace that lets it (scripts/test.sh): {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Tmpfs { path }
    }

    /// Returns a path on the tmpfs.
    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Returns the free bytes.
    pub(crate) fn free_bytes(&self) -> u64 {
        let stat = rustix::fs::statvfs(&self.path).unwrap();
        stat.f_bavail * stat.f_frsize
    }

    /// Fills the disk until only `leave` bytes are free.
    #[track_caller]
    pub(crate) fn fill(&self, leave: u64) {
        let mut filler = OpenOptions::new().append(true).create(true).open(self.filler()).unwrap();
        while self.free_bytes() > leave {
            let bytes = (self.free_bytes() - leave).min(1 << 20);
            if filler.write(&vec![0; bytes as usize]).is_err() {
                break;
            }
        }
        assert!(self.free_bytes() <= leave);
    }

    /// Frees what [`fill`](Self::fill) has used.
    #[track_caller]
    pub(crate) fn free(&self) {
        fs::remove_file(self.filler()).unwrap();
    }

    fn filler(&self) -> PathBuf {
        self.path.join("filler")
    }
}

impl AsRef<Path> for Tmpfs {
    fn as_ref(&self) -> &Path {
        &self.path
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        // Lazy unmount, because a process that was just killed may still use the disk for a moment.
        let _ = Command::new("umount").arg("--lazy").arg(&self.path).status();
    }
}
