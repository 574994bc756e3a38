//! Any bytes as HTTP requests. Seeds are in testdata/fuzz/http.

#![no_main]

#[path = "../checks.rs"]
#[allow(dead_code)]
mod checks;

libfuzzer_sys::fuzz_target!(|input: &[u8]| checks::http(input));
