//! `lea search`: the events that answer a question. Main thread.
//!
//! Up to 10,000 events come in one page, and so in any order; more are walked through in the order of their time.

use std::borrow::Cow;
use std::ops::ControlFlow;

use super::asked::{Asked, Page, QuestionArgs, as_stored, by_field};
use super::shown::{self, Csv, Event, Format, FormatArgs, Lines};
use crate::cli::Globals;
use crate::iri::query::body::WINDOW_MAX;
use crate::logging::{self, LevelFilter};
use crate::{Error, Exit, Result};

/// Find events
///
/// QUERY is the query string that SIP proxies and Kibana users write: words, field:value, "phrases", AND OR NOT + -,
/// groups, wildcards 972*, ranges [a TO b], _exists_:field. A number finds all its spellings: +972598294121 also
/// 00972598294121 and 9011972598294121; field.keyword:NUMBER asks for a spelling.
///
/// A table for people, --json for programs: an object a line with _index, _id, _time (the event's time) and _source (the
/// event as it came). A table has the fields that are known of the senders, or all where there are none of these; cells
/// are cut where the terminal ends. Text from events is made harmless before it reaches a terminal.
///
/// How many there were goes to stderr where it is more than was printed. The exit code is 0 also where nothing is found.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Events at most, or all
    #[arg(short = 'n', long, value_name = "N|all", default_value = "100", value_parser = size)]
    size: usize,
    /// The order: a field, and :asc or :desc behind it; time is that of the events
    #[arg(long, value_name = "FIELD[:asc|desc]", default_value = "time:desc", value_parser = order)]
    sort: (String, bool),
    /// Print these fields
    #[arg(long, value_name = "FIELD", value_delimiter = ',')]
    fields: Vec<String>,
    #[command(flatten)]
    format: FormatArgs,
    #[command(flatten)]
    question: QuestionArgs,
}

fn size(text: &str) -> Result<usize, String> {
    match text {
        "all" => Ok(usize::MAX),
        text => text.parse().map_err(|_| "write a number, or all".to_owned()),
    }
}

/// The field, and whether the largest come first.
fn order(text: &str) -> Result<(String, bool), String> {
    let (field, order) = text.rsplit_once(':').unwrap_or((text, "asc"));
    match order {
        _ if field.is_empty() => Err("it names no field".to_owned()),
        "asc" => Ok((field.to_owned(), false)),
        "desc" => Ok((field.to_owned(), true)),
        _ => Err("the order is asc or desc".to_owned()),
    }
}

impl Args {
    /// Runs the command.
    pub fn run(self, globals: &Globals) -> Result<Exit> {
        logging::start(globals.level(LevelFilter::Warn));
        if self.question.is_explained()? {
            return Ok(Exit::Done);
        }
        let is_many = self.size > WINDOW_MAX;
        let format = self.format.format();
        if is_many && (format == Format::Table || (format == Format::Csv && self.fields.is_empty())) {
            return Err(Error::Usage(format!(
                "--size: more than {WINDOW_MAX} events go into --json, or into --csv with --fields"
            )));
        }
        if is_many && self.sort.0 != "time" {
            return Err(Error::Usage(format!("--sort: more than {WINDOW_MAX} events come by time alone")));
        }
        let asked = self.question.open()?;
        if is_many {
            self.walk(&asked)?
        } else {
            self.page(&asked)?
        }
        Ok(Exit::Done)
    }

    fn page(&self, asked: &Asked) -> Result<()> {
        let (field, descending) = &self.sort;
        let by_time = by_field(asked.time_field(), *descending);
        let page = |field: &str| {
            let mut sort = vec![by_time.clone(), as_stored(*descending)];
            if field != "time" {
                sort.insert(0, by_field(field, *descending));
            }
            Page { span: asked.span, sort, size: self.size, ..Page::default() }
        };
        let found = asked.page_by(field, page)?;
        let (total, time_at) = (found.total, usize::from(field != "time"));
        let events: Vec<Event> = found.hits.into_iter().map(|hit| Event::new(hit, time_at)).collect();
        self.print(asked, &events)?;
        if total > events.len() as u64 {
            logging::say(format_args!("{} of {total} events; --size N for more", events.len()));
        }
        Ok(())
    }

    fn print(&self, asked: &Asked, events: &[Event]) -> Result<()> {
        let zone = asked.zone;
        match self.format.format() {
            Format::Json => shown::lines(events.iter().map(|event| event.json(zone, &self.fields))),
            Format::Csv => {
                let fields =
                    if self.fields.is_empty() { shown::all_fields(events) } else { self.fields.clone() };
                let mut csv = Csv::begin(&head(&fields, "_time"))?;
                for event in events {
                    csv.line(cells(asked, event, &fields, ""))?;
                }
                csv.end()
            }
            Format::Table => {
                let fields =
                    if self.fields.is_empty() { shown::columns(events) } else { self.fields.clone() };
                let row = |event: &Event| cells(asked, event, &fields, "-").map(Cow::into_owned).collect();
                shown::table(&head(&fields, "TIME"), &events.iter().map(row).collect::<Vec<_>>(), &[])
            }
        }
    }

    /// Prints many events one by one.
    fn walk(&self, asked: &Asked) -> Result<()> {
        let mut left = self.size;
        let is_csv = self.format.format() == Format::Csv;
        let mut csv = if is_csv { Some(Csv::begin(&head(&self.fields, "_time"))?) } else { None };
        let mut lines = if is_csv { None } else { Some(Lines::begin()) };
        asked.walk(asked.span, self.sort.1, &mut |hit| {
            let event = Event::new(hit, 0);
            let is_read = match (&mut csv, &mut lines) {
                (Some(csv), _) => csv.line(cells(asked, &event, &self.fields, ""))?,
                (_, Some(lines)) => lines.line(&event.json(asked.zone, &self.fields))?,
                (None, None) => false,
            };
            left -= 1;
            Ok(if is_read && left > 0 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
        })?;
        csv.map_or(Ok(()), Csv::end)?;
        lines.map_or(Ok(()), Lines::end)
    }
}

fn head<'a>(fields: &'a [String], time: &'a str) -> Vec<&'a str> {
    std::iter::once(time).chain(fields.iter().map(String::as_str)).collect()
}

/// The time and the fields' values.
fn cells<'a>(
    asked: &Asked,
    event: &'a Event,
    fields: &'a [String],
    nothing: &'static str,
) -> impl Iterator<Item = Cow<'a, str>> {
    let value = move |field: &'a String| event.value(field).unwrap_or(Cow::Borrowed(nothing));
    std::iter::once(Cow::from(event.time(asked.zone))).chain(fields.iter().map(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_orders() {
        assert_eq!(size("all"), Ok(usize::MAX));
        assert_eq!(size("7"), Ok(7));
        assert!(size("-1").is_err() && size("").is_err());
        assert_eq!(order("destNum"), Ok(("destNum".to_owned(), false)));
        assert_eq!(order("a.b:desc"), Ok(("a.b".to_owned(), true)));
        for wrong in ["", ":asc", "a:", "a:up"] {
            assert!(order(wrong).is_err(), "{wrong}");
        }
    }
}
