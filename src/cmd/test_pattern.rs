//! `lea events test-pattern`: what patterns make of sample lines, before anything is started.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Instant;

use chrono::Local;
use serde_json::{Map, Value, json};

use super::print_data;
use crate::cli::Globals;
use crate::config;
use crate::iri::source::frame::{Framer, Framing, Step};
use crate::iri::source::grok::{Fields, Patterns};
use crate::iri::source::syslog::{self, MESSAGE_BYTES_MAX, header};
use crate::logging::{self, LevelFilter};
use crate::{Error, Exit, Result};

/// Bytes of samples.
const SAMPLES_BYTES_MAX: u64 = 64 << 20;

/// Show what patterns make of sample lines
///
/// Each line of FILE is read like a message over syslog: the header is taken apart, and the patterns see
/// `TIME PROGRAM[PID]: MESSAGE`. For each line the fields of the first pattern that fits are shown. Nothing is started and
/// nothing is stored. A line that no pattern fits makes the exit code 3.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Try this grok pattern; repeatable, they are tried in order [default: those of the configuration, else the
    /// built-in ones]
    #[arg(short, long, value_name = "PATTERN")]
    pattern: Vec<String>,
    /// Configuration file, for its patterns and definitions [default: config/configurationFile.conf]
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print a JSON object a line
    #[arg(long)]
    json: bool,
    /// Sample lines; - is standard input
    #[arg(value_name = "FILE", default_value = "-")]
    file: PathBuf,
}

impl Args {
    /// Runs the command.
    pub fn run(self, globals: &Globals) -> Result<Exit> {
        logging::start(globals.level(LevelFilter::Warn));
        let events = config::load(self.config.as_deref(), &config::environment)?.events;
        let list = if self.pattern.is_empty() { &events.patterns } else { &self.pattern };
        let patterns = Patterns::compile(list, &events.definitions)
            .map_err(|error| Error::Usage(format!("this is no grok pattern: {error}")))?;
        let samples = read(&self.file)?;
        let mut framer = Framer::new(Framing::Lines, MESSAGE_BYTES_MAX);
        let (mut from, mut nth, mut unmatched) = (0, 0, 0);
        loop {
            let (step, consumed) = framer.step(&samples[from..], true);
            from += consumed;
            nth += 1;
            let shown = match step {
                Step::More => break,
                Step::Message(line) => Shown::of(nth, line, &patterns),
                Step::TooLong(_) => Shown::too_long(nth),
            };
            unmatched += usize::from(shown.pattern.is_none());
            print_data(&if self.json { shown.json() } else { shown.table() })?;
        }
        logging::say(format_args!("tested lines={} unmatched={unmatched}", nth - 1));
        Ok(if unmatched == 0 { Exit::Done } else { Exit::Differs })
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
            "{}: more than {SAMPLES_BYTES_MAX} bytes of samples",
            path.display()
        )));
    }
    Ok(samples)
}

/// What is shown of a line.
struct Shown {
    /// Which of the lines that are not empty, from 1.
    nth: usize,
    /// As the patterns saw it.
    line: String,
    /// Which pattern fits, from 1.
    pattern: Option<usize>,
    fields: Vec<(String, Value)>,
    microseconds: u128,
}

impl Shown {
    fn of(nth: usize, line: &[u8], patterns: &Patterns) -> Shown {
        let message = String::from_utf8_lossy(line);
        let arrived = Local::now();
        let line = header::parse(&message, &arrived).line(&arrived);
        let start = Instant::now();
        let found = patterns.fields(&line);
        let microseconds = start.elapsed().as_micros();
        let pattern = found.as_ref().map(|found| found.pattern + 1);
        let named = |Fields { fields, .. }: Fields<'_>| -> Vec<(String, Value)> {
            fields.iter().map(|(name, value)| ((*name).to_owned(), syslog::json(value))).collect()
        };
        let fields = found.map_or_else(Vec::new, named);
        Shown { nth, line, pattern, fields, microseconds }
    }

    fn too_long(nth: usize) -> Shown {
        let line = format!("(longer than {MESSAGE_BYTES_MAX} bytes, which is not taken)");
        Shown { nth, line, pattern: None, fields: Vec::new(), microseconds: 0 }
    }

    fn table(&self) -> String {
        let fits = self.pattern.map_or_else(|| "no pattern fits".to_owned(), |nth| format!("pattern {nth}"));
        let mut text = format!("line {}: {fits}, {} us\n", self.nth, self.microseconds);
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
            "line": self.nth, "pattern": self.pattern, "seen": self.line, "fields": fields,
            "microseconds": u64::try_from(self.microseconds).unwrap_or(u64::MAX),
        });
        format!("{object}\n")
    }
}
