//! One stream from its first byte to its last, with its pace and its faults. Runs in the stream's own thread.
//!
//! Invariant: bytes go in order and none is left out, except where a fault is to do that.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::replay::fault::{Fault, Plan, Random};
use crate::replay::pace::{Lateness, Pace, Pacer};
use crate::replay::packets::Packets;
use crate::replay::sink::{Broken, Close, Sender, Sink};
use crate::replay::source::{Cursor, Source};
use crate::replay::wait;
use crate::stop::Stop;
use crate::{Error, Result};

/// How all streams of a run are sent.
#[derive(Clone, Copy, Debug)]
pub struct Manner {
    /// For captures.
    pub captures: Pace,
    /// For files that have no packets.
    pub others: Pace,
    /// The most bytes of one send.
    pub chunk_bytes: usize,
    /// What a stream reads of a large file at once.
    pub piece_bytes: usize,
}

/// What the streams of a run count together.
#[derive(Debug, Default)]
pub struct Counts {
    /// Streams that reached the receiver.
    pub opened: AtomicU64,
    /// Bytes of content handed over; a re-send counts again.
    pub bytes: AtomicU64,
    /// How late sends were.
    pub lateness: Lateness,
}

/// How a stream ended, when it did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Every byte was sent.
    Whole,
    /// A fault ended it, as it was to.
    CutOff,
}

/// The time since the stream's anchor. It stands still while a fault holds the stream up, so that lateness
/// is what the machine and the receiver cause.
struct Clock {
    anchor: Instant,
}

impl Clock {
    fn now(&self) -> Duration {
        self.anchor.elapsed()
    }

    /// Runs `hold` off the clock.
    fn off<T>(&mut self, hold: impl FnOnce() -> T) -> T {
        let begun = Instant::now();
        let result = hold();
        self.anchor += begun.elapsed();
        result
    }
}

/// Bytes that go out together when they are due: a packet, or a chunk where packets do not matter.
struct Step {
    from: u64,
    to: u64,
    due: Option<Duration>,
}

/// The steps of a stream, in order and without a hole.
struct Steps {
    packets: Option<Packets>,
    pacer: Pacer,
    chunk_bytes: u64,
    at: u64,
    bytes: u64,
}

impl Steps {
    fn new(source: &Source, manner: &Manner) -> Steps {
        let packets = source.packets();
        let pace = if packets.is_some() { manner.captures } else { manner.others };
        Steps {
            packets: packets.filter(|_| pace.is_by_packets()),
            pacer: Pacer::new(pace),
            chunk_bytes: manner.chunk_bytes as u64,
            at: 0,
            bytes: source.bytes(),
        }
    }

    fn next(&mut self, source: &Source, cursor: &mut Cursor<'_>) -> Result<Option<Step>> {
        let from = self.at;
        if from == self.bytes {
            return Ok(None);
        }
        let (to, due) = match &mut self.packets {
            Some(packets) => match packets.next(cursor).map_err(Error::path("read", source.path()))? {
                Some(packet) => (packet.end, self.pacer.due(from, packet.time_ns)),
                // What follows the last whole packet has no time of its own.
                None => (self.bytes, None),
            },
            None => (self.bytes.min(from + self.chunk_bytes), self.pacer.due(from, None)),
        };
        self.at = to;
        Ok(Some(Step { from, to, due }))
    }
}

/// A stream being sent.
pub struct Stream<'a> {
    /// What it sends.
    pub source: &'a Source,
    /// Under which name.
    pub name: &'a [u8],
    /// How.
    pub manner: &'a Manner,
    /// What goes wrong.
    pub fault: Option<(Fault, Random)>,
    /// Where it counts.
    pub counts: &'a Counts,
    /// What ends it early.
    pub stop: &'a Stop,
}

impl Stream<'_> {
    /// Sends it.
    pub fn send(&self, sink: &dyn Sink) -> Result<End, Broken> {
        let mut cursor = self.source.cursor(self.manner.piece_bytes);
        let mut plan = self.plan(&mut cursor)?;
        let mut sender = self.open(sink)?;
        let mut clock = Clock { anchor: Instant::now() };
        let mut sent_before = 0;
        let mut steps = Steps::new(self.source, self.manner);
        while let Some(step) = steps.next(self.source, &mut cursor)? {
            self.wait_for(&step, &clock, sent_before)?;
            let mut at = step.from;
            while at < step.to {
                at = self.send_chunk(at, step.to, &mut *sender, &mut cursor, &mut plan, &mut clock)?;
                if !plan.breaks(at) {
                    continue;
                }
                let fault = self.fault.as_ref().map(|(fault, _)| *fault);
                let how = if fault == Some(Fault::Reset) { Close::Reset } else { Close::Orderly };
                sender.close(how, self.stop)?;
                if matches!(fault, Some(Fault::Cut | Fault::Reset)) {
                    return Ok(End::CutOff);
                }
                sender = clock.off(|| self.open(sink))?;
                if fault == Some(Fault::ReconnectResend) {
                    sent_before = at;
                    steps = Steps::new(self.source, self.manner);
                    break;
                }
            }
        }
        sender.close(Close::Orderly, self.stop)?;
        Ok(End::Whole)
    }

    fn open(&self, sink: &dyn Sink) -> Result<Box<dyn Sender>, Broken> {
        let sender = sink.open(self.name, self.stop)?;
        self.counts.opened.fetch_add(1, Ordering::Relaxed);
        Ok(sender)
    }

    /// What goes wrong in this stream; a break is moved into a packet.
    fn plan(&self, cursor: &mut Cursor<'_>) -> Result<Plan> {
        let Some((fault, random)) = self.fault.clone() else { return Ok(Plan::none()) };
        let mut plan = Plan::draw(fault, random, self.source.bytes());
        let (Some(at), Some(mut packets)) = (plan.break_at(), self.source.packets()) else { return Ok(plan) };
        while let Some(packet) = packets.next(cursor).map_err(Error::path("read", self.source.path()))? {
            if packet.end > at {
                plan.break_at_byte(at.max(packet.start + 1));
                break;
            }
        }
        Ok(plan)
    }

    /// Waits until the step is due. Bytes that an earlier connection sent are due at once and never late: a sender
    /// that starts again catches up with its capture.
    fn wait_for(&self, step: &Step, clock: &Clock, sent_before: u64) -> Result<(), Broken> {
        let Some(due) = step.due else { return Ok(()) };
        if let Some(early) = due.checked_sub(clock.now()) {
            wait::pause(self.stop, early)?;
        }
        if step.from >= sent_before {
            self.counts.lateness.note(clock.now().saturating_sub(due));
        }
        Ok(())
    }

    /// One send of the bytes from `at`, of those up to `due`; says how far it went.
    fn send_chunk(
        &self,
        at: u64,
        due: u64,
        sender: &mut dyn Sender,
        cursor: &mut Cursor<'_>,
        plan: &mut Plan,
        clock: &mut Clock,
    ) -> Result<u64, Broken> {
        // A receiver that takes everything never makes it wait, and a wait is where else a stop is seen.
        if self.stop.is_asked() {
            return Err(Broken::Stopped);
        }
        let next = plan.bound(at, due.min(at + self.manner.chunk_bytes as u64));
        if let Some(pause) = next.pause {
            clock.off(|| wait::pause(self.stop, pause))?;
        }
        sender.send(cursor.slice(at, next.to)?, self.stop)?;
        self.counts.bytes.fetch_add(next.to - at, Ordering::Relaxed);
        Ok(next.to)
    }
}
