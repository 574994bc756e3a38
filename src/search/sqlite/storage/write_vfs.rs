//! The virtual file system of the writer: that of SQLite for Unix, with checksums in the pages of the database and over
//! those of its log.
//!
//! This module uses `unsafe`. It relies on this: a virtual file system of SQLite can be copied, and a file that was opened
//! through it works with a copy of its table of functions. So only the functions that read and write are replaced, and they
//! call the original ones. The tables live as long as the process.

#![allow(unsafe_code)]

use std::collections::HashMap;
use std::ffi::{CStr, c_int, c_void};
use std::sync::{Mutex, OnceLock, PoisonError, RwLock};

use rusqlite::{Connection, ffi};

use super::damage::{self, Damage};
use super::log;
use super::page::{self, PAGE_BYTES, Page, RESERVED_BYTES};

pub(in crate::search::sqlite) const VFS_NAME: &CStr = c"lea";

/// The file system of SQLite for Unix, and the functions of its files. SQLite calls them from any thread.
struct Unix {
    vfs: *mut ffi::sqlite3_vfs,
    /// Files of databases and of logs have different functions.
    database: OnceLock<Methods>,
    log: OnceLock<Methods>,
    /// Size of a file of `vfs`. The identity of our file follows.
    file_bytes: usize,
}

/// Functions of files.
struct Methods {
    original: ffi::sqlite3_io_methods,
    /// The same, with those of this module.
    replaced: ffi::sqlite3_io_methods,
}

// SAFETY: the file system of SQLite may be used by several threads, and it is never freed.
unsafe impl Send for Unix {}
// SAFETY: as above.
unsafe impl Sync for Unix {}

static UNIX: OnceLock<Unix> = OnceLock::new();

/// CRC-32C of the page of each frame that this process wrote to a log, by the number of the frame.
type FrameSums = RwLock<HashMap<u64, u32>>;

/// The logs that were opened, by name. An entry is never freed, so files can refer to it.
static LOGS: Mutex<Vec<(Vec<u8>, &'static FrameSums)>> = Mutex::new(Vec::new());

/// What follows the file of SQLite in memory: the sums of a log, or null.
#[repr(C)]
struct Extra {
    sums: *const FrameSums,
}

/// Registers the file system.
pub(super) fn register() -> Result<(), &'static str> {
    // SAFETY: SQLite returns a pointer to a file system that lives as long as the process, or null.
    let vfs = unsafe { ffi::sqlite3_vfs_find(c"unix".as_ptr()) };
    if vfs.is_null() {
        return Err("SQLite has no file system for Unix");
    }
    // SAFETY: it points to a file system.
    let mut own = unsafe { *vfs };
    let file_bytes = (own.szOsFile as usize).next_multiple_of(align_of::<Extra>());
    own.szOsFile = (file_bytes + size_of::<Extra>()) as c_int;
    own.zName = VFS_NAME.as_ptr();
    own.xOpen = Some(open);
    own.pNext = std::ptr::null_mut();
    let _ = UNIX.set(Unix { vfs, database: OnceLock::new(), log: OnceLock::new(), file_bytes });
    // SAFETY: the file system lives as long as the process, and all of its functions are set.
    match unsafe { ffi::sqlite3_vfs_register(Box::into_raw(Box::new(own)), 0) } {
        ffi::SQLITE_OK => Ok(()),
        _ => Err("SQLite did not accept the file system"),
    }
}

/// Returns what follows a file.
///
/// # Safety
///
/// The file must be one of this file system.
unsafe fn extra(file: *mut ffi::sqlite3_file) -> *mut Extra {
    let bytes = UNIX.get().map_or(0, |unix| unix.file_bytes);
    // SAFETY: SQLite reserved szOsFile bytes for the file.
    unsafe { file.byte_add(bytes).cast() }
}

unsafe extern "C" fn open(
    _: *mut ffi::sqlite3_vfs,
    name: ffi::sqlite3_filename,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    let Some(unix) = UNIX.get() else { return ffi::SQLITE_CANTOPEN };
    // SAFETY: the arguments are those of SQLite, for the file system that they are passed on to.
    unsafe {
        let Some(open) = (*unix.vfs).xOpen else { return ffi::SQLITE_CANTOPEN };
        let result = open(unix.vfs, name, file, flags, out_flags);
        (*extra(file)).sums = std::ptr::null();
        if result != ffi::SQLITE_OK || (*file).pMethods.is_null() {
            return result;
        }
        let original = *(*file).pMethods;
        let methods = |read, write| Methods {
            original,
            replaced: ffi::sqlite3_io_methods { xRead: Some(read), xWrite: Some(write), ..original },
        };
        if flags & ffi::SQLITE_OPEN_MAIN_DB != 0 {
            (*file).pMethods = &unix.database.get_or_init(|| methods(read_database, write_database)).replaced;
        } else if flags & ffi::SQLITE_OPEN_WAL != 0 && !name.is_null() {
            (*extra(file)).sums = sums_of(CStr::from_ptr(name).to_bytes());
            (*file).pMethods = &unix.log.get_or_init(|| methods(read_log, write_log)).replaced;
        }
        result
    }
}

/// Returns the sums of a log.
fn sums_of(name: &[u8]) -> &'static FrameSums {
    let mut logs = LOGS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, sums)) = logs.iter().find(|(known, _)| known == name) {
        return sums;
    }
    let sums: &'static FrameSums = Box::leak(Box::default());
    logs.push((name.to_owned(), sums));
    sums
}

/// Forgets the sums of a log that another process may have written.
pub(in crate::search::sqlite) fn forget_log(name: &[u8]) {
    let logs = LOGS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, sums)) = logs.iter().find(|(known, _)| known == name) {
        sums.write().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// Makes SQLite leave room for checksums at the end of each page. Has an effect only before the first write.
pub(in crate::search::sqlite) fn reserve_page_bytes(connection: &Connection) -> rusqlite::Result<()> {
    let mut bytes = RESERVED_BYTES as c_int;
    // SAFETY: the connection is open, and the operation takes a number.
    let result = unsafe {
        ffi::sqlite3_file_control(
            connection.handle(),
            std::ptr::null(),
            ffi::SQLITE_FCNTL_RESERVE_BYTES,
            std::ptr::from_mut(&mut bytes).cast(),
        )
    };
    match result {
        ffi::SQLITE_OK => Ok(()),
        code => Err(rusqlite::Error::SqliteFailure(ffi::Error::new(code), None)),
    }
}

/// Returns the original functions of databases, or of logs.
fn originals(is_log: bool) -> Option<&'static ffi::sqlite3_io_methods> {
    let unix = UNIX.get()?;
    let methods = if is_log { unix.log.get() } else { unix.database.get() };
    methods.map(|methods| &methods.original)
}

unsafe extern "C" fn read_database(
    file: *mut ffi::sqlite3_file,
    into: *mut c_void,
    bytes: c_int,
    at: i64,
) -> c_int {
    let (number, start) = ((at / PAGE_BYTES as i64 + 1) as u32, (at % PAGE_BYTES as i64) as usize);
    // SAFETY: SQLite passes a buffer of `bytes` bytes.
    unsafe {
        if start == 0 && bytes == PAGE_BYTES as c_int {
            return read_page(file, into.cast(), number);
        }
        // SQLite reads parts of pages too: the header, and the content of large values.
        let mut page: Page = [0; PAGE_BYTES];
        if start + bytes as usize > PAGE_BYTES {
            damage::report(Damage::Page(number));
            return ffi::SQLITE_IOERR_DATA;
        }
        let result = read_page(file, &mut page, number);
        std::ptr::copy_nonoverlapping(page[start..].as_ptr(), into.cast::<u8>(), bytes as usize);
        result
    }
}

/// Reads a page and checks it.
unsafe fn read_page(file: *mut ffi::sqlite3_file, into: *mut Page, number: u32) -> c_int {
    // SAFETY: the caller passes a page.
    let (result, page) = unsafe {
        let at = i64::from(number - 1) * PAGE_BYTES as i64;
        let Some(read) = originals(false).and_then(|methods| methods.xRead) else {
            return ffi::SQLITE_IOERR_READ;
        };
        (read(file, into.cast(), PAGE_BYTES as c_int, at), &*into)
    };
    let damage = match result {
        ffi::SQLITE_OK if page::is_sound(number, page) => return ffi::SQLITE_OK,
        ffi::SQLITE_OK => Damage::Page(number),
        // SAFETY: the file is open.
        ffi::SQLITE_IOERR_SHORT_READ if !unsafe { is_empty(file) } => Damage::MissingPage(number),
        other => return other,
    };
    damage::report(damage);
    ffi::SQLITE_IOERR_DATA
}

unsafe fn is_empty(file: *mut ffi::sqlite3_file) -> bool {
    let mut bytes = 0;
    match originals(false).and_then(|methods| methods.xFileSize) {
        // SAFETY: the file is open, and the size has the type that SQLite expects.
        Some(size) => unsafe { size(file, &mut bytes) == ffi::SQLITE_OK && bytes == 0 },
        None => false,
    }
}

unsafe extern "C" fn write_database(
    file: *mut ffi::sqlite3_file,
    from: *const c_void,
    bytes: c_int,
    at: i64,
) -> c_int {
    let Some(write) = originals(false).and_then(|methods| methods.xWrite) else {
        return ffi::SQLITE_IOERR_WRITE;
    };
    if bytes != PAGE_BYTES as c_int || at % PAGE_BYTES as i64 != 0 {
        return ffi::SQLITE_IOERR_WRITE;
    }
    let mut page: Page = [0; PAGE_BYTES];
    // SAFETY: SQLite passes a buffer of `bytes` bytes.
    unsafe {
        std::ptr::copy_nonoverlapping(from.cast::<u8>(), page.as_mut_ptr(), PAGE_BYTES);
        page::seal((at / PAGE_BYTES as i64 + 1) as u32, &mut page);
        write(file, page.as_ptr().cast(), bytes, at)
    }
}

/// Returns the sums of a log and the number of the frame, if the bytes are the page of a frame.
unsafe fn frame<'a>(file: *mut ffi::sqlite3_file, bytes: c_int, at: i64) -> Option<(&'a FrameSums, u64)> {
    let number = log::frame_of_page_offset(u64::try_from(at).ok()?)?;
    // SAFETY: the file is one of this file system, and the sums of a log are never freed.
    let sums = unsafe { (*extra(file)).sums.as_ref() }?;
    (bytes == PAGE_BYTES as c_int).then_some((sums, number))
}

unsafe extern "C" fn read_log(
    file: *mut ffi::sqlite3_file,
    into: *mut c_void,
    bytes: c_int,
    at: i64,
) -> c_int {
    let Some(read) = originals(true).and_then(|methods| methods.xRead) else {
        return ffi::SQLITE_IOERR_READ;
    };
    // SAFETY: SQLite passes a buffer of `bytes` bytes.
    unsafe {
        let result = read(file, into, bytes, at);
        let Some((sums, number)) = frame(file, bytes, at) else { return result };
        if result != ffi::SQLITE_OK {
            return result;
        }
        let page = std::slice::from_raw_parts(into.cast::<u8>(), PAGE_BYTES);
        let sum = sums.read().unwrap_or_else(PoisonError::into_inner).get(&number).copied();
        if sum.is_none_or(|sum| sum == crc32c::crc32c(page)) {
            return ffi::SQLITE_OK;
        }
        damage::report(Damage::LogFrame(number));
        ffi::SQLITE_IOERR_DATA
    }
}

unsafe extern "C" fn write_log(
    file: *mut ffi::sqlite3_file,
    from: *const c_void,
    bytes: c_int,
    at: i64,
) -> c_int {
    let Some(write) = originals(true).and_then(|methods| methods.xWrite) else {
        return ffi::SQLITE_IOERR_WRITE;
    };
    // SAFETY: SQLite passes a buffer of `bytes` bytes.
    unsafe {
        let result = write(file, from, bytes, at);
        if let Some((sums, number)) = frame(file, bytes, at).filter(|_| result == ffi::SQLITE_OK) {
            let page = std::slice::from_raw_parts(from.cast::<u8>(), PAGE_BYTES);
            sums.write().unwrap_or_else(PoisonError::into_inner).insert(number, crc32c::crc32c(page));
        }
        result
    }
}
