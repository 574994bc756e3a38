//! The one error type. `Display` names the act and the thing; the causes are joined in `cli::main`.

use std::io;
use std::path::{Path, PathBuf};

use crate::Exit;

/// What can end a command.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file system call failed.
    #[error("cannot {act} {}", path.display())]
    Path {
        /// What was tried, as a verb: `open`, `write`.
        act: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A network call failed.
    #[error("cannot {act} {addr}")]
    Net {
        /// What was tried, as it reads before the address: `listen on`, `connect to`.
        act: &'static str,
        /// The address, or the peer.
        addr: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A call to the system that concerns no path and no address (threads, signals, limits).
    #[error("cannot {act}")]
    System {
        /// What was tried.
        act: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A request to Kafka failed.
    #[error("cannot {act} {what}: {cause}")]
    Kafka {
        /// What was tried, as it reads before the thing: `commit offsets of group`.
        act: &'static str,
        /// The brokers, the group, the topic or the partition.
        what: String,
        /// Why not. It is no source: its own source says the same again.
        cause: rdkafka::error::KafkaError,
    },
    /// Options that contradict each other or are out of range: exit code 2.
    #[error("{0}")]
    Usage(String),
    /// A configuration file that cannot be used: exit code 2. The text has line and column.
    #[error("{}: {reason}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong, where in it, and what would be right.
        reason: String,
    },
    /// Another process writes to the folder.
    #[error("{} is in use by {holder}; one process writes to a folder, so stop it or choose another --output", dir.display())]
    Locked {
        /// The output folder.
        dir: PathBuf,
        /// Who holds it: process id, command, since when.
        holder: String,
    },
    /// Another process writes to a folder that is to be read.
    #[error("{} is in use by {holder}; stop it first", dir.display())]
    Busy {
        /// The folder.
        dir: PathBuf,
        /// Who holds it: process id, command, since when.
        holder: String,
    },
    /// The events' store cannot be used.
    #[error("cannot {act} the store {}: {cause}", path.display())]
    Store {
        /// What was tried.
        act: &'static str,
        /// The store's file.
        path: PathBuf,
        /// Why not.
        cause: String,
    },
    /// A question that a store did not answer, or what a server did not take.
    #[error("cannot ask {store}: {cause}")]
    Asked {
        /// The folder or the server.
        store: String,
        /// Why not.
        cause: String,
    },
    /// A thread of ours ended with a panic: a defect, reported as such.
    #[error("the thread {0} failed unexpectedly (this is a defect in lea)")]
    Thread(String),
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

    /// The exit code that this error ends a command with.
    pub fn exit(&self) -> Exit {
        match self {
            Error::Usage(_) | Error::Config { .. } => Exit::Usage,
            _ => Exit::Failed,
        }
    }
}

/// The error with all its causes, in one line: `cannot listen on [::1]:5004: Address already in use`.
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
