//! JSON lines (protocol, sections 4 and 5): events into the store, content of streams into the vault. Runs in the
//! connections' threads.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;

use chrono::Local;

use super::edge::{Taker, Takers};
use super::intake::{Batch, From, Gone, Intake, Letter};
use crate::cc::chunk_sink::Untaken;
use crate::cc::chunk_store::{ChunkOrigin, ChunkStore};
use crate::cc::frame::chunk;
use crate::cc::vault::Vault;
use crate::cc::vault::manifest::{EndReason, Source};
use crate::iri::document::SOURCE_BYTES_MAX;
use crate::iri::event::{self, Indices, Line};
use crate::stop::Stop;

/// A line: an event as the store takes it, or a chunk, which is far smaller.
pub const LINE_BYTES_MAX: usize = SOURCE_BYTES_MAX;

/// Streams open at once on a connection; the one that was quiet longest is closed then.
const STREAMS_MAX: NonZeroUsize = NonZeroUsize::new(1_024).expect("it is not 0");

/// Bytes gathered for all streams of a connection; they are handed over whenever nothing more is there.
const STAGED_BYTES_MAX: usize = 1 << 20;

/// What lines may be on a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    /// Events and content.
    Lines,
    /// Content alone.
    DataLines,
}

impl Port {
    /// As the log says it.
    pub fn word(self) -> &'static str {
        match self {
            Port::Lines => "lines",
            Port::DataLines => "data-lines",
        }
    }
}

/// Makes what takes the lines of a connection.
pub fn takers(port: Port, intake: Arc<Intake>, vault: Vault, indices: Arc<Indices>, stop: Stop) -> Takers {
    Arc::new(move |peer: SocketAddr| {
        let origin = ChunkOrigin {
            source: Source::Lines,
            peer: peer.to_string(),
            stop: Some(stop.clone()),
            streams_max: STREAMS_MAX,
            staged_bytes_max: STAGED_BYTES_MAX,
        };
        Box::new(Lines {
            port,
            peer: peer.to_string(),
            intake: Arc::clone(&intake),
            chunks: ChunkStore::new(vault.clone(), origin),
            indices: Arc::clone(&indices),
            batch: Batch::default(),
        })
    })
}

struct Lines {
    port: Port,
    peer: String,
    intake: Arc<Intake>,
    chunks: ChunkStore,
    indices: Arc<Indices>,
    batch: Batch,
}

impl Lines {
    fn from(&self) -> From<'_> {
        From { listener: self.port.word(), peer: &self.peer }
    }

    fn refuse(&self, word: &'static str, reason: &str, value: &[u8]) {
        let letter = Letter { from: self.from(), index: None, reason, value, cut: false };
        self.intake.refuse(&letter, word);
    }

    fn take_data(&mut self, line: &[u8]) -> Result<(), Gone> {
        let counters = Arc::clone(self.intake.counters());
        let taken = chunk::parse(line).map_err(Untaken::Refused).and_then(|chunk| self.chunks.take(&chunk));
        match taken {
            Ok(()) => counters.event_data_lines_total.one(),
            Err(Untaken::Refused(refused)) => {
                counters.event_malformed_total.one();
                self.refuse(refused.word(), &refused.to_string(), line);
            }
            Err(Untaken::Enough) => {}
            Err(Untaken::Failed(error)) => return Err(self.failed(&error)),
        }
        Ok(())
    }

    fn failed(&self, error: &crate::Error) -> Gone {
        log::error!("stream_failed peer={} error=\"{}\"", self.peer, crate::error::chain(error));
        Gone
    }
}

impl Taker for Lines {
    fn take(&mut self, line: &[u8]) -> Result<(), Gone> {
        if line.trim_ascii().is_empty() {
            return Ok(());
        }
        let counters = self.intake.counters();
        counters.event_lines_total.one();
        if self.port == Port::DataLines {
            return self.take_data(line);
        }
        match event::read(line, &self.indices, &Local) {
            Ok(Line::Data) => self.take_data(line),
            Ok(Line::Event(document)) => {
                if self.batch.push(document) {
                    let from = From { listener: self.port.word(), peer: &self.peer };
                    self.batch.write(&self.intake, from)?;
                }
                Ok(())
            }
            Err(reason) => {
                counters.event_malformed_total.one();
                self.refuse("no_json", &reason.to_string(), line);
                Ok(())
            }
        }
    }

    fn too_long(&mut self, begin: &[u8]) {
        self.intake.counters().event_too_long_total.one();
        let reason = format!("longer than {LINE_BYTES_MAX} bytes, or than there was memory for");
        let letter = Letter { from: self.from(), index: None, reason: &reason, value: begin, cut: true };
        self.intake.refuse(&letter, "too_long");
    }

    fn flush(&mut self) -> Result<(), Gone> {
        let from = From { listener: self.port.word(), peer: &self.peer };
        self.batch.write(&self.intake, from)?;
        self.chunks.flush().map_err(|error| self.failed(&error))
    }

    fn end(self: Box<Self>, reset: bool) {
        let reason = if reset { EndReason::Reset } else { EndReason::Eof };
        let Lines { chunks, peer, .. } = *self;
        if let Err(error) = chunks.finish(reason) {
            log::error!("stream_failed peer={peer} error=\"{}\"", crate::error::chain(&error));
        }
    }
}
