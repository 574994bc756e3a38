//! Waits that a shutdown interrupts: for a time, for a socket, for a server that is starting or slow. Runs in the
//! streams' threads.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::Error;
use crate::replay::sink::SendError;
use crate::runtime::logging::Throttle;
use crate::runtime::shutdown::Shutdown;

/// Pause before another attempt to connect.
const RETRY_PAUSE: Duration = Duration::from_millis(100);
/// Time after which waiting is reported, and the interval of reports.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// Attempts to reach a server until a time limit. A failed attempt is not final: the server may be starting or slow.
pub(crate) struct ConnectAttempts<'a> {
    /// The server as the user wrote it.
    pub target: &'a str,
    pub limit: Duration,
    pub started: Instant,
    /// Limits the reports of all streams together.
    pub reports: &'a Throttle,
}

impl ConnectAttempts<'_> {
    /// Time until the limit.
    pub(crate) fn remaining(&self) -> Duration {
        self.limit.saturating_sub(self.started.elapsed())
    }

    /// Logs what is waited for, once per second.
    pub(crate) fn report(&self, reason: &str) {
        let elapsed = self.started.elapsed();
        if elapsed >= REPORT_INTERVAL {
            let (target, limit) = (self.target, self.limit.as_secs_f64());
            self.reports.warn(
                "connect",
                format_args!(
                    "connect_retrying to={target} reason={reason:?} elapsed_s={:.0} limit_s={limit}",
                    elapsed.as_secs_f64()
                ),
            );
        }
    }

    /// Pauses before another attempt. At the time limit, returns the error that ends the stream.
    pub(crate) fn retry(&self, shutdown: &Shutdown, reason: &str, advice: &str) -> Result<(), SendError> {
        if self.remaining() <= RETRY_PAUSE {
            let (target, reason) = (self.target.to_owned(), reason.to_owned());
            let error = Error::Unreachable { target, reason, waited: self.limit, advice: advice.to_owned() };
            return Err(error.into());
        }
        self.report(reason);
        pause(shutdown, RETRY_PAUSE)
    }
}

/// Waits for `time`. Fails with [`SendError::Stopped`] on shutdown.
pub(crate) fn pause(shutdown: &Shutdown, time: Duration) -> Result<(), SendError> {
    poll_socket(shutdown, None, time).map(drop)
}

/// Waits at most `time` until the socket has bytes, has ended or has failed. Returns false on timeout.
pub(crate) fn wait_readable(
    shutdown: &Shutdown,
    socket: impl AsFd,
    time: Duration,
) -> Result<bool, SendError> {
    poll_socket(shutdown, Some((socket.as_fd(), PollFlags::IN)), time)
}

/// Waits at most `time` until the socket is writable or has failed. Returns false on timeout.
pub(crate) fn wait_writable(
    shutdown: &Shutdown,
    socket: impl AsFd,
    time: Duration,
) -> Result<bool, SendError> {
    poll_socket(shutdown, Some((socket.as_fd(), PollFlags::OUT)), time)
}

fn poll_socket(
    shutdown: &Shutdown,
    socket: Option<(BorrowedFd<'_>, PollFlags)>,
    time: Duration,
) -> Result<bool, SendError> {
    let started = Instant::now();
    loop {
        let rest = time.saturating_sub(started.elapsed());
        // A year is as good as forever, and fits into every field.
        let capped = rest.min(Duration::from_secs(365 * 24 * 3600));
        let timeout = Timespec { tv_sec: capped.as_secs() as i64, tv_nsec: capped.subsec_nanos().into() };
        let watched = socket.map(|(socket, events)| PollFd::from_borrowed_fd(socket, events));
        let stopped = PollFd::new(shutdown, PollFlags::empty());
        let count = 1 + usize::from(watched.is_some());
        let mut fds = [stopped.clone(), watched.unwrap_or(stopped)];
        match poll(&mut fds[..count], Some(&timeout)) {
            _ if shutdown.is_triggered() => return Err(SendError::Stopped),
            Ok(0) if started.elapsed() >= time => return Ok(false),
            Ok(0) | Err(Errno::INTR) => {}
            Ok(_) => return Ok(true),
            Err(error) => return Err(Error::system("wait")(error.into()).into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_lasts_and_a_shutdown_ends_it() {
        let shutdown = Shutdown::new().unwrap();
        let started = Instant::now();
        pause(&shutdown, Duration::from_millis(5)).unwrap();
        assert!(started.elapsed() >= Duration::from_millis(5));
        let other = shutdown.clone();
        let trigger = std::thread::spawn(move || other.trigger());
        assert!(matches!(pause(&shutdown, Duration::MAX), Err(SendError::Stopped)));
        trigger.join().unwrap();
    }
}
