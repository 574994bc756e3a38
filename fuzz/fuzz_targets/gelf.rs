//! GELF messages. `cargo +nightly fuzz run gelf fuzz/corpus/gelf testdata/fuzz/gelf`

#![no_main]

#[path = "../checks.rs"]
#[allow(dead_code)] // Each target calls one of the checks.
mod checks;

libfuzzer_sys::fuzz_target!(|input: &[u8]| checks::gelf(input));
