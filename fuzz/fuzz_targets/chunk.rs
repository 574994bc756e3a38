//! A record's value. `cargo +nightly fuzz run chunk fuzz/corpus/chunk testdata/fuzz/chunk`

#![no_main]

#[path = "../checks.rs"]
#[allow(dead_code)] // Each target calls one of the checks.
mod checks;

libfuzzer_sys::fuzz_target!(|input: &[u8]| checks::chunk(input));
