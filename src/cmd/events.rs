//! `lea events`: events as they come, files of them, and what belongs to receiving them.

mod line;
pub mod load;
pub mod tail;
mod target;

use std::io::{self, IsTerminal, Read};

use clap::Subcommand;

use super::{print_data, test_pattern};
use crate::cli::Globals;
use crate::iri::elastic::hash_password;
use crate::logging::{self, LevelFilter};
use crate::{Error, Exit, Result};

/// A password's bytes.
const PASSWORD_BYTES_MAX: u64 = 1024;

/// Follow events, load files of them, try patterns, make password hashes
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Tail(tail::Args),
    Load(load::Args),
    TestPattern(test_pattern::Args),
    /// Make the hash of a password, for users in the configuration
    ///
    /// The password is one line of standard input. What is printed goes into parameters.events.users, behind the user's
    /// name.
    HashPassword,
}

impl Args {
    /// Runs the command.
    pub fn run(self, globals: &Globals) -> Result<Exit> {
        match self.command {
            Command::Tail(args) => args.run(globals),
            Command::Load(args) => args.run(globals),
            Command::TestPattern(args) => args.run(globals),
            Command::HashPassword => {
                logging::start(globals.level(LevelFilter::Warn));
                hash()
            }
        }
    }
}

fn hash() -> Result<Exit> {
    if io::stdin().is_terminal() {
        logging::say(format_args!(
            "Password, then Enter (it can be seen; better: lea events hash-password < FILE):"
        ));
    }
    let mut password = Vec::new();
    let mut line = io::BufReader::new(io::stdin()).take(PASSWORD_BYTES_MAX + 2);
    io::BufRead::read_until(&mut line, b'\n', &mut password).map_err(Error::system("read the password"))?;
    let end = password.iter().rposition(|byte| !matches!(byte, b'\r' | b'\n')).map_or(0, |last| last + 1);
    let password = &password[..end];
    if password.is_empty() || password.len() as u64 > PASSWORD_BYTES_MAX {
        return Err(Error::Usage(format!("a password has 1 to {PASSWORD_BYTES_MAX} bytes")));
    }
    let Some(hash) = hash_password(password) else {
        return Err(Error::System {
            act: "hash the password",
            source: io::Error::other("argon2 refused it"),
        });
    };
    print_data(&format!("{hash}\n"))?;
    Ok(Exit::Done)
}
