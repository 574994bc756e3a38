//! What happens when the disk is full, or fails in another way that may pass: whoever writes waits, and goes on by
//! itself. Only a drain that has run out of time ends the waiting.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::io::Errno;

use crate::counters::Counters;

/// Between two attempts: short beside the second that a sender's buffers last.
const RETRY: Duration = Duration::from_millis(100);

/// Between two warnings of the same trouble.
const WARN_EVERY: Duration = Duration::from_secs(60);

/// The state of the disk, shared by all who write.
#[derive(Debug)]
pub struct Pressure {
    counters: Arc<Counters>,
    give_up_at: Mutex<Option<Instant>>,
    warned: Mutex<Warned>,
    waiting: AtomicU64,
}

/// What was said of the trouble.
#[derive(Debug, Default)]
struct Warned {
    /// The last warning, which the next one keeps its distance from.
    at: Option<Instant>,
    /// True until its end was told.
    open: bool,
}

impl Pressure {
    /// A disk that nobody waits for yet.
    pub fn new(counters: Arc<Counters>) -> Pressure {
        Pressure {
            counters,
            give_up_at: Mutex::default(),
            warned: Mutex::default(),
            waiting: AtomicU64::new(0),
        }
    }

    /// From then on nobody waits for the disk any more.
    pub fn give_up_at(&self, at: Instant) {
        *lock(&self.give_up_at) = Some(at);
    }

    /// True if waiting has ended for good.
    pub fn given_up(&self) -> bool {
        lock(&self.give_up_at).is_some_and(|at| Instant::now() >= at)
    }

    /// True while somebody waits for the disk.
    pub fn is_waiting(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    /// Does `act` until it succeeds, fails in a way that will not pass, or all waiting is given up.
    pub fn persist<T>(
        &self,
        what: &str,
        file: &str,
        mut act: impl FnMut() -> io::Result<T>,
    ) -> io::Result<T> {
        let mut waits = false;
        let result = loop {
            match act() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if may_pass(&error) && !self.given_up() => {
                    self.counters.write_retries_total.one();
                    if !std::mem::replace(&mut waits, true) {
                        self.waiting.fetch_add(1, Ordering::Relaxed);
                    }
                    self.warn(what, file, &error);
                    std::thread::sleep(RETRY);
                }
                result => break result,
            }
        };
        if waits {
            let last = self.waiting.fetch_sub(1, Ordering::Relaxed) == 1;
            if result.is_ok() && last && std::mem::take(&mut lock(&self.warned).open) {
                log::warn!("disk_again what={what} file={file}");
            }
        }
        result
    }

    fn warn(&self, what: &str, file: &str, error: &io::Error) {
        let mut warned = lock(&self.warned);
        if warned.at.is_none_or(|at| at.elapsed() >= WARN_EVERY) {
            *warned = Warned { at: Some(Instant::now()), open: true };
            log::warn!(
                "disk_waits what={what} file={file} error=\"{error}\" \
                 note=\"all streams wait; nothing received is lost\""
            );
        }
    }
}

/// Errors that end by themselves or by somebody's doing: no room, no descriptors, a folder mounted read-only.
pub fn may_pass(error: &io::Error) -> bool {
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
    fn it_waits_until_there_is_room() {
        let pressure = Pressure::new(Arc::default());
        let mut left = 3;
        let done = pressure.persist("write", "f", || {
            left -= 1;
            if left > 0 { Err(full()) } else { Ok(7) }
        });
        assert_eq!(
            (done.unwrap(), pressure.counters.write_retries_total.get(), pressure.is_waiting()),
            (7, 2, false)
        );
    }

    #[test]
    fn what_does_not_pass_is_not_waited_for() {
        let failed = Pressure::new(Arc::default()).persist("write", "f", || Err::<(), _>(Errno::IO.into()));
        assert_eq!(Errno::from_io_error(&failed.unwrap_err()), Some(Errno::IO));
    }

    #[test]
    fn a_drain_ends_the_waiting() {
        let pressure = Pressure::new(Arc::default());
        pressure.give_up_at(Instant::now() + Duration::from_millis(150));
        let failed = pressure.persist("write", "f", || Err::<(), _>(full()));
        assert_eq!(Errno::from_io_error(&failed.unwrap_err()), Some(Errno::NOSPC));
        assert!(pressure.counters.write_retries_total.get() >= 1 && pressure.given_up());
    }
}
