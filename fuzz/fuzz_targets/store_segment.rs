//! Segments and blocks of the event store.
//! `cargo +nightly fuzz run store_segment fuzz/corpus/store_segment testdata/fuzz/store_segment`

#![no_main]

#[path = "../checks.rs"]
#[allow(dead_code)] // Each target calls one of the checks.
mod checks;

libfuzzer_sys::fuzz_target!(|input: &[u8]| checks::store_segment(input));
