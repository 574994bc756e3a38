//! Sorts the records of a dump whose offsets decrease: tools that show the newest records first export them so. Values
//! beyond a limit are kept in an unnamed temporary file.

use std::io::{self, Read, Seek, SeekFrom, Write};

use tempfile::SpooledTempFile;

use super::format::{DumpItem, DumpLocation, DumpReader, KafkaPosition};

/// Memory for values.
const MEMORY_BYTES_MAX: usize = 64 << 20;

/// Number of records that are sorted together: 256 MiB. More records are sorted in several runs.
const RECORDS_MAX: usize = 4 << 20;

/// Records that wait for the end of the dump.
#[derive(Debug)]
pub(super) struct RecordSorter {
    topics: Vec<String>,
    records: Vec<SortedRecord>,
    values: SpooledTempFile,
    bytes: u64,
    value: Vec<u8>,
}

#[derive(Clone, Copy, Debug)]
struct SortedRecord {
    topic: u32,
    partition: i32,
    offset: i64,
    /// Location of the value in `values`.
    start: u64,
    /// Size of the value, or `None` for a tombstone.
    bytes: Option<u32>,
    location: DumpLocation,
}

/// A record in its order.
#[derive(Clone, Copy, Debug)]
pub(super) struct RecordEntry<'a> {
    pub position: KafkaPosition<'a>,
    pub location: DumpLocation,
    pub value: Option<&'a [u8]>,
}

impl RecordSorter {
    pub(super) fn new() -> RecordSorter {
        let values = tempfile::spooled_tempfile(MEMORY_BYTES_MAX);
        RecordSorter { topics: Vec::new(), records: Vec::new(), values, bytes: 0, value: Vec::new() }
    }

    pub(super) fn is_full(&self) -> bool {
        self.records.len() >= RECORDS_MAX
    }

    /// Adds a record.
    pub(super) fn push(
        &mut self,
        position: &KafkaPosition<'_>,
        location: DumpLocation,
        value: Option<&[u8]>,
    ) -> io::Result<()> {
        let known = self.topics.iter().rposition(|topic| topic == position.topic);
        let topic = known.unwrap_or_else(|| {
            self.topics.push(position.topic.to_owned());
            self.topics.len() - 1
        });
        self.values.write_all(value.unwrap_or_default())?;
        self.records.push(SortedRecord {
            topic: topic as u32,
            partition: position.partition,
            offset: position.offset,
            start: self.bytes,
            bytes: value.map(|value| value.len() as u32),
            location,
        });
        self.bytes += value.map_or(0, <[u8]>::len) as u64;
        Ok(())
    }

    /// Sorts the records by partition and offset. Records with the same offset keep their order.
    pub(super) fn sort(&mut self) {
        self.records.sort_by_key(|record| (record.topic, record.partition, record.offset));
    }

    /// Returns the record at an index of the order.
    pub(super) fn get(&mut self, nth: usize) -> io::Result<Option<RecordEntry<'_>>> {
        let Some(record) = self.records.get(nth).copied() else { return Ok(None) };
        self.value.resize(record.bytes.unwrap_or(0) as usize, 0);
        self.values.seek(SeekFrom::Start(record.start))?;
        self.values.read_exact(&mut self.value)?;
        let position = KafkaPosition {
            topic: &self.topics[record.topic as usize],
            partition: record.partition,
            offset: record.offset,
        };
        let value = record.bytes.map(|_| &*self.value);
        Ok(Some(RecordEntry { position, location: record.location, value }))
    }
}

/// Reports whether the offsets of a partition decrease in the records at the start of a dump.
pub(super) fn is_decreasing(mut reader: DumpReader, mut start: &[u8], ended: bool) -> bool {
    let mut last: Vec<(String, i32, i64)> = Vec::new();
    loop {
        let step = reader.step(start, ended);
        let consumed = step.consumed;
        match step.item {
            DumpItem::NeedBytes(_) | DumpItem::End { .. } => return false,
            DumpItem::Record { position: Some(position), .. } => {
                match last.iter_mut().find(|known| position.is_in(&known.0, known.1)) {
                    Some(known) if position.offset < known.2 => return true,
                    Some(known) => known.2 = position.offset,
                    None => last.push((position.topic.to_owned(), position.partition, position.offset)),
                }
            }
            _ => {}
        }
        start = &start[consumed..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_sorted_by_partition_and_offset() {
        let mut sorter = RecordSorter::new();
        for (topic, partition, offset, value) in [
            ("t", 1, 5, Some("a")),
            ("u", 0, 9, Some("b")),
            ("t", 1, 4, None),
            ("t", 0, 7, Some("c")),
            ("t", 1, 5, Some("d")),
        ] {
            let position = KafkaPosition { topic, partition, offset };
            sorter.push(&position, DumpLocation::Line(1), value.map(str::as_bytes)).unwrap();
        }
        sorter.sort();
        let mut found = Vec::new();
        for nth in 0..6 {
            let Some(RecordEntry { position, value, .. }) = sorter.get(nth).unwrap() else { break };
            let value = value.map(|value| String::from_utf8(value.to_vec()).unwrap());
            found.push(format!("{}-{}:{} {value:?}", position.topic, position.partition, position.offset));
        }
        assert_eq!(
            found,
            [
                "t-0:7 Some(\"c\")",
                "t-1:4 None",
                "t-1:5 Some(\"a\")",
                "t-1:5 Some(\"d\")",
                "u-0:9 Some(\"b\")"
            ]
        );
    }
}
