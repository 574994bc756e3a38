//! `lea events hash-password`: creates a password hash for a user of the HTTP API. Runs in the main thread.

use std::io::{self, BufRead, BufReader, IsTerminal, Read};

use crate::cmd::Command;
use crate::cmd::args::globals::Globals;
use crate::cmd::output::stdout;
use crate::http::basic_auth::hash_password;
use crate::manual::{self, Example, Manual};
use crate::runtime::logging::{self, LevelFilter};
use crate::{Error, Exit, Result};

/// Maximum length of a password.
const PASSWORD_BYTES_MAX: u64 = 1024;

/// Create a password hash for a user in the configuration
///
/// The command reads the password as one line from standard input and prints an argon2 hash. Put the hash into
/// parameters.events.users of the configuration, as the value of the user's name.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

impl Command for Args {
    const MANUAL: Manual = Manual {
        examples: &[
            Example { text: "Type the password", command: "lea events hash-password" },
            Example { text: "Read the password from a file", command: "lea events hash-password < password" },
        ],
        see_also: &["lea-serve-events(1)", "lea.conf(5)"],
        ..manual::EMPTY
    };

    fn run(self, globals: &Globals) -> Result<Exit> {
        logging::start(globals.level(LevelFilter::Warn));
        if io::stdin().is_terminal() {
            logging::status_line(format_args!(
                "Password (visible; use \"lea events hash-password < FILE\" to avoid that):"
            ));
        }
        let mut password = Vec::new();
        let mut line = BufReader::new(io::stdin()).take(PASSWORD_BYTES_MAX + 2);
        line.read_until(b'\n', &mut password).map_err(Error::system("read the password"))?;
        let end = password.iter().rposition(|byte| !matches!(byte, b'\r' | b'\n')).map_or(0, |last| last + 1);
        let password = &password[..end];
        if password.is_empty() || password.len() as u64 > PASSWORD_BYTES_MAX {
            return Err(Error::Usage(format!("the password must have 1 to {PASSWORD_BYTES_MAX} bytes")));
        }
        let Some(hash) = hash_password(password) else {
            return Err(Error::System {
                act: "hash the password",
                source: io::Error::other("argon2 failed"),
            });
        };
        stdout::print(&format!("{hash}\n"))?;
        Ok(Exit::Done)
    }
}
