//! `lea top`: counts events by the values of a field. Main thread.

use std::borrow::Cow;

use serde_json::{Value, json};

use super::args::query::QueryArgs;
use super::output::stdout::print_line;
use super::output::table::{self, Column};
use super::output::{self, CsvWriter, OutputFormat, OutputFormatArgs};
use crate::cmd::Command;
use crate::cmd::args::globals::Globals;
use crate::manual::{self, Example, Manual};
use crate::runtime::logging::{self, LevelFilter};
use crate::search::query::{Aggregation, Bucket};
use crate::search::source::SearchRequest;
use crate::{Error, Exit, Result};

/// Maximum number of values (Elasticsearch's limit for buckets).
const SIZE_MAX: u16 = 10_000;

const NAME: &str = "top";

/// Count events by the values of a field, most frequent first
///
/// Events of lea have the field destNum._number for destNum, and so on for every field with phone numbers; it
/// counts all dialled forms of a number together. destNum counts each dialled form separately.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Field whose values are counted
    #[arg(value_name = "FIELD")]
    field: String,
    /// Maximum number of values
    #[arg(short = 'n', long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=i64::from(SIZE_MAX)))]
    size: u16,
    #[command(flatten)]
    format: OutputFormatArgs,
    #[command(flatten)]
    query: QueryArgs,
}

impl Command for Args {
    const MANUAL: Manual = Manual {
        examples: &[
            Example { text: "List the most frequent events", command: "lea top event" },
            Example {
                text: "List the subscribers with the most rejected calls",
                command: "lea top userid event:rejected_call --since 1w",
            },
        ],
        see_also: &["lea-search(1)", "lea-count(1)"],
        ..manual::EVENT_QUERY
    };

    fn run(self, globals: &Globals) -> Result<Exit> {
        logging::start(globals.level(LevelFilter::Warn));
        if let Some(explanation) = self.query.explanation()? {
            print_line(&explanation)?;
            return Ok(Exit::Done);
        }
        if self.field.is_empty() {
            return Err(Error::Usage("FIELD must not be empty".to_owned()));
        }
        let session = self.query.open()?;
        let found = session.search_by_field(&self.field, |field| SearchRequest {
            range: session.range,
            aggregations: vec![(NAME.to_owned(), Aggregation::terms(field, self.size.into()))],
            ..SearchRequest::default()
        })?;
        self.print(&found.buckets(NAME))?;
        Ok(Exit::Done)
    }
}

impl Args {
    fn print(&self, buckets: &[Bucket]) -> Result<()> {
        let rows = || buckets.iter().map(|bucket| (key_text(bucket), bucket.count.to_string()));
        match self.format.format() {
            OutputFormat::Table => {
                let rows: Vec<_> = rows().map(|(value, count)| vec![count, value]).collect();
                table::print(&[Column::new("COUNT").number(), Column::new(&self.field)], &rows)
            }
            OutputFormat::Json => {
                let line = |bucket: &Bucket| json!({"value": bucket.key, "count": bucket.count}).to_string();
                output::print_lines(buckets.iter().map(|bucket| output::single_line_json(&line(bucket))))
            }
            OutputFormat::Csv => {
                let mut csv = CsvWriter::start(&[&self.field, "count"])?;
                for (value, count) in rows() {
                    csv.write_row([Cow::from(value), Cow::from(count)].into_iter())?;
                }
                csv.end()
            }
        }
    }
}

fn key_text(bucket: &Bucket) -> String {
    match &bucket.key {
        Value::String(text) => text.clone(),
        key => key.to_string(),
    }
}
