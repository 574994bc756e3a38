//! `lea events test-pattern`: shows which fields grok patterns extract from sample lines. Runs in the main thread; starts no
//! listener.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::{Map, Value, json};

use crate::cmd::Command;
use crate::cmd::args::config::ConfigArgs;
use crate::cmd::args::globals::Globals;
use crate::cmd::output::stdout;
use crate::iri::ingest::framing::{Framer, Framing, FramingStep};
use crate::iri::ingest::grok::{GrokPatterns, MatchedFields};
use crate::iri::ingest::syslog::{self, MESSAGE_BYTES_MAX, header};
use crate::manual::{self, Example, Manual};
use crate::runtime::logging::{self, LevelFilter};
use crate::{Error, Exit, Result};

/// Most bytes of sample lines.
const SAMPLES_BYTES_MAX: u64 = 64 << 20;

/// Show which fields patterns extract from sample lines
///
/// Each line of FILE is parsed like a syslog message: lea parses the header and matches the patterns against
/// `TIME PROGRAM[PID]: MESSAGE`. For each line the command prints the fields of the first pattern that matches. It starts no
/// listener and stores nothing. The exit status is 3 if a line matches no pattern.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Grok pattern to try; repeatable, tried in order [default: patterns of the configuration, else built-in ones]
    #[arg(short, long, value_name = "PATTERN")]
    pattern: Vec<String>,
    #[command(flatten)]
    config: ConfigArgs,
    /// Print one JSON object per line
    #[arg(long)]
    json: bool,
    /// File with sample lines; - is standard input
    #[arg(value_name = "FILE", default_value = "-")]
    file: PathBuf,
}

impl Command for Args {
    const MANUAL: Manual = Manual {
        exits: &[(Exit::Incomplete, "A line matches no pattern.")],
        reads_configuration: true,
        examples: &[
            Example {
                text: "Try the patterns of the configuration",
                command: "lea events test-pattern honeypot.log",
            },
            Example {
                text: "Try a pattern of your own",
                command: "lea events test-pattern --pattern '%{IP:source_ip}' honeypot.log",
            },
        ],
        see_also: &["lea-serve-events(1)", "lea.conf(5)"],
        ..manual::EMPTY
    };

    fn run(self, globals: &Globals) -> Result<Exit> {
        logging::start(globals.level(LevelFilter::Warn));
        let events = self.config.load()?.events;
        let list = if self.pattern.is_empty() { &events.patterns } else { &self.pattern };
        let patterns = GrokPatterns::compile(list, &events.definitions)
            .map_err(|error| Error::Usage(format!("invalid grok pattern: {error}")))?;
        let samples = read(&self.file)?;
        let mut framer = Framer::new(Framing::Lines, MESSAGE_BYTES_MAX);
        let (mut from, mut nth, mut unmatched) = (0, 0, 0);
        loop {
            let (step, consumed) = framer.step(&samples[from..], true);
            from += consumed;
            nth += 1;
            let shown = match step {
                FramingStep::NeedMore => break,
                FramingStep::Message(line) => LineResult::of_line(nth, line, &patterns),
                FramingStep::TooLong(_) => LineResult::too_long(nth),
            };
            unmatched += usize::from(shown.pattern.is_none());
            stdout::print(&if self.json { shown.json() } else { shown.table() })?;
        }
        logging::status_line(format_args!("tested lines={} unmatched={unmatched}", nth - 1));
        Ok(if unmatched == 0 { Exit::Done } else { Exit::Incomplete })
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let mut samples = Vec::new();
    let read = if path == Path::new("-") {
        io::stdin().lock().take(SAMPLES_BYTES_MAX + 1).read_to_end(&mut samples)
    } else {
        File::open(path).and_then(|file| file.take(SAMPLES_BYTES_MAX + 1).read_to_end(&mut samples))
    };
    read.map_err(Error::path("read", path))?;
    if samples.len() as u64 > SAMPLES_BYTES_MAX {
        return Err(Error::Usage(format!(
            "{}: the file has more than {SAMPLES_BYTES_MAX} bytes; give a smaller sample",
            path.display()
        )));
    }
    Ok(samples)
}

/// Match result of one line.
struct LineResult {
    /// Number of the line among the lines that are not empty, from 1.
    number: usize,
    /// Text that the patterns were matched against.
    line: String,
    /// Number of the pattern that matches, from 1.
    pattern: Option<usize>,
    fields: Vec<(String, Value)>,
    microseconds: u128,
}

impl LineResult {
    fn of_line(nth: usize, line: &[u8], patterns: &GrokPatterns) -> LineResult {
        let message = String::from_utf8_lossy(line);
        let arrived = crate::runtime::time::now_local();
        let line = header::parse(&message, &arrived).to_pattern_line(&arrived);
        let start = Instant::now();
        let found = patterns.match_line(&line);
        let microseconds = start.elapsed().as_micros();
        let pattern = found.as_ref().map(|found| found.pattern + 1);
        let named = |MatchedFields { fields, .. }: MatchedFields<'_>| -> Vec<(String, Value)> {
            fields.iter().map(|(name, value)| ((*name).to_owned(), syslog::to_json(value))).collect()
        };
        let fields = found.map_or_else(Vec::new, named);
        LineResult { number: nth, line, pattern, fields, microseconds }
    }

    fn too_long(nth: usize) -> LineResult {
        let line = format!("(rejected: longer than {MESSAGE_BYTES_MAX} bytes)");
        LineResult { number: nth, line, pattern: None, fields: Vec::new(), microseconds: 0 }
    }

    fn table(&self) -> String {
        let fits =
            self.pattern.map_or_else(|| "no pattern matches".to_owned(), |nth| format!("pattern {nth}"));
        let mut text = format!("line {}: {fits}, {} us\n", self.number, self.microseconds);
        if self.pattern.is_none() {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "  {}", self.line.escape_debug());
        }
        let width = self.fields.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
        for (name, value) in &self.fields {
            let value =
                value.as_str().map_or_else(|| value.to_string(), |text| text.escape_debug().to_string());
            let _ = writeln!(text, "  {:width$}  {value}", name.escape_debug().to_string());
        }
        text
    }

    fn json(&self) -> String {
        let mut fields = Map::new();
        for (name, value) in &self.fields {
            match fields.get_mut(name) {
                Some(Value::Array(list)) => list.push(value.clone()),
                Some(first) => *first = json!([first.take(), value]),
                None => drop(fields.insert(name.clone(), value.clone())),
            }
        }
        let object = json!({
            "line": self.number, "pattern": self.pattern, "seen": self.line, "fields": fields,
            "microseconds": u64::try_from(self.microseconds).unwrap_or(u64::MAX),
        });
        format!("{object}\n")
    }
}
