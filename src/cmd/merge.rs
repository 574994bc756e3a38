//! `lea merge`: combines the output directories of a consumer group's members. Runs in the main thread; never changes its
//! input.

use std::io;
use std::path::PathBuf;

use serde::Serialize;

use super::args::listing::{self, escape};
use super::args::output_dir::look_up_group;
use super::args::units;
use crate::cc::vault::Access;
use crate::cc::vault::merge::{self, MergeConfig, MergeProblem, MergeReport, MergedStream, MissingRange};
use crate::cli::Globals;
use crate::limits::MachineLimits;
use crate::runtime::logging::{self, LevelFilter};
use crate::runtime::progress::Progress;
use crate::{Exit, Result};

/// Combine the output directories of several consumers
///
/// Each member of a consumer group has its own output directory. This command combines them into a new directory with one
/// exact file and manifest per stream: each record once, in the order of offsets. If a member died and another one took
/// over, both may have some records; the first member's file is then truncated where the other one continued.
///
/// The input directories are not changed, and no process may be writing to them. A member that was killed need not be
/// restarted first. The output directory must be empty or absent. It appears when the merge is complete, so an interrupted
/// merge can simply be repeated.
///
/// RESULT is `copied` (one directory has the stream; file and manifest are copies) or `joined`. CUT is the number of bytes
/// that another directory also has. Streams received over TCP under one name in several directories are joined like
/// re-sends: equal bytes once, different content as a new part. Offsets that no directory has are reported as `missing`,
/// other problems as `differs`; the exit status is 3 if there is one.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Output directories of the group's members
    #[arg(value_name = "DIR", required = true)]
    dirs: Vec<PathBuf>,
    /// Directory to create
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    /// Permission bits of stream files and manifests, in octal; created directories get the matching bits
    #[arg(long, value_name = "MODE", default_value = "0600", value_parser = units::mode)]
    file_mode: u32,
    /// Group (name or number) that owns stream files, manifests and created directories
    #[arg(long, value_name = "GROUP")]
    file_group: Option<String>,
    /// Print one JSON object per stream, missing range and difference
    #[arg(long)]
    json: bool,
}

impl Args {
    pub(crate) fn run(self, globals: &Globals) -> Result<Exit> {
        logging::start(globals.level(LevelFilter::Warn));
        let group = self.file_group.as_deref().map(look_up_group).transpose()?;
        let config = MergeConfig {
            dirs: self.dirs,
            output: self.output,
            access: Access { file_mode: self.file_mode, group },
            hash: true,
            descriptors: MachineLimits::detect().descriptors_shared(),
        };
        let bar = Progress::new(true, Some(0), "{bar:40} {bytes}/{total_bytes} {bytes_per_sec} {eta}");
        let merged = merge::merge(&config, &mut |bytes, all| {
            bar.set_length(all);
            bar.set_position(bytes);
        });
        drop(bar);
        let merged = merged?;
        listing::ignore_broken_pipe(if self.json { print_json(&merged) } else { print_table(&merged) })?;
        let joined = merged.streams.iter().filter(|stream| stream.is_joined).count();
        logging::status_line(format_args!(
            "merged streams={} joined={joined} bytes={} cut_bytes={} dead_letters={} missing={} differing={}",
            merged.streams.len(),
            merged.streams.iter().map(|stream| stream.bytes).sum::<u64>(),
            merged.streams.iter().map(|stream| stream.omitted_bytes).sum::<u64>(),
            merged.dead_letters,
            merged.missing.len(),
            merged.problems.len(),
        ));
        let whole = merged.missing.is_empty() && merged.problems.is_empty();
        Ok(if whole { Exit::Done } else { Exit::Incomplete })
    }
}

/// One object of the JSON output.
#[derive(Serialize)]
#[serde(untagged)]
enum MergeLine<'a> {
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
        /// None if the start of the missing range is unknown.
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

fn result_text(stream: &MergedStream) -> &'static str {
    if stream.is_joined { "joined" } else { "copied" }
}

fn print_json(merged: &MergeReport) -> io::Result<()> {
    let streams = merged.streams.iter().map(|stream| MergeLine::Stream {
        result: result_text(stream),
        files: &stream.files,
        bytes: stream.bytes,
        folders: stream.dirs,
        cut_bytes: stream.omitted_bytes,
    });
    let missing = merged.missing.iter().map(|missing| MergeLine::Missing {
        result: "missing",
        topic: &missing.topic,
        topic_id: missing.topic_id.as_deref(),
        partition: missing.partition,
        first_offset: missing.first_offset,
        next_offset: missing.next_offset,
    });
    let problems = merged.problems.iter().map(|problem| MergeLine::Differs {
        result: "differs",
        folder: problem.dir.to_string_lossy().into_owned(),
        file: &problem.file,
        difference: &problem.reason,
    });
    let mut rows = streams.chain(missing).chain(problems);
    rows.try_for_each(|row| logging::print_line(format_args!("{}", serde_json::to_string(&row)?)))
}

/// Prints columns as wide as their widest cell with numbers right-aligned, then one line per problem.
fn print_table(merged: &MergeReport) -> io::Result<()> {
    let cells = |stream: &MergedStream| {
        let name = escape(stream.files.first().map_or("-", String::as_str));
        [
            result_text(stream).to_owned(),
            name,
            stream.files.len().to_string(),
            stream.bytes.to_string(),
            stream.dirs.to_string(),
            stream.omitted_bytes.to_string(),
        ]
    };
    let head = ["RESULT", "NAME", "PARTS", "BYTES", "FOLDERS", "CUT"].map(str::to_owned);
    let lines: Vec<[String; 6]> = std::iter::once(head).chain(merged.streams.iter().map(cells)).collect();
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let [result, name, parts, bytes, folders, cut] = [0, 1, 2, 3, 4, 5].map(width);
    for [a, b, c, d, e, f] in &lines {
        logging::print_line(format_args!(
            "{a:<result$}  {b:<name$}  {c:>parts$}  {d:>bytes$}  {e:>folders$}  {f:>cut$}"
        ))?;
    }
    for missing in &merged.missing {
        let MissingRange { topic, partition, first_offset, next_offset, .. } = missing;
        let topic = escape(topic);
        match first_offset {
            Some(first) => {
                let last = next_offset - 1;
                logging::print_line(format_args!("missing {topic}-{partition}: offsets {first} to {last}"))?;
            }
            None => logging::print_line(format_args!(
                "missing {topic}-{partition}: offsets before {next_offset}"
            ))?,
        }
    }
    for MergeProblem { dir: folder, file, reason: what } in &merged.problems {
        let at = if file.is_empty() { folder.clone() } else { folder.join(file) };
        logging::print_line(format_args!("differs {}: {}", escape(&at.to_string_lossy()), escape(what)))?;
    }
    Ok(())
}
