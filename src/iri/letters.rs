//! Dead letters of events: DIR/.lea/event-dead-letters.jsonl keeps what could not be stored, with the reason, so that it
//! can be mended and read again. One JSON object a line:
//!
//! `{"lea_dead_event":1,"time":"2026-11-21T20:59:41.000Z","from":"lines","peer":"192.0.2.1:5004","index":"interception","reason":"…","value":"…"}`
//!
//! The value is a string, or, where it is no UTF-8, base64 in `value_base64`. `index` is there where it was known. A
//! value of which only the begin was kept has `"cut":true`.
//!
//! Written by the threads of connections. The file is made when the first letter comes. It is bounded: a sender of
//! rubbish must not fill the disk.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::Utc;
use serde::Serialize;

use super::event::rfc3339;
use crate::{Error, Result};

/// The file in an output folder.
pub const FILE: &str = ".lea/event-dead-letters.jsonl";

/// What the file may become; what comes then is counted and lost.
pub const FILE_BYTES_MAX: u64 = 1 << 30;

/// The version of the format.
const VERSION: u32 = 1;

/// What could not be stored.
#[derive(Clone, Copy, Debug)]
pub struct Letter<'a> {
    /// The listener: `lines`, `syslog`, `http`.
    pub from: &'a str,
    /// Who sent it.
    pub peer: &'a str,
    /// Where it was to go.
    pub index: Option<&'a str>,
    /// Why it could not be stored.
    pub reason: &'a str,
    /// What came.
    pub value: &'a [u8],
    /// This is only its begin.
    pub cut: bool,
}

#[derive(Serialize)]
struct Written<'a> {
    lea_dead_event: u32,
    time: String,
    from: &'a str,
    peer: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<&'a str>,
    reason: &'a str,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    cut: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
}

impl Letter<'_> {
    /// The letter's line, with its line end.
    fn line(&self) -> Vec<u8> {
        let text = str::from_utf8(self.value).ok();
        let written = Written {
            lea_dead_event: VERSION,
            time: rfc3339(&Utc::now()),
            from: self.from,
            peer: self.peer,
            index: self.index,
            reason: self.reason,
            cut: self.cut,
            value: text,
            value_base64: text.is_none().then(|| STANDARD.encode(self.value)),
        };
        let mut line = serde_json::to_vec(&written).expect("strings and numbers can be written as JSON");
        line.push(b'\n');
        line
    }
}

/// The dead letters of a folder.
#[derive(Debug)]
pub struct Letters {
    path: PathBuf,
    bytes_max: u64,
    file: Mutex<Option<(File, u64)>>,
}

impl Letters {
    /// Those of an output folder; nothing is opened yet.
    pub fn new(dir: &Path) -> Letters {
        Letters { path: dir.join(FILE), bytes_max: FILE_BYTES_MAX, file: Mutex::default() }
    }

    /// Keeps a letter. False if there is no more room for it.
    pub fn keep(&self, letter: &Letter<'_>) -> Result<bool> {
        let line = letter.line();
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let (file, bytes) = match file.as_mut() {
            Some(open) => open,
            None => file.insert(self.open()?),
        };
        if *bytes + line.len() as u64 > self.bytes_max {
            return Ok(false);
        }
        file.write_all(&line).map_err(Error::path("write to", &self.path))?;
        *bytes += line.len() as u64;
        Ok(true)
    }

    /// Makes sure that they outlive a crash.
    pub fn sync(&self) -> Result<()> {
        match self.file.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
            Some((file, _)) => file.sync_data().map_err(Error::path("sync", &self.path)),
            None => Ok(()),
        }
    }

    fn open(&self) -> Result<(File, u64)> {
        let mut options = OpenOptions::new();
        options.append(true).create(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
        let file = options.open(&self.path).map_err(Error::path("open", &self.path))?;
        let bytes = file.metadata().map_err(Error::path("look at", &self.path))?.len();
        log::info!("event_dead_letters file={:?}", self.path);
        Ok((file, bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LETTER: Letter<'static> = Letter {
        from: "lines",
        peer: "192.0.2.1:5004",
        index: None,
        reason: "no JSON",
        value: b"{",
        cut: false,
    };

    fn value_of(letter: &Letter<'_>) -> serde_json::Value {
        serde_json::from_slice(&letter.line()).unwrap()
    }

    #[test]
    fn a_letter_has_all_that_came() {
        let text = value_of(&LETTER);
        assert_eq!(text["value"], "{");
        assert_eq!(text["reason"], "no JSON");
        assert_eq!(text.get("index"), None);
        let bytes = value_of(&Letter { value: b"\xff\0", index: Some("syslog"), cut: true, ..LETTER });
        assert_eq!((&bytes["value_base64"], &bytes["index"]), (&"/wA=".into(), &"syslog".into()));
        assert_eq!((bytes.get("value"), &bytes["cut"]), (None, &true.into()));
    }

    #[test]
    fn the_file_has_a_bound() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join(".lea")).unwrap();
        let line_bytes = LETTER.line().len() as u64;
        for again in 0..2 {
            let letters = Letters { bytes_max: 2 * line_bytes, ..Letters::new(dir.path()) };
            assert_eq!(letters.keep(&LETTER).unwrap(), again == 0);
            assert_eq!(letters.keep(&LETTER).unwrap(), again == 0);
            assert!(!letters.keep(&LETTER).unwrap());
            letters.sync().unwrap();
        }
        let kept = std::fs::read_to_string(dir.path().join(FILE)).unwrap();
        assert_eq!(kept.lines().count(), 2);
    }
}
