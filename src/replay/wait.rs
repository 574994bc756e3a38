//! Waiting that a stop ends at once: for a time, or for a socket. Runs in the streams' threads.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::Error;
use crate::replay::sink::Broken;
use crate::stop::Stop;

/// Waits for `time`. An error is a stop.
pub fn pause(stop: &Stop, time: Duration) -> Result<(), Broken> {
    until_writable(stop, None, time).map(drop)
}

/// Waits until the socket can be written to or has failed, for `time` at most; true if it is so.
pub fn writable(stop: &Stop, socket: impl AsFd, time: Duration) -> Result<bool, Broken> {
    until_writable(stop, Some(socket.as_fd()), time)
}

fn until_writable(stop: &Stop, socket: Option<BorrowedFd<'_>>, time: Duration) -> Result<bool, Broken> {
    let begun = Instant::now();
    loop {
        let rest = time.saturating_sub(begun.elapsed());
        // A year is for ever, and fits into every field.
        let capped = rest.min(Duration::from_secs(365 * 24 * 3600));
        let timeout = Timespec { tv_sec: capped.as_secs() as i64, tv_nsec: capped.subsec_nanos().into() };
        let watched = socket.map(|socket| PollFd::from_borrowed_fd(socket, PollFlags::OUT));
        let stopped = PollFd::new(stop, PollFlags::empty());
        let count = 1 + usize::from(watched.is_some());
        let mut fds = [stopped.clone(), watched.unwrap_or(stopped)];
        match poll(&mut fds[..count], Some(&timeout)) {
            _ if stop.is_asked() => return Err(Broken::Stopped),
            Ok(0) if begun.elapsed() >= time => return Ok(false),
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
    fn a_pause_lasts_and_a_stop_ends_it() {
        let stop = Stop::new().unwrap();
        let begun = Instant::now();
        pause(&stop, Duration::from_millis(5)).unwrap();
        assert!(begun.elapsed() >= Duration::from_millis(5));
        let asked = stop.clone();
        let asker = std::thread::spawn(move || asked.ask());
        assert!(matches!(pause(&stop, Duration::MAX), Err(Broken::Stopped)));
        asker.join().unwrap();
    }
}
