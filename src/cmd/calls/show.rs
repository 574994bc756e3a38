//! `lea calls show`: the ladder of a call, and its messages.

use std::io::{self, IsTerminal};

use super::target::{CallArgs, FoundCall};
use crate::calls::document;
use crate::calls::extract::{CallPacket, CallPackets};
use crate::calls::ladder::{Address, Ladder, LadderOptions, RenderOptions, render};
use crate::calls::view::Call;
use crate::cmd::Command;
use crate::cmd::args::globals::Globals;
use crate::cmd::args::time_zone::TimeZoneArg;
use crate::cmd::output::table::terminal_width;
use crate::cmd::output::{self, print_line, print_lines};
use crate::manual::{self, Example, Manual};
use crate::runtime::logging::{self, LevelFilter};
use crate::runtime::terminal::escape;
use crate::{Error, Exit, Result};

/// Width of a ladder that is not printed on a terminal.
const WIDTH_DEFAULT: usize = 120;

/// Show the messages and streams of a call as a ladder
///
/// Each column is an address, each arrow a SIP message, each double arrow an RTP stream with its packets, loss and jitter
/// (RFC 3550, maximum). A message that was sent several times is one arrow with a count. Times are relative to the row
/// before. If the terminal is too narrow for the columns, each row has both addresses instead.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    call: CallArgs,
    /// Print the text of each message too
    #[arg(long, conflicts_with = "json")]
    full: bool,
    /// Show DTMF digits as rows
    #[arg(long)]
    digits: bool,
    /// Show several addresses of one machine as one column: 192.0.2.1=192.0.2.9
    #[arg(long, value_name = "ADDR=ADDR", value_parser = parse_join)]
    join: Vec<(Address, Address)>,
    /// Show a name instead of an address: 192.0.2.1=proxy
    #[arg(long, value_name = "ADDR=NAME", value_parser = parse_name)]
    name: Vec<(Address, String)>,
    /// Time zone: local, utc, or an offset like +01:00
    #[arg(long, value_name = "ZONE", default_value = "local", value_parser = TimeZoneArg::parse)]
    time_zone: TimeZoneArg,
    /// Print one JSON object: the call as in "lea calls list --json", and its ladder
    #[arg(long)]
    json: bool,
}

fn parse_address(text: &str) -> Result<Address, String> {
    text.parse().map_err(|_| format!("{text} is not an address, with or without a port"))
}

fn parse_join(text: &str) -> Result<(Address, Address), String> {
    let (first, second) = text.split_once('=').ok_or("expected ADDR=ADDR")?;
    Ok((parse_address(first)?, parse_address(second)?))
}

fn parse_name(text: &str) -> Result<(Address, String), String> {
    let (address, name) = text.split_once('=').ok_or("expected ADDR=NAME")?;
    Ok((parse_address(address)?, name.to_owned()))
}

impl Command for Args {
    const MANUAL: Manual = Manual {
        exits: &[(Exit::Incomplete, "A capture could not be read to its end.")],
        files: &[manual::CALL_INDEX_FILES],
        environment: &[manual::TIME_ZONE_VARIABLE],
        examples: &[
            Example {
                text: "Show a call of a directory",
                command: "lea calls show 6fb4bee7d5 interceptions",
            },
            Example {
                text: "Show the first call of a capture with all messages",
                command: "lea calls show call.pcap#1 --full",
            },
        ],
        see_also: &["lea-calls-list(1)", "lea-calls-rtp(1)"],
        ..manual::EMPTY
    };

    fn run(self, globals: &Globals) -> Result<Exit> {
        logging::start(globals.level(LevelFilter::Warn));
        let (mut found, exit) = self.call.find()?;
        let options = LadderOptions {
            join: self.join.iter().map(|(first, second)| vec![*first, *second]).collect(),
            names: self.name.clone(),
            has_digits: self.digits,
        };
        let ladder = Ladder::of(&found.call, &options);
        if self.json {
            let mut document = document::to_document(&found.call);
            document["ladder"] = serde_json::to_value(&ladder)
                .map_err(|error| Error::System { act: "format JSON", source: error.into() })?;
            print_line(&output::single_line_json(&document.to_string()))?;
            return Ok(exit);
        }
        self.print_head(&found.call)?;
        let clock = |ns: i64| {
            let time = self.time_zone.format_ms(ns.div_euclid(1_000_000));
            time.get(11..23).unwrap_or(&time).to_owned()
        };
        let width = terminal_width().unwrap_or(WIDTH_DEFAULT);
        print_lines(render(&ladder, &RenderOptions { width, clock: &clock }).lines().map(str::to_owned))?;
        if self.full {
            print_messages(&mut found, &clock)?;
        }
        Ok(exit)
    }
}

impl Args {
    fn print_head(&self, call: &Call) -> Result<()> {
        let party = |user: &str, uri: &str| escape(if user.is_empty() { uri } else { user });
        let line = format!(
            "{}  {}  {} -> {}  {}",
            call.id,
            self.time_zone.format_ms(call.start_ns.div_euclid(1_000_000)),
            party(&call.caller.user, &call.caller.uri),
            party(&call.callee.user, &call.callee.uri),
            call.state.as_str(),
        );
        print_line(&line)?;
        print_line(&format!("Call-ID {}  in {}", escape(&call.call_id), escape(&call.capture)))?;
        print_line("").map(drop)
    }
}

/// Prints the text of each message. On a terminal, control characters are escaped.
fn print_messages(found: &mut FoundCall, clock: &dyn Fn(i64) -> String) -> Result<()> {
    let FoundCall { call, file, reader } = found;
    let is_terminal = io::stdout().is_terminal();
    let printed = CallPackets::new(call).read(file, reader, |packet, place| {
        let CallPacket::Message { message, bytes } = packet else { return Ok(()) };
        let Some(view) = call.messages.get(message) else { return Ok(()) };
        let head = format!("\n--- {}  {} -> {}", clock(place.time_ns), view.source, view.destination);
        let text = String::from_utf8_lossy(bytes);
        let lines = text.lines().map(|line| if is_terminal { escape(line) } else { line.to_owned() });
        let text = std::iter::once(head).chain(lines).collect::<Vec<_>>().join("\n");
        print_line(&text).map(drop).map_err(io::Error::other)
    });
    printed.map_err(|error| Error::System { act: "read the packets of the call", source: error })
}
