//! `lea billing build`: rows into calls. Main thread.

use std::borrow::Cow;

use serde_json::{Value, json};

use super::super::asked::{WhereArgs, WhichArgs};
use super::super::shown::{self, Csv, Format, FormatArgs, Lines};
use super::super::stored::harmless;
use super::super::zone::Zone;
use super::SortArgs;
use super::calls::{Calls, Source};
use crate::cli::Globals;
use crate::iri::billing::{Call, Side};
use crate::logging::{self, LevelFilter};
use crate::{Exit, Result};

/// Put the rows of quick billing logs together, a line a call
///
/// The rows of a call are those with its call_id, in whatever order and however late they come. A call has a set-up delay
/// (INVITE to its final reply), was answered or not, lasted from that reply to the BYE, and was hung up by the side that
/// sent the BYE. A row that is there twice counts once. What a call lacks is named in the last column.
///
/// FILE is JSON (a row a line, or a list; also what lea search --json and rabbitmqadmin get print), CSV with a header, a
/// folder that a receiver writes to, or a URL. Without FILE the store is read. --since and --until choose calls by when
/// they began.
///
/// The exit code is 3 if a row could not be used or a call is incomplete.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Logs; - is stdin [default: the store]
    #[arg(value_name = "FILE")]
    files: Vec<String>,
    #[command(flatten)]
    format: FormatArgs,
    #[command(flatten)]
    sort: SortArgs,
    #[command(flatten)]
    place: WhereArgs,
    #[command(flatten)]
    which: WhichArgs,
}

/// What was built.
#[derive(Debug, Default)]
struct Sums {
    calls: u64,
    answered: u64,
    incomplete: u64,
    doubled: u64,
    reordered: u64,
}

impl Args {
    /// Runs the command.
    pub fn run(self, globals: &Globals) -> Result<Exit> {
        logging::start(globals.level(LevelFilter::Warn));
        let span = self.which.span()?;
        let source = Source { names: &self.files, place: &self.place, which: &self.which, span };
        let mut calls = Calls::read(&source, &self.sort, self.sort.memory)?;
        let mut printer = Printer::begin(self.format.format(), self.which.time_zone)?;
        let mut sums = Sums::default();
        while let Some(call) = calls.next()? {
            sums.add(&call);
            if !printer.print(&call)? {
                break;
            }
        }
        printer.end()?;
        let counts = calls.counts;
        let Sums { calls, answered, incomplete, doubled, reordered } = sums;
        logging::say(format_args!(
            "built calls={calls} answered={answered} incomplete={incomplete} rows={} doubled={doubled} \
             reordered={reordered} other_methods={} refused={}",
            counts.rows, counts.other, counts.refused
        ));
        Ok(if counts.refused == 0 && incomplete == 0 { Exit::Done } else { Exit::Differs })
    }
}

impl Sums {
    fn add(&mut self, call: &Call) {
        self.calls += 1;
        self.answered += u64::from(call.answered == Some(true));
        self.incomplete += u64::from(!call.missing.is_empty());
        self.doubled += call.doubled;
        self.reordered += call.reordered;
    }
}

const HEAD: [&str; 13] = [
    "call_id",
    "start",
    "caller",
    "callee",
    "setup_us",
    "answered",
    "duration_us",
    "reply_code",
    "hung_up",
    "rows",
    "doubled",
    "reordered",
    "missing",
];

/// Prints calls as they are built: columns of known widths first, as all of them are never in memory.
enum Printer {
    Table(Lines, Zone),
    Json(Lines, Zone),
    Csv(Box<Csv>, Zone),
}

impl Printer {
    fn begin(format: Format, zone: Zone) -> Result<Printer> {
        Ok(match format {
            Format::Table => {
                let mut lines = Lines::begin();
                lines.line(&format!(
                    "{:<32}  {:>12}  ANSWERED  {:>12}  CODE  HUNG UP  {:<16}  {:<16}  {:<36}  MISSING",
                    "START", "SETUP", "DURATION", "CALLER", "CALLEE", "CALL ID"
                ))?;
                Printer::Table(lines, zone)
            }
            Format::Json => Printer::Json(Lines::begin(), zone),
            Format::Csv => Printer::Csv(Box::new(Csv::begin(&HEAD)?), zone),
        })
    }

    /// False: the reader went away.
    fn print(&mut self, call: &Call) -> Result<bool> {
        match self {
            Printer::Table(lines, zone) => {
                let shown = |text: &str| if text.is_empty() { "-".to_owned() } else { harmless(text) };
                let line = format!(
                    "{:<32}  {:>12}  {:<8}  {:>12}  {:>4}  {:<7}  {:<16}  {:<16}  {:<36}  {}",
                    zone.show_us(call.start_us),
                    seconds(call.setup_us),
                    yes(call.answered),
                    seconds(call.duration_us),
                    number(call.reply_code),
                    call.hung_up.map_or("-", Side::word),
                    shown(&call.caller),
                    shown(&call.callee),
                    shown(&call.call_id),
                    call.missing,
                );
                lines.line(line.trim_end())
            }
            Printer::Json(lines, zone) => lines.line(&shown::one_line(&json(call, *zone).to_string())),
            Printer::Csv(csv, zone) => csv.line(cells(call, *zone).into_iter()),
        }
    }

    fn end(self) -> Result<()> {
        match self {
            Printer::Table(lines, _) | Printer::Json(lines, _) => lines.end(),
            Printer::Csv(csv, _) => csv.end(),
        }
    }
}

/// A call as an object; what is not known is null.
pub fn json(call: &Call, zone: Zone) -> Value {
    json!({
        "call_id": call.call_id, "start": zone.show_us(call.start_us), "caller": call.caller, "callee": call.callee,
        "setup_us": call.setup_us, "answered": call.answered, "duration_us": call.duration_us,
        "reply_code": call.reply_code, "hung_up": call.hung_up.map(Side::word), "rows": call.rows,
        "doubled": call.doubled, "reordered": call.reordered, "missing": call.missing.words().collect::<Vec<_>>(),
    })
}

fn cells(call: &Call, zone: Zone) -> [Cow<'_, str>; HEAD.len()] {
    [
        Cow::from(&call.call_id),
        zone.show_us(call.start_us).into(),
        Cow::from(&call.caller),
        Cow::from(&call.callee),
        plain(call.setup_us).into(),
        call.answered.map_or("", |answered| if answered { "true" } else { "false" }).into(),
        plain(call.duration_us).into(),
        plain(call.reply_code).into(),
        call.hung_up.map_or("", Side::word).into(),
        call.rows.to_string().into(),
        call.doubled.to_string().into(),
        call.reordered.to_string().into(),
        call.missing.to_string().into(),
    ]
}

/// A number, or nothing.
pub fn plain(number: Option<impl ToString>) -> String {
    number.map_or_else(String::new, |number| number.to_string())
}

/// Microseconds as seconds, or a dash.
pub fn seconds(us: Option<i64>) -> String {
    let shown = |us: i64| {
        let sign = if us < 0 { "-" } else { "" };
        let us = us.unsigned_abs();
        format!("{sign}{}.{:06}", us / 1_000_000, us % 1_000_000)
    };
    us.map_or_else(|| "-".to_owned(), shown)
}

/// A number, or a dash.
pub fn number(number: Option<u16>) -> String {
    number.map_or_else(|| "-".to_owned(), |number| number.to_string())
}

/// Yes, no, or a dash.
pub fn yes(answered: Option<bool>) -> &'static str {
    answered.map_or("-", |answered| if answered { "yes" } else { "no" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_shown_to_the_microsecond() {
        for (us, expected) in [
            (None, "-"),
            (Some(0), "0.000000"),
            (Some(1), "0.000001"),
            (Some(-1_500_000), "-1.500000"),
            (Some(i64::MAX), "9223372036854.775807"),
            (Some(i64::MIN), "-9223372036854.775808"),
        ] {
            assert_eq!(seconds(us), expected);
        }
    }
}
