//! Chunks into the vault: what dumps (`lea decode`) and lines (`iri::source`) bring. Runs in the thread that reads them;
//! many streams are open at once, and the ones that were quiet longest are closed when there are too many: a stream that
//! comes again goes on where it ended.

use std::io;
use std::num::NonZeroUsize;
use std::sync::Arc;

use lru::LruCache;

use crate::Error;
use crate::cc::chunk_sink::{ChunkSink, Untaken};
use crate::cc::frame::chunk::{Chunk, Data};
use crate::cc::frame::dump::Position;
use crate::cc::frame::handshake::starts_capture;
use crate::cc::vault::manifest::{EndReason, Source};
use crate::cc::vault::pool::Size;
use crate::cc::vault::time::now_ms;
use crate::cc::vault::{Head, Intake, Origin, Probe, Vault};
use crate::stop::Stop;

/// Bytes gathered for a stream before they go to the vault.
const STAGE_BYTES: usize = 64 << 10;

/// The least room that a stream gathers in.
const STAGE_BYTES_MIN: usize = 4 << 10;

/// Two captures that begin with the same so many bytes are one that is sent again: a pcap's whole file header.
const HEAD_BYTES: usize = 24;

/// Where chunks come from, and how many of their streams may be open.
pub struct ChunkOrigin {
    /// What the manifests say.
    pub source: Source,
    /// Who sends, where the chunk itself does not say it.
    pub peer: String,
    /// Asked for, a stream waits for no earlier one of its name any more.
    pub stop: Option<Stop>,
    /// Streams open at once.
    pub streams_max: NonZeroUsize,
    /// Bytes gathered for all streams together.
    pub staged_bytes_max: usize,
}

/// Stores chunks.
pub struct ChunkStore {
    vault: Vault,
    origin: ChunkOrigin,
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
    /// A chunk came since the last [`ChunkStore::flush`].
    touched: bool,
}

/// Nobody can be asked whether a record's sender is still there.
struct NoPeer;

impl Probe for NoPeer {
    fn probe(&self, _: bool) {}
}

impl ChunkStore {
    /// No stream is open yet.
    pub fn new(vault: Vault, origin: ChunkOrigin) -> ChunkStore {
        let open = LruCache::new(origin.streams_max);
        ChunkStore { vault, origin, open, staged_bytes: 0, stored: Stored::default() }
    }

    /// Ends all streams, and lets go of the vault.
    pub fn finish(mut self, reason: EndReason) -> Result<Stored, Error> {
        while let Some((_, stream)) = self.open.pop_lru() {
            stream.end(&self.vault, reason).map_err(failed)?;
        }
        Ok(self.stored)
    }

    /// Hands over what came since the last call, so that it can be read in the files.
    pub fn flush(&mut self) -> Result<(), Error> {
        // The cache has those that were touched last at its front.
        for (_, stream) in self.open.iter_mut() {
            if !std::mem::take(&mut stream.touched) {
                break;
            }
            stream.flush(&self.vault).map_err(failed)?;
        }
        Ok(())
    }

    /// Opens a stream that begins, or goes on, with `data`.
    fn begin(
        &mut self,
        name: &str,
        position: Option<&Position<'_>>,
        data: Vec<u8>,
        bytes: usize,
    ) -> io::Result<()> {
        if self.open.len() == self.origin.streams_max.get()
            && let Some((_, quiet)) = self.open.pop_lru()
        {
            self.staged_bytes -= quiet.stage.len();
            quiet.end(&self.vault, EndReason::Eof)?;
        }
        let peer = match position {
            Some(Position { topic, partition, .. }) if !topic.is_empty() => format!("{topic}-{partition}"),
            _ => self.origin.peer.clone(),
        };
        let origin = Origin { source: self.origin.source, peer, connected_ms: now_ms() };
        let stopping = || self.origin.stop.as_ref().is_some_and(Stop::is_asked);
        let entry = self.vault.enter(name.as_bytes(), origin, Arc::new(NoPeer), stopping)?;
        let capture = starts_capture(&data[..bytes]) == Some(true);
        let begins = capture || !entry.needs_head();
        let intake = entry.begin(if capture { Head::Capture } else { Head::Other })?;
        let head = if begins { data[..bytes.min(HEAD_BYTES)].to_vec() } else { Vec::new() };
        self.staged_bytes += data.len();
        self.stored.streams += 1;
        self.open.put(name.into(), Stream { intake, head, stage: data, staged: bytes, touched: true });
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
            again.end(&self.vault, EndReason::Eof).map_err(io_failed)?;
            self.begin(&chunk.name, position, data, bytes).map_err(io_failed)?;
        }
        Ok(bytes)
    }
}

impl ChunkSink for ChunkStore {
    fn take(&mut self, chunk: &Chunk<'_>, position: Option<&Position<'_>>) -> Result<(), Untaken> {
        let bytes = self.take_in(chunk, position)?;
        self.stored.bytes += bytes as u64;
        if self.staged_bytes > self.origin.staged_bytes_max {
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
        self.touched = true;
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

    fn end(mut self, vault: &Vault, reason: EndReason) -> io::Result<()> {
        self.flush(vault)?;
        self.intake.finish(reason);
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
