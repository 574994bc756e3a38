//! The log: lines `event key=value` on stderr, times in UTC. Content of communication never goes into it, and
//! bytes that came from a peer only escaped (a stream's file name, never its name as sent).

use std::io::{self, Write};

pub use log::LevelFilter;

use simplelog::{ConfigBuilder, WriteLogger};

/// Starts the log. A second call (tests do it) changes nothing.
pub fn start(level: LevelFilter) {
    let config = ConfigBuilder::new()
        .set_time_format_rfc3339()
        .set_thread_level(LevelFilter::Off)
        .set_target_level(LevelFilter::Off)
        .set_location_level(LevelFilter::Off)
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
