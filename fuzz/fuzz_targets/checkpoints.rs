//! The log of checkpoints. `cargo +nightly fuzz run checkpoints fuzz/corpus/checkpoints testdata/fuzz/checkpoints`

#![no_main]

#[path = "../checks.rs"]
#[allow(dead_code)] // Each target calls one of the checks.
mod checks;

libfuzzer_sys::fuzz_target!(|input: &[u8]| checks::checkpoints(input));
