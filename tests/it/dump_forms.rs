//! The forms of dumps that `lea decode` reads. Each form holds the same ten records, and the table in docs/decode.md is
//! made of the results. `LEA_UPDATE=1` rewrites it.

mod archives;
mod pipes;
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

#[test]
fn records_of_an_aborted_transaction_do_not_count() {
    let segment = form("aborted/interception-0/00000000000000000000.log");
    let (summary, stored) = decode_bytes(&segment, &[]);
    assert_eq!((summary.exit, summary.number("aborted"), stored.len()), (0, 5, 1_000), "{}", summary.stderr);
    let (summary, stored) = decode_bytes(&segment, &["--aborted", "keep"]);
    assert_eq!((summary.exit, summary.number("aborted"), stored.len()), (0, 0, 1_500));
    // Without its last batch, the marker, the end of the transaction is unknown.
    let mut starts = vec![0];
    while let Some(length) =
        segment.get(starts[starts.len() - 1] + 8..).and_then(|rest| rest.first_chunk::<4>())
    {
        starts.push(starts[starts.len() - 1] + 12 + u32::from_be_bytes(*length) as usize);
    }
    let open = &segment[..starts[starts.len() - 2]];
    let (summary, stored) = decode_bytes(open, &[]);
    assert_eq!(
        (summary.exit, summary.number("undecided"), stored.len()),
        (3, 5, 1_000),
        "{}",
        summary.stderr
    );
}

/// Tools with a user interface show the newest records first, and export them so.
#[test]
fn records_with_decreasing_offsets_are_ordered() {
    let newest_first = |dump: &[u8]| {
        let lines = std::str::from_utf8(dump).unwrap().lines().rev();
        lines.map(|line| format!("{line}\n")).collect::<String>().into_bytes()
    };
    let envelopes = lines(|nth, value| table::placed(nth, json!({"value": value})).to_string());
    for dump in [form("newest-first.jsonl"), form("kafka-ui-export.json"), newest_first(&envelopes)] {
        let (summary, stored) = decode_bytes(&dump, &[]);
        assert_eq!((summary.exit, summary.number("records")), (0, 10), "{}", summary.stderr);
        assert!(stored == stream(), "{}", summary.stderr);
        let run = lea(&["decode", "--stream", NAME, "-"]).write_stdin(dump).assert().code(0);
        assert!(run.get_output().stdout == stream());
    }
    // Two exports, the later one first.
    let dir = Workdir::new();
    let envelopes = String::from_utf8(newest_first(&envelopes)).unwrap();
    let lines: Vec<&str> = envelopes.split_inclusive('\n').collect();
    let (later, earlier) = (dir.write("a", lines[..6].concat()), dir.write("b", lines[5..].concat()));
    let out = dir.join("out");
    let args = [&later, &earlier, std::path::Path::new("-o"), &out].map(|path| path.to_str().unwrap());
    let summary = decode(&args);
    assert_eq!((summary.exit, summary.number("duplicates")), (0, 1), "{}", summary.stderr);
    assert!(fs::read(out.join(NAME)).unwrap() == stream());
}

/// Events as Logstash's rubydebug codec prints them, and pretty-printed, are the same events as lines.
#[test]
fn events_over_several_lines_are_loaded() {
    let events = testdata("wire/logstash-call-events.jsonl");
    let events: Vec<Value> =
        events.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect();
    let ruby = |event: &Value| {
        let member = |(name, value): (&String, &Value)| format!("    {:>24} => {value}", format!("{name:?}"));
        format!("{{\n{}\n}}\n", event.as_object().unwrap().iter().map(member).collect::<Vec<_>>().join(",\n"))
    };
    let is_flat = |event: &&Value| event.as_object().unwrap().values().all(|value| !value.is_object());
    let flat: Vec<&Value> = events.iter().filter(is_flat).collect();
    assert!(!flat.is_empty());
    let dir = Workdir::new();
    let store = dir.join("store");
    for text in [
        flat.iter().map(|event| ruby(event)).collect::<String>(),
        flat.iter().map(|event| format!("{event:#}\n")).collect::<String>(),
    ] {
        let path = dir.write("events", text);
        let args = ["events", "load", path.to_str().unwrap(), "--store", store.to_str().unwrap()];
        let run = lea(&args).assert().code(0);
        let stderr = String::from_utf8(run.get_output().stderr.clone()).unwrap();
        assert!(
            stderr.contains(&format!("loaded stored={} duplicates=0 rejected=0", flat.len())),
            "{stderr}"
        );
    }
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
