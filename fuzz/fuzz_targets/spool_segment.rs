//! Segments of the spool. `cargo +nightly fuzz run spool_segment fuzz/corpus/spool_segment testdata/fuzz/spool_segment`

#![no_main]

#[path = "../checks.rs"]
#[allow(dead_code)] // Each target calls one of the checks.
mod checks;

libfuzzer_sys::fuzz_target!(|input: &[u8]| checks::spool_segment(input));
