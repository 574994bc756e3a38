//! The dead-letter file of events, DIR/.lea/event-dead-letters.jsonl. Each line is a JSON object with `time`,
//! `source`, `reason` and `text` (or `base64` if the text is not UTF-8). Called by any thread.
//!
//! A line is durable when [`EventDeadLetters::add`] returns. The file has a maximum size; beyond it, dead
//! letters are counted and dropped, which is logged once.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::runtime::create::create_error;
use crate::search::document::SOURCE_BYTES_MAX;
use crate::{Error, Result};

/// Name of the file in DIR/.lea.
pub const FILE_NAME: &str = "event-dead-letters.jsonl";

/// Maximum size of the file.
pub const FILE_BYTES_MAX: u64 = 256 << 20;

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
    file: Mutex<(File, u64)>,
    bytes_max: u64,
    kept: AtomicU64,
    lost: AtomicU64,
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
        let bytes = truncate_partial_line(&file).map_err(Error::path("read", &path))?;
        Ok(EventDeadLetters {
            file: Mutex::new((file, bytes)),
            bytes_max,
            kept: AtomicU64::new(0),
            lost: AtomicU64::new(0),
        })
    }

    /// Writes a dead letter durably. If the file is full or cannot be written, the dead letter is lost and
    /// counted.
    pub fn add(&self, dead_letter: &DeadLetter) -> io::Result<()> {
        let mut line = to_json(dead_letter).to_string();
        line.push('\n');
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let (file, bytes) = &mut *file;
        let room = *bytes + line.len() as u64 <= self.bytes_max;
        let written = if room {
            file.write_all(line.as_bytes()).and_then(|()| file.sync_data())
        } else {
            Err(io::Error::new(io::ErrorKind::QuotaExceeded, "the dead-letter file is full"))
        };
        match &written {
            Ok(()) => {
                *bytes += line.len() as u64;
                self.kept.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => {
                // A partial line would corrupt the next one.
                let _ = file.set_len(*bytes);
                if self.lost.fetch_add(1, Ordering::Relaxed) == 0 {
                    log::error!("dead_letter_lost error=\"{error}\"");
                }
            }
        }
        written
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

/// Removes a partial last line that a crash left, and returns the length of the file.
fn truncate_partial_line(file: &File) -> io::Result<u64> {
    let (mut whole, mut at, mut buffer) = (0, 0, [0; 64 << 10]);
    let mut reader = file;
    loop {
        let read = reader.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        if let Some(last) = memchr::memrchr(b'\n', &buffer[..read]) {
            whole = at + last as u64 + 1;
        }
        at += read as u64;
    }
    if whole < at {
        file.set_len(whole)?;
    }
    Ok(whole)
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
        let file = EventDeadLetters::open_with_limit(dir.path(), 2 * length).unwrap();
        file.add(&dead(b"a")).unwrap();
        file.add(&dead(b"b")).unwrap();
        assert!(file.add(&dead(b"c")).is_err());
        assert_eq!((file.kept(), file.lost()), (2, 1));
    }

    #[test]
    fn malformed_line_does_not_stop_reading() {
        let long = vec![b'x'; LINE_BYTES_MAX as usize + 5];
        let text = [b"nonsense\n", &long[..], b"\n", to_json(&dead(b"a")).to_string().as_bytes()].concat();
        let found: Vec<_> = read(&text[..]).map(|dead_letter| dead_letter.ok()).collect();
        assert_eq!(found, [None, None, Some(dead(b"a"))]);
    }
}
