//! The forms of dumps that `lea decode` reads. Each form holds the same ten records, and the table in docs/decode.md is
//! made of the results. `LEA_UPDATE=1` rewrites it.

mod table;

use std::fs;
use std::io::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::stored::{NAME, lea};
use crate::support::{Workdir, testdata};

/// Number of records in each form.
const RECORDS: usize = 10;

/// The stream of ten records: the start of a capture.
fn stream() -> Vec<u8> {
    testdata("pcap/answered-call.pcap")[..100 * RECORDS].to_vec()
}

/// The values of the records.
fn values() -> Vec<String> {
    stream().chunks(100).map(|data| value(&STANDARD.encode(data))).collect()
}

fn value(data: &str) -> String {
    format!(r#"{{"userid": "+447700900123", "data": "{data}", "interceptionfilename": "{NAME}"}}"#)
}

/// A dump with one line for each value.
fn lines(line: impl Fn(usize, &str) -> String) -> Vec<u8> {
    let lines = values().iter().enumerate().map(|(nth, value)| line(nth, value) + "\n").collect::<Vec<_>>();
    lines.concat().into_bytes()
}

/// A dump of objects, pretty-printed one after the other.
fn pretty(object: impl Fn(usize, &str) -> Value) -> Vec<u8> {
    let objects = values().iter().enumerate().map(|(nth, value)| object(nth, value)).collect::<Vec<_>>();
    objects.iter().map(|object| format!("{object:#}\n")).collect::<String>().into_bytes()
}

fn array(object: impl Fn(usize, &str) -> Value) -> Vec<u8> {
    let objects = values().iter().enumerate().map(|(nth, value)| object(nth, value)).collect::<Vec<_>>();
    Value::from(objects).to_string().into_bytes()
}

fn form(name: &str) -> Vec<u8> {
    testdata(&format!("kafka/forms/{name}"))
}

fn object(value: &str) -> Value {
    serde_json::from_str(value).unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// The summary of a run.
struct Summary {
    stderr: String,
    exit: i32,
}

impl Summary {
    fn number(&self, key: &str) -> u64 {
        let line = self.stderr.lines().find(|line| line.starts_with("decoded ")).unwrap_or(&self.stderr);
        let word = line.split(' ').find_map(|word| word.strip_prefix(&format!("{key}=")));
        word.unwrap_or_else(|| panic!("no {key} in {line}")).parse().unwrap()
    }

    /// The format that a dump was taken for.
    fn format(&self) -> String {
        let word = self.stderr.split_whitespace().find_map(|word| word.strip_prefix("format="));
        word.unwrap_or("-").replace('_', "-")
    }
}

#[track_caller]
fn decode(args: &[&str]) -> Summary {
    let output = lea(&["decode", "-v"]).args(args).output().unwrap();
    Summary { stderr: String::from_utf8(output.stderr).unwrap(), exit: output.status.code().unwrap() }
}

/// Decodes a dump of ten records, and returns the summary and the stored stream.
#[track_caller]
fn decode_bytes(dump: &[u8], args: &[&str]) -> (Summary, Vec<u8>) {
    let dir = Workdir::new();
    let (path, out) = (dir.write("dump", dump), dir.join("out"));
    let args = [args, &[path.to_str().unwrap(), "-o", out.to_str().unwrap()]].concat();
    let summary = decode(&args);
    (summary, fs::read(out.join(NAME)).unwrap_or_default())
}

#[test]
fn nothing_read_is_not_done() {
    for dump in ["no JSON\n", "{\"userid\":\"x", "[]", "[1,2]", "{}\n", "% Reached end\n"] {
        let (summary, _) = decode_bytes(dump.as_bytes(), &[]);
        assert_eq!((summary.exit, summary.number("unread")), (3, 1), "{dump}: {}", summary.stderr);
        assert!(summary.stderr.contains(" dump_unread file="), "{dump}: {}", summary.stderr);
    }
    for dump in ["", "\n\n"] {
        let (summary, _) = decode_bytes(dump.as_bytes(), &[]);
        assert_eq!((summary.exit, summary.number("unread")), (0, 0), "{dump:?}: {}", summary.stderr);
    }
}

/// Segments of two partitions without the names of their directories have the same offsets.
#[test]
fn equal_offsets_in_unknown_partitions_are_different_records() {
    let dir = Workdir::new();
    let out = dir.join("out");
    let path =
        |name: &str| format!("{}/testdata/kafka/forms/two-partitions/{name}", env!("CARGO_MANIFEST_DIR"));
    let summary = decode(&[&path("p0.log"), &path("p1.log"), "-o", out.to_str().unwrap()]);
    assert_eq!((summary.exit, summary.number("duplicates"), summary.number("bytes")), (0, 0, 1_000));
    assert_eq!(fs::read(out.join("z.bin")).unwrap().len(), 1_000);
}

#[test]
fn the_format_can_be_given() {
    // A JSON object that is neither a value nor an envelope hides the format of the lines after it.
    let dump = [b"{\"a\":1}\n".to_vec(), array(|_, value| object(value))].concat();
    let (summary, stored) = decode_bytes(&dump, &["--format", "json"]);
    assert_eq!((summary.exit, summary.number("rejected"), stored.len()), (3, 1, 1_000));
    let (summary, stored) = decode_bytes(&dump, &["--format", "segment"]);
    assert_eq!((summary.exit, summary.number("unread"), stored.len()), (3, 1, 0));
    assert!(summary.stderr.contains("reason=\"--format says so\""), "{}", summary.stderr);
}

#[test]
fn the_partition_can_be_given() {
    let dir = Workdir::new();
    let out = dir.join("out");
    let path =
        |name: &str| format!("{}/testdata/kafka/forms/two-partitions/{name}", env!("CARGO_MANIFEST_DIR"));
    let named = ["-o", out.to_str().unwrap(), "--topic", "t", "--partition", "1"];
    decode(&[&named[..], &[&path("p1.log")]].concat());
    let again = decode(&[&named[..], &[&path("p1.log")]].concat());
    assert_eq!((again.exit, again.number("already_stored")), (0, 5));
}

/// A line of 33 MiB that was compressed to about a thousand bytes.
#[test]
fn a_compressed_line_beyond_the_limit_ends() {
    let line = format!("{{\"userid\":\"{}\"}}\n", "x".repeat(34_600_000));
    let dump = zstd::encode_all(format!("{line}{}\n", values()[0]).as_bytes(), 19).unwrap();
    assert!(dump.len() < 5_000);
    let (summary, stored) = decode_bytes(&dump, &[]);
    assert_eq!((summary.exit, summary.number("damaged"), summary.number("records")), (3, 1, 1));
    assert_eq!(stored.len(), 100);
}
