//! `lea calls`: the calls inside captures, next to tshark.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

use crate::support::{DEADLINE, Server, Workdir, lea, tshark_fields, tshark_ok, wait_until};

fn sample(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/pcap").join(name)
}

/// Runs `lea calls` with a cache of its own.
fn calls(work: &Workdir, args: &[&str]) -> Output {
    let mut command = Command::new(lea());
    command.arg("calls").args(args).env("XDG_CACHE_HOME", work.join("cache")).env("TZ", "UTC");
    command.output().unwrap()
}

#[track_caller]
fn stdout(output: &Output) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {stderr}", output.status);
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[track_caller]
fn json_lines(output: &Output) -> Vec<Value> {
    stdout(output).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A row of `tshark -z rtp,streams`: addresses, SSRC, packets, lost, and the printed numbers.
fn tshark_streams(file: &Path) -> Vec<Vec<String>> {
    let output = Command::new("tshark").args(["-q", "-r", text(file), "-z", "rtp,streams"]).output().unwrap();
    let rows = String::from_utf8(output.stdout).unwrap();
    let rows = rows.lines().filter(|line| line.contains("0x"));
    let mut rows: Vec<Vec<String>> = rows
        .map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            // Start, end, source, port, destination, port, SSRC, payload, packets, lost, (percent),
            // delta: minimum, mean, maximum, jitter: minimum, mean, maximum.
            let number = |at: usize| words[at].to_owned();
            vec![
                format!("{}:{}", words[2], words[3]),
                format!("{}:{}", words[4], words[5]),
                words[6].to_lowercase(),
                number(8),
                number(9),
                number(12),
                number(13),
                number(15),
                number(16),
            ]
        })
        .collect();
    rows.sort();
    rows
}

#[test]
fn streams_have_the_numbers_of_tshark() {
    let work = Workdir::new();
    for file in ["answered-call.pcap", "three-calls.pcapng", "rejected-call.pcap"].map(sample) {
        let streams = json_lines(&calls(&work, &["rtp", text(&file), "--json"]));
        let cell = |stream: &Value, name: &str| match &stream[name] {
            Value::String(text) => text.clone(),
            Value::Number(number) if number.is_f64() => format!("{:.3}", number.as_f64().unwrap()),
            other => other.to_string(),
        };
        let names = [
            "source",
            "destination",
            "ssrc",
            "packets",
            "lost",
            "delta_mean_ms",
            "delta_max_ms",
            "jitter_mean_ms",
            "jitter_max_ms",
        ];
        let mut rows: Vec<Vec<String>> =
            streams.iter().map(|stream| names.map(|name| cell(stream, name)).into()).collect();
        rows.sort();
        assert_eq!(rows, tshark_streams(&file), "{}", file.display());
        assert!(streams.iter().all(|stream| stream["binding"] == "sdp"));
    }
}

#[test]
fn calls_have_the_messages_of_tshark() {
    let work = Workdir::new();
    for file in ["answered-call.pcap", "three-calls.pcapng", "rejected-call.pcap"].map(sample) {
        let found = json_lines(&calls(&work, &["list", text(&file), "--json"]));
        let mut ids = tshark_fields(&file, "sip", "sip.Call-ID");
        let messages: u64 = found.iter().map(|call| call["messages"].as_u64().unwrap()).sum();
        assert_eq!(messages, ids.len() as u64, "{}", file.display());
        ids.sort();
        ids.dedup();
        let mut found_ids: Vec<&str> = found.iter().map(|call| call["call_id"].as_str().unwrap()).collect();
        found_ids.sort();
        assert_eq!(found_ids, ids);
    }
}

#[test]
fn a_ladder_shows_messages_and_streams() {
    let work = Workdir::new();
    let call = format!("{}#1", text(&sample("answered-call.pcap")));
    let ladder = stdout(&calls(&work, &["show", &call]));
    for part in ["INVITE (SDP)", "180 Ringing", "200 OK (SDP)", "ACK", "RTP PCMA 250 packets, 4.9 s", "BYE"] {
        assert!(ladder.contains(part), "{part} is missing:\n{ladder}");
    }
    let full = stdout(&calls(&work, &["show", &call, "--full"]));
    assert!(full.contains("INVITE sip:+447700900456@10.77.0.2:5060 SIP/2.0"), "{full}");
    assert_eq!(full.matches("\nCall-ID: 1-20929@10.77.0.1").count(), 6, "{full}");
    let document = json_lines(&calls(&work, &["show", &call, "--json"])).remove(0);
    assert_eq!(document["ladder"]["rows"].as_array().unwrap().len(), 8);
}

#[test]
fn a_call_is_found_by_its_id_and_its_number() {
    let work = Workdir::new();
    let file = sample("three-calls.pcapng");
    let listed = json_lines(&calls(&work, &["list", text(&file), "--json"]));
    for (index, call) in listed.iter().enumerate() {
        let (id, call_id) = (call["id"].as_str().unwrap(), call["call_id"].as_str().unwrap());
        let numbered = format!("{}#{}", text(&file), index + 1);
        let shown = |args: &[&str]| json_lines(&calls(&work, args)).remove(0)["id"].clone();
        assert_eq!(shown(&["show", &numbered, "--json"]), id);
        assert_eq!(shown(&["show", &id[..6], text(&file), "--json"]), id);
        assert_eq!(shown(&["show", call_id, text(&file), "--json"]), id);
    }
    let missing = calls(&work, &["show", "ffffffffff", text(&file)]);
    assert_eq!(missing.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&missing.stderr).contains("no call matches ffffffffff"));
}

#[test]
fn audio_is_stereo_on_the_clock_of_the_capture() {
    let work = Workdir::new();
    let wav = work.join("call.wav");
    let call = format!("{}#1", text(&sample("answered-call.pcap")));
    stdout(&calls(&work, &["wav", &call, "-o", text(&wav)]));
    let mut reader = hound::WavReader::open(&wav).unwrap();
    let spec = reader.spec();
    assert_eq!((spec.channels, spec.sample_rate, spec.bits_per_sample), (2, 8_000, 16));
    let samples: Vec<i16> = reader.samples().map(Result::unwrap).collect();
    // 250 packets of 20 ms; the capture has them in 4.96 s.
    assert_eq!(samples.len(), 2 * 40_000);
    // A tone of 440 Hz crosses zero 880 times per second.
    let left: Vec<i16> = samples.iter().step_by(2).copied().collect();
    let crossings = |part: &[i16]| part.windows(2).filter(|pair| (pair[0] < 0) != (pair[1] < 0)).count();
    assert!((875..=885).contains(&crossings(&left[4_000..12_000])), "{}", crossings(&left[4_000..12_000]));
    assert!((1_750..=1_770).contains(&crossings(&left[24_000..32_000])));
    let mono = work.join("mono.wav");
    stdout(&calls(&work, &["wav", &call, "-o", text(&mono), "--side", "caller"]));
    let mono: Vec<i16> = hound::WavReader::open(&mono).unwrap().samples().map(Result::unwrap).collect();
    assert_eq!(mono, left);
}

#[test]
fn each_call_gets_a_capture_of_its_own() {
    let work = Workdir::new();
    let dir = work.join("calls");
    let file = sample("three-calls.pcapng");
    stdout(&calls(&work, &["split", text(&file), "--output", text(&dir)]));
    let mut packets = 0;
    let mut files: Vec<PathBuf> = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert_eq!(files.len(), 3);
    for file in &files {
        tshark_ok(file).unwrap();
        packets += tshark_fields(file, "sip || udp", "frame.number").len();
        let listed = json_lines(&calls(&work, &["list", text(file), "--json"]));
        assert_eq!(listed.len(), 1);
        assert_eq!((&listed[0]["packets"], &listed[0]["messages"]), (&500.into(), &6.into()));
    }
    assert_eq!(packets, 3 * 506);
    // Nothing is overwritten.
    assert_eq!(calls(&work, &["split", text(&file), "--output", text(&dir)]).status.code(), Some(1));
}

/// The index that the cache has of the only capture.
fn index(work: &Workdir) -> PathBuf {
    let mut files = fs::read_dir(work.join("cache/lea/calls")).unwrap();
    files.next().unwrap().unwrap().path()
}

#[test]
fn a_capture_that_grows_is_read_from_where_it_ended() {
    let work = Workdir::new();
    for name in ["answered-call.pcap", "three-calls.pcapng"] {
        let whole = fs::read(sample(name)).unwrap();
        let file = work.join(name);
        for part in [1_000, whole.len() / 3, whole.len() / 2, whole.len() - 1, whole.len()] {
            fs::write(&file, &whole[..part]).unwrap();
            let listed = stdout(&calls(&work, &["list", text(&file), "--json"]));
            let fresh = stdout(&calls(&work, &["list", text(&file), "--json", "--no-index"]));
            assert_eq!(listed, fresh, "{name} {part}");
        }
    }
}

#[test]
fn a_damaged_index_is_not_used() {
    let work = Workdir::new();
    let file = work.join("call.pcap");
    fs::copy(sample("answered-call.pcap"), &file).unwrap();
    let expected = stdout(&calls(&work, &["list", text(&file), "--json"]));
    let good = fs::read(index(&work)).unwrap();
    for at in (0..good.len()).step_by(97) {
        let mut bad = good.clone();
        bad[at] ^= 1;
        fs::write(index(&work), &bad).unwrap();
        assert_eq!(stdout(&calls(&work, &["list", text(&file), "--json"])), expected, "byte {at}");
        fs::write(index(&work), &good[..at]).unwrap();
        assert_eq!(stdout(&calls(&work, &["list", text(&file), "--json"])), expected, "cut at {at}");
    }
    // Another capture under the same name.
    fs::copy(sample("rejected-call.pcap"), &file).unwrap();
    let replaced = json_lines(&calls(&work, &["list", text(&file), "--json"]));
    assert_eq!(replaced[0]["state"], "rejected");
}

#[test]
fn the_calls_of_a_receiver_are_listed_while_it_receives() {
    let work = Workdir::new();
    let server = Server::start(&work.join("out"), &[]);
    let sent = Command::new(lea())
        .args(["replay", text(&sample("answered-call.pcap")), "--topspeed", "--tcp"])
        .arg(server.addr().to_string())
        .output()
        .unwrap();
    assert!(sent.status.success(), "{}", String::from_utf8_lossy(&sent.stderr));
    let out = server.output().to_owned();
    let mut listed = Vec::new();
    wait_until(DEADLINE, "the call", || {
        listed = json_lines(&calls(&work, &["list", text(&out), "--json"]));
        listed.first().is_some_and(|call| call["state"] == "completed")
    });
    assert_eq!(listed[0]["packets"], 500);
    assert!(out.join(".lea/calls").is_dir() && !work.join("cache").exists());
    server.term();
    // The index does not disturb the receiver's own commands.
    let verified = Command::new(lea()).arg("verify").arg(&out).output().unwrap();
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));
    let table = stdout(&calls(&work, &["list", text(&out)]));
    assert!(table.contains("+447700900123  +447700900456  PCMA"), "{table}");
}

#[test]
fn what_is_not_a_capture_is_said() {
    let work = Workdir::new();
    let file = work.join("text");
    fs::write(&file, "not a capture, but long enough to be looked at by every format").unwrap();
    let refused = calls(&work, &["list", text(&file)]);
    assert_eq!(refused.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("the file is not a capture"));
    // In a directory it is skipped.
    assert!(stdout(&calls(&work, &["list", text(work.path())])).is_empty());
    let missing = calls(&work, &["list", text(&work.join("missing"))]);
    assert_eq!(missing.status.code(), Some(3));
}

/// A call of testdata/calls, as its generator knows it.
fn truth(file: &Path) -> Vec<Value> {
    let text = fs::read_to_string(file.with_extension("jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Captures in tunnels, over TCP and WebSocket, in fragments, and with faults: each number is that of the generator.
#[test]
fn made_calls_are_read_as_they_were_made() {
    let work = Workdir::new();
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/calls");
    let mut files: Vec<PathBuf> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "pcap"));
    assert_eq!(files.len(), 18);
    for file in &files {
        let found = json_lines(&calls(&work, &["list", text(file), "--json"]));
        let expected = truth(file);
        assert_eq!(found.len(), expected.len(), "{}", file.display());
        for expected in &expected {
            let call = found.iter().find(|call| call["call_id"] == expected["call_id"]).unwrap();
            let what = format!("{} {}", file.display(), call["call_id"]);
            for name in ["from_tag", "caller", "callee", "final_code", "legs"] {
                assert_eq!(call[name], expected[name], "{what} {name}");
            }
            // The end of the capture is not the end of the call.
            let is_open = expected["end"] == "no_bye";
            assert_eq!(
                call["state"],
                if is_open { "answered".into() } else { expected["state"].clone() },
                "{what}"
            );
            let messages = expected["messages"].as_object().unwrap().values();
            let messages: u64 = messages.map(|count| count.as_u64().unwrap()).sum();
            assert_eq!(call["messages"], messages, "{what}");
            check_streams(call, expected, &what);
        }
    }
}

fn check_streams(call: &Value, expected: &Value, what: &str) {
    let (streams, expected) = (call["streams"].as_array().unwrap(), expected["streams"].as_array().unwrap());
    assert_eq!(streams.len(), expected.len(), "{what}");
    for expected in expected {
        let ssrc = format!("0x{:08x}", expected["ssrc"].as_u64().unwrap());
        let is_it =
            |stream: &&Value| stream["ssrc"] == ssrc.as_str() && stream["source"] == expected["source"];
        let stream = streams.iter().find(is_it).unwrap();
        let names = [
            "side",
            "codec",
            "packets",
            "lost",
            "duplicates",
            "reordered",
            "restarts",
            "copies",
            "payload_bytes",
            "loss_runs",
        ];
        for name in names {
            assert_eq!(stream[name], expected[name], "{what} {ssrc} {name}");
        }
    }
}
