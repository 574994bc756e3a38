//! The subcommands: one module per subcommand with its arguments (clap), their checks, and `run`. `args` has option groups
//! that several subcommands share, `output` writes tables, CSV and JSON lines.

use std::io::{self, Write};

use crate::{Error, Result};

pub(crate) mod args;
pub(crate) mod billing;
pub(crate) mod calls;
pub(crate) mod completions;
pub(crate) mod configure;
pub(crate) mod consume_kafka;
pub(crate) mod count;
pub(crate) mod decode;
pub(crate) mod events;
pub(crate) mod ls;
pub(crate) mod man;
pub(crate) mod merge;
pub(crate) mod number;
pub(crate) mod output;
pub(crate) mod replay;
pub(crate) mod run;
pub(crate) mod search;
pub(crate) mod serve_events;
pub(crate) mod serve_tcp;
pub(crate) mod test_pattern;
pub(crate) mod top;
pub(crate) mod verify;

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
