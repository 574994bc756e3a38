//! Gaps in manifests: offsets between the records of a file that the directory does not have.

use std::io;

use super::{Ledger, LedgerPartition};
use crate::cc::vault::manifest::{Manifest, ManifestState, OffsetGap, RecordSegment, SUFFIX};

/// Returns the gaps between the records of a file. `omitted` is the number of segments that are not in the list.
pub(super) fn gaps(
    segments: &[RecordSegment],
    omitted: u64,
    partitions: &[LedgerPartition],
) -> Vec<OffsetGap> {
    if omitted == 0 && !segments.iter().any(|segment| segment.after_gap) {
        return Vec::new();
    }
    let of_partition = |known: &LedgerPartition| -> Vec<OffsetGap> {
        let own = || segments.iter().filter(|segment| !segment.compared && known.state.is_segment(segment));
        let first = own().map(|segment| segment.first_offset).min();
        let next = own().map(|segment| segment.next_offset).max();
        let Some((first, next)) = first.zip(next) else { return Vec::new() };
        known.offsets().gaps(first, next).iter().map(|gap| known.state.gap_of(gap)).collect()
    };
    partitions.iter().flat_map(of_partition).collect()
}

impl Ledger {
    /// Updates the manifests of closed files that have gaps, after gaps of the directory were closed.
    pub(super) fn update_stored_gaps(&mut self) -> io::Result<()> {
        if !std::mem::take(&mut self.has_closed_gaps) {
            return Ok(());
        }
        let dir = &self.shared.dir;
        for name in dir.file_names()? {
            let Some(file) = name.strip_suffix(SUFFIX) else { continue };
            // Files that are open or unusable are none of those.
            let Ok(Some(mut manifest)) = dir.manifest(file) else { continue };
            if manifest.gaps.is_empty() || manifest.state == ManifestState::Open {
                continue;
            }
            let before = (manifest.gaps.clone(), manifest.gaps_omitted);
            let Manifest { segments, segments_omitted, .. } = &manifest;
            let gaps = gaps(segments, *segments_omitted, &self.partitions);
            manifest.set_gaps(gaps);
            if before != (manifest.gaps.clone(), manifest.gaps_omitted) {
                self.shared.disk_retry.retry("manifest", file, || dir.write_manifest(&manifest))?;
            }
        }
        dir.sync_names()
    }
}
