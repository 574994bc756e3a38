//! Prints the content of dumps to stdout: the bytes of one stream, one row per stream, or one line per chunk.

use std::collections::{HashMap, HashSet};
use std::io::{self, BufWriter, Stdout, Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

use crate::Result;
use crate::cc::kafka_dump::format::KafkaPosition;
use crate::cc::kafka_dump::visitor::{RecordPosition, RecordVisitor, VisitError, VisitOutcome};
use crate::cc::wire::chunk::{Chunk, ChunkData};
use crate::cmd::output::table::{self, Column};
use crate::cmd::output::{json_lines, stdout};

/// Size of the output buffer.
const OUT_BYTES: usize = 256 << 10;

/// Totals of what was printed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct OutputTotals {
    /// True if a record names the requested stream.
    pub is_found: bool,
    /// Number of streams printed.
    pub streams: usize,
    /// Content bytes.
    pub bytes: u64,
    /// True if the reader of stdout closed the pipe.
    pub is_reader_gone: bool,
}

fn decode<'a>(data: &ChunkData<'_>, into: &'a mut Vec<u8>) -> Result<&'a [u8], VisitError> {
    if into.len() < data.decoded_bytes_max() {
        into.resize(data.decoded_bytes_max(), 0);
    }
    let bytes = data.decode(into)?;
    Ok(&into[..bytes])
}

/// Writes the bytes of one stream.
pub(super) struct StreamPrinter {
    name: Vec<u8>,
    out: BufWriter<Stdout>,
    decoded: Vec<u8>,
    shown: OutputTotals,
}

impl StreamPrinter {
    pub(super) fn new(name: Vec<u8>) -> StreamPrinter {
        let out = BufWriter::with_capacity(OUT_BYTES, io::stdout());
        StreamPrinter { name, out, decoded: Vec::new(), shown: OutputTotals::default() }
    }

    /// Flushes the output.
    pub(super) fn finish(mut self) -> Result<OutputTotals> {
        flush(&mut self.out, &mut self.shown)?;
        Ok(self.shown)
    }
}

impl RecordVisitor for StreamPrinter {
    fn visit_chunk(&mut self, chunk: &Chunk<'_>, _: RecordPosition<'_>) -> Result<VisitOutcome, VisitError> {
        let bytes = decode(&chunk.data, &mut self.decoded)?;
        if chunk.name.as_bytes() == self.name {
            self.shown.is_found = true;
            self.shown.bytes += bytes.len() as u64;
            check_write(self.out.write_all(bytes), &mut self.shown)?;
        }
        Ok(VisitOutcome::New)
    }

    fn flush(&mut self) -> Result<(), VisitError> {
        check_write(self.out.flush(), &mut self.shown)
    }
}

fn check_write(outcome: io::Result<()>, shown: &mut OutputTotals) -> Result<(), VisitError> {
    match stdout::is_reader_there(outcome) {
        Ok(true) => Ok(()),
        Ok(false) => {
            shown.is_reader_gone = true;
            Err(VisitError::StopReading)
        }
        Err(error) => Err(VisitError::Failed(error)),
    }
}

fn flush(out: &mut BufWriter<Stdout>, shown: &mut OutputTotals) -> Result<()> {
    if shown.is_reader_gone {
        return Ok(());
    }
    match check_write(out.flush(), shown) {
        Err(VisitError::Failed(error)) => Err(error),
        _ => Ok(()),
    }
}

/// Prints one JSON line per chunk.
pub(super) struct ChunkPrinter {
    name: Option<Vec<u8>>,
    out: BufWriter<Stdout>,
    decoded: Vec<u8>,
    names: HashSet<Box<str>>,
    shown: OutputTotals,
}

#[derive(Serialize)]
struct ChunkLine<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    topic: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    partition: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<i64>,
    bytes: usize,
    data: String,
}

impl ChunkPrinter {
    /// Prints the chunks of the stream `name`, or of all streams.
    pub(super) fn new(name: Option<Vec<u8>>) -> ChunkPrinter {
        let out = BufWriter::with_capacity(OUT_BYTES, io::stdout());
        ChunkPrinter { name, out, decoded: Vec::new(), names: HashSet::new(), shown: OutputTotals::default() }
    }

    /// Flushes the output.
    pub(super) fn finish(mut self) -> Result<OutputTotals> {
        flush(&mut self.out, &mut self.shown)?;
        self.shown.streams = self.names.len();
        Ok(self.shown)
    }
}

impl RecordVisitor for ChunkPrinter {
    fn visit_chunk(
        &mut self,
        chunk: &Chunk<'_>,
        RecordPosition { position, .. }: RecordPosition<'_>,
    ) -> Result<VisitOutcome, VisitError> {
        let bytes = decode(&chunk.data, &mut self.decoded)?;
        if self.name.as_ref().is_some_and(|name| name != chunk.name.as_bytes()) {
            return Ok(VisitOutcome::New);
        }
        if !self.names.contains(&*chunk.name) {
            self.names.insert((&*chunk.name).into());
        }
        self.shown.bytes += bytes.len() as u64;
        let line = ChunkLine {
            name: &chunk.name,
            topic: position.map(|position| position.topic).filter(|topic| !topic.is_empty()),
            partition: position.map(|position| position.partition).filter(|partition| *partition >= 0),
            offset: position.map(|position| position.offset),
            bytes: bytes.len(),
            data: STANDARD.encode(bytes),
        };
        let out = &mut self.out;
        let outcome = serde_json::to_writer(&mut *out, &line).map_err(io::Error::from);
        check_write(outcome.and_then(|()| out.write_all(b"\n")), &mut self.shown)?;
        Ok(VisitOutcome::New)
    }

    fn flush(&mut self) -> Result<(), VisitError> {
        check_write(self.out.flush(), &mut self.shown)
    }
}

/// Collects one row per stream.
#[derive(Default)]
pub(super) struct StreamList {
    rows: HashMap<Box<str>, StreamSummary>,
    decoded: Vec<u8>,
    bytes: u64,
}

#[derive(Default)]
struct StreamSummary {
    /// Position of the stream in order of first occurrence, from 0.
    first_seen: usize,
    records: u64,
    bytes: u64,
    partitions: Vec<OffsetRange>,
}

/// Offsets of a stream's records in one partition.
#[derive(Serialize)]
struct OffsetRange {
    #[serde(skip_serializing_if = "String::is_empty")]
    topic: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    partition: Option<i32>,
    first_offset: i64,
    last_offset: i64,
}

#[derive(Serialize)]
struct StreamLine<'a> {
    name: &'a str,
    records: u64,
    bytes: u64,
    #[serde(skip_serializing_if = "<[OffsetRange]>::is_empty")]
    partitions: &'a [OffsetRange],
}

impl RecordVisitor for StreamList {
    fn visit_chunk(
        &mut self,
        chunk: &Chunk<'_>,
        RecordPosition { position, .. }: RecordPosition<'_>,
    ) -> Result<VisitOutcome, VisitError> {
        let bytes = decode(&chunk.data, &mut self.decoded)?.len() as u64;
        self.bytes += bytes;
        let nth = self.rows.len();
        if !self.rows.contains_key(&*chunk.name) {
            self.rows
                .insert((&*chunk.name).into(), StreamSummary { first_seen: nth, ..StreamSummary::default() });
        }
        if let Some(row) = self.rows.get_mut(&*chunk.name) {
            row.records += 1;
            row.bytes += bytes;
            if let Some(position) = position {
                row.add_offset(position);
            }
        }
        Ok(VisitOutcome::New)
    }
}

impl StreamSummary {
    fn add_offset(&mut self, position: &KafkaPosition<'_>) {
        let number = (position.partition >= 0).then_some(position.partition);
        let is = |known: &&mut OffsetRange| position.is_in(&known.topic, known.partition.unwrap_or(-1));
        match self.partitions.iter_mut().find(is) {
            Some(known) => {
                known.first_offset = known.first_offset.min(position.offset);
                known.last_offset = known.last_offset.max(position.offset);
            }
            None => self.partitions.push(OffsetRange {
                topic: position.topic.to_owned(),
                partition: number,
                first_offset: position.offset,
                last_offset: position.offset,
            }),
        }
    }

    /// Formats the offsets of each partition, as `interception-0:0..1179`.
    fn offsets(&self) -> String {
        let shown = |known: &OffsetRange| {
            let number = known.partition.map_or_else(|| "?".to_owned(), |number| number.to_string());
            let dash = if known.topic.is_empty() { "" } else { "-" };
            format!("{}{dash}{number}:{}..{}", known.topic, known.first_offset, known.last_offset)
        };
        match self.partitions.is_empty() {
            true => "-".to_owned(),
            false => self.partitions.iter().map(shown).collect::<Vec<_>>().join(" "),
        }
    }
}

impl StreamList {
    /// Prints the rows in order of first occurrence. Returns the number of streams and of content bytes.
    pub(super) fn print(self, json: bool) -> Result<(usize, u64)> {
        let mut rows: Vec<(Box<str>, StreamSummary)> = self.rows.into_iter().collect();
        rows.sort_by_key(|(_, row)| row.first_seen);
        if json { print_json(&rows) } else { print_table(&rows) }?;
        Ok((rows.len(), self.bytes))
    }
}

fn print_json(rows: &[(Box<str>, StreamSummary)]) -> Result<()> {
    json_lines::print(rows.iter().map(|(name, row)| StreamLine {
        name,
        records: row.records,
        bytes: row.bytes,
        partitions: &row.partitions,
    }))
}

fn print_table(rows: &[(Box<str>, StreamSummary)]) -> Result<()> {
    let columns = [
        Column::new("NAME").shortened_to(28),
        Column::new("RECORDS").number(),
        Column::new("BYTES").number(),
        Column::new("OFFSETS"),
    ];
    let cells = |(name, row): &(Box<str>, StreamSummary)| {
        vec![name.to_string(), row.records.to_string(), row.bytes.to_string(), row.offsets()]
    };
    table::print(&columns, &rows.iter().map(cells).collect::<Vec<_>>())
}
