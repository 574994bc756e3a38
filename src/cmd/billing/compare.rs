//! `lea billing compare`: the calls of two sides beside each other. Main thread.

use std::borrow::Cow;
use std::cmp::Ordering;

use serde_json::json;

use super::super::asked::{Span, WhereArgs, WhichArgs};
use super::super::shown::{self, Csv, Format, FormatArgs, Lines};
use super::super::stored::harmless;
use super::super::values;
use super::super::zone::Zone;
use super::SortArgs;
use super::build::{json, number, plain, seconds, yes};
use super::calls::{Calls, Source};
use super::totals::{Both, Totals};
use crate::cli::Globals;
use crate::iri::billing::{self, Call, Difference, Differences, Group, Key, Side};
use crate::logging::{self, LevelFilter};
use crate::{Error, Exit, Result};

/// Spans of calls: what differs by more than this is no tolerance any more.
const TOLERANCE_US_MAX: i64 = 86_400_000_000;

/// Compare the billing logs of two sides, call by call
///
/// OURS and THEIRS are each what lea billing build takes: a file, - for stdin, a folder that a receiver writes to, or a
/// URL. Calls belong together by their call_id. They differ if one side does not have the call, if one says that it was
/// answered and the other does not, in their reply codes, in who hung up, or by more than the tolerance in duration or
/// set-up delay. Clocks need not agree: only spans are compared.
///
/// Then come sums of both sides: of all calls, by day, by the callee's country code, by caller (all spellings of a number
/// are one). A table has only those callers whose calls differ.
///
/// The exit code is 3 if calls differ or are missing on a side, or a row could not be used.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Our log
    #[arg(value_name = "OURS")]
    ours: String,
    /// The other side's
    #[arg(value_name = "THEIRS")]
    theirs: String,
    /// How much durations and set-up delays may differ, a day at most
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = tolerance)]
    tolerance: i64,
    /// What to print [default: all; with --csv calls, as one table has one head]
    #[arg(long, value_enum)]
    show: Option<Show>,
    #[command(flatten)]
    format: FormatArgs,
    #[command(flatten)]
    sort: SortArgs,
    /// Configuration file; says how numbers are read [default: config/configurationFile.conf]
    #[arg(short, long, value_name = "FILE")]
    config: Option<std::path::PathBuf>,
    /// Trust the certificates in this file (PEM), rather than the world's, where a side is a URL of https
    #[arg(long, value_name = "FILE")]
    store_ca: Option<std::path::PathBuf>,
    #[command(flatten)]
    which: WhichArgs,
}

/// What to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Show {
    /// Calls that differ, then the sums
    All,
    /// Calls that differ
    Calls,
    /// The sums
    Totals,
}

fn tolerance(text: &str) -> Result<i64, String> {
    let us = i64::try_from(values::duration(text)?.as_micros()).unwrap_or(i64::MAX);
    if us <= TOLERANCE_US_MAX { Ok(us) } else { Err("a day at most".to_owned()) }
}

/// How many calls there were.
#[derive(Debug, Default)]
struct Counted {
    calls: u64,
    differ: u64,
    missing_ours: u64,
    missing_theirs: u64,
    incomplete: u64,
}

impl Args {
    /// Runs the command.
    pub fn run(self, globals: &Globals) -> Result<Exit> {
        logging::start(globals.level(LevelFilter::Warn));
        let format = self.format.format();
        let show = match (self.show, format) {
            (Some(Show::All), Format::Csv) => {
                return Err(Error::Usage("--csv prints one table: --show calls or --show totals".to_owned()));
            }
            (None, Format::Csv) => Show::Calls,
            (show, _) => show.unwrap_or(Show::All),
        };
        if self.ours == "-" && self.theirs == "-" {
            return Err(Error::Usage("one of OURS and THEIRS can be stdin".to_owned()));
        }
        let (config, store_ca) = (self.config.clone(), self.store_ca.clone());
        let place = WhereArgs { store: String::new(), config, store_ca };
        let families = self.which.families(&place)?;
        let span = self.which.span()?;
        let mut ours = self.side(&self.ours, &place, span)?;
        let mut theirs = self.side(&self.theirs, &place, span)?;
        let zone = self.which.time_zone;
        let mut totals = Totals::new(zone, families.as_deref(), &self.sort);
        let mut printer = Printer::begin(format, show, zone)?;
        let mut counted = Counted::default();
        let mut is_read = true;
        let mut next = (ours.next()?, theirs.next()?);
        while next.0.is_some() || next.1.is_some() {
            let pair = paired(&mut next);
            let differences = billing::compare(pair.0.as_ref(), pair.1.as_ref(), self.tolerance);
            counted.add(&pair, differences);
            totals.add(pair.0.as_ref(), pair.1.as_ref(), !differences.is_empty())?;
            if is_read && show != Show::Totals && !differences.is_empty() {
                is_read = printer.differs(&pair, differences)?;
            }
            if next.0.is_none() {
                next.0 = ours.next()?;
            }
            if next.1.is_none() {
                next.1 = theirs.next()?;
            }
        }
        if is_read && show != Show::Calls {
            printer.totals(totals)?;
        }
        printer.end()?;
        let refused = ours.counts.refused + theirs.counts.refused;
        let Counted { calls, differ, missing_ours, missing_theirs, incomplete } = counted;
        logging::say(format_args!(
            "compared calls={calls} differ={differ} missing_ours={missing_ours} missing_theirs={missing_theirs} \
             incomplete={incomplete} rows_ours={} rows_theirs={} refused={refused}",
            ours.counts.rows, theirs.counts.rows
        ));
        Ok(if refused == 0 && differ + missing_ours + missing_theirs == 0 {
            Exit::Done
        } else {
            Exit::Differs
        })
    }

    /// Reads one side; both share the memory.
    fn side(&self, name: &str, place: &WhereArgs, span: Span) -> Result<Calls> {
        let names = [name.to_owned()];
        let source = Source { names: &names, place, which: &self.which, span };
        Calls::read(&source, &self.sort, self.sort.memory / 2)
    }
}

/// A call of our side and of the other.
type Pair = (Option<Call>, Option<Call>);

/// Takes the calls with the lower id.
fn paired((ours, theirs): &mut Pair) -> Pair {
    let order = match (&ours, &theirs) {
        (Some(one), Some(other)) => one.call_id.cmp(&other.call_id),
        (Some(_), None) => Ordering::Less,
        _ => Ordering::Greater,
    };
    match order {
        Ordering::Less => (ours.take(), None),
        Ordering::Equal => (ours.take(), theirs.take()),
        Ordering::Greater => (None, theirs.take()),
    }
}

impl Counted {
    fn add(&mut self, (ours, theirs): &Pair, differences: Differences) {
        self.calls += 1;
        let is_incomplete = |call: &Option<Call>| call.as_ref().is_some_and(|call| !call.missing.is_empty());
        self.incomplete += u64::from(is_incomplete(ours) || is_incomplete(theirs));
        match (ours, theirs) {
            (None, _) => self.missing_ours += 1,
            (_, None) => self.missing_theirs += 1,
            _ => self.differ += u64::from(!differences.is_empty()),
        }
    }
}

const HEAD: [&str; 19] = [
    "call_id",
    "differences",
    "start",
    "caller",
    "callee",
    "ours_answered",
    "theirs_answered",
    "ours_reply_code",
    "theirs_reply_code",
    "ours_setup_us",
    "theirs_setup_us",
    "setup_difference_us",
    "ours_duration_us",
    "theirs_duration_us",
    "duration_difference_us",
    "ours_hung_up",
    "theirs_hung_up",
    "ours_missing",
    "theirs_missing",
];

const TOTALS_HEAD: [&str; 10] = [
    "by",
    "value",
    "ours_calls",
    "theirs_calls",
    "ours_answered",
    "theirs_answered",
    "ours_duration_us",
    "theirs_duration_us",
    "duration_difference_us",
    "differ",
];

/// Prints what differs, as it is found, and then the sums.
struct Printer {
    out: Out,
    zone: Zone,
    has_head: bool,
}

enum Out {
    Table(Lines),
    Json(Lines),
    Csv(Box<Csv>),
}

impl Printer {
    fn begin(format: Format, show: Show, zone: Zone) -> Result<Printer> {
        let head = if show == Show::Totals { &TOTALS_HEAD[..] } else { &HEAD[..] };
        let out = match format {
            Format::Table => Out::Table(Lines::begin()),
            Format::Json => Out::Json(Lines::begin()),
            Format::Csv => Out::Csv(Box::new(Csv::begin(head)?)),
        };
        Ok(Printer { out, zone, has_head: false })
    }

    /// Prints a call; false: the reader went away.
    fn differs(&mut self, pair: &Pair, differences: Differences) -> Result<bool> {
        let zone = self.zone;
        match &mut self.out {
            Out::Table(lines) => {
                if !std::mem::replace(&mut self.has_head, true) {
                    lines.line(&difference_line([
                        "DIFFERENCE",
                        "OURS",
                        "THEIRS",
                        "BY",
                        "START",
                        "CALLER",
                        "CALLEE",
                        "CALL ID",
                    ]))?;
                }
                for difference in differences.iter() {
                    if !lines.line(&difference_line(
                        difference_cells(pair, difference, zone).each_ref().map(String::as_str),
                    ))? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            Out::Json(lines) => {
                let (ours, theirs) = pair;
                let shown = |call: &Option<Call>| call.as_ref().map(|call| json(call, zone));
                let object = json!({
                    "call_id": either(pair).map(|call| &call.call_id),
                    "differences": differences.iter().map(Difference::word).collect::<Vec<_>>(),
                    "setup_difference_us": by(pair, |call| call.setup_us),
                    "duration_difference_us": by(pair, |call| call.duration_us),
                    "ours": shown(ours), "theirs": shown(theirs),
                });
                lines.line(&shown::one_line(&object.to_string()))
            }
            Out::Csv(csv) => csv.line(difference_record(pair, differences, zone).into_iter().map(Cow::Owned)),
        }
    }

    fn totals(&mut self, totals: Totals<'_>) -> Result<()> {
        let mut groups = totals.finish()?;
        let mut callers_equal = 0_u64;
        if let Out::Table(lines) = &mut self.out {
            if self.has_head {
                lines.line("")?;
            }
            lines.line(&total_line([
                "BY",
                "CALLS OURS",
                "THEIRS",
                "ANSWERED OURS",
                "THEIRS",
                "DURATION OURS",
                "THEIRS",
                "BY",
                "DIFFER",
                "VALUE",
            ]))?;
        }
        while let Some((group, both)) = groups.next()? {
            let is_taken = match &mut self.out {
                Out::Table(_) if group.key == Key::Caller && both.differ == 0 => {
                    callers_equal += 1;
                    true
                }
                Out::Table(lines) => {
                    lines.line(&total_line(total_cells(&group, &both).each_ref().map(String::as_str)))?
                }
                Out::Json(lines) => lines.line(&shown::one_line(&total_json(&group, &both)))?,
                Out::Csv(csv) => csv.line(total_record(&group, &both).into_iter().map(Cow::Owned))?,
            };
            if !is_taken {
                return Ok(());
            }
        }
        match &mut self.out {
            Out::Table(lines) if callers_equal > 0 => {
                lines.line(&format!("caller: {callers_equal} more without a difference")).map(drop)
            }
            _ => Ok(()),
        }
    }

    fn end(self) -> Result<()> {
        match self.out {
            Out::Table(lines) | Out::Json(lines) => lines.end(),
            Out::Csv(csv) => csv.end(),
        }
    }
}

fn either((ours, theirs): &Pair) -> Option<&Call> {
    ours.as_ref().or(theirs.as_ref())
}

/// What theirs is more than ours.
fn by((ours, theirs): &Pair, span: impl Fn(&Call) -> Option<i64>) -> Option<i64> {
    let (ours, theirs) = (ours.as_ref().and_then(&span), theirs.as_ref().and_then(&span));
    ours.zip(theirs).map(|(ours, theirs)| theirs - ours)
}

fn difference_line([what, ours, theirs, by, start, caller, callee, call_id]: [&str; 8]) -> String {
    let line = format!(
        "{what:<14}  {ours:>14}  {theirs:>14}  {by:>14}  {start:<32}  {caller:<16}  {callee:<16}  {call_id}"
    );
    line.trim_end().to_owned()
}

fn difference_cells(pair: &Pair, difference: Difference, zone: Zone) -> [String; 8] {
    let (ours, theirs) = pair;
    let show = |what: fn(&Call) -> String| {
        let shown = |call: &Option<Call>| call.as_ref().map_or_else(|| "-".to_owned(), what);
        (shown(ours), shown(theirs))
    };
    let spans =
        |span: fn(&Call) -> Option<i64>| by(pair, span).map_or_else(String::new, |us| seconds(Some(us)));
    let ((one, other), more) = match difference {
        Difference::MissingOurs | Difference::MissingTheirs => {
            (show(|call| seconds(call.duration_us.or(Some(0)))), String::new())
        }
        Difference::Answered => (show(|call| yes(call.answered).to_owned()), String::new()),
        Difference::ReplyCode => (show(|call| number(call.reply_code)), String::new()),
        Difference::Duration => (show(|call| seconds(call.duration_us)), spans(|call| call.duration_us)),
        Difference::Setup => (show(|call| seconds(call.setup_us)), spans(|call| call.setup_us)),
        Difference::HungUp => (show(|call| call.hung_up.map_or("-", Side::word).to_owned()), String::new()),
    };
    let text = |of: fn(&Call) -> &str| either(pair).map_or_else(String::new, |call| harmless(of(call)));
    let start = either(pair).map_or_else(String::new, |call| zone.show_us(call.start_us));
    let (caller, callee) = (text(|call| &call.caller), text(|call| &call.callee));
    [difference.word().to_owned(), one, other, more, start, caller, callee, text(|call| &call.call_id)]
}

fn difference_record(pair: &Pair, differences: Differences, zone: Zone) -> Vec<String> {
    let (ours, theirs) = pair;
    let words: Vec<&str> = differences.iter().map(Difference::word).collect();
    let text = |of: fn(&Call) -> String| either(pair).map_or_else(String::new, of);
    let begin = [
        text(|call| call.call_id.clone()),
        words.join(" "),
        either(pair).map_or_else(String::new, |call| zone.show_us(call.start_us)),
        text(|call| call.caller.clone()),
        text(|call| call.callee.clone()),
    ];
    let both =
        |of: fn(&Call) -> String| [ours, theirs].map(|call| call.as_ref().map_or_else(String::new, of));
    let difference = |span: fn(&Call) -> Option<i64>| [plain(by(pair, span))];
    [
        &begin[..],
        &both(|call| plain(call.answered)),
        &both(|call| plain(call.reply_code)),
        &both(|call| plain(call.setup_us)),
        &difference(|call| call.setup_us),
        &both(|call| plain(call.duration_us)),
        &difference(|call| call.duration_us),
        &both(|call| call.hung_up.map_or("", Side::word).to_owned()),
        &both(|call| call.missing.to_string()),
    ]
    .concat()
}

fn total_line(
    [by, calls, their_calls, answered, their_answered, duration, their_duration, more, differ, value]: [&str;
        10],
) -> String {
    let line = format!(
        "{by:<6}  {calls:>10}  {their_calls:>10}  {answered:>13}  {their_answered:>10}  {duration:>18}  \
         {their_duration:>18}  {more:>16}  {differ:>6}  {value}"
    );
    line.trim_end().to_owned()
}

fn total_cells(group: &Group, both: &Both) -> [String; 10] {
    let Both { ours, theirs, differ } = both;
    let duration = |us: u64| seconds(Some(i64::try_from(us).unwrap_or(i64::MAX)));
    [
        group.key.word().to_owned(),
        ours.calls.to_string(),
        theirs.calls.to_string(),
        ours.answered.to_string(),
        theirs.answered.to_string(),
        duration(ours.duration_us),
        duration(theirs.duration_us),
        seconds(Some(both.duration_difference_us())),
        differ.to_string(),
        harmless(&group.value),
    ]
}

fn total_record(group: &Group, both: &Both) -> [String; TOTALS_HEAD.len()] {
    let Both { ours, theirs, differ } = both;
    [
        group.key.word().to_owned(),
        group.value.clone(),
        ours.calls.to_string(),
        theirs.calls.to_string(),
        ours.answered.to_string(),
        theirs.answered.to_string(),
        ours.duration_us.to_string(),
        theirs.duration_us.to_string(),
        both.duration_difference_us().to_string(),
        differ.to_string(),
    ]
}

fn total_json(group: &Group, both: &Both) -> String {
    let sums = |sums: &billing::Sums| json!({"calls": sums.calls, "answered": sums.answered, "duration_us": sums.duration_us});
    json!({
        "by": group.key.word(), "value": group.value, "ours": sums(&both.ours), "theirs": sums(&both.theirs),
        "duration_difference_us": both.duration_difference_us(), "differ": both.differ,
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tolerances_are_bounded() {
        assert_eq!(
            (tolerance("1s"), tolerance("250ms"), tolerance("0")),
            (Ok(1_000_000), Ok(250_000), Ok(0))
        );
        assert_eq!(tolerance("1d"), Ok(TOLERANCE_US_MAX));
        assert!(tolerance("86401s").is_err() && tolerance("x").is_err());
    }
}
