//! The `lea` binary: parse, run, report. Everything else is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    lea::cli::main().into()
}
