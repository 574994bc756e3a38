//! The log: lines `event key=value` on stderr with UTC times. Intercepted content is never logged. Bytes from a peer are
//! logged only escaped (a stream's file name, never its name as received).

use std::collections::HashMap;
use std::io::{self, Write};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use chrono::SecondsFormat;
pub use log::LevelFilter;

use simplelog::{ConfigBuilder, WriteLogger};

use super::progress;

/// Starts the log. A second call, as in tests, has no effect.
pub fn start(level: LevelFilter) {
    let config = ConfigBuilder::new()
        // simplelog panics for a clock after the year 9999, so the time is written by `LogOutput`.
        .set_time_level(LevelFilter::Off)
        .set_thread_level(LevelFilter::Off)
        .set_target_level(LevelFilter::Off)
        .set_location_level(LevelFilter::Off)
        // These crates log several lines per request, including the query.
        .add_filter_ignore_str("ureq")
        .add_filter_ignore_str("rustls")
        // A fenced group member cannot close cleanly, which librdkafka reports as an error. lea logs `member_fenced`.
        .add_filter_ignore_str("rdkafka::consumer::base_consumer")
        .build();
    // Each line is one write, so that lines of different threads are not mixed.
    let _ = WriteLogger::init(level, config, io::LineWriter::new(LogOutput { is_line_start: true }));
}

/// Prints a line to stderr at every log level: `listening addr=...`, which scripts wait for, and the summary.
pub fn status_line(line: std::fmt::Arguments<'_>) {
    let text = format!("{line}\n");
    // A closed stderr must not end the process.
    let _ = progress::write_stderr(text.as_bytes());
}

/// Output of the log: stderr, above the progress bar. Each line starts with the time.
struct LogOutput {
    is_line_start: bool,
}

impl Write for LogOutput {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = if self.is_line_start {
            let time = super::time::now().to_rfc3339_opts(SecondsFormat::Micros, true);
            progress::write_stderr(&[time.as_bytes(), b" ", bytes].concat())
        } else {
            progress::write_stderr(bytes)
        };
        self.is_line_start = bytes.ends_with(b"\n");
        written.map(|()| bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Limits warnings that a peer can cause at will to one per second and reason. The next one has the number of suppressed
/// warnings.
#[derive(Debug)]
pub struct Throttle {
    interval: Duration,
    reasons: Mutex<HashMap<&'static str, ThrottledReason>>,
}

impl Default for Throttle {
    fn default() -> Throttle {
        Throttle::every(Duration::from_secs(1))
    }
}

#[derive(Debug)]
struct ThrottledReason {
    logged_at: Instant,
    suppressed: u64,
}

impl Throttle {
    /// Allows one warning per `interval` and reason.
    pub fn every(interval: Duration) -> Throttle {
        Throttle { interval, reasons: Mutex::default() }
    }

    /// Logs a warning unless one with the same reason was logged within the interval.
    pub fn warn(&self, reason: &'static str, line: std::fmt::Arguments<'_>) {
        if let Some(left_out) = self.admit(reason, Instant::now()) {
            match left_out {
                0 => log::warn!("{line}"),
                _ => log::warn!("{line} suppressed={left_out}"),
            }
        }
    }

    /// Returns true if no line with this reason was logged within the interval. For lines that are not warnings.
    pub fn is_due(&self, reason: &'static str) -> bool {
        self.admit(reason, Instant::now()).is_some()
    }

    /// Returns the number of suppressed lines if a line may be logged now.
    fn admit(&self, reason: &'static str, now: Instant) -> Option<u64> {
        let mut reasons = self.reasons.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        match reasons.get_mut(reason) {
            Some(said) if now.duration_since(said.logged_at) < self.interval => {
                said.suppressed += 1;
                None
            }
            said => {
                let left_out = said.map_or(0, |said| said.suppressed);
                reasons.insert(reason, ThrottledReason { logged_at: now, suppressed: 0 });
                Some(left_out)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_warning_per_second_and_reason_is_logged() {
        let (throttle, now) = (Throttle::default(), Instant::now());
        let at = |ms| now + Duration::from_millis(ms);
        assert_eq!(throttle.admit("a", at(0)), Some(0));
        assert_eq!(throttle.admit("a", at(999)), None);
        assert_eq!(throttle.admit("b", at(999)), Some(0));
        assert_eq!(throttle.admit("a", at(1000)), Some(1));
        assert_eq!(throttle.admit("a", at(2000)), Some(0));
    }
}
