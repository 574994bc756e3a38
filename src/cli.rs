//! The entry point: parses the command line, runs the command and reports an error in one line. Runs in the main thread.

use crate::runtime::logging;
use crate::{Exit, cmd, error};

/// Returns the clap tree with all commands, for tests of the documentation.
pub fn command() -> clap::Command {
    cmd::tree()
}

/// Runs the command that the command line names.
pub fn main() -> Exit {
    // clap prints usage errors itself and exits with 2, which is also `Exit::Usage`.
    match cmd::parse().run() {
        Ok(exit) => exit,
        Err(error) => {
            logging::status_line(format_args!("lea: {}", error::chain(&error)));
            error.exit()
        }
    }
}
