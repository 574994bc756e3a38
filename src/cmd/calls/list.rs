//! `lea calls list`: one row per call of a capture.

use clap::builder::styling::Style;

use super::rows::Rows;
use super::target::CaptureArgs;
use crate::calls::document::{self, Quality, finding_text};
use crate::calls::view::{Call, CallState};
use crate::cmd::Command;
use crate::cmd::args::globals::Globals;
use crate::cmd::args::time_zone::TimeZoneArg;
use crate::cmd::output::OutputFormatArgs;
use crate::cmd::output::table::{BAD, Column};
use crate::manual::{self, Example, Manual};
use crate::runtime::logging::{self, LevelFilter};
use crate::{Exit, Result};

/// List the calls in captures
///
/// Reads pcap and pcapng files, also while they grow, and prints a row per call: a short ID that other commands take, the
/// time of the INVITE, the time from answer to end, the state, both numbers, and the codec, loss, jitter (maximum of all
/// streams) and MOS (minimum) of its RTP streams. NOTE says what an analyst should look at: no media, media from one side
/// only, a missing BYE.
///
/// The results are stored in .lea/calls beside the capture, so that the next command does not read the capture again.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    captures: CaptureArgs,
    /// Only calls that this number made or received; the end of the number is enough
    #[arg(long, value_name = "NUMBER")]
    number: Option<String>,
    /// Only calls in this state: trying, ringing, answered, completed, cancelled, rejected, failed
    #[arg(long, value_name = "STATE", value_parser = parse_state)]
    state: Option<CallState>,
    /// Only calls with something to look at
    #[arg(long)]
    findings: bool,
    /// Only calls that started at or after this time: a duration before now (1d), a date or a time
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Time zone of the table: local, utc, or an offset like +01:00
    #[arg(long, value_name = "ZONE", default_value = "local", value_parser = TimeZoneArg::parse)]
    time_zone: TimeZoneArg,
    #[command(flatten)]
    format: OutputFormatArgs,
}

fn parse_state(text: &str) -> Result<CallState, String> {
    CallState::parse(text)
        .ok_or_else(|| format!("expected one of {}", CallState::ALL.map(CallState::as_str).join(", ")))
}

impl Command for Args {
    const MANUAL: Manual = Manual {
        exits: &[(
            Exit::Incomplete,
            "A capture could not be read to its end, or a limit of the analysis cut something off.",
        )],
        files: &[manual::CALL_INDEX_FILES],
        environment: &[manual::TIME_ZONE_VARIABLE, manual::NO_COLOR_VARIABLE],
        examples: &[
            Example { text: "List the calls of a directory", command: "lea calls list interceptions" },
            Example {
                text: "List the calls of a number that need attention, as JSON lines",
                command: "lea calls list call.pcap --number +447700900123 --findings --json",
            },
        ],
        see_also: &["lea-calls-show(1)", "lea-calls-wav(1)", "lea-ls(1)"],
        ..manual::EMPTY
    };

    fn run(self, globals: &Globals) -> Result<Exit> {
        logging::start(globals.level(LevelFilter::Warn));
        let since_ns = self.since_ns()?;
        let mut calls = Vec::new();
        let mut captures = self.captures.open()?;
        captures.each(|_, analysis| {
            calls.extend(analysis.calls.into_iter().filter(|call| self.is_wanted(call, since_ns)));
            Ok(true)
        })?;
        let exit = captures.end();
        calls.sort_by(|a, b| (a.start_ns, &a.id).cmp(&(b.start_ns, &b.id)));
        let output = Rows { header: &HEADER, columns: columns(), empty: "no calls" };
        output.print(self.format.format(), &calls, |call| self.cells(call).into(), document::to_document)?;
        Ok(exit)
    }
}

impl Args {
    fn since_ns(&self) -> Result<Option<i64>> {
        let since_ms = self.since.as_deref().map(|since| self.time_zone.parse_since(since)).transpose()?;
        Ok(since_ms.map(|ms| ms.saturating_mul(1_000_000)))
    }

    fn is_wanted(&self, call: &Call, since_ns: Option<i64>) -> bool {
        let digits = |text: &str| text.chars().filter(|c| !matches!(c, '+' | ' ' | '-')).collect::<String>();
        let has_number = |number: &String| {
            let number = digits(number);
            [&call.caller, &call.callee].iter().any(|party| digits(&party.user).ends_with(&number))
        };
        self.number.as_ref().is_none_or(has_number)
            && self.state.is_none_or(|state| call.state == state)
            && (!self.findings || !call.findings.is_empty())
            && since_ns.is_none_or(|since| call.start_ns >= since)
    }

    fn cells(&self, call: &Call) -> [String; HEADER.len()] {
        let codecs: Vec<&str> = call.codecs().into_keys().collect();
        let quality = Quality::of(&call.streams);
        let notes: Vec<String> = call.findings.iter().map(|finding| finding_text(*finding, call)).collect();
        [
            call.id.clone(),
            self.time_zone.format_ms(call.start_ns.div_euclid(1_000_000)),
            call.talk_ns().map(duration).unwrap_or_default(),
            call.state.as_str().to_owned(),
            number(&call.caller.user, &call.caller.uri),
            number(&call.callee.user, &call.callee.uri),
            codecs.join(","),
            quality.loss_percent.map(|loss| format!("{loss:.1}%")).unwrap_or_default(),
            quality.jitter_max_ms.map(|jitter| format!("{jitter:.1}ms")).unwrap_or_default(),
            quality.mos_min.map(|mos| format!("{mos:.1}")).unwrap_or_default(),
            notes.join("; "),
        ]
    }
}

const HEADER: [&str; 11] =
    ["CALL", "START", "TALK", "STATE", "FROM", "TO", "CODEC", "LOSS", "JITTER", "MOS", "NOTE"];

fn columns() -> Vec<Column<'static>> {
    let [call, start, talk, state, from, to, codec, loss, jitter, mos, note] = HEADER.map(Column::new);
    vec![
        call.whole(),
        start.whole().dropped(2),
        talk.number(),
        state.whole(),
        from.shortened_to(13),
        to.shortened_to(13),
        codec.whole().dropped(5),
        loss.number().dropped(4),
        jitter.number().dropped(6),
        mos.number().dropped(3),
        note.narrowed_to(10).styled(|note| if note.is_empty() { Style::new() } else { BAD }),
    ]
}

fn number(user: &str, uri: &str) -> String {
    if user.is_empty() { uri.to_owned() } else { user.to_owned() }
}

/// Formats a duration as `1:02:03.4`, `2:03.4` or `0:03.4`.
pub(super) fn duration(ns: i64) -> String {
    let tenths = ns.max(0) / 100_000_000;
    let (seconds, tenth) = (tenths / 10, tenths % 10);
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match hours {
        0 => format!("{minutes}:{seconds:02}.{tenth}"),
        _ => format!("{hours}:{minutes:02}:{seconds:02}.{tenth}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_hours_only_if_needed() {
        assert_eq!(duration(10_040_000_000), "0:10.0");
        assert_eq!(duration(123_456_000_000), "2:03.4");
        assert_eq!(duration(3_723_400_000_000), "1:02:03.4");
        assert_eq!(duration(-1), "0:00.0");
    }
}
