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
        let bytes = cursor.slice(at, next.to)?;
        match plan.record_fault(at, next.to) {
            Some((fault, place)) => sender.send_faulty(bytes, fault, place, self.stop)?,
            None => sender.send(bytes, self.stop)?,
        }
        self.counts.bytes.fetch_add(next.to - at, Ordering::Relaxed);
        Ok(next.to)
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::sync::{Arc, Mutex};

    use super::*;

    /// What a sink was asked for.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Act {
        Open,
        Send(usize),
        Close(Close),
    }

    /// Writes down what it is asked for.
    #[derive(Clone, Default)]
    struct Notes(Arc<Mutex<Vec<Act>>>);

    impl Notes {
        fn note(&self, act: Act) {
            self.0.lock().unwrap().push(act);
        }
    }

    impl Sink for Notes {
        fn open(&self, _: &[u8], _: &Stop) -> Result<Box<dyn Sender>, Broken> {
            self.note(Act::Open);
            Ok(Box::new(self.clone()))
        }
    }

    impl Sender for Notes {
        fn send(&mut self, bytes: &[u8], _: &Stop) -> Result<(), Broken> {
            self.note(Act::Send(bytes.len()));
            Ok(())
        }

        fn close(self: Box<Self>, how: Close, _: &Stop) -> Result<(), Broken> {
            self.note(Act::Close(how));
            Ok(())
        }
    }

    fn acts(captures: Pace, chunk_bytes: usize, fault: Option<Fault>) -> Vec<Act> {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/pcap/rejected-call.pcap");
        let sources = Source::open_all(&[PathBuf::from(path)]).unwrap();
        let manner = Manner { captures, others: Pace::TopSpeed, chunk_bytes, piece_bytes: 1000 };
        let fault = fault.map(|fault| (fault, Random::new(7, 0)));
        let (notes, counts, stop) = (Notes::default(), Counts::default(), Stop::new().unwrap());
        let stream = Stream {
            source: &sources[0],
            name: b"call",
            manner: &manner,
            fault,
            counts: &counts,
            stop: &stop,
        };
        stream.send(&notes).unwrap();
        let acts = notes.0.lock().unwrap().clone();
        let sent: usize = acts.iter().map(|act| if let Act::Send(bytes) = act { *bytes } else { 0 }).sum();
        assert_eq!(counts.bytes.load(Ordering::Relaxed), sent as u64);
        acts
    }

    #[test]
    fn at_top_speed_every_send_but_the_last_is_a_chunk() {
        let mut expected = vec![Act::Open];
        expected.extend([Act::Send(100); 15]);
        expected.extend([Act::Send(59), Act::Close(Close::Orderly)]);
        assert_eq!(acts(Pace::TopSpeed, 100, None), expected);
    }

    #[test]
    fn by_packets_a_send_ends_at_each_packet() {
        let sends = [24 + 434, 383, 340, 378].map(Act::Send);
        let expected = [&[Act::Open], &sends[..], &[Act::Close(Close::Orderly)]].concat();
        assert_eq!(acts(Pace::Packets { per_second: 1e6 }, 5000, None), expected);
    }

    #[test]
    fn a_fault_breaks_at_the_same_byte_at_any_pace_and_chunk() {
        for fault in [Fault::Cut, Fault::Reset, Fault::ReconnectResend, Fault::ReconnectContinue] {
            let shape = |pace, chunk_bytes| {
                let acts = acts(pace, chunk_bytes, Some(fault));
                // Sends between the other acts, added up.
                let parts = acts.split(|act| !matches!(act, Act::Send(_)));
                let sum = |part: &[Act]| -> usize {
                    part.iter().map(|act| if let Act::Send(bytes) = act { *bytes } else { 0 }).sum()
                };
                let sums: Vec<usize> = parts.map(sum).filter(|sum| *sum > 0).collect();
                (sums, acts.last().copied())
            };
            let (sums, last) = shape(Pace::TopSpeed, 100);
            assert_eq!(shape(Pace::Packets { per_second: 1e6 }, 7), (sums.clone(), last));
            let expected = match fault {
                Fault::Cut | Fault::Reset => vec![sums[0]],
                Fault::ReconnectResend => vec![sums[0], 1559],
                _ => vec![sums[0], 1559 - sums[0]],
            };
            assert_eq!(sums, expected);
            let how = if fault == Fault::Reset { Close::Reset } else { Close::Orderly };
            assert_eq!(last, Some(Act::Close(how)));
        }
    }
}
