//! `lea top`: the values of a field that most events have. Main thread.

use std::borrow::Cow;

use serde_json::{Value, json};

use super::asked::{Page, QuestionArgs};
use super::shown::{self, Csv, Format, FormatArgs};
use crate::cli::Globals;
use crate::iri::query::{Aggregation, Bucket};
use crate::logging::{self, LevelFilter};
use crate::{Error, Exit, Result};

/// Values at most (Elasticsearch's own bound for buckets).
const SIZE_MAX: u16 = 10_000;

const NAME: &str = "top";

/// Count events by the values of a field, the most frequent first
///
/// In lea's own stores destNum._number counts all spellings of a number together; destNum counts each one. QUERY is as
/// in lea search.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The field
    #[arg(value_name = "FIELD")]
    field: String,
    /// Values at most
    #[arg(short = 'n', long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=i64::from(SIZE_MAX)))]
    size: u16,
    #[command(flatten)]
    format: FormatArgs,
    #[command(flatten)]
    question: QuestionArgs,
}

impl Args {
    /// Runs the command.
    pub fn run(self, globals: &Globals) -> Result<Exit> {
        logging::start(globals.level(LevelFilter::Warn));
        if self.question.is_explained()? {
            return Ok(Exit::Done);
        }
        if self.field.is_empty() {
            return Err(Error::Usage("FIELD is empty".to_owned()));
        }
        let asked = self.question.open()?;
        let found = asked.page_by(&self.field, |field| Page {
            span: asked.span,
            aggregations: vec![(NAME.to_owned(), terms(field, self.size.into()))],
            ..Page::default()
        })?;
        let buckets = found.aggregations.into_iter().next().map_or_else(Vec::new, |(_, buckets)| buckets);
        let rows: Vec<(String, u64)> = buckets.iter().map(|bucket| (key(bucket), bucket.count)).collect();
        match self.format.format() {
            Format::Table => {
                let rows: Vec<_> =
                    rows.into_iter().map(|(value, count)| vec![count.to_string(), value]).collect();
                shown::table(&["COUNT", &self.field], &rows, &[0])?;
            }
            Format::Json => {
                let line = |bucket: &Bucket| json!({"value": bucket.key, "count": bucket.count}).to_string();
                shown::lines(buckets.iter().map(|bucket| shown::one_line(&line(bucket))))?;
            }
            Format::Csv => {
                let mut csv = Csv::begin(&[&self.field, "count"])?;
                for (value, count) in &rows {
                    csv.line([Cow::from(value), Cow::from(count.to_string())].into_iter())?;
                }
                csv.end()?;
            }
        }
        Ok(Exit::Done)
    }
}

fn terms(field: &str, size: usize) -> Aggregation {
    let field = field.to_owned();
    Aggregation::Terms { field, size, by_key: false, ascending: false, count_min: 1, inner: Vec::new() }
}

fn key(bucket: &Bucket) -> String {
    match &bucket.key {
        Value::String(text) => text.clone(),
        key => key.to_string(),
    }
}
