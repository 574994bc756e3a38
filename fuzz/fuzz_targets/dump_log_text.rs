//! Output of `kafka-dump-log`. `cargo +nightly fuzz run dump_log_text fuzz/corpus/dump_log_text testdata/fuzz/dump_log_text`

#![no_main]

#[path = "../checks.rs"]
#[allow(dead_code)] // Each target calls one of the checks.
mod checks;

libfuzzer_sys::fuzz_target!(|input: &[u8]| checks::dump_log_text(input));
