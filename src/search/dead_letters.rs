//! The dead-letter file of events, DIR/.lea/event-dead-letters.jsonl. Each line is a JSON object with `time`,
//! `source`, `reason` and `text` (or `base64` if the text is not UTF-8). Called by any thread.
//!
//! A line is durable when [`EventDeadLetters::add`] returns. The file has a maximum size, and each peer has a share of it;
//! beyond them, dead letters are counted and dropped, which is logged once.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::runtime::create::create_error;
use crate::runtime::net::peers::peer_key;
use crate::search::document::SOURCE_BYTES_MAX;
use crate::{Error, Result};

/// Name of the file in DIR/.lea.
pub const FILE_NAME: &str = "event-dead-letters.jsonl";

/// Maximum size of the file.
pub const FILE_BYTES_MAX: u64 = 256 << 20;

/// One peer may use this part of the file.
const PEER_SHARE: u64 = 4;

/// Number of peers that have a separate share.
const PEERS_MAX: usize = 65_536;

/// Bytes that are written at once.
const WRITTEN_BYTES: usize = 1 << 20;

/// Maximum length of a line: the largest text with a six-byte escape for each byte.
const LINE_BYTES_MAX: u64 = 6 * SOURCE_BYTES_MAX as u64 + 4_096;

/// An event that could not be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// Time in RFC 3339.
    pub time: String,
    /// The origin: `lines 192.0.2.1:5000`, `http 192.0.2.1:6000 opensips`.
    pub source: String,
    pub reason: String,
    /// The event as received.
    pub text: Vec<u8>,
}

#[derive(Debug)]
pub struct EventDeadLetters {
    file: Mutex<LetterFile>,
    bytes_max: u64,
    kept: AtomicU64,
    lost: AtomicU64,
}

#[derive(Debug)]
struct LetterFile {
    file: File,
    bytes: u64,
    peers: PeerBytes,
}

/// The bytes of each peer in the file.
#[derive(Debug, Default)]
struct PeerBytes(HashMap<String, u64>);

impl PeerBytes {
    /// Returns the bytes of a peer. Peers that are too many to be told apart count as one.
    fn get_mut(&mut self, peer: String) -> &mut u64 {
        let is_known = self.0.len() < PEERS_MAX || self.0.contains_key(&peer);
        self.0.entry(if is_known { peer } else { String::new() }).or_default()
    }
}

/// How many dead letters of a call were kept, and how many were lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AddedLetters {
    pub kept: u64,
    pub lost: u64,
}

impl EventDeadLetters {
    /// Opens the file in the directory of the store.
    pub fn open(dir: &Path) -> Result<EventDeadLetters> {
        EventDeadLetters::open_with_limit(dir, FILE_BYTES_MAX)
    }

    fn open_with_limit(dir: &Path, bytes_max: u64) -> Result<EventDeadLetters> {
        let path = dir.join(".lea").join(FILE_NAME);
        let mut options = OpenOptions::new();
        options.read(true).append(true).create(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
        let file = options.open(&path).map_err(create_error("open", &path))?;
        let (bytes, peers) = read_lengths(&file).map_err(Error::path("read", &path))?;
        Ok(EventDeadLetters {
            file: Mutex::new(LetterFile { file, bytes, peers }),
            bytes_max,
            kept: AtomicU64::new(0),
            lost: AtomicU64::new(0),
        })
    }

    /// Writes a dead letter durably. If the file is full or cannot be written, the dead letter is lost and
    /// counted.
    pub fn add(&self, dead_letter: &DeadLetter) -> io::Result<()> {
        match self.add_all([dead_letter.clone()]) {
            AddedLetters { lost: 0, .. } => Ok(()),
            _ => Err(io::Error::new(io::ErrorKind::QuotaExceeded, "the dead letter was not kept")),
        }
    }

    /// Writes dead letters durably, with one sync for all of them. Those that do not fit are lost and counted.
    pub fn add_all(&self, dead_letters: impl IntoIterator<Item = DeadLetter>) -> AddedLetters {
        let mut added = AddedLetters::default();
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let LetterFile { file, bytes, peers } = &mut *file;
        let before = *bytes;
        let (mut lines, mut why) = (Vec::new(), None);
        let mut written = Ok(());
        for dead_letter in dead_letters {
            let start = lines.len();
            // Writing to a Vec cannot fail.
            let _ = serde_json::to_writer(&mut lines, &to_json(&dead_letter));
            lines.push(b'\n');
            let length = (lines.len() - start) as u64;
            let of_peer = peers.get_mut(peer_of(&dead_letter.source));
            if *bytes + length > self.bytes_max || *of_peer + length > self.bytes_max / PEER_SHARE {
                lines.truncate(start);
                added.lost += 1;
                let is_full = *bytes + length > self.bytes_max;
                let reason =
                    if is_full { "the dead-letter file is full" } else { "the peer's share is full" };
                why = Some(Cow::from(reason));
                continue;
            }
            *bytes += length;
            *of_peer += length;
            added.kept += 1;
            if lines.len() >= WRITTEN_BYTES {
                written = written.and_then(|()| file.write_all(&lines));
                lines.clear();
            }
        }
        if let Err(error) = written.and_then(|()| file.write_all(&lines)).and_then(|()| file.sync_data()) {
            // A partial line would corrupt the next one. The shares of the peers stay a little too large.
            *bytes = before;
            let _ = file.set_len(before);
            added = AddedLetters { kept: 0, lost: added.kept + added.lost };
            why = Some(error.to_string().into());
        }
        self.kept.fetch_add(added.kept, Ordering::Relaxed);
        if let Some(why) = why
            && self.lost.fetch_add(added.lost, Ordering::Relaxed) == 0
        {
            log::error!("dead_letter_lost error=\"{why}\"");
        }
        added
    }

    /// Number of dead letters written since the start.
    pub fn kept(&self) -> u64 {
        self.kept.load(Ordering::Relaxed)
    }

    /// Number of dead letters that could not be written.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

/// Removes a partial last line that a crash left. Returns the length of the file, and the lengths of each peer's lines.
fn read_lengths(file: &File) -> io::Result<(u64, PeerBytes)> {
    let (mut whole, mut peers) = (0, PeerBytes::default());
    let mut reader = BufReader::with_capacity(64 << 10, file);
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = (&mut reader).take(LINE_BYTES_MAX).read_until(b'\n', &mut line)? as u64;
        if read == 0 {
            break;
        }
        if line.last() != Some(&b'\n') && read < LINE_BYTES_MAX {
            file.set_len(whole)?;
            break;
        }
        whole += read;
        *peers.get_mut(source_of(&line).map_or_else(String::new, peer_of)) += read;
    }
    Ok((whole, peers))
}

/// Returns the member `source` of a line. Quotes in the members before it are escaped.
fn source_of(line: &[u8]) -> Option<&str> {
    const MEMBER: &[u8] = b"\"source\":\"";
    let rest = &line[memchr::memmem::find(line, MEMBER)? + MEMBER.len()..];
    std::str::from_utf8(&rest[..memchr::memchr(b'"', rest)?]).ok()
}

/// Returns the sender of a dead letter: an IPv4 address, a /64 network of IPv6, or the name of a broker.
fn peer_of(source: &str) -> String {
    let word = source.split(' ').nth(1).unwrap_or_default();
    match word.parse::<SocketAddr>() {
        Ok(address) => peer_key(address.ip()).to_string(),
        Err(_) => word.to_owned(),
    }
}

fn to_json(dead_letter: &DeadLetter) -> Value {
    let mut line =
        json!({"time": dead_letter.time, "source": dead_letter.source, "reason": dead_letter.reason});
    match std::str::from_utf8(&dead_letter.text) {
        Ok(text) => line["text"] = text.into(),
        Err(_) => line["base64"] = STANDARD.encode(&dead_letter.text).into(),
    }
    line
}

/// Reads dead letters one by one. A malformed line yields an error, and reading continues after it.
pub fn read(from: impl Read) -> impl Iterator<Item = io::Result<DeadLetter>> {
    let mut lines = BufReader::new(from);
    std::iter::from_fn(move || {
        let mut bytes = Vec::new();
        match (&mut lines).take(LINE_BYTES_MAX).read_until(b'\n', &mut bytes) {
            Ok(0) => None,
            Ok(_) if bytes.len() as u64 == LINE_BYTES_MAX && bytes.last() != Some(&b'\n') => {
                let skipped = skip_line(&mut lines);
                Some(skipped.and_then(|()| Err(io::Error::new(io::ErrorKind::InvalidData, "line too long"))))
            }
            Ok(_) => Some(
                parse_letter(&bytes)
                    .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "not a dead letter")),
            ),
            Err(error) => Some(Err(error)),
        }
    })
}

fn skip_line(lines: &mut impl BufRead) -> io::Result<()> {
    loop {
        let buffer = lines.fill_buf()?;
        let end = memchr::memchr(b'\n', buffer);
        let (used, is_done) = (end.map_or(buffer.len(), |end| end + 1), end.is_some() || buffer.is_empty());
        lines.consume(used);
        if is_done {
            return Ok(());
        }
    }
}

fn parse_letter(line: &[u8]) -> Option<DeadLetter> {
    let value: Value = serde_json::from_slice(line).ok()?;
    let text_of = |key: &str| value[key].as_str().map(str::to_owned);
    let text = match text_of("text") {
        Some(text) => text.into_bytes(),
        None => STANDARD.decode(value["base64"].as_str()?).ok()?,
    };
    Some(DeadLetter { time: text_of("time")?, source: text_of("source")?, reason: text_of("reason")?, text })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dead(text: &[u8]) -> DeadLetter {
        let owned = str::to_owned;
        DeadLetter {
            time: owned("2026-11-22T00:00:00Z"),
            source: owned("lines"),
            reason: owned("not JSON"),
            text: text.to_vec(),
        }
    }

    #[test]
    fn dead_letters_survive_a_reopen_and_partial_lines_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join(".lea")).unwrap();
        let path = dir.path().join(".lea").join(FILE_NAME);
        let all = [dead(b"{\"a\n"), dead(b"\xff\x00"), dead(b"")];
        let file = EventDeadLetters::open(dir.path()).unwrap();
        all[..2].iter().for_each(|dead_letter| file.add(dead_letter).unwrap());
        assert_eq!((file.kept(), file.lost()), (2, 0));
        std::fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"half").unwrap();
        EventDeadLetters::open(dir.path()).unwrap().add(&all[2]).unwrap();
        let found: Vec<_> = read(File::open(&path).unwrap()).collect::<io::Result<_>>().unwrap();
        assert_eq!(found, all);
    }

    #[test]
    fn full_file_drops_and_counts_dead_letters() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join(".lea")).unwrap();
        let length = to_json(&dead(b"a")).to_string().len() as u64 + 1;
        let of = |peer: &str, text: &[u8]| DeadLetter { source: format!("lines {peer}:5"), ..dead(text) };
        let more = " 192.0.2.1:5".len() as u64;
        let file = EventDeadLetters::open_with_limit(dir.path(), 4 * (length + more)).unwrap();
        for last in 1..=4 {
            file.add(&of(&format!("192.0.2.{last}"), b"a")).unwrap();
        }
        assert!(file.add(&of("192.0.2.5", b"c")).is_err());
        assert_eq!((file.kept(), file.lost()), (4, 1));
    }

    #[test]
    fn dead_letters_that_cannot_be_written_are_counted() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join(".lea")).unwrap();
        let letters = EventDeadLetters::open(dir.path()).unwrap();
        letters.file.lock().unwrap().file = File::open(dir.path().join(".lea").join(FILE_NAME)).unwrap();
        assert_eq!(letters.add_all([dead(b"a"), dead(b"b")]), AddedLetters { kept: 0, lost: 2 });
        assert_eq!((letters.kept(), letters.lost()), (0, 2));
    }

    #[test]
    fn t1_a_peer_has_a_share_of_the_file_also_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join(".lea")).unwrap();
        let of =
            |peer: &str| DeadLetter { source: format!("http {peer} calls"), ..dead(b"a\"source\":\"x y\"") };
        let length = to_json(&of("192.0.2.1:5")).to_string().len() as u64 + 1;
        let open = || EventDeadLetters::open_with_limit(dir.path(), 4 * 3 * length).unwrap();
        let file = open();
        let one = vec![of("192.0.2.1:5"); 5];
        assert_eq!(file.add_all(one), AddedLetters { kept: 3, lost: 2 });
        assert!(file.add(&of("192.0.2.2:5")).is_ok());
        drop(file);
        let file = open();
        assert_eq!(file.add_all([of("192.0.2.1:6"), of("192.0.2.2:6")]), AddedLetters { kept: 1, lost: 1 });
        let of_v6 = |last: u8| of(&format!("[2001:db8::{last:x}]:5"));
        assert!(file.add_all((1..=9).map(of_v6)).lost > 0, "a /64 network is one peer");
    }

    #[test]
    fn t3_many_dead_letters_are_synced_once() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join(".lea")).unwrap();
        let file = EventDeadLetters::open(dir.path()).unwrap();
        let start = std::time::Instant::now();
        let added = file.add_all((0..50_000).map(|_| dead(b"{}")));
        assert_eq!(added, AddedLetters { kept: 50_000, lost: 0 });
        assert!(start.elapsed().as_secs() < 20, "{:?}", start.elapsed());
        assert_eq!(read(File::open(dir.path().join(".lea").join(FILE_NAME)).unwrap()).count(), 50_000);
    }

    #[test]
    fn malformed_line_does_not_stop_reading() {
        let long = vec![b'x'; LINE_BYTES_MAX as usize + 5];
        let text = [b"nonsense\n", &long[..], b"\n", to_json(&dead(b"a")).to_string().as_bytes()].concat();
        let found: Vec<_> = read(&text[..]).map(|dead_letter| dead_letter.ok()).collect();
        assert_eq!(found, [None, None, Some(dead(b"a"))]);
    }
}
