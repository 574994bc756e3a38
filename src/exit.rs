//! Exit codes. A type, so that the numbers are in one place.

use std::process::ExitCode;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// The command did its work, or a server drained after a signal.
    Done,
    /// The command failed. The reason is on stderr.
    Failed,
    /// Wrong usage or configuration; nothing was started.
    Usage,
    /// A batch command finished, but some input was rejected, differs or is missing.
    Incomplete,
    /// A second signal interrupted the command.
    Interrupted,
}

impl Exit {
    pub fn code(self) -> u8 {
        match self {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::Incomplete => 3,
            Exit::Interrupted => 130,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit.code())
    }
}
