//! Configuration files. `cargo +nightly fuzz run config fuzz/corpus/config testdata/fuzz/config`

#![no_main]

#[path = "../checks.rs"]
#[allow(dead_code)] // Each target calls one of the checks.
mod checks;

libfuzzer_sys::fuzz_target!(|input: &[u8]| checks::config(input));
