//! The log: lines `event key=value` on stderr, times in UTC. Content of communication never goes into it, and
//! bytes that came from a peer only escaped (a stream's file name, never its name as sent).

use std::collections::HashMap;
use std::io::{self, Write};
use std::sync::Mutex;
use std::time::{Duration, Instant};

pub use log::LevelFilter;

use simplelog::{ConfigBuilder, WriteLogger};

/// Starts the log. A second call (tests do it) changes nothing.
pub fn start(level: LevelFilter) {
    let config = ConfigBuilder::new()
        .set_time_format_rfc3339()
        .set_thread_level(LevelFilter::Off)
        .set_target_level(LevelFilter::Off)
        .set_location_level(LevelFilter::Off)
        // Several lines a request, and with what was asked in them.
        .add_filter_ignore_str("ureq")
        .add_filter_ignore_str("rustls")
        .build();
    // Each line is one write: lines of several threads never mix.
    let _ = WriteLogger::init(level, config, io::LineWriter::new(io::stderr()));
}

/// A line on stderr at every level: what scripts wait for (`listening addr=...`) and the last summary.
pub fn say(line: std::fmt::Arguments<'_>) {
    let text = format!("{line}\n");
    // Nobody may be reading stderr; that is no reason to end.
    let _ = io::stderr().write_all(text.as_bytes());
}

/// A line on stdout, which is for data. A reader that went away (`| head`) ends the output, not the run.
pub fn print(line: std::fmt::Arguments<'_>) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")
}

/// Warnings that a peer can cause at will: at most one a second a reason; the next one says how many were left out.
#[derive(Debug)]
pub struct Throttle {
    interval: Duration,
    reasons: Mutex<HashMap<&'static str, Said>>,
}

impl Default for Throttle {
    fn default() -> Throttle {
        Throttle::every(Duration::from_secs(1))
    }
}

#[derive(Debug)]
struct Said {
    at: Instant,
    left_out: u64,
}

impl Throttle {
    /// At most one in `interval`.
    pub fn every(interval: Duration) -> Throttle {
        Throttle { interval, reasons: Mutex::default() }
    }

    /// Warns, unless the same reason was warned of just now.
    pub fn warn(&self, reason: &'static str, line: std::fmt::Arguments<'_>) {
        if let Some(left_out) = self.admit(reason, Instant::now()) {
            match left_out {
                0 => log::warn!("{line}"),
                _ => log::warn!("{line} like_it_since={left_out}"),
            }
        }
    }

    /// True unless it was said less than a second ago; for lines of another level.
    pub fn is_due(&self, reason: &'static str) -> bool {
        self.admit(reason, Instant::now()).is_some()
    }

    /// How many were left out since the last one, if it is time for the next.
    fn admit(&self, reason: &'static str, now: Instant) -> Option<u64> {
        let mut reasons = self.reasons.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        match reasons.get_mut(reason) {
            Some(said) if now.duration_since(said.at) < self.interval => {
                said.left_out += 1;
                None
            }
            said => {
                let left_out = said.map_or(0, |said| said.left_out);
                reasons.insert(reason, Said { at: now, left_out: 0 });
                Some(left_out)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_warning_a_second_a_reason() {
        let (throttle, now) = (Throttle::default(), Instant::now());
        let at = |ms| now + Duration::from_millis(ms);
        assert_eq!(throttle.admit("a", at(0)), Some(0));
        assert_eq!(throttle.admit("a", at(999)), None);
        assert_eq!(throttle.admit("b", at(999)), Some(0));
        assert_eq!(throttle.admit("a", at(1000)), Some(1));
        assert_eq!(throttle.admit("a", at(2000)), Some(0));
    }
}
