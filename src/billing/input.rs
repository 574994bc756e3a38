//! Reads rows from files (JSON or tables), from stores in directories, and from servers. Runs on the main thread.
//!
//! A rejected row is counted and logged, up to a number of rows. A source that cannot be read ends the command.

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

use crate::billing::json_array::{ArrayElement, JsonArrayReader};
use crate::billing::{BillingRow, RowColumn, RowError, RowFields, RowTimeParser, opensips};
use crate::runtime::terminal::escape;
use crate::search::document::SOURCE_BYTES_MAX;
use crate::search::source::{QuerySession, SessionOptions, TimeRange};
use crate::{Error, Result};

/// Length limit of a row, including its envelope.
const ROW_BYTES_MAX: usize = SOURCE_BYTES_MAX;

const BUFFER_BYTES: usize = 256 << 10;

/// The number of rejected rows that are logged one by one.
const LOGGED_REJECTIONS_MAX: u64 = 100;

/// The time before and after the requested range in which rows are read too, so that calls at its ends are complete. No
/// call is longer.
const CALL_MS_MAX: i64 = 86_400_000;

/// The time field for a server that lea does not fill: most rows have it.
const FOREIGN_ROW_TIME_FIELD: &str = "request_time";

/// Numbers of rows read from one source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RowCounts {
    /// Accepted rows.
    pub rows: u64,
    /// Rows with a method that the log does not use.
    pub other_methods: u64,
    pub rejected: u64,
}

/// Reads rows and passes them to a function.
pub(crate) struct RowReader<'a> {
    times: &'a RowTimeParser,
    on_row: &'a mut dyn FnMut(BillingRow<'_>) -> Result<()>,
    /// False for a store, which returns rows by their time and not in the order of their arrival.
    has_input_order: bool,
    pub counts: RowCounts,
}

/// An object that contains a row.
#[derive(Deserialize)]
struct RowEnvelope<'a> {
    /// Set in the output of `lea search --json` and in dumps of Elasticsearch.
    #[serde(rename = "_source", borrow)]
    source: Option<&'a RawValue>,
    /// Set in the output of `rabbitmqadmin get`.
    payload: Option<String>,
    payload_encoding: Option<String>,
}

impl<'a> RowReader<'a> {
    pub(crate) fn new(
        times: &'a RowTimeParser,
        on_row: &'a mut dyn FnMut(BillingRow<'_>) -> Result<()>,
    ) -> RowReader<'a> {
        RowReader { times, on_row, has_input_order: true, counts: RowCounts::default() }
    }

    /// Reads a source: `-` for stdin, a URL, a directory with a store, or a file. `options` apply to a store.
    pub(crate) fn read(&mut self, source: &str, options: &SessionOptions) -> Result<()> {
        let path = Path::new(source);
        if source.contains("://") || path.is_dir() {
            let mut options = options.clone();
            options.target.location = source.to_owned();
            return self.read_store(&options);
        }
        self.has_input_order = true;
        match source {
            "-" => self.read_file(path, io::stdin().lock()),
            _ => self.read_file(path, File::open(path).map_err(Error::path("open", path))?),
        }
    }

    /// Reads the rows of a store, including those of calls that start before the requested range and reach into it.
    pub(crate) fn read_store(&mut self, options: &SessionOptions) -> Result<()> {
        let options = SessionOptions { foreign_time_field: FOREIGN_ROW_TIME_FIELD, ..options.clone() };
        let session = QuerySession::open(&options, None)?;
        let around = TimeRange {
            from_ms: session.range.from_ms.map(|ms| ms.saturating_sub(CALL_MS_MAX)),
            to_ms: session.range.to_ms.map(|ms| ms.saturating_add(CALL_MS_MAX)),
        };
        let total = session.count(around)?;
        self.has_input_order = false;
        let mut read = 0;
        session.scan(around, false, &mut |hit| {
            read += 1;
            let result = self.accept_row(RowFields::from_json(&hit.source))?;
            self.report_result(result, || {
                format!("source={:?} id={:?}", store_name(&options.target.location), escape(&hit.id))
            });
            Ok(ControlFlow::Continue(()))
        })?;
        if read < total {
            // The export by time windows does not return rows without the time field.
            let without_time = total - read;
            self.counts.rejected += without_time;
            log::warn!(
                "rows_rejected rows={without_time} reason=\"the field {} is missing\"",
                session.time_field()
            );
        }
        Ok(())
    }

    /// Reads the rows of a file. Its first byte tells JSON from a table.
    fn read_file(&mut self, path: &Path, from: impl Read) -> Result<()> {
        let mut from = BufReader::with_capacity(BUFFER_BYTES, from);
        let mut start = Vec::new();
        (&mut from).take(3).read_to_end(&mut start).map_err(Error::path("read", path))?;
        if start == b"\xef\xbb\xbf" {
            start.clear();
        }
        let mut from = io::Cursor::new(start).chain(from);
        match first_byte(&mut from).map_err(Error::path("read", path))? {
            None => Ok(()),
            Some(b'{') => self.read_json_lines(path, from),
            Some(b'[') => self.read_json_array(path, from),
            Some(_) => self.read_table(path, from),
        }
    }

    /// Reads one JSON object per line.
    fn read_json_lines(&mut self, path: &Path, mut from: impl BufRead) -> Result<()> {
        let mut line = Vec::new();
        for no in 1.. {
            line.clear();
            let read = (&mut from).take(ROW_BYTES_MAX as u64 + 1).read_until(b'\n', &mut line);
            if read.map_err(Error::path("read", path))? == 0 {
                break;
            }
            if line.len() > ROW_BYTES_MAX && !line.ends_with(b"\n") {
                skip_line(&mut from).map_err(Error::path("read", path))?;
                self.reject_long_row(path, no);
            } else if !line.trim_ascii().is_empty() {
                self.accept_object(path, no, line.trim_ascii())?;
            }
        }
        Ok(())
    }

    /// Reads a JSON array of objects in any layout. `no` is the position in the array.
    fn read_json_array(&mut self, path: &Path, from: impl BufRead) -> Result<()> {
        let mut elements = JsonArrayReader::new(from, ROW_BYTES_MAX);
        for no in 1.. {
            match elements.next().map_err(Error::path("read", path))? {
                None => break,
                Some(ArrayElement::Object(object)) => self.accept_object(path, no, object)?,
                Some(ArrayElement::TooLong) => self.reject_long_row(path, no),
                Some(ArrayElement::Truncated) => {
                    self.reject_row("the file ends within the object", row_location(path, no))
                }
            }
        }
        Ok(())
    }

    fn accept_object(&mut self, path: &Path, no: u64, text: &[u8]) -> Result<()> {
        let fields = RowFields::from_json(text);
        let is_row = fields.as_ref().is_ok_and(|fields| fields.has(RowColumn::CallId));
        let result = match (!is_row).then(|| unwrap_envelope(text)).flatten() {
            Some(inner) => self.accept_row(RowFields::from_json(&inner))?,
            None => self.accept_row(fields)?,
        };
        self.report_result(result, || row_location(path, no));
        Ok(())
    }

    /// Reads CSV with a header, or the output of `rabbitmqadmin -f tsv get`.
    fn read_table(&mut self, path: &Path, mut from: impl BufRead) -> Result<()> {
        let mut head = Vec::new();
        let read = (&mut from).take(ROW_BYTES_MAX as u64).read_until(b'\n', &mut head);
        read.map_err(Error::path("read", path))?;
        let most = |delimiter: &u8| head.iter().filter(|byte| *byte == delimiter).count();
        let delimiter = [b';', b'\t', b','].into_iter().max_by_key(most).unwrap_or(b',');
        let left = Rc::new(Cell::new(BUFFER_BYTES + ROW_BYTES_MAX));
        let from = BoundedReader { from: io::Cursor::new(head).chain(from), left: Rc::clone(&left) };
        let mut reader = csv::ReaderBuilder::new().delimiter(delimiter).from_reader(from);
        let head = reader.headers().map_err(|error| table_error(path, error))?.clone();
        let columns: Vec<Option<RowColumn>> =
            head.iter().map(|name| RowColumn::from_name(name.trim())).collect();
        let payload = head.iter().position(|name| name == "payload");
        let encoding = head.iter().position(|name| name == "payload_encoding");
        if !columns.contains(&Some(RowColumn::CallId)) && payload.is_none() {
            let path = escape(&path.to_string_lossy());
            return Err(Error::Usage(format!(
                "cannot read rows from {path}: neither JSON nor a table with a column call_id (for rabbitmqadmin use -f \
                 raw_json)"
            )));
        }
        let mut record = StringRecord::new();
        loop {
            left.set(BUFFER_BYTES + ROW_BYTES_MAX);
            let line = reader.position().line();
            match reader.read_record(&mut record) {
                Ok(false) => return Ok(()),
                Ok(true) => self.accept_record(path, line, &columns, payload.zip(encoding), &record)?,
                Err(error) if error.is_io_error() => return Err(table_error(path, error)),
                Err(error) => {
                    let why = match error.kind() {
                        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
                            format!("{len} columns, but the header has {expected_len}")
                        }
                        _ => "not UTF-8".to_owned(),
                    };
                    self.reject_row(&why, row_location(path, line));
                }
            }
        }
    }

    fn accept_record(
        &mut self,
        path: &Path,
        line: u64,
        columns: &[Option<RowColumn>],
        payload: Option<(usize, usize)>,
        record: &StringRecord,
    ) -> Result<()> {
        if let Some((payload, encoding)) = payload {
            return match decode_payload(&record[payload], &record[encoding]) {
                Some(inner) => self.accept_object(path, line, &inner),
                None => {
                    self.reject_row("the payload is not base64", row_location(path, line));
                    Ok(())
                }
            };
        }
        let mut fields = RowFields::default();
        for (column, text) in columns.iter().zip(record) {
            if let Some(column) = column {
                fields.set(*column, text.into());
            }
        }
        let result = self.accept_row(Ok(fields))?;
        self.report_result(result, || row_location(path, line));
        Ok(())
    }

    fn accept_row(&mut self, fields: Result<RowFields<'_>, RowError>) -> Result<Result<(), RowError>> {
        let sequence = if self.has_input_order { self.counts.rows } else { 0 };
        match fields.and_then(|fields| BillingRow::from_fields(fields, self.times, sequence)) {
            Ok(Some(row)) => {
                self.counts.rows += 1;
                (self.on_row)(row)?;
            }
            Ok(None) => self.counts.other_methods += 1,
            Err(unfit) => return Ok(Err(unfit)),
        }
        Ok(Ok(()))
    }

    fn report_result(&mut self, result: Result<(), RowError>, location: impl FnOnce() -> String) {
        if let Err(error) = result {
            self.reject_row(&error.to_string(), location());
        }
    }

    fn reject_long_row(&mut self, path: &Path, no: u64) {
        self.reject_row(&format!("longer than {ROW_BYTES_MAX} bytes"), row_location(path, no));
    }

    fn reject_row(&mut self, why: &str, location: String) {
        self.counts.rejected += 1;
        if self.counts.rejected <= LOGGED_REJECTIONS_MAX {
            log::warn!("row_rejected {location} reason=\"{}\"", escape(why));
        }
    }
}

/// Returns the location of a row for the log: its line, or its position in an array.
fn row_location(path: &Path, no: u64) -> String {
    format!("source={:?} row={no}", escape(&path.to_string_lossy()))
}

/// Skips white space and returns the next byte without consuming it.
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

/// Returns the name of a store for the log, without the user and password of a URL.
fn store_name(location: &str) -> String {
    let text = escape(location);
    match text.split_once("://") {
        Some((scheme, rest)) => {
            format!("{scheme}://{}", rest.rsplit_once('@').map_or(rest, |(_, host)| host))
        }
        None => text,
    }
}

/// Returns the row in an envelope.
fn unwrap_envelope(text: &[u8]) -> Option<Vec<u8>> {
    let Ok(envelope) = serde_json::from_slice::<RowEnvelope<'_>>(text) else {
        return opensips::from_any(text);
    };
    let row = match (envelope.source, envelope.payload) {
        (Some(source), _) => source.get().as_bytes().to_vec(),
        (None, Some(payload)) => {
            decode_payload(&payload, envelope.payload_encoding.as_deref().unwrap_or("string"))?
        }
        (None, None) => return opensips::from_any(text),
    };
    Some(opensips::from_any(&row).unwrap_or(row))
}

fn decode_payload(payload: &str, encoding: &str) -> Option<Vec<u8>> {
    match encoding {
        "base64" => STANDARD.decode(payload).ok(),
        _ => Some(payload.as_bytes().to_vec()),
    }
}

fn table_error(path: &Path, error: csv::Error) -> Error {
    Error::path("read", path)(error.into())
}

/// Skips the rest of a line.
fn skip_line(from: &mut impl BufRead) -> io::Result<()> {
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

/// A reader with a limit per record of a table. Without it, a quote that is never closed would buffer the whole file.
struct BoundedReader<R> {
    from: R,
    left: Rc<Cell<usize>>,
}

impl<R: Read> Read for BoundedReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.left.get();
        if left == 0 {
            return Err(io::Error::other(format!(
                "a row is longer than {ROW_BYTES_MAX} bytes (is a closing quote missing?)"
            )));
        }
        let room = buffer.len().min(left);
        let read = self.from.read(&mut buffer[..room])?;
        self.left.set(left - read);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the rows of a file as `call_id time kind caller`, and the counts.
    fn read(text: &[u8], buffer: usize) -> (Vec<String>, RowCounts) {
        let times = RowTimeParser::utc();
        let mut rows = Vec::new();
        let mut each = |row: BillingRow<'_>| {
            rows.push(format!("{} {} {:?} {}", row.call_id, row.time_us, row.kind, row.caller));
            Ok(())
        };
        let mut input = RowReader::new(&times, &mut each);
        let from = BufReader::with_capacity(buffer, text);
        input.read_file(Path::new("rows"), from).unwrap();
        let counts = input.counts;
        (rows, counts)
    }

    #[track_caller]
    fn check(text: &str, expected: &[&str], rejected: u64) {
        for buffer in [1, 7, 4_096] {
            let (rows, counts) = read(text.as_bytes(), buffer);
            assert_eq!(rows, expected, "{text}");
            assert_eq!((counts.rows, counts.rejected), (expected.len() as u64, rejected), "{text}");
        }
    }

    const ROW: &str = r#"{"call_id":"a","request_time":1,"caller_id":"x"}"#;
    const READ: &str = "a 1000000 Request x";

    #[test]
    fn json_lines_arrays_and_envelopes_are_read() {
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
    fn output_of_rabbitmqadmin_is_read() {
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
    fn tables_with_any_delimiter_are_read() {
        check("call_id,request_time,caller_id\na,1,x\n\"a\",\"1\",x\r\n", &[READ; 2], 0);
        check(
            "other;call_id;request_time;caller_id;method\n9;a;1;x;INVITE\n",
            &["a 1000000 InviteRequest x"],
            0,
        );
        check("call_id\trequest_time\tcaller_id\na\t1\tx\n", &[READ], 0);
        // Too few columns, no time, then a valid row.
        check("call_id,request_time,caller_id\na,1\na,,x\na,1,x\n", &[READ], 2);
        let (rows, counts) = read(b"call_id,request_time,caller_id\n\xff,1,x\na,1,x\n", 64);
        assert_eq!((rows.len(), counts.rejected), (1, 1));
    }

    #[test]
    fn a_file_without_rows_is_a_usage_error() {
        let times = RowTimeParser::utc();
        let mut each = |_: BillingRow<'_>| Ok(());
        let mut input = RowReader::new(&times, &mut each);
        let error = input.read_file(Path::new("f"), &b"hello world\n"[..]).unwrap_err();
        assert!(matches!(&error, Error::Usage(text) if text.contains("column call_id")), "{error}");
        let long = format!("call_id,request_time\n\"{}", "x".repeat(3 * ROW_BYTES_MAX));
        assert!(input.read_file(Path::new("f"), long.as_bytes()).unwrap_err().to_string().contains("read f"));
    }

    #[test]
    fn rows_are_limited_in_length() {
        let row = |length: usize| {
            let row = r#"{"call_id":"a","request_time":1,"caller_id":"x","z":""}"#;
            row.replace(r#""z":"""#, &format!(r#""z":"{}""#, "z".repeat(length - row.len())))
        };
        for (length, rejected) in [(ROW_BYTES_MAX, 0), (ROW_BYTES_MAX + 1, 1)] {
            let rows = if rejected == 0 { 2 } else { 1 };
            for text in [format!("{}\n{ROW}\n", row(length)), format!("[{},{ROW}]", row(length))] {
                let (read, counts) = read(text.as_bytes(), 8_192);
                assert_eq!((read.len(), counts.rejected), (rows, rejected), "{length}");
            }
        }
    }
}
