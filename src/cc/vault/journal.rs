//! Which stream files are open: `.lea/open.jsonl`, a line when one is opened, a line when it is closed. After a
//! crash the recovery looks at those alone. A line is appended before its file is made, so that a file of ours
//! never stands there unknown.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::sync::Mutex;

use serde::{Deserialize, Serialize};

use super::dir::VaultDir;
use super::manifest::Source;
use super::pressure::may_pass;

/// The journal, in the folder of our own files.
pub const FILE: &str = "open.jsonl";

/// Past so many lines the journal is written anew with the open files alone.
const LINES_MAX: usize = 100_000;

/// A journal line holds a name of 4 KiB in hexadecimal at most.
const LINE_BYTES_MAX: u64 = 16 << 10;

/// A stream file that is open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opened {
    /// The stream file.
    pub file: String,
    /// The stream's name, in hexadecimal.
    pub name_hex: String,
    /// The part.
    pub part: u32,
    /// Where the stream comes from.
    pub source: Source,
    /// The file's length when it was opened.
    #[serde(default)]
    pub bytes: u64,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Open(Opened),
    Closed(String),
}

/// The journal of a folder.
#[derive(Debug)]
pub struct Journal {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    file: File,
    open: BTreeMap<String, Opened>,
    lines: usize,
}

impl Journal {
    /// Reads the journal; gives it and the files that were open when the last process ended.
    pub fn open(dir: &VaultDir) -> io::Result<(Journal, Vec<Opened>)> {
        let (open, whole_bytes) = replay(BufReader::new(dir.own_append(FILE)?))?;
        let file = match dir.own_replace(FILE, &text(&open)?) {
            Err(error) if may_pass(&error) => {
                // It is shorter when written anew, but on a full disk it can only go on.
                log::warn!("journal_not_rewritten error=\"{error}\"");
                let file = dir.own_append(FILE)?;
                file.set_len(whole_bytes)?;
                file
            }
            replaced => replaced?,
        };
        let left = open.values().cloned().collect();
        let lines = open.len();
        Ok((Journal { inner: Mutex::new(Inner { file, open, lines }) }, left))
    }

    /// Notes that a file is about to be opened.
    pub fn opened(&self, opened: Opened) -> io::Result<()> {
        let mut inner = self.lock();
        inner.append(&[Line::Open(opened.clone())])?;
        inner.open.insert(opened.file.clone(), opened);
        Ok(())
    }

    /// Notes that files are closed, and their manifests say so.
    pub fn closed(&self, dir: &VaultDir, files: &[String]) -> io::Result<()> {
        let mut inner = self.lock();
        for file in files {
            inner.open.remove(file);
        }
        if inner.lines + files.len() > LINES_MAX.max(4 * inner.open.len()) {
            inner.file = dir.own_replace(FILE, &text(&inner.open)?)?;
            inner.lines = inner.open.len();
            return Ok(());
        }
        let lines: Vec<_> = files.iter().map(|file| Line::Closed(file.clone())).collect();
        inner.append(&lines)
    }

    /// True if a file is open: some stream writes it, or the recovery has not looked at it yet.
    pub fn is_open(&self, file: &str) -> bool {
        self.lock().open.contains_key(file)
    }

    /// Makes the journal durable.
    pub fn sync(&self) -> io::Result<()> {
        let file = self.lock().file.try_clone()?;
        file.sync_data()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Inner {
    fn append(&mut self, lines: &[Line]) -> io::Result<()> {
        let mut text = Vec::new();
        for line in lines {
            serde_json::to_writer(&mut text, line)?;
            text.push(b'\n');
        }
        let before = self.file.metadata()?.len();
        if let Err(error) = self.file.write_all(&text) {
            // Half a line (a full disk) must not stand before the next attempt's.
            self.file.set_len(before)?;
            return Err(error);
        }
        self.lines += lines.len();
        Ok(())
    }
}

fn text(open: &BTreeMap<String, Opened>) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    for opened in open.values() {
        serde_json::to_writer(&mut text, &Line::Open(opened.clone()))?;
        text.push(b'\n');
    }
    Ok(text)
}

/// The files that were open when the last process ended; looks only.
pub fn left(journal: File) -> io::Result<BTreeMap<String, Opened>> {
    Ok(replay(BufReader::new(journal))?.0)
}

/// What is open after all lines, and the length of the whole ones. A line that cannot be read (the machine went down
/// in the middle of it) is warned of and passed over.
fn replay(mut journal: impl BufRead) -> io::Result<(BTreeMap<String, Opened>, u64)> {
    let mut open = BTreeMap::new();
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
        match serde_json::from_slice(&line) {
            Ok(Line::Open(opened)) => drop(open.insert(opened.file.clone(), opened)),
            Ok(Line::Closed(file)) => drop(open.remove(&file)),
            Err(error) => log::warn!("journal_line_passed_over file={FILE} line={number} reason=\"{error}\""),
        }
    }
    Ok((open, whole_bytes))
}

#[cfg(test)]
mod tests {
    use super::super::dir::Access;
    use super::*;

    fn opened(file: &str) -> Opened {
        Opened { file: file.into(), name_hex: "61".into(), part: 1, source: Source::Tcp, bytes: 0 }
    }

    #[test]
    fn what_is_open_is_known_at_the_next_start() {
        let dir = tempfile::tempdir().unwrap();
        let open = || VaultDir::open(dir.path(), Access::PRIVATE).unwrap();
        {
            let dir = open();
            let (journal, left) = Journal::open(&dir).unwrap();
            assert!(left.is_empty());
            journal.opened(opened("a")).unwrap();
            journal.opened(opened("b")).unwrap();
            journal.closed(&dir, &["a".into()]).unwrap();
            journal.sync().unwrap();
        }
        let dir = open();
        assert_eq!(Journal::open(&dir).unwrap().1, [opened("b")]);
        // A line that was cut in the middle harms none of the others.
        dir.own_append(FILE).unwrap().write_all(b"{\"open\":{\"fi\n{\"closed\":\"zz\"}\n").unwrap();
        assert_eq!(Journal::open(&dir).unwrap().1, [opened("b")]);
    }

    #[test]
    fn it_is_written_anew_before_it_grows_without_end() {
        let dir = tempfile::tempdir().unwrap();
        let dir = VaultDir::open(dir.path(), Access::PRIVATE).unwrap();
        let (journal, _) = Journal::open(&dir).unwrap();
        journal.opened(opened("kept")).unwrap();
        let many: Vec<String> = (0..LINES_MAX).map(|n| n.to_string()).collect();
        journal.closed(&dir, &many).unwrap();
        assert!(dir.own_append(FILE).unwrap().metadata().unwrap().len() < 200);
        drop(journal);
        assert_eq!(Journal::open(&dir).unwrap().1, [opened("kept")]);
    }
}
