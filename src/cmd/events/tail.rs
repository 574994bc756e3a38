//! `lea events tail`: prints events as they arrive. Main thread.
//!
//! A directory, and another lea, are followed by the order of insertion, so no event is missed. Other servers
//! have no such order: the last seconds are searched repeatedly, and events that were printed before are
//! skipped.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::time::Duration;

use serde_json::Value;

use crate::cmd::Command;
use crate::cmd::args::globals::Globals;
use crate::cmd::args::query::{EventFilterArgs, StoreTargetArgs};
use crate::cmd::output::{self, EventView};
use crate::manual::{self, Example, Manual};
use crate::runtime::logging::{self, LevelFilter};
use crate::runtime::shutdown::Shutdown;
use crate::runtime::terminal::escape;
use crate::search::query::{Hit, Sort};
use crate::search::source::{QuerySession, SearchRequest, TimeRange};
use crate::{Error, Exit, Result};

/// Events per request.
const PAGE_SIZE: usize = 1_000;

/// Pause when there is nothing new.
const PAUSE: Duration = Duration::from_millis(200);

/// Pause between HTTP requests, and after a failure.
const PAUSE_URL: Duration = Duration::from_secs(1);

/// Maximum delay until an event becomes visible on a server without an order of insertion; about a second is
/// usual.
const LATE_MS: i64 = 15_000;

/// Maximum number of events remembered as printed: those of the last seconds and those with a time in the
/// future.
const REMEMBERED_MAX: usize = 200_000;

/// Print events as they arrive, until ^C
///
/// Prints the last events first, like "tail -f", then each new one. Each line contains the time, the index
/// and the known fields of the event, or those of --fields. A running lea can write to the directory
/// meanwhile.
///
/// From a directory or another lea, every event is printed. From other servers, only events whose time is
/// within the last 15 s when they become visible.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Print only events that match this query, in the syntax of "lea search"
    #[arg(value_name = "QUERY")]
    query: Option<String>,
    /// Number of existing events to print first
    #[arg(short = 'n', long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u16).range(0..=PAGE_SIZE as i64))]
    lines: u16,
    /// Fields to print
    #[arg(long, value_name = "FIELD", value_delimiter = ',')]
    fields: Vec<String>,
    /// Print one JSON object per line, as "lea search --json" does
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: StoreTargetArgs,
    #[command(flatten)]
    filter: EventFilterArgs,
}

impl Command for Args {
    const MANUAL: Manual = Manual {
        exits: &[manual::INTERRUPTED],
        examples: &[
            Example { text: "Follow all events", command: "lea events tail" },
            Example {
                text: "Follow the calls of a number in JSON",
                command: "lea events tail '\"+447700900123\"' --json",
            },
        ],
        see_also: &["lea-search(1)", "lea-serve-events(1)"],
        ..manual::EVENT_QUERY
    };

    fn run(self, globals: &Globals) -> Result<Exit> {
        logging::start(globals.level(LevelFilter::Warn));
        let mut session = self.filter.open(&self.target, self.query.as_deref())?;
        // From now on, the loop below retries, because it ends at a signal.
        session.disable_retries();
        let shutdown = Shutdown::on_signals()?;
        let mut cursor = start_cursor(&session)?;
        if self.print_last(&session, &mut cursor)? {
            self.follow(&session, &mut cursor, &shutdown)?;
        }
        Ok(Exit::Done)
    }
}

impl Args {
    /// Prints new events until a signal, or until the reader of standard output is gone.
    fn follow(&self, session: &QuerySession, cursor: &mut TailCursor, shutdown: &Shutdown) -> Result<()> {
        let pause = if self.target.target().is_url() { PAUSE_URL } else { PAUSE };
        let mut has_failed = false;
        while !shutdown.is_triggered() {
            match self.print_new(session, cursor) {
                Ok(PrintResult { is_reader_open: false, .. }) => return Ok(()),
                Ok(PrintResult { is_reader_open: true, has_more }) => {
                    has_failed = false;
                    if has_more {
                        continue;
                    }
                }
                // A server may be restarting; a directory does not come back.
                Err(error @ Error::Net { .. }) => {
                    if !std::mem::replace(&mut has_failed, true) {
                        log::warn!("tail_retrying error=\"{}\"", crate::error::chain(&error));
                    }
                }
                Err(error) => return Err(error),
            }
            shutdown.wait(pause);
        }
        Ok(())
    }

    /// Prints existing events. Returns false if the reader is gone.
    fn print_last(&self, session: &QuerySession, cursor: &mut TailCursor) -> Result<bool> {
        let lines = usize::from(self.lines);
        let by_time = Sort::by_field(session.time_field(), true);
        let (sort, time_at) = match cursor {
            TailCursor::SeqNo(_) => (vec![Sort::by_seq_no(true), by_time], 1),
            TailCursor::Recent { .. } => (vec![by_time], 0),
        };
        // At least one event is needed as the starting point.
        let page =
            SearchRequest { range: session.range, sort, size: lines.max(1), ..SearchRequest::default() };
        let hits = session.search(&page)?.hits;
        match cursor {
            TailCursor::SeqNo(after) => *after = hits.first().map(|hit| hit.sort.clone()),
            TailCursor::Recent { seen, .. } => {
                for hit in &hits {
                    remember(seen, hit)?;
                }
            }
        }
        for hit in hits.into_iter().take(lines).rev() {
            if !self.print(EventView::new(hit, time_at))? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn print_new(&self, session: &QuerySession, cursor: &mut TailCursor) -> Result<PrintResult> {
        match cursor {
            TailCursor::SeqNo(after) => {
                let sort = vec![Sort::by_seq_no(false), Sort::by_field(session.time_field(), false)];
                let page = SearchRequest {
                    range: session.range,
                    sort,
                    size: PAGE_SIZE,
                    after: after.clone(),
                    ..SearchRequest::default()
                };
                let hits = session.search(&page)?.hits;
                let has_more = hits.len() == PAGE_SIZE;
                for hit in hits {
                    *after = Some(hit.sort.clone());
                    if !self.print(EventView::new(hit, 1))? {
                        return Ok(PrintResult { is_reader_open: false, has_more: false });
                    }
                }
                Ok(PrintResult { is_reader_open: true, has_more })
            }
            TailCursor::Recent { since_ms, seen } => {
                let is_reader_open = scan_recent(session, *since_ms, &mut |hit| {
                    if remember(seen, &hit)? { self.print(EventView::new(hit, 0)) } else { Ok(true) }
                })?;
                *since_ms = crate::runtime::time::now_ms() - LATE_MS;
                seen.retain(|_, time_ms| *time_ms >= *since_ms);
                Ok(PrintResult { is_reader_open, has_more: false })
            }
        }
    }

    fn print(&self, event: EventView) -> Result<bool> {
        if self.json {
            return output::print_line(&event.json(self.filter.time_zone, &self.fields));
        }
        let fields = match self.fields.as_slice() {
            [] => output::table_columns(std::slice::from_ref(&event)),
            fields => fields.to_vec(),
        };
        let mut line = format!("{}  {}", event.time(self.filter.time_zone), event.hit.index);
        for field in &fields {
            let value = event.value(field).unwrap_or_default();
            line.push_str(&format!("  {field}={}", quote_value(&value)));
        }
        output::print_line(&escape(&line))
    }
}

struct PrintResult {
    is_reader_open: bool,
    has_more: bool,
}

/// How far events have been printed.
enum TailCursor {
    /// Sort values of the last event, in the order of insertion.
    SeqNo(Option<Vec<Value>>),
    /// Events printed in the time range that is searched repeatedly, with their times.
    Recent { since_ms: i64, seen: HashMap<(String, String), i64> },
}

/// Creates the cursor before the existing events.
fn start_cursor(session: &QuerySession) -> Result<TailCursor> {
    if session.has_seq_no() {
        return Ok(TailCursor::SeqNo(None));
    }
    let since_ms = crate::runtime::time::now_ms() - LATE_MS;
    // Existing events are not new, even if their time is in the future.
    let mut seen = HashMap::new();
    scan_recent(session, since_ms, &mut |hit| remember(&mut seen, &hit).map(|_| true))?;
    Ok(TailCursor::Recent { since_ms, seen })
}

/// Calls `each` with the events since then, until it returns false because the reader is gone. Returns its
/// last result.
fn scan_recent(
    session: &QuerySession,
    since_ms: i64,
    each: &mut dyn FnMut(Hit) -> Result<bool>,
) -> Result<bool> {
    let from_ms = Some(session.range.from_ms.unwrap_or(i64::MIN).max(since_ms));
    let mut is_reader_open = true;
    session.scan(TimeRange { from_ms, to_ms: session.range.to_ms }, false, &mut |hit| {
        is_reader_open = each(hit)?;
        Ok(if is_reader_open { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
    })?;
    Ok(is_reader_open)
}

/// Returns true for a new event.
fn remember(seen: &mut HashMap<(String, String), i64>, hit: &Hit) -> Result<bool> {
    let time_ms = hit.sort.first().and_then(Value::as_i64).unwrap_or_default();
    let is_new = seen.insert((hit.index.clone(), hit.id.clone()), time_ms).is_none();
    if seen.len() <= REMEMBERED_MAX {
        return Ok(is_new);
    }
    Err(Error::Usage(format!(
        "more than {REMEMBERED_MAX} events have a time in the last 15 s or in the future; narrow the query, or set --until"
    )))
}

/// Returns the value, in quotes if its end would be ambiguous.
fn quote_value(value: &str) -> String {
    let is_plain =
        !value.is_empty() && !value.contains(|c: char| c.is_whitespace() || matches!(c, '"' | '='));
    if is_plain { value.to_owned() } else { Value::from(value).to_string() }
}
