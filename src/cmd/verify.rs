//! `lea verify`: checks stored streams. Runs in the main thread; reads only, and may run beside a receiver.

mod against;
mod manifest;

use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use super::stored::{self, Found, Stored};
use crate::cc::vault::manifest::State;
use crate::cli::Globals;
use crate::logging::{self, LevelFilter};
use crate::{Error, Exit, Result};

/// A file is read in pieces of this size.
const BUFFER_BYTES: usize = 256 << 10;

/// Check stored streams against their manifests, or against what was sent
///
/// Each file is read once: its length, its SHA-256 and its packets (how many, the first and last time, cut-off
/// bytes, where its records stop making sense) must be those of its manifest. A file that still grows must have at
/// least the bytes of its ended connections. A file without a manifest, and a manifest without its file, are
/// differences too; so are bytes that the manifest says could not be written.
///
/// Each difference is a line on stdout: `differs FILE: ...`, or `missing FILE: ...`. The exit code is 3 if there is
/// one, and 0 if there is none. The summary on stderr counts as unhashed the files whose SHA-256 was not compared:
/// they are open, or were received with --hash none.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Folders that a receiver wrote to, or stream files in them
    #[arg(value_name = "DIR|FILE", required = true)]
    paths: Vec<PathBuf>,
    /// Each file of this folder must be stored, byte for byte, under its name in one of the DIRs, as whichever part
    #[arg(long, value_name = "SENT_DIR")]
    against: Option<PathBuf>,
    /// Print a JSON object a line, one for each file checked
    #[arg(long)]
    json: bool,
}

impl Args {
    /// Runs the command.
    pub fn run(self, globals: &Globals) -> Result<Exit> {
        logging::start(globals.level(LevelFilter::Warn));
        let stored = self.stored()?;
        let sent = self.against.as_deref().map(against::list).transpose()?.unwrap_or_default();
        let bytes = stored.iter().filter_map(|stored| stored.bytes).chain(sent.iter().map(|sent| sent.bytes));
        let mut run = Run::new(self.json, progress_bar(bytes.sum()));
        for stored in &stored {
            let report = run.check_stored(stored);
            run.unhashed += usize::from(report.hashed != Some(true));
            run.report(&report)?;
        }
        let index = against::Index::new(&stored);
        for sent in &sent {
            let report = against::check(sent, &index, &mut |bytes| run.bar.inc(bytes));
            run.report(&report)?;
        }
        run.bar.finish_and_clear();
        let Run { bytes, unhashed, differing, .. } = run;
        let (files, sent) = (stored.len(), sent.len());
        logging::say(format_args!(
            "verified files={files} unhashed={unhashed} sent={sent} bytes={bytes} differing={differing}"
        ));
        Ok(if differing == 0 { Exit::Done } else { Exit::Differs })
    }

    /// The stream files in the folders named, and those named themselves.
    fn stored(&self) -> Result<Vec<Stored>> {
        let mut found = Vec::new();
        for path in &self.paths {
            if path.is_dir() {
                found.extend(stored::list(path)?);
                continue;
            }
            if self.against.is_some() {
                let reason = "--against compares with folders, not with single files";
                return Err(Error::Usage(reason.to_owned()));
            }
            let stored = Stored::at(&stored::stream_path(path));
            if stored.bytes.is_none() && stored.manifest == Found::Nothing {
                let missing = io::Error::new(io::ErrorKind::NotFound, "it is no regular file or folder");
                let reason = path.symlink_metadata().err().unwrap_or(missing);
                return Err(Error::path("verify", path)(reason));
            }
            found.push(stored);
        }
        Ok(found)
    }
}

/// What was found of one file: an object of the JSON.
#[derive(Debug, Default, Serialize)]
struct Report {
    /// `manifest` or `sent`: what the file was compared with.
    check: &'static str,
    /// The stream file, or the sent file.
    file: String,
    /// `ok`, `differs` or `missing`.
    result: &'static str,
    /// Of a stored file: as its manifest says.
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<State>,
    /// Of a sent file: the stored file that is equal to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    stored: Option<String>,
    /// Bytes read of it; of a sent file, the first ones that some stored file has too.
    bytes: u64,
    /// Of a stored file: whether its SHA-256 was compared.
    #[serde(skip_serializing_if = "Option::is_none")]
    hashed: Option<bool>,
    /// What is wrong, an entry each.
    differences: Vec<String>,
}

impl Report {
    fn new(check: &'static str, file: String) -> Report {
        Report { check, file, result: "ok", ..Report::default() }
    }

    fn missing(mut self, difference: String) -> Report {
        self.result = "missing";
        self.differences.push(difference);
        self
    }

    fn differs(&mut self, difference: String) {
        self.result = "differs";
        self.differences.push(difference);
    }
}

struct Run {
    json: bool,
    bar: ProgressBar,
    buffer: Vec<u8>,
    bytes: u64,
    unhashed: usize,
    differing: usize,
}

impl Run {
    fn new(json: bool, bar: ProgressBar) -> Run {
        Run { json, bar, buffer: vec![0; BUFFER_BYTES], bytes: 0, unhashed: 0, differing: 0 }
    }

    /// Checks a stored file. A receiver may work on it meanwhile: what differs only because the manifest changed
    /// is looked at again.
    fn check_stored(&mut self, stored: &Stored) -> Report {
        let mut manifest = stored.manifest.clone();
        for _ in 0..3 {
            let report =
                manifest::check(stored, &manifest, &mut self.buffer, &mut |bytes| self.bar.inc(bytes));
            let now = stored::read_manifest(&stored.path);
            if report.differences.is_empty() || now == manifest {
                return report;
            }
            manifest = now;
        }
        let mut report = Report::new("manifest", shown(&stored.path));
        report.differs("its manifest changes faster than it can be read: try again".to_owned());
        report
    }

    fn report(&mut self, report: &Report) -> Result<()> {
        self.bytes += report.bytes;
        self.differing += usize::from(!report.differences.is_empty());
        let (json, bar) = (self.json, &self.bar);
        // The bar makes room for the lines where both are on a terminal.
        stored::printed(bar.suspend(|| print_report(report, json)))
    }
}

fn print_report(report: &Report, json: bool) -> io::Result<()> {
    if json {
        return logging::print(format_args!("{}", serde_json::to_string(report)?));
    }
    let Report { result, file, differences, .. } = report;
    differences.iter().try_for_each(|what| logging::print(format_args!("{result} {file}: {what}")))
}

/// A path as it is printed.
fn shown(path: &Path) -> String {
    stored::harmless(&path.to_string_lossy())
}

/// On a terminal only; what is written to a file or a pipe is not drawn over.
fn progress_bar(bytes: u64) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style =
        ProgressStyle::with_template("{bar:40} {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left");
    ProgressBar::new(bytes).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
