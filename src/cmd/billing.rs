//! `lea billing`: quick billing logs into calls, and two sides' logs compared. Main thread.

mod build;
mod calls;
mod compare;
mod input;
mod sorter;
mod totals;

use std::path::PathBuf;

use super::values;
use crate::cli::Globals;
use crate::{Exit, Result};

/// Calls from quick billing logs
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Build(build::Args),
    Compare(compare::Args),
}

impl Args {
    /// Runs the command.
    pub fn run(self, globals: &Globals) -> Result<Exit> {
        match self.command {
            Command::Build(args) => args.run(globals),
            Command::Compare(args) => args.run(globals),
        }
    }
}

/// What sorting may take.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Sorting")]
pub struct SortArgs {
    /// Memory for rows, 64K to 4G; more of them are sorted in temporary files
    #[arg(long, value_name = "BYTES", default_value = "256M", value_parser = memory)]
    memory: u64,
    /// Folder for temporary files, about as large as the rows [default: that of the variable TMPDIR, else /tmp]
    #[arg(long, value_name = "DIR")]
    temp_dir: Option<PathBuf>,
}

impl SortArgs {
    fn temp_dir(&self) -> PathBuf {
        self.temp_dir.clone().unwrap_or_else(std::env::temp_dir)
    }
}

fn memory(text: &str) -> Result<u64, String> {
    let bytes = values::bytes(text)?;
    let is_good = (sorter::MEMORY_BYTES_MIN..=sorter::MEMORY_BYTES_MAX).contains(&bytes);
    if is_good { Ok(bytes) } else { Err("64K to 4G".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_has_bounds() {
        assert_eq!((memory("64K"), memory("4G")), (Ok(64 << 10), Ok(4 << 30)));
        assert!(memory("65535").is_err() && memory("4294967297").is_err() && memory("x").is_err());
    }
}
