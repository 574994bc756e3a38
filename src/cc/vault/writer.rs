//! The writer thread: takes jobs in order and writes them at their place. It alone writes into stream files.
//!
//! A file is opened at its first write and closed when others were written more recently, so descriptors are
//! bounded. A write that fails in a way that may pass is tried again until it succeeds: the queue fills, the
//! streams wait, and TCP slows the senders down.

use std::io::{self, IoSlice};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};
use lru::LruCache;
use rustix::io::Errno;

use super::dir::VaultDir;
use super::keeper::Ended;
use super::part::{Dirty, Part};
use super::pool::Buffer;
use super::pressure::Pressure;
use crate::counters::Counters;

/// How long it counts what room was seen on the disk: others may take it.
const ROOM_EVERY: Duration = Duration::from_millis(200);

/// Files that may be open whatever the number of streams.
const FILES_MIN: usize = 32;

/// What the writer does next.
pub enum Job {
    /// Put `head`, then `body`, at offset `at` of the part's file.
    Write {
        /// Where to.
        part: Arc<Part>,
        /// The offset.
        at: u64,
        /// Bytes that were kept back.
        head: Vec<u8>,
        /// Bytes of a buffer.
        body: Option<(Buffer, Range<usize>)>,
    },
    /// All of the part's bytes are written: close its file and hand it to the keeper.
    Close(Ended),
}

/// The calls that the writer makes, so that tests can fail each of them.
pub trait Disk {
    /// An open file.
    type File;
    /// Opens an existing stream file to write into it.
    fn open(&self, file: &str) -> io::Result<Self::File>;
    /// Writes at an offset; may write less.
    fn write_at(&self, file: &Self::File, at: u64, bytes: &[IoSlice<'_>]) -> io::Result<usize>;
    /// Bytes that may still be written.
    fn free_bytes(&self) -> io::Result<u64>;
}

impl Disk for Arc<VaultDir> {
    type File = std::os::fd::OwnedFd;

    fn open(&self, file: &str) -> io::Result<Self::File> {
        self.open_to_write(file)
    }

    fn write_at(&self, file: &Self::File, at: u64, bytes: &[IoSlice<'_>]) -> io::Result<usize> {
        Ok(rustix::io::pwritev(file, bytes, at)?)
    }

    fn free_bytes(&self) -> io::Result<u64> {
        VaultDir::free_bytes(self)
    }
}

/// What the writer works with.
pub struct Writer<D: Disk> {
    /// Where files are.
    pub disk: D,
    /// Open files by part.
    pub files: LruCache<u64, D::File>,
    /// Descriptors that streams and their files share.
    pub descriptors: usize,
    /// Bytes that must stay free.
    pub free_bytes_min: u64,
    /// The state of the disk.
    pub pressure: Arc<Pressure>,
    /// Parts that need a sync.
    pub dirty: Arc<Dirty>,
    /// What is counted.
    pub counters: Arc<Counters>,
    /// To the keeper.
    pub ended: Sender<Ended>,
    /// The room that was last seen.
    pub room: Option<Room>,
}

/// Room on the disk above what is to stay free.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    seen_at: Instant,
    bytes: u64,
}

impl<D: Disk> Writer<D> {
    /// Works until the last sender of jobs is gone.
    pub fn run(mut self, jobs: Receiver<Job>) {
        for job in jobs {
            match job {
                Job::Write { part, at, head, body } => {
                    let body = body.as_ref().map_or(&[][..], |(buffer, range)| &buffer[range.clone()]);
                    self.write(&part, at, &head, body);
                }
                Job::Close(ended) => {
                    self.files.pop(&ended.part.id);
                    // The keeper outlives the writer; if it failed, its own error is the one reported.
                    let _ = self.ended.send(ended);
                }
            }
        }
    }

    fn write(&mut self, part: &Arc<Part>, at: u64, head: &[u8], body: &[u8]) {
        let bytes = (head.len() + body.len()) as u64;
        let mut done = 0;
        while done < bytes && !part.is_broken() {
            match self.write_some(part, at + done, skip(head, body, done as usize)) {
                Ok(n) => done += n as u64,
                Err(error) => {
                    log::error!("write_failed file={} at={} error=\"{error}\"", part.file, at + done);
                    break;
                }
            }
        }
        if done < bytes {
            part.lose(bytes - done);
            self.counters.lost_bytes_total.add(bytes - done);
        }
        self.counters.written_bytes_total.add(done);
        if done > 0 && part.soil() {
            self.dirty.add(part);
        }
    }

    /// Closes the files that were not written for longest, until another one may be opened.
    fn make_room(&mut self) {
        let streams = usize::try_from(self.counters.streams_open.get()).unwrap_or(usize::MAX);
        let files_max = self.descriptors.saturating_sub(streams).max(FILES_MIN);
        while self.files.len() >= files_max {
            self.files.pop_lru();
        }
    }

    /// One write, tried until it succeeds.
    fn write_some(&mut self, part: &Part, at: u64, slices: [&[u8]; 2]) -> io::Result<usize> {
        if !self.files.contains(&part.id) {
            self.make_room();
        }
        let Writer { disk, files, free_bytes_min, pressure, counters, room, .. } = self;
        let wanted = (slices[0].len() + slices[1].len()) as u64;
        pressure.persist("write", &part.file, || {
            if *free_bytes_min > 0 {
                look_for_room(disk, room, *free_bytes_min, wanted)?;
            }
            let file = files.try_get_or_insert(part.id, || disk.open(&part.file))?;
            let written = match slices {
                [[], body] => disk.write_at(file, at, &[IoSlice::new(body)]),
                [head, body] => disk.write_at(file, at, &[IoSlice::new(head), IoSlice::new(body)]),
            };
            counters.writes_total.one();
            match written? {
                0 => Err(Errno::NOSPC.into()),
                n => {
                    if let Some(room) = room {
                        room.bytes = room.bytes.saturating_sub(n as u64);
                    }
                    Ok(n)
                }
            }
        })
    }
}

/// Sees to it that a write of `wanted` bytes leaves `free_bytes_min` bytes free. What was seen a moment ago and not
/// written since need not be looked at again.
fn look_for_room(
    disk: &impl Disk,
    room: &mut Option<Room>,
    free_bytes_min: u64,
    wanted: u64,
) -> io::Result<()> {
    if room.is_some_and(|room| room.bytes >= wanted && room.seen_at.elapsed() < ROOM_EVERY) {
        return Ok(());
    }
    *room = None;
    match disk.free_bytes()?.checked_sub(free_bytes_min) {
        Some(bytes) if bytes >= wanted => {
            *room = Some(Room { seen_at: Instant::now(), bytes });
            Ok(())
        }
        _ => Err(Errno::NOSPC.into()),
    }
}

/// What is left of `head` and `body` after their first `done` bytes.
fn skip<'a>(head: &'a [u8], body: &'a [u8], done: usize) -> [&'a [u8]; 2] {
    match done.checked_sub(head.len()) {
        None => [&head[done..], body],
        Some(of_body) => [&[], &body[of_body..]],
    }
}

/// The open files. Their number follows that of the streams, so it is bounded where files are opened.
pub fn files<F>() -> LruCache<u64, F> {
    LruCache::unbounded()
}
