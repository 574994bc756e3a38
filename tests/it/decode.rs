//! `lea decode` with sample dumps of one stream: complete, compressed, concatenated and damaged.

use std::fs;
use std::io::Write;
use std::path::PathBuf;

use serde_json::Value;

use crate::stored::{NAME, lea};
use crate::support::{Workdir, assert_same, manifest, testdata};

const DUMPS: [&str; 6] = [
    "kafka/values.jsonl",
    "kafka/kcat-J.jsonl",
    "kafka/console-consumer.txt",
    "kafka/dump-log.txt",
    "kafka/00000000000000000000.log",
    "wire/logstash-call-data.jsonl",
];

fn path(dump: &str) -> String {
    format!("{}/testdata/{dump}", env!("CARGO_MANIFEST_DIR"))
}

fn capture() -> Vec<u8> {
    testdata("pcap/answered-call.pcap")
}

/// Output of a run: stdout, stderr, and the numbers of the summary line.
struct Run {
    stdout: Vec<u8>,
    stderr: String,
}

impl Run {
    fn number(&self, key: &str) -> u64 {
        let line = self.stderr.lines().find(|line| line.starts_with("decoded ")).unwrap();
        let word = line.split(' ').find_map(|word| word.strip_prefix(&format!("{key}="))).unwrap();
        word.parse().unwrap()
    }
}

#[track_caller]
fn decode(args: &[&str], stdin: &[u8], code: i32) -> Run {
    let output = lea(&["decode"]).args(args).write_stdin(stdin).assert().code(code).get_output().clone();
    Run { stdout: output.stdout, stderr: String::from_utf8(output.stderr).unwrap() }
}

/// Decodes into a new directory and expects the complete capture.
#[track_caller]
fn check_whole(dumps: &[&str], stdin: &[u8], code: i32) -> (Workdir, Run) {
    let dir = Workdir::new();
    let out = dir.path().join("out");
    let run = decode(&[dumps, &["--output", out.to_str().unwrap()]].concat(), stdin, code);
    assert_same(&out.join(NAME), &capture());
    let manifest = manifest(&out, NAME).unwrap();
    assert_eq!((manifest.bytes, manifest.capture.packets), (117_919, 506));
    assert!(!out.join(format!("{NAME}.2")).exists(), "it has one part: {}", run.stderr);
    lea(&["verify", out.to_str().unwrap()]).assert().code(0);
    (dir, run)
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).unwrap()
}

#[test]
fn each_dump_gives_the_stream() {
    for dump in DUMPS {
        let bytes = testdata(dump);
        let (dir, run) = check_whole(&[&path(dump)], b"", 0);
        assert_eq!((run.number("records"), run.number("streams"), run.number("bytes")), (1180, 1, 117_919));
        assert_eq!(fs::read_to_string(dir.join("out/.lea/dead-letters.jsonl")).unwrap(), "");
        // From standard input, compressed or not.
        check_whole(&["-"], &gzip(&bytes), 0);
        check_whole(&[], &zstd(&bytes), 0);
        let raw = decode(&["--stream", NAME, &path(dump)], b"", 0);
        assert!(raw.stdout == capture(), "{dump}");
    }
}

fn most(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.truncate(bytes.len() * 3 / 4);
    bytes
}

#[test]
fn a_dump_that_is_cut_is_nothing_unusual() {
    for dump in DUMPS {
        let bytes = testdata(dump);
        let half = &bytes[..bytes.len() / 2];
        let dir = Workdir::new();
        for (nth, cut) in [half.to_vec(), most(gzip(&bytes)), most(zstd(&bytes))].iter().enumerate() {
            let out = dir.join(nth.to_string());
            let run = decode(&["-o", out.to_str().unwrap()], cut, 0);
            let stored = fs::read(out.join(NAME)).unwrap();
            assert!(capture().starts_with(&stored) && stored.len() > 5_000, "{dump}: {}", stored.len());
            assert!(run.stderr.contains(" dump_truncated file=\"-\" "), "{dump}: {}", run.stderr);
            assert_eq!(
                (run.number("truncated"), run.number("rejected"), run.number("damaged")),
                (1, 0, 0),
                "{dump}"
            );
            // The complete dump after it is a re-send from the start.
            decode(&["-o", out.to_str().unwrap()], &bytes, 0);
            assert_same(&out.join(NAME), &capture());
        }
    }
}

#[test]
fn several_dumps_go_by_their_offsets() {
    let dir = Workdir::new();
    for dump in ["kafka/kcat-J.jsonl", "kafka/console-consumer.txt"] {
        let text = String::from_utf8(testdata(dump)).unwrap();
        let lines: Vec<&str> = text.split_inclusive('\n').collect();
        let begin = dir.write("begin", lines[..500].concat());
        let middle = dir.write("middle", gzip(lines[400..900].concat().as_bytes()));
        let end = dir.write("end", lines[900..].concat());
        let files = [&end, &middle, &begin].map(|path| path.to_str().unwrap());
        // Without a topic, an offset of one dump proves nothing about another dump.
        let (_, run) = check_whole(&[&files[..], &["--topic", "interception"]].concat(), b"", 0);
        assert_eq!((run.number("files"), run.number("duplicates")), (3, 100));
    }
    // The partition of a segment is in the name of its directory. One batch is in both files.
    let segment = testdata("kafka/00000000000000000000.log");
    let first = 12 + u32::from_be_bytes(segment[8..12].try_into().unwrap()) as usize;
    fs::create_dir(dir.join("interception-0")).unwrap();
    let later = dir.write("interception-0/1.log", &segment[first..]);
    let begin = dir.write("interception-0/0.log", &segment[..1000]);
    let (_, run) = check_whole(&[later.to_str().unwrap(), begin.to_str().unwrap()], b"", 0);
    assert_eq!((run.number("truncated"), run.number("records")), (1, 1182));
    // Concatenated dumps without offsets are a re-send of the same stream.
    let values = testdata("kafka/values.jsonl");
    let (_, run) = check_whole(&[], &[&values[..], &values].concat(), 0);
    assert_eq!(run.number("records"), 2360);
}

#[test]
fn what_is_damaged_is_named_and_kept_and_can_be_read_again() {
    let values = testdata("kafka/values.jsonl");
    let text = String::from_utf8(values).unwrap();
    let mut lines: Vec<&str> = text.lines().collect();
    lines.insert(700, r#"{"userid":"y","data":"YW!j"}"#);
    lines.insert(700, "no JSON");
    lines.insert(3, r#"{"data":"YWJj"}"#);
    let (dir, run) = check_whole(&[], (lines.join("\n") + "\n").as_bytes(), 3);
    assert_eq!((run.number("records"), run.number("rejected")), (1183, 3));
    for said in [
        "record_rejected file=\"-\" line=4 reason=\"no stream name: neither interceptionfilename nor userid is set\"",
        "record_rejected file=\"-\" line=702 reason=\"not a JSON object: expected ident at byte 1\"",
        "record_rejected file=\"-\" line=703 reason=\"not base64: a character outside the base64 alphabet at byte 24\"",
    ] {
        assert!(run.stderr.contains(said), "{said}: {}", run.stderr);
    }
    let letters = dir.join("out/.lea/dead-letters.jsonl");
    let kept = fs::read_to_string(&letters).unwrap();
    let kept: Vec<Value> = kept.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let values: Vec<&str> = kept.iter().map(|letter| letter["value"].as_str().unwrap()).collect();
    assert_eq!(values, [r#"{"data":"YWJj"}"#, "no JSON", r#"{"userid":"y","data":"YW!j"}"#]);
    assert_eq!((&kept[1]["line"], &kept[1]["file"]), (&Value::from(702), &Value::from("-")));

    // If they are decoded into the same directory, nothing is appended to the file that is being read.
    let before = fs::read(&letters).unwrap();
    let out = dir.join("out");
    let run = decode(&[letters.to_str().unwrap(), "-o", out.to_str().unwrap()], b"", 3);
    assert_eq!((run.number("records"), run.number("rejected")), (3, 3));
    assert!(run.stderr.contains("dead_letters_not_written"), "{}", run.stderr);
    assert_eq!(fs::read(&letters).unwrap(), before);
    // After a fix they are records.
    let mended = String::from_utf8(before).unwrap().replace("YW!j", "YWFj");
    decode(&["-o", out.to_str().unwrap()], mended.as_bytes(), 3);
    assert_eq!(fs::read(out.join("y.pcap")).unwrap(), b"aac");
}

#[test]
fn a_damaged_batch_leaves_the_others() {
    let mut segment = testdata("kafka/00000000000000000000.log");
    let bytes = |at: usize, segment: &[u8]| {
        12 + u32::from_be_bytes(segment[at + 8..at + 12].try_into().unwrap()) as usize
    };
    let second = bytes(0, &segment);
    let third = second + bytes(second, &segment);
    let fourth = third + bytes(third, &segment);
    segment[second + 100] ^= 1;
    segment.splice(fourth..fourth, *b"noise in between");
    let dir = Workdir::new();
    let out = dir.join("out");
    let run = decode(&["-o", out.to_str().unwrap()], &segment, 3);
    assert_eq!((run.number("records"), run.number("damaged")), (1179, 2));
    assert!(run.stderr.contains(&format!("byte={second} ")), "{}", run.stderr);
    let letters = fs::read_to_string(out.join(".lea/dead-letters.jsonl")).unwrap();
    assert_eq!(letters.lines().count(), 2);
    // A file with a damaged compression is lost from there on; the next file is read.
    let mut broken = gzip(&testdata("kafka/values.jsonl"));
    let middle = broken.len() / 2;
    broken[middle..middle + 100].fill(0xff);
    let broken = dir.write("broken.gz", broken);
    let (_, run) = check_whole(&[broken.to_str().unwrap(), &path("kafka/values.jsonl")], b"", 3);
    assert_eq!((run.number("files"), run.number("damaged")), (2, 1));
}

#[test]
fn lists() {
    let list = |args: &[&str]| String::from_utf8(decode(args, b"", 0).stdout).unwrap();
    let kcat = path("kafka/kcat-J.jsonl");
    assert_eq!(
        list(&["--list", &kcat]),
        format!(
            "NAME                                        RECORDS   BYTES  OFFSETS\n{NAME}     1180  117919  interception-0:0..1179\n"
        )
    );
    let row: Value = serde_json::from_str(&list(&["--list", "--json", &kcat])).unwrap();
    let partitions = serde_json::json!([{"topic": "interception", "partition": 0, "first_offset": 0, "last_offset": 1179}]);
    assert_eq!(
        row,
        serde_json::json!({"name": NAME, "records": 1180, "bytes": 117_919, "partitions": partitions})
    );
    let lines = list(&["--json", &kcat]);
    assert_eq!(lines.lines().count(), 1180);
    assert!(lines.starts_with(&format!(
        "{{\"name\":\"{NAME}\",\"topic\":\"interception\",\"partition\":0,\"offset\":0,\"bytes\":100,\"data\":\"1MOyoQ"
    )));
    assert_eq!(list(&["--json", "--stream", NAME, &kcat]), lines);
    decode(&["--stream", "other", &kcat], b"", 3);
    assert_eq!(list(&["--json", "--stream", "other", &kcat]), "");
}

#[test]
fn names_are_as_untrusted_as_ever() {
    let dir = Workdir::new();
    let out = dir.join("out");
    let names = ["../../etc/passwd", ".", "x.lea.json", "a\\u0000b", "caf\\u00e9"];
    let dump: String = names
        .iter()
        .map(|name| format!("{{\"data\":\"YQ==\",\"interceptionfilename\":\"{name}\"}}\n"))
        .collect();
    decode(&["-o", out.to_str().unwrap()], dump.as_bytes(), 0);
    let mut stored: Vec<String> = fs::read_dir(&out)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !name.ends_with(".lea.json") && name != ".lea")
        .collect();
    stored.sort();
    assert_eq!(stored, ["%2E", "%2E.%2F..%2Fetc%2Fpasswd", "a%00b", "caf%C3%A9", "x%2Elea.json"]);
}

#[test]
fn a_stream_that_is_sent_again_with_a_difference_is_a_part() {
    let dir = Workdir::new();
    let out = dir.join("out");
    let text = String::from_utf8(testdata("kafka/values.jsonl")).unwrap();
    let other = text.replacen("T1BUSU9O", "T1BUSU9P", 1).replacen("MTAuNzcuMC4x", "MTAuNzcuMC4y", 1);
    assert_ne!(text, other);
    decode(&["-o", out.to_str().unwrap()], (text + &other).as_bytes(), 0);
    assert_same(&out.join(NAME), &capture());
    let part = fs::read(out.join(format!("{NAME}.2"))).unwrap();
    assert!(part.len() == capture().len() && part != capture());
}

#[test]
fn usage() {
    let missing = decode(&["/nonexistent/dump"], b"", 1);
    assert_eq!(
        missing.stderr,
        "lea: cannot open /nonexistent/dump: No such file or directory (os error 2)\n"
    );
    decode(&["-", "-"], b"", 2);
    decode(&["--list", "--stream", "x"], b"", 2);
    decode(&["--list", "-o", "x"], b"", 2);
    let dir = Workdir::new();
    let out: PathBuf = dir.join("out");
    let run = decode(&["-o", out.to_str().unwrap()], b"", 0);
    assert_eq!((run.number("files"), run.number("records")), (1, 0));
}
