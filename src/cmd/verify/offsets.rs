//! Checks which Kafka offsets a directory has.

use std::path::Path;

use super::{VerifyReport, escaped_path};
use crate::cc::vault::checkpoint;
use crate::cc::vault::manifest::OffsetGap;
use crate::runtime::terminal::escape;
use crate::{Error, Result};

/// Number of gaps that are named in a difference.
const GAPS_LISTED_MAX: usize = 10;

/// Returns a report if offsets are missing between those that the directory has.
pub(super) fn check(dir: &Path) -> Result<Option<VerifyReport>> {
    let gaps = checkpoint::read_gaps(dir).map_err(Error::path("read the checkpoints in", dir))?;
    let gaps: Vec<&OffsetGap> = gaps.iter().filter(|gap| !gap.taken_over).collect();
    if gaps.is_empty() {
        return Ok(None);
    }
    let report = VerifyReport::new("offsets", escaped_path(dir));
    Ok(Some(report.into_missing(format!("offsets that are not stored: {}", list(&gaps, 0)))))
}

/// Lists gaps. `omitted` is the number of gaps that are not in the slice.
pub(super) fn list(gaps: &[&OffsetGap], omitted: u64) -> String {
    let gap = |gap: &&OffsetGap| {
        let OffsetGap { topic, partition, first_offset, next_offset, .. } = gap;
        // A dump without a topic or a partition.
        let is_named = !topic.is_empty() && *partition >= 0;
        let partition = if is_named { format!("{}-{partition} ", escape(topic)) } else { String::new() };
        match next_offset - 1 {
            last if last == *first_offset => format!("{partition}{last}"),
            last => format!("{partition}{first_offset} to {last}"),
        }
    };
    let listed: Vec<String> = gaps.iter().take(GAPS_LISTED_MAX).map(gap).collect();
    let more = match (gaps.len() - listed.len()) as u64 + omitted {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    listed.join(", ") + &more
}
