//! Exit codes: a type, so that no number stands anywhere else.

use std::process::ExitCode;

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done; a server that drained after a signal.
    Done,
    /// It failed; the reason is on stderr.
    Failed,
    /// Wrong usage or configuration; nothing was started.
    Usage,
    /// A batch command finished, but some input was refused, differs or is missing.
    Differs,
    /// Cut off by a second signal.
    Cut,
}

impl Exit {
    /// The number that the shell sees.
    pub fn code(self) -> u8 {
        match self {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::Differs => 3,
            Exit::Cut => 130,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit.code())
    }
}
