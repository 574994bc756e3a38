//! Lines with a key before the value. `cargo +nightly fuzz run dump_keyed fuzz/corpus/dump_keyed testdata/fuzz/dump_keyed`

#![no_main]

#[path = "../checks.rs"]
#[allow(dead_code)] // Each target calls one of the checks.
mod checks;

libfuzzer_sys::fuzz_target!(|input: &[u8]| checks::dump_keyed(input));
