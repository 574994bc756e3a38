//! Where rows come from: files in their forms, folders' stores, servers. Main thread.
//!
//! Rows that cannot be used are counted and told one by one, up to a bound; what cannot be read at all ends the command.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::ops::ControlFlow;
use std::path::Path;
use std::rc::Rc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use csv::StringRecord;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::super::asked::{Span, WhereArgs, WhichArgs};
use super::super::stored::harmless;
use crate::iri::billing::{Clock, Column, Fields, Row, Unfit};
use crate::iri::document::SOURCE_BYTES_MAX;
use crate::{Error, Result};

/// A row with all that may stand around it.
const ROW_BYTES_MAX: usize = SOURCE_BYTES_MAX;

const BUFFER_BYTES: usize = 256 << 10;

/// Refused rows that are told one by one.
const TOLD_MAX: u64 = 100;

/// Around a span, events of a call that began in it: no call is longer.
const CALL_MS_MAX: i64 = 86_400_000;

/// Where a server is asked that no lea fills, the time that most rows have.
const TIME_ELSEWHERE: &str = "request_time";

/// What became of rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Rows that were taken.
    pub rows: u64,
    /// Rows of other methods.
    pub other: u64,
    /// Rows that cannot be used.
    pub refused: u64,
}

/// Reads rows and hands them on.
pub struct Input<'a> {
    clock: &'a Clock,
    each: &'a mut dyn FnMut(Row<'_>) -> Result<()>,
    /// Stores give rows by their time: how they came is not known any more.
    has_order: bool,
    /// What became of them so far.
    pub counts: Counts,
}

/// Something around a row.
#[derive(Deserialize)]
struct Envelope<'a> {
    /// What `lea search --json` prints, and dumps of other servers.
    #[serde(rename = "_source", borrow)]
    source: Option<&'a RawValue>,
    /// What `rabbitmqadmin get` prints.
    payload: Option<String>,
    payload_encoding: Option<String>,
}

impl<'a> Input<'a> {
    /// Each row goes to `each`.
    pub fn new(clock: &'a Clock, each: &'a mut dyn FnMut(Row<'_>) -> Result<()>) -> Input<'a> {
        Input { clock, each, has_order: true, counts: Counts::default() }
    }

    /// Reads all of a source: `-` for stdin, a URL, a folder with a store, or a file.
    pub fn read(&mut self, source: &str, place: &WhereArgs, which: &WhichArgs) -> Result<()> {
        let path = Path::new(source);
        if source.contains("://") || path.is_dir() {
            let place = WhereArgs { store: source.to_owned(), ..place.clone() };
            return self.store(&place, which);
        }
        self.has_order = true;
        match source {
            "-" => self.file(path, io::stdin().lock()),
            _ => self.file(path, File::open(path).map_err(Error::path("open", path))?),
        }
    }

    /// The rows of a store; those of calls that began just before the span too.
    pub fn store(&mut self, place: &WhereArgs, which: &WhichArgs) -> Result<()> {
        let mut which = which.clone();
        if which.index.is_empty() {
            which.index = vec![place.configured()?.events.indices.billing];
        }
        let mut asked = which.open(place, None)?;
        if asked.is_elsewhere() && which.time_field.is_none() {
            which.time_field = Some(TIME_ELSEWHERE.to_owned());
            asked = which.open(place, None)?;
        }
        let around = Span {
            from_ms: asked.span.from_ms.map(|ms| ms.saturating_sub(CALL_MS_MAX)),
            to_ms: asked.span.to_ms.map(|ms| ms.saturating_add(CALL_MS_MAX)),
        };
        let there = asked.count(around)?;
        self.has_order = false;
        let mut walked = 0;
        asked.walk(around, false, &mut |hit| {
            walked += 1;
            let taken = self.take(Fields::of_json(&hit.source))?;
            self.told(taken, || format!("source={:?} id={:?}", place_shown(place), harmless(&hit.id)));
            Ok(ControlFlow::Continue(()))
        })?;
        if walked < there {
            // Rows without the field are in no window of time.
            let without_time = there - walked;
            self.counts.refused += without_time;
            log::warn!("rows_refused rows={without_time} reason=\"they have no {}\"", asked.time_field());
        }
        Ok(())
    }

    /// The rows of a file, whose first byte tells its form.
    fn file(&mut self, path: &Path, from: impl Read) -> Result<()> {
        let mut from = BufReader::with_capacity(BUFFER_BYTES, from);
        let mut begin = Vec::new();
        (&mut from).take(3).read_to_end(&mut begin).map_err(Error::path("read", path))?;
        if begin == b"\xef\xbb\xbf" {
            begin.clear();
        }
        let mut from = io::Cursor::new(begin).chain(from);
        match first_byte(&mut from).map_err(Error::path("read", path))? {
            None => Ok(()),
            Some(b'{') => self.lines(path, from),
            Some(b'[') => self.array(path, from),
            Some(_) => self.table(path, from),
        }
    }

    /// An object a line.
    fn lines(&mut self, path: &Path, mut from: impl BufRead) -> Result<()> {
        let mut line = Vec::new();
        for no in 1.. {
            line.clear();
            let read = (&mut from).take(ROW_BYTES_MAX as u64 + 1).read_until(b'\n', &mut line);
            if read.map_err(Error::path("read", path))? == 0 {
                break;
            }
            if line.len() > ROW_BYTES_MAX && !line.ends_with(b"\n") {
                pass_over(&mut from).map_err(Error::path("read", path))?;
                self.refuse_long(path, no);
            } else if !line.trim_ascii().is_empty() {
                self.object(path, no, line.trim_ascii())?;
            }
        }
        Ok(())
    }

    /// A list of objects, in any layout; `no` is then the place in the list.
    fn array(&mut self, path: &Path, from: impl BufRead) -> Result<()> {
        let mut elements = Elements::new(from);
        for no in 1.. {
            match elements.next().map_err(Error::path("read", path))? {
                None => break,
                Some(Element::Object(object)) => self.object(path, no, object)?,
                Some(Element::TooLong) => self.refuse_long(path, no),
                Some(Element::Unended) => self.refused("the file ends within it", at(path, no)),
            }
        }
        Ok(())
    }

    fn object(&mut self, path: &Path, no: u64, text: &[u8]) -> Result<()> {
        let fields = Fields::of_json(text);
        let is_row = fields.as_ref().is_ok_and(|fields| fields.call_id.is_some());
        let taken = match (!is_row).then(|| unwrapped(text)).flatten() {
            Some(inner) => self.take(Fields::of_json(&inner))?,
            None => self.take(fields)?,
        };
        self.told(taken, || at(path, no));
        Ok(())
    }

    /// CSV with a header, or what `rabbitmqadmin -f tsv get` prints.
    fn table(&mut self, path: &Path, mut from: impl BufRead) -> Result<()> {
        let mut head = Vec::new();
        let read = (&mut from).take(ROW_BYTES_MAX as u64).read_until(b'\n', &mut head);
        read.map_err(Error::path("read", path))?;
        let most = |delimiter: &u8| head.iter().filter(|byte| *byte == delimiter).count();
        let delimiter = [b';', b'\t', b','].into_iter().max_by_key(most).unwrap_or(b',');
        let left = Rc::new(Cell::new(BUFFER_BYTES + ROW_BYTES_MAX));
        let from = Bounded { from: io::Cursor::new(head).chain(from), left: Rc::clone(&left) };
        let mut reader = csv::ReaderBuilder::new().delimiter(delimiter).from_reader(from);
        let head = reader.headers().map_err(|error| table_failed(path, error))?.clone();
        let columns: Vec<Option<Column>> = head.iter().map(|name| Column::named(name.trim())).collect();
        let payload = head.iter().position(|name| name == "payload");
        let encoding = head.iter().position(|name| name == "payload_encoding");
        if !columns.contains(&Some(Column::CallId)) && payload.is_none() {
            let path = harmless(&path.to_string_lossy());
            return Err(Error::Usage(format!(
                "{path}: neither JSON nor a table with a column call_id; rabbitmqadmin prints JSON with -f raw_json"
            )));
        }
        let mut record = StringRecord::new();
        loop {
            left.set(BUFFER_BYTES + ROW_BYTES_MAX);
            let line = reader.position().line();
            match reader.read_record(&mut record) {
                Ok(false) => return Ok(()),
                Ok(true) => self.record(path, line, &columns, payload.zip(encoding), &record)?,
                Err(error) if error.is_io_error() => return Err(table_failed(path, error)),
                Err(error) => {
                    let why = match error.kind() {
                        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
                            format!("{len} columns where the header has {expected_len}")
                        }
                        _ => "it is not UTF-8".to_owned(),
                    };
                    self.refused(&why, at(path, line));
                }
            }
        }
    }

    fn record(
        &mut self,
        path: &Path,
        line: u64,
        columns: &[Option<Column>],
        payload: Option<(usize, usize)>,
        record: &StringRecord,
    ) -> Result<()> {
        if let Some((payload, encoding)) = payload {
            return match decoded(&record[payload], &record[encoding]) {
                Some(inner) => self.object(path, line, &inner),
                None => {
                    self.refused("its payload is no base64", at(path, line));
                    Ok(())
                }
            };
        }
        let mut fields = Fields::default();
        for (column, text) in columns.iter().zip(record) {
            if let Some(column) = column {
                fields.put(*column, text.into());
            }
        }
        let taken = self.take(Ok(fields))?;
        self.told(taken, || at(path, line));
        Ok(())
    }

    fn take(&mut self, fields: Result<Fields<'_>, Unfit>) -> Result<Result<(), Unfit>> {
        let sequence = if self.has_order { self.counts.rows } else { 0 };
        match fields.and_then(|fields| Row::read(fields, self.clock, sequence)) {
            Ok(Some(row)) => {
                self.counts.rows += 1;
                (self.each)(row)?;
            }
            Ok(None) => self.counts.other += 1,
            Err(unfit) => return Ok(Err(unfit)),
        }
        Ok(Ok(()))
    }

    fn told(&mut self, taken: Result<(), Unfit>, place: impl FnOnce() -> String) {
        if let Err(unfit) = taken {
            self.refused(&unfit.to_string(), place());
        }
    }

    fn refuse_long(&mut self, path: &Path, no: u64) {
        self.refused(&format!("longer than {ROW_BYTES_MAX} bytes"), at(path, no));
    }

    fn refused(&mut self, why: &str, place: String) {
        self.counts.refused += 1;
        if self.counts.refused <= TOLD_MAX {
            log::warn!("row_refused {place} reason=\"{}\"", harmless(why));
        }
    }
}

/// A place in a file: a line, or which object of a list.
fn at(path: &Path, no: u64) -> String {
    format!("source={:?} row={no}", harmless(&path.to_string_lossy()))
}

/// The first byte that is no blank; those before it are passed over.
fn first_byte(from: &mut impl BufRead) -> io::Result<Option<u8>> {
    loop {
        let buffer = from.fill_buf()?;
        let blanks = buffer.iter().position(|byte| !byte.is_ascii_whitespace());
        if let Some(blanks) = blanks {
            let first = buffer[blanks];
            from.consume(blanks);
            return Ok(Some(first));
        }
        match buffer.len() {
            0 => return Ok(None),
            blanks => from.consume(blanks),
        }
    }
}

/// A store as the log says it: a URL may have a password.
fn place_shown(place: &WhereArgs) -> String {
    let text = harmless(&place.store);
    match (place.is_url(), text.split_once("://")) {
        (true, Some((scheme, rest))) => {
            format!("{scheme}://{}", rest.rsplit_once('@').map_or(rest, |(_, host)| host))
        }
        _ => text,
    }
}

/// The row within something around it.
fn unwrapped(text: &[u8]) -> Option<Vec<u8>> {
    let envelope: Envelope<'_> = serde_json::from_slice(text).ok()?;
    match (envelope.source, envelope.payload) {
        (Some(source), _) => Some(source.get().as_bytes().to_vec()),
        (None, Some(payload)) => decoded(&payload, envelope.payload_encoding.as_deref().unwrap_or("string")),
        (None, None) => None,
    }
}

fn decoded(payload: &str, encoding: &str) -> Option<Vec<u8>> {
    match encoding {
        "base64" => STANDARD.decode(payload).ok(),
        _ => Some(payload.as_bytes().to_vec()),
    }
}

fn table_failed(path: &Path, error: csv::Error) -> Error {
    Error::path("read", path)(error.into())
}

/// Takes what is left of a line.
fn pass_over(from: &mut impl BufRead) -> io::Result<()> {
    loop {
        let buffer = from.fill_buf()?;
        let end = memchr::memchr(b'\n', buffer);
        let taken = end.map_or(buffer.len(), |end| end + 1);
        from.consume(taken);
        if end.is_some() || taken == 0 {
            return Ok(());
        }
    }
}

/// A record of a table ends, or the file is refused: a quote that is never closed would take all of it.
struct Bounded<R> {
    from: R,
    left: Rc<Cell<usize>>,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.left.get();
        if left == 0 {
            return Err(io::Error::other(format!(
                "a row is longer than {ROW_BYTES_MAX} bytes (an open quote?)"
            )));
        }
        let room = buffer.len().min(left);
        let read = self.from.read(&mut buffer[..room])?;
        self.left.set(left - read);
        Ok(read)
    }
}

/// Takes a list of JSON objects apart, in any layout.
struct Elements<R> {
    from: R,
    object: Vec<u8>,
}

enum Element<'a> {
    Object(&'a [u8]),
    TooLong,
    /// The file ended within it.
    Unended,
}

impl<R: BufRead> Elements<R> {
    fn new(from: R) -> Elements<R> {
        Elements { from, object: Vec::new() }
    }

    /// The next object: from a brace to the one that closes it. What stands between objects is passed over.
    fn next(&mut self) -> io::Result<Option<Element<'_>>> {
        self.object.clear();
        let (mut depth, mut in_text, mut is_escaped, mut is_long) = (0_u64, false, false, false);
        loop {
            let buffer = self.from.fill_buf()?;
            if buffer.is_empty() {
                return Ok((depth > 0).then_some(Element::Unended));
            }
            let mut end = None;
            let mut begin = if depth == 0 { buffer.len() } else { 0 };
            for (at, byte) in buffer.iter().enumerate() {
                match (byte, in_text) {
                    _ if is_escaped => is_escaped = false,
                    (b'\\', true) => is_escaped = true,
                    (b'"', _) if depth > 0 => in_text = !in_text,
                    (b'{', false) => {
                        if depth == 0 {
                            begin = at;
                        }
                        depth += 1;
                    }
                    (b'}', false) if depth > 0 => depth -= 1,
                    _ => continue,
                }
                if depth == 0 && *byte == b'}' && !in_text && begin <= at {
                    end = Some(at + 1);
                    break;
                }
            }
            let to = end.unwrap_or(buffer.len());
            is_long |= self.object.len() + to.saturating_sub(begin) > ROW_BYTES_MAX;
            if !is_long {
                self.object.extend_from_slice(&buffer[begin.min(to)..to]);
            }
            self.from.consume(to);
            if end.is_some() {
                return Ok(Some(if is_long { Element::TooLong } else { Element::Object(&self.object) }));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rows of a file as `call_id time kind caller`, and how many were refused.
    fn read(text: &[u8], buffer: usize) -> (Vec<String>, Counts) {
        let clock = Clock::utc();
        let mut rows = Vec::new();
        let mut each = |row: Row<'_>| {
            rows.push(format!("{} {} {:?} {}", row.call_id, row.time_us, row.kind, row.caller));
            Ok(())
        };
        let mut input = Input::new(&clock, &mut each);
        let from = BufReader::with_capacity(buffer, text);
        input.file(Path::new("rows"), from).unwrap();
        let counts = input.counts;
        (rows, counts)
    }

    #[track_caller]
    fn check(text: &str, expected: &[&str], refused: u64) {
        for buffer in [1, 7, 4_096] {
            let (rows, counts) = read(text.as_bytes(), buffer);
            assert_eq!(rows, expected, "{text}");
            assert_eq!((counts.rows, counts.refused), (expected.len() as u64, refused), "{text}");
        }
    }

    const ROW: &str = r#"{"call_id":"a","request_time":1,"caller_id":"x"}"#;
    const READ: &str = "a 1000000 Request x";

    #[test]
    fn json_in_all_its_forms() {
        check(&format!("{ROW}\n\n  {ROW}\r\n{ROW}"), &[READ; 3], 0);
        check(&format!("\u{feff}\n{ROW}\n"), &[READ], 0);
        check(&format!("{ROW}\n{{\"call_id\":\n{ROW}\nnonsense\n{ROW}\n"), &[READ; 3], 2);
        check(&format!("[{ROW},{ROW}]"), &[READ; 2], 0);
        check(&format!("[\n  {ROW}\n,\n{ROW}\n]\n"), &[READ; 2], 0);
        check(
            r#"[{"call_id":"}\"{\\","request_time":1,"caller_id":"x","n":{"a":[{}]}}]"#,
            &[r#"}"{\ 1000000 Request x"#],
            0,
        );
        check(&format!("[{ROW},{{\"call_id\""), &[READ], 1);
        check(&format!(r#"{{"_index":"billing","_id":"1","_source":{ROW}}}"#), &[READ], 0);
        check("", &[], 0);
        check("{}", &[], 1);
    }

    #[test]
    fn dumps_of_rabbitmqadmin() {
        let payload = serde_json::Value::from(ROW).to_string();
        let message = |payload: &str, encoding: &str| {
            format!(
                r#"{{"payload_bytes":49,"redelivered":true,"payload":{payload},"payload_encoding":"{encoding}"}}"#
            )
        };
        let base64 = format!("\"{}\"", STANDARD.encode(ROW));
        let list = format!("[{},\n{}]", message(&payload, "string"), message(&base64, "base64"));
        check(&list, &[READ; 2], 0);
        check(&message("\"hello\"", "string"), &[], 1);
        let table = format!(
            "exchange\tpayload\tpayload_encoding\n\t{ROW}\tstring\n\t{}\tbase64\n\t%\tbase64\n",
            STANDARD.encode(ROW)
        );
        check(&table, &[READ; 2], 1);
    }

    #[test]
    fn tables() {
        check("call_id,request_time,caller_id\na,1,x\n\"a\",\"1\",x\r\n", &[READ; 2], 0);
        check(
            "other;call_id;request_time;caller_id;method\n9;a;1;x;INVITE\n",
            &["a 1000000 InviteRequest x"],
            0,
        );
        check("call_id\trequest_time\tcaller_id\na\t1\tx\n", &[READ], 0);
        // Too few columns, no time, and then a good one.
        check("call_id,request_time,caller_id\na,1\na,,x\na,1,x\n", &[READ], 2);
        let (rows, counts) = read(b"call_id,request_time,caller_id\n\xff,1,x\na,1,x\n", 64);
        assert_eq!((rows.len(), counts.refused), (1, 1));
    }

    #[test]
    fn what_is_no_log_at_all_is_wrong_usage() {
        let clock = Clock::utc();
        let mut each = |_: Row<'_>| Ok(());
        let mut input = Input::new(&clock, &mut each);
        let error = input.file(Path::new("f"), &b"hello world\n"[..]).unwrap_err();
        assert!(matches!(&error, Error::Usage(text) if text.contains("column call_id")), "{error}");
        let long = format!("call_id,request_time\n\"{}", "x".repeat(3 * ROW_BYTES_MAX));
        assert!(input.file(Path::new("f"), long.as_bytes()).unwrap_err().to_string().contains("read f"));
    }

    #[test]
    fn a_row_has_a_longest_length() {
        let row = |length: usize| {
            let row = r#"{"call_id":"a","request_time":1,"caller_id":"x","z":""}"#;
            row.replace(r#""z":"""#, &format!(r#""z":"{}""#, "z".repeat(length - row.len())))
        };
        for (length, refused) in [(ROW_BYTES_MAX, 0), (ROW_BYTES_MAX + 1, 1)] {
            let rows = if refused == 0 { 2 } else { 1 };
            for text in [format!("{}\n{ROW}\n", row(length)), format!("[{},{ROW}]", row(length))] {
                let (read, counts) = read(text.as_bytes(), 8_192);
                assert_eq!((read.len(), counts.refused), (rows, refused), "{length}");
            }
        }
    }
}
