//! Raw segments. `cargo +nightly fuzz run dump_segment fuzz/corpus/dump_segment testdata/fuzz/dump_segment`

#![no_main]

#[path = "../checks.rs"]
#[allow(dead_code)] // Each target calls one of the checks.
mod checks;

libfuzzer_sys::fuzz_target!(|input: &[u8]| checks::dump_segment(input));
