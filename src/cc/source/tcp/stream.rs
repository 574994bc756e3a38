//! One stream: its name, then its content, until its end. Runs in the stream's own thread.
//!
//! The thread holds a buffer only while bytes are there to be read. A stream that brings little is read at most
//! every [`GATHER`]: many small sends become one read and one write, and still each packet is in the file well
//! within 50 ms. A stream with much waiting in the kernel is read at once.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::socket::{Read, Socket, Waited};
use super::{Shared, Timing};
use crate::cc::frame::handshake::{self, DECIDE_BYTES_MAX, Event, Verdict};
use crate::cc::frame::name;
use crate::cc::live::LiveStream;
use crate::cc::vault::manifest::{EndReason, Source};
use crate::cc::vault::pool::Size;
use crate::cc::vault::time::now_ms;
use crate::cc::vault::{Entry, Head, Intake, Origin};

/// How long a stream that brings little is left to gather bytes.
const GATHER: Duration = Duration::from_millis(20);

/// So many bytes waiting are worth a read at once.
const MUCH: usize = 64 << 10;

/// Before it is asked again, where more is there and cannot be looked at: behind urgent data, or where the kernel is
/// short of memory and wakes whoever has anything to read. To ask at once would keep a processor busy.
const STALL: Duration = Duration::from_millis(20);

/// Bytes that tell a capture from anything else.
const HEAD_BYTES: usize = 12;

/// Bytes of a capture's magic.
const MAGIC_BYTES: usize = 4;

/// A stream under way.
pub struct Stream<'a> {
    /// The connection.
    pub socket: &'a Arc<Socket>,
    /// What others see of it.
    pub live: &'a LiveStream,
    /// What all streams share.
    pub shared: &'a Shared,
}

/// Why there was no stream.
#[derive(Debug)]
pub enum Refused {
    /// Not a byte came, until the end or the time-out.
    Silent,
    /// More bytes than a name has, and no end of it.
    NoName,
    /// The connection was reset before the name was there.
    Reset,
    /// The socket or the vault failed.
    Failed(io::Error),
}

impl From<io::Error> for Refused {
    fn from(error: io::Error) -> Refused {
        Refused::Failed(error)
    }
}

impl Stream<'_> {
    /// Receives the stream; gives its escaped name and why it ended.
    pub fn receive(&self) -> Result<(String, EndReason), Refused> {
        // What the thread's start touched is not needed while it waits, and after the begin neither.
        super::memory::trim_stack();
        let name = self.name()?;
        let file = name::file_name(&name);
        let _ = self.live.file.set(file.clone());
        if let Some(reason) = self.wait_for_content()? {
            self.note_empty(&name, reason)?;
            return Ok((file, reason));
        }
        let begun = self.begin(&name);
        let mut intake = begun.inspect_err(|_| self.shared.vault.note_loss(&file, self.socket.unread()))?;
        super::memory::trim_stack();
        let reason = self.content(&mut intake);
        intake.finish(reason);
        Ok((file, reason))
    }

    fn timing(&self) -> &Timing {
        &self.shared.timing
    }

    /// Reads the name, and what ends it, and nothing behind it.
    fn name(&self) -> Result<Vec<u8>, Refused> {
        let mut quiet_at = Instant::now() + self.timing().handshake_timeout;
        let mut seen = 0;
        loop {
            let waited = self.wait_to_peek(seen, quiet_at)?;
            let mut buffer = self.shared.vault.pool().take(Size::Small);
            let window = &mut buffer[..DECIDE_BYTES_MAX];
            let bytes = match self.socket.peek(window)? {
                Read::Bytes(bytes) => bytes,
                Read::Nothing => 0,
                Read::End => return Err(Refused::Silent),
                Read::Reset => return Err(Refused::Reset),
            };
            let event = match waited {
                _ if bytes > seen => Event::Data,
                Waited::Ready(true) | Waited::Stopping => Event::End,
                Waited::Ready(false) => Event::Data,
                Waited::TimedOut if seen == 0 => return Err(Refused::Silent),
                Waited::TimedOut => Event::Gap,
            };
            match handshake::decide(&window[..bytes], event) {
                Verdict::More if bytes > seen => quiet_at = Instant::now() + self.timing().name_gap,
                Verdict::More => {
                    drop(buffer);
                    std::thread::sleep(STALL);
                }
                Verdict::TooLong => return Err(Refused::NoName),
                Verdict::Nothing => return Err(Refused::Silent),
                Verdict::Name { name_bytes, content_at } => {
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

    /// Waits for more than `seen` bytes, until `quiet_at` at most, however often it is woken for nothing.
    fn wait_to_peek(&self, seen: usize, quiet_at: Instant) -> io::Result<Waited> {
        let timeout = quiet_at.saturating_duration_since(Instant::now());
        Ok(match self.socket.wait(seen + 1, Some(timeout), &self.shared.stop)? {
            Waited::Ready(false) if timeout.is_zero() => Waited::TimedOut,
            waited => waited,
        })
    }

    /// Waits for the next byte of content, and leaves it. `Some`: the stream ended without one.
    fn wait_for_content(&self) -> io::Result<Option<EndReason>> {
        loop {
            let waited = self.socket.wait(1, self.timing().idle_timeout, &self.shared.stop)?;
            let mut byte = [0];
            match (self.socket.peek(&mut byte)?, waited) {
                (Read::Bytes(_), _) => return Ok(None),
                (Read::End, _) => return Ok(Some(EndReason::Eof)),
                (Read::Reset, _) => return Ok(Some(EndReason::Reset)),
                (Read::Nothing, Waited::Stopping) => return Ok(Some(EndReason::Drained)),
                (Read::Nothing, Waited::TimedOut) => return Ok(Some(EndReason::Idle)),
                (Read::Nothing, Waited::Ready(_)) => {}
            }
        }
    }

    fn origin(&self) -> Origin {
        Origin { source: Source::Tcp, peer: self.live.peer.to_string(), connected_ms: self.live.connected_ms }
    }

    fn enter(&self, name: &[u8]) -> io::Result<Entry> {
        let stop = &self.shared.stop;
        let probe = Arc::clone(self.socket) as Arc<_>;
        self.shared.vault.enter(name, self.origin(), probe, || stop.is_asked())
    }

    /// Finds out where the stream goes.
    fn begin(&self, name: &[u8]) -> io::Result<Intake> {
        let entry = self.enter(name)?;
        let head = if entry.needs_head() { self.head()? } else { Head::Other };
        entry.begin(head)
    }

    /// A name without content: an empty file, unless something is stored under it.
    fn note_empty(&self, name: &[u8], reason: EndReason) -> io::Result<()> {
        if self.shared.vault.is_open(name) {
            return Ok(());
        }
        let entry = self.enter(name)?;
        // One that came just now has content, or makes the empty file itself.
        if entry.is_alone() && !entry.needs_head() {
            entry.begin(Head::Other)?.finish(reason);
        }
        Ok(())
    }

    /// Looks at the first bytes of content, which stay in the kernel.
    fn head(&self) -> io::Result<Head> {
        let mut seen = 1;
        let mut stalled_until = None;
        loop {
            let waited = self.socket.wait(seen + 1, self.timing().idle_timeout, &self.shared.stop)?;
            let mut head = [0; HEAD_BYTES];
            let bytes = match self.socket.peek(&mut head)? {
                Read::Bytes(bytes) => bytes,
                Read::Nothing | Read::End | Read::Reset => return Ok(Head::Other),
            };
            match handshake::starts_capture(&head[..bytes]) {
                Some(true) => return Ok(Head::Capture),
                Some(false) => return Ok(Head::Other),
                None if bytes > seen => (seen, stalled_until) = (bytes, None),
                // The end comes before there are bytes enough.
                None if waited != Waited::Ready(false) => return Ok(undecided(bytes)),
                None => {
                    let until = *stalled_until.get_or_insert_with(|| Instant::now() + self.timing().name_gap);
                    if Instant::now() >= until {
                        return Ok(undecided(bytes));
                    }
                    std::thread::sleep(STALL);
                }
            }
        }
    }

    /// Reads content until its end.
    fn content(&self, intake: &mut Intake) -> EndReason {
        match self.read_on(intake) {
            Ok(reason) => reason,
            Err(error) => {
                log::error!("stream_failed peer={} error=\"{error}\"", self.live.peer);
                intake.lose(self.socket.unread());
                EndReason::IoError
            }
        }
    }

    fn read_on(&self, intake: &mut Intake) -> io::Result<EndReason> {
        let mut left = self.shared.stream_bytes_max;
        // Bytes of the last read: after a large one more is likely to be waiting.
        let mut last = 0;
        loop {
            let size = match self.wait_for_more(last)? {
                Next::Read(size) => size,
                Next::Drain => return self.drain(intake, left),
                Next::Idle => return Ok(EndReason::Idle),
            };
            match self.read_once(intake, size, &mut left)? {
                Read::Bytes(bytes) => last = bytes,
                Read::Nothing => last = 0,
                Read::End => return Ok(EndReason::Eof),
                Read::Reset => return Ok(EndReason::Reset),
            }
            if left == 0 {
                return self.past_limit();
            }
        }
    }

    /// As many bytes came as a stream may have: it is cut if another one comes.
    fn past_limit(&self) -> io::Result<EndReason> {
        Ok(self.wait_for_content()?.unwrap_or(EndReason::Limit))
    }

    /// Waits until it is worth while to take a buffer.
    fn wait_for_more(&self, last: usize) -> io::Result<Next> {
        let (socket, stop) = (self.socket, &self.shared.stop);
        if last < MUCH {
            match socket.wait(1, self.timing().idle_timeout, stop)? {
                Waited::Ready(true) => return Ok(Next::Read(Size::Large)),
                Waited::Ready(false) => {}
                Waited::TimedOut => return Ok(Next::Idle),
                Waited::Stopping => return Ok(Next::Drain),
            }
        }
        Ok(match socket.wait(MUCH, Some(GATHER), stop)? {
            Waited::Ready(_) => Next::Read(Size::Large),
            Waited::TimedOut => Next::Read(Size::Small),
            Waited::Stopping => Next::Drain,
        })
    }

    fn read_once(&self, intake: &mut Intake, size: Size, left: &mut u64) -> io::Result<Read> {
        let mut buffer = self.shared.vault.pool().take(size);
        let room = buffer.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
        let read = self.socket.read(&mut buffer[..room])?;
        if let Read::Bytes(bytes) = read {
            *left -= bytes as u64;
            self.shared.counters.received_bytes_total.add(bytes as u64);
            self.live.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
            self.live.last_byte_ms.store(now_ms(), Ordering::Relaxed);
            intake.feed(buffer, bytes)?;
            let packets = intake.packets();
            let before = self.live.packets.swap(packets, Ordering::Relaxed);
            self.shared.counters.packets_total.add(packets.saturating_sub(before));
        }
        Ok(read)
    }

    /// Takes what has arrived already, for no longer than a drain may last.
    fn drain(&self, intake: &mut Intake, mut left: u64) -> io::Result<EndReason> {
        let deadline = Instant::now() + self.timing().drain;
        loop {
            match self.read_once(intake, Size::Large, &mut left)? {
                Read::Bytes(_) if left == 0 => return self.past_limit(),
                Read::Bytes(_) if Instant::now() < deadline => {}
                Read::Bytes(_) | Read::Nothing => return Ok(EndReason::Drained),
                Read::End => return Ok(EndReason::Eof),
                Read::Reset => return Ok(EndReason::Reset),
            }
        }
    }
}

/// What so few bytes are: undecided with four of them or more, they have the whole magic of pcapng.
fn undecided(bytes: usize) -> Head {
    if bytes >= MAGIC_BYTES { Head::Capture } else { Head::Other }
}

/// What to do after waiting.
enum Next {
    Read(Size),
    Drain,
    Idle,
}
