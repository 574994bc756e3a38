//! Retries disk operations while the disk is full or has another transient error. The calling thread waits
//! until the operation succeeds. Only the end of the shutdown timeout ends the wait.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::io::Errno;

use crate::runtime::health::Problem;
use crate::runtime::metrics::Metrics;

/// Interval between attempts. It is short compared with the second that a sender's buffers last.
const RETRY_INTERVAL: Duration = Duration::from_millis(100);

/// Minimum interval between two warnings.
const WARN_INTERVAL: Duration = Duration::from_secs(60);

/// State of the disk, shared by all threads that write.
#[derive(Debug)]
pub struct DiskRetry {
    metrics: Arc<Metrics>,
    give_up_at: Mutex<Option<Instant>>,
    warned: Mutex<WarningState>,
}

/// State of the warnings about the disk.
#[derive(Debug, Default)]
struct WarningState {
    /// Time of the last warning.
    at: Option<Instant>,
    /// Whether the end of the problem still has to be logged.
    open: bool,
}

impl DiskRetry {
    pub fn new(metrics: Arc<Metrics>) -> DiskRetry {
        DiskRetry { metrics, give_up_at: Mutex::default(), warned: Mutex::default() }
    }

    /// Ends all waiting at `at`.
    pub fn give_up_at(&self, at: Instant) {
        *lock(&self.give_up_at) = Some(at);
    }

    /// Returns whether operations are no longer retried.
    pub fn has_given_up(&self) -> bool {
        lock(&self.give_up_at).is_some_and(|at| Instant::now() >= at)
    }

    /// Returns whether a thread waits for the disk.
    pub fn is_blocked(&self) -> bool {
        self.metrics.health.is_raised(Problem::DiskFull)
    }

    /// Calls `act` until it succeeds, fails permanently, or waiting has ended.
    pub fn retry<T>(&self, what: &str, file: &str, mut act: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        let mut is_retrying = false;
        let result = loop {
            match act() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if is_transient(&error) && !self.has_given_up() => {
                    self.metrics.write_retries_total.inc();
                    if !std::mem::replace(&mut is_retrying, true) {
                        self.metrics.health.begin_wait(Problem::DiskFull);
                    }
                    self.warn(what, file, &error);
                    std::thread::sleep(RETRY_INTERVAL);
                }
                result => break result,
            }
        };
        if is_retrying {
            let last = self.metrics.health.end_wait(Problem::DiskFull);
            if result.is_ok() && last && std::mem::take(&mut lock(&self.warned).open) {
                log::warn!("disk_write_resumed what={what} file={file}");
            }
        }
        result
    }

    fn warn(&self, what: &str, file: &str, error: &io::Error) {
        let mut warned = lock(&self.warned);
        if warned.at.is_none_or(|at| at.elapsed() >= WARN_INTERVAL) {
            *warned = WarningState { at: Some(Instant::now()), open: true };
            log::warn!(
                "disk_write_blocked what={what} file={file} error=\"{error}\" \
                 note=\"all streams wait until the disk can be written; no data is lost\""
            );
        }
    }
}

/// Returns whether an error can go away without a restart: no space, no descriptors, or a file system that is
/// mounted read-only.
pub fn is_transient(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(
            Errno::NOSPC
                | Errno::DQUOT
                | Errno::NOMEM
                | Errno::NFILE
                | Errno::MFILE
                | Errno::AGAIN
                | Errno::ROFS
                | Errno::NOBUFS
        )
    )
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> io::Error {
        Errno::NOSPC.into()
    }

    #[test]
    fn a_full_disk_is_retried_until_there_is_space() {
        let disk_retry = DiskRetry::new(Arc::default());
        let mut left = 3;
        let done = disk_retry.retry("write", "f", || {
            left -= 1;
            if left > 0 { Err(full()) } else { Ok(7) }
        });
        assert_eq!(
            (done.unwrap(), disk_retry.metrics.write_retries_total.get(), disk_retry.is_blocked()),
            (7, 2, false)
        );
    }

    #[test]
    fn a_permanent_error_is_not_retried() {
        let failed = DiskRetry::new(Arc::default()).retry("write", "f", || Err::<(), _>(Errno::IO.into()));
        assert_eq!(Errno::from_io_error(&failed.unwrap_err()), Some(Errno::IO));
    }

    #[test]
    fn a_shutdown_ends_the_retries() {
        let disk_retry = DiskRetry::new(Arc::default());
        disk_retry.give_up_at(Instant::now() + Duration::from_millis(150));
        let failed = disk_retry.retry("write", "f", || Err::<(), _>(full()));
        assert_eq!(Errno::from_io_error(&failed.unwrap_err()), Some(Errno::NOSPC));
        assert!(disk_retry.metrics.write_retries_total.get() >= 1 && disk_retry.has_given_up());
    }
}
