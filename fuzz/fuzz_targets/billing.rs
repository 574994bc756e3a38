//! Rows of a billing log. `cargo +nightly fuzz run billing fuzz/corpus/billing testdata/fuzz/billing`

#![no_main]

#[path = "../checks.rs"]
#[allow(dead_code)] // Each target calls one of the checks.
mod checks;

libfuzzer_sys::fuzz_target!(|input: &[u8]| checks::billing(input));
