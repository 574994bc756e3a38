//! `lea ls`: lists the streams in an output directory. Runs in the main thread; reads manifests and file lengths only.

use std::path::PathBuf;

use chrono::DateTime;
use clap::builder::styling::Style;
use log::warn;
use serde::Serialize;

use super::args::listing::{self, ManifestStatus, ReceiverState, StreamEntry};
use super::args::time_zone::TimeZoneArg;
use super::output::json_lines;
use super::output::table::{self, Column};
use crate::cc::vault::damage::{self, Damage};
use crate::cc::vault::manifest::{EndReason, Manifest, ManifestState, PartPosition, StreamConnection};
use crate::cmd::Command;
use crate::cmd::args::globals::Globals;
use crate::manual::{self, Example, Manual};
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
/// PEER, END (how the connection ended) and ENDED describe the last connection. PROBLEM is shown if a stream is damaged:
/// bytes are missing, the capture is cut within a packet or malformed, or no receiver continues an open stream. On a terminal the table fits the width:
/// names are shortened and columns dropped. --json has everything.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Output directory of a receiver (its --output)
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// List only streams with a problem: truncated, malformed, lost or missing data, or no regular end
    #[arg(long)]
    damaged: bool,
    /// List only streams that ended after this time, or are open: a duration before now (1w), a date or a time
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Print one JSON object per stream
    #[arg(long)]
    json: bool,
}

impl Command for Args {
    const MANUAL: Manual = Manual {
        exits: &[(Exit::Incomplete, "A manifest is unusable, or a file is missing.")],
        files: &[manual::OUTPUT_FILES],
        environment: &[manual::TIME_ZONE_VARIABLE, manual::NO_COLOR_VARIABLE],
        examples: &[
            Example { text: "List the streams in a directory", command: "lea ls interceptions" },
            Example {
                text: "List the damaged streams of a week",
                command: "lea ls --damaged --since 1w interceptions",
            },
        ],
        see_also: &["lea-verify(1)"],
        ..manual::EMPTY
    };

    fn run(self, globals: &Globals) -> Result<Exit> {
        logging::start(globals.level(LevelFilter::Warn));
        let since_ms = self.since_ms()?;
        let streams = listing::list(&self.dir)?;
        let receiver = listing::receiver_state(&self.dir);
        let mut rows: Vec<StreamRow> = streams.iter().map(|entry| StreamRow::new(entry, receiver)).collect();
        rows.retain(|row| row.is_after(since_ms) && (!self.damaged || row.problem.is_some()));
        if self.json { json_lines::print(&rows) } else { print_table(&rows, self.damaged) }?;
        let is_unreadable = rows.iter().any(|row| matches!(row.state, "unusable" | "missing"));
        Ok(if is_unreadable { Exit::Incomplete } else { Exit::Done })
    }
}

impl Args {
    fn since_ms(&self) -> Result<Option<i64>> {
        self.since.as_deref().map(|since| TimeZoneArg::Local.parse_since(since)).transpose()
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
    /// Where the part that this one follows had stopped.
    #[serde(skip_serializing_if = "Option::is_none")]
    continues: Option<PartPosition>,
    /// The part that this one repeats.
    #[serde(skip_serializing_if = "Option::is_none")]
    repeats: Option<PartPosition>,
    /// Damage, if there is any: `truncated by 381 bytes`.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
    /// Whether the problem is certain and no other column shows it.
    #[serde(skip)]
    is_damaged: bool,
}

impl StreamRow {
    fn new(entry: &StreamEntry, receiver: ReceiverState) -> StreamRow {
        let mut row = StreamRow {
            state: "foreign",
            name: None,
            name_hex: None,
            file: entry.path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            bytes: entry.bytes,
            packets: None,
            duration_ms: None,
            peer: None,
            connected_at: None,
            ended_at: None,
            end_reason: None,
            continues: None,
            repeats: None,
            problem: None,
            is_damaged: false,
        };
        match &entry.manifest {
            ManifestStatus::Valid(manifest) => row.fill_from(manifest, entry.bytes.is_some(), receiver),
            ManifestStatus::Missing => {}
            ManifestStatus::Invalid(reason) => {
                warn!("manifest_unusable file={} reason={reason:?}", entry.escaped_name());
                row.state = "unusable";
                row.problem = Some("the manifest cannot be read".to_owned());
            }
        }
        if row.state == "missing" {
            warn!("file_missing file={}", entry.escaped_name());
        }
        row
    }

    fn fill_from(&mut self, manifest: &Manifest, exists: bool, receiver: ReceiverState) {
        self.state = match manifest.state {
            _ if !exists => "missing",
            ManifestState::Open => "open",
            ManifestState::Closed => "closed",
            ManifestState::Recovered => "recovered",
        };
        self.name = Some(manifest.name.clone());
        self.name_hex = manifest.name_hex.clone();
        self.continues = manifest.continues.clone();
        self.repeats = manifest.repeats.clone();
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
        let missing = (!exists).then(|| "the file is missing".to_owned());
        let damage = manifest.damage();
        let is_abandoned = manifest.state == ManifestState::Open && receiver == ReceiverState::Stopped;
        let abandoned = is_abandoned.then(|| listing::ABANDONED.to_owned());
        self.is_damaged = is_abandoned || damage.iter().any(Damage::is_certain);
        let problems: Vec<String> =
            missing.into_iter().chain(abandoned).chain(damage::join(&damage)).collect();
        self.problem = (!problems.is_empty()).then(|| problems.join(", "));
    }

    /// Returns true if the stream ended after a time, or if its end is unknown.
    fn is_after(&self, since_ms: Option<i64>) -> bool {
        let ended = self.ended_at.as_deref().and_then(|text| DateTime::parse_from_rfc3339(text).ok());
        since_ms.zip(ended).is_none_or(|(since_ms, ended)| ended.timestamp_millis() >= since_ms)
    }

    fn cells(&self) -> Vec<String> {
        let or_dash = |cell: Option<String>| cell.unwrap_or_else(|| "-".to_owned());
        vec![
            self.state.to_owned(),
            self.file.clone(),
            or_dash(self.bytes.map(|bytes| bytes.to_string())),
            or_dash(self.packets.map(|packets| packets.to_string())),
            or_dash(self.duration_ms.map(duration_text)),
            or_dash(self.peer.as_deref().map(peer_text)),
            or_dash(self.end_reason.map(|reason| reason.as_str().to_owned())),
            or_dash(self.ended_at.clone()),
            or_dash(self.problem.clone()),
        ]
    }
}

/// Returns the peer of a connection for the table. Streams from dumps have no address.
fn peer_text(peer: &str) -> String {
    if matches!(peer, "dump" | "kafka_dump") { "Kafka dump".to_owned() } else { peer.to_owned() }
}

/// Returns the time from the earliest packet to the latest, or from the first byte to the last if there are no packets. It
/// is unknown if there are packets whose times are all unknown.
fn duration_ms(manifest: &Manifest) -> Option<i64> {
    if let (Some(first), Some(last)) = (manifest.capture.first_packet_ns, manifest.capture.last_packet_ns) {
        return Some(last.saturating_sub(first) / 1_000_000);
    }
    if manifest.capture.packets > 0 {
        return None;
    }
    let time = |text: &str| DateTime::parse_from_rfc3339(text).ok();
    let first = manifest
        .connections
        .iter()
        .find_map(|StreamConnection { first_byte_at, .. }| first_byte_at.as_deref());
    let last = manifest.connections.iter().rev().find_map(|connection| connection.last_byte_at.as_deref());
    Some((time(last?)? - time(first?)?).num_milliseconds())
}

/// Formats a duration as `0:00:05.208`. A clock that was set back during a stream without packets makes it negative.
fn duration_text(ms: i64) -> String {
    let (sign, ms) = (if ms < 0 { "-" } else { "" }, ms.unsigned_abs());
    let (seconds, minutes, hours) = (ms / 1_000 % 60, ms / 60_000 % 60, ms / 3_600_000);
    format!("{sign}{hours}:{minutes:02}:{seconds:02}.{:03}", ms % 1_000)
}

fn state_style(state: &str) -> Style {
    match state {
        "open" => table::GOOD,
        "recovered" | "foreign" => table::DOUBTFUL,
        "missing" | "unusable" => table::BAD,
        _ => Style::new(),
    }
}

fn end_style(reason: &str) -> Style {
    match reason {
        "reset" | "limit" | "idle" => table::DOUBTFUL,
        "io_error" => table::BAD,
        _ => Style::new(),
    }
}

fn print_table(rows: &[StreamRow], is_of_damaged: bool) -> Result<()> {
    let has_problems = is_of_damaged || rows.iter().any(|row| row.is_damaged);
    let mut columns = vec![
        Column::new("STATE").whole().styled(state_style),
        Column::new("NAME").shortened_to(if has_problems { 18 } else { 28 }),
        Column::new("BYTES").number().dropped(1),
        Column::new("PACKETS").number().dropped(4),
        Column::new("DURATION").number().dropped(3),
        Column::new("PEER").whole().dropped(5),
        Column::new("END").whole().styled(end_style).dropped(2),
        Column::new("ENDED").whole().dropped(6),
        // Room for the longest single problem, "the connection was reset, bytes may be missing".
        Column::new("PROBLEM").narrowed_to(49),
    ];
    let mut cells: Vec<Vec<String>> = rows.iter().map(StreamRow::cells).collect();
    if !has_problems {
        columns.pop();
        cells.iter_mut().for_each(|row| row.truncate(columns.len()));
    }
    table::print(&columns, &cells)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cc::vault::manifest::StreamSource;

    #[test]
    fn the_duration_of_packets_without_times_is_unknown() {
        let mut manifest = Manifest::new(b"call.pcap", "call.pcap".to_owned(), 1, StreamSource::Tcp);
        manifest.capture.packets = 3;
        assert_eq!(duration_ms(&manifest), None);
        (manifest.capture.first_packet_ns, manifest.capture.last_packet_ns) =
            (Some(1_000_000), Some(3_500_000));
        assert_eq!(duration_ms(&manifest), Some(2));
    }

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
