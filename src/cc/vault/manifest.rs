//! The manifest beside each stream file, `FILE.lea.json`: what came, from whom, when, and the hash that proves it.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::cc::frame::capture::Summary;
use crate::cc::frame::name::NameFields;
use crate::{Error, Result};

pub use crate::cc::frame::name::MANIFEST_SUFFIX as SUFFIX;

/// The version of this format; readers refuse a later one.
pub const FORMAT_VERSION: u32 = 1;

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
    /// The version of the `lea` that wrote this.
    pub lea_version: String,
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

/// Which side brought a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// A TCP connection.
    Tcp,
    /// Records of a Kafka topic.
    Kafka,
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

/// Reads a manifest: of this format version or an earlier one, and not longer than 16 MiB.
pub fn read(path: &Path) -> Result<Manifest> {
    read_json(path).map_err(Error::path("read the manifest", path))
}

fn read_json(path: &Path) -> io::Result<Manifest> {
    #[derive(Deserialize)]
    struct Version {
        format_version: u32,
    }
    let mut text = Vec::new();
    File::open(path)?.take(MANIFEST_BYTES_MAX + 1).read_to_end(&mut text)?;
    if text.len() as u64 > MANIFEST_BYTES_MAX {
        return Err(io::Error::other("it is longer than 16 MiB"));
    }
    // The version first: a later format may lack what this one needs.
    let Version { format_version } = serde_json::from_slice(&text)?;
    if format_version > FORMAT_VERSION {
        let reason = format!("its format version is {format_version}, and this lea knows {FORMAT_VERSION}");
        return Err(io::Error::other(reason));
    }
    Ok(serde_json::from_slice(&text)?)
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
