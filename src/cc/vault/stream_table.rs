//! Table of open streams, for inputs that carry many streams at once: Kafka records (`ledger`) and content lines
//! (`cc::ingest::content_lines`). Runs in the thread that reads the input.
//!
//! The table keeps the open streams in order of use, decodes and coalesces their chunks, and recognises re-sends. Its
//! users decide the rest, because they differ in it:
//!
//! | | Kafka records | content lines |
//! |---|---|---|
//! | Closing idle streams | after a checkpoint; half of them at once | immediately, one at a time |
//! | Per-stream data | segments for the manifest and the checkpoints | none |
//! | Capture header in a stream whose start is unknown | appended, because another group member may have read the start; `lea merge` decides | a new start |
//! | At the next start | continues after the last checkpoint | the sender repeats what it needs |
//!
//! Invariant: `coalescing` is the number of streams with coalesced bytes, and they are the most recently used ones.

use std::io;

use lru::LruCache;

use super::Vault;
use super::name_locks::PeerProbe;
use super::pool::{Buffer, BufferPool, BufferSize};
use super::stream_writer::StreamWriter;
use super::write_coalescer::WriteCoalescer;
use crate::capture::formats::{HEADER_BYTES_MAX, starts_capture};
use crate::cc::wire::chunk::{ChunkData, ChunkError};

/// Data that a user of the table keeps for each stream.
pub(crate) trait StreamInfo {
    /// Called when a re-send has left its comparison and now writes to a file.
    fn comparison_ended(&mut self, writer: &StreamWriter);

    /// Returns whether `content` starts the stream again from its first byte. `head` are the first bytes of the stream,
    /// as far as they are known, and `received_bytes` is the number of bytes so far.
    fn is_resend(&self, head: &[u8], received_bytes: u64, content: &[u8]) -> bool;
}

/// Records and lines have no connection of their own, so there is no peer to probe.
pub(crate) struct NoPeer;

impl PeerProbe for NoPeer {
    fn probe(&self, _: bool) {}
}

/// The name of a stream and the stream.
pub(crate) type NamedStream<I> = (Box<[u8]>, OpenStream<I>);

/// An open stream.
pub(crate) struct OpenStream<I> {
    pub(crate) writer: StreamWriter,
    pub(crate) info: I,
    /// First bytes of the stream, at most [`HEADER_BYTES_MAX`]. Stays shorter if they are unknown.
    head: Vec<u8>,
    /// Number of bytes of the stream, including coalesced ones.
    received_bytes: u64,
    coalescer: WriteCoalescer,
}

/// A chunk that was appended to a stream.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AppendedChunk {
    /// Offset in the stream of the first byte.
    pub(crate) at: u64,
    pub(crate) bytes: u64,
    pub(crate) starts_capture: bool,
}

/// Whether a chunk can be appended to its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StreamStatus {
    /// The stream is not open.
    Closed,
    /// The chunk continues the open stream.
    Open,
    /// The chunk starts the open stream again.
    Resend,
}

/// Decoded content of a chunk.
pub(crate) enum ChunkContent {
    /// The first bytes of a buffer.
    Buffer(Buffer, usize),
    /// Content larger than any pool buffer.
    Large(Vec<u8>),
}

/// The open streams of one input.
pub(crate) struct StreamTable<I> {
    vault: Vault,
    streams: LruCache<Box<[u8]>, OpenStream<I>>,
    streams_max: usize,
    /// Number of streams with coalesced bytes.
    coalescing: usize,
    streams_opened: u64,
    accepted_bytes: u64,
}

impl<I: StreamInfo> StreamTable<I> {
    pub(crate) fn new(vault: Vault, streams_max: usize) -> StreamTable<I> {
        StreamTable {
            vault,
            streams: LruCache::unbounded(),
            streams_max: streams_max.max(1),
            coalescing: 0,
            streams_opened: 0,
            accepted_bytes: 0,
        }
    }

    /// Returns the number of open streams.
    pub(crate) fn open_streams(&self) -> usize {
        self.streams.len()
    }

    /// Returns whether a stream must be closed before another one can be opened.
    pub(crate) fn is_full(&self) -> bool {
        self.streams.len() >= self.streams_max
    }

    /// Returns whether any bytes are coalesced.
    pub(crate) fn is_coalescing(&self) -> bool {
        self.coalescing > 0
    }

    #[cfg(test)]
    pub(super) fn coalescing(&self) -> usize {
        self.coalescing
    }

    /// Returns the number of streams opened, including reopened ones.
    pub(crate) fn streams_opened(&self) -> u64 {
        self.streams_opened
    }

    /// Returns the number of bytes appended to all streams.
    pub(crate) fn accepted_bytes(&self) -> u64 {
        self.accepted_bytes
    }

    /// Returns an open stream.
    pub(crate) fn get(&self, name: &[u8]) -> Option<&OpenStream<I>> {
        self.streams.peek(name)
    }

    /// Returns the open streams, the most recently used one first.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (&[u8], &mut OpenStream<I>)> {
        self.streams.iter_mut().map(|(name, stream)| (&**name, stream))
    }

    /// The usual case: decodes a chunk into the coalescing buffer of its stream. Calls `note` with the stream and what
    /// was appended. Returns false if there is no such stream, no space, or the chunk is a re-send.
    pub(crate) fn try_coalesce(
        &mut self,
        name: &[u8],
        data: &ChunkData<'_>,
        note: impl FnOnce(&mut I, &StreamWriter, AppendedChunk),
    ) -> Result<bool, ChunkError> {
        let Some(stream) = self.streams.get_mut(name) else { return Ok(false) };
        let Some(space) = stream.coalescer.spare_space(data.decoded_bytes_max()) else { return Ok(false) };
        let bytes = data.decode(space)?;
        let content = &space[..bytes];
        if stream.info.is_resend(&stream.head, stream.received_bytes, content) {
            return Ok(false);
        }
        extend_head(&mut stream.head, stream.received_bytes, content);
        let appended = AppendedChunk::new(stream.received_bytes, content);
        stream.coalescer.advance(bytes);
        stream.received_bytes += appended.bytes;
        self.accepted_bytes += appended.bytes;
        note(&mut stream.info, &stream.writer, appended);
        Ok(true)
    }

    /// Decodes a chunk into a separate buffer.
    pub(crate) fn decode(&self, data: &ChunkData<'_>) -> Result<ChunkContent, ChunkError> {
        ChunkContent::decode(data, self.vault.pool())
    }

    /// Returns whether `content` can be appended to its stream.
    pub(crate) fn status(&self, name: &[u8], content: &[u8]) -> StreamStatus {
        match self.streams.peek(name) {
            None => StreamStatus::Closed,
            Some(stream) if stream.info.is_resend(&stream.head, stream.received_bytes, content) => {
                StreamStatus::Resend
            }
            Some(_) => StreamStatus::Open,
        }
    }

    /// Adds an opened stream. `head` are its first bytes if something of it is stored.
    pub(crate) fn insert(&mut self, name: &[u8], writer: StreamWriter, head: Vec<u8>, info: I) {
        let received_bytes = writer.received_bytes();
        let coalescer = WriteCoalescer::default();
        self.streams.put(name.into(), OpenStream { writer, info, head, received_bytes, coalescer });
        self.streams_opened += 1;
    }

    /// Appends decoded content to an open stream: the first chunk of a stream, or one that does not fit into the
    /// coalescing buffer. Calls `note` before the content reaches the writer.
    pub(crate) fn append(
        &mut self,
        name: &[u8],
        content: ChunkContent,
        note: impl FnOnce(&mut I, &StreamWriter, AppendedChunk),
    ) -> io::Result<()> {
        if !self.vault.shared.coalescing_slots.has_free() {
            self.flush()?;
        }
        let stream = self.streams.get_mut(name).ok_or_else(|| io::Error::other("the stream is not open"))?;
        extend_head(&mut stream.head, stream.received_bytes, content.bytes());
        stream.flush(&mut self.coalescing)?;
        let appended = AppendedChunk::new(stream.received_bytes, content.bytes());
        stream.received_bytes += appended.bytes;
        self.accepted_bytes += appended.bytes;
        note(&mut stream.info, &stream.writer, appended);
        match content {
            ChunkContent::Buffer(buffer, bytes) => {
                match stream.coalescer.start(&self.vault.shared.coalescing_slots, buffer, bytes) {
                    None => self.coalescing += 1,
                    Some(buffer) => stream.feed(buffer, bytes)?,
                }
            }
            ChunkContent::Large(bytes) => {
                for piece in bytes.chunks(BufferSize::Large.bytes()) {
                    let mut buffer = self.vault.pool().take(BufferSize::Large);
                    buffer[..piece.len()].copy_from_slice(piece);
                    stream.feed(buffer, piece.len())?;
                }
            }
        }
        Ok(())
    }

    /// Flushes all coalesced bytes. Called every few milliseconds, so that readers of the files see recent data.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        for (_, stream) in self.streams.iter_mut() {
            if self.coalescing == 0 {
                break;
            }
            stream.flush(&mut self.coalescing)?;
        }
        Ok(())
    }

    /// Flushes and removes a stream.
    pub(crate) fn remove(&mut self, name: &[u8]) -> io::Result<Option<OpenStream<I>>> {
        let Some(mut stream) = self.streams.pop(name) else { return Ok(None) };
        stream.flush(&mut self.coalescing)?;
        Ok(Some(stream))
    }

    /// Flushes and removes the least recently used stream.
    pub(crate) fn pop_idle(&mut self) -> io::Result<Option<NamedStream<I>>> {
        let Some((name, mut stream)) = self.streams.pop_lru() else { return Ok(None) };
        stream.flush(&mut self.coalescing)?;
        Ok(Some((name, stream)))
    }

    /// Returns the least recently used stream.
    pub(crate) fn peek_idle(&self) -> Option<&OpenStream<I>> {
        self.streams.peek_lru().map(|(_, stream)| stream)
    }

    /// Puts a stream back that [`pop_idle`](Self::pop_idle) returned, as the most recently used one.
    pub(crate) fn put_back(&mut self, name: Box<[u8]>, stream: OpenStream<I>) {
        self.streams.put(name, stream);
    }
}

impl<I> OpenStream<I> {
    /// Returns the first bytes of the stream, as far as they are known.
    pub(crate) fn head(&self) -> &[u8] {
        &self.head
    }

    /// Returns the number of bytes of the stream, including coalesced ones.
    pub(crate) fn received_bytes(&self) -> u64 {
        self.received_bytes
    }
}

impl<I: StreamInfo> OpenStream<I> {
    /// Passes the coalesced bytes to the writer. If there are any, decrements `coalescing`.
    fn flush(&mut self, coalescing: &mut usize) -> io::Result<()> {
        let Some((buffer, bytes)) = self.coalescer.take() else { return Ok(()) };
        // Counted first: after an error the bytes are lost.
        *coalescing -= 1;
        self.feed(buffer, bytes)
    }

    fn feed(&mut self, buffer: Buffer, bytes: usize) -> io::Result<()> {
        if bytes == 0 {
            return Ok(());
        }
        let was_comparing = self.writer.compared_bytes().is_some();
        self.writer.feed(buffer, bytes)?;
        if was_comparing && self.writer.compared_bytes().is_none() {
            self.info.comparison_ended(&self.writer);
        }
        Ok(())
    }
}

impl AppendedChunk {
    fn new(at: u64, content: &[u8]) -> AppendedChunk {
        AppendedChunk {
            at,
            bytes: content.len() as u64,
            starts_capture: starts_capture(content) == Some(true),
        }
    }
}

impl ChunkContent {
    fn decode(data: &ChunkData<'_>, pool: &BufferPool) -> Result<ChunkContent, ChunkError> {
        let size = match data.decoded_bytes_max() {
            bytes if bytes <= BufferSize::Small.bytes() => BufferSize::Small,
            bytes if bytes <= BufferSize::Large.bytes() => BufferSize::Large,
            bytes => {
                let mut large = vec![0; bytes];
                let bytes = data.decode(&mut large)?;
                large.truncate(bytes);
                return Ok(ChunkContent::Large(large));
            }
        };
        let mut buffer = pool.take(size);
        let bytes = data.decode(&mut buffer)?;
        Ok(ChunkContent::Buffer(buffer, bytes))
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            ChunkContent::Buffer(buffer, bytes) => &buffer[..*bytes],
            ChunkContent::Large(bytes) => bytes,
        }
    }
}

/// Appends the start of `data` to an incomplete `head`.
fn extend_head(head: &mut Vec<u8>, received_bytes: u64, data: &[u8]) {
    if head.len() < HEADER_BYTES_MAX && received_bytes == head.len() as u64 {
        head.extend_from_slice(&data[..data.len().min(HEADER_BYTES_MAX - head.len())]);
    }
}
