//! `lea ls`.

#![allow(clippy::unwrap_used)] // A helper that fails fails its test.

use std::fs;

use lea::cc::vault::manifest::{EndReason, ManifestState};
use serde_json::{Value, json};

use crate::stored::{NAME, OutputDir, lea, recording};

fn check_ls(folder: &OutputDir, code: i32, expected: &str) -> String {
    let output = lea(&["ls", folder.path()]).assert().code(code).get_output().clone();
    let (stdout, stderr) =
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert_eq!(stdout, expected, "{stderr}");
    stderr
}

#[test]
fn streams_are_listed_as_a_table() {
    let folder = OutputDir::new();
    let capture = recording("answered-call.pcap");
    folder.store(NAME, 1, &capture, ManifestState::Closed);
    folder.store(NAME, 2, &capture[..100], ManifestState::Open);
    folder.store("notes", 1, b"no capture", ManifestState::Recovered);
    folder.write("a\x1b[31mb", "1234");
    let stderr = check_ls(
        &folder,
        0,
        "\
STATE      NAME                                           BYTES  PACKETS     DURATION  PEER             END    ENDED
closed     +447700900123-2-3_21_11_2026_20:59:41.pcap    117919      506  0:00:05.207  192.0.2.7:40000  reset  2026-11-21T21:00:44.500Z
open       +447700900123-2-3_21_11_2026_20:59:41.pcap.2     100        -            -  192.0.2.7:40000  -      -
foreign    a\\u{1b}[31mb                                       4        -            -  -                -      -
recovered  notes                                             10        0  0:01:02.250  192.0.2.7:40000  reset  2026-11-21T21:00:44.500Z
",
    );
    assert_eq!(stderr, "");
}

#[test]
fn json_has_one_object_per_stream() {
    let folder = OutputDir::new();
    folder.store("../x", 1, &recording("rejected-call.pcap"), ManifestState::Closed);
    folder.write("y", "1234");
    let output = lea(&["ls", "--json", folder.path()]).assert().code(0).get_output().clone();
    let lines: Vec<Value> = output
        .stdout
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect();
    let stored = json!({
        "state": "closed", "name": "../x", "file": "%2E.%2Fx", "bytes": 1559, "packets": 4, "duration_ms": 703,
        "peer": "192.0.2.7:40000", "connected_at": "2026-11-21T20:59:40.000Z",
        "ended_at": "2026-11-21T21:00:44.500Z", "end_reason": "reset",
        "problem": "the connection was reset, bytes may be missing",
    });
    assert_eq!(lines, [stored, json!({"state": "foreign", "file": "y", "bytes": 4})]);
}

#[test]
fn damaged_streams_are_reported_and_exit_with_3() {
    let folder = OutputDir::new();
    folder.store("gone", 1, b"", ManifestState::Closed);
    fs::remove_file(folder.file("gone")).unwrap();
    let stderr = check_ls(
        &folder,
        3,
        "\
STATE    NAME  BYTES  PACKETS     DURATION  PEER             END    ENDED
missing  gone      -        0  0:01:02.250  192.0.2.7:40000  reset  2026-11-21T21:00:44.500Z
",
    );
    assert!(stderr.contains("file_missing file=gone"), "{stderr}");

    let folder = OutputDir::new();
    folder.write("x", "");
    folder.write("x.lea.json", "{");
    // A manifest that names another file is ignored.
    let mut manifest = folder.store("y", 1, b"", ManifestState::Closed);
    manifest.file = "../y".to_owned();
    folder.write("y.lea.json", serde_json::to_vec(&manifest).unwrap());
    let stderr = check_ls(
        &folder,
        3,
        "\
STATE     NAME  BYTES  PACKETS  DURATION  PEER  END  ENDED
unusable  x         0        -         -  -     -    -
unusable  y         0        -         -  -     -    -
",
    );
    assert!(stderr.contains("manifest_unusable file=x reason=\"cannot read the manifest "), "{stderr}");
    assert!(
        stderr.contains("manifest_unusable file=y reason=\"the manifest names another file, ../y\""),
        "{stderr}"
    );
}

#[test]
fn an_empty_directory_is_an_empty_table_and_a_missing_one_an_error() {
    let folder = OutputDir::new();
    check_ls(&folder, 0, "STATE  NAME  BYTES  PACKETS  DURATION  PEER  END  ENDED\n");
    let missing = folder.file("missing");
    let output = lea(&["ls", missing.to_str().unwrap()]).assert().code(1).get_output().clone();
    let expected = format!(
        "lea: cannot read the directory {}: No such file or directory (os error 2)\n",
        missing.display()
    );
    assert_eq!(String::from_utf8(output.stderr).unwrap(), expected);
    lea(&["ls"]).assert().code(2);
}

#[test]
fn damaged_lists_only_streams_with_a_problem() {
    let folder = OutputDir::new();
    let capture = recording("answered-call.pcap");
    let mut whole = folder.store("whole", 1, &capture, ManifestState::Closed);
    whole.end_reason = Some(EndReason::Eof);
    folder.write_manifest(&whole);
    let mut cut = folder.store("cut", 1, &capture[..capture.len() - 1], ManifestState::Closed);
    cut.end_reason = Some(EndReason::Eof);
    folder.write_manifest(&cut);
    folder.store("killed", 1, &capture, ManifestState::Recovered);
    folder.store("open", 1, &capture, ManifestState::Open);
    let output = lea(&["ls", "--damaged", "--json", folder.path()]).assert().code(0).get_output().clone();
    let text = String::from_utf8(output.stdout).unwrap();
    let rows: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let problems: Vec<_> = rows.iter().map(|row| (row["file"].as_str(), row["problem"].as_str())).collect();
    let killed = "the receiver was killed, the connection was reset, bytes may be missing";
    assert_eq!(
        problems,
        [(Some("cut"), Some("truncated within a packet, 381 bytes of it")), (Some("killed"), Some(killed))]
    );
}

#[test]
fn since_keeps_streams_that_ended_later_or_are_open() {
    let folder = OutputDir::new();
    folder.store("ended", 1, b"x", ManifestState::Closed);
    folder.store("open", 1, b"x", ManifestState::Open);
    for (since, expected) in [("2026-11-21T21:00:44Z", 2), ("2026-11-21T21:00:45Z", 1), ("0s", 1)] {
        let output =
            lea(&["ls", "--json", "--since", since, folder.path()]).assert().code(0).get_output().clone();
        assert_eq!(output.stdout.iter().filter(|byte| **byte == b'\n').count(), expected, "{since}");
    }
    lea(&["ls", "--since", "never", folder.path()]).assert().code(2);
}
