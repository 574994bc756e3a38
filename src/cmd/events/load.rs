//! `lea events load`: loads event files into a store. Main thread.
//!
//! Invariant: each line is stored once, even if a file is loaded twice or a run is interrupted. The id of a
//! line is a hash of its index, its text and the number of equal lines before it in the file, and a document
//! whose id exists is left alone. So equal lines are separate events, and adding or removing lines does not
//! change the ids of other lines.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

use super::line::{self, LineError};
use crate::cc::wire::rubydebug;
use crate::cmd::Command;
use crate::cmd::args::globals::Globals;
use crate::cmd::args::query::{StoreTargetArgs, load_normalizer};
use crate::daemon::settings::Settings;
use crate::iri::event::EventIndices;
use crate::manual::{self, Example, Manual};
use crate::runtime::logging::{self, LevelFilter};
use crate::runtime::terminal::escape;
use crate::search::dead_letters;
use crate::search::document::{Document, SOURCE_BYTES_MAX, WriteMode, check_index_name};
use crate::search::source::{EventSource, WriteOutcome};
use crate::search::sqlite::StoreConfig;
use crate::{Error, Exit, Result};

/// Maximum line length: that of a dead letter with a six-byte escape for each byte.
const LINE_BYTES_MAX: u64 = 6 * SOURCE_BYTES_MAX as u64 + 4_096;

/// Maximum number and size of events in one write.
const BATCH_MAX: usize = 1_000;
const BATCH_BYTES_MAX: usize = 1 << 20;

/// Maximum number of rejected lines that are logged one by one.
const REPORTED_MAX: u64 = 100;

/// Load events from files
///
/// Accepts JSON lines as senders send them, dead letters (the event inside is loaded), objects with _index, _id
/// and _source, as printed by "lea search --json", and events over several lines: pretty-printed, or as the
/// rubydebug codec of Logstash prints them. Without FILE, the dead letters of the
/// directory are loaded again; those that still cannot be stored stay there. Other files are not changed.
///
/// Each line is stored once, even if a file is loaded twice or a run is interrupted. A line without _id gets
/// an id from a hash of its index, its text and the number of equal lines before it, so equal lines are
/// separate events.
///
/// If a running lea uses the directory, load into the URL of that lea instead.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Files to load; - is standard input [default: the directory's dead letters]
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Index for events without one [default: chosen as for received lines]
    #[arg(long, value_name = "INDEX", value_parser = parse_index)]
    index: Option<String>,
    #[command(flatten)]
    store_target: StoreTargetArgs,
}

fn parse_index(text: &str) -> Result<String, String> {
    check_index_name(text).map(|()| text.to_owned()).map_err(str::to_owned)
}

impl Command for Args {
    const MANUAL: Manual = Manual {
        exits: &[manual::INCOMPLETE],
        examples: &[
            Example {
                text: "Load a file of events",
                command: "lea events load events.jsonl --store interceptions",
            },
            Example {
                text: "Load the dead letters of a directory again",
                command: "lea events load --store interceptions",
            },
        ],
        see_also: &["lea-serve-events(1)", "lea-search(1)"],
        ..manual::EVENT_QUERY
    };

    fn run(self, globals: &Globals) -> Result<Exit> {
        logging::start(globals.level(LevelFilter::Info));
        let settings = self.store_target.load_settings()?;
        let indices = self.indices(&settings);
        // A store is created only if every file is there.
        for path in self.files.iter().filter(|path| *path != Path::new("-")) {
            File::open(path).map_err(Error::path("open", path))?;
        }
        let store = self.open_store(&settings)?;
        let mut summary = LoadSummary::default();
        if self.files.is_empty() {
            self.load_dead_letters(&store, &indices, &mut summary)?;
        }
        for path in &self.files {
            FileLoader::new(path, &store, &indices, None).load_file(open_input(path)?, &mut summary)?;
        }
        let LoadSummary { stored, duplicates, rejected } = summary;
        logging::status_line(format_args!(
            "loaded stored={stored} duplicates={duplicates} rejected={rejected}"
        ));
        Ok(if rejected == 0 { Exit::Done } else { Exit::Incomplete })
    }
}

impl Args {
    /// The indices for events without one.
    fn indices(&self, settings: &Settings) -> EventIndices {
        match &self.index {
            Some(index) => EventIndices {
                calls: index.clone(),
                sentrypeer: index.clone(),
                syslog: index.clone(),
                billing: index.clone(),
            },
            None => settings.events.indices.clone(),
        }
    }

    fn open_store(&self, settings: &Settings) -> Result<EventSource> {
        let target = self.store_target.target();
        if target.is_url() && self.files.is_empty() {
            return Err(Error::Usage(
                "FILE is missing (only a directory has dead letters to load)".to_owned(),
            ));
        }
        let templates = settings.events.indices.templates();
        let config = StoreConfig { templates, ..StoreConfig::default() };
        EventSource::open_for_writing(&target, config.with_normalizer(load_normalizer(settings)?))
    }

    /// Loads the directory's own dead letters. The store is open for writing, so no other lea adds to the
    /// file meanwhile.
    fn load_dead_letters(
        &self,
        store: &EventSource,
        indices: &EventIndices,
        summary: &mut LoadSummary,
    ) -> Result<()> {
        let own = Path::new(&self.store_target.store).join(".lea");
        let (path, rest_path) =
            (own.join(dead_letters::FILE_NAME), own.join(format!("{}.new", dead_letters::FILE_NAME)));
        let from = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            opened => opened.map_err(Error::path("open", &path))?,
        };
        let mut options = File::options();
        options.write(true).create(true).truncate(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
        let rest = options.open(&rest_path).map_err(Error::path("open", &rest_path))?;
        let mut load = FileLoader::new(&path, store, indices, Some(BufWriter::new(rest)));
        load.load_file(from, summary)?;
        let failed = || Error::path("write", &rest_path);
        if let Some(rest) = load.rest {
            let rest = rest.into_inner().map_err(|error| failed()(error.into_error()))?;
            rest.sync_all().map_err(failed())?;
        }
        std::fs::rename(&rest_path, &path).map_err(Error::path("replace", &path))?;
        File::open(&own).and_then(|own| own.sync_all()).map_err(Error::path("sync", &own))
    }
}

fn open_input(path: &Path) -> Result<Box<dyn Read>> {
    Ok(if path == Path::new("-") {
        Box::new(io::stdin().lock())
    } else {
        Box::new(File::open(path).map_err(Error::path("open", path))?)
    })
}

#[derive(Clone, Copy, Debug, Default)]
struct LoadSummary {
    stored: u64,
    duplicates: u64,
    rejected: u64,
}

/// One file that is being loaded.
struct FileLoader<'a> {
    path: &'a Path,
    store: &'a EventSource,
    indices: &'a EventIndices,
    /// Destination of rejected lines, if they are kept.
    rest: Option<BufWriter<File>>,
    /// Number of equal lines so far, by hash.
    seen: HashMap<u64, u32>,
    batch: Vec<LoadedLine>,
    bytes: usize,
}

struct LoadedLine {
    no: u64,
    text: Vec<u8>,
    document: Document,
}

impl<'a> FileLoader<'a> {
    fn new(
        path: &'a Path,
        store: &'a EventSource,
        indices: &'a EventIndices,
        rest: Option<BufWriter<File>>,
    ) -> FileLoader<'a> {
        FileLoader { path, store, indices, rest, seen: HashMap::new(), batch: Vec::new(), bytes: 0 }
    }

    fn load_file(&mut self, from: impl Read, summary: &mut LoadSummary) -> Result<()> {
        let mut lines = BufReader::with_capacity(256 << 10, from);
        let mut lines_read = 0;
        loop {
            lines_read += 1;
            let no = lines_read;
            let mut text = Vec::new();
            let read = (&mut lines).take(LINE_BYTES_MAX).read_until(b'\n', &mut text);
            if read.map_err(Error::path("read", self.path))? == 0 {
                break;
            }
            if text.last() != Some(&b'\n') && text.len() as u64 == LINE_BYTES_MAX {
                self.skip_long_line(&mut lines, &text)?;
                self.report_rejected(no, &format!("longer than {LINE_BYTES_MAX} bytes"), summary);
                continue;
            }
            if text.trim_ascii() == b"{" {
                lines_read += read_object(&mut lines, &mut text).map_err(Error::path("read", self.path))?;
            }
            match self.document(&text) {
                None => {}
                Some(Ok(document)) => {
                    self.bytes += text.len();
                    self.batch.push(LoadedLine { no, text, document });
                }
                Some(Err(error)) => {
                    self.keep_rejected(&text)?;
                    self.report_rejected(no, &error.to_string(), summary);
                }
            }
            if self.batch.len() >= BATCH_MAX || self.bytes >= BATCH_BYTES_MAX {
                self.write_batch(summary)?;
            }
        }
        self.write_batch(summary)
    }

    /// Parses a line and sets its id; `None` for an empty line.
    fn document(&mut self, text: &[u8]) -> Option<Result<Document, LineError>> {
        let text = text.trim_ascii();
        if text.is_empty() {
            return None;
        }
        let mut document = match line::parse_line(text, self.indices) {
            Ok(document) => document,
            Err(error) => return Some(Err(error)),
        };
        if document.id.is_none() {
            let hash = Sha256::new().chain_update(&document.index).chain_update([0]).chain_update(text);
            let equal = self.seen.entry(hash_prefix(hash.clone())).or_default();
            let id = hash.chain_update([0]).chain_update(equal.to_be_bytes()).finalize();
            *equal += 1;
            document.id = Some(format!("load-{}", URL_SAFE_NO_PAD.encode(&id[..20])));
        }
        document.mode = WriteMode::Create;
        Some(Ok(document))
    }

    fn write_batch(&mut self, summary: &mut LoadSummary) -> Result<()> {
        let batch = std::mem::take(&mut self.batch);
        self.bytes = 0;
        let documents: Vec<Document> = batch.iter().map(|line| line.document.clone()).collect();
        for (line, outcome) in batch.iter().zip(self.store.write(documents)?) {
            match outcome {
                WriteOutcome::Stored => summary.stored += 1,
                WriteOutcome::AlreadyExists => summary.duplicates += 1,
                WriteOutcome::Rejected(reason) => {
                    self.keep_rejected(&line.text)?;
                    self.report_rejected(line.no, &reason, summary);
                }
            }
        }
        Ok(())
    }

    fn report_rejected(&self, no: u64, reason: &str, summary: &mut LoadSummary) {
        summary.rejected += 1;
        if summary.rejected <= REPORTED_MAX {
            let file = escape(&self.path.to_string_lossy());
            log::warn!("event_rejected file={file:?} line={no} reason=\"{}\"", escape(reason));
        }
    }

    /// Keeps a rejected line, if they are kept.
    fn keep_rejected(&mut self, text: &[u8]) -> Result<()> {
        let Some(rest) = &mut self.rest else { return Ok(()) };
        let end: &[u8] = if text.ends_with(b"\n") { b"" } else { b"\n" };
        rest.write_all(text)
            .and_then(|()| rest.write_all(end))
            .map_err(Error::path("write the rejected lines of", self.path))
    }

    /// Skips the rest of a line that is too long, and keeps it if rejected lines are kept.
    fn skip_long_line(&mut self, lines: &mut impl BufRead, begin: &[u8]) -> Result<()> {
        let mut piece = begin.to_vec();
        loop {
            if let Some(rest) = &mut self.rest {
                rest.write_all(&piece).map_err(Error::path("write the rejected lines of", self.path))?;
            }
            if piece.is_empty() || piece.ends_with(b"\n") {
                return Ok(());
            }
            piece.clear();
            let read = lines.take(LINE_BYTES_MAX).read_until(b'\n', &mut piece);
            read.map_err(Error::path("read", self.path))?;
        }
    }
}

/// Reads the other lines of an event whose first line is a brace, and puts the event on one line. Returns the number of
/// lines.
fn read_object(lines: &mut impl BufRead, text: &mut Vec<u8>) -> io::Result<u64> {
    let mut count = 0;
    loop {
        let start = text.len();
        let left = LINE_BYTES_MAX.saturating_sub(start as u64);
        if lines.by_ref().take(left).read_until(b'\n', text)? == 0 {
            break;
        }
        count += 1;
        // Members are indented.
        if text[start..].trim_ascii_end() == b"}" {
            break;
        }
    }
    match rubydebug::to_json(text) {
        Some(json) => *text = json,
        // JSON has no line ends in strings.
        None => text.iter_mut().filter(|byte| matches!(byte, b'\n' | b'\r')).for_each(|byte| *byte = b' '),
    }
    Ok(count)
}

/// Shortens a hash. A collision only changes the numbering of two lines, in the same way each time.
fn hash_prefix(hash: Sha256) -> u64 {
    let hash = hash.finalize();
    hash.iter().take(8).fold(0, |short, byte| short << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_object(rest: &str, expected: &str, lines: u64, left: &str) {
        let mut text = b"{\n".to_vec();
        let mut from = rest.as_bytes();
        assert_eq!(read_object(&mut from, &mut text).unwrap(), lines, "{rest}");
        assert_eq!(
            (std::str::from_utf8(&text).unwrap(), std::str::from_utf8(from).unwrap()),
            (expected, left)
        );
    }

    #[test]
    fn an_event_over_several_lines_becomes_one_line() {
        check_object("  \"a\": {\n  }\n}\n{\n", "{   \"a\": {   } } ", 3, "{\n");
        check_object(
            "    \"event\" => \"start_call\",\n     \"n\" => nil\n}\nrest",
            "{\"event\":\"start_call\",\"n\":null}",
            3,
            "rest",
        );
        // The end of the file comes first.
        check_object("  \"a\": 1", "{   \"a\": 1", 1, "");
    }
}
