//! The journal of open files. `cargo +nightly fuzz run journal fuzz/corpus/journal testdata/fuzz/journal`

#![no_main]

#[path = "../checks.rs"]
#[allow(dead_code)] // Each target calls one of the checks.
mod checks;

libfuzzer_sys::fuzz_target!(|input: &[u8]| checks::journal(input));
