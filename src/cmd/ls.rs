//! `lea ls`: lists the streams in an output directory. Runs in the main thread; reads manifests and file lengths only.

use std::io;
use std::path::PathBuf;

use chrono::DateTime;
use log::warn;
use serde::Serialize;

use super::args::listing::{self, ManifestStatus, StreamEntry, escape};
use crate::cc::vault::manifest::{EndReason, Manifest, ManifestState, StreamConnection};
use crate::cli::Globals;
use crate::runtime::logging::{self, LevelFilter};
use crate::{Exit, Result};

/// List the streams in an output directory
///
/// STATE is one of: open (still growing, or the receiver was killed and not restarted yet), closed, recovered (was open
/// when the receiver was killed), foreign (a file without a manifest), missing (a manifest without its file), unusable
/// (the manifest cannot be read). NAME is the file name in DIR.
///
/// BYTES of an open stream is the current length of its file. Its packets and duration are known when it ends. DURATION
/// is the time from the first packet to the last, or from the first byte to the last if the stream is not a capture.
/// PEER and END describe the last connection.
///
/// The exit status is 3 if a manifest is unusable or a file is missing.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Output directory of a receiver (its --output)
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Print one JSON object per stream
    #[arg(long)]
    json: bool,
}

impl Args {
    pub(crate) fn run(self, globals: &Globals) -> Result<Exit> {
        logging::start(globals.level(LevelFilter::Warn));
        let stored = listing::list(&self.dir)?;
        let rows: Vec<StreamRow> = stored.iter().map(StreamRow::new).collect();
        listing::ignore_broken_pipe(if self.json { print_json(&rows) } else { print_table(&rows) })?;
        let damaged = rows.iter().any(|row| matches!(row.state, "unusable" | "missing"));
        Ok(if damaged { Exit::Incomplete } else { Exit::Done })
    }
}

/// One row of the table, or one object of the JSON output. Unknown values are left out.
#[derive(Debug, Serialize)]
struct StreamRow {
    state: &'static str,
    /// Stream name as sent; a foreign file has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name_hex: Option<String>,
    /// File name in the directory.
    file: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    packets: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    duration_ms: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    peer: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    connected_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ended_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    end_reason: Option<EndReason>,
}

impl StreamRow {
    fn new(stored: &StreamEntry) -> StreamRow {
        let mut row = StreamRow {
            state: "foreign",
            name: None,
            name_hex: None,
            file: stored.path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            bytes: stored.bytes,
            packets: None,
            duration_ms: None,
            peer: None,
            connected_at: None,
            ended_at: None,
            end_reason: None,
        };
        match &stored.manifest {
            ManifestStatus::Valid(manifest) => row.fill_from(manifest, stored.bytes.is_some()),
            ManifestStatus::Missing => {}
            ManifestStatus::Invalid(reason) => {
                warn!("manifest_unusable file={} reason={reason:?}", stored.escaped_name());
                row.state = "unusable";
            }
        }
        if row.state == "missing" {
            warn!("file_missing file={}", stored.escaped_name());
        }
        row
    }

    fn fill_from(&mut self, manifest: &Manifest, present: bool) {
        self.state = match manifest.state {
            _ if !present => "missing",
            ManifestState::Open => "open",
            ManifestState::Closed => "closed",
            ManifestState::Recovered => "recovered",
        };
        self.name = Some(manifest.name.clone());
        self.name_hex = manifest.name_hex.clone();
        if manifest.state != ManifestState::Open {
            self.packets = Some(manifest.capture.packets);
            self.duration_ms = duration_ms(manifest);
        }
        if let Some(last) = manifest.connections.last() {
            self.peer = Some(last.peer.clone());
            self.connected_at = Some(last.connected_at.clone());
            self.ended_at = last.ended_at.clone();
            self.end_reason = last.end_reason;
        }
    }

    fn cells(&self) -> [String; 7] {
        let or_dash = |cell: Option<String>| cell.unwrap_or_else(|| "-".to_owned());
        let end: Vec<String> =
            self.ended_at.clone().into_iter().chain(self.end_reason.map(end_reason_text)).collect();
        [
            self.state.to_owned(),
            escape(&self.file),
            or_dash(self.bytes.map(|bytes| bytes.to_string())),
            or_dash(self.packets.map(|packets| packets.to_string())),
            or_dash(self.duration_ms.map(duration_text)),
            or_dash(self.peer.as_deref().map(escape)),
            if end.is_empty() { "-".to_owned() } else { escape(&end.join(" ")) },
        ]
    }
}

/// Returns the time from the first packet to the last, or from the first byte to the last if there are no packets.
fn duration_ms(manifest: &Manifest) -> Option<i64> {
    if let (Some(first), Some(last)) = (manifest.capture.first_packet_ns, manifest.capture.last_packet_ns) {
        return Some(last.saturating_sub(first) / 1_000_000);
    }
    let time = |text: &str| DateTime::parse_from_rfc3339(text).ok();
    let first = manifest
        .connections
        .iter()
        .find_map(|StreamConnection { first_byte_at, .. }| first_byte_at.as_deref());
    let last = manifest.connections.iter().rev().find_map(|connection| connection.last_byte_at.as_deref());
    Some((time(last?)? - time(first?)?).num_milliseconds())
}

/// Formats a duration as `0:00:05.208`. Packets out of order can make it negative.
fn duration_text(ms: i64) -> String {
    let (sign, ms) = (if ms < 0 { "-" } else { "" }, ms.unsigned_abs());
    let (seconds, minutes, hours) = (ms / 1_000 % 60, ms / 60_000 % 60, ms / 3_600_000);
    format!("{sign}{hours}:{minutes:02}:{seconds:02}.{:03}", ms % 1_000)
}

/// Returns the end reason as written in the manifest.
fn end_reason_text(reason: EndReason) -> String {
    let word = serde_json::to_value(reason).ok();
    word.as_ref().and_then(|word| word.as_str()).unwrap_or("-").to_owned()
}

fn print_json(rows: &[StreamRow]) -> io::Result<()> {
    rows.iter().try_for_each(|row| logging::print_line(format_args!("{}", serde_json::to_string(row)?)))
}

/// Prints columns as wide as their widest cell, with numbers right-aligned.
fn print_table(rows: &[StreamRow]) -> io::Result<()> {
    let head = ["STATE", "NAME", "BYTES", "PACKETS", "DURATION", "PEER", "END"].map(str::to_owned);
    let lines: Vec<[String; 7]> = std::iter::once(head).chain(rows.iter().map(StreamRow::cells)).collect();
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let [state, name, bytes, packets, duration, peer] = [0, 1, 2, 3, 4, 5].map(width);
    lines.iter().try_for_each(|[a, b, c, d, e, f, g]| {
        logging::print_line(format_args!(
            "{a:<state$}  {b:<name$}  {c:>bytes$}  {d:>packets$}  {e:>duration$}  {f:<peer$}  {g}"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_formatted_as_hours_minutes_seconds() {
        for (ms, expected) in [
            (0, "0:00:00.000"),
            (5_207, "0:00:05.207"),
            (3_600_000, "1:00:00.000"),
            (360_061_001, "100:01:01.001"),
            (-1_500, "-0:00:01.500"),
        ] {
            assert_eq!(duration_text(ms), expected);
        }
    }
}
