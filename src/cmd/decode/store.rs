//! Chunks into the vault. Runs in the main thread; many streams are open at once, and the ones that were quiet longest
//! are closed when there are too many: a stream that comes again goes on where it ended.

use std::io;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use lru::LruCache;

use crate::cc::chunk_sink::{ChunkSink, Untaken};
use crate::cc::frame::chunk::{Chunk, Data};
use crate::cc::frame::dump::Position;
use crate::cc::frame::handshake::starts_capture;
use crate::cc::vault::manifest::{EndReason, Source};
use crate::cc::vault::pool::Size;
use crate::cc::vault::time::now_ms;
use crate::cc::vault::{Access, Head, Intake, Origin, Probe, Vault, VaultConfig, VaultThreads};
use crate::counters::Counters;
use crate::limits::Machine;
use crate::{Error, Result};

/// Streams open at once: each has some 3 KiB, so all stay below 256 MiB. One that is opened again costs two manifests
/// and a sync.
const STREAMS_OPEN_MAX: NonZeroUsize = NonZeroUsize::new(65_536).expect("it is not 0");

/// Descriptors for their files: writes are large, so more would not be faster.
const DESCRIPTORS_MAX: usize = 1024;

/// Bytes gathered for a stream before they go to the vault.
const STAGE_BYTES: usize = 64 << 10;

/// The least room that a stream gathers in.
const STAGE_BYTES_MIN: usize = 4 << 10;

/// Bytes gathered for all streams together.
const STAGED_BYTES_MAX: usize = 64 << 20;

/// Two captures that begin with the same so many bytes are one that is sent again: a pcap's whole file header.
const HEAD_BYTES: usize = 24;

/// Stores chunks.
pub struct Store {
    vault: Vault,
    open: LruCache<Box<str>, Stream>,
    /// Room of all stages.
    staged_bytes: usize,
    stored: Stored,
}

/// What was stored.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stored {
    /// Streams; one that was closed and came again counts again.
    pub streams: usize,
    /// Bytes of their content.
    pub bytes: u64,
}

struct Stream {
    intake: Intake,
    /// The first bytes since it was opened, if it was opened at its begin.
    head: Vec<u8>,
    stage: Vec<u8>,
    staged: usize,
}

/// Nobody can be asked whether a record's sender is still there.
struct NoPeer;

impl Probe for NoPeer {
    fn probe(&self, _: bool) {}
}

impl Store {
    /// Opens the folder and starts the vault.
    pub fn open(dir: &Path) -> Result<(Store, VaultThreads)> {
        let config = VaultConfig {
            dir: dir.to_owned(),
            access: Access { file_mode: 0o600, group: None },
            hash: true,
            pending_bytes_max: 64 << 20,
            descriptors: Machine::prepare().descriptors_shared().min(DESCRIPTORS_MAX),
            free_bytes_min: 16 << 20,
            sync_interval: Duration::from_secs(1),
        };
        let (vault, threads) = Vault::spawn(&config, Arc::new(Counters::default()))?;
        let open = LruCache::new(STREAMS_OPEN_MAX);
        Ok((Store { vault, open, staged_bytes: 0, stored: Stored::default() }, threads))
    }

    /// Ends all streams. The vault's threads end with it.
    pub fn finish(mut self) -> Result<Stored> {
        while let Some((_, stream)) = self.open.pop_lru() {
            stream.end(&self.vault).map_err(failed)?;
        }
        Ok(self.stored)
    }

    /// Opens a stream that begins, or goes on, with `data`.
    fn begin(
        &mut self,
        name: &str,
        position: Option<&Position<'_>>,
        data: Vec<u8>,
        bytes: usize,
    ) -> io::Result<()> {
        if self.open.len() == STREAMS_OPEN_MAX.get()
            && let Some((_, quiet)) = self.open.pop_lru()
        {
            self.staged_bytes -= quiet.stage.len();
            quiet.end(&self.vault)?;
        }
        let peer = match position {
            Some(Position { topic, partition, .. }) if !topic.is_empty() => format!("{topic}-{partition}"),
            _ => "dump".to_owned(),
        };
        let origin = Origin { source: Source::Kafka, peer, connected_ms: now_ms() };
        let entry = self.vault.enter(name.as_bytes(), origin, Arc::new(NoPeer), || false)?;
        let capture = starts_capture(&data[..bytes]) == Some(true);
        let begins = capture || !entry.needs_head();
        let intake = entry.begin(if capture { Head::Capture } else { Head::Other })?;
        let head = if begins { data[..bytes.min(HEAD_BYTES)].to_vec() } else { Vec::new() };
        self.staged_bytes += data.len();
        self.stored.streams += 1;
        self.open.put(name.into(), Stream { intake, head, stage: data, staged: bytes });
        Ok(())
    }

    /// Takes what all streams have gathered out of memory.
    fn relieve(&mut self) -> io::Result<()> {
        for (_, stream) in &mut self.open {
            stream.flush(&self.vault)?;
            stream.stage = Vec::new();
        }
        self.staged_bytes = 0;
        Ok(())
    }

    fn take_in(&mut self, chunk: &Chunk<'_>, position: Option<&Position<'_>>) -> Result<usize, Untaken> {
        let Some(stream) = self.open.get_mut(&*chunk.name) else {
            let (data, bytes) = decoded(&chunk.data)?;
            self.begin(&chunk.name, position, data, bytes).map_err(io_failed)?;
            return Ok(bytes);
        };
        let before = stream.stage.len();
        let bytes = stream.take(&self.vault, &chunk.data)?;
        self.staged_bytes = self.staged_bytes + stream.stage.len() - before;
        if stream.is_sent_again(bytes)
            && let Some(mut again) = self.open.pop(&*chunk.name)
        {
            // What was staged last is the begin of another sending.
            again.staged -= bytes;
            let data = again.stage[again.staged..again.staged + bytes].to_vec();
            self.staged_bytes -= again.stage.len();
            again.end(&self.vault).map_err(io_failed)?;
            self.begin(&chunk.name, position, data, bytes).map_err(io_failed)?;
        }
        Ok(bytes)
    }
}

impl ChunkSink for Store {
    fn take(&mut self, chunk: &Chunk<'_>, position: Option<&Position<'_>>) -> Result<(), Untaken> {
        let bytes = self.take_in(chunk, position)?;
        self.stored.bytes += bytes as u64;
        if self.staged_bytes > STAGED_BYTES_MAX {
            self.relieve().map_err(io_failed)?;
        }
        Ok(())
    }
}

impl Stream {
    /// Stages a chunk's bytes; gives how many they are.
    fn take(&mut self, vault: &Vault, data: &Data<'_>) -> Result<usize, Untaken> {
        let needed = data.bytes_max();
        if self.staged + needed > self.stage.len() {
            if self.staged + needed > STAGE_BYTES {
                self.flush(vault).map_err(io_failed)?;
            }
            let room = (self.staged + needed).next_power_of_two().max(STAGE_BYTES_MIN);
            self.stage.resize(room.max(self.stage.len()), 0);
        }
        let bytes = data.decode(&mut self.stage[self.staged..])?;
        self.staged += bytes;
        Ok(bytes)
    }

    /// True if the last `bytes` staged are the begin of the stream, sent again.
    fn is_sent_again(&self, bytes: usize) -> bool {
        let last = &self.stage[self.staged - bytes..self.staged];
        let both = bytes.min(self.head.len());
        starts_capture(last) == Some(true) && last[..both] == self.head[..both]
    }

    /// Hands what is staged to the vault.
    fn flush(&mut self, vault: &Vault) -> io::Result<()> {
        let mut rest = &self.stage[..self.staged];
        while !rest.is_empty() {
            let size = if rest.len() > Size::Small.bytes() { Size::Large } else { Size::Small };
            let mut buffer = vault.pool().take(size);
            let bytes = rest.len().min(buffer.len());
            buffer[..bytes].copy_from_slice(&rest[..bytes]);
            self.intake.feed(buffer, bytes)?;
            rest = &rest[bytes..];
        }
        self.staged = 0;
        Ok(())
    }

    fn end(mut self, vault: &Vault) -> io::Result<()> {
        self.flush(vault)?;
        self.intake.finish(EndReason::Eof);
        Ok(())
    }
}

fn decoded(data: &Data<'_>) -> Result<(Vec<u8>, usize), Untaken> {
    let mut bytes = vec![0; data.bytes_max()];
    let length = data.decode(&mut bytes)?;
    Ok((bytes, length))
}

fn failed(error: io::Error) -> Error {
    Error::System { act: "store a stream", source: error }
}

fn io_failed(error: io::Error) -> Untaken {
    Untaken::Failed(failed(error))
}
