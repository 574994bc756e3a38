//! Lines of events. `cargo +nightly fuzz run lines fuzz/corpus/lines testdata/fuzz/lines`

#![no_main]

#[path = "../checks.rs"]
#[allow(dead_code)] // Each target calls one of the checks.
mod checks;

libfuzzer_sys::fuzz_target!(|input: &[u8]| checks::lines(input));
