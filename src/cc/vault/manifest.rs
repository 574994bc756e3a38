//! The manifest beside each stream file, `FILE.lea.json`: what came, from whom, when, and the hash that proves it.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::cc::frame::capture::Summary;
use crate::cc::frame::name::{self, NameFields, hex};
use crate::{Error, Result};

pub use crate::cc::frame::name::MANIFEST_SUFFIX as SUFFIX;

/// The version of this format; readers refuse a later one.
pub const FORMAT_VERSION: u32 = 1;

/// More connections than that and the middle ones are left out: a sender that reconnects for ever must not make
/// its manifest grow for ever.
const CONNECTIONS_MAX: usize = 1000;

/// The file name of a stream file's manifest.
pub fn file_name(file: &str) -> String {
    format!("{file}{SUFFIX}")
}

/// A manifest's bytes. One of a thousand connections has 300 kB; what is longer is none of ours.
const MANIFEST_BYTES_MAX: u64 = 16 << 20;

/// What a stream file is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`FORMAT_VERSION`].
    pub format_version: u32,
    /// The stream name as sent; bytes that are no UTF-8 stand as U+FFFD, and then `name_hex` has them all.
    pub name: String,
    /// The name's bytes in hexadecimal, where it is no UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name_hex: Option<String>,
    /// The name's fields, where it has the usual form.
    #[serde(flatten, default, skip_serializing_if = "Option::is_none")]
    pub fields: Option<NameFields>,
    /// Where the name came from: a name has one source.
    pub source: Source,
    /// The stream file beside this manifest.
    pub file: String,
    /// 1 for the file of the name itself, n for `FILE.n`.
    pub part: u32,
    /// Whether the file still grows.
    pub state: State,
    /// Why the last connection ended; none while it is open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_reason: Option<EndReason>,
    /// The file's length. 0 while it is open.
    pub bytes: u64,
    /// The file's SHA-256 in hexadecimal; none while it is open, and with `--hash none`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// What the file contains.
    pub capture: Summary,
    /// Bytes that were received and could not be written.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub lost_bytes: u64,
    /// The connections that the file was received over, in order.
    pub connections: Vec<Connection>,
    /// Connections between the first and the last that stand here no more: there were too many.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub connections_left_out: u64,
    /// The records that the file was made of, in order, where it comes from Kafka.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub segments: Vec<Segment>,
    /// Segments that stand here no more: there were too many.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub segments_left_out: u64,
    /// True if records of more than one partition made the file: Kafka keeps order only within one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub order_uncertain: bool,
    /// The version of the `lea` that wrote this.
    pub lea_version: String,
}

impl Manifest {
    /// The manifest of a file that is open and empty.
    pub fn new(name: &[u8], file: String, part: u32, source: Source) -> Manifest {
        Manifest {
            format_version: FORMAT_VERSION,
            name: String::from_utf8_lossy(name).into_owned(),
            name_hex: std::str::from_utf8(name).is_err().then(|| hex(name)),
            fields: name::fields(name),
            source,
            file,
            part,
            state: State::Open,
            end_reason: None,
            bytes: 0,
            sha256: None,
            capture: Summary::default(),
            lost_bytes: 0,
            connections: Vec::new(),
            connections_left_out: 0,
            segments: Vec::new(),
            segments_left_out: 0,
            order_uncertain: false,
            lea_version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    /// Adds the connection that the file is now received over.
    pub fn connect(&mut self, connection: Connection) {
        if self.connections.len() >= CONNECTIONS_MAX {
            // The first half tells how it began, the second how it went on.
            self.connections.remove(CONNECTIONS_MAX / 2);
            self.connections_left_out += 1;
        }
        self.connections.push(connection);
    }

    /// When something was last written into the file, as far as it is known.
    pub fn last_written_at(&self) -> Option<&str> {
        let wrote = |connection: &&Connection| connection.bytes > 0 || connection.ended_at.is_none();
        let last = self.connections.iter().rev().find(wrote).or(self.connections.last())?;
        last.last_byte_at.as_deref().or(Some(&last.connected_at))
    }
}

/// One connection of a stream. Times are RFC 3339, UTC, with milliseconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connection {
    /// The sender's address and port.
    pub peer: String,
    /// When the connection was accepted.
    pub connected_at: String,
    /// When the first byte of content came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_byte_at: Option<String>,
    /// When the last byte of content came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_byte_at: Option<String>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<String>,
    /// Why it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_reason: Option<EndReason>,
    /// Where in the file its bytes start.
    pub offset: u64,
    /// How many bytes of the file it brought.
    pub bytes: u64,
    /// How many bytes it sent that were in the file already.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub compared_bytes: u64,
}

/// Records of one partition that stand in a file one behind the other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// The topic.
    pub topic: String,
    /// The topic's id: a topic that is deleted and made again has another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic_id: Option<String>,
    /// The partition.
    pub partition: i32,
    /// The first record's offset.
    pub first_offset: i64,
    /// The offset after the last record's.
    pub next_offset: i64,
    /// Where in the file its bytes start.
    pub at: u64,
    /// How many bytes of the file it brought.
    pub bytes: u64,
}

/// Which side brought a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// A TCP connection.
    Tcp,
    /// Records of a Kafka topic.
    Kafka,
    /// Logstash lines.
    Lines,
}

/// Whether a stream file still grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It grows.
    Open,
    /// Its last connection ended, and all that came is in it.
    Closed,
    /// It was open when the receiver was killed; bytes and hash are what was found at the next start.
    Recovered,
}

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndReason {
    /// The sender closed it.
    Eof,
    /// The sender reset it, or its host is gone.
    Reset,
    /// Nothing came for `--idle-timeout`.
    Idle,
    /// The receiver was stopped.
    Drained,
    /// It reached `--stream-bytes-max`.
    Limit,
    /// Its file could not be written.
    IoError,
}

impl EndReason {
    /// The word that stands for it in manifests, tables and the log.
    pub fn word(self) -> &'static str {
        match self {
            EndReason::Eof => "eof",
            EndReason::Reset => "reset",
            EndReason::Idle => "idle",
            EndReason::Drained => "drained",
            EndReason::Limit => "limit",
            EndReason::IoError => "io_error",
        }
    }
}

/// Reads a manifest: of this format version or an earlier one, and not longer than 16 MiB.
pub fn read(path: &Path) -> Result<Manifest> {
    File::open(path).and_then(parse).map_err(Error::path("read the manifest", path))
}

/// The manifest in an open file; `InvalidData` if there is none in it.
pub fn parse(file: impl Read) -> io::Result<Manifest> {
    #[derive(Deserialize)]
    struct Version {
        format_version: u32,
    }
    let invalid = |reason: String| io::Error::new(io::ErrorKind::InvalidData, reason);
    let mut text = Vec::new();
    file.take(MANIFEST_BYTES_MAX + 1).read_to_end(&mut text)?;
    if text.len() as u64 > MANIFEST_BYTES_MAX {
        return Err(invalid("it is longer than 16 MiB".to_owned()));
    }
    // The version first: a later format may lack what this one needs.
    let Version { format_version } = from_json(&text)?;
    if format_version > FORMAT_VERSION {
        return Err(invalid(format!(
            "its format version is {format_version}, and this lea knows {FORMAT_VERSION}"
        )));
    }
    from_json(&text)
}

/// `serde_json`'s error for a text that ends too early has another kind; here it is as invalid as any other.
fn from_json<'a, T: Deserialize<'a>>(text: &'a [u8]) -> io::Result<T> {
    serde_json::from_slice(text).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::chain;

    fn check_refused(text: &[u8], expected: &str) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let told = chain(&read(file.path()).unwrap_err());
        assert_eq!(told, format!("cannot read the manifest {}: {expected}", file.path().display()));
    }

    #[test]
    fn what_is_no_manifest_is_refused_with_a_reason() {
        check_refused(b"", "EOF while parsing a value at line 1 column 0");
        check_refused(b"{\"format_version\":1}", "missing field `name` at line 1 column 20");
        check_refused(b"{\"format_version\":2}", "its format version is 2, and this lea knows 1");
        check_refused(&vec![b' '; (16 << 20) + 1], "it is longer than 16 MiB");
        check_refused(&vec![b' '; 16 << 20], "EOF while parsing a value at line 1 column 16777216");
    }
}
