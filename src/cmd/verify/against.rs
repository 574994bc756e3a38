//! What was sent against what is stored, byte by byte.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::super::stored::Stored;
use super::{BUFFER_BYTES, Report, shown};
use crate::cc::frame::name::{file_name, part_of};
use crate::{Error, Result};

/// A file that was sent under its own name.
pub struct Sent {
    path: PathBuf,
    /// Its length when the run began.
    pub bytes: u64,
}

/// The files of a folder of what was sent; links are followed, folders are not looked into.
pub fn list(dir: &Path) -> Result<Vec<Sent>> {
    let mut sent = Vec::new();
    for entry in fs::read_dir(dir).map_err(Error::path("read the folder", dir))? {
        let path = entry.map_err(Error::path("read the folder", dir))?.path();
        let found = fs::metadata(&path).map_err(Error::path("read", &path))?;
        if found.is_file() {
            sent.push(Sent { path, bytes: found.len() });
        }
    }
    sent.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(sent)
}

/// The stored files of each file name: its parts, in their order.
pub struct Index<'a>(HashMap<&'a str, Vec<&'a Path>>);

impl<'a> Index<'a> {
    /// Of all files found.
    pub fn new(stored: &'a [Stored]) -> Index<'a> {
        let mut index = Index(HashMap::new());
        for stored in stored.iter().filter(|stored| stored.bytes.is_some()) {
            let name = stored.path.file_name().and_then(|name| name.to_str());
            if let Some((file, _)) = name.and_then(part_of) {
                index.0.entry(file).or_default().push(&stored.path);
            }
        }
        index
    }
}

/// Looks for a stored file that is equal to the sent one; `progress` is told the bytes compared.
pub fn check(sent: &Sent, index: &Index<'_>, progress: &mut dyn FnMut(u64)) -> Report {
    let mut report = Report::new("sent", shown(&sent.path));
    let file = file_name(sent.path.file_name().unwrap_or_default().as_bytes());
    let Some(parts) = index.0.get(file.as_str()) else {
        return report.missing(format!("{file} is not stored"));
    };
    let mut differences = Vec::new();
    for part in parts {
        match compare(&sent.path, part, progress) {
            Ok(Compared { equal_bytes, difference: None }) => {
                report.bytes = equal_bytes;
                report.stored = Some(shown(part));
                return report;
            }
            Ok(Compared { equal_bytes, difference: Some(what) }) => {
                report.bytes = report.bytes.max(equal_bytes);
                differences.push(format!("{} {what}", shown(part)));
            }
            Err(error) => differences.push(format!("{} cannot be compared: {error}", shown(part))),
        }
    }
    for difference in differences {
        report.differs(difference);
    }
    report
}

struct Compared {
    equal_bytes: u64,
    difference: Option<String>,
}

fn compare(sent: &Path, stored: &Path, progress: &mut dyn FnMut(u64)) -> io::Result<Compared> {
    let (mut sent, mut stored) = (File::open(sent)?, File::open(stored)?);
    let (mut sent_buffer, mut stored_buffer) = (vec![0; BUFFER_BYTES], vec![0; BUFFER_BYTES]);
    let mut at = 0;
    loop {
        let left = fill(&mut sent, &mut sent_buffer)?;
        let right = fill(&mut stored, &mut stored_buffer)?;
        progress(left.len() as u64);
        if left == right {
            if left.is_empty() {
                return Ok(Compared { equal_bytes: at, difference: None });
            }
            at += left.len() as u64;
            continue;
        }
        let equal = left.iter().zip(right).take_while(|(left, right)| left == right).count();
        at += equal as u64;
        let difference = match (left.get(equal), right.get(equal)) {
            (_, None) => format!("ends at byte {at}, the sent file goes on"),
            (None, _) => format!("goes on at byte {at}, where the sent file ends"),
            _ => format!("differs first at byte {at}"),
        };
        return Ok(Compared { equal_bytes: at, difference: Some(difference) });
    }
}

/// Reads until the buffer is full or the file ends.
fn fill<'a>(file: &mut File, buffer: &'a mut [u8]) -> io::Result<&'a [u8]> {
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
