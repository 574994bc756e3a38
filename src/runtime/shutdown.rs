//! Shutdown signal. SIGINT, SIGTERM and SIGHUP trigger it; a second signal exits at once with status 130.
//!
//! [`Shutdown`] is a flag that can be polled: it owns the read end of a pipe whose write end is closed when shutdown is
//! triggered. A thread can therefore wait for its socket and for shutdown in one poll(2) call. The flag only ends input;
//! later stages end when their senders are dropped.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pipe::{PipeFlags, pipe_with};

use super::progress;
use crate::{Error, Exit, Result};

/// The shutdown signal of a process or a test. Clones share their state.
#[derive(Clone, Debug)]
pub struct Shutdown {
    shared: Arc<ShutdownState>,
}

#[derive(Debug)]
struct ShutdownState {
    triggered: AtomicBool,
    readable: OwnedFd,
    write_end: Mutex<Option<OwnedFd>>,
}

impl Shutdown {
    /// Creates a signal that is not triggered.
    pub fn new() -> Result<Shutdown> {
        let (readable, write_end) =
            pipe_with(PipeFlags::CLOEXEC).map_err(|error| Error::system("make a pipe")(error.into()))?;
        let shared = ShutdownState {
            triggered: AtomicBool::new(false),
            readable,
            write_end: Mutex::new(Some(write_end)),
        };
        Ok(Shutdown { shared: Arc::new(shared) })
    }

    /// Creates a signal that the signals of the process trigger. Must be called only once per process.
    pub fn on_signals() -> Result<Shutdown> {
        let shutdown = Shutdown::new()?;
        ignore_file_size_signal();
        let asked = shutdown.clone();
        ctrlc::set_handler(move || {
            if asked.is_triggered() {
                progress::clear();
                std::process::exit(Exit::Interrupted.code().into());
            }
            asked.trigger();
        })
        .map_err(|error| Error::system("listen for signals")(std::io::Error::other(error)))?;
        Ok(shutdown)
    }

    /// Triggers shutdown for all clones.
    pub fn trigger(&self) {
        self.shared.triggered.store(true, Ordering::SeqCst);
        // Closing the write end makes the read end ready (POLLHUP) in every thread that polls it.
        drop(self.shared.write_end.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take());
    }

    /// Waits until shutdown is triggered. Returns false after `timeout`.
    pub fn wait(&self, timeout: Duration) -> bool {
        let mut fds = [PollFd::from_borrowed_fd(self.as_fd(), PollFlags::empty())];
        let timeout = Timespec::try_from(timeout).ok();
        // An interrupted wait just ends early.
        let _ = poll(&mut fds, timeout.as_ref());
        self.is_triggered()
    }

    pub fn is_triggered(&self) -> bool {
        self.shared.triggered.load(Ordering::Relaxed)
    }
}

/// Ignores SIGXFSZ, so that reaching the file size limit (RLIMIT_FSIZE) is an error of the write instead of the end of the
/// process.
#[allow(unsafe_code)]
fn ignore_file_size_signal() {
    // SAFETY: signal(2) with SIG_IGN installs no handler, so no code runs in signal context. It cannot fail for an existing
    // signal that may be ignored.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
}

impl AsFd for Shutdown {
    /// Returns a descriptor that becomes ready (POLLHUP) when shutdown is triggered.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.shared.readable.as_fd()
    }
}
