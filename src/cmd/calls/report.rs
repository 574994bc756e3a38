//! `lea calls report`: counts calls per subscriber and day. Main thread; reads events in time windows.

use std::borrow::Cow;
use std::ops::ControlFlow;

use serde_json::{Value, json};

use crate::cmd::Command;
use crate::cmd::args::globals::Globals;
use crate::cmd::args::query::{EventFilterArgs, StoreTargetArgs};
use crate::cmd::args::units;
use crate::cmd::output::{self, CsvWriter, OutputFormat, OutputFormatArgs};
use crate::iri::calls::{CallEvent, CallReport, ReportedSpan, SubscriberDay};
use crate::manual::{self, Example, Manual};
use crate::runtime::json::parse_value;
use crate::runtime::logging::{self, LevelFilter};
use crate::runtime::terminal::escape;
use crate::search::query::Hit;
use crate::search::source::{QuerySession, TimeRange, parse_query};
use crate::{Exit, Result};

/// Matches all call events.
const CALL_EVENTS_QUERY: &str =
    "event:(incoming_call OR start_call OR stop_call OR rejected_call) AND _exists_:userid";

/// Maximum ringing time: one day.
const RINGING_TIME_MS_MAX: i64 = 86_400_000;

/// Count started, stopped, rejected and missed calls per subscriber and day
///
/// Call events carry no call ID, so the events of one subscriber (userid) are matched in the order of their
/// time. An incoming call rings until the next start_call or rejected_call. If neither follows within the
/// ringing time, the call was missed, on the day on which it came in. A call that is still ringing is not
/// counted. A start_call without a ringing call is an outgoing call.
///
/// All dialled forms of a subscriber's number are one subscriber, unless --number-match exact is given. Days are
/// those of --time-zone.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Only events that match this query, in the syntax of "lea search": userid:+447700900123
    #[arg(value_name = "QUERY")]
    query: Option<String>,
    /// Time that a call rings
    #[arg(long, value_name = "DURATION", default_value = "180s", value_parser = parse_ringing_time)]
    ringing_time: i64,
    #[command(flatten)]
    format: OutputFormatArgs,
    #[command(flatten)]
    target: StoreTargetArgs,
    #[command(flatten)]
    filter: EventFilterArgs,
}

fn parse_ringing_time(text: &str) -> Result<i64, String> {
    let time_ms = i64::try_from(units::duration(text)?.as_millis()).unwrap_or(i64::MAX);
    if time_ms <= RINGING_TIME_MS_MAX { Ok(time_ms) } else { Err("must be at most 1d".to_owned()) }
}

impl Command for Args {
    const MANUAL: Manual = Manual {
        examples: &[
            Example { text: "Report on the calls of a week", command: "lea calls report --since 1w" },
            Example {
                text: "Report on one subscriber as JSON lines",
                command: "lea calls report userid:+447700900123 --json",
            },
        ],
        see_also: &["lea-search(1)", "lea-events-load(1)"],
        ..manual::EVENT_QUERY
    };

    fn run(self, globals: &Globals) -> Result<Exit> {
        logging::start(globals.level(LevelFilter::Warn));
        // A syntax error must be reported at its position in the user's query, not in the combined one.
        parse_query(self.query.as_deref(), None)?;
        let query = match &self.query {
            Some(query) => format!("({query}) AND {CALL_EVENTS_QUERY}"),
            None => CALL_EVENTS_QUERY.to_owned(),
        };
        let session = self.filter.open(&self.target, Some(&query))?;
        self.report(&session, ReportPrinter::new(self.format.format())?)?;
        Ok(Exit::Done)
    }
}

impl Args {
    fn report(&self, session: &QuerySession, mut printer: ReportPrinter) -> Result<()> {
        let now_ms = crate::runtime::time::now_ms();
        let TimeRange { from_ms, to_ms } = session.range;
        let reported =
            ReportedSpan { from_ms: from_ms.unwrap_or(i64::MIN), to_ms: to_ms.unwrap_or(i64::MAX) };
        // A call from before the range can be answered in it, and one at the end of the range after it.
        let around = TimeRange {
            from_ms: from_ms.map(|ms| ms.saturating_sub(self.ringing_time)),
            to_ms: to_ms.map(|ms| ms.saturating_add(self.ringing_time).saturating_add(1)),
        };
        let zone = self.filter.time_zone;
        let mut calls = CallReport::new(reported, self.ringing_time, |ms| zone.day(ms));
        let mut last_ms = now_ms;
        session.scan(around, false, &mut |hit| {
            let Some((time_ms, subscriber, event)) = parse_call_event(session, &hit) else {
                return Ok(ControlFlow::Continue(()));
            };
            // A sender's clock may be ahead of this one.
            last_ms = last_ms.max(time_ms);
            let rows = calls.add_event(time_ms, &subscriber, event);
            Ok(if printer.print(&rows)? { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
        })?;
        printer.print(&calls.finish(last_ms))?;
        printer.end()
    }
}

/// Returns the time, the subscriber and the event; `None` if it is not a call event.
fn parse_call_event(session: &QuerySession, hit: &Hit) -> Option<(i64, String, CallEvent)> {
    let source = parse_value(&hit.source).ok()?;
    let event = CallEvent::parse(source["event"].as_str()?)?;
    let subscriber = match &source["userid"] {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => return None,
    };
    let canonical = session.normalizer().and_then(|normalizer| normalizer.normalize(&subscriber));
    let subscriber = canonical.map_or(subscriber, |canonical| canonical.as_str().to_owned());
    Some((hit.sort.first()?.as_i64()?, subscriber, event))
}

/// Prints rows as soon as their day is complete. The last column has no fixed width.
enum ReportPrinter {
    Table { has_head: bool },
    Json,
    Csv(Box<CsvWriter>),
}

const HEADER: [&str; 6] = ["day", "subscriber", "started", "stopped", "rejected", "missed"];

impl ReportPrinter {
    fn new(format: OutputFormat) -> Result<ReportPrinter> {
        Ok(match format {
            OutputFormat::Table => ReportPrinter::Table { has_head: false },
            OutputFormat::Json => ReportPrinter::Json,
            OutputFormat::Csv => ReportPrinter::Csv(Box::new(CsvWriter::start(&HEADER)?)),
        })
    }

    /// Returns false if the reader is gone.
    fn print(&mut self, rows: &[SubscriberDay]) -> Result<bool> {
        for row in rows {
            if !self.print_one(row)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn print_one(&mut self, row: &SubscriberDay) -> Result<bool> {
        let SubscriberDay { day, subscriber, sums } = row;
        let numbers = [sums.started, sums.stopped, sums.rejected, sums.missed];
        match self {
            ReportPrinter::Json => output::print_line(&output::single_line_json(
                &json!({
                    "day": day.to_string(), "subscriber": subscriber, "started": sums.started,
                    "stopped": sums.stopped, "rejected": sums.rejected, "missed": sums.missed,
                })
                .to_string(),
            )),
            ReportPrinter::Csv(csv) => {
                let texts = [day.to_string(), subscriber.clone()];
                let cells = texts.into_iter().chain(numbers.iter().map(u64::to_string));
                csv.write_row(cells.map(Cow::Owned))
            }
            ReportPrinter::Table { has_head } => {
                if !std::mem::replace(has_head, true) {
                    let [day, subscriber, started, stopped, rejected, missed] = HEADER.map(str::to_uppercase);
                    output::print_line(&format!(
                        "{day:10}  {started:>8}  {stopped:>8}  {rejected:>8}  {missed:>8}  {subscriber}"
                    ))?;
                }
                let [started, stopped, rejected, missed] = numbers;
                let (day, subscriber) = (day.to_string(), escape(subscriber));
                output::print_line(&format!(
                    "{day:10}  {started:>8}  {stopped:>8}  {rejected:>8}  {missed:>8}  {subscriber}"
                ))
            }
        }
    }

    fn end(self) -> Result<()> {
        match self {
            ReportPrinter::Csv(csv) => csv.end(),
            ReportPrinter::Table { has_head: false } => {
                logging::status_line(format_args!("no calls"));
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
    fn ringing_time_is_limited_to_one_day() {
        assert_eq!(parse_ringing_time("180s"), Ok(180_000));
        assert_eq!(parse_ringing_time("1d"), Ok(RINGING_TIME_MS_MAX));
        assert_eq!(parse_ringing_time("0"), Ok(0));
        assert!(parse_ringing_time("86401s").is_err() && parse_ringing_time("x").is_err());
    }
}
