//! `lea search`: prints the events that match a query. Main thread.
//!
//! Up to 10,000 events are read in one page and can be sorted by any field; more are read in the order of
//! their time.

use std::borrow::Cow;
use std::ops::ControlFlow;

use super::args::query::QueryArgs;
use super::args::time_zone::TimeZoneArg;
use super::output::stdout::print_line;
use super::output::table::{self, Column};
use super::output::{self, CsvWriter, EventView, OutputFormat, OutputFormatArgs, StdoutLines};
use crate::cmd::Command;
use crate::cmd::args::globals::Globals;
use crate::manual::{self, Example, Manual};
use crate::runtime::logging::{self, LevelFilter};
use crate::search::query::Sort;
use crate::search::query::search_request::WINDOW_MAX;
use crate::search::source::{QuerySession, SearchRequest};
use crate::{Error, Exit, Result};

/// Find events
///
/// QUERY is a Lucene query as in Kibana: words, field:value, "phrases", AND OR NOT + -, groups, wildcards
/// (972*), ranges ([a TO b]), _exists_:field. A phone number matches all its dialled forms: +972598294121 also
/// finds 00972598294121 and 9011972598294121. Use field.keyword:NUMBER for one dialled form. In a field, a sign
/// before a digit belongs to the number (userid:+447700900123); elsewhere, + requires a term and - excludes it.
///
/// The default output is a table of the known fields, cut to the width of the terminal. --json prints one
/// object per line with _index, _id, _time (the time of the event) and _source (the event as received).
/// Control characters in events are escaped on a terminal.
///
/// If more events match than were printed, the number goes to stderr. The exit code is 0 even if nothing
/// matches.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Maximum number of events, or "all"
    #[arg(short = 'n', long, value_name = "N|all", default_value = "100", value_parser = parse_size)]
    size: usize,
    /// Field to sort by, followed by :asc or :desc; "time" is the time of the event
    #[arg(long, value_name = "FIELD[:asc|desc]", default_value = "time:desc", value_parser = parse_sort)]
    sort: (String, bool),
    /// Fields to print
    #[arg(long, value_name = "FIELD", value_delimiter = ',')]
    fields: Vec<String>,
    #[command(flatten)]
    format: OutputFormatArgs,
    #[command(flatten)]
    query: QueryArgs,
}

fn parse_size(text: &str) -> Result<usize, String> {
    match text {
        "all" => Ok(usize::MAX),
        text => text.parse().map_err(|_| "expected a number or \"all\"".to_owned()),
    }
}

/// Parses the field and whether the order is descending.
fn parse_sort(text: &str) -> Result<(String, bool), String> {
    let (field, order) = text.rsplit_once(':').unwrap_or((text, "asc"));
    match order {
        _ if field.is_empty() => Err("the field is missing".to_owned()),
        "asc" => Ok((field.to_owned(), false)),
        "desc" => Ok((field.to_owned(), true)),
        _ => Err("the order must be asc or desc".to_owned()),
    }
}

impl Command for Args {
    const MANUAL: Manual = Manual {
        examples: &[
            Example {
                text: "Find the events of a number in any spelling, of the last day",
                command: "lea search '\"+447700900123\"' --since 1d",
            },
            Example {
                text: "Export rejected calls as CSV",
                command: "lea search event:rejected_call --size all --csv --fields userid",
            },
            Example {
                text: "Query a running lea",
                command: "lea search event:incoming_call --store http://127.0.0.1:9200",
            },
        ],
        see_also: &["lea-count(1)", "lea-top(1)", "lea-events-tail(1)", "lea-number(1)"],
        ..manual::EVENT_QUERY
    };

    fn run(self, globals: &Globals) -> Result<Exit> {
        logging::start(globals.level(LevelFilter::Warn));
        if let Some(explanation) = self.query.explanation()? {
            print_line(&explanation)?;
            return Ok(Exit::Done);
        }
        let is_many = self.size > WINDOW_MAX;
        if is_many {
            self.check_many()?;
        }
        let session = self.query.open()?;
        if is_many {
            self.print_all(&session)?
        } else {
            self.print_page(&session)?
        }
        Ok(Exit::Done)
    }
}

impl Args {
    /// Checks the options for more events than fit into one page.
    fn check_many(&self) -> Result<()> {
        let is_streamed = match self.format.format() {
            OutputFormat::Json => true,
            OutputFormat::Csv => !self.fields.is_empty(),
            OutputFormat::Table => false,
        };
        let wrong = if !is_streamed {
            format!(
                "--size: more than {WINDOW_MAX} events can only be printed with --json, or with --csv and --fields"
            )
        } else if self.sort.0 != "time" {
            format!("--sort: with --size above {WINDOW_MAX} only \"time\" is supported")
        } else {
            return Ok(());
        };
        Err(Error::Usage(wrong))
    }

    fn print_page(&self, session: &QuerySession) -> Result<()> {
        let (field, descending) = &self.sort;
        let by_time = Sort::by_field(session.time_field(), *descending);
        let page = |field: &str| {
            let mut sort = vec![by_time.clone(), Sort::by_seq_no(*descending)];
            if field != "time" {
                sort.insert(0, Sort::by_field(field, *descending));
            }
            SearchRequest { range: session.range, sort, size: self.size, ..SearchRequest::default() }
        };
        let found = session.search_by_field(field, page)?;
        let (total, time_at) = (found.total, usize::from(field != "time"));
        let events: Vec<EventView> = found.hits.into_iter().map(|hit| EventView::new(hit, time_at)).collect();
        self.print(&events)?;
        if total > events.len() as u64 {
            logging::status_line(format_args!(
                "printed {} of {total} events (use --size N for more)",
                events.len()
            ));
        }
        Ok(())
    }

    fn print(&self, events: &[EventView]) -> Result<()> {
        let zone = self.query.time_zone();
        match self.format.format() {
            OutputFormat::Json => {
                output::print_lines(events.iter().map(|event| event.json(zone, &self.fields)))
            }
            OutputFormat::Csv => {
                let fields =
                    if self.fields.is_empty() { output::all_fields(events) } else { self.fields.clone() };
                let mut csv = CsvWriter::start(&header(&fields, "_time"))?;
                for event in events {
                    csv.write_row(cells(zone, event, &fields, ""))?;
                }
                csv.end()
            }
            OutputFormat::Table => {
                let fields =
                    if self.fields.is_empty() { output::table_columns(events) } else { self.fields.clone() };
                let row = |event: &EventView| cells(zone, event, &fields, "-").map(Cow::into_owned).collect();
                let columns: Vec<Column<'_>> = header(&fields, "TIME").into_iter().map(Column::new).collect();
                table::print(&columns, &events.iter().map(row).collect::<Vec<_>>())
            }
        }
    }

    /// Prints any number of events one by one.
    fn print_all(&self, session: &QuerySession) -> Result<()> {
        let (zone, mut left) = (self.query.time_zone(), self.size);
        let is_csv = self.format.format() == OutputFormat::Csv;
        let mut csv = if is_csv { Some(CsvWriter::start(&header(&self.fields, "_time"))?) } else { None };
        let mut lines = if is_csv { None } else { Some(StdoutLines::start()) };
        session.scan(session.range, self.sort.1, &mut |hit| {
            let event = EventView::new(hit, 0);
            let is_read = match (&mut csv, &mut lines) {
                (Some(csv), _) => csv.write_row(cells(zone, &event, &self.fields, ""))?,
                (_, Some(lines)) => lines.write_line(&event.json(zone, &self.fields))?,
                (None, None) => false,
            };
            left -= 1;
            Ok(if is_read && left > 0 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
        })?;
        csv.map_or(Ok(()), CsvWriter::end)?;
        lines.map_or(Ok(()), StdoutLines::end)
    }
}

fn header<'a>(fields: &'a [String], time: &'a str) -> Vec<&'a str> {
    std::iter::once(time).chain(fields.iter().map(String::as_str)).collect()
}

/// The time and the values of the fields.
fn cells<'a>(
    zone: TimeZoneArg,
    event: &'a EventView,
    fields: &'a [String],
    nothing: &'static str,
) -> impl Iterator<Item = Cow<'a, str>> {
    let value = move |field: &'a String| event.value(field).unwrap_or(Cow::Borrowed(nothing));
    std::iter::once(Cow::from(event.time(zone))).chain(fields.iter().map(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn size_and_sort_options_are_validated() {
        assert_eq!(parse_size("all"), Ok(usize::MAX));
        assert_eq!(parse_size("7"), Ok(7));
        assert!(parse_size("-1").is_err() && parse_size("").is_err());
        assert_eq!(parse_sort("destNum"), Ok(("destNum".to_owned(), false)));
        assert_eq!(parse_sort("a.b:desc"), Ok(("a.b".to_owned(), true)));
        for wrong in ["", ":asc", "a:", "a:up"] {
            assert!(parse_sort(wrong).is_err(), "{wrong}");
        }
    }
}
