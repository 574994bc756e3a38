//! `lea events tail`: events as they come. Main thread.
//!
//! A folder, and a lea behind a URL, are followed by the order of storing, so nothing is passed over. Other servers have
//! no such order: there the last seconds are asked for again and again, and what was printed is left out.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::time::Duration;

use serde_json::Value;

use super::super::asked::{Asked, Page, Span, WhereArgs, WhichArgs, as_stored, by_field};
use super::super::shown::{self, Event};
use super::super::stored::harmless;
use crate::cli::Globals;
use crate::iri::query::Hit;
use crate::logging::{self, LevelFilter};
use crate::stop::Stop;
use crate::{Error, Exit, Result};

/// Events asked for at once.
const PAGE: usize = 1_000;

/// Between two looks where nothing was new: what a look costs is far less.
const PAUSE: Duration = Duration::from_millis(200);

/// The same over HTTP, and after a look that failed.
const PAUSE_URL: Duration = Duration::from_secs(1);

/// How late an event may appear where there is no order of storing: other servers show events after a second or so.
const LATE_MS: i64 = 15_000;

/// Events that are remembered as printed: those of the last seconds, and those whose time is still to come.
const SEEN_MAX: usize = 200_000;

/// Print events as they are stored, until ^C
///
/// Like tail -f: the last ones first, then each one as it comes. A lea that writes to the folder goes on meanwhile. A line
/// an event: its time, its index and the fields that are known of the senders, or those of --fields. The exit code is 0.
///
/// Of a folder and of a lea behind a URL every event is printed, whatever its time. Of other servers those are printed
/// whose time (--time-field) is of the last 15 s when they appear.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only events that answer this question, as in lea search
    #[arg(value_name = "QUERY")]
    query: Option<String>,
    /// Begin with so many that are there already
    #[arg(short = 'n', long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u16).range(0..=PAGE as i64))]
    lines: u16,
    /// Print these fields
    #[arg(long, value_name = "FIELD", value_delimiter = ',')]
    fields: Vec<String>,
    /// Print a JSON object a line, as lea search does
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: WhereArgs,
    #[command(flatten)]
    which: WhichArgs,
}

impl Args {
    /// Follows until a signal, or until nobody reads any more.
    pub fn run(self, globals: &Globals) -> Result<Exit> {
        logging::start(globals.level(LevelFilter::Warn));
        let asked = self.which.open(&self.place, self.query.as_deref())?;
        let stop = Stop::on_signals()?;
        let mut cursor = if asked.has_sequence() {
            Cursor::Stored(None)
        } else {
            Cursor::Recent { since_ms: chrono::Utc::now().timestamp_millis() - LATE_MS, seen: HashMap::new() }
        };
        if let Cursor::Recent { since_ms, seen } = &mut cursor {
            // What is there already is not new, also where its time is still to come.
            walk_recent(&asked, *since_ms, &mut |hit| remember(seen, &hit).map(|_| true))?;
        }
        let mut is_read = self.print_last(&asked, &mut cursor)?;
        let pause = if self.place.is_url() { PAUSE_URL } else { PAUSE };
        let mut failed = false;
        while is_read && !stop.is_asked() {
            match self.print_new(&asked, &mut cursor) {
                Ok(Printed { is_read: reads, more }) => {
                    (is_read, failed) = (reads, false);
                    if more {
                        continue;
                    }
                }
                // A server that is being started again; a folder does not come back.
                Err(error @ Error::Net { .. }) => {
                    if !std::mem::replace(&mut failed, true) {
                        log::warn!("tail_waits error=\"{}\"", crate::error::chain(&error));
                    }
                }
                Err(error) => return Err(error),
            }
            stop.wait(pause);
        }
        Ok(Exit::Done)
    }

    /// What is there already. False: the reader went away.
    fn print_last(&self, asked: &Asked, cursor: &mut Cursor) -> Result<bool> {
        let lines = usize::from(self.lines);
        let by_time = by_field(asked.time_field(), true);
        let (sort, time_at) = match cursor {
            Cursor::Stored(_) => (vec![as_stored(true), by_time], 1),
            Cursor::Recent { .. } => (vec![by_time], 0),
        };
        // At least one tells where to go on.
        let page = Page { span: asked.span, sort, size: lines.max(1), ..Page::default() };
        let hits = asked.page(&page)?.hits;
        match cursor {
            Cursor::Stored(after) => *after = hits.first().map(|hit| hit.sort.clone()),
            Cursor::Recent { seen, .. } => {
                for hit in &hits {
                    remember(seen, hit)?;
                }
            }
        }
        for hit in hits.into_iter().take(lines).rev() {
            if !self.print(asked, Event::new(hit, time_at))? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn print_new(&self, asked: &Asked, cursor: &mut Cursor) -> Result<Printed> {
        match cursor {
            Cursor::Stored(after) => {
                let sort = vec![as_stored(false), by_field(asked.time_field(), false)];
                let page =
                    Page { span: asked.span, sort, size: PAGE, after: after.clone(), ..Page::default() };
                let hits = asked.page(&page)?.hits;
                let more = hits.len() == PAGE;
                for hit in hits {
                    *after = Some(hit.sort.clone());
                    if !self.print(asked, Event::new(hit, 1))? {
                        return Ok(Printed { is_read: false, more: false });
                    }
                }
                Ok(Printed { is_read: true, more })
            }
            Cursor::Recent { since_ms, seen } => {
                let is_read = walk_recent(asked, *since_ms, &mut |hit| {
                    if remember(seen, &hit)? { self.print(asked, Event::new(hit, 0)) } else { Ok(true) }
                })?;
                *since_ms = chrono::Utc::now().timestamp_millis() - LATE_MS;
                seen.retain(|_, time_ms| *time_ms >= *since_ms);
                Ok(Printed { is_read, more: false })
            }
        }
    }

    fn print(&self, asked: &Asked, event: Event) -> Result<bool> {
        if self.json {
            return shown::line(&event.json(asked.zone, &self.fields));
        }
        let fields = match self.fields.as_slice() {
            [] => shown::columns(std::slice::from_ref(&event)),
            fields => fields.to_vec(),
        };
        let mut line = format!("{}  {}", event.time(asked.zone), event.hit.index);
        for field in &fields {
            let value = event.value(field).unwrap_or_default();
            line.push_str(&format!("  {field}={}", word(&value)));
        }
        shown::line(&harmless(&line))
    }
}

struct Printed {
    is_read: bool,
    more: bool,
}

/// Up to where events were printed.
enum Cursor {
    /// The sort values of the last one, in the order of storing.
    Stored(Option<Vec<Value>>),
    /// What was printed of the time that is asked for again.
    Recent { since_ms: i64, seen: HashMap<(String, String), i64> },
}

/// Calls `each` with the events since then, until it says that nobody reads any more; false then.
fn walk_recent(asked: &Asked, since_ms: i64, each: &mut dyn FnMut(Hit) -> Result<bool>) -> Result<bool> {
    let from_ms = Some(asked.span.from_ms.unwrap_or(i64::MIN).max(since_ms));
    let mut is_read = true;
    asked.walk(Span { from_ms, to_ms: asked.span.to_ms }, false, &mut |hit| {
        is_read = each(hit)?;
        Ok(if is_read { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
    })?;
    Ok(is_read)
}

/// True for an event that was not seen yet.
fn remember(seen: &mut HashMap<(String, String), i64>, hit: &Hit) -> Result<bool> {
    let time_ms = hit.sort.first().and_then(Value::as_i64).unwrap_or_default();
    let is_new = seen.insert((hit.index.clone(), hit.id.clone()), time_ms).is_none();
    if seen.len() <= SEEN_MAX {
        return Ok(is_new);
    }
    Err(Error::Usage(format!(
        "more than {SEEN_MAX} events are of the last seconds, or of times to come; ask for fewer, or with --until"
    )))
}

/// A value as it stands, in quotes where its ends could not be seen.
fn word(value: &str) -> String {
    let is_plain =
        !value.is_empty() && !value.contains(|c: char| c.is_whitespace() || matches!(c, '"' | '='));
    if is_plain { value.to_owned() } else { Value::from(value).to_string() }
}
