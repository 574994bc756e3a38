//! Stopping: SIGINT, SIGTERM and SIGHUP ask for a drain, a second one ends the process at once with 130.
//!
//! A [`Stop`] is a flag that can also be polled: it is the reading end of a pipe whose writing end is closed when
//! the stop comes, so a thread that waits in poll(2) for its socket waits for the stop in the same call.
//! Flags only stop input; everything behind ends because its senders are dropped.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pipe::{PipeFlags, pipe_with};

use crate::{Error, Exit, Result};

/// The stop of one process, or of one test. Clones are the same stop.
#[derive(Clone, Debug)]
pub struct Stop {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    asked: AtomicBool,
    readable: OwnedFd,
    write_end: Mutex<Option<OwnedFd>>,
}

impl Stop {
    /// A stop that nobody has asked for yet.
    pub fn new() -> Result<Stop> {
        let (readable, write_end) =
            pipe_with(PipeFlags::CLOEXEC).map_err(|error| Error::system("make a pipe")(error.into()))?;
        let shared =
            Shared { asked: AtomicBool::new(false), readable, write_end: Mutex::new(Some(write_end)) };
        Ok(Stop { shared: Arc::new(shared) })
    }

    /// A stop that the process's signals ask for. Call it once a process.
    pub fn on_signals() -> Result<Stop> {
        let stop = Stop::new()?;
        ignore_file_size_signal();
        let asked = stop.clone();
        ctrlc::set_handler(move || {
            if asked.is_asked() {
                std::process::exit(Exit::Cut.code().into());
            }
            asked.ask();
        })
        .map_err(|error| Error::system("listen for signals")(std::io::Error::other(error)))?;
        Ok(stop)
    }

    /// Asks all that watch this stop to end.
    pub fn ask(&self) {
        self.shared.asked.store(true, Ordering::SeqCst);
        // Closing the writing end makes the reading end ready (POLLHUP) for every thread that polls it.
        drop(self.shared.write_end.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take());
    }

    /// Waits for it; false if `timeout` passes before.
    pub fn wait(&self, timeout: Duration) -> bool {
        let mut fds = [PollFd::from_borrowed_fd(self.as_fd(), PollFlags::empty())];
        let timeout = Timespec::try_from(timeout).ok();
        // An interrupted wait is one that ended early.
        let _ = poll(&mut fds, timeout.as_ref());
        self.is_asked()
    }

    /// True once it was asked for.
    pub fn is_asked(&self) -> bool {
        self.shared.asked.load(Ordering::Relaxed)
    }
}

/// A file that reaches the user's size limit (RLIMIT_FSIZE) is an error of its write, and not the process's end.
#[allow(unsafe_code)]
fn ignore_file_size_signal() {
    // SAFETY: signal(2) with SIG_IGN installs no handler, so nothing of ours ever runs in a signal's context; and
    // it cannot fail for a signal that exists and may be ignored.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
}

impl AsFd for Stop {
    /// Ready (POLLHUP) once the stop was asked for; never before.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.shared.readable.as_fd()
    }
}
