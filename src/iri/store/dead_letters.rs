//! Events that cannot be stored: DIR/.lea/event-dead-letters.jsonl, a JSON object a line with `time`, `source`, `reason`
//! and `text` (or `base64`, where it is no UTF-8). Called by any thread.
//!
//! A line is durable when [`DeadLetters::add`] returns. The file stays below its bound: past it a letter is counted and
//! no longer kept, which is logged once.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::iri::document::SOURCE_BYTES_MAX;
use crate::{Error, Result};

/// The file's name in DIR/.lea.
pub const FILE: &str = "event-dead-letters.jsonl";

/// Bytes of the file.
pub const FILE_BYTES_MAX: u64 = 256 << 20;

/// Bytes of one line: a text in which each byte takes six.
const LINE_BYTES_MAX: u64 = 6 * SOURCE_BYTES_MAX as u64 + 4_096;

/// An event that was not stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// When, RFC 3339.
    pub time: String,
    /// Where it came from: `lines 192.0.2.1:5000`, `http 192.0.2.1:6000 opensips`.
    pub source: String,
    /// Why it was not stored.
    pub reason: String,
    /// What came.
    pub text: Vec<u8>,
}

/// The file that dead letters go to.
#[derive(Debug)]
pub struct DeadLetters {
    file: Mutex<(File, u64)>,
    bytes_max: u64,
    kept: AtomicU64,
    lost: AtomicU64,
}

impl DeadLetters {
    /// Opens the file of a folder, in which the store is.
    pub fn open(dir: &Path) -> Result<DeadLetters> {
        DeadLetters::open_bounded(dir, FILE_BYTES_MAX)
    }

    fn open_bounded(dir: &Path, bytes_max: u64) -> Result<DeadLetters> {
        let path = dir.join(".lea").join(FILE);
        let mut options = OpenOptions::new();
        options.read(true).append(true).create(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
        let file = options.open(&path).map_err(Error::path("open", &path))?;
        let bytes = mend(&file).map_err(Error::path("read", &path))?;
        Ok(DeadLetters {
            file: Mutex::new((file, bytes)),
            bytes_max,
            kept: AtomicU64::new(0),
            lost: AtomicU64::new(0),
        })
    }

    /// Keeps an event durably. Where the file is full or cannot be written the event is lost, and counted so.
    pub fn add(&self, letter: &DeadLetter) -> io::Result<()> {
        let mut line = line(letter).to_string();
        line.push('\n');
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let (file, bytes) = &mut *file;
        let room = *bytes + line.len() as u64 <= self.bytes_max;
        let written = if room {
            file.write_all(line.as_bytes()).and_then(|()| file.sync_data())
        } else {
            Err(io::Error::new(io::ErrorKind::QuotaExceeded, "the file of dead letters is full"))
        };
        match &written {
            Ok(()) => {
                *bytes += line.len() as u64;
                self.kept.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => {
                // Half a line would spoil the next one.
                let _ = file.set_len(*bytes);
                if self.lost.fetch_add(1, Ordering::Relaxed) == 0 {
                    log::error!("dead_letter_lost error=\"{error}\"");
                }
            }
        }
        written
    }

    /// Events kept since the start.
    pub fn kept(&self) -> u64 {
        self.kept.load(Ordering::Relaxed)
    }

    /// Events that could not be kept either.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

/// Cuts a last line that a crash left half; gives the length.
fn mend(file: &File) -> io::Result<u64> {
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

fn line(letter: &DeadLetter) -> Value {
    let mut line = json!({"time": letter.time, "source": letter.source, "reason": letter.reason});
    match std::str::from_utf8(&letter.text) {
        Ok(text) => line["text"] = text.into(),
        Err(_) => line["base64"] = STANDARD.encode(&letter.text).into(),
    }
    line
}

/// Reads dead letters, one by one; a line that is none is an error of its own, and the next one follows.
pub fn read(from: impl Read) -> impl Iterator<Item = io::Result<DeadLetter>> {
    let mut lines = BufReader::new(from);
    std::iter::from_fn(move || {
        let mut bytes = Vec::new();
        match (&mut lines).take(LINE_BYTES_MAX).read_until(b'\n', &mut bytes) {
            Ok(0) => None,
            Ok(_) if bytes.len() as u64 == LINE_BYTES_MAX && bytes.last() != Some(&b'\n') => {
                let skipped = skip_line(&mut lines);
                Some(
                    skipped.and_then(|()| {
                        Err(io::Error::new(io::ErrorKind::InvalidData, "the line is too long"))
                    }),
                )
            }
            Ok(_) => Some(
                letter(&bytes).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no dead letter")),
            ),
            Err(error) => Some(Err(error)),
        }
    })
}

fn skip_line(lines: &mut impl BufRead) -> io::Result<()> {
    loop {
        let buffer = lines.fill_buf()?;
        let end = memchr::memchr(b'\n', buffer);
        let (taken, is_done) = (end.map_or(buffer.len(), |end| end + 1), end.is_some() || buffer.is_empty());
        lines.consume(taken);
        if is_done {
            return Ok(());
        }
    }
}

fn letter(line: &[u8]) -> Option<DeadLetter> {
    let value: Value = serde_json::from_slice(line).ok()?;
    let word = |key: &str| value[key].as_str().map(str::to_owned);
    let text = match word("text") {
        Some(text) => text.into_bytes(),
        None => STANDARD.decode(value["base64"].as_str()?).ok()?,
    };
    Some(DeadLetter { time: word("time")?, source: word("source")?, reason: word("reason")?, text })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dead(text: &[u8]) -> DeadLetter {
        let word = str::to_owned;
        DeadLetter {
            time: word("2026-11-22T00:00:00Z"),
            source: word("lines"),
            reason: word("no JSON"),
            text: text.to_vec(),
        }
    }

    #[test]
    fn letters_come_back_and_half_a_line_is_cut() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join(".lea")).unwrap();
        let path = dir.path().join(".lea").join(FILE);
        let all = [dead(b"{\"a\n"), dead(b"\xff\x00"), dead(b"")];
        let letters = DeadLetters::open(dir.path()).unwrap();
        all[..2].iter().for_each(|letter| letters.add(letter).unwrap());
        assert_eq!((letters.kept(), letters.lost()), (2, 0));
        std::fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"half").unwrap();
        DeadLetters::open(dir.path()).unwrap().add(&all[2]).unwrap();
        let found: Vec<_> = read(File::open(&path).unwrap()).collect::<io::Result<_>>().unwrap();
        assert_eq!(found, all);
    }

    #[test]
    fn a_full_file_loses_and_counts() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join(".lea")).unwrap();
        let length = line(&dead(b"a")).to_string().len() as u64 + 1;
        let letters = DeadLetters::open_bounded(dir.path(), 2 * length).unwrap();
        letters.add(&dead(b"a")).unwrap();
        letters.add(&dead(b"b")).unwrap();
        assert!(letters.add(&dead(b"c")).is_err());
        assert_eq!((letters.kept(), letters.lost()), (2, 1));
    }

    #[test]
    fn a_line_that_is_none_is_told_and_the_next_read() {
        let long = vec![b'x'; LINE_BYTES_MAX as usize + 5];
        let text = [b"nonsense\n", &long[..], b"\n", line(&dead(b"a")).to_string().as_bytes()].concat();
        let found: Vec<_> = read(&text[..]).map(|letter| letter.ok()).collect();
        assert_eq!(found, [None, None, Some(dead(b"a"))]);
    }
}
