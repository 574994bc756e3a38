//! The index of a capture stores the state of its analysis, so that the capture is not read again.
//!
//! A cache: if anything does not match, the capture is read from its start. The file is written under another name and
//! renamed, so that a kill leaves the old one or the new one.
//!
//! Format: [`MAGIC`], CRC-32C of what follows (4 bytes, little-endian), then in
//! postcard the CRC-32C of the bytes at both ends of what is covered, and a [`CaptureAnalyser`].

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::analysis::CaptureAnalyser;
use super::capture_file::CaptureFile;
use crate::capture::reader::ReadAt;

/// First bytes of an index. The digits are the version of everything after it.
const MAGIC: &[u8; 8] = b"leacal02";

const CHECKSUM_BYTES: usize = 4;

/// Largest index that is read. The state at its limits is smaller.
const INDEX_BYTES_MAX: u64 = 1 << 30;

/// Bytes at the start of the capture, and before the covered end, that must be those of the index.
const COMPARED_BYTES: u64 = 4_096;

/// Loads the analysis of a capture. `None`: there is none, or it does not belong to this file.
pub(super) fn load(path: &Path, capture: &mut CaptureFile) -> Option<CaptureAnalyser> {
    let length = fs::symlink_metadata(path).ok().filter(fs::Metadata::is_file)?.len();
    let bytes = (length <= INDEX_BYTES_MAX).then(|| fs::read(path).ok()).flatten()?;
    let (checksum, content) = bytes.strip_prefix(MAGIC)?.split_first_chunk::<CHECKSUM_BYTES>()?;
    if crc32c::crc32c(content) != u32::from_le_bytes(*checksum) {
        return None;
    }
    let (stored_ends, analyser) = postcard::from_bytes::<(u32, CaptureAnalyser)>(content).ok()?;
    let is_usable = analyser.covered <= capture.bytes().ok()?
        && analyser.is_consistent()
        && ends(capture, analyser.covered).ok()? == stored_ends;
    is_usable.then_some(analyser)
}

/// Stores the analysis of a capture. Creates the directory if necessary.
pub(super) fn store(path: &Path, capture: &mut CaptureFile, analyser: &CaptureAnalyser) -> io::Result<()> {
    let content = (ends(capture, analyser.covered)?, analyser);
    let content = postcard::to_allocvec(&content).map_err(io::Error::other)?;
    let dir = path.parent().ok_or(io::ErrorKind::NotFound)?;
    fs::create_dir_all(dir)?;
    // Another process may write the same index: each has its own temporary file, and the last rename wins.
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = Path::new(&name);
    let written = write(temporary, &content).and_then(|()| fs::rename(temporary, path));
    if written.is_err() {
        let _ = fs::remove_file(temporary);
    }
    written
}

fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    // It says who called whom: no more readable than the captures.
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(MAGIC)?;
    file.write_all(&crc32c::crc32c(content).to_le_bytes())?;
    file.write_all(content)
}

/// CRC-32C of the bytes at both ends of what is covered.
fn ends(capture: &mut CaptureFile, covered: u64) -> io::Result<u32> {
    let count = covered.min(COMPARED_BYTES) as usize;
    let start = crc32c::crc32c(capture.read_at(0, count)?);
    Ok(crc32c::crc32c_append(start, capture.read_at(covered - count as u64, count)?))
}
