//! A consistent state of the database for a reader that changes nothing: events.db, and over it the pages of the log.
//!
//! A writer in another process moves pages of the log to events.db, begins the log anew, and removes it at its end. While
//! a reader reads, it holds locks of SQLite, shared, which prevent that: one on events.db, and two on events.db-shm. Locks
//! are not content: the files are opened read-only. This is not for the process of the writer: closing a file there
//! releases the locks of the writer on it.
//!
//! Without events.db-shm there is no writer; if one starts meanwhile, the read is repeated
//! ([`damage::take_mixed_state`]).

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, Mode, OFlags, openat};

use super::damage::{self, Damage};
use super::log::{self, LogIndex};
use super::page::{self, PAGE_BYTES, Page, number_at};
use super::read_vfs::LockRange;
use super::{beside, read_vfs};

/// How long a reader waits for a writer that moves pages at the moment.
const LOCK_WAIT: Duration = Duration::from_secs(30);
const LOCK_PAUSE: Duration = Duration::from_millis(2);

/// The state.
#[derive(Debug)]
pub(in crate::search::sqlite) struct FileView {
    path: PathBuf,
    database: File,
    log: Option<File>,
    index: LogIndex,
    shared: Option<File>,
    page_count: u32,
    /// Changes with each state, so that SQLite drops its cache.
    generation: u32,
    /// Read past damage of the log.
    past_damage: bool,
}

fn open(path: &Path) -> io::Result<Option<File>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    match openat(CWD, path, flags, Mode::empty()) {
        Ok(file) => Ok(Some(file.into())),
        Err(rustix::io::Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

impl FileView {
    pub(in crate::search::sqlite) fn open(path: &Path, past_damage: bool) -> io::Result<FileView> {
        let database = open(path)?.ok_or(io::ErrorKind::NotFound)?;
        Ok(FileView {
            path: path.to_owned(),
            database,
            log: None,
            index: LogIndex::default(),
            shared: None,
            page_count: 0,
            generation: 0,
            past_damage,
        })
    }

    /// Takes the newest state and holds it until [`end`](Self::end).
    pub(in crate::search::sqlite) fn begin(&mut self) -> io::Result<()> {
        let locked = self.lock();
        let taken = locked.and_then(|()| self.take_state());
        if taken.is_err() {
            self.end();
        }
        taken
    }

    fn lock(&mut self) -> io::Result<()> {
        let deadline = Instant::now() + LOCK_WAIT;
        wait_for_lock(&self.database, read_vfs::DATABASE_LOCK, deadline)?;
        let path = beside(&self.path, "-shm");
        if !self.shared.as_ref().is_some_and(|file| is_same(file, &path)) {
            // A user who may read events.db may read this file too: SQLite gives it the same permissions.
            self.shared = open(&path)?;
        }
        match &self.shared {
            Some(shared) => wait_for_lock(shared, read_vfs::LOG_LOCKS, deadline),
            None => Ok(()),
        }
    }

    fn take_state(&mut self) -> io::Result<()> {
        let path = beside(&self.path, "-wal");
        let mut changed = self.generation == 0;
        if !self.log.as_ref().is_some_and(|file| is_same(file, &path)) {
            self.log = open(&path)?;
            self.index = LogIndex::default();
            changed = true;
        }
        if let Some(log) = &self.log {
            changed |= self.index.refresh(log, self.past_damage)?;
        }
        let before = self.page_count;
        self.page_count = match self.index.database_pages() {
            Some(pages) => pages,
            None => self.stored_page_count()?,
        };
        if changed || self.page_count != before {
            self.generation = self.generation.wrapping_add(1).max(1);
        }
        Ok(())
    }

    /// Returns the size that the first page of events.db states.
    fn stored_page_count(&self) -> io::Result<u32> {
        let bytes = self.database.metadata()?.len();
        if bytes == 0 {
            return Ok(0);
        }
        let pages = u32::try_from(bytes.div_ceil(PAGE_BYTES as u64)).unwrap_or(u32::MAX);
        let mut first = [0; PAGE_BYTES];
        Ok(match self.read_stored(1, &mut first)? {
            None => number_at(&first, 28),
            // The next read of the first page returns the damage.
            Some(_) => pages,
        })
    }

    /// Gives the state up.
    pub(in crate::search::sqlite) fn end(&mut self) {
        if self.has_lost_state() {
            damage::report_mixed_state();
        }
        if let Some(shared) = &self.shared {
            read_vfs::unlock(shared, read_vfs::LOG_LOCKS);
        }
        read_vfs::unlock(&self.database, read_vfs::DATABASE_LOCK);
    }

    /// Returns whether a writer started since the state was taken, so that what was read may be of two states.
    fn has_lost_state(&self) -> bool {
        self.shared.is_none() && beside(&self.path, "-shm").exists()
    }

    pub(in crate::search::sqlite) fn page_count(&self) -> u32 {
        self.page_count
    }

    /// Reads a page. Returns the damage if it is not as it was written.
    pub(in crate::search::sqlite) fn read_page(
        &self,
        number: u32,
        page: &mut Page,
    ) -> io::Result<Option<Damage>> {
        let (Some(log), Some(logged)) = (&self.log, self.index.get(number)) else {
            return self.read_stored(number, page);
        };
        log::read_frame_page(log, logged.frame, page)?;
        let is_sound = logged.crc == Some(crc32c::crc32c(&page[..]));
        Ok((!is_sound).then_some(Damage::LogFrame(logged.frame)))
    }

    fn read_stored(&self, number: u32, page: &mut Page) -> io::Result<Option<Damage>> {
        let offset = u64::from(number.saturating_sub(1)) * PAGE_BYTES as u64;
        match self.database.read_exact_at(page, offset) {
            Ok(()) if page::is_sound(number, page) => Ok(None),
            Ok(()) => Ok(Some(Damage::Page(number))),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Ok(Some(Damage::MissingPage(number)))
            }
            Err(error) => Err(error),
        }
    }

    /// Reads a page as SQLite is to see it: a database without a log. `Err(None)` is damage, which was reported.
    pub(super) fn read_for_sqlite(&self, number: u32, page: &mut Page) -> Result<(), Option<io::Error>> {
        if let Some(found) = self.read_page(number, page).map_err(Some)? {
            damage::report(found);
            return Err(None);
        }
        if number == 1 {
            page[18..20].copy_from_slice(&[1, 1]);
            page[24..28].copy_from_slice(&self.generation.to_be_bytes());
            page[28..32].copy_from_slice(&self.page_count.to_be_bytes());
            page[92..96].copy_from_slice(&self.generation.to_be_bytes());
        }
        Ok(())
    }

    /// Returns what is damaged in a range of pages. Pages that are free may never have been written.
    pub(in crate::search::sqlite) fn damaged_pages(&self, pages: Range<u32>) -> io::Result<Vec<Damage>> {
        let (mut found, mut unwritten) = (Vec::new(), Vec::new());
        let mut page = [0; PAGE_BYTES];
        for number in pages.filter(|&number| number != page::LOCK_PAGE) {
            let Some(damage) = self.read_page(number, &mut page)? else { continue };
            let may_be_free = match damage {
                Damage::Page(_) => page.iter().all(|&byte| byte == 0),
                Damage::MissingPage(_) => true,
                Damage::LogFrame(_) => false,
            };
            if may_be_free {
                unwritten.push((number, damage));
            } else {
                found.push(damage);
            }
        }
        if !unwritten.is_empty() {
            let free = self.free_pages()?;
            let used = unwritten.into_iter().filter(|(number, _)| !free.contains(*number));
            found.extend(used.map(|(_, damage)| damage));
        }
        Ok(found)
    }

    /// Returns the free pages without content: the leaves of the list of free pages, as far as it can be read.
    pub(in crate::search::sqlite) fn free_pages(&self) -> io::Result<roaring::RoaringBitmap> {
        let (mut free, mut trunks) = (roaring::RoaringBitmap::new(), roaring::RoaringBitmap::new());
        let mut page = [0; PAGE_BYTES];
        if self.page_count == 0 || self.read_page(1, &mut page)?.is_some() {
            return Ok(free);
        }
        let mut trunk = number_at(&page, 32);
        while trunk != 0 && trunks.insert(trunk) && self.read_page(trunk, &mut page)?.is_none() {
            let leaves = (number_at(&page, 4) as usize).min(PAGE_BYTES / 4 - 2);
            free.extend((0..leaves).map(|leaf| number_at(&page, 8 + 4 * leaf)));
            trunk = number_at(&page, 0);
        }
        Ok(free)
    }
}

fn wait_for_lock(file: &File, range: LockRange, deadline: Instant) -> io::Result<()> {
    while !read_vfs::lock_shared(file, range)? {
        if Instant::now() > deadline {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "the writer holds its lock"));
        }
        std::thread::sleep(LOCK_PAUSE);
    }
    Ok(())
}

/// Returns whether a file is still the one at a path.
fn is_same(file: &File, path: &Path) -> bool {
    match (file.metadata(), std::fs::symlink_metadata(path)) {
        (Ok(one), Ok(other)) => (one.dev(), one.ino()) == (other.dev(), other.ino()),
        _ => false,
    }
}
