//! Stores the chunks of a connection that carries many streams (`iri::ingest::lines`; docs/protocol.md, section 4). Runs in
//! the thread that reads the lines. If too many streams are open, the one that was idle longest is closed. A closed stream
//! that continues is appended to.

use std::io;
use std::sync::Arc;

use crate::Error;
use crate::capture::formats::starts_capture;
use crate::cc::kafka_dump::visitor::VisitError;
use crate::cc::vault::manifest::{EndReason, StreamSource};
use crate::cc::vault::stream_table::{NoPeer, StreamInfo, StreamStatus, StreamTable};
use crate::cc::vault::{StreamOrigin, StreamStart, StreamWriter, Vault};
use crate::cc::wire::chunk::Chunk;
use crate::runtime::shutdown::Shutdown;
use crate::runtime::time::now_ms;

/// Origin of the chunks, and limits.
pub(crate) struct ContentLinesConfig {
    /// Source as recorded in manifests.
    pub source: StreamSource,
    /// Address of the sender.
    pub peer: String,
    /// Once triggered, a stream no longer waits for an earlier one of the same name.
    pub shutdown: Option<Shutdown>,
    /// Maximum number of open streams.
    pub streams_max: usize,
}

/// The open streams of a connection.
pub(crate) struct ContentLineStore {
    vault: Vault,
    config: ContentLinesConfig,
    streams: StreamTable<LineStream>,
}

/// Lines keep nothing for a stream.
struct LineStream;

impl StreamInfo for LineStream {
    fn comparison_ended(&mut self, _: &StreamWriter) {}

    /// A capture that starts like the stream, or any capture if the start of the stream is unknown. Lines of a stream come
    /// from one sender, so a capture header is always a start.
    fn is_resend(&self, head: &[u8], _received_bytes: u64, content: &[u8]) -> bool {
        let both = content.len().min(head.len());
        starts_capture(content) == Some(true) && content[..both] == head[..both]
    }
}

impl ContentLineStore {
    pub(crate) fn new(vault: Vault, config: ContentLinesConfig) -> ContentLineStore {
        let streams = StreamTable::new(vault.clone(), config.streams_max);
        ContentLineStore { vault, config, streams }
    }

    /// Stores the next chunk of its stream.
    pub(crate) fn take(&mut self, chunk: &Chunk<'_>) -> Result<(), VisitError> {
        let name = chunk.name.as_bytes();
        if self.streams.try_coalesce(name, &chunk.data, |_, _, _| {})? {
            return Ok(());
        }
        let content = self.streams.decode(&chunk.data)?;
        self.ensure_open(name, content.bytes())
            .and_then(|()| self.streams.append(name, content, |_, _, _| {}))
            .map_err(|error| VisitError::Failed(store_error(error)))
    }

    /// Opens the stream unless it is open and `content` continues it.
    fn ensure_open(&mut self, name: &[u8], content: &[u8]) -> io::Result<()> {
        match self.streams.status(name, content) {
            StreamStatus::Open => return Ok(()),
            StreamStatus::Resend => {
                if let Some(stream) = self.streams.remove(name)? {
                    stream.writer.finish(EndReason::Eof);
                }
            }
            StreamStatus::Closed if self.streams.is_full() => {
                if let Some((_, stream)) = self.streams.pop_idle()? {
                    stream.writer.finish(EndReason::Eof);
                }
            }
            StreamStatus::Closed => {}
        }
        let ContentLinesConfig { source, peer, shutdown, .. } = &self.config;
        let origin =
            StreamOrigin { source: *source, peer: peer.clone(), raw_name: None, connected_ms: now_ms() };
        let stopping = || shutdown.as_ref().is_some_and(Shutdown::is_triggered);
        let pending = self.vault.open_stream(name, origin, Arc::new(NoPeer), stopping)?;
        let is_capture = starts_capture(content) == Some(true);
        let start = if is_capture { StreamStart::NewCapture } else { StreamStart::Continuation };
        self.streams.insert(name, pending.start(start)?, Vec::new(), LineStream);
        Ok(())
    }

    /// Writes what arrived since the last call, so that readers see it in the files.
    pub(crate) fn flush(&mut self) -> Result<(), Error> {
        self.streams.flush().map_err(store_error)
    }

    /// Closes all streams and releases the vault.
    pub(crate) fn finish(mut self, reason: EndReason) -> Result<(), Error> {
        while let Some((_, stream)) = self.streams.pop_idle().map_err(store_error)? {
            stream.writer.finish(reason);
        }
        Ok(())
    }
}

fn store_error(error: io::Error) -> Error {
    Error::System { act: "store a stream", source: error }
}
