//! The error type of the crate. `Display` names the action and its object; `cli::main` appends the causes.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::Exit;

/// An error that ends a command.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file system call failed.
    #[error("cannot {act} {}", path.display())]
    Path {
        /// The action as a verb: `open`, `write`.
        act: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// A network call failed.
    #[error("cannot {act} {addr}")]
    Net {
        /// The action as it reads before the address: `listen on`, `connect to`.
        act: &'static str,
        addr: String,
        #[source]
        source: io::Error,
    },
    /// A server was not reached within its time limit.
    #[error("cannot connect to {target}: {reason} (tried for {}; {advice})", seconds(*waited))]
    Unreachable {
        target: String,
        /// Error of the last attempt.
        reason: String,
        waited: Duration,
        /// What the user can do.
        advice: String,
    },
    /// A system call without a path or an address failed (threads, signals, limits).
    #[error("cannot {act}")]
    System {
        act: &'static str,
        #[source]
        source: io::Error,
    },
    /// A request to Kafka failed.
    #[error("cannot {act} {what}: {cause}")]
    Kafka {
        /// The action as it reads before its object: `commit offsets of group`.
        act: &'static str,
        /// The brokers, the group, the topic or the partition.
        what: String,
        /// Not a `source`: the cause's own source repeats its text.
        cause: rdkafka::error::KafkaError,
    },
    /// Options that contradict each other or are out of range. Exit status 2.
    #[error("{0}")]
    Usage(String),
    /// An invalid configuration file. Exit status 2. The reason contains line and column.
    #[error("{}: {reason}", path.display())]
    Config { path: PathBuf, reason: String },
    /// Another process writes to the output directory.
    #[error("{} is in use by {holder}; only one process may write to an output directory: stop it or choose another --output", dir.display())]
    Locked {
        dir: PathBuf,
        /// The other process: ID, command, start time.
        holder: String,
    },
    /// Another process writes to a directory that a command reads exclusively.
    #[error("{} is in use by {holder}: stop that process first", dir.display())]
    DirectoryBusy {
        dir: PathBuf,
        /// The other process: ID, command, start time.
        holder: String,
    },
    /// The embedded event store cannot be used.
    #[error("cannot {act} the event store {}: {cause}", path.display())]
    Store { act: &'static str, path: PathBuf, cause: String },
    /// An event store did not answer a query, or did not accept events.
    #[error("cannot query {store}: {cause}")]
    Query {
        /// The directory or the server.
        store: String,
        cause: String,
    },
    /// A thread panicked, which is a defect in lea.
    #[error("the thread {0} failed unexpectedly (this is a defect in lea)")]
    Thread(String),
}

fn seconds(time: Duration) -> String {
    format!("{} s", time.as_secs_f64())
}

/// A result with this crate's error.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Wraps an I/O error of a path: `.map_err(Error::path("open", &path))`.
    pub fn path(act: &'static str, path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Error {
        let path = path.as_ref().to_owned();
        move |source| Error::Path { act, path, source }
    }

    /// Wraps an I/O error of an address: `.map_err(Error::net("listen on", addr))`.
    pub fn net(act: &'static str, addr: impl ToString) -> impl FnOnce(io::Error) -> Error {
        let addr = addr.to_string();
        move |source| Error::Net { act, addr, source }
    }

    /// Wraps an I/O error of any other system call.
    pub fn system(act: &'static str) -> impl FnOnce(io::Error) -> Error {
        move |source| Error::System { act, source }
    }

    /// Wraps an error of a request to Kafka.
    pub fn kafka(act: &'static str, what: impl ToString) -> impl FnOnce(rdkafka::error::KafkaError) -> Error {
        let what = what.to_string();
        move |cause| Error::Kafka { act, what, cause }
    }

    /// Returns the exit status of a command that ends with this error.
    pub fn exit(&self) -> Exit {
        match self {
            Error::Usage(_) | Error::Config { .. } => Exit::Usage,
            _ => Exit::Failed,
        }
    }
}

/// Returns the error and its causes in one line: `cannot listen on [::1]:5004: Address already in use`.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
