//! Runs the seeds of the fuzz targets with the same checks, on the stable toolchain.

#![allow(clippy::unwrap_used)] // Helpers of tests: a failure is the test's.

use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use crate::support::{Random, long};

#[path = "../../fuzz/checks.rs"]
mod checks;

/// Time in which each input must be checked. An endless loop would otherwise keep the whole suite.
const INPUT_DEADLINE: Duration = Duration::from_secs(60);

/// Runs each seed of a target and a few hundred variants: truncated at each of its first and last bytes, and
/// with that byte changed.
fn check_seeds(target: &str, check: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/fuzz").join(target);
    let mut seeds = 0;
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        seeds += 1;
        check_variants(&path, std::fs::read(&path).unwrap(), check);
    }
    assert!(seeds >= 5, "{} has {seeds} seeds", folder.display());
}

/// Random variants of each seed in the long form.
const RANDOM_VARIANTS: u64 = 5_000;

/// Changes, repeats or removes some bytes.
fn random_variant(seed: &[u8], number: u64) -> Vec<u8> {
    let (mut random, mut bytes) = (Random::with_seed(number), seed.to_vec());
    for _ in 0..=random.below(6) {
        let at = random.below(bytes.len() as u64 + 1) as usize;
        let end = bytes.len().min(at + random.below(40) as usize);
        match random.below(4) {
            0 => drop(bytes.drain(at..end)),
            1 => drop(bytes.splice(at..at, bytes[at..end].to_vec())),
            2 => bytes[at..end].iter_mut().for_each(|byte| *byte = random.next() as u8),
            _ => bytes[at..end].iter_mut().take(1).for_each(|byte| *byte ^= 1 << random.below(8)),
        }
    }
    bytes
}

/// Checks a seed and its variants in a thread, and fails if one of them takes too long.
fn check_variants(path: &Path, mut input: Vec<u8>, check: fn(&[u8])) {
    let (sender, checked) = channel();
    let worker = std::thread::spawn(move || {
        let check = |what: String, input: &[u8]| {
            sender.send(what).unwrap();
            check(input);
        };
        check("as it is".to_owned(), &input);
        let near_an_end = |at: &usize| *at < 200 || at + 10 > input.len();
        for at in (0..input.len()).filter(near_an_end).collect::<Vec<_>>() {
            check(format!("cut at {at}"), &input[..at]);
            input[at] ^= 1 << (at % 8);
            check(format!("with byte {at} changed"), &input);
            input[at] ^= 1 << (at % 8);
        }
        for number in 0..if long() { RANDOM_VARIANTS } else { 0 } {
            check(format!("random variant {number}"), &random_variant(&input, number));
        }
    });
    let mut variant = String::new();
    loop {
        match checked.recv_timeout(INPUT_DEADLINE) {
            Ok(next) => variant = next,
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                panic!("{}, {variant}: not checked after {INPUT_DEADLINE:?}", path.display())
            }
        }
    }
    assert!(worker.join().is_ok(), "{}, {variant}", path.display());
}

#[test]
fn handshake_seeds() {
    check_seeds("handshake", checks::handshake);
}

#[test]
fn name_seeds() {
    check_seeds("name", checks::name);
}

#[test]
fn capture_seeds() {
    check_seeds("capture", checks::capture);
}

#[test]
fn chunk_seeds() {
    check_seeds("chunk", checks::chunk);
}

#[test]
fn dump_values_seeds() {
    check_seeds("dump_values", checks::dump_values);
}

#[test]
fn dump_kcat_seeds() {
    check_seeds("dump_kcat", checks::dump_kcat);
}

#[test]
fn dump_console_seeds() {
    check_seeds("dump_console", checks::dump_console);
}

#[test]
fn dump_log_text_seeds() {
    check_seeds("dump_log_text", checks::dump_log_text);
}

#[test]
fn dump_letters_seeds() {
    check_seeds("dump_letters", checks::dump_letters);
}

#[test]
fn dump_json_seeds() {
    check_seeds("dump_json", checks::dump_json);
}

#[test]
fn dump_keyed_seeds() {
    check_seeds("dump_keyed", checks::dump_keyed);
}

#[test]
fn dump_segment_seeds() {
    check_seeds("dump_segment", checks::dump_segment);
}

#[test]
fn query_string_seeds() {
    check_seeds("query_string", checks::query_string);
}

#[test]
fn search_body_seeds() {
    check_seeds("search_body", checks::search_body);
}

#[test]
fn syslog_seeds() {
    check_seeds("syslog", checks::syslog);
}

#[test]
fn lines_seeds() {
    check_seeds("lines", checks::lines);
}

#[test]
fn elastic_request_seeds() {
    check_seeds("elastic_request", checks::elastic_request);
}

#[test]
fn http_seeds() {
    check_seeds("http", checks::http);
}

#[test]
fn billing_seeds() {
    check_seeds("billing", checks::billing);
}

#[test]
fn amqp_seeds() {
    check_seeds("amqp", checks::amqp);
}

#[test]
fn journal_seeds() {
    check_seeds("journal", checks::journal);
}

#[test]
fn checkpoints_seeds() {
    check_seeds("checkpoints", checks::checkpoints);
}

#[test]
fn cluster_answer_seeds() {
    check_seeds("cluster_answer", checks::cluster_answer);
}

#[test]
fn spool_segment_seeds() {
    check_seeds("spool_segment", checks::spool_segment);
}

#[test]
fn config_seeds() {
    check_seeds("config", checks::config);
}

#[test]
fn gelf_seeds() {
    check_seeds("gelf", checks::gelf);
}

#[test]
fn manifest_seeds() {
    check_seeds("manifest", checks::manifest);
}

#[test]
fn mend_seeds() {
    check_seeds("mend", checks::mend);
}

#[test]
fn json_array_seeds() {
    check_seeds("json_array", checks::json_array);
}

#[test]
fn store_segment_seeds() {
    check_seeds("store_segment", checks::store_segment);
}
