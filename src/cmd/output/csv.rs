//! CSV (RFC 4180) on stdout. Values are exact in a file or a pipe, and escaped on a terminal.

use std::borrow::Cow;
use std::io::{self, IsTerminal, StdoutLock};

use super::stdout::is_reader_there;
use crate::Result;
use crate::runtime::terminal::escape;

/// Writes CSV to stdout.
pub(crate) struct CsvWriter {
    writer: csv::Writer<StdoutLock<'static>>,
    is_terminal: bool,
}

impl CsvWriter {
    /// Writes the header line.
    pub(crate) fn start(head: &[&str]) -> Result<CsvWriter> {
        let is_terminal = io::stdout().is_terminal();
        let mut csv = CsvWriter { writer: csv::Writer::from_writer(io::stdout().lock()), is_terminal };
        csv.write_row(head.iter().map(|name| Cow::Borrowed(*name)))?;
        Ok(csv)
    }

    /// Writes a row. Returns false if the reader of stdout closed the pipe.
    pub(crate) fn write_row<'a>(&mut self, cells: impl Iterator<Item = Cow<'a, str>>) -> Result<bool> {
        let shown = |cell: Cow<'a, str>| if self.is_terminal { Cow::Owned(escape(&cell)) } else { cell };
        let cells: Vec<Cow<'a, str>> = cells.map(shown).collect();
        let written = self.writer.write_record(cells.iter().map(|cell| cell.as_bytes()));
        is_reader_there(written.map_err(|error| match error.into_kind() {
            csv::ErrorKind::Io(error) => error,
            other => io::Error::other(format!("{other:?}")),
        }))
    }

    /// Flushes the output.
    pub(crate) fn end(mut self) -> Result<()> {
        is_reader_there(self.writer.flush()).map(drop)
    }
}
