//! Record values, one per line. `cargo +nightly fuzz run dump_values fuzz/corpus/dump_values testdata/fuzz/dump_values`

#![no_main]

#[path = "../checks.rs"]
#[allow(dead_code)] // Each target calls one of the checks.
mod checks;

libfuzzer_sys::fuzz_target!(|input: &[u8]| checks::dump_values(input));
