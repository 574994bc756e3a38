//! Dead letters. `cargo +nightly fuzz run dump_letters fuzz/corpus/dump_letters testdata/fuzz/dump_letters`

#![no_main]

#[path = "../checks.rs"]
#[allow(dead_code)] // Each target calls one of the checks.
mod checks;

libfuzzer_sys::fuzz_target!(|input: &[u8]| checks::dump_letters(input));
