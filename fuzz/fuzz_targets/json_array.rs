//! Objects of a JSON array. `cargo +nightly fuzz run json_array fuzz/corpus/json_array testdata/fuzz/json_array`

#![no_main]

#[path = "../checks.rs"]
#[allow(dead_code)] // Each target calls one of the checks.
mod checks;

libfuzzer_sys::fuzz_target!(|input: &[u8]| checks::json_array(input));
