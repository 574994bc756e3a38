//! `lea calls report`: calls per subscriber and day. Main thread; reads events window by window.

use std::borrow::Cow;
use std::ops::ControlFlow;

use chrono::Utc;
use serde_json::{Value, json};

use super::asked::{Asked, Span, WhereArgs, WhichArgs};
use super::shown::{self, Csv, Format, FormatArgs};
use super::stored::harmless;
use super::values;
use crate::cli::Globals;
use crate::iri::calls::{CallEvent, Calls, Reported, Row};
use crate::iri::query::Hit;
use crate::logging::{self, LevelFilter};
use crate::{Exit, Result};

/// What is about a call at all.
const CALLS: &str = "event:(incoming_call OR start_call OR stop_call OR rejected_call) AND _exists_:userid";

/// A day at most: a call does not ring longer.
const RINGING_TIME_MS_MAX: i64 = 86_400_000;

/// Report on calls
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Report(ReportArgs),
}

impl Args {
    /// Runs the command.
    pub fn run(self, globals: &Globals) -> Result<Exit> {
        let Command::Report(args) = self.command;
        args.run(globals)
    }
}

/// Count started, stopped, rejected and missed calls per subscriber and day
///
/// There is no call id in call events, so those of one subscriber (userid) belong together by the order of their times: a
/// call that comes in rings until the next start_call or rejected_call. One that neither follows within the ringing
/// time was missed, on the day on which it came in; what still rings now is not counted. Calls that start without one that
/// rings are the subscriber's own. All spellings of a subscriber's number are one (--number-match exact: each is its own).
///
/// Days are those of --time-zone: local ones, unless told otherwise; the variable TZ says which these are.
#[derive(Debug, clap::Args)]
struct ReportArgs {
    /// Only events that answer this question, as in lea search: userid:+447700900123
    #[arg(value_name = "QUERY")]
    query: Option<String>,
    /// How long a call rings
    #[arg(long, value_name = "DURATION", default_value = "180s", value_parser = ringing_time)]
    ringing_time: i64,
    #[command(flatten)]
    format: FormatArgs,
    #[command(flatten)]
    place: WhereArgs,
    #[command(flatten)]
    which: WhichArgs,
}

fn ringing_time(text: &str) -> Result<i64, String> {
    let time_ms = i64::try_from(values::duration(text)?.as_millis()).unwrap_or(i64::MAX);
    if time_ms <= RINGING_TIME_MS_MAX { Ok(time_ms) } else { Err("a day at most".to_owned()) }
}

impl ReportArgs {
    fn run(self, globals: &Globals) -> Result<Exit> {
        logging::start(globals.level(LevelFilter::Warn));
        // Its place in the question of this report would hide where it is wrong.
        self.which.tree(self.query.as_deref(), None)?;
        let query = match &self.query {
            Some(query) => format!("({query}) AND {CALLS}"),
            None => CALLS.to_owned(),
        };
        let asked = self.which.open(&self.place, Some(&query))?;
        self.report(&asked, Printer::new(self.format.format())?)?;
        Ok(Exit::Done)
    }

    fn report(&self, asked: &Asked, mut printer: Printer) -> Result<()> {
        let now_ms = Utc::now().timestamp_millis();
        let Span { from_ms, to_ms } = asked.span;
        let reported = Reported { from_ms: from_ms.unwrap_or(i64::MIN), to_ms: to_ms.unwrap_or(i64::MAX) };
        // A call that came in before the span may be answered in it, and one of the span behind it.
        let around = Span {
            from_ms: from_ms.map(|ms| ms.saturating_sub(self.ringing_time)),
            to_ms: to_ms.map(|ms| ms.saturating_add(self.ringing_time).saturating_add(1)),
        };
        let zone = asked.zone;
        let mut calls = Calls::new(reported, self.ringing_time, |ms| zone.day(ms));
        let mut last_ms = now_ms;
        asked.walk(around, false, &mut |hit| {
            let Some((time_ms, subscriber, event)) = call_event(asked, &hit) else {
                return Ok(ControlFlow::Continue(()));
            };
            // A sender's clock may be ahead; its own later events tell that a call rang out.
            last_ms = last_ms.max(time_ms);
            let rows = calls.take(time_ms, &subscriber, event);
            Ok(if printer.print(&rows)? { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
        })?;
        printer.print(&calls.finish(last_ms))?;
        printer.end()
    }
}

/// The time, the subscriber and what happened; none for what is no call's event after all.
fn call_event(asked: &Asked, hit: &Hit) -> Option<(i64, String, CallEvent)> {
    let source: Value = serde_json::from_slice(&hit.source).ok()?;
    let event = CallEvent::read(source["event"].as_str()?)?;
    let subscriber = match &source["userid"] {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => return None,
    };
    let family = asked.number_families().and_then(|families| families.canonical(&subscriber));
    let subscriber = family.map_or(subscriber, |family| family.number().to_owned());
    Some((hit.sort.first()?.as_i64()?, subscriber, event))
}

/// Prints rows as their days are over; the one column of unknown width is the last.
enum Printer {
    Table { has_head: bool },
    Json,
    Csv(Box<Csv>),
}

const HEAD: [&str; 6] = ["day", "subscriber", "started", "stopped", "rejected", "missed"];

impl Printer {
    fn new(format: Format) -> Result<Printer> {
        Ok(match format {
            Format::Table => Printer::Table { has_head: false },
            Format::Json => Printer::Json,
            Format::Csv => Printer::Csv(Box::new(Csv::begin(&HEAD)?)),
        })
    }

    /// False: the reader went away.
    fn print(&mut self, rows: &[Row]) -> Result<bool> {
        for row in rows {
            if !self.print_one(row)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn print_one(&mut self, row: &Row) -> Result<bool> {
        let Row { day, subscriber, sums } = row;
        let numbers = [sums.started, sums.stopped, sums.rejected, sums.missed];
        match self {
            Printer::Json => shown::line(&shown::one_line(
                &json!({
                    "day": day.to_string(), "subscriber": subscriber, "started": sums.started,
                    "stopped": sums.stopped, "rejected": sums.rejected, "missed": sums.missed,
                })
                .to_string(),
            )),
            Printer::Csv(csv) => {
                let texts = [day.to_string(), subscriber.clone()];
                let cells = texts.into_iter().chain(numbers.iter().map(u64::to_string));
                csv.line(cells.map(Cow::Owned))
            }
            Printer::Table { has_head } => {
                if !std::mem::replace(has_head, true) {
                    let [day, subscriber, started, stopped, rejected, missed] = HEAD.map(str::to_uppercase);
                    shown::line(&format!(
                        "{day:10}  {started:>8}  {stopped:>8}  {rejected:>8}  {missed:>8}  {subscriber}"
                    ))?;
                }
                let [started, stopped, rejected, missed] = numbers;
                let (day, subscriber) = (day.to_string(), harmless(subscriber));
                shown::line(&format!(
                    "{day:10}  {started:>8}  {stopped:>8}  {rejected:>8}  {missed:>8}  {subscriber}"
                ))
            }
        }
    }

    fn end(self) -> Result<()> {
        match self {
            Printer::Csv(csv) => csv.end(),
            Printer::Table { has_head: false } => {
                logging::say(format_args!("no calls"));
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ringing_times_are_bounded() {
        assert_eq!(ringing_time("180s"), Ok(180_000));
        assert_eq!(ringing_time("1d"), Ok(RINGING_TIME_MS_MAX));
        assert_eq!(ringing_time("0"), Ok(0));
        assert!(ringing_time("86401s").is_err() && ringing_time("x").is_err());
    }
}
