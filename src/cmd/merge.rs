//! `lea merge`: combines the output directories of a consumer group's members. Runs in the main thread; never changes its
//! input.

use std::path::PathBuf;

use serde::Serialize;

use super::args::output_dir::look_up_group;
use super::args::units;
use super::output::table::{self, Column};
use super::output::{json_lines, print_lines};
use crate::cc::vault::Access;
use crate::cc::vault::merge::{self, MergeConfig, MergeProblem, MergeReport, MergedStream, MissingRange};
use crate::cmd::Command;
use crate::cmd::args::globals::Globals;
use crate::limits::MachineLimits;
use crate::manual::{self, Example, Manual};
use crate::runtime::logging::{self, LevelFilter};
use crate::runtime::progress::Progress;
use crate::runtime::terminal::escape;
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

impl Command for Args {
    const MANUAL: Manual = Manual {
        exits: &[(Exit::Incomplete, "Finished, but offsets are missing or directories differ.")],
        files: &[manual::OUTPUT_FILES, manual::DEAD_LETTER_FILES],
        examples: &[Example {
            text: "Combine two output directories",
            command: "lea merge member1 member2 --output merged",
        }],
        see_also: &["lea-consume-kafka(1)", "lea-verify(1)"],
        ..manual::EMPTY
    };

    fn run(self, globals: &Globals) -> Result<Exit> {
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
        if self.json { print_json(&merged) } else { print_table(&merged) }?;
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
        directories: usize,
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
        directory: String,
        #[serde(skip_serializing_if = "str::is_empty")]
        file: &'a str,
        difference: &'a str,
    },
}

fn result_text(stream: &MergedStream) -> &'static str {
    if stream.is_joined { "joined" } else { "copied" }
}

fn print_json(merged: &MergeReport) -> Result<()> {
    let streams = merged.streams.iter().map(|stream| MergeLine::Stream {
        result: result_text(stream),
        files: &stream.files,
        bytes: stream.bytes,
        directories: stream.dirs,
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
        directory: problem.dir.to_string_lossy().into_owned(),
        file: &problem.file,
        difference: &problem.reason,
    });
    json_lines::print(streams.chain(missing).chain(problems))
}

/// Prints a table of the streams, then one line per problem.
fn print_table(merged: &MergeReport) -> Result<()> {
    let columns = [
        Column::new("RESULT").whole(),
        Column::new("NAME").shortened_to(28),
        Column::new("PARTS").number().dropped(2),
        Column::new("BYTES").number(),
        Column::new("DIRECTORIES").number().dropped(1),
        Column::new("CUT").number(),
    ];
    let cells = |stream: &MergedStream| {
        vec![
            result_text(stream).to_owned(),
            stream.files.first().map_or("-", String::as_str).to_owned(),
            stream.files.len().to_string(),
            stream.bytes.to_string(),
            stream.dirs.to_string(),
            stream.omitted_bytes.to_string(),
        ]
    };
    table::print(&columns, &merged.streams.iter().map(cells).collect::<Vec<_>>())?;
    let missing = merged.missing.iter().map(missing_text);
    print_lines(missing.chain(merged.problems.iter().map(problem_text)))
}

fn missing_text(missing: &MissingRange) -> String {
    let MissingRange { topic, partition, first_offset, next_offset, .. } = missing;
    let topic = escape(topic);
    match first_offset {
        Some(first) => format!("missing {topic}-{partition}: offsets {first} to {}", next_offset - 1),
        None => format!("missing {topic}-{partition}: offsets before {next_offset}"),
    }
}

fn problem_text(problem: &MergeProblem) -> String {
    let MergeProblem { dir, file, reason } = problem;
    let path = if file.is_empty() { dir.clone() } else { dir.join(file) };
    format!("differs {}: {}", escape(&path.to_string_lossy()), escape(reason))
}
