//! Compares a stored file with its manifest.

use std::io;

use rustix::fs::OFlags;

use super::{VerifyReport, escaped_path, offsets};
use crate::cc::vault::damage::Damage;
use crate::cc::vault::manifest::{Manifest, ManifestState, OffsetGap};
use crate::cc::vault::scan::{FileScan, scan};
use crate::cmd::args::listing::{self, ManifestStatus, StreamEntry};

/// Reads the file and compares it with its manifest. Calls `progress` with the number of bytes of each read.
pub(super) fn check(
    stored: &StreamEntry,
    manifest: &ManifestStatus,
    buffer: &mut [u8],
    progress: &mut dyn FnMut(u64),
) -> VerifyReport {
    let mut report = VerifyReport::new("manifest", escaped_path(&stored.path));
    report.hashed = Some(false);
    let manifest = match manifest {
        ManifestStatus::Valid(manifest) => manifest,
        ManifestStatus::Missing => {
            report.add_difference("the file has no manifest".to_owned());
            return report;
        }
        ManifestStatus::Invalid(reason) => {
            report.add_difference(reason.clone());
            return report;
        }
    };
    report.state = Some(manifest.state);
    let hash = manifest.state != ManifestState::Open && manifest.sha256.is_some();
    match scan_file(stored, buffer, hash, progress) {
        Ok(scan) => {
            (report.bytes, report.hashed) = (scan.bytes(), Some(hash));
            compare(manifest, &scan, &mut report);
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return report.into_missing("the manifest exists, but its file does not".to_owned());
        }
        Err(error) => report.add_difference(format!("the file cannot be read: {error}")),
    }
    report
}

fn scan_file(
    stored: &StreamEntry,
    buffer: &mut [u8],
    hash: bool,
    progress: &mut dyn FnMut(u64),
) -> io::Result<FileScan> {
    let mut file = listing::open_regular(&stored.path, OFlags::NOFOLLOW)?;
    scan(&mut file, buffer, hash, progress)
}

fn compare(manifest: &Manifest, scan: &FileScan, report: &mut VerifyReport) {
    if manifest.lost_bytes > 0 {
        report.add_difference(format!("{} received bytes could not be written", manifest.lost_bytes));
    }
    let gaps: Vec<&OffsetGap> = manifest.gaps.iter().filter(|gap| !gap.taken_over).collect();
    if !gaps.is_empty() {
        let listed = offsets::list(&gaps, manifest.gaps_omitted);
        report.add_difference(format!(
            "records may be missing: these offsets between its records are not stored: {listed}"
        ));
    }
    if manifest.state == ManifestState::Open {
        let ended = manifest.connections.iter().filter(|connection| connection.ended_at.is_some());
        let bytes_min = ended.map(|connection| connection.offset.saturating_add(connection.bytes)).max();
        if let Some(bytes_min) = bytes_min.filter(|bytes_min| scan.bytes() < *bytes_min) {
            report.add_difference(format!(
                "the open file has {} bytes, but its ended connections delivered {bytes_min}",
                scan.bytes()
            ));
        }
        add_damage(manifest, report);
        return;
    }
    let mut same = |what, found: String, said: String| {
        if found != said {
            report.add_difference(format!("{what} {found}, the manifest says {said}"));
        }
    };
    same("bytes", scan.bytes().to_string(), manifest.bytes.to_string());
    if let (Some(found), Some(said)) = (scan.sha256(), &manifest.sha256) {
        same("SHA-256", found, said.to_lowercase());
    }
    let (found, said) = (scan.tracker.summary(), &manifest.capture);
    if found.inspection_stopped.is_some() || said.inspection_stopped.is_some() {
        // How far a compressed stream was looked into depends on the memory that others used.
        return;
    }
    same("format", lowercase(&found.format), lowercase(&said.format));
    same("variant", lowercase(&found.variant), lowercase(&said.variant));
    same("compression", lowercase(&found.compression), lowercase(&said.compression));
    same("packets", found.packets.to_string(), said.packets.to_string());
    same(
        "packets without time",
        found.packets_without_time.to_string(),
        said.packets_without_time.to_string(),
    );
    same("link types", format!("{:?}", found.link_types), format!("{:?}", said.link_types));
    same("first packet (ns)", or_none(found.first_packet_ns), or_none(said.first_packet_ns));
    same("last packet (ns)", or_none(found.last_packet_ns), or_none(said.last_packet_ns));
    same("truncated bytes", found.truncated_bytes.to_string(), said.truncated_bytes.to_string());
    same("malformed at byte", or_none(found.malformed_at), or_none(said.malformed_at));
    add_damage(manifest, report);
}

/// Adds what the manifest says about damage. Lost bytes are a difference already.
fn add_damage(manifest: &Manifest, report: &mut VerifyReport) {
    let damage = manifest.damage().into_iter();
    let of_note = damage.filter(|damage| damage.is_certain() && !matches!(damage, Damage::Lost(_)));
    of_note.for_each(|damage| report.add_damage(damage.to_string()));
}

fn lowercase(value: &impl std::fmt::Debug) -> String {
    format!("{value:?}").to_lowercase()
}

fn or_none(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "none".to_owned(), |value| value.to_string())
}
