//! The virtual file system of readers in other processes. It opens only the main file of a database, read-only, and reads it
//! through a [`FileView`]: SQLite sees a database without a log, of which each read transaction has one state.
//!
//! This module uses `unsafe`. It relies on this: SQLite passes to a function of a file only files that [`open`] has filled,
//! and uses a file from one thread at a time.

#![allow(unsafe_code)]

use std::ffi::{CStr, OsStr, c_char, c_int, c_void};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rusqlite::ffi;

use super::page::{PAGE_BYTES, Page};
use super::view::FileView;

/// Reads what was committed. A log that is damaged ends at the damage.
pub(in crate::search::sqlite) const VFS_NAME: &CStr = c"lea-read";

/// Reads past damage of the log.
pub(in crate::search::sqlite) const SALVAGE_VFS_NAME: &CStr = c"lea-salvage";

/// Bytes of a file that SQLite locks. They are part of its format.
#[derive(Clone, Copy)]
pub(super) struct LockRange {
    first: i64,
    bytes: i64,
}

/// In events.db: keeps the writer from removing the log at its end (`SHARED`).
pub(super) const DATABASE_LOCK: LockRange = LockRange { first: (1 << 30) + 2, bytes: 510 };

/// In events.db-shm: keep the writer from moving pages (`WAL_READ_LOCK(0)`) and from beginning the log anew (`WAL_READ_LOCK(1)`).
pub(super) const LOG_LOCKS: LockRange = LockRange { first: 123, bytes: 2 };

/// Longest name of a file.
const NAME_BYTES_MAX: c_int = 4_096;

/// An open file.
#[repr(C)]
struct ReadFile {
    methods: *const ffi::sqlite3_io_methods,
    view: *mut FileView,
}

static METHODS: ffi::sqlite3_io_methods = ffi::sqlite3_io_methods {
    iVersion: 1,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(file_size),
    xLock: Some(lock),
    xUnlock: Some(unlock_file),
    xCheckReservedLock: Some(check_reserved_lock),
    xFileControl: Some(file_control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(device_characteristics),
    xShmMap: None,
    xShmLock: None,
    xShmBarrier: None,
    xShmUnmap: None,
    xFetch: None,
    xUnfetch: None,
};

/// Registers the file systems.
pub(super) fn register() -> Result<(), &'static str> {
    // SAFETY: SQLite returns a pointer to a file system that lives as long as the process, or null.
    let default = unsafe { ffi::sqlite3_vfs_find(std::ptr::null()).as_ref() };
    // Time, randomness and names are those of the default file system, which does not look at its argument for them.
    let default = *default.ok_or("SQLite has no file system")?;
    for (name, open) in [(VFS_NAME, open as OpenFn), (SALVAGE_VFS_NAME, open_past_damage as OpenFn)] {
        let vfs = ffi::sqlite3_vfs {
            szOsFile: size_of::<ReadFile>() as c_int,
            mxPathname: NAME_BYTES_MAX,
            pNext: std::ptr::null_mut(),
            zName: name.as_ptr(),
            xOpen: Some(open),
            xDelete: Some(delete),
            xAccess: Some(access),
            ..default
        };
        // SAFETY: the file system lives as long as the process, and all of its functions are set.
        if unsafe { ffi::sqlite3_vfs_register(Box::into_raw(Box::new(vfs)), 0) } != ffi::SQLITE_OK {
            return Err("SQLite did not accept the file system");
        }
    }
    Ok(())
}

type OpenFn = unsafe extern "C" fn(
    *mut ffi::sqlite3_vfs,
    ffi::sqlite3_filename,
    *mut ffi::sqlite3_file,
    c_int,
    *mut c_int,
) -> c_int;

unsafe extern "C" fn open(
    _: *mut ffi::sqlite3_vfs,
    name: ffi::sqlite3_filename,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    // SAFETY: the arguments are those of SQLite.
    unsafe { open_view(name, file, flags, out_flags, false) }
}

unsafe extern "C" fn open_past_damage(
    _: *mut ffi::sqlite3_vfs,
    name: ffi::sqlite3_filename,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    // SAFETY: the arguments are those of SQLite.
    unsafe { open_view(name, file, flags, out_flags, true) }
}

unsafe fn open_view(
    name: *const c_char,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
    past_damage: bool,
) -> c_int {
    let file = file.cast::<ReadFile>();
    // SAFETY: SQLite reserved szOsFile bytes for the file. Without functions it does not use a file that failed to open.
    unsafe { (*file).methods = std::ptr::null() };
    if name.is_null() || flags & ffi::SQLITE_OPEN_MAIN_DB == 0 {
        return ffi::SQLITE_CANTOPEN;
    }
    // SAFETY: the name ends with a zero byte.
    let name = unsafe { CStr::from_ptr(name) };
    let Ok(view) = FileView::open(Path::new(OsStr::from_bytes(name.to_bytes())), past_damage) else {
        return ffi::SQLITE_CANTOPEN;
    };
    // SAFETY: as above. `out_flags` is a number or null.
    unsafe {
        file.write(ReadFile { methods: &METHODS, view: Box::into_raw(Box::new(view)) });
        if !out_flags.is_null() {
            *out_flags = ffi::SQLITE_OPEN_READONLY | ffi::SQLITE_OPEN_MAIN_DB;
        }
    }
    ffi::SQLITE_OK
}

/// Returns the view of a file.
///
/// # Safety
///
/// The file must be open.
unsafe fn view<'a>(file: *mut ffi::sqlite3_file) -> &'a mut FileView {
    // SAFETY: `open_view` has filled the file, and SQLite uses it from one thread at a time.
    unsafe { &mut *(*file.cast::<ReadFile>()).view }
}

unsafe extern "C" fn close(file: *mut ffi::sqlite3_file) -> c_int {
    // SAFETY: the file is open, and SQLite does not use it after this call.
    drop(unsafe { Box::from_raw((*file.cast::<ReadFile>()).view) });
    ffi::SQLITE_OK
}

unsafe extern "C" fn read(file: *mut ffi::sqlite3_file, into: *mut c_void, bytes: c_int, at: i64) -> c_int {
    // SAFETY: the file is open, and the buffer has `bytes` bytes.
    let (view, into) =
        unsafe { (view(file), std::slice::from_raw_parts_mut(into.cast::<u8>(), bytes as usize)) };
    let number = (at / PAGE_BYTES as i64 + 1) as u32;
    let start = (at % PAGE_BYTES as i64) as usize;
    let is_within_page = start + into.len() <= PAGE_BYTES;
    let mut page: Page = [0; PAGE_BYTES];
    match view.read_for_sqlite(number, &mut page) {
        Ok(()) if is_within_page => {
            into.copy_from_slice(&page[start..start + into.len()]);
            ffi::SQLITE_OK
        }
        Ok(()) => ffi::SQLITE_IOERR_READ,
        Err(None) => ffi::SQLITE_IOERR_DATA,
        Err(Some(_)) => ffi::SQLITE_IOERR_READ,
    }
}

unsafe extern "C" fn write(_: *mut ffi::sqlite3_file, _: *const c_void, _: c_int, _: i64) -> c_int {
    ffi::SQLITE_READONLY
}

unsafe extern "C" fn truncate(_: *mut ffi::sqlite3_file, _: i64) -> c_int {
    ffi::SQLITE_READONLY
}

unsafe extern "C" fn sync(_: *mut ffi::sqlite3_file, _: c_int) -> c_int {
    ffi::SQLITE_OK
}

unsafe extern "C" fn file_size(file: *mut ffi::sqlite3_file, bytes: *mut i64) -> c_int {
    // SAFETY: the file is open, and `bytes` is a number.
    unsafe { *bytes = i64::from(view(file).page_count()) * PAGE_BYTES as i64 };
    ffi::SQLITE_OK
}

unsafe extern "C" fn lock(file: *mut ffi::sqlite3_file, level: c_int) -> c_int {
    if level > ffi::SQLITE_LOCK_SHARED {
        return ffi::SQLITE_READONLY;
    }
    // SAFETY: the file is open.
    match unsafe { view(file) }.begin() {
        Ok(()) => ffi::SQLITE_OK,
        Err(error) if error.kind() == io::ErrorKind::TimedOut => ffi::SQLITE_BUSY,
        Err(_) => ffi::SQLITE_IOERR_RDLOCK,
    }
}

unsafe extern "C" fn unlock_file(file: *mut ffi::sqlite3_file, level: c_int) -> c_int {
    if level < ffi::SQLITE_LOCK_SHARED {
        // SAFETY: the file is open.
        unsafe { view(file) }.end();
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn check_reserved_lock(_: *mut ffi::sqlite3_file, is_locked: *mut c_int) -> c_int {
    // SAFETY: SQLite passes a number.
    unsafe { *is_locked = 0 };
    ffi::SQLITE_OK
}

unsafe extern "C" fn file_control(_: *mut ffi::sqlite3_file, _: c_int, _: *mut c_void) -> c_int {
    ffi::SQLITE_NOTFOUND
}

unsafe extern "C" fn sector_size(_: *mut ffi::sqlite3_file) -> c_int {
    PAGE_BYTES as c_int
}

unsafe extern "C" fn device_characteristics(_: *mut ffi::sqlite3_file) -> c_int {
    0
}

unsafe extern "C" fn delete(_: *mut ffi::sqlite3_vfs, _: *const c_char, _: c_int) -> c_int {
    ffi::SQLITE_READONLY
}

/// Tells SQLite that no journal and no log exists.
unsafe extern "C" fn access(
    _: *mut ffi::sqlite3_vfs,
    _: *const c_char,
    _: c_int,
    exists: *mut c_int,
) -> c_int {
    // SAFETY: SQLite passes a number.
    unsafe { *exists = 0 };
    ffi::SQLITE_OK
}

/// Takes a shared lock. Returns false if the writer holds it at the moment.
pub(super) fn lock_shared(file: &File, range: LockRange) -> io::Result<bool> {
    match set_lock(file, libc::F_RDLCK, range) {
        Ok(()) => Ok(true),
        Err(error) => match error.raw_os_error() {
            Some(libc::EAGAIN | libc::EACCES) => Ok(false),
            // A file system without locks: no writer can use it either.
            Some(libc::ENOLCK | libc::EINVAL | libc::EOPNOTSUPP) => Ok(true),
            _ => Err(error),
        },
    }
}

/// Gives a lock up. Closing the file does so too.
pub(super) fn unlock(file: &File, range: LockRange) {
    let _ = set_lock(file, libc::F_UNLCK, range);
}

fn set_lock(file: &File, kind: c_int, range: LockRange) -> io::Result<()> {
    let range = libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: range.first,
        l_len: range.bytes,
        l_pid: 0,
    };
    // SAFETY: the file is open, and the range is as fcntl(2) expects it. Such a lock belongs to the open file, not to the
    // process, so that two readers in a process do not share it.
    match unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &range) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
