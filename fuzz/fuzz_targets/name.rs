//! Stream names and file names. `cargo +nightly fuzz run name fuzz/corpus/name testdata/fuzz/name`

#![no_main]

#[path = "../checks.rs"]
#[allow(dead_code)] // Each target calls one of the checks.
mod checks;

libfuzzer_sys::fuzz_target!(|input: &[u8]| checks::name(input));
