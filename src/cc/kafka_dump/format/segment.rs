//! Reader of a partition's raw log segment (`00000000000000000000.log`): a sequence of record batches.
//!
//! A batch is accepted only if its checksum is right. Damage is skipped up to the next batch: by the damaged
//! batch's own length if a batch starts there, otherwise by searching byte by byte. Bytes inside a batch
//! whose length is right are never taken for batches: a sender could have put some there.

use std::ops::Range;

use super::batch::{self, BatchHeader, HEADER_BYTES, MESSAGE_BYTES_MIN, Message};
use super::{DumpItem, DumpLocation, KafkaPosition, ReadStep};
use crate::limits::BATCH_BYTES_MAX;

/// Limit on wasted checksum work. Damaged bytes may look like headers of long batches. After this many bytes
/// have been checked in vain, only short batches are searched for, which bounds the time that damage can
/// cost.
const RESYNC_BYTES_MAX: u64 = 1 << 30;
const SHORT_BATCH_BYTES: usize = 64 << 10;

/// Number of zero bytes that may belong to the data after them.
const ZEROS_KEPT: usize = 16;

/// Reader of a segment.
#[derive(Debug)]
pub struct SegmentReader {
    topic: String,
    partition: i32,
    /// Position of the input in the dump.
    byte: u64,
    /// The batch at the start of the input whose records are being returned.
    open: Option<OpenBatch>,
    /// The wrapper of compressed messages at the start of the input whose records are being returned.
    wrapper: Option<OpenWrapper>,
    /// Its decompressed records, if they were compressed.
    records: Vec<u8>,
    /// True while no intact batch has been found after damage.
    is_resyncing: bool,
    /// True while not even the start of the next batch is known: further damage continues the previous
    /// damage.
    is_boundary_unknown: bool,
    /// True inside a run of zeros.
    is_in_zeros: bool,
    /// Bytes whose checksum was computed in vain.
    searched_bytes: u64,
}

#[derive(Clone, Copy, Debug)]
struct OpenBatch {
    header: BatchHeader,
    /// Start of the next record within the records.
    next: usize,
    left: u32,
    compressed: bool,
}

/// Offset of a record, and its value in the decompressed records.
type WrappedRecord = (i64, Option<Range<usize>>);

#[derive(Debug)]
struct OpenWrapper {
    /// Size of the wrapper.
    bytes: usize,
    records: std::vec::IntoIter<WrappedRecord>,
}

/// Where the next batch starts, judging by its header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NextBatch {
    /// At the end of the damaged batch, by its length.
    ByLength,
    /// Where the search found a plausible header.
    Found,
    NotFound,
}

impl SegmentReader {
    pub fn new(partition: Option<(&str, i32)>) -> SegmentReader {
        let (topic, partition) = partition.unwrap_or(("", -1));
        SegmentReader {
            topic: topic.to_owned(),
            partition,
            byte: 0,
            open: None,
            wrapper: None,
            records: Vec::new(),
            is_resyncing: false,
            is_boundary_unknown: false,
            is_in_zeros: false,
            searched_bytes: 0,
        }
    }

    pub fn step<'a>(&'a mut self, input: &'a [u8], ended: bool) -> ReadStep<'a> {
        let place = DumpLocation::Byte(self.byte);
        let (consumed, what) = match self.open {
            Some(open) => self.next_record(open, input),
            None if self.wrapper.is_some() => self.next_wrapped(),
            None => self.read_batch(input, ended),
        };
        ReadStep { consumed, location: place, item: what }
    }

    fn consume(&mut self, bytes: usize) -> usize {
        self.byte += bytes as u64;
        bytes
    }

    /// Reads the batch that should start here.
    fn read_batch<'a>(&'a mut self, input: &'a [u8], ended: bool) -> (usize, DumpItem<'a>) {
        if input.is_empty() && ended {
            return (0, DumpItem::End { truncated_bytes: 0 });
        }
        if self.is_in_zeros {
            return self.skip_zeros(input, ended);
        }
        // A message of an earlier format may be shorter than the header of a batch.
        if ended && input.len() < HEADER_BYTES && batch_is_whole_message(input) {
            return self.read_message(input);
        }
        if input.len() < HEADER_BYTES {
            return match ended {
                false => (0, DumpItem::NeedBytes(HEADER_BYTES)),
                // A search without result is damage up to the last byte, however the input was split.
                true if self.is_boundary_unknown && !is_zero(input) => {
                    self.skip_damage(input, ended, "not a record batch")
                }
                true => self.end_segment(input),
            };
        }
        if is_zero(&input[..HEADER_BYTES]) {
            return self.skip_zeros(input, ended);
        }
        let Some(header) = self.parse_header(input) else {
            return self.skip_damage(input, ended, "not a record batch");
        };
        if input.len() < header.bytes {
            // Either the batch is truncated, or its length is damaged: then more batches follow.
            return match ended {
                false => (0, DumpItem::NeedBytes(header.bytes)),
                true if has_later_batch(input) => {
                    self.skip_damage(input, ended, "a batch with a wrong length")
                }
                true => self.end_segment(input),
            };
        }
        let batch = &input[..header.bytes];
        if header.magic < 2 && batch::is_intact_message(batch) {
            (self.is_resyncing, self.is_boundary_unknown) = (false, false);
            return self.read_message(batch);
        }
        // The header of an earlier format is too short to contain the checksum where v2 has it.
        if header.magic < 2 || !header.is_intact(batch) {
            let with_next = header.bytes + HEADER_BYTES;
            if input.len() < with_next && !ended {
                return (0, DumpItem::NeedBytes(with_next));
            }
            self.searched_bytes += if self.is_resyncing { header.bytes as u64 } else { 0 };
            return self.skip_damage(input, ended, "a batch with a wrong checksum");
        }
        (self.is_resyncing, self.is_boundary_unknown) = (false, false);
        self.open_batch(header, batch)
    }

    /// Starts returning the records of an intact batch.
    fn open_batch<'a>(&'a mut self, header: BatchHeader, batch: &'a [u8]) -> (usize, DumpItem<'a>) {
        let records = &batch[HEADER_BYTES..];
        let decompressed = match header.codec() {
            Ok(super::codec::Codec::None) => Ok(false),
            Ok(codec) => codec.decompress(records, &mut self.records, BATCH_BYTES_MAX).map(|()| true),
            Err(number) => Err(format!("unknown codec number {number}")),
        };
        match decompressed {
            Ok(compressed) => {
                let open = OpenBatch { header, next: 0, left: header.records, compressed };
                self.open = Some(open);
                (0, DumpItem::Skip)
            }
            Err(reason) => {
                let reason = format!("the batch cannot be decompressed: {reason}");
                (self.consume(header.bytes), DumpItem::Damaged { reason, bytes: batch, first: true })
            }
        }
    }

    /// Reads a message in format v0 or v1: a record, or compressed ones.
    fn read_message<'a>(&'a mut self, message: &'a [u8]) -> (usize, DumpItem<'a>) {
        let Some(parsed) = Message::parse(message, BATCH_BYTES_MAX) else {
            let reason = "the lengths in a message do not add up".to_owned();
            return (self.consume(message.len()), DumpItem::Damaged { reason, bytes: message, first: true });
        };
        if parsed.codec() == Ok(super::codec::Codec::None) {
            let consumed = self.consume(parsed.bytes);
            return (consumed, self.record(parsed.offset, parsed.value, None));
        }
        match self.unwrap_messages(&parsed) {
            Ok(records) => {
                self.wrapper = Some(OpenWrapper { bytes: parsed.bytes, records: records.into_iter() });
                (0, DumpItem::Skip)
            }
            Err(reason) => {
                let bytes = &message[..parsed.bytes];
                (self.consume(parsed.bytes), DumpItem::Damaged { reason, bytes, first: true })
            }
        }
    }

    /// Decompresses the messages in a wrapper, and returns their offsets and values.
    fn unwrap_messages(&mut self, wrapper: &Message<'_>) -> Result<Vec<WrappedRecord>, String> {
        let codec = wrapper.codec().map_err(|number| format!("unknown codec number {number}"))?;
        let compressed = wrapper.value.ok_or("compressed messages without a value")?;
        codec
            .decompress(compressed, &mut self.records, BATCH_BYTES_MAX)
            .map_err(|reason| format!("the messages cannot be decompressed: {reason}"))?;
        let mut found = Vec::new();
        let mut at = 0;
        while at < self.records.len() {
            let rest = &self.records[at..];
            let message = Message::parse(rest, BATCH_BYTES_MAX)
                .filter(|message| batch::is_intact_message(&rest[..message.bytes]))
                .ok_or("a compressed message is malformed")?;
            let start = |value: &[u8]| value.as_ptr() as usize - self.records.as_ptr() as usize;
            let value = message.value.map(|value| start(value)..start(value) + value.len());
            found.push((message.offset, value));
            at += message.bytes;
        }
        // In format v1, offsets are relative, and the wrapper has the offset of the last record.
        if wrapper.magic == 1
            && let Some(last) = found.last().map(|(offset, _)| *offset)
        {
            for (offset, _) in &mut found {
                *offset = wrapper.offset.saturating_sub(last).saturating_add(*offset);
            }
        }
        Ok(found)
    }

    /// Returns the next record of a wrapper.
    fn next_wrapped<'a>(&'a mut self) -> (usize, DumpItem<'a>) {
        let Some(wrapper) = &mut self.wrapper else { return (0, DumpItem::Skip) };
        match wrapper.records.next() {
            Some((offset, value)) => (0, self.record(offset, value.map(|value| &self.records[value]), None)),
            None => {
                let bytes = wrapper.bytes;
                self.wrapper = None;
                (self.consume(bytes), DumpItem::Skip)
            }
        }
    }

    fn record<'a>(&'a self, offset: i64, value: Option<&'a [u8]>, producer_id: Option<i64>) -> DumpItem<'a> {
        let position = KafkaPosition { topic: &self.topic, partition: self.partition, offset };
        DumpItem::Record { position: Some(position), value, is_last_line: false, producer_id }
    }

    fn next_record<'a>(&'a mut self, open: OpenBatch, input: &'a [u8]) -> (usize, DumpItem<'a>) {
        let OpenBatch { header, next, left, compressed } = open;
        if left == 0 {
            self.open = None;
            return (self.consume(header.bytes), DumpItem::Skip);
        }
        let batch = &input[..header.bytes];
        let records = if compressed { &self.records } else { &batch[HEADER_BYTES..] };
        let Some((record, length)) = batch::parse_record(&records[next..]) else {
            self.open = None;
            self.byte += header.bytes as u64;
            let reason = format!("a record of the batch is malformed ({left} records are lost)");
            return (header.bytes, DumpItem::Damaged { reason, bytes: batch, first: true });
        };
        self.open = Some(OpenBatch { next: next + length, left: left - 1, ..open });
        let offset = header.base_offset.saturating_add(record.offset_delta.into());
        let producer_id = header.producer_id;
        if header.is_control() {
            let Some(is_abort) = batch::is_abort(&record) else { return (0, DumpItem::Skip) };
            let position = KafkaPosition { topic: &self.topic, partition: self.partition, offset };
            return (0, DumpItem::TransactionEnd { position, producer_id, is_abort });
        }
        let producer_id = header.is_transactional().then_some(producer_id);
        (0, self.record(offset, record.value, producer_id))
    }

    /// Skips zeros. A file that the broker preallocated ends in zeros. If something follows them, it is
    /// examined from a few zeros before it.
    fn skip_zeros<'a>(&mut self, input: &[u8], ended: bool) -> (usize, DumpItem<'a>) {
        let zeros = input.iter().take_while(|byte| **byte == 0).count();
        self.is_in_zeros = zeros == input.len();
        if self.is_in_zeros && ended {
            return (self.consume(zeros), DumpItem::End { truncated_bytes: 0 });
        }
        match zeros.saturating_sub(ZEROS_KEPT) {
            0 if self.is_in_zeros => (0, DumpItem::NeedBytes(input.len() + 1)),
            passed => (self.consume(passed), DumpItem::Skip),
        }
    }

    fn end_segment<'a>(&mut self, input: &[u8]) -> (usize, DumpItem<'a>) {
        let cut_bytes = if is_zero(input) { 0 } else { input.len() };
        (self.consume(input.len()), DumpItem::End { truncated_bytes: cut_bytes })
    }

    fn parse_header(&self, bytes: &[u8]) -> Option<BatchHeader> {
        let searching = self.is_resyncing && self.searched_bytes > RESYNC_BYTES_MAX;
        let bytes_max = if searching { SHORT_BATCH_BYTES } else { BATCH_BYTES_MAX };
        // In a byte-by-byte search the few checks of a message's header would match almost anywhere.
        BatchHeader::parse(bytes, bytes_max).filter(|header| {
            header.magic == 2 || !self.is_resyncing || Message::parse(bytes, bytes_max).is_some()
        })
    }

    /// Skips damage.
    fn skip_damage<'a>(&mut self, input: &'a [u8], ended: bool, reason: &str) -> (usize, DumpItem<'a>) {
        let (bytes, next) = self.find_next_batch(input, ended);
        self.is_resyncing = true;
        let first = !std::mem::replace(&mut self.is_boundary_unknown, next != NextBatch::ByLength);
        let reason = reason.to_owned();
        (self.consume(bytes), DumpItem::Damaged { reason, bytes: &input[..bytes], first })
    }

    /// Returns how many bytes to skip: up to a plausible next batch, or as far as there certainly is none.
    fn find_next_batch(&self, input: &[u8], ended: bool) -> (usize, NextBatch) {
        let header = self.parse_header(input).filter(|header| header.magic == 2);
        let next = header.and_then(|header| Some((header.bytes, input.get(header.bytes..)?)));
        if let Some((bytes, next)) = next
            // Fewer bytes than a header are the end of the dump: more were requested before.
            && (next.len() < HEADER_BYTES || is_zero(&next[..HEADER_BYTES]) || self.parse_header(next).is_some())
        {
            return (bytes, NextBatch::ByLength);
        }
        let last = input.len().saturating_sub(HEADER_BYTES - 1).max(1);
        for at in 1..last {
            let rest = &input[at..];
            // The version is checked first, because it excludes almost everything.
            let is_batch = match rest.get(16) {
                Some(2) => BatchHeader::parse(rest, BATCH_BYTES_MAX).is_some(),
                Some(0 | 1) => Message::parse(rest, BATCH_BYTES_MAX).is_some(),
                _ => false,
            };
            if is_batch {
                return (at, NextBatch::Found);
            }
        }
        (if ended { input.len() } else { last }, NextBatch::NotFound)
    }
}

/// Reports whether the input starts with a complete, intact message.
fn batch_is_whole_message(input: &[u8]) -> bool {
    input.len() >= MESSAGE_BYTES_MIN
        && Message::parse(input, BATCH_BYTES_MAX)
            .is_some_and(|message| batch::is_intact_message(&input[..message.bytes]))
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

/// Reports whether a complete batch with a valid checksum starts later in the input.
fn has_later_batch(input: &[u8]) -> bool {
    let mut left = RESYNC_BYTES_MAX;
    (1..input.len().saturating_sub(HEADER_BYTES - 1)).any(|at| {
        let rest = &input[at..];
        if rest[16] != 2 {
            return false;
        }
        let header = BatchHeader::parse(rest, rest.len().min(BATCH_BYTES_MAX));
        header.is_some_and(|header| {
            let bytes = header.bytes as u64;
            left = left.saturating_sub(bytes);
            left > 0 && header.magic == 2 && header.is_intact(&rest[..header.bytes])
        })
    })
}
