//! Frames of an AMQP broker. `cargo +nightly fuzz run amqp fuzz/corpus/amqp testdata/fuzz/amqp`

#![no_main]

#[path = "../checks.rs"]
#[allow(dead_code)] // Each target calls one of the checks.
mod checks;

libfuzzer_sys::fuzz_target!(|input: &[u8]| checks::amqp(input));
