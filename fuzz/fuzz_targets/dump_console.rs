//! Lines of the console consumer. `cargo +nightly fuzz run dump_console fuzz/corpus/dump_console testdata/fuzz/dump_console`

#![no_main]

#[path = "../checks.rs"]
#[allow(dead_code)] // Each target calls one of the checks.
mod checks;

libfuzzer_sys::fuzz_target!(|input: &[u8]| checks::dump_console(input));
