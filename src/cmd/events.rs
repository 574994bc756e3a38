//! `lea events`: follow and load events, test patterns, create password hashes. Main thread.

mod line;
pub(crate) mod load;
pub(crate) mod tail;

use std::io::{self, IsTerminal, Read};

use clap::Subcommand;

use super::{print_text, test_pattern};
use crate::cli::Globals;
use crate::http::basic_auth::hash_password;
use crate::runtime::logging::{self, LevelFilter};
use crate::{Error, Exit, Result};

/// Maximum length of a password.
const PASSWORD_BYTES_MAX: u64 = 1024;

/// Follow and load events, test patterns, create password hashes
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Tail(tail::Args),
    Load(load::Args),
    TestPattern(test_pattern::Args),
    /// Create a password hash for a user in the configuration
    ///
    /// Reads the password as one line from standard input. Put the output into parameters.events.users, after
    /// the user's name.
    HashPassword,
}

impl Args {
    pub(crate) fn run(self, globals: &Globals) -> Result<Exit> {
        match self.command {
            Command::Tail(args) => args.run(globals),
            Command::Load(args) => args.run(globals),
            Command::TestPattern(args) => args.run(globals),
            Command::HashPassword => {
                logging::start(globals.level(LevelFilter::Warn));
                print_password_hash()
            }
        }
    }
}

fn print_password_hash() -> Result<Exit> {
    if io::stdin().is_terminal() {
        logging::status_line(format_args!(
            "Password (visible; use \"lea events hash-password < FILE\" to avoid that):"
        ));
    }
    let mut password = Vec::new();
    let mut line = io::BufReader::new(io::stdin()).take(PASSWORD_BYTES_MAX + 2);
    io::BufRead::read_until(&mut line, b'\n', &mut password).map_err(Error::system("read the password"))?;
    let end = password.iter().rposition(|byte| !matches!(byte, b'\r' | b'\n')).map_or(0, |last| last + 1);
    let password = &password[..end];
    if password.is_empty() || password.len() as u64 > PASSWORD_BYTES_MAX {
        return Err(Error::Usage(format!("the password must have 1 to {PASSWORD_BYTES_MAX} bytes")));
    }
    let Some(hash) = hash_password(password) else {
        return Err(Error::System { act: "hash the password", source: io::Error::other("argon2 failed") });
    };
    print_text(&format!("{hash}\n"))?;
    Ok(Exit::Done)
}
