//! Chunks onto stdout: one stream's bytes, a row a stream, or a line a chunk.

use std::collections::{HashMap, HashSet};
use std::io::{self, BufWriter, Stdout, Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

use crate::cc::chunk_sink::{At, ChunkSink, Took, Untaken};
use crate::cc::frame::chunk::{Chunk, Data};
use crate::cc::frame::dump::Position;
use crate::cmd::stored::harmless;
use crate::logging;
use crate::{Error, Result};

/// Bytes that go to stdout at once.
const OUT_BYTES: usize = 256 << 10;

/// What was shown.
#[derive(Clone, Copy, Debug, Default)]
pub struct Shown {
    /// Whether the stream is there that was asked for.
    pub found: bool,
    /// Streams shown.
    pub streams: usize,
    /// Bytes of their content.
    pub bytes: u64,
    /// True if whoever reads stdout went away.
    pub enough: bool,
}

fn decode<'a>(data: &Data<'_>, into: &'a mut Vec<u8>) -> Result<&'a [u8], Untaken> {
    if into.len() < data.bytes_max() {
        into.resize(data.bytes_max(), 0);
    }
    let bytes = data.decode(into)?;
    Ok(&into[..bytes])
}

/// The bytes of one stream.
pub struct Raw {
    name: Vec<u8>,
    out: BufWriter<Stdout>,
    decoded: Vec<u8>,
    shown: Shown,
}

impl Raw {
    /// Those of the stream of this name.
    pub fn new(name: Vec<u8>) -> Raw {
        let out = BufWriter::with_capacity(OUT_BYTES, io::stdout());
        Raw { name, out, decoded: Vec::new(), shown: Shown::default() }
    }

    /// Writes the rest.
    pub fn finish(mut self) -> Result<Shown> {
        flush(&mut self.out, &mut self.shown)?;
        Ok(self.shown)
    }
}

impl ChunkSink for Raw {
    fn take(&mut self, chunk: &Chunk<'_>, _: At<'_>) -> Result<Took, Untaken> {
        let bytes = decode(&chunk.data, &mut self.decoded)?;
        if chunk.name.as_bytes() == self.name {
            self.shown.found = true;
            self.shown.bytes += bytes.len() as u64;
            written(self.out.write_all(bytes), &mut self.shown)?;
        }
        Ok(Took::New)
    }
}

fn written(outcome: io::Result<()>, shown: &mut Shown) -> Result<(), Untaken> {
    match outcome {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
            shown.enough = true;
            Err(Untaken::Enough)
        }
        Err(error) => Err(Untaken::Failed(Error::system("write to stdout")(error))),
    }
}

fn flush(out: &mut BufWriter<Stdout>, shown: &mut Shown) -> Result<()> {
    if shown.enough {
        return Ok(());
    }
    match written(out.flush(), shown) {
        Err(Untaken::Failed(error)) => Err(error),
        _ => Ok(()),
    }
}

/// A line a chunk.
pub struct Chunks {
    name: Option<Vec<u8>>,
    out: BufWriter<Stdout>,
    decoded: Vec<u8>,
    names: HashSet<Box<str>>,
    shown: Shown,
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

impl Chunks {
    /// The chunks of one stream, or all.
    pub fn new(name: Option<Vec<u8>>) -> Chunks {
        let out = BufWriter::with_capacity(OUT_BYTES, io::stdout());
        Chunks { name, out, decoded: Vec::new(), names: HashSet::new(), shown: Shown::default() }
    }

    /// Writes the rest.
    pub fn finish(mut self) -> Result<Shown> {
        flush(&mut self.out, &mut self.shown)?;
        self.shown.streams = self.names.len();
        Ok(self.shown)
    }
}

impl ChunkSink for Chunks {
    fn take(&mut self, chunk: &Chunk<'_>, At { position, .. }: At<'_>) -> Result<Took, Untaken> {
        let bytes = decode(&chunk.data, &mut self.decoded)?;
        if self.name.as_ref().is_some_and(|name| name != chunk.name.as_bytes()) {
            return Ok(Took::New);
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
        written(outcome.and_then(|()| out.write_all(b"\n")), &mut self.shown)?;
        Ok(Took::New)
    }
}

/// A row a stream.
#[derive(Default)]
pub struct List {
    rows: HashMap<Box<str>, Row>,
    decoded: Vec<u8>,
    bytes: u64,
}

#[derive(Default)]
struct Row {
    /// Which stream came first, second, ...
    nth: usize,
    records: u64,
    bytes: u64,
    partitions: Vec<Partition>,
}

/// What a stream has in one partition.
#[derive(Serialize)]
struct Partition {
    #[serde(skip_serializing_if = "String::is_empty")]
    topic: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    partition: Option<i32>,
    first_offset: i64,
    last_offset: i64,
}

#[derive(Serialize)]
struct RowLine<'a> {
    name: &'a str,
    records: u64,
    bytes: u64,
    #[serde(skip_serializing_if = "<[Partition]>::is_empty")]
    partitions: &'a [Partition],
}

impl ChunkSink for List {
    fn take(&mut self, chunk: &Chunk<'_>, At { position, .. }: At<'_>) -> Result<Took, Untaken> {
        let bytes = decode(&chunk.data, &mut self.decoded)?.len() as u64;
        self.bytes += bytes;
        let nth = self.rows.len();
        if !self.rows.contains_key(&*chunk.name) {
            self.rows.insert((&*chunk.name).into(), Row { nth, ..Row::default() });
        }
        if let Some(row) = self.rows.get_mut(&*chunk.name) {
            row.records += 1;
            row.bytes += bytes;
            if let Some(position) = position {
                row.note(position);
            }
        }
        Ok(Took::New)
    }
}

impl Row {
    fn note(&mut self, position: &Position<'_>) {
        let number = (position.partition >= 0).then_some(position.partition);
        let is = |known: &&mut Partition| position.is_in(&known.topic, known.partition.unwrap_or(-1));
        match self.partitions.iter_mut().find(is) {
            Some(known) => {
                known.first_offset = known.first_offset.min(position.offset);
                known.last_offset = known.last_offset.max(position.offset);
            }
            None => self.partitions.push(Partition {
                topic: position.topic.to_owned(),
                partition: number,
                first_offset: position.offset,
                last_offset: position.offset,
            }),
        }
    }

    /// `interception-0:0..1179`, of each partition.
    fn offsets(&self) -> String {
        let shown = |known: &Partition| {
            let number = known.partition.map_or_else(|| "?".to_owned(), |number| number.to_string());
            let dash = if known.topic.is_empty() { "" } else { "-" };
            format!("{}{dash}{number}:{}..{}", harmless(&known.topic), known.first_offset, known.last_offset)
        };
        match self.partitions.is_empty() {
            true => "-".to_owned(),
            false => self.partitions.iter().map(shown).collect::<Vec<_>>().join(" "),
        }
    }
}

impl List {
    /// Prints the rows in the order in which the streams came; gives how many there are, and their bytes.
    pub fn print(self, json: bool) -> Result<(usize, u64)> {
        let mut rows: Vec<(Box<str>, Row)> = self.rows.into_iter().collect();
        rows.sort_by_key(|(_, row)| row.nth);
        crate::cmd::stored::printed(if json { print_json(&rows) } else { print_table(&rows) })?;
        Ok((rows.len(), self.bytes))
    }
}

fn print_json(rows: &[(Box<str>, Row)]) -> io::Result<()> {
    rows.iter().try_for_each(|(name, row)| {
        let line = RowLine { name, records: row.records, bytes: row.bytes, partitions: &row.partitions };
        logging::print(format_args!("{}", serde_json::to_string(&line)?))
    })
}

/// Columns as wide as their widest cell; numbers to the right.
fn print_table(rows: &[(Box<str>, Row)]) -> io::Result<()> {
    let head = ["NAME", "RECORDS", "BYTES", "OFFSETS"].map(str::to_owned);
    let cells = rows
        .iter()
        .map(|(name, row)| [harmless(name), row.records.to_string(), row.bytes.to_string(), row.offsets()]);
    let lines: Vec<[String; 4]> = std::iter::once(head).chain(cells).collect();
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let [name, records, bytes] = [0, 1, 2].map(width);
    lines.iter().try_for_each(|[a, b, c, d]| {
        logging::print(format_args!("{a:<name$}  {b:>records$}  {c:>bytes$}  {d}"))
    })
}
