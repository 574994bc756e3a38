//! Handlers for JSON lines (docs/protocol.md): events go to the store, stream content goes to the vault. They run in the
//! threads of connections.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;

use chrono::Local;

use super::event_sink::{EventBatch, EventSink, MessageOrigin, RejectedInput, StoreClosed};
use super::framing::Framing;
use super::listener::{HandlerFactory, ListenerConfig, ListenerDeps, MessageHandler};
use crate::Result;
use crate::cc::ingest::content_lines::{ContentLineStore, ContentLinesConfig};
use crate::cc::kafka_dump::visitor::VisitError;
use crate::cc::vault::Vault;
use crate::cc::vault::manifest::{EndReason, StreamSource};
use crate::cc::wire::chunk;
use crate::iri::event::{self, ClassifiedLine, EventIndices};
use crate::search::document::SOURCE_BYTES_MAX;

/// Maximum size of a line: that of an event in the store. Chunks of stream content are much smaller.
const LINE_BYTES_MAX: usize = SOURCE_BYTES_MAX;

/// Streams open at once on a connection. When more are needed, the one that is idle longest is closed.
const STREAMS_MAX: usize = 1_024;

/// The kinds of lines that a listener accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LineKind {
    /// Events and stream content.
    All,
    /// Only stream content.
    Content,
}

impl LineKind {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            LineKind::All => "lines",
            LineKind::Content => "content-lines",
        }
    }
}

/// Starts a listener for lines.
pub(crate) fn start(
    listener: TcpListener,
    kind: LineKind,
    deps: &ListenerDeps,
    vault: Vault,
    indices: Arc<EventIndices>,
) -> Result<JoinHandle<Result<()>>> {
    let (sink, shutdown) = (Arc::clone(&deps.sink), deps.shutdown.clone());
    let handler_factory: HandlerFactory = Arc::new(move |peer: SocketAddr| {
        let config = ContentLinesConfig {
            source: StreamSource::Lines,
            peer: peer.to_string(),
            shutdown: Some(shutdown.clone()),
            streams_max: STREAMS_MAX,
        };
        Box::new(LineHandler {
            kind,
            peer: peer.to_string(),
            sink: Arc::clone(&sink),
            chunks: ContentLineStore::new(vault.clone(), config),
            indices: Arc::clone(&indices),
            batch: EventBatch::default(),
        })
    });
    let config = ListenerConfig {
        name: kind.as_str(),
        transport: None,
        framing: Framing::Lines,
        message_bytes_max: LINE_BYTES_MAX,
    };
    deps.spawn(listener, config, handler_factory)
}

struct LineHandler {
    kind: LineKind,
    peer: String,
    sink: Arc<EventSink>,
    chunks: ContentLineStore,
    indices: Arc<EventIndices>,
    batch: EventBatch,
}

impl LineHandler {
    fn origin(&self) -> MessageOrigin<'_> {
        MessageOrigin { listener: self.kind.as_str(), peer: &self.peer }
    }

    fn reject(&self, word: &'static str, reason: &str, value: &[u8]) {
        let letter = RejectedInput { origin: self.origin(), index: None, reason, value, is_truncated: false };
        self.sink.reject(&letter, word);
    }

    fn handle_content(&mut self, line: &[u8]) -> Result<(), StoreClosed> {
        let metrics = Arc::clone(self.sink.metrics());
        let taken =
            chunk::parse(line).map_err(VisitError::Rejected).and_then(|chunk| self.chunks.take(&chunk));
        match taken {
            Ok(()) => metrics.content_lines_total.inc(),
            Err(VisitError::Rejected(refused)) => {
                metrics.events_rejected_malformed.inc();
                self.reject(refused.as_str(), &refused.to_string(), line);
            }
            Err(VisitError::StopReading) => {}
            Err(VisitError::Failed(error)) => return Err(self.report_failure(&error)),
        }
        Ok(())
    }

    /// Stores one event or one piece of stream content.
    fn handle_object(&mut self, object: &[u8]) -> Result<(), StoreClosed> {
        match event::classify(object, &self.indices, &Local) {
            Ok(ClassifiedLine::StreamContent) => self.handle_content(object),
            Ok(ClassifiedLine::Event(document)) => {
                if self.batch.push(document) {
                    let from = MessageOrigin { listener: self.kind.as_str(), peer: &self.peer };
                    self.batch.write(&self.sink, from)?;
                }
                Ok(())
            }
            // A line with several objects is rare, so it is looked for last.
            Err(reason) => match event::split_objects(object) {
                Some(objects) => objects.into_iter().try_for_each(|object| self.handle_object(object)),
                None => {
                    self.sink.metrics().events_rejected_malformed.inc();
                    self.reject("no_json", &reason.to_string(), object);
                    Ok(())
                }
            },
        }
    }

    fn report_failure(&self, error: &crate::Error) -> StoreClosed {
        log::error!("stream_failed peer={} error=\"{}\"", self.peer, crate::error::chain(error));
        StoreClosed
    }
}

impl MessageHandler for LineHandler {
    fn handle(&mut self, line: &[u8]) -> Result<(), StoreClosed> {
        if line.trim_ascii().is_empty() {
            return Ok(());
        }
        if self.kind == LineKind::Content {
            return self.handle_content(line);
        }
        self.handle_object(line)
    }

    fn handle_too_long(&mut self, begin: &[u8]) {
        self.sink.metrics().events_rejected_too_long.inc();
        let reason =
            format!("longer than {LINE_BYTES_MAX} bytes, or than the memory for incomplete lines allows");
        let letter = RejectedInput {
            origin: self.origin(),
            index: None,
            reason: &reason,
            value: begin,
            is_truncated: true,
        };
        self.sink.reject(&letter, "too_long");
    }

    fn flush(&mut self) -> Result<(), StoreClosed> {
        let from = MessageOrigin { listener: self.kind.as_str(), peer: &self.peer };
        self.batch.write(&self.sink, from)?;
        self.chunks.flush().map_err(|error| self.report_failure(&error))
    }

    fn finish(self: Box<Self>, reset: bool) {
        let reason = if reset { EndReason::Reset } else { EndReason::Eof };
        let LineHandler { chunks, peer, .. } = *self;
        if let Err(error) = chunks.finish(reason) {
            log::error!("stream_failed peer={peer} error=\"{}\"", crate::error::chain(&error));
        }
    }
}
