//! Thread `writer`: writes the queued bytes to the stream files, in order. No other thread writes to them.
//!
//! A file is opened at its first write and closed after the most recently written ones are too many, so the
//! number of descriptors is bounded. A write that fails with a transient error is retried until it succeeds:
//! the queue fills up, the streams block, and TCP slows the senders down.

use std::io::{self, IoSlice};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};
use lru::LruCache;
use rustix::io::Errno;

use super::backlog::QueuedBytes;
use super::checkpoint::CheckpointBatch;
use super::dir::VaultDir;
use super::disk_retry::DiskRetry;
use super::part::{DirtyParts, StreamPart};
use super::pool::Buffer;
use super::syncer::{EndedStream, SyncJob};
use crate::runtime::health::Problem;
use crate::runtime::metrics::Metrics;

/// Time for which a measurement of the free space is used. Other processes also use the disk.
const FREE_SPACE_MAX_AGE: Duration = Duration::from_millis(200);

/// Number of files that may be open regardless of the number of streams.
const FILES_MIN: usize = 32;

/// A job for the writer thread.
pub(super) enum WriteJob {
    /// Writes `head`, then `body`, at offset `at` of the part's file.
    Write {
        part: Arc<StreamPart>,
        at: u64,
        /// Bytes of a partial packet that were held back.
        head: QueuedBytes,
        /// A range of a pool buffer.
        body: Option<(Buffer, Range<usize>)>,
        /// Number of bytes at the start of the buffer to hash first.
        hashed: usize,
    },
    /// All bytes of the part are queued: closes its file and hands the stream to the syncer.
    Close(EndedStream),
    /// Wakes the sender when all earlier jobs are hashed. The hasher consumes it.
    HashBarrier(Sender<()>),
    /// All bytes of the checkpoint are queued before it: forwards it to the syncer.
    Checkpoint(CheckpointBatch),
}

/// File system calls of the writer, so that tests can inject faults.
pub(super) trait StreamDisk {
    type File;
    /// Opens an existing stream file for writing.
    fn open(&self, file: &str) -> io::Result<Self::File>;
    /// Writes at an offset. May write less than requested.
    fn write_at(&self, file: &Self::File, at: u64, bytes: &[IoSlice<'_>]) -> io::Result<usize>;
    /// Returns the bytes that can still be written.
    fn free_bytes(&self) -> io::Result<u64>;
}

impl StreamDisk for Arc<VaultDir> {
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

/// State of the writer thread.
pub(super) struct DiskWriter<D: StreamDisk> {
    pub disk: D,
    /// Open files by part id.
    pub files: LruCache<u64, D::File>,
    /// Descriptors shared by connections and stream files.
    pub descriptors: usize,
    /// Bytes that must stay free.
    pub free_bytes_min: u64,
    pub disk_retry: Arc<DiskRetry>,
    /// Parts that need an fsync.
    pub dirty: Arc<DirtyParts>,
    pub metrics: Arc<Metrics>,
    /// Queue to the syncer.
    pub sync_jobs: Sender<SyncJob>,
    /// Last measurement of the free space.
    pub free_space: Option<FreeSpace>,
}

/// Free space beyond the reserve.
#[derive(Clone, Copy, Debug)]
pub(super) struct FreeSpace {
    seen_at: Instant,
    bytes: u64,
}

impl<D: StreamDisk> DiskWriter<D> {
    /// Runs until all senders of jobs have ended.
    pub(super) fn run(mut self, jobs: Receiver<WriteJob>) {
        for job in jobs {
            match job {
                WriteJob::Write { part, at, head, body, .. } => {
                    let body = body.as_ref().map_or(&[][..], |(buffer, range)| &buffer[range.clone()]);
                    self.write(&part, at, &head, body);
                }
                WriteJob::Close(ended) => {
                    self.files.pop(&ended.part.id);
                    // The syncer outlives the writer. If it failed, its own error is reported.
                    let _ = self.sync_jobs.send(SyncJob::Ended(ended));
                }
                WriteJob::HashBarrier(_) => {}
                WriteJob::Checkpoint(round) => {
                    let _ = self.sync_jobs.send(SyncJob::Checkpoint(round));
                }
            }
        }
    }

    fn write(&mut self, part: &Arc<StreamPart>, at: u64, head: &[u8], body: &[u8]) {
        let bytes = (head.len() + body.len()) as u64;
        let mut done = 0;
        while done < bytes && !part.is_broken() {
            match self.write_once(part, at + done, remaining_slices(head, body, done as usize)) {
                Ok(n) => done += n as u64,
                Err(error) => {
                    log::error!("write_failed file={} at={} error=\"{error}\"", part.file, at + done);
                    self.metrics.health.raise(Problem::StorageFailed);
                    break;
                }
            }
        }
        if done < bytes {
            part.mark_broken(bytes - done);
            self.metrics.lost_bytes_total.add(bytes - done);
        }
        self.metrics.written_bytes_total.add(done);
        part.mark_written(at + done);
        if done > 0 && part.mark_dirty() {
            self.dirty.add(part);
        }
    }

    /// Closes the least recently written files until another one may be opened.
    fn close_idle_files(&mut self) {
        let streams = usize::try_from(self.metrics.streams_open.get()).unwrap_or(usize::MAX);
        let files_max = self.descriptors.saturating_sub(streams).max(FILES_MIN);
        while self.files.len() >= files_max {
            self.files.pop_lru();
        }
    }

    /// Writes once. Retries transient errors.
    fn write_once(&mut self, part: &StreamPart, at: u64, slices: [&[u8]; 2]) -> io::Result<usize> {
        if !self.files.contains(&part.id) {
            self.close_idle_files();
        }
        let DiskWriter {
            disk, files, free_bytes_min, disk_retry: pressure, metrics, free_space: room, ..
        } = self;
        let wanted = (slices[0].len() + slices[1].len()) as u64;
        pressure.retry("write", &part.file, || {
            if *free_bytes_min > 0 {
                check_free_space(disk, room, *free_bytes_min, wanted)?;
            }
            let file = files.try_get_or_insert(part.id, || disk.open(&part.file))?;
            let written = match slices {
                [[], body] => disk.write_at(file, at, &[IoSlice::new(body)]),
                [head, body] => disk.write_at(file, at, &[IoSlice::new(head), IoSlice::new(body)]),
            };
            metrics.writes_total.inc();
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

/// Checks that a write of `wanted` bytes leaves `free_bytes_min` bytes free. Uses a recent measurement,
/// reduced by what was written since.
fn check_free_space(
    disk: &impl StreamDisk,
    room: &mut Option<FreeSpace>,
    free_bytes_min: u64,
    wanted: u64,
) -> io::Result<()> {
    if room.is_some_and(|room| room.bytes >= wanted && room.seen_at.elapsed() < FREE_SPACE_MAX_AGE) {
        return Ok(());
    }
    *room = None;
    match disk.free_bytes()?.checked_sub(free_bytes_min) {
        Some(bytes) if bytes >= wanted => {
            *room = Some(FreeSpace { seen_at: Instant::now(), bytes });
            Ok(())
        }
        _ => Err(Errno::NOSPC.into()),
    }
}

/// Returns what remains of `head` and `body` after `done` bytes.
fn remaining_slices<'a>(head: &'a [u8], body: &'a [u8], done: usize) -> [&'a [u8]; 2] {
    match done.checked_sub(head.len()) {
        None => [&head[done..], body],
        Some(of_body) => [&[], &body[of_body..]],
    }
}

/// Creates the cache of open files. `close_idle_files` limits its size according to the number of streams.
pub(super) fn open_files<F>() -> LruCache<u64, F> {
    LruCache::unbounded()
}

#[cfg(test)]
mod tests;
