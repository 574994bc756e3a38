//! Syslog over TCP, and headers. `cargo +nightly fuzz run syslog fuzz/corpus/syslog testdata/fuzz/syslog`

#![no_main]

#[path = "../checks.rs"]
#[allow(dead_code)] // Each target calls one of the checks.
mod checks;

libfuzzer_sys::fuzz_target!(|input: &[u8]| checks::syslog(input));
