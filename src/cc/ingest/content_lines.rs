//! Stores the chunks of a connection that carries many streams (`iri::ingest::lines`; docs/protocol.md,
//! section 4). Runs in the thread that reads the lines. If too many streams are open, the one that was idle
//! longest is closed. A closed stream that continues is appended to.

use std::io;
use std::num::NonZeroUsize;
use std::sync::Arc;

use lru::LruCache;

use crate::Error;
use crate::capture::formats::{HEADER_BYTES_MAX, starts_capture};
use crate::cc::kafka_dump::visitor::VisitError;
use crate::cc::vault::manifest::{EndReason, StreamSource};
use crate::cc::vault::pool::BufferSize;
use crate::cc::vault::{PeerProbe, StreamOrigin, StreamStart, StreamWriter, Vault};
use crate::cc::wire::chunk::{Chunk, ChunkData};

use crate::runtime::shutdown::Shutdown;
use crate::runtime::time::now_ms;

/// Bytes buffered for a stream before they go to the vault.
const BUFFER_BYTES: usize = 64 << 10;

/// Smallest buffer of a stream.
const BUFFER_BYTES_MIN: usize = 4 << 10;

/// Origin of the chunks, and limits.
pub(crate) struct ContentLinesConfig {
    /// Source as recorded in manifests.
    pub source: StreamSource,
    /// Address of the sender.
    pub peer: String,
    /// Once triggered, a stream no longer waits for an earlier one of the same name.
    pub shutdown: Option<Shutdown>,
    /// Maximum number of open streams.
    pub streams_max: NonZeroUsize,
    /// Maximum number of bytes buffered for all streams together.
    pub buffers_bytes_max: usize,
}

/// Table of open streams that chunks are stored in.
pub(crate) struct ContentLineStore {
    vault: Vault,
    origin: ContentLinesConfig,
    open: LruCache<Box<str>, OpenLineStream>,
    /// Total size of all buffers.
    buffers_bytes: usize,
    stored: ContentLineTotals,
}

/// Totals of what was stored.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ContentLineTotals {
    /// Number of streams. A stream that was closed and reopened counts again.
    pub streams: usize,
    pub bytes: u64,
}

struct OpenLineStream {
    intake: StreamWriter,
    /// First bytes since the stream was opened. Empty if it was opened in the middle.
    head: Vec<u8>,
    buffer: Vec<u8>,
    buffered_bytes: usize,
    /// True if bytes arrived since the last [`ContentLineStore::flush`].
    has_new_bytes: bool,
}

/// Probe for streams without a connection: nothing can be probed.
struct UnprobedPeer;

impl PeerProbe for UnprobedPeer {
    fn probe(&self, _: bool) {}
}

impl ContentLineStore {
    pub(crate) fn new(vault: Vault, origin: ContentLinesConfig) -> ContentLineStore {
        let open = LruCache::new(origin.streams_max);
        ContentLineStore { vault, origin, open, buffers_bytes: 0, stored: ContentLineTotals::default() }
    }

    /// Closes all streams and releases the vault.
    pub(crate) fn finish(mut self, reason: EndReason) -> Result<ContentLineTotals, Error> {
        while let Some((_, stream)) = self.open.pop_lru() {
            stream.end(&self.vault, reason).map_err(store_error)?;
        }
        Ok(self.stored)
    }

    /// Writes what arrived since the last call, so that readers see it in the files.
    pub(crate) fn flush(&mut self) -> Result<(), Error> {
        // The cache iterates from the most recently used stream.
        for (_, stream) in self.open.iter_mut() {
            if !std::mem::take(&mut stream.has_new_bytes) {
                break;
            }
            stream.flush(&self.vault).map_err(store_error)?;
        }
        Ok(())
    }

    /// Opens a stream whose next bytes are `data`.
    fn open_stream(&mut self, name: &str, data: Vec<u8>, bytes: usize) -> io::Result<()> {
        if self.open.len() == self.origin.streams_max.get()
            && let Some((_, quiet)) = self.open.pop_lru()
        {
            self.buffers_bytes -= quiet.buffer.len();
            quiet.end(&self.vault, EndReason::Eof)?;
        }
        let ContentLinesConfig { source, peer, .. } = &self.origin;
        let origin = StreamOrigin { source: *source, peer: peer.clone(), connected_ms: now_ms() };
        let stopping = || self.origin.shutdown.as_ref().is_some_and(Shutdown::is_triggered);
        let entry = self.vault.open_stream(name.as_bytes(), origin, Arc::new(UnprobedPeer), stopping)?;
        let capture = starts_capture(&data[..bytes]) == Some(true);
        let begins = capture || !entry.has_stored_parts();
        let intake =
            entry.start(if capture { StreamStart::NewCapture } else { StreamStart::Continuation })?;
        let head = if begins { data[..bytes.min(HEADER_BYTES_MAX)].to_vec() } else { Vec::new() };
        self.buffers_bytes += data.len();
        self.stored.streams += 1;
        self.open.put(
            name.into(),
            OpenLineStream { intake, head, buffer: data, buffered_bytes: bytes, has_new_bytes: true },
        );
        Ok(())
    }

    /// Writes all buffers and releases their memory.
    fn release_buffers(&mut self) -> io::Result<()> {
        for (_, stream) in &mut self.open {
            stream.flush(&self.vault)?;
            stream.buffer = Vec::new();
        }
        self.buffers_bytes = 0;
        Ok(())
    }

    fn append(&mut self, chunk: &Chunk<'_>) -> Result<usize, VisitError> {
        let Some(stream) = self.open.get_mut(&*chunk.name) else {
            let (data, bytes) = decode(&chunk.data)?;
            self.open_stream(&chunk.name, data, bytes).map_err(store_failed)?;
            return Ok(bytes);
        };
        let before = stream.buffer.len();
        let bytes = stream.take(&self.vault, &chunk.data)?;
        self.buffers_bytes = self.buffers_bytes + stream.buffer.len() - before;
        if stream.is_resend(bytes)
            && let Some(mut again) = self.open.pop(&*chunk.name)
        {
            // The bytes buffered last are the start of the re-sent capture.
            again.buffered_bytes -= bytes;
            let data = again.buffer[again.buffered_bytes..again.buffered_bytes + bytes].to_vec();
            self.buffers_bytes -= again.buffer.len();
            again.end(&self.vault, EndReason::Eof).map_err(store_failed)?;
            self.open_stream(&chunk.name, data, bytes).map_err(store_failed)?;
        }
        Ok(bytes)
    }

    /// Stores the next chunk of its stream.
    pub(crate) fn take(&mut self, chunk: &Chunk<'_>) -> Result<(), VisitError> {
        let bytes = self.append(chunk)?;
        self.stored.bytes += bytes as u64;
        if self.buffers_bytes > self.origin.buffers_bytes_max {
            self.release_buffers().map_err(store_failed)?;
        }
        Ok(())
    }
}

impl OpenLineStream {
    /// Decodes a chunk into the buffer and returns the number of bytes.
    fn take(&mut self, vault: &Vault, data: &ChunkData<'_>) -> Result<usize, VisitError> {
        let needed = data.decoded_bytes_max();
        if self.buffered_bytes + needed > self.buffer.len() {
            if self.buffered_bytes + needed > BUFFER_BYTES {
                self.flush(vault).map_err(store_failed)?;
            }
            let room = (self.buffered_bytes + needed).next_power_of_two().max(BUFFER_BYTES_MIN);
            self.buffer.resize(room.max(self.buffer.len()), 0);
        }
        let bytes = data.decode(&mut self.buffer[self.buffered_bytes..])?;
        self.buffered_bytes += bytes;
        self.has_new_bytes = true;
        Ok(bytes)
    }

    /// Reports whether the last `bytes` buffered bytes are the start of the same capture, sent again.
    fn is_resend(&self, bytes: usize) -> bool {
        let last = &self.buffer[self.buffered_bytes - bytes..self.buffered_bytes];
        let both = bytes.min(self.head.len());
        starts_capture(last) == Some(true) && last[..both] == self.head[..both]
    }

    /// Writes the buffer to the vault.
    fn flush(&mut self, vault: &Vault) -> io::Result<()> {
        let mut rest = &self.buffer[..self.buffered_bytes];
        while !rest.is_empty() {
            let size =
                if rest.len() > BufferSize::Small.bytes() { BufferSize::Large } else { BufferSize::Small };
            let mut buffer = vault.pool().take(size);
            let bytes = rest.len().min(buffer.len());
            buffer[..bytes].copy_from_slice(&rest[..bytes]);
            self.intake.feed(buffer, bytes)?;
            rest = &rest[bytes..];
        }
        self.buffered_bytes = 0;
        Ok(())
    }

    fn end(mut self, vault: &Vault, reason: EndReason) -> io::Result<()> {
        self.flush(vault)?;
        self.intake.finish(reason);
        Ok(())
    }
}

fn decode(data: &ChunkData<'_>) -> Result<(Vec<u8>, usize), VisitError> {
    let mut bytes = vec![0; data.decoded_bytes_max()];
    let length = data.decode(&mut bytes)?;
    Ok((bytes, length))
}

fn store_error(error: io::Error) -> Error {
    Error::System { act: "store a stream", source: error }
}

fn store_failed(error: io::Error) -> VisitError {
    VisitError::Failed(store_error(error))
}
