//! Output of the commands on stdout: tables, CSV, JSON lines, events. Runs in the main thread.
//!
//! Invariant: text from documents and file names is escaped before it reaches a terminal.

pub(crate) mod billing_calls;
pub(crate) mod billing_comparison;
pub(crate) mod csv;
pub(crate) mod event;
pub(crate) mod json_lines;
pub(crate) mod stdout;
pub(crate) mod table;

pub(crate) use csv::CsvWriter;
pub(crate) use event::{EventView, all_fields, table_columns};
pub(crate) use json_lines::single_line_json;
pub(crate) use stdout::{StdoutLines, print_line, print_lines};

/// Options for the output format.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct OutputFormatArgs {
    /// Print one JSON object per line
    #[arg(long, conflicts_with = "csv")]
    json: bool,
    /// Print CSV (RFC 4180) with a header line
    #[arg(long)]
    csv: bool,
}

/// Output format of query results.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OutputFormat {
    /// Aligned columns.
    Table,
    /// One JSON object per line.
    Json,
    /// Comma-separated values.
    Csv,
}

impl OutputFormatArgs {
    /// Returns the chosen format.
    pub(crate) fn format(self) -> OutputFormat {
        match (self.json, self.csv) {
            (true, _) => OutputFormat::Json,
            (_, true) => OutputFormat::Csv,
            _ => OutputFormat::Table,
        }
    }
}
