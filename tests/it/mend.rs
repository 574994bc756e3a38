//! `lea mend`: what it keeps of damaged captures, with tshark and reordercap as a second opinion.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::support::{Workdir, lea, testdata, tshark_fields, tshark_ok};

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn mend(files: &[&Path], output: &Path) -> Output {
    let mut command = Command::new(lea());
    command.arg("mend").args(files).arg("--output").arg(output).arg("--json").stdin(Stdio::null());
    command.output().unwrap()
}

/// Mends files. Returns the exit code and the summary.
#[track_caller]
fn mended(files: &[&Path], output: &Path) -> (i32, Value) {
    let before: Vec<Vec<u8>> = files.iter().map(|file| fs::read(file).unwrap()).collect();
    let result = mend(files, output);
    let after: Vec<Vec<u8>> = files.iter().map(|file| fs::read(file).unwrap()).collect();
    assert!(before == after, "the original was changed");
    let stderr = String::from_utf8_lossy(&result.stderr);
    let json = serde_json::from_slice(&result.stdout).unwrap_or_else(|_| panic!("no summary: {stderr}"));
    (result.status.code().unwrap(), json)
}

fn times(file: &Path) -> Vec<String> {
    tshark_fields(file, "", "frame.time_epoch")
}

#[test]
fn a_whole_capture_stays_as_it_is() {
    let work = Workdir::new();
    for name in ["answered-call.pcap", "three-calls.pcapng"] {
        let content = testdata(&format!("pcap/{name}"));
        let (file, output) = (work.write(name, &content), work.join(format!("mended-{name}")));
        let (code, summary) = mended(&[&file], &output);
        assert_eq!((code, &summary["left_out_bytes"]), (0, &0.into()), "{summary}");
        assert!(fs::read(&output).unwrap() == content, "{name}: other bytes");
    }
}

#[test]
fn a_packet_that_was_cut_off_is_left_out() {
    let work = Workdir::new();
    for (name, cut) in [("answered-call.pcap", 100_000), ("three-calls.pcapng", 200_001)] {
        let content = testdata(&format!("pcap/{name}"));
        let (file, output) = (work.write(name, &content[..cut]), work.join(format!("mended-{name}")));
        let (code, summary) = mended(&[&file], &output);
        assert_eq!(code, 3, "{summary}");
        let stored = fs::read(&output).unwrap();
        assert!(content.starts_with(&stored));
        let lost = (cut - stored.len()) as u64;
        assert_eq!(summary["left_out_bytes"], lost, "{summary}");
        assert_eq!(summary["left_out"][0]["reason"], "truncated_packet");
        tshark_ok(&output).unwrap();
        assert_eq!(times(&output).len() as u64, summary["captures"][0]["packets"].as_u64().unwrap());
    }
}

/// Damage in the middle costs the packets that it touches, and no others.
#[test]
fn packets_after_damage_are_kept() {
    let work = Workdir::new();
    for name in ["answered-call.pcap", "three-calls.pcapng"] {
        let content = testdata(&format!("pcap/{name}"));
        let whole = times(&work.write(name, &content));
        let half = content.len() / 2;
        for (kind, damaged) in [
            ("overwritten", [&content[..half], &[0; 50], &content[half + 50..]].concat()),
            ("missing", [&content[..half], &content[half + 50..]].concat()),
            ("inserted", [&content[..half], b"a line of a log\n", &content[half..]].concat()),
        ] {
            let file = work.write(format!("{kind}-{name}"), damaged);
            let output = work.join(format!("mended-{kind}-{name}"));
            let (code, summary) = mended(&[&file], &output);
            tshark_ok(&output).unwrap();
            let kept = times(&output);
            assert!(
                kept.len() + 3 >= whole.len(),
                "{name}, {kind}: {} of {} packets",
                kept.len(),
                whole.len()
            );
            let mut rest = whole.iter();
            assert!(kept.iter().all(|time| rest.any(|known| known == time)), "{name}, {kind}: other packets");
            let lost = summary["left_out_bytes"].as_u64().unwrap();
            assert_eq!(code, if lost > 0 { 3 } else { 0 }, "{name}, {kind}: {summary}");
        }
    }
}

#[test]
fn appended_captures_are_split() {
    let work = Workdir::new();
    let content = testdata("captures/two-pcaps.pcap");
    let (file, output) = (work.write("two.pcap", &content), work.join("out.pcap"));
    let (code, summary) = mended(&[&file], &output);
    assert_eq!((code, &summary["left_out_bytes"]), (0, &0.into()), "{summary}");
    let parts = [output, work.join("out-2.pcap")];
    for part in &parts {
        tshark_ok(part).unwrap();
        assert_eq!(times(part), ["1795000000.000000000", "1795000001.001000000"]);
    }
    assert!([fs::read(&parts[0]).unwrap(), fs::read(&parts[1]).unwrap()].concat() == content);
    // The first capture was cut within a packet, and the formats differ.
    let first = testdata("pcap/answered-call.pcap");
    let second = testdata("pcap/three-calls.pcapng");
    let file = work.write("mixed", [&first[..1_000], &second[..]].concat());
    let (code, summary) = mended(&[&file], &work.join("mixed.pcap"));
    assert_eq!(code, 3, "{summary}");
    assert_eq!(summary["captures"][1]["format"], "pcapng");
    assert!(fs::read(work.join("mixed-2.pcap")).unwrap() == second);
    tshark_ok(&work.join("mixed.pcap")).unwrap();
}

/// Packets in order of time: those that reordercap writes.
#[test]
fn packets_are_sorted_by_time() {
    let work = Workdir::new();
    let mut pcap = words(&[0xa1b2_c3d4, 0x0004_0002, 0, 0, 65_535, 1]);
    for (number, seconds) in [5, 3, 9, 3, 1, 9, 2].into_iter().enumerate() {
        pcap.extend(words(&[1_795_000_000 + seconds, 0, 60, 60]));
        pcap.extend([number as u8; 60]);
    }
    // Two sections with interfaces of their own, and an interface that is described after the first packet.
    let section = words(&[0x0a0d_0d0a, 28, 0x1a2b_3c4d, 1, u32::MAX, u32::MAX, 28]);
    let interface = |link_type: u32| words(&[1, 20, link_type, 65_535, 20]);
    let packet = |interface: u32, seconds: u64| {
        let ticks = (1_795_000_000 + seconds) * 1_000_000;
        let mut block = words(&[6, 92, interface, (ticks >> 32) as u32, ticks as u32, 60, 60]);
        block.extend([interface as u8; 60]);
        block.extend(words(&[92]));
        block
    };
    let one = [section.clone(), interface(1), packet(0, 5), interface(101), packet(1, 3), packet(0, 4)];
    let two = [section, interface(101), packet(0, 8), packet(0, 7)];
    let pcapng = [one.concat(), two.concat()].concat();
    // Seconds after the start, and what tshark takes each packet for.
    let cases = [
        ("disorder.pcap", pcap, 4, "1 2 3 3 5 9 9"),
        // Packets stay in their section, with their interface.
        ("disorder.pcapng", pcapng, 3, "3raw 4eth 5eth 7raw 8raw"),
    ];
    for (name, content, moved, expected) in cases {
        let (file, output) = (work.write(name, content), work.join(format!("mended-{name}")));
        let (code, summary) = mended(&[&file], &output);
        assert_eq!((code, &summary["left_out_bytes"]), (0, &0.into()), "{summary}");
        assert_eq!(summary["captures"][0]["moved"], moved, "{summary}");
        tshark_ok(&output).unwrap();
        let protocols = tshark_fields(&output, "", "frame.protocols");
        let found: Vec<String> = times(&output)
            .iter()
            .zip(protocols)
            .map(|(time, protocols)| {
                let seconds = time.parse::<f64>().unwrap() as u64 - 1_795_000_000;
                format!("{seconds}{}", if name.ends_with("ng") { &protocols[..3] } else { "" })
            })
            .collect();
        assert_eq!(found.join(" "), expected, "{name}");
        assert_eq!(fs::metadata(&output).unwrap().len(), fs::metadata(&file).unwrap().len());
    }
    // reordercap cannot write a file whose interfaces are described late.
    let reordered = work.join("reordered.pcap");
    let mut reordercap = Command::new("reordercap");
    reordercap.arg(work.join("disorder.pcap")).arg(&reordered).stdout(Stdio::null());
    assert!(reordercap.status().unwrap().success());
    let data = |file: &Path| tshark_fields(file, "", "eth.src");
    assert_eq!(data(&work.join("mended-disorder.pcap")), data(&reordered));
}

/// A name that became part of the content, and a stream whose rest is in another part.
#[test]
fn a_name_before_the_capture_is_left_out_and_parts_are_joined() {
    let work = Workdir::new();
    let content = testdata("pcap/rejected-call.pcap");
    let file = work.write("named.pcap", [b"call.pcap".as_slice(), &content].concat());
    let (code, summary) = mended(&[&file], &work.join("out.pcap"));
    assert_eq!((code, &summary["left_out"][0]["reason"]), (3, &"not_a_capture".into()), "{summary}");
    assert!(fs::read(work.join("out.pcap")).unwrap() == content);
    let parts = [work.write("a.pcap", &content[..300]), work.write("a.pcap.2", &content[300..])];
    let (code, summary) = mended(&[&parts[0], &parts[1]], &work.join("joined.pcap"));
    assert_eq!(code, 0, "{summary}");
    assert!(fs::read(work.join("joined.pcap")).unwrap() == content);
}

#[track_caller]
fn check_fails(files: &[PathBuf], output: &Path, code: i32, expected: &str) {
    let files: Vec<&Path> = files.iter().map(|file| file.as_path()).collect();
    let result = mend(&files, output);
    let stderr = String::from_utf8_lossy(&result.stderr);
    assert_eq!(result.status.code(), Some(code), "{stderr}");
    assert!(stderr.contains(expected), "{stderr}");
}

#[test]
fn nothing_is_overwritten_and_nothing_is_written_without_a_capture() {
    let work = Workdir::new();
    let call = work.write("call.pcap", testdata("captures/two-pcaps.pcap"));
    let text = work.write("text", "this is not a capture");
    check_fails(&[text], &work.join("out.pcap"), 1, "there is no capture in it");
    check_fails(&[work.join("missing")], &work.join("out.pcap"), 1, "No such file");
    check_fails(std::slice::from_ref(&call), &call, 2, "exists, and is not overwritten");
    work.write("taken-2.pcap", "mine");
    check_fails(std::slice::from_ref(&call), &work.join("taken.pcap"), 2, "taken-2.pcap exists");
    check_fails(&[call], &work.join("no/such/dir.pcap"), 1, "cannot create a temporary file in");
    let mut names: Vec<_> =
        fs::read_dir(work.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["call.pcap", "taken-2.pcap", "text"]);
    assert_eq!(fs::read(work.join("taken-2.pcap")).unwrap(), b"mine");
}
