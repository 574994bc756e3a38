//! Access to the output directory. Every file is opened relative to the directory's descriptor and never
//! through a symbolic link.
//!
//! Stream files and manifests are in the directory itself. lea's own files are in `.lea/`: `lock`,
//! `open.jsonl` (the journal), `checkpoints.jsonl`, and `tmp/` (manifests being written). No stream name
//! leads there, because a leading dot is escaped.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{
    self, AtFlags, CWD, Dir, FileType, FlockOperation, Gid, Mode, OFlags, fchmod, fchown, flock, fstat,
    mkdirat, openat, renameat, statat, unlinkat,
};
use rustix::io::Errno;

use super::manifest::{self, Manifest};
use crate::runtime::create::{create_dirs, create_error};
use crate::runtime::time::rfc3339_now;
use crate::{Error, Result};

/// Directory of lea's own files within the output directory.
pub(crate) const META_DIR: &str = ".lea";

/// Size of a read and write of [`VaultDir::rewrite`].
const REWRITE_BYTES: usize = 64 << 10;

/// Permissions of the files and directories that lea creates.
#[derive(Clone, Copy, Debug)]
pub struct Access {
    /// Permission bits of stream files and manifests.
    pub file_mode: u32,
    /// Group of the files. `None`: the group of the process.
    pub group: Option<u32>,
}

impl Access {
    /// Only the user that runs lea can read the files.
    pub const PRIVATE: Access = Access { file_mode: 0o600, group: None };

    /// Adds the execute bit for everyone who may read files.
    fn dir_mode(self) -> Mode {
        Mode::from_raw_mode(0o700 | (self.file_mode & 0o444) | ((self.file_mode & 0o444) >> 2))
    }

    fn file_mode(self) -> Mode {
        Mode::from_raw_mode(self.file_mode)
    }
}

/// An output directory that only this process writes to.
#[derive(Debug)]
pub(crate) struct VaultDir {
    path: PathBuf,
    dir: OwnedFd,
    meta: OwnedFd,
    tmp: OwnedFd,
    next_tmp: AtomicU64,
    access: Access,
    /// Held until the process ends. The kernel releases it even after a crash.
    _lock: File,
}

impl VaultDir {
    /// Opens and locks the directory. Creates it if it is missing.
    pub(crate) fn open(path: &Path, access: Access) -> Result<VaultDir> {
        let failed = |act| move |error: Errno| Error::path(act, path)(error.into());
        // Everyone who may read the files may enter the new directories.
        create_dirs(path, Mode::RWXU, |dir| {
            Ok(set_mode_and_group(open_dir(CWD, dir, OFlags::NOFOLLOW)?, access.dir_mode(), access)?)
        })?;
        let dir = open_dir(CWD, path, OFlags::empty()).map_err(failed("open the directory"))?;
        let meta_path = path.join(META_DIR);
        let own = open_meta_dir(&dir, META_DIR).map_err(io::Error::from);
        let own = own.map_err(create_error("create the directory", &meta_path))?;
        check_meta_files(&own, &meta_path)?;
        let lock = acquire_lock(&own, path)?;
        let tmp = open_meta_dir(&own, "tmp").map_err(io::Error::from);
        let tmp = tmp.map_err(create_error("create the directory", meta_path.join("tmp")))?;
        let vault = VaultDir {
            path: path.to_owned(),
            dir,
            meta: own,
            tmp,
            next_tmp: AtomicU64::new(0),
            access,
            _lock: lock,
        };
        vault.clear_tmp().map_err(failed("clear .lea/tmp in"))?;
        Ok(vault)
    }

    /// Path as given by the user.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Creates a stream file. Fails if the name already exists.
    pub(crate) fn create(&self, file: &str) -> io::Result<OwnedFd> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = openat(&self.dir, file, flags, Mode::from_raw_mode(0o600))?;
        set_mode_and_group(&fd, self.access.file_mode(), self.access)?;
        Ok(fd)
    }

    pub(crate) fn open_to_write(&self, file: &str) -> io::Result<OwnedFd> {
        self.open_regular(file, OFlags::WRONLY)
    }

    pub(crate) fn open_to_read(&self, file: &str) -> io::Result<File> {
        Ok(File::from(self.open_regular(file, OFlags::RDONLY)?))
    }

    /// Returns the inode of a stream file.
    pub(crate) fn inode(&self, file: &str) -> io::Result<u64> {
        Ok(statat(&self.dir, file, AtFlags::SYMLINK_NOFOLLOW)?.st_ino)
    }

    /// Returns an error of the kind `NotFound` unless the name leads to the file with this inode.
    pub(crate) fn check_inode(&self, file: &str, inode: Option<u64>) -> io::Result<()> {
        let found = self.inode(file)?;
        if inode.is_none_or(|inode| inode == found) { Ok(()) } else { Err(replaced_error()) }
    }

    /// Calls fdatasync on a stream file, after a check of its inode.
    pub(crate) fn sync_file(&self, file: &str, inode: Option<u64>) -> io::Result<()> {
        let opened = self.open_to_read(file)?;
        if inode.is_some_and(|inode| fstat(&opened).is_ok_and(|found| found.st_ino != inode)) {
            return Err(replaced_error());
        }
        opened.sync_data()
    }

    /// Writes the bytes of a stream file between two offsets again, as they are read from it, and syncs them. After a
    /// failed fsync the kernel takes them for written, and would not write them with the next one.
    pub(crate) fn rewrite(&self, file: &str, from: u64, to: u64) -> io::Result<()> {
        let input = self.open_to_read(file)?;
        let output = File::from(self.open_to_write(file)?);
        let mut buffer = vec![0; REWRITE_BYTES];
        let mut at = from;
        while at < to {
            let some = buffer.len().min(usize::try_from(to - at).unwrap_or(usize::MAX));
            input.read_exact_at(&mut buffer[..some], at)?;
            output.write_all_at(&buffer[..some], at)?;
            at += some as u64;
        }
        output.sync_data()
    }

    /// Returns true if the directory was removed: what is written to it is lost.
    pub(crate) fn is_removed(&self) -> bool {
        [&self.dir, &self.meta].into_iter().any(|dir| fstat(dir).is_ok_and(|found| found.st_nlink == 0))
    }

    /// Checks that a file can be written and synced.
    pub(crate) fn probe(&self) -> io::Result<()> {
        let name = self.next_tmp.fetch_add(1, Ordering::Relaxed).to_string();
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = File::from(openat(&self.tmp, &name, flags, Mode::from_raw_mode(0o600))?);
        let probed = file.write_all(b"probe").and_then(|()| file.sync_data());
        unlinkat(&self.tmp, &name, AtFlags::empty())?;
        probed
    }

    /// Returns the stream files that have a manifest, in no order.
    pub(crate) fn files_with_manifest(&self) -> io::Result<Vec<String>> {
        let mut files = Vec::new();
        for entry in Dir::read_from(&self.dir)? {
            let entry = entry?;
            let file = entry.file_name().to_str().ok().and_then(|name| name.strip_suffix(manifest::SUFFIX));
            files.extend(file.filter(|file| !file.is_empty() && !file.starts_with('.')).map(str::to_owned));
        }
        Ok(files)
    }

    fn open_regular(&self, file: &str, access: OFlags) -> io::Result<OwnedFd> {
        open_regular(&self.dir, file, access)
    }

    /// Returns whether the name exists, whatever kind of file it is.
    pub(crate) fn name_exists(&self, file: &str) -> io::Result<bool> {
        match statat(&self.dir, file, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Reads the manifest of a stream file. Returns `None` if there is none, and an `InvalidData` error if it
    /// is malformed or belongs to another file: its contents decide which file is continued, so it must not
    /// point elsewhere.
    pub(crate) fn manifest(&self, file: &str) -> io::Result<Option<Manifest>> {
        read_manifest(&self.dir, file)
    }

    /// Writes a manifest to `.lea/tmp`. [`publish_manifest`](Self::publish_manifest) then moves it to its
    /// final name.
    pub(crate) fn write_temp_manifest(&self, manifest: &Manifest) -> io::Result<TempManifest> {
        let mut text = serde_json::to_vec_pretty(manifest)?;
        text.push(b'\n');
        let name = self.next_tmp.fetch_add(1, Ordering::Relaxed).to_string();
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = openat(&self.tmp, &name, flags, Mode::from_raw_mode(0o600))?;
        let temp_manifest = TempManifest { name, target: manifest::file_name(&manifest.file) };
        let filled = set_mode_and_group(&fd, self.access.file_mode(), self.access)
            .map_err(io::Error::from)
            .and_then(|()| File::from(fd).write_all(&text));
        if let Err(error) = filled {
            // The disk may be full. The next attempt creates another file.
            let _ = unlinkat(&self.tmp, &temp_manifest.name, AtFlags::empty());
            return Err(error);
        }
        Ok(temp_manifest)
    }

    /// Calls fsync on a temporary manifest.
    pub(crate) fn sync_temp_manifest(&self, temp_manifest: &TempManifest) -> io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(fs::fdatasync(openat(&self.tmp, &temp_manifest.name, flags, Mode::empty())?)?)
    }

    /// Atomically moves a temporary manifest to its final name.
    pub(crate) fn publish_manifest(&self, temp_manifest: TempManifest) -> io::Result<()> {
        Ok(renameat(&self.tmp, &temp_manifest.name, &self.dir, &temp_manifest.target)?)
    }

    /// Writes a manifest atomically. It is durable only after [`sync_names`](Self::sync_names).
    pub(crate) fn write_manifest(&self, manifest: &Manifest) -> io::Result<()> {
        self.publish_manifest(self.write_temp_manifest(manifest)?)
    }

    /// Returns the names of all files, except those that start with a dot or are not UTF-8.
    pub(crate) fn file_names(&self) -> io::Result<Vec<String>> {
        file_names(&self.dir)
    }

    /// Calls fsync on the directory, which makes created and renamed files durable.
    pub(crate) fn sync_names(&self) -> io::Result<()> {
        Ok(fs::fsync(&self.dir)?)
    }

    /// Makes everything on the directory's file system durable.
    pub(crate) fn sync_all(&self) -> io::Result<()> {
        Ok(fs::syncfs(&self.dir)?)
    }

    /// Returns the bytes that an unprivileged process can still write.
    pub(crate) fn free_bytes(&self) -> io::Result<u64> {
        let stat = fs::fstatvfs(&self.dir)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    /// Opens a file in `.lea` for appending. Creates it if it is missing.
    pub(crate) fn meta_append(&self, name: &str) -> io::Result<File> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::APPEND | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(File::from(open_only_regular(&self.meta, name, flags)?))
    }

    /// Replaces a file in `.lea`, atomically and durably. Returns it opened for appending.
    pub(crate) fn meta_replace(&self, name: &str, content: &[u8]) -> io::Result<File> {
        let fresh = format!("{name}.new");
        match unlinkat(&self.meta, &fresh, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
        let mut file = self.meta_append(&fresh)?;
        if let Err(error) = file.write_all(content).and_then(|()| file.sync_all()) {
            // The disk may be full: the incomplete file would waste space.
            let _ = unlinkat(&self.meta, &fresh, AtFlags::empty());
            return Err(error);
        }
        renameat(&self.meta, &fresh, &self.meta, name)?;
        fs::fsync(&self.meta)?;
        Ok(file)
    }

    /// Creates a file in `.lea` that will become a stream file. Replaces one that exists.
    pub(crate) fn create_meta(&self, name: &str) -> io::Result<File> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = openat(&self.meta, name, flags, Mode::from_raw_mode(0o600))?;
        set_mode_and_group(&fd, self.access.file_mode(), self.access)?;
        Ok(File::from(fd))
    }

    /// Moves a file from `.lea` to the name of a stream file, unless that was done before.
    pub(crate) fn publish_meta(&self, name: &str, file: &str) -> io::Result<()> {
        match renameat(&self.meta, name, &self.dir, file) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Reads a file in `.lea`. Returns `None` if it does not exist.
    pub(crate) fn meta_read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        let mut content = Vec::new();
        match open_regular(&self.meta, name, OFlags::RDONLY) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            opened => File::from(opened?).read_to_end(&mut content).map(|_| Some(content)),
        }
    }

    /// Removes the files in `.lea` whose names start with `prefix`.
    pub(crate) fn remove_meta_files(&self, prefix: &str) -> io::Result<()> {
        for entry in Dir::read_from(&self.meta)? {
            let entry = entry?;
            if entry.file_name().to_bytes().starts_with(prefix.as_bytes()) {
                unlinkat(&self.meta, entry.file_name(), AtFlags::empty())?;
            }
        }
        Ok(())
    }

    /// Removes a file in `.lea`.
    pub(crate) fn meta_remove(&self, name: &str) -> io::Result<()> {
        Ok(unlinkat(&self.meta, name, AtFlags::empty())?)
    }

    /// Removes temporary manifests that a killed process did not publish.
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

/// An output directory opened for reading only. A shared lock keeps other lea processes from writing to it.
#[derive(Debug)]
pub(crate) struct LockedDir {
    path: PathBuf,
    dir: OwnedFd,
    own: OwnedFd,
    /// `None` if the directory has no lock file.
    _lock: Option<File>,
}

impl LockedDir {
    /// Opens a directory that no process writes to.
    pub(crate) fn open(path: &Path) -> Result<LockedDir> {
        let failed = |act| move |error: Errno| Error::path(act, path)(error.into());
        let dir = open_dir(CWD, path, OFlags::empty()).map_err(failed("open the directory"))?;
        let own = match open_dir(&dir, META_DIR, OFlags::NOFOLLOW) {
            Err(Errno::NOENT) => {
                let reason =
                    format!("{} is not an output directory of lea: it has no {META_DIR}", path.display());
                return Err(Error::Usage(reason));
            }
            own => own.map_err(failed("open .lea in"))?,
        };
        let lock = match open_regular(&own, "lock", OFlags::RDONLY) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            lock => Some(File::from(lock.map_err(Error::path("open the lock file of", path))?)),
        };
        if let Some(lock) = &lock {
            match flock(lock, FlockOperation::NonBlockingLockShared) {
                Err(Errno::WOULDBLOCK) => {
                    return Err(Error::DirectoryBusy {
                        dir: path.to_owned(),
                        holder: read_lock_holder(lock),
                    });
                }
                locked => locked.map_err(failed("lock"))?,
            }
        }
        Ok(LockedDir { path: path.to_owned(), dir, own, _lock: lock })
    }

    /// Path as given by the user.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the names of all files, except those that start with a dot or are not UTF-8: lea creates
    /// neither.
    pub(crate) fn file_names(&self) -> io::Result<Vec<String>> {
        file_names(&self.dir)
    }

    pub(crate) fn open_to_read(&self, file: &str) -> io::Result<File> {
        Ok(File::from(open_regular(&self.dir, file, OFlags::RDONLY)?))
    }

    /// Reads a manifest like [`VaultDir::manifest`].
    pub(crate) fn manifest(&self, file: &str) -> io::Result<Option<Manifest>> {
        read_manifest(&self.dir, file)
    }

    /// Opens a file in `.lea` for reading. Returns `None` if it does not exist.
    pub(crate) fn open_meta(&self, name: &str) -> io::Result<Option<File>> {
        match open_regular(&self.own, name, OFlags::RDONLY) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            opened => Ok(Some(File::from(opened?))),
        }
    }
}

fn file_names(dir: &OwnedFd) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        names
            .extend(entry.file_name().to_str().ok().filter(|name| !name.starts_with('.')).map(str::to_owned));
    }
    names.sort();
    Ok(names)
}

fn open_regular(dir: &OwnedFd, file: &str, access: OFlags) -> io::Result<OwnedFd> {
    open_only_regular(dir, file, access | OFlags::NOFOLLOW | OFlags::CLOEXEC)
}

/// Opens or creates a regular file. Fails for any other kind of file.
fn open_only_regular(dir: &OwnedFd, file: &str, flags: OFlags) -> io::Result<OwnedFd> {
    // NONBLOCK: opening a FIFO must not block before its type is checked.
    let fd = openat(dir, file, flags | OFlags::NONBLOCK, Mode::from_raw_mode(0o600))?;
    if FileType::from_raw_mode(fstat(&fd)?.st_mode) != FileType::RegularFile {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    Ok(fd)
}

fn read_manifest(dir: &OwnedFd, file: &str) -> io::Result<Option<Manifest>> {
    let opened = match open_regular(dir, &manifest::file_name(file), OFlags::RDONLY) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => File::from(opened?),
    };
    let manifest = manifest::parse(opened)?;
    if manifest.file != file {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the manifest belongs to another file"));
    }
    Ok(Some(manifest))
}

/// Returns the description of the lock holder that is stored in the lock file.
fn read_lock_holder(lock: &File) -> String {
    let mut holder = String::new();
    match lock.take(512).read_to_string(&mut holder) {
        Ok(_) if !holder.trim().is_empty() => holder.trim().escape_debug().to_string(),
        _ => "another process".to_owned(),
    }
}

/// A manifest in `.lea/tmp`. It holds no descriptor, because thousands of manifests may wait at once.
#[derive(Debug)]
pub(crate) struct TempManifest {
    name: String,
    target: String,
}

fn open_dir(at: impl AsFd, path: impl rustix::path::Arg, more: OFlags) -> Result<OwnedFd, Errno> {
    openat(at, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | more, Mode::empty())
}

/// Opens or creates a private directory. Fails if it is a symbolic link.
fn open_meta_dir(at: impl AsFd, name: &str) -> Result<OwnedFd, Errno> {
    match mkdirat(&at, name, Mode::from_raw_mode(0o700)) {
        Ok(()) | Err(Errno::EXIST) => open_dir(at, name, OFlags::NOFOLLOW),
        Err(error) => Err(error),
    }
}

/// Sets mode and group regardless of the umask.
fn set_mode_and_group(fd: impl AsFd, mode: Mode, access: Access) -> Result<(), Errno> {
    if let Some(group) = access.group {
        fchown(&fd, None, Some(Gid::from_raw(group)))?;
    }
    fchmod(fd, mode)
}

/// Checks that `.lea` and its directories hold no FIFO, socket or device: the start would wait without end to read one, and
/// not all files are opened here.
fn check_meta_files(meta: &OwnedFd, path: &Path) -> Result<()> {
    let failed = || move |error: Errno| Error::path("look through", path)(error.into());
    for entry in Dir::read_from(meta).map_err(failed())? {
        let entry = entry.map_err(failed())?;
        let (name, path) = (entry.file_name(), path.join(OsStr::from_bytes(entry.file_name().to_bytes())));
        // A dangling link is an error of its reader.
        let Ok(found) = statat(meta, name, AtFlags::empty()) else { continue };
        match FileType::from_raw_mode(found.st_mode) {
            FileType::RegularFile => {}
            FileType::Directory if matches!(name.to_bytes(), b"." | b"..") => {}
            FileType::Directory => {
                let dir = open_dir(meta, name, OFlags::empty()).map_err(failed())?;
                check_meta_files(&dir, &path)?;
            }
            _ => {
                let reason = io::Error::new(io::ErrorKind::InvalidInput, "not a regular file (remove it)");
                return Err(Error::path("use", path)(reason));
            }
        }
    }
    Ok(())
}

fn replaced_error() -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, "another program has removed or replaced the file")
}

/// Takes the lock of the directory and writes a description of this process into it.
fn acquire_lock(own: &OwnedFd, path: &Path) -> Result<File> {
    let lock_path = path.join(META_DIR).join("lock");
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd =
        open_only_regular(own, "lock", flags).map_err(create_error("create the lock file", &lock_path))?;
    let mut file = File::from(fd);
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => {
            return Err(Error::Locked { dir: path.to_owned(), holder: read_lock_holder(&file) });
        }
        Err(error) => return Err(Error::path("lock", lock_path)(error.into())),
    }
    let arguments = std::env::args_os().take(2);
    let command: Vec<_> = arguments.map(|argument| argument.to_string_lossy().into_owned()).collect();
    let holder = format!("process {} ({}) since {}\n", std::process::id(), command.join(" "), rfc3339_now());
    if let Err(error) = file.set_len(0).and_then(|()| file.write_all(holder.as_bytes())) {
        // The lock is held anyway. Only the error message of a second process will lack the holder's name.
        log::warn!("lock_not_written error=\"{error}\"");
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;
    use crate::cc::vault::manifest::StreamSource;

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
    fn the_error_of_a_second_process_names_the_lock_holder() {
        let temp = tempfile::tempdir().unwrap();
        let held = open(temp.path());
        match VaultDir::open(temp.path(), Access::PRIVATE) {
            Err(Error::Locked { dir, holder }) => {
                assert_eq!(dir, temp.path());
                assert!(holder.contains(&format!("process {} ", std::process::id())), "{holder}");
            }
            other => panic!("{other:?}"),
        }
        drop(held);
        open(temp.path());
    }

    #[test]
    fn only_created_directories_get_the_mode() {
        let temp = tempfile::tempdir().unwrap();
        let before = mode(temp.path());
        let path = temp.path().join("a/b");
        VaultDir::open(&path, Access { file_mode: 0o640, group: None }).unwrap();
        assert_eq!((mode(&temp.path().join("a")), mode(&path)), (0o750, 0o750));
        assert_eq!((mode(&path.join(".lea")), mode(temp.path())), (0o700, before));
        // An existing directory keeps its mode.
        open(&path);
        assert_eq!(mode(&path), 0o750);
    }

    #[test]
    fn symbolic_links_are_not_followed() {
        let temp = tempfile::tempdir().unwrap();
        let (path, outside) = (temp.path().join("out"), temp.path().join("outside"));
        std::fs::write(&outside, "outside").unwrap();
        let dir = open(&path);
        symlink(&outside, path.join("link")).unwrap();
        assert_eq!(errno(dir.create("link")), Some(Errno::EXIST));
        assert_eq!(errno(dir.open_to_write("link")), Some(Errno::LOOP));
        assert_eq!(errno(dir.open_to_read("link")), Some(Errno::LOOP));
        assert!(dir.name_exists("link").unwrap());
        // A manifest replaces a symbolic link and does not write through it.
        symlink(&outside, path.join("file.lea.json")).unwrap();
        dir.write_manifest(&Manifest::new(b"file", "file".into(), 1, StreamSource::Tcp)).unwrap();
        assert_eq!(std::fs::read(&outside).unwrap(), b"outside");
        assert_eq!(dir.manifest("file").unwrap().unwrap().name, "file");
        drop(dir);
        // The same is true of `.lea` itself.
        std::fs::remove_dir_all(path.join(".lea")).unwrap();
        std::fs::create_dir(temp.path().join("elsewhere")).unwrap();
        symlink(temp.path().join("elsewhere"), path.join(".lea")).unwrap();
        assert!(VaultDir::open(&path, Access::PRIVATE).is_err());
    }

    #[test]
    fn only_regular_files_are_opened() {
        let temp = tempfile::tempdir().unwrap();
        let dir = open(temp.path());
        std::fs::create_dir(temp.path().join("folder")).unwrap();
        fs::mknodat(CWD, temp.path().join("fifo"), FileType::Fifo, Mode::RWXU, 0).unwrap();
        for name in ["folder", "fifo"] {
            assert!(dir.open_to_read(name).is_err(), "{name}");
            assert!(dir.name_exists(name).unwrap(), "{name}");
        }
        assert_eq!(errno(dir.open_to_read("nothing")), Some(Errno::NOENT));
        assert!(!dir.name_exists("nothing").unwrap());
        assert!(dir.manifest("nothing").unwrap().is_none());
    }

    #[test]
    fn a_temporary_manifest_is_visible_only_after_publishing() {
        let temp = tempfile::tempdir().unwrap();
        let dir = open(temp.path());
        let temp_manifest =
            dir.write_temp_manifest(&Manifest::new(b"file", "file".into(), 1, StreamSource::Tcp)).unwrap();
        dir.sync_temp_manifest(&temp_manifest).unwrap();
        assert!(dir.manifest("file").unwrap().is_none());
        dir.publish_manifest(temp_manifest).unwrap();
        assert!(dir.manifest("file").unwrap().is_some());
        assert_eq!(mode(&temp.path().join("file.lea.json")), 0o600);
        // The next start removes temporary manifests of a killed process.
        let _left =
            dir.write_temp_manifest(&Manifest::new(b"other", "other".into(), 1, StreamSource::Tcp)).unwrap();
        drop(dir);
        open(temp.path());
        assert_eq!(std::fs::read_dir(temp.path().join(".lea/tmp")).unwrap().count(), 0);
        assert!(!temp.path().join("other.lea.json").exists());
    }
}
