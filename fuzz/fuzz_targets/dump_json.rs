//! Streams of JSON values. `cargo +nightly fuzz run dump_json fuzz/corpus/dump_json testdata/fuzz/dump_json`

#![no_main]

#[path = "../checks.rs"]
#[allow(dead_code)] // Each target calls one of the checks.
mod checks;

libfuzzer_sys::fuzz_target!(|input: &[u8]| checks::dump_json(input));
