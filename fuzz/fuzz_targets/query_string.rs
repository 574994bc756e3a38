//! Any bytes as a query string. Seeds are in testdata/fuzz/query_string.

#![no_main]

#[path = "../checks.rs"]
#[allow(dead_code)]
mod checks;

libfuzzer_sys::fuzz_target!(|input: &[u8]| checks::query_string(input));
