//! Journal of open stream files, `.lea/open.jsonl`: one line when a file is opened and one when it is closed.
//! After a crash the recovery looks only at the files that are still open.
//!
//! Invariant: a line is appended before its file is created, so every stream file is known to the journal or
//! has a closed manifest.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::sync::Mutex;

use serde::{Deserialize, Serialize};

use super::dir::VaultDir;
use super::disk_retry::is_transient;
use super::manifest::StreamSource;

/// Name of the journal in `.lea`.
pub(super) const FILE: &str = "open.jsonl";

/// The journal is rewritten with the open files only when it exceeds this number of lines.
const LINES_MAX: usize = 100_000;

/// A line holds at most a name of 4 KiB in hexadecimal.
const LINE_BYTES_MAX: u64 = 16 << 10;

/// A journal entry: a stream file that is open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct JournalEntry {
    pub file: String,
    /// Name of the stream in hexadecimal.
    pub name_hex: String,
    pub part: u32,
    pub source: StreamSource,
    /// Length of the file when it was opened.
    #[serde(default)]
    pub bytes: u64,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum JournalLine {
    Open(JournalEntry),
    Closed(String),
    /// The last line of a process that closed everything. Without it, lines may be missing.
    Clean,
}

/// What the journal says about the process that wrote it.
#[derive(Debug)]
pub(super) struct LastRun {
    /// The files that were open when it ended.
    pub unclosed: Vec<JournalEntry>,
    /// Whether it closed everything. Otherwise files may be open that the journal does not list: its end can be missing
    /// after a power failure, and all of it if another program has emptied it.
    pub is_clean: bool,
}

#[derive(Debug)]
pub(super) struct Journal {
    inner: Mutex<JournalState>,
}

#[derive(Debug)]
struct JournalState {
    file: File,
    open: BTreeMap<String, JournalEntry>,
    lines: usize,
}

impl Journal {
    /// Reads the journal. Also returns what it says about the last process.
    pub(super) fn open(dir: &VaultDir) -> io::Result<(Journal, LastRun)> {
        let Replay { open, whole_bytes, is_clean } = replay(BufReader::new(dir.meta_append(FILE)?))?;
        let file = match dir.meta_replace(FILE, &to_lines(&open)?) {
            Err(error) if is_transient(&error) => {
                // A rewrite shortens the journal, but on a full disk only appending is possible.
                log::warn!("journal_not_rewritten error=\"{error}\"");
                let file = dir.meta_append(FILE)?;
                file.set_len(whole_bytes)?;
                file
            }
            replaced => replaced?,
        };
        let unclosed = open.values().cloned().collect();
        let lines = open.len();
        let journal = Journal { inner: Mutex::new(JournalState { file, open, lines }) };
        Ok((journal, LastRun { unclosed, is_clean }))
    }

    /// Records that all files are closed, unless some are not. Called when the process ends.
    pub(super) fn record_clean(&self) -> io::Result<()> {
        let mut inner = self.lock();
        if !inner.open.is_empty() {
            return Ok(());
        }
        inner.append(&[JournalLine::Clean])?;
        inner.file.sync_data()
    }

    /// Records that a file is about to be opened.
    pub(super) fn record_opened(&self, entry: JournalEntry) -> io::Result<()> {
        let mut inner = self.lock();
        inner.append(&[JournalLine::Open(entry.clone())])?;
        inner.open.insert(entry.file.clone(), entry);
        Ok(())
    }

    /// Records that files are closed and have closed manifests.
    pub(super) fn record_closed(&self, dir: &VaultDir, files: &[String]) -> io::Result<()> {
        let mut inner = self.lock();
        for file in files {
            inner.open.remove(file);
        }
        if inner.lines + files.len() > LINES_MAX.max(4 * inner.open.len()) {
            inner.file = dir.meta_replace(FILE, &to_lines(&inner.open)?)?;
            inner.lines = inner.open.len();
            return Ok(());
        }
        let lines: Vec<_> = files.iter().map(|file| JournalLine::Closed(file.clone())).collect();
        inner.append(&lines)
    }

    /// Returns whether a file is open: a stream writes to it or it still has to be recovered.
    pub(super) fn is_open(&self, file: &str) -> bool {
        self.lock().open.contains_key(file)
    }

    /// Calls fsync on the journal.
    pub(super) fn sync(&self) -> io::Result<()> {
        let file = self.lock().file.try_clone()?;
        file.sync_data()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, JournalState> {
        self.inner.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl JournalState {
    fn append(&mut self, lines: &[JournalLine]) -> io::Result<()> {
        let mut text = Vec::new();
        for line in lines {
            serde_json::to_writer(&mut text, line)?;
            text.push(b'\n');
        }
        let before = self.file.metadata()?.len();
        if let Err(error) = self.file.write_all(&text) {
            // Half a line (after a full disk) must not precede the next attempt's line.
            self.file.set_len(before)?;
            return Err(error);
        }
        self.lines += lines.len();
        Ok(())
    }
}

pub(super) fn to_lines(open: &BTreeMap<String, JournalEntry>) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    for entry in open.values() {
        serde_json::to_writer(&mut text, &JournalLine::Open(entry.clone()))?;
        text.push(b'\n');
    }
    Ok(text)
}

/// Returns the files that were open when the last process ended, without changing the journal.
pub(super) fn read_unclosed(journal: File) -> io::Result<BTreeMap<String, JournalEntry>> {
    Ok(replay(BufReader::new(journal))?.open)
}

/// Contents of a journal.
pub(super) struct Replay {
    /// The open files.
    pub(super) open: BTreeMap<String, JournalEntry>,
    /// Length of all complete lines.
    whole_bytes: u64,
    /// Whether the last line says that everything is closed, and no line is damaged.
    is_clean: bool,
}

/// Replays the journal. Skips a malformed line, such as one that a power failure truncated, with a warning.
pub(super) fn replay(mut journal: impl BufRead) -> io::Result<Replay> {
    let mut open = BTreeMap::new();
    let (mut is_clean, mut is_damaged) = (false, false);
    let mut line = Vec::new();
    let (mut read_bytes, mut whole_bytes) = (0, 0);
    for number in 1.. {
        line.clear();
        let bytes = journal.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line)?;
        if bytes == 0 {
            break;
        }
        read_bytes += bytes as u64;
        if line.last() == Some(&b'\n') {
            whole_bytes = read_bytes;
        }
        is_clean = false;
        match serde_json::from_slice(&line) {
            Ok(JournalLine::Clean) => is_clean = true,
            Ok(JournalLine::Open(entry)) => drop(open.insert(entry.file.clone(), entry)),
            Ok(JournalLine::Closed(file)) => drop(open.remove(&file)),
            Err(error) => {
                is_damaged = true;
                log::warn!("journal_line_skipped file={FILE} line={number} reason=\"{error}\"");
            }
        }
    }
    Ok(Replay { open, whole_bytes, is_clean: is_clean && !is_damaged })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cc::vault::dir::Access;

    fn entry(file: &str) -> JournalEntry {
        JournalEntry {
            file: file.into(),
            name_hex: "61".into(),
            part: 1,
            source: StreamSource::Tcp,
            bytes: 0,
        }
    }

    #[test]
    fn open_files_are_known_at_the_next_start() {
        let dir = tempfile::tempdir().unwrap();
        let open = || VaultDir::open(dir.path(), Access::PRIVATE).unwrap();
        {
            let dir = open();
            let (journal, last) = Journal::open(&dir).unwrap();
            assert!(last.unclosed.is_empty() && !last.is_clean, "there was no journal");
            journal.record_opened(entry("a")).unwrap();
            journal.record_opened(entry("b")).unwrap();
            journal.record_closed(&dir, &["a".into()]).unwrap();
            journal.sync().unwrap();
        }
        let dir = open();
        assert_eq!(Journal::open(&dir).unwrap().1.unclosed, [entry("b")]);
        // A truncated line does not affect the others.
        dir.meta_append(FILE).unwrap().write_all(b"{\"open\":{\"fi\n{\"closed\":\"zz\"}\n").unwrap();
        assert_eq!(Journal::open(&dir).unwrap().1.unclosed, [entry("b")]);
    }

    #[test]
    fn only_a_process_that_closed_everything_leaves_a_clean_journal() {
        let dir = tempfile::tempdir().unwrap();
        let dir = VaultDir::open(dir.path(), Access::PRIVATE).unwrap();
        let (journal, _) = Journal::open(&dir).unwrap();
        journal.record_opened(entry("a")).unwrap();
        journal.record_clean().unwrap();
        let (journal, last) = Journal::open(&dir).unwrap();
        assert!(!last.is_clean, "a file is open");
        journal.record_closed(&dir, &["a".into()]).unwrap();
        journal.record_clean().unwrap();
        let (journal, last) = Journal::open(&dir).unwrap();
        assert!(last.is_clean && last.unclosed.is_empty());
        drop(journal);
        // The mark holds for one run only, and damage revokes it.
        assert!(!Journal::open(&dir).unwrap().1.is_clean);
        dir.meta_append(FILE).unwrap().write_all(b"{\n\"clean\"\n").unwrap();
        assert!(!Journal::open(&dir).unwrap().1.is_clean);
    }

    #[test]
    fn the_journal_is_rewritten_when_it_is_long() {
        let dir = tempfile::tempdir().unwrap();
        let dir = VaultDir::open(dir.path(), Access::PRIVATE).unwrap();
        let (journal, _) = Journal::open(&dir).unwrap();
        journal.record_opened(entry("kept")).unwrap();
        let many: Vec<String> = (0..LINES_MAX).map(|n| n.to_string()).collect();
        journal.record_closed(&dir, &many).unwrap();
        assert!(dir.meta_append(FILE).unwrap().metadata().unwrap().len() < 200);
        drop(journal);
        assert_eq!(Journal::open(&dir).unwrap().1.unclosed, [entry("kept")]);
    }
}
