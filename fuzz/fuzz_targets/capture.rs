//! The packet tracker. `cargo +nightly fuzz run capture fuzz/corpus/capture testdata/fuzz/capture`

#![no_main]

#[path = "../checks.rs"]
#[allow(dead_code)] // Each target calls one of the checks.
mod checks;

libfuzzer_sys::fuzz_target!(|input: &[u8]| checks::capture(input));
