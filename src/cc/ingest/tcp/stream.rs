//! Receives one stream: its name, then its content, until its end. Runs in the stream's own thread.
//!
//! The thread holds a buffer only while bytes are available. A slow stream is read at most every
//! [`COALESCE_INTERVAL`]: many small sends become one read and one write, and each packet is still in the
//! file well within 50 ms. A stream with many bytes in the kernel's buffer is read immediately.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::socket::{SocketRead, StreamSocket, WaitOutcome};
use super::{ReceiverContext, TcpTimeouts};
use crate::capture::formats::{self, DECISION_BYTES_MAX, HEADER_BYTES_MAX, MagicMatch};
use crate::cc::stream_registry::StreamStats;
use crate::cc::vault::manifest::{EndReason, StreamSource};
use crate::cc::vault::pool::BufferSize;
use crate::cc::vault::{PendingStream, StreamEnd, StreamOrigin, StreamStart, StreamWriter};
use crate::cc::wire::handshake::{self, HANDSHAKE_BYTES_MAX, NameParse, Trigger};
use crate::cc::wire::name;
use crate::cc::wire::name_template::NameTemplate;
use crate::runtime::net::peers::PeerPermit;
use crate::runtime::time::now_ms;

/// Time for which the bytes of a slow stream are collected in the kernel.
const COALESCE_INTERVAL: Duration = Duration::from_millis(20);

/// Number of available bytes that are read immediately.
const READ_AT_ONCE_BYTES: usize = 64 << 10;

/// Pause before peeking again when more bytes are available but cannot be peeked at: after urgent data, or
/// when the kernel is short of memory and reports any available byte. Without it, the thread would spin.
const STALL_PAUSE: Duration = Duration::from_millis(20);

/// Stream being received.
pub(super) struct StreamReceiver<'a> {
    pub socket: &'a Arc<StreamSocket>,
    /// Statistics for other threads.
    pub live: &'a StreamStats,
    pub shared: &'a ReceiverContext,
    /// Limits of the peer. `None`: lea has connected to a sensor, which sends no name.
    pub permit: Option<&'a PeerPermit>,
}

/// Reason why a connection did not become a stream.
#[derive(Debug)]
pub(super) enum ReceiveError {
    /// No byte arrived before the end or the timeout.
    Silent,
    /// More bytes arrived than a name can have.
    NameTooLong,
    /// This arrived instead of a name.
    NoName(&'static str),
    /// The peer has used too many new names.
    TooManyNames,
    Reset,
    Failed(io::Error),
}

impl From<io::Error> for ReceiveError {
    fn from(error: io::Error) -> ReceiveError {
        ReceiveError::Failed(error)
    }
}

/// A stream that has ended.
#[derive(Debug)]
pub(super) struct ReceivedStream {
    /// Its escaped name.
    pub name: String,
    pub reason: EndReason,
    pub end: StreamEnd,
}

impl StreamReceiver<'_> {
    /// Receives the stream. Returns its escaped name, its file and the reason why it ended.
    pub(super) fn receive_stream(&self) -> Result<ReceivedStream, ReceiveError> {
        // Memory touched by the thread's start is not needed while it waits.
        super::memory::trim_stack();
        let raw_name = if self.permit.is_some() { self.read_name()? } else { self.sensor_name() };
        let stripped = name::strip_padding(&raw_name);
        if let Some(content) = name::content_in_name(stripped) {
            return Err(ReceiveError::NoName(content));
        }
        let file = name::file_name(stripped);
        let _ = self.live.name.set(file.clone());
        let timing = self.timing();
        let quiet_max = timing.content_timeout.into_iter().chain(timing.idle_timeout).min();
        if let Some(reason) = self.wait_for_content(quiet_max)? {
            self.record_empty_stream(&raw_name, reason)?;
            return Ok(ReceivedStream { name: file, reason, end: StreamEnd::default() });
        }
        let opened = self.open_writer(&raw_name);
        let mut intake = opened.inspect_err(|error| {
            if !matches!(error, ReceiveError::TooManyNames) {
                self.shared.vault.record_loss(&file, self.socket.unread_bytes());
            }
        })?;
        super::memory::trim_stack();
        let reason = self.receive_content(&mut intake);
        let end = intake.finish(reason);
        Ok(ReceivedStream { name: file, reason, end })
    }

    fn timing(&self) -> &TcpTimeouts {
        &self.shared.timing
    }

    /// Reads the name and its terminator, and nothing after it.
    fn read_name(&self) -> Result<Vec<u8>, ReceiveError> {
        let mut quiet_at = Instant::now() + self.timing().handshake_timeout;
        let mut seen = 0;
        loop {
            let waited = self.wait_to_peek(seen, quiet_at)?;
            let mut buffer = self.shared.vault.pool().take(BufferSize::Small);
            let window = &mut buffer[..HANDSHAKE_BYTES_MAX];
            let bytes = match self.socket.peek(window)? {
                SocketRead::Bytes(bytes) => bytes,
                SocketRead::WouldBlock => 0,
                SocketRead::Eof => return Err(ReceiveError::Silent),
                SocketRead::Reset => return Err(ReceiveError::Reset),
            };
            let event = match waited {
                _ if bytes > seen => Trigger::BytesReceived,
                WaitOutcome::Ready(true) | WaitOutcome::ShuttingDown => Trigger::Closed,
                WaitOutcome::Ready(false) => Trigger::BytesReceived,
                WaitOutcome::TimedOut if seen == 0 => return Err(ReceiveError::Silent),
                WaitOutcome::TimedOut => Trigger::Silence,
            };
            match handshake::parse_name(&window[..bytes], event) {
                NameParse::Incomplete if bytes > seen => {
                    quiet_at = Instant::now() + self.timing().name_timeout
                }
                NameParse::Incomplete => {
                    drop(buffer);
                    std::thread::sleep(STALL_PAUSE);
                }
                NameParse::TooLong => return Err(ReceiveError::NameTooLong),
                NameParse::Empty => return Err(ReceiveError::Silent),
                NameParse::Name { name_bytes: 0, content_at: 0 } => return Ok(self.name_unnamed()),
                NameParse::Name { name_bytes, content_at } => {
                    let name = window[..name_bytes].to_vec();
                    if content_at > 0 {
                        self.socket.read(&mut window[..content_at])?;
                    }
                    return Ok(name);
                }
            }
            seen = bytes;
        }
    }

    /// Returns the name of a stream that starts with a capture instead of a name.
    fn name_unnamed(&self) -> Vec<u8> {
        let StreamStats { peer, connected_ms, .. } = self.live;
        let template = self.shared.unnamed.as_ref();
        let name = template.map_or_else(Vec::new, |template| template.name(*peer, *connected_ms));
        log::warn!(
            "stream_unnamed peer={peer} file={} note=\"expected the name of the stream, then the capture\"",
            name::file_name(&name)
        );
        name
    }

    /// Returns the name of a stream from a sensor, which sends none.
    fn sensor_name(&self) -> Vec<u8> {
        let StreamStats { peer, connected_ms, .. } = self.live;
        let template = self.shared.unnamed.clone().unwrap_or_else(NameTemplate::of_sensors);
        template.name(*peer, *connected_ms)
    }

    /// Waits for more than `seen` bytes until `quiet_at`, even if it is woken in between.
    fn wait_to_peek(&self, seen: usize, quiet_at: Instant) -> io::Result<WaitOutcome> {
        let timeout = quiet_at.saturating_duration_since(Instant::now());
        Ok(match self.socket.wait(seen + 1, Some(timeout), &self.shared.shutdown)? {
            WaitOutcome::Ready(false) if timeout.is_zero() => WaitOutcome::TimedOut,
            waited => waited,
        })
    }

    /// Waits for the next byte of content without reading it. Returns the reason if the stream ended instead.
    fn wait_for_content(&self, quiet_max: Option<Duration>) -> io::Result<Option<EndReason>> {
        loop {
            let waited = self.socket.wait(1, quiet_max, &self.shared.shutdown)?;
            let mut byte = [0];
            match (self.socket.peek(&mut byte)?, waited) {
                (SocketRead::Bytes(_), _) => return Ok(None),
                (SocketRead::Eof, _) => return Ok(Some(EndReason::Eof)),
                (SocketRead::Reset, _) => return Ok(Some(EndReason::Reset)),
                (SocketRead::WouldBlock, WaitOutcome::ShuttingDown) => return Ok(Some(EndReason::Shutdown)),
                (SocketRead::WouldBlock, WaitOutcome::TimedOut) => return Ok(Some(EndReason::Idle)),
                (SocketRead::WouldBlock, WaitOutcome::Ready(_)) => {}
            }
        }
    }

    fn origin(&self, raw_name: &[u8]) -> StreamOrigin {
        let has_padding = name::strip_padding(raw_name).len() < raw_name.len();
        StreamOrigin {
            source: StreamSource::Tcp,
            peer: self.live.peer.to_string(),
            raw_name: has_padding.then(|| raw_name.to_owned()),
            connected_ms: self.live.connected_ms,
        }
    }

    /// Takes the lock of the name, without its padding.
    fn enter(&self, raw_name: &[u8]) -> io::Result<PendingStream> {
        let shutdown = &self.shared.shutdown;
        let probe = Arc::clone(self.socket) as Arc<_>;
        let name = name::strip_padding(raw_name);
        self.shared.vault.open_stream(name, self.origin(raw_name), probe, || shutdown.is_triggered())
    }

    /// Chooses the file of the stream.
    fn open_writer(&self, raw_name: &[u8]) -> Result<StreamWriter, ReceiveError> {
        let entry = self.enter(raw_name)?;
        self.check_new_name(&entry)?;
        let head = match entry.needs_start() {
            true => self.peek_start(&entry.read_stored_head(HEADER_BYTES_MAX)?)?,
            false => StreamStart::Continuation,
        };
        Ok(entry.start(head)?)
    }

    /// Fails if the peer has used too many new names.
    fn check_new_name(&self, entry: &PendingStream) -> Result<(), ReceiveError> {
        let is_new = entry.is_exclusive() && !entry.has_stored_parts();
        match self.permit {
            Some(permit) if is_new && !permit.take_name(Instant::now()) => Err(ReceiveError::TooManyNames),
            _ => Ok(()),
        }
    }

    /// Creates an empty file for a name without content, unless something is stored under that name.
    fn record_empty_stream(&self, raw_name: &[u8], reason: EndReason) -> Result<(), ReceiveError> {
        if self.shared.vault.is_open(name::strip_padding(raw_name)) {
            return Ok(());
        }
        let entry = self.enter(raw_name)?;
        // A stream that arrived meanwhile either has content or will create the empty file.
        if entry.is_exclusive() && !entry.has_stored_parts() {
            self.check_new_name(&entry)?;
            entry.start(StreamStart::Continuation)?.finish(reason);
        }
        Ok(())
    }

    /// Peeks at the first bytes of the content, which stay in the kernel. `stored` are the first bytes of what is stored
    /// under the name.
    fn peek_start(&self, stored: &[u8]) -> io::Result<StreamStart> {
        let mut seen = 1;
        let mut stalled_until = None;
        loop {
            let waited = self.socket.wait(seen + 1, self.timing().idle_timeout, &self.shared.shutdown)?;
            let mut head = [0; DECISION_BYTES_MAX];
            let bytes = match self.socket.peek(&mut head)? {
                SocketRead::Bytes(bytes) => bytes,
                SocketRead::WouldBlock | SocketRead::Eof | SocketRead::Reset => {
                    return Ok(StreamStart::Continuation);
                }
            };
            match formats::starts_again(stored, &head[..bytes]) {
                Some(true) => return Ok(StreamStart::NewCapture),
                Some(false) => return Ok(StreamStart::Continuation),
                None if bytes > seen => (seen, stalled_until) = (bytes, None),
                // The stream ends before there are enough bytes.
                None if waited != WaitOutcome::Ready(false) => return Ok(undecided(&head[..bytes])),
                None => {
                    let until =
                        *stalled_until.get_or_insert_with(|| Instant::now() + self.timing().name_timeout);
                    if Instant::now() >= until {
                        return Ok(undecided(&head[..bytes]));
                    }
                    std::thread::sleep(STALL_PAUSE);
                }
            }
        }
    }

    fn receive_content(&self, intake: &mut StreamWriter) -> EndReason {
        match self.read_until_end(intake) {
            Ok(reason) => reason,
            Err(error) => {
                log::error!("stream_failed peer={} error=\"{error}\"", self.live.peer);
                intake.record_loss(self.socket.unread_bytes());
                EndReason::IoError
            }
        }
    }

    fn read_until_end(&self, intake: &mut StreamWriter) -> io::Result<EndReason> {
        let mut left = self.shared.stream_bytes_max;
        // Size of the last read. After a large read, more bytes are probably available.
        let mut last = 0;
        loop {
            let size = match self.wait_for_more(last)? {
                NextAction::Read(size) => size,
                NextAction::ShutDown => return self.drain_socket(intake, left),
                NextAction::Idle => return Ok(EndReason::Idle),
            };
            match self.read_once(intake, size, &mut left)? {
                SocketRead::Bytes(bytes) => {
                    self.keep_to_rate(bytes);
                    last = bytes;
                }
                SocketRead::WouldBlock => last = 0,
                SocketRead::Eof => return Ok(EndReason::Eof),
                SocketRead::Reset => return Ok(EndReason::Reset),
            }
            if left == 0 {
                return self.check_limit();
            }
        }
    }

    /// The stream has reached its maximum size. If another byte follows, it is cut off.
    fn check_limit(&self) -> io::Result<EndReason> {
        Ok(self.wait_for_content(self.timing().idle_timeout)?.unwrap_or(EndReason::Limit))
    }

    /// Waits for as long as the rate of the peer demands. TCP slows the sender down meanwhile.
    fn keep_to_rate(&self, bytes: usize) {
        let pause =
            self.permit.map_or(Duration::ZERO, |permit| permit.take_bytes(bytes as u64, Instant::now()));
        if !pause.is_zero() {
            self.shared.shutdown.wait(pause);
        }
    }

    /// Waits until reading is worth a buffer.
    fn wait_for_more(&self, last: usize) -> io::Result<NextAction> {
        let (socket, shutdown) = (self.socket, &self.shared.shutdown);
        if last < READ_AT_ONCE_BYTES {
            match socket.wait(1, self.timing().idle_timeout, shutdown)? {
                WaitOutcome::Ready(true) => return Ok(NextAction::Read(BufferSize::Large)),
                WaitOutcome::Ready(false) => {}
                WaitOutcome::TimedOut => return Ok(NextAction::Idle),
                WaitOutcome::ShuttingDown => return Ok(NextAction::ShutDown),
            }
        }
        Ok(match socket.wait(READ_AT_ONCE_BYTES, Some(COALESCE_INTERVAL), shutdown)? {
            WaitOutcome::Ready(_) => NextAction::Read(BufferSize::Large),
            WaitOutcome::TimedOut => NextAction::Read(BufferSize::Small),
            WaitOutcome::ShuttingDown => NextAction::ShutDown,
        })
    }

    fn read_once(
        &self,
        intake: &mut StreamWriter,
        size: BufferSize,
        left: &mut u64,
    ) -> io::Result<SocketRead> {
        let mut buffer = self.shared.vault.pool().take(size);
        let room = buffer.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
        let read = self.socket.read(&mut buffer[..room])?;
        if let SocketRead::Bytes(bytes) = read {
            *left -= bytes as u64;
            self.shared.metrics.received_bytes_total.add(bytes as u64);
            self.live.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
            self.live.last_byte_ms.store(now_ms(), Ordering::Relaxed);
            intake.feed(buffer, bytes)?;
            if let Some(file) = intake.file() {
                self.live.set_part_file(file);
            }
            let packets = intake.packets();
            let before = self.live.packets.swap(packets, Ordering::Relaxed);
            self.shared.metrics.packets_total.add(packets.saturating_sub(before));
        }
        Ok(read)
    }

    /// Reads what has arrived already, for at most the shutdown timeout.
    fn drain_socket(&self, intake: &mut StreamWriter, mut left: u64) -> io::Result<EndReason> {
        let deadline = Instant::now() + self.timing().shutdown_timeout;
        loop {
            match self.read_once(intake, BufferSize::Large, &mut left)? {
                SocketRead::Bytes(_) if left == 0 => return self.check_limit(),
                SocketRead::Bytes(_) if Instant::now() < deadline => {}
                SocketRead::Bytes(_) | SocketRead::WouldBlock => return Ok(EndReason::Shutdown),
                SocketRead::Eof => return Ok(EndReason::Eof),
                SocketRead::Reset => return Ok(EndReason::Reset),
            }
        }
    }
}

/// Decides on too few bytes. A complete magic number counts as a capture.
fn undecided(head: &[u8]) -> StreamStart {
    match formats::match_magic(head) {
        MagicMatch::Complete => StreamStart::NewCapture,
        MagicMatch::Partial | MagicMatch::None => StreamStart::Continuation,
    }
}

/// Action after waiting.
enum NextAction {
    Read(BufferSize),
    ShutDown,
    Idle,
}
