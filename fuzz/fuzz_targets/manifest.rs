//! Manifests and resume states. `cargo +nightly fuzz run manifest fuzz/corpus/manifest testdata/fuzz/manifest`

#![no_main]

#[path = "../checks.rs"]
#[allow(dead_code)] // Each target calls one of the checks.
mod checks;

libfuzzer_sys::fuzz_target!(|input: &[u8]| checks::manifest(input));
