//! DIR/.lea/dead-letters.jsonl: what could not be used, kept whole.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::cc::frame::dump::Letter;
use crate::cc::source::dump::Origin;
use crate::{Error, Result};

/// The file of dead letters in an output folder.
const FILE: &str = ".lea/dead-letters.jsonl";

/// Appends dead letters, once there is one.
pub struct Letters<'a> {
    path: PathBuf,
    read: &'a [Origin],
    state: State,
}

enum State {
    /// None came yet.
    Idle,
    /// They go into this file.
    Open(File),
    /// The file is one of those that are read: it has them already.
    Read,
}

impl<'a> Letters<'a> {
    /// The letters of a folder; `read` are the dumps that are read.
    pub fn new(dir: &Path, read: &'a [Origin]) -> Letters<'a> {
        Letters { path: dir.join(FILE), read, state: State::Idle }
    }

    /// Keeps a letter.
    pub fn keep(&mut self, letter: &Letter<'_>) -> Result<()> {
        if let State::Idle = self.state {
            self.state = self.open()?;
        }
        match &mut self.state {
            State::Open(file) => file.write_all(&letter.line()).map_err(Error::path("write to", &self.path)),
            State::Idle | State::Read => Ok(()),
        }
    }

    /// Makes sure that they outlive a crash.
    pub fn sync(&self) -> Result<()> {
        match &self.state {
            State::Open(file) => file.sync_all().map_err(Error::path("sync", &self.path)),
            State::Idle | State::Read => Ok(()),
        }
    }

    fn open(&self) -> Result<State> {
        let mut options = OpenOptions::new();
        options.append(true).create(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
        let file = options.open(&self.path).map_err(Error::path("open", &self.path))?;
        let ours = file.metadata().map_err(Error::path("look at", &self.path))?;
        let is_ours = |found: fs::Metadata| (found.dev(), found.ino()) == (ours.dev(), ours.ino());
        let is_read = self.read.iter().any(|origin| match origin {
            Origin::File(path) => fs::metadata(path).is_ok_and(is_ours),
            Origin::Stdin => fs::metadata("/dev/stdin").is_ok_and(is_ours),
        });
        if is_read {
            log::warn!("dead_letters_left_alone file={:?} note=\"it is being read\"", self.path);
            return Ok(State::Read);
        }
        log::info!("dead_letters file={:?}", self.path);
        Ok(State::Open(file))
    }
}
