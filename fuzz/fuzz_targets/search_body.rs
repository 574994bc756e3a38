//! Any bytes as the body of a search. Seeds are in testdata/fuzz/search_body.

#![no_main]

#[path = "../checks.rs"]
#[allow(dead_code)]
mod checks;

libfuzzer_sys::fuzz_target!(|input: &[u8]| checks::search_body(input));
