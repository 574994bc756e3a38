//! `lea verify`: checks stored streams and events. Runs in the main thread; reads only, so a receiver may be running.

mod against;
mod events;
mod manifest;
mod offsets;

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::args::listing::{self, ManifestStatus, ReceiverState, StreamEntry};
use super::output::print_line;
use crate::cc::vault::manifest::ManifestState;
use crate::cmd::Command;
use crate::cmd::args::globals::Globals;
use crate::manual::{self, Example, Manual};
use crate::runtime::logging::{self, LevelFilter};
use crate::runtime::progress::{BYTES_TEMPLATE, Progress};
use crate::runtime::terminal::escape;
use crate::{Error, Exit, Result};

/// Size of a read.
const BUFFER_BYTES: usize = 256 << 10;

/// Check stored streams against manifests or the sent files, and stored events
///
/// The command reads each file and compares its length, SHA-256 and packets (number, first and last time, truncated bytes,
/// position of malformed data) with the manifest. An open file must have at least the bytes of its ended connections. A
/// file without a manifest, a manifest without its file, and lost bytes recorded in the manifest are differences too.
///
/// In a directory of Kafka streams, offsets that are missing between stored ones are differences: of each stream with records
/// on both sides, and of the directory. A dump that was filtered leaves such gaps, and so do the offsets that Kafka uses
/// for transactions, which most dumps do not show; decoding a complete dump or log segment closes them. Offsets that another
/// member of the consumer group has read are not differences here: `lea merge` checks them.
///
/// In a directory with an event store, the checksum of each page and of the log is checked, and whether all events are there that
/// were acknowledged: `damaged DIR/.lea/events.db: ...` names what is damaged, which events are lost, and how many can be read.
/// "lea events export --damaged" writes the latter.
///
/// Each difference is a line on stdout: `differs FILE: ...` or `missing FILE: ...`. A stream that is stored as its manifest
/// says can be damaged all the same: `damaged FILE: ...` names a capture that is cut within a packet or malformed, bytes that
/// may not be on the disk, and an open stream without a receiver. The exit status is 3 after any of these lines, else 0. The summary on stderr also says how many streams are still open, and how many closed files have no
/// SHA-256 to compare because they were received with --hash none.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Output directories, or stream files in them
    #[arg(value_name = "DIR|FILE", required = true)]
    paths: Vec<PathBuf>,
    /// Directory of sent files; each must be stored in one of the DIRs under its name, byte for byte, as any part
    #[arg(long, value_name = "SENT_DIR")]
    against: Option<PathBuf>,
    /// Print one JSON object per file
    #[arg(long)]
    json: bool,
}

impl Command for Args {
    const MANUAL: Manual = Manual {
        exits: &[(Exit::Incomplete, "A stream differs, is damaged or is missing, or events are damaged.")],
        files: &[manual::OUTPUT_FILES],
        examples: &[
            Example {
                text: "Check all streams in a directory against their manifests",
                command: "lea verify interceptions",
            },
            Example {
                text: "Check also that all sent files were stored",
                command: "lea verify interceptions --against sent",
            },
        ],
        see_also: &["lea-ls(1)", "lea-replay(1)", "lea-events-export(1)"],
        ..manual::EMPTY
    };

    fn run(self, globals: &Globals) -> Result<Exit> {
        logging::start(globals.level(LevelFilter::Warn));
        let stored = self.stored()?;
        let sent = self.against.as_deref().map(against::list).transpose()?.unwrap_or_default();
        let bytes = stored.iter().filter_map(|stored| stored.bytes).chain(sent.iter().map(|sent| sent.bytes));
        let mut run = Verifier::new(self.json, Progress::new(true, Some(bytes.sum()), BYTES_TEMPLATE));
        let mut receivers = ReceiverStates::default();
        for stored in &stored {
            let report = run.check_stored(stored, &mut receivers);
            match report.state {
                Some(ManifestState::Open) => run.open += 1,
                Some(_) if report.result != "missing" && report.hashed == Some(false) => run.unhashed += 1,
                Some(_) | None => {}
            }
            run.report(&report)?;
        }
        for dir in self.paths.iter().filter(|path| path.is_dir()) {
            offsets::check(dir)?.iter().try_for_each(|report| run.report(report))?;
            if let Some((report, events)) = events::check(dir, &mut |bytes| run.bar.inc(bytes))? {
                *run.events.get_or_insert(0) += events;
                run.report(&report)?;
            }
        }
        let index = against::StoredParts::new(&stored);
        for sent in &sent {
            let report = against::check(sent, &index, &mut |bytes| run.bar.inc(bytes));
            run.report(&report)?;
        }
        run.bar.finish_and_clear();
        let sent = self.against.as_ref().map(|_| sent.len());
        logging::status_line(format_args!("{}", run.summary(stored.len(), sent)));
        Ok(if run.differing + run.damaged == 0 { Exit::Done } else { Exit::Incomplete })
    }
}

impl Args {
    /// Returns the stream files that the arguments name, directly or by their directory.
    fn stored(&self) -> Result<Vec<StreamEntry>> {
        let mut found = Vec::new();
        for path in &self.paths {
            if path.is_dir() {
                found.extend(listing::list(path)?);
                continue;
            }
            if self.against.is_some() {
                let reason = "--against needs directories as arguments, not single files";
                return Err(Error::Usage(reason.to_owned()));
            }
            let stored = StreamEntry::read(&listing::stream_path(path));
            if stored.bytes.is_none() && stored.manifest == ManifestStatus::Missing {
                let missing = io::Error::new(io::ErrorKind::NotFound, "not a regular file or directory");
                let reason = path.symlink_metadata().err().unwrap_or(missing);
                return Err(Error::path("verify", path)(reason));
            }
            found.push(stored);
        }
        Ok(found)
    }
}

/// Result for one file; an object of the JSON output.
#[derive(Debug, Default, Serialize)]
struct VerifyReport {
    /// `manifest` for a stored file, `sent` for a sent file, `offsets` for a directory of Kafka streams, `events` for an event
    /// store.
    check: &'static str,
    /// Path of the stored or sent file, or of the directory.
    file: String,
    /// `ok`, `damaged`, `differs` or `missing`.
    result: &'static str,
    /// State in the manifest of a stored file.
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<ManifestState>,
    /// Stored file that is equal to a sent file.
    #[serde(skip_serializing_if = "Option::is_none")]
    stored: Option<String>,
    /// Bytes read from a stored file, or the length of the longest equal prefix of a sent file.
    bytes: u64,
    /// True if the SHA-256 of a stored file was compared.
    #[serde(skip_serializing_if = "Option::is_none")]
    hashed: Option<bool>,
    /// Differences, one text each.
    differences: Vec<String>,
}

impl VerifyReport {
    fn new(check: &'static str, file: String) -> VerifyReport {
        VerifyReport { check, file, result: "ok", ..VerifyReport::default() }
    }

    fn into_missing(mut self, difference: String) -> VerifyReport {
        self.result = "missing";
        self.differences.push(difference);
        self
    }

    /// Adds something that is wrong with the stream although it is stored as its manifest says.
    fn add_damage(&mut self, damage: String) {
        if self.differences.is_empty() {
            self.result = "damaged";
        }
        self.differences.push(damage);
    }

    fn add_difference(&mut self, difference: String) {
        self.result = "differs";
        self.differences.push(difference);
    }
}

struct Verifier {
    json: bool,
    bar: Progress,
    buffer: Vec<u8>,
    bytes: u64,
    /// Events in the event stores, if there are any stores.
    events: Option<u64>,
    /// Streams that are still open.
    open: usize,
    /// Closed files without a SHA-256 in their manifest.
    unhashed: usize,
    differing: usize,
    /// Streams that are stored as their manifests say, and whose manifests name damage.
    damaged: usize,
}

/// Whether receivers run in the directories of the files.
#[derive(Default)]
struct ReceiverStates(HashMap<PathBuf, ReceiverState>);

impl ReceiverStates {
    fn of(&mut self, stream_file: &Path) -> ReceiverState {
        let dir = stream_file.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        *self.0.entry(dir.to_owned()).or_insert_with(|| listing::receiver_state(dir))
    }
}

impl Verifier {
    fn new(json: bool, bar: Progress) -> Verifier {
        let buffer = vec![0; BUFFER_BYTES];
        Verifier { json, bar, buffer, bytes: 0, events: None, open: 0, unhashed: 0, differing: 0, damaged: 0 }
    }

    /// Returns the summary. `sent` is the number of sent files, if any were compared.
    fn summary(&self, files: usize, sent: Option<usize>) -> String {
        let Verifier { bytes, open, unhashed, differing, damaged, .. } = self;
        let sent = sent.map_or_else(String::new, |sent| format!(" sent={sent}"));
        let mut summary =
            format!("verified files={files}{sent} bytes={bytes} differing={differing} damaged={damaged}");
        if let Some(events) = self.events {
            summary += &format!(" events={events}");
        }
        match open {
            0 => {}
            1 => summary += "; 1 stream is still open",
            open => summary += &format!("; {open} streams are still open"),
        }
        match unhashed {
            0 => {}
            1 => summary += "; 1 file has no SHA-256 to compare",
            unhashed => summary += &format!("; {unhashed} files have no SHA-256 to compare"),
        }
        summary
    }

    /// Checks a stored file. A receiver may be writing it, so a file whose manifest changed meanwhile is checked again.
    fn check_stored(&mut self, stored: &StreamEntry, receivers: &mut ReceiverStates) -> VerifyReport {
        let mut manifest = stored.manifest.clone();
        for _ in 0..3 {
            let mut report =
                manifest::check(stored, &manifest, &mut self.buffer, &mut |bytes| self.bar.inc(bytes));
            let now = listing::read_manifest(&stored.path);
            if report.differences.is_empty() || now == manifest {
                let is_open = report.state == Some(ManifestState::Open);
                if is_open && receivers.of(&stored.path) == ReceiverState::Stopped {
                    report.add_damage(listing::ABANDONED.to_owned());
                }
                return report;
            }
            manifest = now;
        }
        let mut report = VerifyReport::new("manifest", escaped_path(&stored.path));
        report.add_difference("the manifest changes faster than it can be read: try again".to_owned());
        report
    }

    fn report(&mut self, report: &VerifyReport) -> Result<()> {
        self.bytes += report.bytes;
        match report.result {
            "ok" => {}
            "damaged" => self.damaged += 1,
            _ => self.differing += 1,
        }
        let (json, bar) = (self.json, &self.bar);
        // Hides the progress bar while a line is printed, if both are on a terminal.
        bar.suspend(|| print_report(report, json)).map(drop)
    }
}

/// Prints the result for one file. Returns false if the reader of stdout closed the pipe.
fn print_report(report: &VerifyReport, json: bool) -> Result<bool> {
    if json {
        let line =
            serde_json::to_string(report).map_err(|error| Error::system("format JSON")(error.into()))?;
        return print_line(&line);
    }
    let VerifyReport { result, file, differences, .. } = report;
    for difference in differences {
        if !print_line(&format!("{result} {file}: {difference}"))? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Formats a path for printing.
fn escaped_path(path: &Path) -> String {
    escape(&path.to_string_lossy())
}
