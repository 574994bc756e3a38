//! The end of a stream name. `cargo +nightly fuzz run handshake fuzz/corpus/handshake testdata/fuzz/handshake`

#![no_main]

#[path = "../checks.rs"]
#[allow(dead_code)] // Each target calls one of the checks.
mod checks;

libfuzzer_sys::fuzz_target!(|input: &[u8]| checks::handshake(input));
