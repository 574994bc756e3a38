//! The subcommands: one module per subcommand with its arguments (clap), their checks, and `run`. `args` has option groups
//! that several subcommands share, `output` writes tables, CSV and JSON lines.

use std::io::{self, Write};

use crate::{Error, Result};

pub mod args;
pub mod billing;
pub mod calls;
pub mod completions;
pub mod configure;
pub mod consume_kafka;
pub mod count;
pub mod decode;
pub mod events;
pub mod ls;
pub mod man;
pub mod merge;
pub mod number;
pub mod output;
pub mod replay;
pub mod run;
pub mod search;
pub mod serve_events;
pub mod serve_tcp;
pub mod test_pattern;
pub mod top;
pub mod verify;

/// Writes text to stdout. A closed pipe (`| head`) is not an error.
fn print_text(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Error::system("write to stdout")(error))
        }
        _ => Ok(()),
    }
}
