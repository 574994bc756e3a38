//! `lea verify`.

#![allow(clippy::unwrap_used)] // A helper that fails fails its test.

use std::fs;

use lea::cc::vault::manifest::{Manifest, ManifestState};
use serde_json::Value;

use crate::stored::{NAME, OutputDir, lea, recording};

/// Runs `lea verify`, checks exit code and stdout, and returns stderr.
fn check_verify(args: &[&str], code: i32, expected: &[String]) -> String {
    let output = lea(&["verify"]).args(args).assert().code(code).get_output().clone();
    let (stdout, stderr) =
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert_eq!(stdout.lines().collect::<Vec<_>>(), expected, "{stderr}");
    stderr
}

fn stored() -> (OutputDir, Manifest, Vec<u8>) {
    let folder = OutputDir::new();
    let capture = recording("answered-call.pcap");
    let manifest = folder.store(NAME, 1, &capture, ManifestState::Closed);
    (folder, manifest, capture)
}

#[test]
fn files_equal_to_their_manifests_pass() {
    let (folder, _, capture) = stored();
    folder.store(NAME, 2, &capture, ManifestState::Recovered);
    folder.store("open", 1, &capture[..100], ManifestState::Open);
    folder.store("empty", 1, b"", ManifestState::Closed);
    folder.store("other", 1, b"no capture", ManifestState::Closed);
    folder.store("pcapng", 1, &recording("three-calls.pcapng"), ManifestState::Closed);
    let summary = check_verify(&[folder.path()], 0, &[]);
    assert_eq!(summary, "verified files=6 bytes=617296 differing=0 damaged=0; 1 stream is still open\n");
    // A file and its manifest name the same stream.
    let file = folder.file(NAME);
    let manifest = folder.file(&format!("{NAME}.lea.json"));
    let summary = check_verify(&[file.to_str().unwrap(), manifest.to_str().unwrap()], 0, &[]);
    assert_eq!(summary, "verified files=2 bytes=235838 differing=0 damaged=0\n");
}

#[test]
fn each_difference_is_a_line() {
    let (folder, manifest, mut capture) = stored();
    let path = folder.file(NAME).display().to_string();
    let differs = |what: &str| format!("differs {path}: {what}");

    // One bit of a packet's content: only the hash differs.
    capture[1_000] ^= 1;
    folder.write(NAME, &capture);
    let lines =
        String::from_utf8(lea(&["verify", folder.path()]).assert().code(3).get_output().stdout.clone());
    let line = lines.unwrap();
    assert!(line.starts_with(&differs("SHA-256 ")), "{line}");
    assert!(
        line.ends_with(&format!(", the manifest says {}\n", manifest.sha256.as_ref().unwrap())),
        "{line}"
    );
    capture[1_000] ^= 1;

    // Without a hash, the packets still show that bytes are missing.
    folder.write_manifest(&Manifest { sha256: None, ..manifest.clone() });
    folder.write(NAME, &capture[..capture.len() - 1]);
    let expected = [
        differs("bytes 117918, the manifest says 117919"),
        differs("packets 505, the manifest says 506"),
        differs("last packet (ns) 1795294777325358000, the manifest says 1795294777325423000"),
        differs("truncated bytes 381, the manifest says 0"),
    ];
    assert!(check_verify(&[folder.path()], 3, &expected).contains("; 1 file has no SHA-256 to compare"));

    folder.write(NAME, &capture);
    folder.write_manifest(&Manifest { lost_bytes: 7, ..manifest });
    check_verify(&[folder.path()], 3, &[differs("7 received bytes could not be written")]);
}

#[test]
fn a_file_without_manifest_and_a_manifest_without_file_are_reported() {
    let (folder, _, _) = stored();
    folder.write("alone", "1234");
    folder.store("gone", 1, b"1234", ManifestState::Closed);
    fs::remove_file(folder.file("gone")).unwrap();
    folder.write("bad.lea.json", "{");
    folder.write("bad", "");
    let shown = |name: &str| folder.file(name).display().to_string();
    let reason = format!("cannot read the manifest {}", shown("bad.lea.json"));
    let expected = [
        format!("differs {}: the file has no manifest", shown("alone")),
        format!("differs {}: {reason}: EOF while parsing an object at line 1 column 1", shown("bad")),
        format!("missing {}: the manifest exists, but its file does not", shown("gone")),
    ];
    let summary = check_verify(&[folder.path()], 3, &expected);
    assert!(summary.contains(" differing=3 damaged=0\n"), "{summary}");
    check_verify(&[&shown("alone")], 3, &expected[..1]);
    let missing = shown("missing");
    let stderr = check_verify(&[&missing], 1, &[]);
    assert_eq!(stderr, format!("lea: cannot verify {missing}: No such file or directory (os error 2)\n"));
    lea(&["verify"]).assert().code(2);
}

#[test]
fn an_open_file_shorter_than_its_ended_connections_is_reported() {
    let folder = OutputDir::new();
    let mut manifest = folder.store("x", 1, b"12345", ManifestState::Open);
    manifest.connections[0].ended_at = Some("2026-11-21T21:00:44.500Z".to_owned());
    folder.write_manifest(&manifest);
    check_verify(&[folder.path()], 0, &[]);
    manifest.connections[0].bytes = 6;
    folder.write_manifest(&manifest);
    let what = "the open file has 5 bytes, but its ended connections delivered 6";
    check_verify(&[folder.path()], 3, &[format!("differs {}: {what}", folder.file("x").display())]);
}

#[test]
fn sent_files_that_are_not_stored_are_reported() {
    // Not a capture, so that no part is damaged.
    let (folder, capture) = (OutputDir::new(), vec![b'x'; 117_919]);
    folder.store(NAME, 1, &capture, ManifestState::Closed);
    let sent = OutputDir::new();
    let args = [folder.path(), "--against", sent.path()];
    let line = |result: &str, what: &str| format!("{result} {}: {what}", sent.file(NAME).display());
    let part = |n: u32| match n {
        1 => folder.file(NAME).display().to_string(),
        n => folder.file(&format!("{NAME}.{n}")).display().to_string(),
    };
    sent.write(NAME, &capture);
    assert!(check_verify(&args, 0, &[]).contains(" files=1 sent=1 "));

    let mut other = capture.clone();
    other[70_000] ^= 0x80;
    sent.write(NAME, &other);
    let differs = [line("differs", &format!("{} differs first at byte 70000", part(1)))];
    check_verify(&args, 3, &differs);
    // One equal part is enough. If there is none, the difference of each part is reported.
    folder.store(NAME, 10, &capture[..99], ManifestState::Closed);
    folder.store(NAME, 2, &[&other[..], b"more"].concat(), ManifestState::Closed);
    let differs = [
        differs[0].clone(),
        line("differs", &format!("{} continues after byte 117919, where the sent file ends", part(2))),
        line("differs", &format!("{} ends at byte 99, the sent file continues", part(10))),
    ];
    check_verify(&args, 3, &differs);
    folder.store(NAME, 3, &other, ManifestState::Closed);
    check_verify(&args, 0, &[]);

    // A name whose file name is escaped, and a name that is not stored.
    sent.write(" x~", "1234");
    folder.store(" x~", 1, b"1234", ManifestState::Closed);
    sent.write(".y", "1234");
    check_verify(&args, 3, &[format!("missing {}: %2Ey is not stored", sent.file(".y").display())]);

    let file = part(1);
    lea(&["verify", &file, "--against", sent.path()]).assert().code(2);
}

#[test]
fn json_has_one_object_per_checked_file() {
    let (folder, _, capture) = stored();
    folder.write("alone", "1234");
    let sent = OutputDir::new();
    sent.write(NAME, &capture);
    let output = lea(&["verify", "--json", folder.path(), "--against", sent.path()]).assert().code(3);
    let text = String::from_utf8(output.get_output().stdout.clone()).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let path = |folder: &OutputDir, name| folder.file(name).display().to_string();
    let expected = [
        serde_json::json!({
            "check": "manifest", "file": path(&folder, NAME), "result": "ok", "state": "closed",
            "bytes": 117919, "hashed": true, "differences": [],
        }),
        serde_json::json!({
            "check": "manifest", "file": path(&folder, "alone"), "result": "differs", "bytes": 0,
            "hashed": false, "differences": ["the file has no manifest"],
        }),
        serde_json::json!({
            "check": "sent", "file": path(&sent, NAME), "result": "ok", "stored": path(&folder, NAME),
            "bytes": 117919, "differences": [],
        }),
    ];
    assert_eq!(lines, expected);
}
