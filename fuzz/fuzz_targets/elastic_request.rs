//! Requests to the Elasticsearch API. Seeds are in testdata/fuzz/elastic_request.

#![no_main]

#[path = "../checks.rs"]
#[allow(dead_code)]
mod checks;

libfuzzer_sys::fuzz_target!(|input: &[u8]| checks::elastic_request(input));
