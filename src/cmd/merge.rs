//! `lea merge`: the folders of a group's members into one. Runs in the main thread; what it reads stays as it is.

use std::io::{self, IsTerminal};
use std::path::PathBuf;

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use super::service::group_id;
use super::stored::{self, harmless};
use super::values;
use crate::cc::vault::Access;
use crate::cc::vault::merge::{self, MergeConfig, Merged, MissingRange, Problem, Stream};
use crate::cli::Globals;
use crate::limits::Machine;
use crate::logging::{self, LevelFilter};
use crate::{Error, Exit, Result};

/// Put the folders of several consumers together
///
/// Each member of a group has a folder of its own. This makes one folder of them, with one exact file a stream and its
/// manifest: records in the order of their offsets, each once. Where a member died and another one went on, both may
/// have some records; the first one's file is then cut at the offset where the other went on. A member that was killed
/// need not be started again first.
///
/// The folders are read and never changed; none may be in use. The output must be empty or not there, and appears when
/// all is done: a merge that was cut off is simply started again.
///
/// RESULT is copied (one folder alone has the stream: files and manifests are copies) or joined. CUT counts bytes that
/// another folder has too. Streams of one name over TCP in several folders are joined as a receiver does with a
/// re-send: equal bytes once, a difference makes a part of its own. Offsets that no folder has read are lines
/// `missing`, whatever else is wrong `differs`; the exit code is 3 if there is one.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Folders that members wrote to
    #[arg(value_name = "DIR", required = true)]
    dirs: Vec<PathBuf>,
    /// Folder to make
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    /// Permission bits of stream files and manifests, in octal; folders that are made get the matching ones
    #[arg(long, value_name = "MODE", default_value = "0600", value_parser = values::mode)]
    file_mode: u32,
    /// Group that stream files, manifests and folders that are made belong to, by name or number
    #[arg(long, value_name = "GROUP")]
    file_group: Option<String>,
    /// Print a JSON object a line, one for each stream, range and difference
    #[arg(long)]
    json: bool,
}

impl Args {
    /// Runs the command.
    pub fn run(self, globals: &Globals) -> Result<Exit> {
        logging::start(globals.level(LevelFilter::Warn));
        let group = self.file_group.as_deref().map(group_id).transpose()?;
        let config = MergeConfig {
            dirs: self.dirs,
            output: self.output,
            access: Access { file_mode: self.file_mode, group },
            hash: true,
            descriptors: Machine::prepare().descriptors_shared(),
        };
        let bar = progress_bar()?;
        let merged = merge::merge(&config, &mut |bytes, all| {
            bar.set_length(all);
            bar.set_position(bytes);
        });
        bar.finish_and_clear();
        let merged = merged?;
        stored::printed(if self.json { print_json(&merged) } else { print_table(&merged) })?;
        let joined = merged.streams.iter().filter(|stream| stream.joined).count();
        logging::say(format_args!(
            "merged streams={} joined={joined} bytes={} cut_bytes={} dead_letters={} missing={} differing={}",
            merged.streams.len(),
            merged.streams.iter().map(|stream| stream.bytes).sum::<u64>(),
            merged.streams.iter().map(|stream| stream.cut_bytes).sum::<u64>(),
            merged.dead_letters,
            merged.missing.len(),
            merged.problems.len(),
        ));
        let whole = merged.missing.is_empty() && merged.problems.is_empty();
        Ok(if whole { Exit::Done } else { Exit::Differs })
    }
}

fn progress_bar() -> Result<ProgressBar> {
    if !io::stderr().is_terminal() {
        return Ok(ProgressBar::hidden());
    }
    let style = ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes} {bytes_per_sec} {eta}")
        .map_err(|error| Error::System { act: "make a progress bar", source: io::Error::other(error) })?;
    Ok(ProgressBar::new(0).with_style(style))
}

/// An object of the JSON.
#[derive(Serialize)]
#[serde(untagged)]
enum Row<'a> {
    Stream {
        result: &'static str,
        files: &'a [String],
        bytes: u64,
        folders: usize,
        cut_bytes: u64,
    },
    Missing {
        result: &'static str,
        topic: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        topic_id: Option<&'a str>,
        partition: i32,
        /// None where it is only known that offsets below `next_offset` were read.
        #[serde(skip_serializing_if = "Option::is_none")]
        first_offset: Option<i64>,
        next_offset: i64,
    },
    Differs {
        result: &'static str,
        folder: String,
        #[serde(skip_serializing_if = "str::is_empty")]
        file: &'a str,
        difference: &'a str,
    },
}

fn word(stream: &Stream) -> &'static str {
    if stream.joined { "joined" } else { "copied" }
}

fn print_json(merged: &Merged) -> io::Result<()> {
    let streams = merged.streams.iter().map(|stream| Row::Stream {
        result: word(stream),
        files: &stream.files,
        bytes: stream.bytes,
        folders: stream.folders,
        cut_bytes: stream.cut_bytes,
    });
    let missing = merged.missing.iter().map(|missing| Row::Missing {
        result: "missing",
        topic: &missing.topic,
        topic_id: missing.topic_id.as_deref(),
        partition: missing.partition,
        first_offset: missing.first_offset,
        next_offset: missing.next_offset,
    });
    let problems = merged.problems.iter().map(|problem| Row::Differs {
        result: "differs",
        folder: problem.folder.to_string_lossy().into_owned(),
        file: &problem.file,
        difference: &problem.what,
    });
    let mut rows = streams.chain(missing).chain(problems);
    rows.try_for_each(|row| logging::print(format_args!("{}", serde_json::to_string(&row)?)))
}

/// Columns as wide as their widest cell, numbers to the right; below them a line for each thing that is wrong.
fn print_table(merged: &Merged) -> io::Result<()> {
    let cells = |stream: &Stream| {
        let name = harmless(stream.files.first().map_or("-", String::as_str));
        [
            word(stream).to_owned(),
            name,
            stream.files.len().to_string(),
            stream.bytes.to_string(),
            stream.folders.to_string(),
            stream.cut_bytes.to_string(),
        ]
    };
    let head = ["RESULT", "NAME", "PARTS", "BYTES", "FOLDERS", "CUT"].map(str::to_owned);
    let lines: Vec<[String; 6]> = std::iter::once(head).chain(merged.streams.iter().map(cells)).collect();
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let [result, name, parts, bytes, folders, cut] = [0, 1, 2, 3, 4, 5].map(width);
    for [a, b, c, d, e, f] in &lines {
        logging::print(format_args!(
            "{a:<result$}  {b:<name$}  {c:>parts$}  {d:>bytes$}  {e:>folders$}  {f:>cut$}"
        ))?;
    }
    for missing in &merged.missing {
        let MissingRange { topic, partition, first_offset, next_offset, .. } = missing;
        let topic = harmless(topic);
        match first_offset {
            Some(first) => {
                let last = next_offset - 1;
                logging::print(format_args!("missing {topic}-{partition}: offsets {first} to {last}"))?;
            }
            None => {
                logging::print(format_args!("missing {topic}-{partition}: offsets before {next_offset}"))?
            }
        }
    }
    for Problem { folder, file, what } in &merged.problems {
        let at = if file.is_empty() { folder.clone() } else { folder.join(file) };
        logging::print(format_args!("differs {}: {}", harmless(&at.to_string_lossy()), harmless(what)))?;
    }
    Ok(())
}
