//! Runs the seeds of the fuzz targets with the same checks, on the stable toolchain.

#![allow(clippy::unwrap_used)] // Helpers of tests: a failure is the test's.

use std::path::Path;

#[path = "../../fuzz/checks.rs"]
mod checks;

/// Runs each seed of a target and a few hundred variants: truncated at each of its first and last bytes, and
/// with that byte changed.
fn check_seeds(target: &str, check: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/fuzz").join(target);
    let mut seeds = 0;
    for entry in std::fs::read_dir(&folder).unwrap() {
        let mut input = std::fs::read(entry.unwrap().path()).unwrap();
        seeds += 1;
        check(&input);
        let near_an_end = |at: &usize| *at < 200 || at + 10 > input.len();
        for at in (0..input.len()).filter(near_an_end).collect::<Vec<_>>() {
            check(&input[..at]);
            input[at] ^= 1 << (at % 8);
            check(&input);
            input[at] ^= 1 << (at % 8);
        }
    }
    assert!(seeds >= 5, "{} has {seeds} seeds", folder.display());
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
