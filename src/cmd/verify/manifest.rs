//! A stored file against its manifest.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;

use rustix::fs::OFlags;

use super::super::stored::{Found, Stored};
use super::{Report, shown};
use crate::cc::vault::manifest::{Manifest, State};
use crate::cc::vault::scan::{Scan, scan};

/// Reads the file and compares; `progress` is told the bytes read.
pub fn check(stored: &Stored, manifest: &Found, buffer: &mut [u8], progress: &mut dyn FnMut(u64)) -> Report {
    let mut report = Report::new("manifest", shown(&stored.path));
    report.hashed = Some(false);
    let manifest = match manifest {
        Found::Manifest(manifest) => manifest,
        Found::Nothing => {
            report.differs("it has no manifest".to_owned());
            return report;
        }
        Found::Unusable(reason) => {
            report.differs(reason.clone());
            return report;
        }
    };
    report.state = Some(manifest.state);
    let hash = manifest.state != State::Open && manifest.sha256.is_some();
    match scan_file(stored, buffer, hash, progress) {
        Ok(scan) => {
            (report.bytes, report.hashed) = (scan.bytes(), Some(hash));
            compare(manifest, &scan, &mut report);
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return report.missing("its manifest is there, the file is not".to_owned());
        }
        Err(error) => report.differs(format!("it cannot be read: {error}")),
    }
    report
}

fn scan_file(
    stored: &Stored,
    buffer: &mut [u8],
    hash: bool,
    progress: &mut dyn FnMut(u64),
) -> io::Result<Scan> {
    // NONBLOCK: something that took the file's place (a pipe) must not stop the run.
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let mut file = OpenOptions::new().read(true).custom_flags(flags).open(&stored.path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    scan(&mut file, buffer, hash, progress)
}

fn compare(manifest: &Manifest, scan: &Scan, report: &mut Report) {
    if manifest.lost_bytes > 0 {
        report.differs(format!("{} bytes were received that could not be written", manifest.lost_bytes));
    }
    if manifest.state == State::Open {
        let ended = manifest.connections.iter().filter(|connection| connection.ended_at.is_some());
        let bytes_min = ended.map(|connection| connection.offset.saturating_add(connection.bytes)).max();
        if let Some(bytes_min) = bytes_min.filter(|bytes_min| scan.bytes() < *bytes_min) {
            report.differs(format!(
                "it is open and has {} bytes, its ended connections brought {bytes_min}",
                scan.bytes()
            ));
        }
        return;
    }
    let mut same = |what, found: String, said: String| {
        if found != said {
            report.differs(format!("{what} {found}, the manifest says {said}"));
        }
    };
    same("bytes", scan.bytes().to_string(), manifest.bytes.to_string());
    if let (Some(found), Some(said)) = (scan.sha256(), &manifest.sha256) {
        same("SHA-256", found, said.to_lowercase());
    }
    let (found, said) = (scan.follower.summary(), &manifest.capture);
    same("format", lowercase(&found.format), lowercase(&said.format));
    same("packets", found.packets.to_string(), said.packets.to_string());
    same("link type", or_none(found.link_type), or_none(said.link_type));
    same("first packet (ns)", or_none(found.first_packet_ns), or_none(said.first_packet_ns));
    same("last packet (ns)", or_none(found.last_packet_ns), or_none(said.last_packet_ns));
    same("cut-off bytes", found.cut_off_bytes.to_string(), said.cut_off_bytes.to_string());
    same("unstructured from byte", or_none(found.unstructured_from), or_none(said.unstructured_from));
}

fn lowercase(value: &impl std::fmt::Debug) -> String {
    format!("{value:?}").to_lowercase()
}

fn or_none(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "none".to_owned(), |value| value.to_string())
}
