//! Answers of a cluster. `cargo +nightly fuzz run cluster_answer fuzz/corpus/cluster_answer testdata/fuzz/cluster_answer`

#![no_main]

#[path = "../checks.rs"]
#[allow(dead_code)] // Each target calls one of the checks.
mod checks;

libfuzzer_sys::fuzz_target!(|input: &[u8]| checks::cluster_answer(input));
