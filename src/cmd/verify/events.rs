//! Checks the event store of a directory.

use std::path::Path;

use super::{VerifyReport, escaped_path};
use crate::Result;
use crate::search::sqlite::check::check_store;

/// Returns a report and the number of events, if the directory has an event store.
pub(super) fn check(dir: &Path, progress: &mut dyn FnMut(u64)) -> Result<Option<(VerifyReport, u64)>> {
    let Some(check) = check_store(dir, progress)? else { return Ok(None) };
    let mut report = VerifyReport::new("events", escaped_path(&dir.join(".lea/events.db")));
    report.bytes = check.bytes;
    check.findings.into_iter().for_each(|finding| report.add_damage(finding));
    Ok(Some((report, check.events)))
}
