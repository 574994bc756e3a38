//! Sends one stream from its first byte to its last, with its pace and its faults. Runs in the stream's own
//! thread.
//!
//! Invariant: all bytes are sent, in order, except where a fault says otherwise.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::capture::reader::PacketReader;
use crate::capture::tracker::Packet;
use crate::replay::fault::{Fault, FaultPlan, Random};
use crate::replay::pace::{DueTime, GapLimit, Lateness, Pace, Pacer};
use crate::replay::sink::{CloseMode, Delivery, SendError, StreamSender, StreamSink};
use crate::replay::source::{FileCursor, ReplayFile};
use crate::replay::wait;
use crate::runtime::logging::Throttle;
use crate::runtime::shutdown::Shutdown;
use crate::runtime::time::rfc3339_ns;
use crate::{Error, Result};

/// A wait of this length is reported, so that a stream that waits does not look like one that hangs.
const LONG_WAIT: Duration = Duration::from_secs(10);

/// Options of all streams of a run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReplayOptions {
    /// Pace of captures.
    pub captures: Pace,
    /// Pace of files that are not captures.
    pub other_files: Pace,
    /// Longest wait for a packet, if captures have their own pace.
    pub gaps: GapLimit,
    /// Maximum bytes per send.
    pub chunk_bytes: usize,
    /// Bytes that a stream reads of a large file at once.
    pub piece_bytes: usize,
}

/// Counts over all streams of a run.
#[derive(Debug, Default)]
pub(crate) struct ReplayCounts {
    /// Connections that were opened.
    pub opened: AtomicU64,
    /// Bytes of content sent. Re-sent bytes count again.
    pub bytes: AtomicU64,
    /// Of these bytes, those of which the receiver has confirmed that it has them.
    pub confirmed_bytes: AtomicU64,
    /// Gaps between packets that were not waited for in full.
    pub gaps_shortened: AtomicU64,
    pub lateness: Lateness,
    /// Limits the reports on what captures contain.
    pub reports: Throttle,
}

/// Way in which a stream ended without failing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StreamEnd {
    Whole,
    /// A requested fault ended it.
    CutByFault,
}

/// Time since the stream's anchor. It is paused while a fault delays the stream, so that lateness is caused
/// by the machine and the receiver alone.
struct StreamClock {
    anchor: Instant,
}

impl StreamClock {
    fn now(&self) -> Duration {
        self.anchor.elapsed()
    }

    /// Runs `hold` while the clock is paused.
    fn pause_while<T>(&mut self, hold: impl FnOnce() -> T) -> T {
        let started = Instant::now();
        let result = hold();
        self.anchor += started.elapsed();
        result
    }
}

/// Bytes that are due together: a packet, or a chunk if packets do not matter.
struct SendStep {
    from: u64,
    to: u64,
    due: DueTime,
    /// Capture time of the packet.
    time_ns: Option<i64>,
    /// True for the bytes after the last complete packet.
    is_rest: bool,
}

/// Steps of a stream, in order and without gaps.
struct SendSchedule {
    packets: Option<PacketReader>,
    pacer: Pacer,
    chunk_bytes: u64,
    at: u64,
    bytes: u64,
}

impl SendSchedule {
    fn new(source: &ReplayFile, manner: &ReplayOptions) -> SendSchedule {
        let packets = source.packets();
        let pace = if packets.is_some() { manner.captures } else { manner.other_files };
        SendSchedule {
            packets: packets.filter(|_| pace.is_by_packets()),
            pacer: Pacer::new(pace, manner.gaps),
            chunk_bytes: manner.chunk_bytes as u64,
            at: 0,
            bytes: source.bytes(),
        }
    }

    fn next(&mut self, source: &ReplayFile, cursor: &mut FileCursor<'_>) -> Result<Option<SendStep>> {
        let from = self.at;
        if from == self.bytes {
            return Ok(None);
        }
        let step = match &mut self.packets {
            Some(packets) => match packets.next(cursor).map_err(Error::path("read", source.path()))? {
                Some(Packet { end: to, time_ns, .. }) => {
                    SendStep { from, to, due: self.pacer.due(from, time_ns), time_ns, is_rest: false }
                }
                // Bytes after the last complete packet have no time of their own.
                None => {
                    SendStep { from, to: self.bytes, due: DueTime::default(), time_ns: None, is_rest: true }
                }
            },
            None => {
                let (to, due) = (self.bytes.min(from + self.chunk_bytes), self.pacer.due(from, None));
                SendStep { from, to, due, time_ns: None, is_rest: false }
            }
        };
        self.at = step.to;
        Ok(Some(step))
    }
}

/// Stream being sent.
pub(crate) struct OutgoingStream<'a> {
    pub source: &'a ReplayFile,
    pub name: &'a [u8],
    pub options: &'a ReplayOptions,
    pub fault: Option<(Fault, Random)>,
    pub counts: &'a ReplayCounts,
    pub shutdown: &'a Shutdown,
}

impl OutgoingStream<'_> {
    /// Sends the stream.
    pub(crate) fn send(&self, sink: &dyn StreamSink) -> Result<StreamEnd, SendError> {
        let mut cursor = self.source.cursor(self.options.piece_bytes);
        let mut plan = self.draw_fault_plan(&mut cursor)?;
        let mut sender = self.open(sink)?;
        let mut clock = StreamClock { anchor: Instant::now() };
        let (mut sent_before, mut on_connection) = (0, 0);
        let mut steps = SendSchedule::new(self.source, self.options);
        while let Some(step) = steps.next(self.source, &mut cursor)? {
            self.wait_for(&step, &clock, sent_before)?;
            let mut at = step.from;
            while at < step.to {
                let from = at;
                at = self.send_chunk(from, step.to, &mut *sender, &mut cursor, &mut plan, &mut clock)?;
                on_connection += at - from;
                if !plan.take_break(at) {
                    continue;
                }
                let fault = self.fault.as_ref().map(|(fault, _)| *fault);
                let how = if fault == Some(Fault::Reset) { CloseMode::Reset } else { CloseMode::Orderly };
                self.close(sender, how, std::mem::take(&mut on_connection))?;
                if matches!(fault, Some(Fault::Cut | Fault::Reset)) {
                    return Ok(StreamEnd::CutByFault);
                }
                sender = clock.pause_while(|| self.open(sink))?;
                if fault == Some(Fault::ReconnectResend) {
                    sent_before = at;
                    steps = SendSchedule::new(self.source, self.options);
                    break;
                }
            }
        }
        self.close(sender, CloseMode::Orderly, on_connection)?;
        Ok(StreamEnd::Whole)
    }

    /// Ends a connection on which `bytes` bytes were sent.
    fn close(&self, sender: Box<dyn StreamSender>, how: CloseMode, bytes: u64) -> Result<(), SendError> {
        if sender.close(how, self.shutdown)? == Delivery::Confirmed {
            self.counts.confirmed_bytes.fetch_add(bytes, Ordering::Relaxed);
        }
        Ok(())
    }

    fn open(&self, sink: &dyn StreamSink) -> Result<Box<dyn StreamSender>, SendError> {
        let sender = sink.open(self.name, self.shutdown)?;
        self.counts.opened.fetch_add(1, Ordering::Relaxed);
        Ok(sender)
    }

    /// Draws this stream's faults. A break is moved inside a packet.
    fn draw_fault_plan(&self, cursor: &mut FileCursor<'_>) -> Result<FaultPlan> {
        let Some((fault, random)) = self.fault.clone() else { return Ok(FaultPlan::none()) };
        let mut plan = FaultPlan::draw(fault, random, self.source.bytes());
        let (Some(at), Some(mut packets)) = (plan.break_at(), self.source.packets()) else { return Ok(plan) };
        while let Some(packet) = packets.next(cursor).map_err(Error::path("read", self.source.path()))? {
            if packet.end > at {
                plan.set_break_at(at.max(packet.start + 1));
                break;
            }
        }
        Ok(plan)
    }

    /// Waits until the step is due. Bytes that an earlier connection already sent are due immediately and
    /// never late: a sender that starts again catches up with its capture.
    fn wait_for(&self, step: &SendStep, clock: &StreamClock, sent_before: u64) -> Result<(), SendError> {
        self.report_times(step);
        let Some(due) = step.due.due else { return Ok(()) };
        if let Some(early) = due.checked_sub(clock.now()) {
            if early >= LONG_WAIT && self.counts.reports.is_due("wait") {
                let name = String::from_utf8_lossy(self.name);
                log::info!(
                    "packet_waiting name={} wait_s={:.0} note=\"--max-gap limits it\"",
                    name.escape_debug(),
                    early.as_secs_f64()
                );
            }
            wait::pause(self.shutdown, early)?;
        }
        if step.from >= sent_before {
            self.counts.lateness.record(clock.now().saturating_sub(due));
        }
        Ok(())
    }

    /// Reports where the stream does not follow the times of its capture.
    fn report_times(&self, step: &SendStep) {
        if step.is_rest {
            self.counts.reports.warn(
                "rest",
                format_args!(
                    "packets_ended file={:?} at={} bytes_left={} note=\"the rest is no complete packet; it is sent at once\"",
                    self.source.path(),
                    step.from,
                    step.to - step.from
                ),
            );
        }
        let Some(gap) = step.due.shortened else { return };
        self.counts.gaps_shortened.fetch_add(1, Ordering::Relaxed);
        self.counts.reports.warn(
            "gap",
            format_args!(
                "gap_shortened file={:?} packet_at={} gap_s={:.3} wait_s={:.3}",
                self.source.path(),
                step.time_ns.map(rfc3339_ns).unwrap_or_default(),
                gap.seconds,
                gap.wait.as_secs_f64()
            ),
        );
    }

    /// Sends the next chunk of the bytes `at..due` and returns where it ended.
    fn send_chunk(
        &self,
        at: u64,
        due: u64,
        sender: &mut dyn StreamSender,
        cursor: &mut FileCursor<'_>,
        plan: &mut FaultPlan,
        clock: &mut StreamClock,
    ) -> Result<u64, SendError> {
        // Waits notice a shutdown, but a fast receiver never causes one.
        if self.shutdown.is_triggered() {
            return Err(SendError::Stopped);
        }
        let next = plan.next_send(at, due.min(at + self.options.chunk_bytes as u64));
        if let Some(pause) = next.pause {
            clock.pause_while(|| wait::pause(self.shutdown, pause))?;
        }
        let bytes = cursor.slice(at, next.to)?;
        match plan.record_fault(at, next.to) {
            Some((fault, place)) => sender.send_faulty(bytes, fault, place, self.shutdown)?,
            None => sender.send(bytes, self.shutdown)?,
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
    use crate::replay::selection::Selection;

    /// Call of a sink.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Act {
        Open,
        Send(usize),
        Close(CloseMode),
    }

    /// Sink that records its calls.
    #[derive(Clone, Default)]
    struct Notes(Arc<Mutex<Vec<Act>>>);

    impl Notes {
        fn note(&self, act: Act) {
            self.0.lock().unwrap().push(act);
        }
    }

    impl StreamSink for Notes {
        fn check_name(&self, _: &[u8], _: &[u8]) -> Result<(), String> {
            Ok(())
        }

        fn open(&self, _: &[u8], _: &Shutdown) -> Result<Box<dyn StreamSender>, SendError> {
            self.note(Act::Open);
            Ok(Box::new(self.clone()))
        }
    }

    impl StreamSender for Notes {
        fn send(&mut self, bytes: &[u8], _: &Shutdown) -> Result<(), SendError> {
            self.note(Act::Send(bytes.len()));
            Ok(())
        }

        fn close(self: Box<Self>, how: CloseMode, _: &Shutdown) -> Result<Delivery, SendError> {
            self.note(Act::Close(how));
            Ok(if how == CloseMode::Reset { Delivery::Unknown } else { Delivery::Confirmed })
        }
    }

    fn acts(captures: Pace, chunk_bytes: usize, fault: Option<Fault>) -> Vec<Act> {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/pcap/rejected-call.pcap");
        let sources = ReplayFile::open_all(&[PathBuf::from(path)], &Selection::default()).unwrap();
        let manner = ReplayOptions {
            captures,
            other_files: Pace::TopSpeed,
            gaps: GapLimit::default(),
            chunk_bytes,
            piece_bytes: 1000,
        };
        let fault = fault.map(|fault| (fault, Random::new(7, 0)));
        let (notes, counts, shutdown) = (Notes::default(), ReplayCounts::default(), Shutdown::new().unwrap());
        let stream = OutgoingStream {
            source: &sources[0],
            name: b"call",
            options: &manner,
            fault,
            counts: &counts,
            shutdown: &shutdown,
        };
        stream.send(&notes).unwrap();
        let acts = notes.0.lock().unwrap().clone();
        let sent: usize = acts.iter().map(|act| if let Act::Send(bytes) = act { *bytes } else { 0 }).sum();
        assert_eq!(counts.bytes.load(Ordering::Relaxed), sent as u64);
        let confirmed = if acts.last() == Some(&Act::Close(CloseMode::Reset)) { 0 } else { sent };
        assert_eq!(counts.confirmed_bytes.load(Ordering::Relaxed), confirmed as u64);
        acts
    }

    #[test]
    fn at_top_speed_each_send_but_the_last_is_a_full_chunk() {
        let mut expected = vec![Act::Open];
        expected.extend([Act::Send(100); 15]);
        expected.extend([Act::Send(59), Act::Close(CloseMode::Orderly)]);
        assert_eq!(acts(Pace::TopSpeed, 100, None), expected);
    }

    #[test]
    fn paced_by_packets_each_send_ends_at_a_packet() {
        let sends = [24 + 434, 383, 340, 378].map(Act::Send);
        let expected = [&[Act::Open], &sends[..], &[Act::Close(CloseMode::Orderly)]].concat();
        assert_eq!(acts(Pace::Packets { per_second: 1e6 }, 5000, None), expected);
    }

    #[test]
    fn a_fault_breaks_at_the_same_byte_for_any_pace_and_chunk_size() {
        for fault in [Fault::Cut, Fault::Reset, Fault::ReconnectResend, Fault::ReconnectContinue] {
            let shape = |pace, chunk_bytes| {
                let acts = acts(pace, chunk_bytes, Some(fault));
                // Sums the sends between the other calls.
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
            let how = if fault == Fault::Reset { CloseMode::Reset } else { CloseMode::Orderly };
            assert_eq!(last, Some(Act::Close(how)));
        }
    }
}
