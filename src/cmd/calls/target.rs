//! Which captures a command of `lea calls` reads, and which call.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use log::warn;
use rustix::fs::{Access, OFlags, access};
use sha2::{Digest, Sha256};

use crate::calls::analysis::{self, Analysis};
use crate::calls::capture_file::{CaptureFile, RecordReader};
use crate::calls::engine::CaptureName;
use crate::calls::view::Call;
use crate::cc::vault::dir::META_DIR;
use crate::cmd::args::listing::{self, ManifestStatus};
use crate::runtime::hex;
use crate::runtime::progress::{BYTES_TEMPLATE, Progress};
use crate::runtime::terminal::escape;
use crate::{Error, Exit, Result};

/// Captures to analyse.
#[derive(Debug, clap::Args)]
pub(super) struct CaptureArgs {
    /// Captures, or output directories with captures
    #[arg(value_name = "FILE|DIR", default_value = "interceptions")]
    paths: Vec<PathBuf>,
    /// Analyse the captures without reading or writing their indexes
    #[arg(long)]
    no_index: bool,
}

/// Captures of a command, analysed one by one.
pub(super) struct Captures {
    /// Files, and whether they were named and not found in a directory.
    files: Vec<(PathBuf, bool)>,
    has_index: bool,
    bar: Progress,
    /// Whether something could not be read, or was cut off by a limit.
    is_incomplete: bool,
}

impl CaptureArgs {
    pub(super) fn open(&self) -> Result<Captures> {
        Captures::new(&self.paths, !self.no_index)
    }
}

impl Captures {
    fn new(paths: &[PathBuf], has_index: bool) -> Result<Captures> {
        let mut files = Vec::new();
        for path in paths {
            if path.is_dir() {
                let streams = listing::list(path)?;
                let present = streams.into_iter().filter(|entry| entry.bytes.is_some());
                files.extend(present.map(|entry| (entry.path, false)));
            } else {
                files.push((listing::stream_path(path), true));
            }
        }
        let sizes = files.iter().filter_map(|(path, _)| Some(path.metadata().ok()?.len()));
        let bar = Progress::new(true, Some(sizes.sum()), BYTES_TEMPLATE);
        Ok(Captures { files, has_index, bar, is_incomplete: false })
    }

    /// Analyses each capture. Files that are not captures are skipped if a directory has them, and reported if they were
    /// named. `use_capture` returns false to end.
    pub(super) fn each(
        &mut self,
        mut use_capture: impl FnMut(&Path, Analysis) -> Result<bool>,
    ) -> Result<()> {
        for (path, is_named) in std::mem::take(&mut self.files) {
            let Some(analysis) = self.analyse(&path, is_named) else { continue };
            if !use_capture(&path, analysis)? {
                break;
            }
        }
        Ok(())
    }

    fn analyse(&mut self, path: &Path, is_named: bool) -> Option<Analysis> {
        let bar = &self.bar;
        let index = self.has_index.then(|| index_path(path)).flatten();
        let stream = stream_name(path);
        let capture = path.to_string_lossy();
        let name = CaptureName { capture: &capture, stream: &stream };
        let analysed = open_capture(path).and_then(|mut file| {
            analysis::analyse(&mut file, name, index.as_deref(), &mut |bytes| bar.inc(bytes))
        });
        let analysis = match analysed {
            Ok(Some(analysis)) => analysis,
            Ok(None) if is_named => {
                warn!("capture_unreadable file={capture:?} error=\"the file is not a capture\"");
                self.is_incomplete = true;
                return None;
            }
            Ok(None) => return None,
            Err(error) => {
                warn!("capture_unreadable file={capture:?} error={:?}", error.to_string());
                self.is_incomplete = true;
                return None;
            }
        };
        for problem in &analysis.problems {
            warn!("analysis_incomplete file={capture:?} reason={problem:?}");
            self.is_incomplete = true;
        }
        Some(analysis)
    }

    /// Ends the progress bar and returns the exit code.
    pub(super) fn end(self) -> Exit {
        self.bar.finish_and_clear();
        if self.is_incomplete { Exit::Incomplete } else { Exit::Done }
    }
}

/// One call.
#[derive(Debug, clap::Args)]
pub(super) struct CallArgs {
    /// ID of the call as `lea calls list` prints it (4 digits or more), its Call-ID, or FILE#N for the Nth call of a file
    #[arg(value_name = "CALL")]
    call: String,
    #[command(flatten)]
    captures: CaptureArgs,
}

/// A call with the capture that it is in.
pub(super) struct FoundCall {
    pub(super) call: Call,
    pub(super) file: CaptureFile,
    pub(super) reader: RecordReader,
}

/// Fewest digits of an ID that are searched for.
const ID_DIGITS_MIN: usize = 4;

impl CallArgs {
    /// Finds the call in the captures. Also returns the exit code for what could not be read.
    pub(super) fn find(&self) -> Result<(FoundCall, Exit)> {
        let mut found: Vec<(PathBuf, Call, RecordReader)> = Vec::new();
        let numbered =
            self.call.rsplit_once('#').and_then(|(file, number)| Some((file, number.parse::<usize>().ok()?)));
        let mut captures = match numbered {
            Some((file, _)) => Captures::new(&[PathBuf::from(file)], !self.captures.no_index)?,
            None => self.captures.open()?,
        };
        captures.each(|path, analysis| {
            let is_it = |(index, call): &(usize, Call)| match numbered {
                Some((_, number)) => index + 1 == number,
                None => {
                    call.call_id == self.call
                        || self.call.len() >= ID_DIGITS_MIN && call.id.starts_with(&self.call)
                }
            };
            let calls = analysis.calls.into_iter().enumerate().filter(is_it);
            found.extend(calls.map(|(_, call)| (path.to_owned(), call, analysis.reader.clone())));
            Ok(true)
        })?;
        let exit = captures.end();
        if found.len() > 1 {
            let ids: Vec<&str> = found.iter().map(|(_, call, _)| call.id.as_str()).take(10).collect();
            let reason = format!("{} calls match {}: {}", found.len(), escape(&self.call), ids.join(", "));
            return Err(Error::Usage(format!("{reason}; use the ID of one of them")));
        }
        let Some((path, call, reader)) = found.pop() else {
            let advice = "\"lea calls list\" prints the IDs";
            return Err(Error::Usage(format!("no call matches {} ({advice})", escape(&self.call))));
        };
        let file = open_capture(&path).map_err(Error::path("open", &path))?;
        Ok((FoundCall { call, file, reader }, exit))
    }
}

/// Opens a capture, also through a link.
pub(super) fn open_capture(path: &Path) -> io::Result<CaptureFile> {
    listing::open_regular(path, OFlags::empty()).map(CaptureFile::new)
}

/// Name of the stream as its sender named it. The file name if there is no manifest.
fn stream_name(path: &Path) -> String {
    match listing::read_manifest(path) {
        ManifestStatus::Valid(manifest) => manifest.name.to_string(),
        _ => path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
    }
}

/// Path of the index of a capture: in the output directory of the capture, else in the cache of the user.
fn index_path(path: &Path) -> Option<PathBuf> {
    let path = path.canonicalize().ok()?;
    let meta_dir = path.parent()?.join(META_DIR);
    let mut name = path.file_name()?.to_owned();
    name.push(".idx");
    let is_writable = access(&meta_dir, Access::WRITE_OK | Access::EXEC_OK).is_ok();
    if meta_dir.is_dir() && is_writable {
        return Some(meta_dir.join("calls").join(name));
    }
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|dir| dir.is_absolute());
    let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")))?;
    // Captures of one name in several directories.
    let hash = hex::encode(&Sha256::digest(path.as_os_str().as_bytes())[..8]);
    Some(cache.join("lea").join("calls").join(format!("{hash}.idx")))
}
