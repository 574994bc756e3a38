//! The search for packets after damage. `cargo +nightly fuzz run mend fuzz/corpus/mend testdata/fuzz/mend`

#![no_main]

#[path = "../checks.rs"]
#[allow(dead_code)] // Each target calls one of the checks.
mod checks;

libfuzzer_sys::fuzz_target!(|input: &[u8]| checks::mend(input));
