//! Writes to stdout. A closed pipe (`| head`) ends the output and is not an error; this is the only place that knows it.

use std::fmt;
use std::io::{self, BufWriter, StdoutLock, Write};

use crate::{Error, Result};

/// Size of the output buffer.
const BUFFER_BYTES: usize = 64 << 10;

/// Converts the result of a write to stdout: false if the reader closed the pipe.
pub(crate) fn is_reader_there(written: io::Result<()>) -> Result<bool> {
    match written {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Error::system("write to stdout")(error)),
    }
}

/// Writes text to stdout. Returns false if the reader closed the pipe.
pub(crate) fn print(text: &str) -> Result<bool> {
    write_bytes(text.as_bytes())
}

/// Writes bytes to stdout. Returns false if the reader closed the pipe.
pub(crate) fn write_bytes(bytes: &[u8]) -> Result<bool> {
    let mut out = io::stdout().lock();
    is_reader_there(out.write_all(bytes).and_then(|()| out.flush()))
}

/// Writes one line to stdout. Returns false if the reader closed the pipe.
pub(crate) fn print_line(line: &(impl fmt::Display + ?Sized)) -> Result<bool> {
    let mut out = io::stdout().lock();
    is_reader_there(writeln!(out, "{line}"))
}

/// Writes lines until the end, or until the reader closes the pipe.
pub(crate) fn print_lines(lines: impl Iterator<Item = String>) -> Result<()> {
    let mut out = StdoutLines::start();
    for line in lines {
        if !out.write_line(&line)? {
            return Ok(());
        }
    }
    out.end()
}

/// Buffered stdout, for many lines.
pub(crate) struct StdoutLines(BufWriter<StdoutLock<'static>>);

impl StdoutLines {
    /// Locks stdout.
    pub(crate) fn start() -> StdoutLines {
        StdoutLines(BufWriter::with_capacity(BUFFER_BYTES, io::stdout().lock()))
    }

    /// Writes a line. Returns false if the reader closed the pipe.
    pub(crate) fn write_line(&mut self, line: &str) -> Result<bool> {
        is_reader_there(writeln!(self.0, "{line}"))
    }

    /// Flushes the buffer.
    pub(crate) fn end(mut self) -> Result<()> {
        is_reader_there(self.0.flush()).map(drop)
    }
}
