//! The output folder: every path below it is opened from its descriptor and never through a link.
//!
//! Stream files and manifests lie in the folder itself. What else is ours is in `.lea/`, where no stream name
//! leads (a leading dot is escaped): `lock`, `open.jsonl` (the journal), `tmp/` (manifests being written).

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{
    self, AtFlags, CWD, Dir, FileType, FlockOperation, Gid, Mode, OFlags, fchmod, fchown, flock, fstat,
    mkdirat, openat, renameat, statat, unlinkat,
};
use rustix::io::Errno;

use super::manifest::{self, Manifest};
use crate::{Error, Result};

/// The folder of our own files.
pub const OWN_DIR: &str = ".lea";

/// Who may read what is stored.
#[derive(Clone, Copy, Debug)]
pub struct Access {
    /// Permission bits of stream files and manifests.
    pub file_mode: u32,
    /// The group they belong to, if not the process's own.
    pub group: Option<u32>,
}

impl Access {
    /// Files for the service's user alone.
    pub const PRIVATE: Access = Access { file_mode: 0o600, group: None };

    /// A folder can be entered by whoever may read the files in it.
    fn dir_mode(self) -> Mode {
        Mode::from_raw_mode(0o700 | (self.file_mode & 0o444) | ((self.file_mode & 0o444) >> 2))
    }

    fn file_mode(self) -> Mode {
        Mode::from_raw_mode(self.file_mode)
    }
}

/// An output folder that this process alone writes to.
#[derive(Debug)]
pub struct VaultDir {
    path: PathBuf,
    dir: OwnedFd,
    own: OwnedFd,
    tmp: OwnedFd,
    next_tmp: AtomicU64,
    access: Access,
    /// Held until the process ends; the kernel lets go of it however that happens.
    _lock: File,
}

impl VaultDir {
    /// Opens the folder, makes it if it is not there, and locks it.
    pub fn open(path: &Path, access: Access) -> Result<VaultDir> {
        let failed = |act| move |error: Errno| Error::path(act, path)(error.into());
        make_dirs(path, access).map_err(failed("make the folder"))?;
        let dir = open_dir(CWD, path, OFlags::empty()).map_err(failed("open the folder"))?;
        let own = own_dir(&dir, OWN_DIR).map_err(failed("open .lea in"))?;
        let lock = lock(&own, path)?;
        let tmp = own_dir(&own, "tmp").map_err(failed("open .lea/tmp in"))?;
        let vault = VaultDir {
            path: path.to_owned(),
            dir,
            own,
            tmp,
            next_tmp: AtomicU64::new(0),
            access,
            _lock: lock,
        };
        vault.clear_tmp().map_err(failed("clear .lea/tmp in"))?;
        Ok(vault)
    }

    /// The folder as it was named.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes a stream file; fails if anything of that name is there.
    pub fn create(&self, file: &str) -> io::Result<OwnedFd> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = openat(&self.dir, file, flags, Mode::from_raw_mode(0o600))?;
        give(&fd, self.access.file_mode(), self.access)?;
        Ok(fd)
    }

    /// Opens a stream file to write into it.
    pub fn open_to_write(&self, file: &str) -> io::Result<OwnedFd> {
        self.open_regular(file, OFlags::WRONLY)
    }

    /// Opens a stream file to read it.
    pub fn open_to_read(&self, file: &str) -> io::Result<File> {
        Ok(File::from(self.open_regular(file, OFlags::RDONLY)?))
    }

    fn open_regular(&self, file: &str, access: OFlags) -> io::Result<OwnedFd> {
        open_regular(&self.dir, file, access)
    }

    /// True if the name is taken, by whatever it is.
    pub fn is_taken(&self, file: &str) -> io::Result<bool> {
        match statat(&self.dir, file, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// The manifest of a stream file; none if there is none. `InvalidData` if it cannot be read as one, or is that of
    /// another file: whoever goes on with a part goes by the manifest's word, so it must not lead anywhere else.
    pub fn manifest(&self, file: &str) -> io::Result<Option<Manifest>> {
        manifest_of(&self.dir, file)
    }

    /// Writes a manifest beside its final place, to be put there by [`publish`](Self::publish).
    pub fn stage(&self, manifest: &Manifest) -> io::Result<Staged> {
        let mut text = serde_json::to_vec_pretty(manifest)?;
        text.push(b'\n');
        let name = self.next_tmp.fetch_add(1, Ordering::Relaxed).to_string();
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = openat(&self.tmp, &name, flags, Mode::from_raw_mode(0o600))?;
        let staged = Staged { name, target: manifest::file_name(&manifest.file) };
        let filled = give(&fd, self.access.file_mode(), self.access)
            .map_err(io::Error::from)
            .and_then(|()| File::from(fd).write_all(&text));
        if let Err(error) = filled {
            // A full disk: the next attempt writes a new one.
            let _ = unlinkat(&self.tmp, &staged.name, AtFlags::empty());
            return Err(error);
        }
        Ok(staged)
    }

    /// Makes the content of a staged manifest durable.
    pub fn sync_staged(&self, staged: &Staged) -> io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(fs::fdatasync(openat(&self.tmp, &staged.name, flags, Mode::empty())?)?)
    }

    /// Puts a staged manifest in its place, atomically.
    pub fn publish(&self, staged: Staged) -> io::Result<()> {
        Ok(renameat(&self.tmp, &staged.name, &self.dir, &staged.target)?)
    }

    /// Writes a manifest atomically; durable only after [`sync_names`](Self::sync_names).
    pub fn write_manifest(&self, manifest: &Manifest) -> io::Result<()> {
        self.publish(self.stage(manifest)?)
    }

    /// Makes the names in the folder durable.
    pub fn sync_names(&self) -> io::Result<()> {
        Ok(fs::fsync(&self.dir)?)
    }

    /// Makes everything on the folder's file system durable.
    pub fn sync_all(&self) -> io::Result<()> {
        Ok(fs::syncfs(&self.dir)?)
    }

    /// Bytes that this process may still write.
    pub fn free_bytes(&self) -> io::Result<u64> {
        let stat = fs::fstatvfs(&self.dir)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    /// Opens a file of our own in `.lea`, made if need be, to be appended to.
    pub fn own_append(&self, name: &str) -> io::Result<File> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::APPEND | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(File::from(openat(&self.own, name, flags, Mode::from_raw_mode(0o600))?))
    }

    /// Replaces a file of our own in `.lea`, atomically and durably; gives it back open for appending.
    pub fn own_replace(&self, name: &str, content: &[u8]) -> io::Result<File> {
        let fresh = format!("{name}.new");
        match unlinkat(&self.own, &fresh, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
        let mut file = self.own_append(&fresh)?;
        if let Err(error) = file.write_all(content).and_then(|()| file.sync_all()) {
            // A full disk: what was written takes room that others need.
            let _ = unlinkat(&self.own, &fresh, AtFlags::empty());
            return Err(error);
        }
        renameat(&self.own, &fresh, &self.own, name)?;
        fs::fsync(&self.own)?;
        Ok(file)
    }

    /// Removes a file of our own in `.lea`.
    pub fn own_remove(&self, name: &str) -> io::Result<()> {
        Ok(unlinkat(&self.own, name, AtFlags::empty())?)
    }

    /// Takes away manifests that a killed process had not put in their place.
    fn clear_tmp(&self) -> Result<(), Errno> {
        for entry in Dir::read_from(&self.tmp)? {
            let entry = entry?;
            if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                unlinkat(&self.tmp, entry.file_name(), AtFlags::empty())?;
            }
        }
        Ok(())
    }
}

/// A folder that is looked at and never changed. While it is, no other process of ours writes to it.
#[derive(Debug)]
pub struct QuietDir {
    path: PathBuf,
    dir: OwnedFd,
    own: OwnedFd,
    /// None where there never was one.
    _lock: Option<File>,
}

impl QuietDir {
    /// Opens a folder that no process writes to.
    pub fn open(path: &Path) -> Result<QuietDir> {
        let failed = |act| move |error: Errno| Error::path(act, path)(error.into());
        let dir = open_dir(CWD, path, OFlags::empty()).map_err(failed("open the folder"))?;
        let own = match open_dir(&dir, OWN_DIR, OFlags::NOFOLLOW) {
            Err(Errno::NOENT) => {
                let reason =
                    format!("{}: no receiver wrote this folder, it has no {OWN_DIR}", path.display());
                return Err(Error::Usage(reason));
            }
            own => own.map_err(failed("open .lea in"))?,
        };
        let lock = match open_regular(&own, "lock", OFlags::RDONLY) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            lock => Some(File::from(lock.map_err(Error::path("open the lock of", path))?)),
        };
        if let Some(lock) = &lock {
            match flock(lock, FlockOperation::NonBlockingLockShared) {
                Err(Errno::WOULDBLOCK) => {
                    return Err(Error::Busy { dir: path.to_owned(), holder: holder_in(lock) });
                }
                locked => locked.map_err(failed("take the lock of"))?,
            }
        }
        Ok(QuietDir { path: path.to_owned(), dir, own, _lock: lock })
    }

    /// The folder as it was named.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The names in it, those that begin with a dot left out; and none that is no UTF-8: none of ours is.
    pub fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.dir)? {
            let entry = entry?;
            names.extend(
                entry.file_name().to_str().ok().filter(|name| !name.starts_with('.')).map(str::to_owned),
            );
        }
        names.sort();
        Ok(names)
    }

    /// Opens a stream file.
    pub fn open_to_read(&self, file: &str) -> io::Result<File> {
        Ok(File::from(open_regular(&self.dir, file, OFlags::RDONLY)?))
    }

    /// As [`VaultDir::manifest`].
    pub fn manifest(&self, file: &str) -> io::Result<Option<Manifest>> {
        manifest_of(&self.dir, file)
    }

    /// Opens a file of our own in `.lea`; none if it is not there.
    pub fn own(&self, name: &str) -> io::Result<Option<File>> {
        match open_regular(&self.own, name, OFlags::RDONLY) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            opened => Ok(Some(File::from(opened?))),
        }
    }
}

fn open_regular(dir: &OwnedFd, file: &str, access: OFlags) -> io::Result<OwnedFd> {
    // NONBLOCK: a foreign FIFO must not hold us up before we see that it is no file.
    let flags = access | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let fd = openat(dir, file, flags, Mode::empty())?;
    if FileType::from_raw_mode(fstat(&fd)?.st_mode) != FileType::RegularFile {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    Ok(fd)
}

fn manifest_of(dir: &OwnedFd, file: &str) -> io::Result<Option<Manifest>> {
    let opened = match open_regular(dir, &manifest::file_name(file), OFlags::RDONLY) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => File::from(opened?),
    };
    let manifest = manifest::parse(opened)?;
    if manifest.file != file {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the manifest is that of another file"));
    }
    Ok(Some(manifest))
}

/// Who wrote itself into a lock.
fn holder_in(lock: &File) -> String {
    let mut holder = String::new();
    match lock.take(512).read_to_string(&mut holder) {
        Ok(_) if !holder.trim().is_empty() => holder.trim().escape_debug().to_string(),
        _ => "another process".to_owned(),
    }
}

/// A manifest that is written and not yet in its place. It holds no descriptor: thousands may wait at once.
#[derive(Debug)]
pub struct Staged {
    name: String,
    target: String,
}

/// Makes the folder and those above it. Who may read what is stored may enter each that is made.
fn make_dirs(path: &Path, access: Access) -> Result<(), Errno> {
    match mkdirat(CWD, path, Mode::RWXU) {
        Ok(()) => give(open_dir(CWD, path, OFlags::NOFOLLOW)?, access.dir_mode(), access),
        Err(Errno::EXIST) => Ok(()),
        Err(Errno::NOENT) => {
            let above = path.parent().filter(|above| !above.as_os_str().is_empty()).ok_or(Errno::NOENT)?;
            make_dirs(above, access)?;
            make_dirs(path, access)
        }
        Err(error) => Err(error),
    }
}

fn open_dir(at: impl AsFd, path: impl rustix::path::Arg, more: OFlags) -> Result<OwnedFd, Errno> {
    openat(at, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | more, Mode::empty())
}

/// A folder of our own: never shared, never through a link.
fn own_dir(at: impl AsFd, name: &str) -> Result<OwnedFd, Errno> {
    match mkdirat(&at, name, Mode::from_raw_mode(0o700)) {
        Ok(()) | Err(Errno::EXIST) => open_dir(at, name, OFlags::NOFOLLOW),
        Err(error) => Err(error),
    }
}

/// Sets mode and group, past the umask.
fn give(fd: impl AsFd, mode: Mode, access: Access) -> Result<(), Errno> {
    if let Some(group) = access.group {
        fchown(&fd, None, Some(Gid::from_raw(group)))?;
    }
    fchmod(fd, mode)
}

/// Takes the folder's lock and writes down who holds it.
fn lock(own: &OwnedFd, path: &Path) -> Result<File> {
    let failed = |act| Error::path(act, path.join(OWN_DIR).join("lock"));
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = openat(own, "lock", flags, Mode::from_raw_mode(0o600))
        .map_err(|error| failed("open the lock")(error.into()))?;
    let mut file = File::from(fd);
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => {
            return Err(Error::Locked { dir: path.to_owned(), holder: holder_in(&file) });
        }
        Err(error) => return Err(failed("take the lock")(error.into())),
    }
    let arguments = std::env::args_os().take(2);
    let command: Vec<_> = arguments.map(|argument| argument.to_string_lossy().into_owned()).collect();
    let holder = format!(
        "process {} ({}) since {}\n",
        std::process::id(),
        command.join(" "),
        super::time::now_rfc3339()
    );
    if let Err(error) = file.set_len(0).and_then(|()| file.write_all(holder.as_bytes())) {
        // It is taken all the same; only its holder's name is missing where a second process asks for it.
        log::warn!("lock_not_written error=\"{error}\"");
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::super::manifest::Source;
    use super::*;

    fn open(path: &Path) -> VaultDir {
        VaultDir::open(path, Access::PRIVATE).unwrap()
    }

    fn mode(path: &Path) -> u32 {
        std::fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
    }

    fn errno<T: std::fmt::Debug>(result: io::Result<T>) -> Option<Errno> {
        Errno::from_io_error(&result.unwrap_err())
    }

    #[test]
    fn a_second_holder_is_told_who_the_first_is() {
        let folder = tempfile::tempdir().unwrap();
        let held = open(folder.path());
        match VaultDir::open(folder.path(), Access::PRIVATE) {
            Err(Error::Locked { dir, holder }) => {
                assert_eq!(dir, folder.path());
                assert!(holder.contains(&format!("process {} ", std::process::id())), "{holder}");
            }
            other => panic!("{other:?}"),
        }
        drop(held);
        open(folder.path());
    }

    #[test]
    fn folders_that_are_made_are_given_the_mode_and_others_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let before = mode(folder.path());
        let path = folder.path().join("a/b");
        VaultDir::open(&path, Access { file_mode: 0o640, group: None }).unwrap();
        assert_eq!((mode(&folder.path().join("a")), mode(&path)), (0o750, 0o750));
        assert_eq!((mode(&path.join(".lea")), mode(folder.path())), (0o700, before));
        // One that is there stays as it is.
        open(&path);
        assert_eq!(mode(&path), 0o750);
    }

    #[test]
    fn no_link_leads_out() {
        let folder = tempfile::tempdir().unwrap();
        let (path, outside) = (folder.path().join("out"), folder.path().join("outside"));
        std::fs::write(&outside, "outside").unwrap();
        let dir = open(&path);
        symlink(&outside, path.join("link")).unwrap();
        assert_eq!(errno(dir.create("link")), Some(Errno::EXIST));
        assert_eq!(errno(dir.open_to_write("link")), Some(Errno::LOOP));
        assert_eq!(errno(dir.open_to_read("link")), Some(Errno::LOOP));
        assert!(dir.is_taken("link").unwrap());
        // A manifest replaces a link in its place, and does not go through it.
        symlink(&outside, path.join("file.lea.json")).unwrap();
        dir.write_manifest(&Manifest::new(b"file", "file".into(), 1, Source::Tcp)).unwrap();
        assert_eq!(std::fs::read(&outside).unwrap(), b"outside");
        assert_eq!(dir.manifest("file").unwrap().unwrap().name, "file");
        drop(dir);
        // Nor is the folder of our own one.
        std::fs::remove_dir_all(path.join(".lea")).unwrap();
        std::fs::create_dir(folder.path().join("elsewhere")).unwrap();
        symlink(folder.path().join("elsewhere"), path.join(".lea")).unwrap();
        assert!(VaultDir::open(&path, Access::PRIVATE).is_err());
    }

    #[test]
    fn what_is_no_file_is_not_opened() {
        let folder = tempfile::tempdir().unwrap();
        let dir = open(folder.path());
        std::fs::create_dir(folder.path().join("folder")).unwrap();
        fs::mknodat(CWD, folder.path().join("fifo"), FileType::Fifo, Mode::RWXU, 0).unwrap();
        for name in ["folder", "fifo"] {
            assert!(dir.open_to_read(name).is_err(), "{name}");
            assert!(dir.is_taken(name).unwrap(), "{name}");
        }
        assert_eq!(errno(dir.open_to_read("nothing")), Some(Errno::NOENT));
        assert!(!dir.is_taken("nothing").unwrap());
        assert!(dir.manifest("nothing").unwrap().is_none());
    }

    #[test]
    fn a_staged_manifest_is_seen_once_it_is_published() {
        let folder = tempfile::tempdir().unwrap();
        let dir = open(folder.path());
        let staged = dir.stage(&Manifest::new(b"file", "file".into(), 1, Source::Tcp)).unwrap();
        dir.sync_staged(&staged).unwrap();
        assert!(dir.manifest("file").unwrap().is_none());
        dir.publish(staged).unwrap();
        assert!(dir.manifest("file").unwrap().is_some());
        assert_eq!(mode(&folder.path().join("file.lea.json")), 0o600);
        // What a killed process had staged goes at the next start.
        let _left = dir.stage(&Manifest::new(b"other", "other".into(), 1, Source::Tcp)).unwrap();
        drop(dir);
        open(folder.path());
        assert_eq!(std::fs::read_dir(folder.path().join(".lea/tmp")).unwrap().count(), 0);
        assert!(!folder.path().join("other.lea.json").exists());
    }
}
