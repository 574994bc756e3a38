//! What a user sees in a terminal of 80 columns: tables that fit, and colours of states.
//! `script` of util-linux gives the command a pseudo-terminal.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use lea::cc::vault::manifest::ManifestState;

use crate::stored::{NAME, OutputDir, recording};
use crate::support::{Workdir, lea, testdata};

const COLUMNS: usize = 80;

/// Runs a shell command line in a terminal of 80 columns, with `lea` in `$LEA`. Returns what the terminal received and the
/// exit code.
fn run(dir: &Path, line: &str, variables: &[(&str, &str)]) -> (String, i32) {
    let sized = format!("stty cols {COLUMNS} rows 24; {line}");
    let output = Command::new("script")
        .args(["--quiet", "--return", "--command", &sized, "/dev/null"])
        .current_dir(dir)
        .env_remove("NO_COLOR")
        .env("TERM", "xterm")
        .env("LEA", lea())
        .envs(variables.iter().copied())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    (String::from_utf8(output.stdout).unwrap().replace("\r\n", "\n"), output.status.code().unwrap())
}

/// Returns the text without colours.
fn plain(text: &str) -> String {
    let mut plain = String::new();
    for (index, piece) in text.split("\x1b[").enumerate() {
        let visible = if index == 0 { piece } else { piece.split_once('m').unwrap().1 };
        plain.push_str(visible);
    }
    plain
}

#[track_caller]
fn assert_fits(text: &str) {
    for line in plain(text).lines() {
        assert!(line.chars().count() <= COLUMNS, "{} columns: {line}", line.chars().count());
    }
}

#[test]
fn ls_fits_and_colours_the_states() {
    let folder = OutputDir::new();
    let capture = recording("answered-call.pcap");
    folder.store(NAME, 1, &capture, ManifestState::Closed);
    folder.store(NAME, 2, &capture[..100], ManifestState::Open);
    let dir = Path::new(folder.path());
    let (text, code) = run(dir, "$LEA ls .", &[]);
    assert_eq!(code, 0, "{text}");
    assert_fits(&text);
    // The name, the state and the end stay; the less important columns go.
    let header = "STATE   NAME                                  BYTES  PACKETS     DURATION  END";
    assert_eq!(plain(&text).lines().next(), Some(header));
    assert!(text.contains("\x1b["), "no colours: {text}");
    for (line, variables) in [("$LEA ls .", &[("NO_COLOR", "1")][..]), ("$LEA ls . | cat", &[])] {
        let (text, _) = run(dir, line, variables);
        assert!(!text.contains('\x1b'), "{line}: {text}");
    }
}

#[test]
fn ls_damaged_shows_the_whole_problem() {
    let folder = OutputDir::new();
    folder.store(NAME, 1, &recording("answered-call.pcap"), ManifestState::Closed);
    let (text, _) = run(Path::new(folder.path()), "$LEA ls --damaged .", &[]);
    assert_fits(&text);
    assert!(text.contains("the connection was reset, bytes may be missing"), "{text}");
}

#[test]
fn billing_compare_shows_whole_numbers() {
    let work = Workdir::new();
    fs::write(work.join("ours.csv"), testdata("billing/ours.csv")).unwrap();
    fs::write(work.join("theirs.jsonl"), testdata("billing/theirs.jsonl")).unwrap();
    let (text, code) = run(work.path(), "$LEA billing compare ours.csv theirs.jsonl --show calls 2>log", &[]);
    assert_eq!(code, 3, "{text}");
    assert_fits(&text);
    assert!(plain(&text).contains("  CALLER            CALLEE"), "{text}");
    assert!(text.contains("+447700900"), "{text}");
    assert!(!text.contains('…'), "{text}");
}
