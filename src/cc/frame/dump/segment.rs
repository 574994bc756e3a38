//! A partition's raw segment (`00000000000000000000.log`): record batches, one behind another.
//!
//! Each batch is taken only if its checksum is right. What is damaged is passed over up to the next batch: by its own
//! length, if a batch begins behind that, else by looking for one byte by byte. Bytes inside a batch whose length is
//! right are never taken for batches: a sender could have put some there.

use super::batch::{self, HEADER_BYTES, Header};
use super::{Place, Position, Step, What};
use crate::limits::BATCH_BYTES_MAX;

/// Damage may make bytes look like headers of long batches. So many bytes are checked to no avail, then only short
/// batches are looked for: the time that damage costs has a bound.
const SEARCH_BYTES_MAX: u64 = 1 << 30;
const SHORT_BATCH_BYTES: usize = 64 << 10;

/// So many zeros may belong to what follows them.
const ZEROS_KEPT: usize = 16;

/// Reads a segment.
#[derive(Debug)]
pub struct Segment {
    topic: String,
    partition: i32,
    /// Where the input begins in the dump.
    byte: u64,
    /// The batch at the input's begin, whose records are being given.
    open: Option<Open>,
    /// Its records, if they were compressed.
    records: Vec<u8>,
    /// True while no intact batch has been found behind damage.
    lost: bool,
    /// True while it is not even known where a batch should begin: damage goes on with the damage before it.
    adrift: bool,
    /// True among zeros.
    in_zeros: bool,
    /// Bytes checked to no avail.
    searched_bytes: u64,
}

#[derive(Clone, Copy, Debug)]
struct Open {
    header: Header,
    /// Where the next record starts among the records.
    next: usize,
    left: u32,
    compressed: bool,
}

/// Where the next batch is, as far as its header tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// Where the length of the damaged one says.
    ByLength,
    /// Where the search found something like one.
    Found,
    /// Not in the input.
    Nowhere,
}

impl Segment {
    pub fn new(partition: Option<(&str, i32)>) -> Segment {
        let (topic, partition) = partition.unwrap_or(("", -1));
        Segment {
            topic: topic.to_owned(),
            partition,
            byte: 0,
            open: None,
            records: Vec::new(),
            lost: false,
            adrift: false,
            in_zeros: false,
            searched_bytes: 0,
        }
    }

    pub fn step<'a>(&'a mut self, input: &'a [u8], ended: bool) -> Step<'a> {
        let place = Place::Byte(self.byte);
        let (consumed, what) = match self.open {
            Some(open) => self.next_record(open, input),
            None => self.begin(input, ended),
        };
        Step { consumed, place, what }
    }

    fn consume(&mut self, bytes: usize) -> usize {
        self.byte += bytes as u64;
        bytes
    }

    /// A batch should begin here.
    fn begin<'a>(&'a mut self, input: &'a [u8], ended: bool) -> (usize, What<'a>) {
        if input.is_empty() && ended {
            return (0, What::End { cut_bytes: 0 });
        }
        if self.in_zeros {
            return self.zeros(input, ended);
        }
        if input.len() < HEADER_BYTES {
            return match ended {
                false => (0, What::More(HEADER_BYTES)),
                // What is searched in vain is damage to its last byte, however the input was split.
                true if self.adrift && !is_zero(input) => {
                    self.damaged(input, ended, "bytes that are no batch")
                }
                true => self.end(input),
            };
        }
        if is_zero(&input[..HEADER_BYTES]) {
            return self.zeros(input, ended);
        }
        let Some(header) = self.header(input) else {
            return self.damaged(input, ended, "bytes that are no batch");
        };
        if input.len() < header.bytes {
            // It may be cut, or its length damaged: then there are batches behind it.
            return match ended {
                false => (0, What::More(header.bytes)),
                true if has_batch_behind(input) => self.damaged(input, ended, "a batch of a wrong length"),
                true => self.end(input),
            };
        }
        let batch = &input[..header.bytes];
        if header.magic < 2 && batch::is_intact_message(batch) {
            let reason = format!("messages of format v{}, from before Kafka 0.11", header.magic);
            (self.lost, self.adrift) = (false, false);
            return (self.consume(header.bytes), What::Damaged { reason, bytes: batch, first: true });
        }
        // A header of an earlier format is shorter than the checksum's place in this one.
        if header.magic < 2 || !header.is_intact(batch) {
            let with_next = header.bytes + HEADER_BYTES;
            if input.len() < with_next && !ended {
                return (0, What::More(with_next));
            }
            self.searched_bytes += if self.lost { header.bytes as u64 } else { 0 };
            return self.damaged(input, ended, "a batch with a wrong checksum");
        }
        (self.lost, self.adrift) = (false, false);
        self.open(header, batch)
    }

    /// The batch at the input's begin is as it was written.
    fn open<'a>(&'a mut self, header: Header, batch: &'a [u8]) -> (usize, What<'a>) {
        let records = &batch[HEADER_BYTES..];
        let decompressed = match header.codec() {
            Ok(super::codec::Codec::None) => Ok(false),
            Ok(codec) => codec.decompress(records, &mut self.records, BATCH_BYTES_MAX).map(|()| true),
            Err(number) => Err(format!("no codec has the number {number}")),
        };
        match decompressed {
            Ok(compressed) => {
                let open = Open { header, next: 0, left: header.records, compressed };
                self.open = Some(open);
                (0, What::Nothing)
            }
            Err(reason) => {
                let reason = format!("a batch that cannot be decompressed: {reason}");
                (self.consume(header.bytes), What::Damaged { reason, bytes: batch, first: true })
            }
        }
    }

    fn next_record<'a>(&'a mut self, open: Open, input: &'a [u8]) -> (usize, What<'a>) {
        let Open { header, next, left, compressed } = open;
        if left == 0 {
            self.open = None;
            return (self.consume(header.bytes), What::Nothing);
        }
        let batch = &input[..header.bytes];
        let records = if compressed { &self.records } else { &batch[HEADER_BYTES..] };
        let Some((record, length)) = batch::record(&records[next..]) else {
            self.open = None;
            self.byte += header.bytes as u64;
            let reason = format!("a batch with a record that cannot be read, {left} before its end");
            return (header.bytes, What::Damaged { reason, bytes: batch, first: true });
        };
        self.open = Some(Open { next: next + length, left: left - 1, ..open });
        if header.is_control() {
            let aborted = What::Aborted { producer_id: header.producer_id };
            return (0, if batch::is_abort(&record) { aborted } else { What::Nothing });
        }
        let offset = header.base_offset.saturating_add(record.offset_delta.into());
        let position = Position { topic: &self.topic, partition: self.partition, offset };
        (0, What::Record { position: Some(position), value: record.value, open_end: false })
    }

    /// A file that the broker made room in ahead of time ends in zeros. What stands behind them after all is looked at
    /// from a few zeros before it on.
    fn zeros<'a>(&mut self, input: &[u8], ended: bool) -> (usize, What<'a>) {
        let zeros = input.iter().take_while(|byte| **byte == 0).count();
        self.in_zeros = zeros == input.len();
        if self.in_zeros && ended {
            return (self.consume(zeros), What::End { cut_bytes: 0 });
        }
        match zeros.saturating_sub(ZEROS_KEPT) {
            0 if self.in_zeros => (0, What::More(input.len() + 1)),
            passed => (self.consume(passed), What::Nothing),
        }
    }

    fn end<'a>(&mut self, input: &[u8]) -> (usize, What<'a>) {
        let cut_bytes = if is_zero(input) { 0 } else { input.len() };
        (self.consume(input.len()), What::End { cut_bytes })
    }

    fn header(&self, bytes: &[u8]) -> Option<Header> {
        let searching = self.lost && self.searched_bytes > SEARCH_BYTES_MAX;
        let bytes_max = if searching { SHORT_BATCH_BYTES } else { BATCH_BYTES_MAX };
        // Looked for byte by byte, the few checks of an old format's header would find one everywhere.
        Header::read(bytes, bytes_max).filter(|header| header.magic == 2 || !self.lost)
    }

    /// Passes over damage.
    fn damaged<'a>(&mut self, input: &'a [u8], ended: bool, reason: &str) -> (usize, What<'a>) {
        let (bytes, next) = self.next_batch(input, ended);
        self.lost = true;
        let first = !std::mem::replace(&mut self.adrift, next != Next::ByLength);
        let reason = reason.to_owned();
        (self.consume(bytes), What::Damaged { reason, bytes: &input[..bytes], first })
    }

    /// How many bytes to pass over: up to what looks like the next batch, or as far as it is known that there is none.
    fn next_batch(&self, input: &[u8], ended: bool) -> (usize, Next) {
        let header = self.header(input).filter(|header| header.magic == 2);
        let behind = header.and_then(|header| Some((header.bytes, input.get(header.bytes..)?)));
        if let Some((bytes, behind)) = behind
            // Fewer bytes than a header's are the dump's end: more were asked for before.
            && (behind.len() < HEADER_BYTES || is_zero(&behind[..HEADER_BYTES]) || self.header(behind).is_some())
        {
            return (bytes, Next::ByLength);
        }
        let last = input.len().saturating_sub(HEADER_BYTES - 1).max(1);
        for at in 1..last {
            let rest = &input[at..];
            // The format's number first: it rules out almost all.
            if rest.get(16) == Some(&2)
                && Header::read(rest, BATCH_BYTES_MAX).is_some_and(|header| header.magic == 2)
            {
                return (at, Next::Found);
            }
        }
        (if ended { input.len() } else { last }, Next::Nowhere)
    }
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

/// True if a whole batch with the right checksum stands somewhere behind the input's begin.
fn has_batch_behind(input: &[u8]) -> bool {
    let mut left = SEARCH_BYTES_MAX;
    (1..input.len().saturating_sub(HEADER_BYTES - 1)).any(|at| {
        let rest = &input[at..];
        if rest[16] != 2 {
            return false;
        }
        let header = Header::read(rest, rest.len().min(BATCH_BYTES_MAX));
        header.is_some_and(|header| {
            let bytes = header.bytes as u64;
            left = left.saturating_sub(bytes);
            left > 0 && header.magic == 2 && header.is_intact(&rest[..header.bytes])
        })
    })
}
