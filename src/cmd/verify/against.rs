//! Compares sent files with stored files byte by byte.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::{BUFFER_BYTES, VerifyReport, escaped_path};
use crate::cc::vault::chains::{self, ChainLink};
use crate::cc::wire::name::{file_name, parse_part_file_name};
use crate::cmd::args::listing::{ManifestStatus, StreamEntry};
use crate::{Error, Result};

/// A file that was sent under its own name as stream name.
pub(super) struct SentFile {
    path: PathBuf,
    /// Length at the start of the run.
    pub bytes: u64,
}

/// Lists the files of a directory. Links are followed; subdirectories are skipped.
pub(super) fn list(dir: &Path) -> Result<Vec<SentFile>> {
    let mut sent = Vec::new();
    for entry in fs::read_dir(dir).map_err(Error::path("read the directory", dir))? {
        let path = entry.map_err(Error::path("read the directory", dir))?.path();
        let found = fs::metadata(&path).map_err(Error::path("read", &path))?;
        if found.is_file() {
            sent.push(SentFile { path, bytes: found.len() });
        }
    }
    sent.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(sent)
}

/// The stored streams of each file name, in order.
pub(super) struct StoredParts<'a>(HashMap<&'a str, Vec<StoredStream<'a>>>);

/// Files that a stream consists of: one, unless it is rotated. Each has a number of bytes at its start that are not part of
/// the stream.
struct StoredStream<'a>(Vec<(&'a Path, u64)>);

impl<'a> StoredParts<'a> {
    pub(super) fn new(stored: &'a [StreamEntry]) -> StoredParts<'a> {
        let mut by_name: HashMap<&'a str, Vec<&'a StreamEntry>> = HashMap::new();
        for stored in stored.iter().filter(|stored| stored.bytes.is_some()) {
            let name = stored.path.file_name().and_then(|name| name.to_str());
            if let Some((file, _)) = name.and_then(parse_part_file_name) {
                by_name.entry(file).or_default().push(stored);
            }
        }
        // The parts of each directory are a stream of their own.
        let of_dirs = |parts: Vec<&'a StreamEntry>| {
            let dirs = parts.chunk_by(|one, other| one.path.parent() == other.path.parent());
            dirs.flat_map(streams).collect()
        };
        StoredParts(by_name.into_iter().map(|(file, parts)| (file, of_dirs(parts))).collect())
    }
}

/// Joins the parts of one name in one directory to streams.
fn streams<'a>(parts: &[&'a StreamEntry]) -> Vec<StoredStream<'a>> {
    let manifest = |part: &'a StreamEntry| match &part.manifest {
        ManifestStatus::Valid(manifest) => Some(&**manifest),
        ManifestStatus::Invalid(_) | ManifestStatus::Missing => None,
    };
    let (known, others): (Vec<&StreamEntry>, Vec<&StreamEntry>) =
        parts.iter().copied().partition(|part| manifest(part).is_some());
    let links: Vec<ChainLink<'_>> = known
        .iter()
        .filter_map(|part| Some(ChainLink { manifest: manifest(part)?, bytes: part.bytes? }))
        .collect();
    let path = |part: &'a StreamEntry| part.path.as_path();
    let chained = chains::chains(&links).into_iter().map(|chain| {
        let file = |(order, at): (usize, usize)| {
            let skipped = if order == 0 { 0 } else { links[at].manifest.header_bytes() };
            (path(known[at]), skipped)
        };
        StoredStream(chain.into_iter().enumerate().map(file).collect())
    });
    let mut streams: Vec<StoredStream<'a>> = chained.collect();
    streams.extend(others.into_iter().map(|part| StoredStream(vec![(path(part), 0)])));
    streams
}

/// Looks for a stored file that is equal to the sent one. `progress` gets the number of compared bytes.
pub(super) fn check(sent: &SentFile, index: &StoredParts<'_>, progress: &mut dyn FnMut(u64)) -> VerifyReport {
    let mut report = VerifyReport::new("sent", escaped_path(&sent.path));
    let file = file_name(sent.path.file_name().unwrap_or_default().as_bytes());
    let Some(parts) = index.0.get(file.as_str()) else {
        return report.into_missing(format!("{file} is not stored"));
    };
    let mut differences = Vec::new();
    for stored in parts {
        let part = stored.0[0].0;
        match compare(&sent.path, stored, progress) {
            Ok(Comparison { equal_bytes, difference: None }) => {
                report.bytes = equal_bytes;
                report.stored = Some(escaped_path(part));
                return report;
            }
            Ok(Comparison { equal_bytes, difference: Some(what) }) => {
                report.bytes = report.bytes.max(equal_bytes);
                differences.push(format!("{} {what}", escaped_path(part)));
            }
            Err(error) => differences.push(format!("{} cannot be compared: {error}", escaped_path(part))),
        }
    }
    for difference in differences {
        report.add_difference(difference);
    }
    report
}

struct Comparison {
    equal_bytes: u64,
    difference: Option<String>,
}

fn compare(sent: &Path, stored: &StoredStream<'_>, progress: &mut dyn FnMut(u64)) -> io::Result<Comparison> {
    let mut sent = File::open(sent)?;
    let mut stored = StreamReader { files: &stored.0, open: None };
    let (mut sent_buffer, mut stored_buffer) = (vec![0; BUFFER_BYTES], vec![0; BUFFER_BYTES]);
    let mut at = 0;
    loop {
        let left = read_full(&mut sent, &mut sent_buffer)?;
        let right = read_full(&mut stored, &mut stored_buffer)?;
        progress(left.len() as u64);
        if left == right {
            if left.is_empty() {
                return Ok(Comparison { equal_bytes: at, difference: None });
            }
            at += left.len() as u64;
            continue;
        }
        let equal = left.iter().zip(right).take_while(|(left, right)| left == right).count();
        at += equal as u64;
        let difference = match (left.get(equal), right.get(equal)) {
            (_, None) => format!("ends at byte {at}, the sent file continues"),
            (None, _) => format!("continues after byte {at}, where the sent file ends"),
            _ => format!("differs first at byte {at}"),
        };
        return Ok(Comparison { equal_bytes: at, difference: Some(difference) });
    }
}

/// Reads the files of a stream one after another.
struct StreamReader<'a> {
    files: &'a [(&'a Path, u64)],
    open: Option<File>,
}

impl Read for StreamReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some(file) = &mut self.open {
                match file.read(buffer)? {
                    0 => self.open = None,
                    bytes => return Ok(bytes),
                }
            }
            let Some(((path, skipped), rest)) = self.files.split_first() else { return Ok(0) };
            let mut file = File::open(path)?;
            file.seek(SeekFrom::Start(*skipped))?;
            (self.open, self.files) = (Some(file), rest);
        }
    }
}

/// Reads until the buffer is full or the file ends.
fn read_full<'a>(file: &mut impl Read, buffer: &'a mut [u8]) -> io::Result<&'a [u8]> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(bytes) => filled += bytes,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(&buffer[..filled])
}
