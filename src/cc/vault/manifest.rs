//! The manifest of a stream file, `FILE.lea.json`: sender, times, size, contents and SHA-256.

use std::fs::File;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::capture::summary::CaptureSummary;
use crate::cc::wire::name::{self, NameFields};
use crate::runtime::hex;
use crate::{Error, Result};

pub use crate::cc::wire::name::MANIFEST_SUFFIX as SUFFIX;

/// Version of this format. Readers reject later versions.
pub const FORMAT_VERSION: u32 = 1;

/// Limit on the connections listed, so that a sender that keeps reconnecting cannot grow its manifest without bound.
const CONNECTIONS_MAX: usize = 1000;

/// Limit on the gaps listed.
const GAPS_MAX: usize = 1000;

/// Limit on the insertions listed.
const INSERTIONS_MAX: usize = 100;

/// Returns the name of a stream file's manifest.
pub fn file_name(file: &str) -> String {
    format!("{file}{SUFFIX}")
}

/// Limit on the size of a manifest. A manifest with a thousand connections has 300 kB, so lea never wrote a
/// longer one.
const MANIFEST_BYTES_MAX: u64 = 16 << 20;

/// Contents of a manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    pub format_version: u32,
    /// Stream name as sent. Bytes that are not UTF-8 are replaced by U+FFFD; `name_hex` then has the exact
    /// name.
    pub name: String,
    /// The name in hexadecimal, if it is not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name_hex: Option<String>,
    /// Fields of the name, if it has the usual form.
    #[serde(flatten, default, skip_serializing_if = "Option::is_none")]
    pub fields: Option<NameFields>,
    /// Kind of source. Streams of the same name from different sources are different streams.
    pub source: StreamSource,
    /// Name of the stream file.
    pub file: String,
    /// 1 for the file named like the stream, n for `FILE.n`.
    pub part: u32,
    pub state: ManifestState,
    /// Why the last connection ended. `None` while it is open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_reason: Option<EndReason>,
    /// Length of the file. 0 while it is open.
    pub bytes: u64,
    /// SHA-256 of the file in hexadecimal. `None` while it is open and with `--hash none`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    pub capture: CaptureSummary,
    /// Bytes that were received and could not be written.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub lost_bytes: u64,
    /// Bytes at the end of the file whose fsync failed: whether they are on the disk is unknown.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub unsynced_bytes: u64,
    /// Where the sender of this part had stopped, if the part starts in the middle of a stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub continues: Option<PartPosition>,
    /// How the part is joined to the one that it `continues`, if a rotation started it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotation: Option<Rotation>,
    /// A part that has the same bytes as this one up to the position, and was not appended to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repeats: Option<PartPosition>,
    /// Connections that the file was received over, in order.
    pub connections: Vec<StreamConnection>,
    /// Number of connections omitted from the list.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub connections_omitted: u64,
    /// Kafka records that the file consists of, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub segments: Vec<RecordSegment>,
    /// Number of segments omitted from the list.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub segments_omitted: u64,
    /// Offsets between the records of the file that are not known to be stored, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gaps: Vec<OffsetGap>,
    /// Number of gaps omitted from the list.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub gaps_omitted: u64,
    /// Late records that were inserted, the last ones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub insertions: Vec<Insertion>,
    /// Whether records of several partitions are in the file. Kafka guarantees order only within a partition.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub order_uncertain: bool,
    /// Packet position and hash at the end of the file, for a Kafka stream. With it the stream can continue
    /// without reading the file. For internal use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resume_state: Option<String>,
    /// Version of the `lea` that wrote this manifest.
    pub lea_version: String,
}

impl Manifest {
    /// Creates the manifest of an open, empty file.
    pub fn new(name: &[u8], file: String, part: u32, source: StreamSource) -> Manifest {
        Manifest {
            format_version: FORMAT_VERSION,
            name: String::from_utf8_lossy(name).into_owned(),
            name_hex: std::str::from_utf8(name).is_err().then(|| hex::encode(name)),
            fields: name::parse_fields(name),
            source,
            file,
            part,
            state: ManifestState::Open,
            end_reason: None,
            bytes: 0,
            sha256: None,
            capture: CaptureSummary::default(),
            lost_bytes: 0,
            unsynced_bytes: 0,
            continues: None,
            rotation: None,
            repeats: None,
            connections: Vec::new(),
            connections_omitted: 0,
            segments: Vec::new(),
            segments_omitted: 0,
            gaps: Vec::new(),
            gaps_omitted: 0,
            insertions: Vec::new(),
            order_uncertain: false,
            resume_state: None,
            lea_version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    /// Returns the stream name as sent.
    pub(crate) fn name_bytes(&self) -> Vec<u8> {
        let exact = self.name_hex.as_deref().and_then(hex::decode);
        exact.unwrap_or_else(|| self.name.clone().into_bytes())
    }

    /// Adds the connection that now writes to the file. If there are too many, one that brought nothing is omitted, or
    /// two are joined: every byte of the file stays with a connection and its address.
    pub fn add_connection(&mut self, connection: StreamConnection) {
        if self.connections.len() >= CONNECTIONS_MAX {
            self.omit_connection();
        }
        self.connections.push(connection);
    }

    /// Returns whether another connection can be added without a longer list.
    pub(crate) fn has_room_for_connection(&self) -> bool {
        self.connections.len() < CONNECTIONS_MAX
            || self.connections.iter().any(|connection| !connection.has_brought_bytes())
            || self.joinable_connections().next().is_some()
    }

    /// Makes room for a connection, as near to the middle of the list as possible: its ends tell most.
    fn omit_connection(&mut self) {
        let from_middle = |at: &usize| at.abs_diff(CONNECTIONS_MAX / 2);
        let empty = (0..self.connections.len()).filter(|at| !self.connections[*at].has_brought_bytes());
        if let Some(at) = empty.min_by_key(from_middle) {
            self.connections.remove(at);
        } else if let Some(at) = self.joinable_connections().min_by_key(from_middle) {
            let second = self.connections.remove(at + 1);
            self.connections[at].join(second);
        } else {
            return;
        }
        self.connections_omitted += 1;
    }

    /// Returns the connections that can be joined with the one after them.
    fn joinable_connections(&self) -> impl Iterator<Item = usize> {
        // Kafka records have no sender's address: the peer is what lea read them from.
        let is_joinable =
            |two: &[StreamConnection]| self.source.is_kafka() || is_same_address(&two[0].peer, &two[1].peer);
        self.connections.windows(2).enumerate().filter(move |(_, two)| is_joinable(two)).map(|(at, _)| at)
    }

    /// Adds an insertion of late records.
    pub(crate) fn add_insertion(&mut self, insertion: Insertion) {
        if self.insertions.len() >= INSERTIONS_MAX {
            self.insertions.remove(0);
        }
        self.insertions.push(insertion);
    }

    /// Sets the gaps between the file's records.
    pub(crate) fn set_gaps(&mut self, mut gaps: Vec<OffsetGap>) {
        self.gaps_omitted = gaps.len().saturating_sub(GAPS_MAX) as u64;
        gaps.truncate(GAPS_MAX);
        self.gaps = gaps;
    }

    /// Number of bytes at the start of the file that repeat headers of the capture.
    pub(crate) fn header_bytes(&self) -> u64 {
        self.rotation.map_or(0, |rotation| rotation.header_bytes)
    }

    /// Returns the time of the last write to the file, if known.
    pub fn last_written_at(&self) -> Option<&str> {
        let wrote = |connection: &&StreamConnection| connection.bytes > 0 || connection.ended_at.is_none();
        let last = self.connections.iter().rev().find(wrote).or(self.connections.last())?;
        last.last_byte_at.as_deref().or(Some(&last.connected_at))
    }
}

/// A position in a part of the same name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartPosition {
    /// Name of the stream file.
    pub file: String,
    /// Offset in it.
    pub at: u64,
}

/// A part that a rotation started: the file before it had reached its size or its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rotation {
    /// Bytes at the start of the file that repeat headers of the capture. They are not part of the stream.
    pub header_bytes: u64,
    /// Offset in the stream of the first byte after them.
    pub stream_offset: u64,
}

/// Returns whether two peers have the same address, whatever their ports.
pub(crate) fn is_same_address(one: &str, other: &str) -> bool {
    let address = |peer: &str| peer.parse::<SocketAddr>().ok().map(|peer| peer.ip().to_canonical());
    one == other || address(one).is_some_and(|address_of_one| Some(address_of_one) == address(other))
}

/// One connection of a stream. Times are RFC 3339 in UTC with milliseconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamConnection {
    /// Address and port of the sender.
    pub peer: String,
    /// The name as sent, in hexadecimal, if padding was removed from it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raw_name_hex: Option<String>,
    pub connected_at: String,
    /// Time when the first byte of content was received.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_byte_at: Option<String>,
    /// Time when the last byte of content was received.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_byte_at: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_reason: Option<EndReason>,
    /// Offset in the file of the connection's first byte.
    pub offset: u64,
    /// Number of bytes that the connection added to the file.
    pub bytes: u64,
    /// Number of bytes received that were equal to bytes already in the file.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub compared_bytes: u64,
}

impl StreamConnection {
    /// Returns false for a connection that changed nothing in the file, and lost nothing.
    fn has_brought_bytes(&self) -> bool {
        self.bytes > 0 || self.ended_at.is_none() || self.end_reason == Some(EndReason::IoError)
    }

    /// Extends this connection by the next one of the same address.
    fn join(&mut self, next: StreamConnection) {
        self.bytes += next.bytes;
        self.compared_bytes += next.compared_bytes;
        self.first_byte_at = self.first_byte_at.take().or(next.first_byte_at);
        self.last_byte_at = next.last_byte_at.or(self.last_byte_at.take());
        self.ended_at = next.ended_at.or(self.ended_at.take());
        self.end_reason = next.end_reason;
    }
}

/// Consecutive records of one partition in a file. A segment ends at each checkpoint whose offsets are not
/// known to be committed: another group member may have taken over there, so `lea merge` must be able to cut
/// the file there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordSegment {
    pub topic: String,
    /// Topic id. A topic that is deleted and created again has another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic_id: Option<String>,
    pub partition: i32,
    /// Offset of the first record.
    pub first_offset: i64,
    /// Offset after the last record.
    pub next_offset: i64,
    /// Offset in the file of the first byte.
    pub at: u64,
    /// Number of bytes in the file.
    pub bytes: u64,
    /// Whether the file already had these bytes: the records were a re-send and equal.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub compared: bool,
    /// Whether the segment starts with a capture header in the middle of the file. After a take-over by
    /// another member, only `lea merge` can decide whether that was a re-send.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub begins_capture: bool,
    /// Whether offsets before the segment were not read when it was stored, so records may be missing between it and the
    /// segment of the same partition before it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub after_gap: bool,
}

/// Late records that were inserted between stored ones, so that the bytes after them moved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Insertion {
    /// Time of the insertion: RFC 3339, UTC.
    pub at: String,
    pub records: u64,
    pub bytes: u64,
    /// Length of the file before.
    pub previous_bytes: u64,
    /// SHA-256 of the file before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_sha256: Option<String>,
}

/// Offsets between two records of a file that are not known to be in the output directory. Records of the stream may be
/// missing there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OffsetGap {
    pub topic: String,
    /// Topic id, if the broker reported one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic_id: Option<String>,
    pub partition: i32,
    /// First missing offset.
    pub first_offset: i64,
    /// Offset after the last missing one.
    pub next_offset: i64,
    /// Whether another member of the consumer group has read these offsets. Its directory has the records.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub taken_over: bool,
}

/// Kind of source that a stream came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StreamSource {
    Tcp,
    /// Records of a Kafka topic.
    Kafka,
    /// Records in a dump of a Kafka topic.
    KafkaDump,
    /// Content lines: JSON lines with Base64 content.
    Lines,
}

impl StreamSource {
    /// Returns whether the stream consists of Kafka records, received or read from a dump.
    pub(crate) fn is_kafka(self) -> bool {
        matches!(self, StreamSource::Kafka | StreamSource::KafkaDump)
    }

    /// Returns whether streams of one name from both sources are the same stream. A dump has the records of its topic.
    pub(crate) fn is_same_stream(self, other: StreamSource) -> bool {
        self == other || (self.is_kafka() && other.is_kafka())
    }
}

/// State of a stream file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ManifestState {
    /// The stream is still being received.
    Open,
    /// The last connection has ended and the file is complete.
    Closed,
    /// The file was open when lea was killed. Size and hash were determined at the next start.
    Recovered,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndReason {
    /// The sender closed the connection.
    Eof,
    /// The sender reset the connection or is unreachable.
    Reset,
    /// Nothing was received for `--idle-timeout`.
    Idle,
    /// lea was shut down.
    Shutdown,
    /// The stream reached `--stream-bytes-max`.
    Limit,
    /// The file could not be written.
    IoError,
    /// The stream goes on in the next part, because of `--rotate-size` or `--rotate-interval`.
    Rotated,
}

impl EndReason {
    /// Returns the token used in manifests, tables and the log.
    pub fn as_str(self) -> &'static str {
        match self {
            EndReason::Eof => "eof",
            EndReason::Reset => "reset",
            EndReason::Idle => "idle",
            EndReason::Shutdown => "shutdown",
            EndReason::Limit => "limit",
            EndReason::IoError => "io_error",
            EndReason::Rotated => "rotated",
        }
    }
}

/// Reads a manifest of this or an earlier format version. Fails if it is larger than 16 MiB.
pub fn read(path: &Path) -> Result<Manifest> {
    File::open(path).and_then(parse).map_err(Error::path("read the manifest", path))
}

/// Parses a manifest from an open file. Returns an `InvalidData` error if it is malformed.
pub fn parse(file: impl Read) -> io::Result<Manifest> {
    #[derive(Deserialize)]
    struct Version {
        format_version: u32,
    }
    let invalid = |reason: String| io::Error::new(io::ErrorKind::InvalidData, reason);
    let mut text = Vec::new();
    file.take(MANIFEST_BYTES_MAX + 1).read_to_end(&mut text)?;
    if text.len() as u64 > MANIFEST_BYTES_MAX {
        return Err(invalid("it is larger than 16 MiB".to_owned()));
    }
    // The version is checked first: a later format may lack required fields.
    let Version { format_version } = from_json(&text)?;
    if format_version > FORMAT_VERSION {
        return Err(invalid(format!(
            "its format version is {format_version}, but this version of lea supports only {FORMAT_VERSION}"
        )));
    }
    from_json(&text)
}

/// Parses JSON. Maps all errors to `InvalidData`; `serde_json` reports truncated text as another kind.
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
    fn a_malformed_manifest_is_rejected_with_a_reason() {
        check_refused(b"", "EOF while parsing a value at line 1 column 0");
        check_refused(b"{\"format_version\":1}", "missing field `name` at line 1 column 20");
        check_refused(
            b"{\"format_version\":2}",
            "its format version is 2, but this version of lea supports only 1",
        );
        check_refused(&vec![b' '; (16 << 20) + 1], "it is larger than 16 MiB");
        check_refused(&vec![b' '; 16 << 20], "EOF while parsing a value at line 1 column 16777216");
    }

    fn connection(peer: &str, offset: u64, bytes: u64) -> StreamConnection {
        StreamConnection {
            raw_name_hex: None,
            peer: peer.to_owned(),
            connected_at: "2026-11-21T20:59:40.000Z".to_owned(),
            first_byte_at: None,
            last_byte_at: None,
            ended_at: Some("2026-11-21T20:59:41.000Z".to_owned()),
            end_reason: Some(EndReason::Eof),
            offset,
            bytes,
            compared_bytes: 24 - bytes.min(24),
        }
    }

    /// Adds connections to a manifest. Returns it and the number of bytes that they brought.
    fn with_connections(connections: impl Iterator<Item = (String, u64)>) -> (Manifest, u64) {
        let mut manifest = Manifest::new(b"v.pcap", "v.pcap".into(), 1, StreamSource::Tcp);
        let mut at = 0;
        for (peer, bytes) in connections {
            manifest.add_connection(connection(&peer, at, bytes));
            at += bytes;
        }
        (manifest, at)
    }

    fn listed_bytes(manifest: &Manifest) -> u64 {
        manifest.connections.iter().map(|connection| connection.bytes).sum()
    }

    #[test]
    fn a_connection_that_brought_bytes_is_never_omitted() {
        let resends = |count| (0..count).map(|n| (format!("192.0.2.1:{}", 1024 + n), 0));
        let forged = [("198.51.100.9:666".to_owned(), 76)];
        let first = [("192.0.2.1:1023".to_owned(), 404)];
        let all = first.into_iter().chain(resends(520)).chain(forged).chain(resends(1500));
        let (manifest, bytes) = with_connections(all);
        assert_eq!((manifest.connections.len(), manifest.connections_omitted), (1000, 1022));
        assert_eq!(listed_bytes(&manifest), bytes);
        assert!(manifest.connections.iter().any(|connection| connection.peer == "198.51.100.9:666"));
        assert!(manifest.has_room_for_connection());
    }

    #[test]
    fn connections_of_one_address_that_brought_bytes_are_joined() {
        let (manifest, bytes) = with_connections((0..3000).map(|n| (format!("192.0.2.1:{}", 1024 + n), 10)));
        assert_eq!((manifest.connections.len(), manifest.connections_omitted), (1000, 2000));
        assert_eq!(listed_bytes(&manifest), bytes);
        let offsets = manifest.connections.iter().scan(0, |at, connection| {
            *at += connection.bytes;
            Some(connection.offset + connection.bytes == *at)
        });
        assert!(offsets.into_iter().all(|fits| fits), "the entries have no gap");
    }

    #[test]
    fn a_list_of_different_addresses_has_no_room() {
        let (manifest, _) =
            with_connections((0..1000).map(|n| (format!("10.0.{}.{}:9", n / 250, n % 250), 1)));
        assert!(!manifest.has_room_for_connection());
    }

    #[test]
    fn addresses_are_compared_without_their_ports() {
        for (one, other, expected) in [
            ("192.0.2.1:1", "192.0.2.1:2", true),
            ("[::ffff:192.0.2.1]:1", "192.0.2.1:2", true),
            ("[2001:db8::1]:1", "[2001:db8::1]:2", true),
            ("192.0.2.1:1", "192.0.2.2:1", false),
            ("kafka", "kafka", true),
            ("kafka", "dump", false),
        ] {
            assert_eq!(is_same_address(one, other), expected, "{one} {other}");
        }
    }
}
