//! One module a subcommand: its `Args` (clap), a check of them, and `run`. `stored` is what `ls` and `verify` share, `asked`
//! and `shown` what commands share that ask for events.

use std::io::{self, Write};

use crate::{Error, Result};

pub mod asked;
pub mod billing;
pub mod calls;
pub mod completions;
pub mod configure;
pub mod connect;
pub mod consume_kafka;
pub mod count;
pub mod decode;
pub mod event_service;
pub mod events;
pub mod kafka;
pub mod ls;
pub mod man;
pub mod merge;
pub mod number;
pub mod replay;
pub mod run;
pub mod search;
pub mod serve_events;
pub mod serve_tcp;
pub mod service;
pub mod shown;
pub mod stored;
pub mod test_pattern;
pub mod top;
pub mod values;
pub mod verify;
pub mod zone;

/// Writes data to stdout in one piece. A reader that went away (`| head`) has what it wanted: no error.
fn print_data(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Error::system("write to stdout")(error))
        }
        _ => Ok(()),
    }
}
