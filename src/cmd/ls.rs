//! `lea ls`: a table of the streams in a folder. Runs in the main thread; reads manifests, and of streams that
//! still grow the file's length.

use std::io;
use std::path::PathBuf;

use chrono::DateTime;
use log::warn;
use serde::Serialize;

use super::stored::{self, Found, Stored, harmless};
use crate::cc::vault::manifest::{Connection, EndReason, Manifest, State};
use crate::cli::Globals;
use crate::logging::{self, LevelFilter};
use crate::{Exit, Result};

/// List the streams in a folder
///
/// STATE is open (it grows, or the receiver was killed and has not been started again), closed, recovered (it was
/// open when the receiver was killed), foreign (a file without a manifest: nothing proves where it came from),
/// missing (a manifest without its file) or unusable (its manifest cannot be read). NAME is the file's name in DIR.
///
/// BYTES of an open stream is the length of its file now; its packets and duration stand in the manifest when it
/// ends. DURATION is from the first packet to the last, or from the first byte to the last of what is no capture.
/// PEER and END are those of the last connection.
///
/// The exit code is 3 if a manifest is unusable or a file is missing.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// The folder that a receiver writes to (its --output)
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Print a JSON object a line, one for each stream
    #[arg(long)]
    json: bool,
}

impl Args {
    /// Runs the command.
    pub fn run(self, globals: &Globals) -> Result<Exit> {
        logging::start(globals.level(LevelFilter::Warn));
        let stored = stored::list(&self.dir)?;
        let rows: Vec<Row> = stored.iter().map(Row::new).collect();
        stored::printed(if self.json { print_json(&rows) } else { print_table(&rows) })?;
        let damaged = rows.iter().any(|row| matches!(row.state, "unusable" | "missing"));
        Ok(if damaged { Exit::Differs } else { Exit::Done })
    }
}

/// What is known of a stream: a line of the table, an object of the JSON. What is not known is left out.
#[derive(Debug, Serialize)]
struct Row {
    state: &'static str,
    /// The name as sent; of a foreign file none.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name_hex: Option<String>,
    /// The file's name in the folder.
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

impl Row {
    fn new(stored: &Stored) -> Row {
        let mut row = Row {
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
            Found::Manifest(manifest) => row.take(manifest, stored.bytes.is_some()),
            Found::Nothing => {}
            Found::Unusable(reason) => {
                warn!("manifest_unusable file={} reason={reason:?}", stored.name());
                row.state = "unusable";
            }
        }
        if row.state == "missing" {
            warn!("file_missing file={}", stored.name());
        }
        row
    }

    fn take(&mut self, manifest: &Manifest, present: bool) {
        self.state = match manifest.state {
            _ if !present => "missing",
            State::Open => "open",
            State::Closed => "closed",
            State::Recovered => "recovered",
        };
        self.name = Some(manifest.name.clone());
        self.name_hex = manifest.name_hex.clone();
        if manifest.state != State::Open {
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
            self.ended_at.clone().into_iter().chain(self.end_reason.map(reason_word)).collect();
        [
            self.state.to_owned(),
            harmless(&self.file),
            or_dash(self.bytes.map(|bytes| bytes.to_string())),
            or_dash(self.packets.map(|packets| packets.to_string())),
            or_dash(self.duration_ms.map(duration_text)),
            or_dash(self.peer.as_deref().map(harmless)),
            if end.is_empty() { "-".to_owned() } else { harmless(&end.join(" ")) },
        ]
    }
}

/// From the first packet to the last; of what has no packets, from the first byte to the last.
fn duration_ms(manifest: &Manifest) -> Option<i64> {
    if let (Some(first), Some(last)) = (manifest.capture.first_packet_ns, manifest.capture.last_packet_ns) {
        return Some(last.saturating_sub(first) / 1_000_000);
    }
    let time = |text: &str| DateTime::parse_from_rfc3339(text).ok();
    let first =
        manifest.connections.iter().find_map(|Connection { first_byte_at, .. }| first_byte_at.as_deref());
    let last = manifest.connections.iter().rev().find_map(|connection| connection.last_byte_at.as_deref());
    Some((time(last?)? - time(first?)?).num_milliseconds())
}

/// `0:00:05.208`; packets out of order may make it negative.
fn duration_text(ms: i64) -> String {
    let (sign, ms) = (if ms < 0 { "-" } else { "" }, ms.unsigned_abs());
    let (seconds, minutes, hours) = (ms / 1_000 % 60, ms / 60_000 % 60, ms / 3_600_000);
    format!("{sign}{hours}:{minutes:02}:{seconds:02}.{:03}", ms % 1_000)
}

/// The word that the manifest has for a reason.
fn reason_word(reason: EndReason) -> String {
    let word = serde_json::to_value(reason).ok();
    word.as_ref().and_then(|word| word.as_str()).unwrap_or("-").to_owned()
}

fn print_json(rows: &[Row]) -> io::Result<()> {
    rows.iter().try_for_each(|row| logging::print(format_args!("{}", serde_json::to_string(row)?)))
}

/// Columns as wide as their widest cell; numbers to the right.
fn print_table(rows: &[Row]) -> io::Result<()> {
    let head = ["STATE", "NAME", "BYTES", "PACKETS", "DURATION", "PEER", "END"].map(str::to_owned);
    let lines: Vec<[String; 7]> = std::iter::once(head).chain(rows.iter().map(Row::cells)).collect();
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let [state, name, bytes, packets, duration, peer] = [0, 1, 2, 3, 4, 5].map(width);
    lines.iter().try_for_each(|[a, b, c, d, e, f, g]| {
        logging::print(format_args!(
            "{a:<state$}  {b:<name$}  {c:>bytes$}  {d:>packets$}  {e:>duration$}  {f:<peer$}  {g}"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_time() {
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
