//! Envelopes of `kcat -J`. `cargo +nightly fuzz run dump_kcat fuzz/corpus/dump_kcat testdata/fuzz/dump_kcat`

#![no_main]

#[path = "../checks.rs"]
#[allow(dead_code)] // Each target calls one of the checks.
mod checks;

libfuzzer_sys::fuzz_target!(|input: &[u8]| checks::dump_kcat(input));
