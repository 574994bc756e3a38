//! Rows of calls and of streams: a table, CSV, or JSON lines.

use std::borrow::Cow;

use serde_json::Value;

use crate::Result;
use crate::cmd::output::table::{self, Column};
use crate::cmd::output::{self, CsvWriter, OutputFormat};
use crate::runtime::logging;

/// What rows have in common.
pub(super) struct Rows<'r> {
    pub(super) header: &'r [&'r str],
    pub(super) columns: Vec<Column<'r>>,
    /// What is said instead of an empty table.
    pub(super) empty: &'r str,
}

impl Rows<'_> {
    /// Prints the items, whose cells and documents the functions return.
    pub(super) fn print<T>(
        &self,
        format: OutputFormat,
        items: &[T],
        cells: impl Fn(&T) -> Vec<String>,
        document: impl Fn(&T) -> Value,
    ) -> Result<()> {
        match format {
            OutputFormat::Json => output::json_lines::print(items.iter().map(document)),
            OutputFormat::Csv => {
                let mut csv = CsvWriter::start(self.header)?;
                for item in items {
                    if !csv.write_row(cells(item).into_iter().map(Cow::Owned))? {
                        return Ok(());
                    }
                }
                csv.end()
            }
            OutputFormat::Table if items.is_empty() => {
                logging::status_line(format_args!("{}", self.empty));
                Ok(())
            }
            OutputFormat::Table => {
                let rows: Vec<Vec<String>> = items.iter().map(cells).collect();
                table::print(&self.columns, &rows)
            }
        }
    }
}
