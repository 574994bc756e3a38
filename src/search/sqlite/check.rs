//! Checks the files of a store: each page, the log, and whether all that was acknowledged is there. Changes nothing, and a
//! writer may run. Called by a command, in its thread.

use std::path::Path;

use super::schema::{self, StoreOpenError};
use super::storage::damage;
use super::storage::page::PAGE_BYTES;
use super::storage::view::FileView;
use super::{SqliteStore, StoreConfig, file, salvage};
use crate::search::mark;
use crate::search::store::Store;
use crate::{Error, Result};

/// Pages that are checked while a writer waits to move pages of its log.
const PAGES_AT_ONCE: u32 = 4_096;

/// Damaged pages that are named.
const PAGES_LISTED_MAX: usize = 10;

/// Result of a check.
#[derive(Debug, Default)]
pub(crate) struct StoreCheck {
    /// Bytes that were read.
    pub bytes: u64,
    /// Events that can be read.
    pub events: u64,
    /// What is damaged and what is lost, one text each. Empty: nothing is.
    pub findings: Vec<String>,
}

/// Checks the store of a directory. `None` if there is none.
pub(crate) fn check_store(dir: &Path, progress: &mut dyn FnMut(u64)) -> Result<Option<StoreCheck>> {
    let path = file::path(dir);
    let failed = |cause: String| Error::Store { act: "check", path: path.clone(), cause };
    let mark = mark::read(&schema::mark_path(&path)).map_err(|error| failed(error.to_string()))?;
    if !path.try_exists().map_err(|error| failed(error.to_string()))? && mark.mark.is_none() {
        return Ok(None);
    }
    let mut check = StoreCheck::default();
    if mark.is_damaged {
        check
            .findings
            .push("events.mark is damaged: a loss of the last commit would not be noticed".to_owned());
    }
    let is_readable = match schema::open_read_only(&path) {
        Ok(_) => true,
        Err(StoreOpenError::Empty) => return Ok(None),
        Err(error @ (StoreOpenError::Older(_) | StoreOpenError::Newer(_) | StoreOpenError::Foreign)) => {
            return Err(failed(error.to_string()));
        }
        Err(error) => {
            check.findings.push(salvage::without_advice(&error));
            false
        }
    };
    if path.exists() {
        check.check_pages(&path, progress).map_err(|error| failed(error.to_string()))?;
    }
    if check.findings.is_empty() {
        match count_events(dir) {
            Ok(events) => check.events = events,
            Err(error) => check.findings.push(error.to_string()),
        }
    }
    if !check.findings.is_empty() {
        let report = salvage::salvage(dir, &mut |_| Ok(true)).or_else(|error| {
            // Nothing is left to read it from.
            if is_readable { Err(error) } else { Ok(salvage::SalvageReport::default()) }
        })?;
        check.events = report.events;
        let new: Vec<_> =
            report.findings.into_iter().filter(|found| !check.findings.contains(found)).collect();
        check.findings.extend(new);
        check.findings.push(format!("{} events can be read", report.events));
    }
    Ok(Some(check))
}

/// Counts the events through the index, and compares with the rows.
fn count_events(dir: &Path) -> Result<u64> {
    let store = SqliteStore::open_read_only(dir, StoreConfig::default())?;
    let failed = |cause: String| Error::Store { act: "check", path: file::path(dir), cause };
    let indexed: u64 = store
        .indices(&[])
        .map_err(|error| failed(error.to_string()))?
        .iter()
        .map(|index| index.documents)
        .sum();
    Ok(indexed)
}

impl StoreCheck {
    fn check_pages(&mut self, path: &Path, progress: &mut dyn FnMut(u64)) -> std::io::Result<()> {
        let mut view = FileView::open(path, false)?;
        let (mut next, mut damaged) = (1_u32, Vec::new());
        loop {
            view.begin()?;
            let end = next.saturating_add(PAGES_AT_ONCE).min(view.page_count().saturating_add(1));
            let found = view.damaged_pages(next..end);
            view.end();
            damaged.extend(found?);
            damage::take_mixed_state();
            if next >= end {
                break;
            }
            let bytes = u64::from(end - next) * PAGE_BYTES as u64;
            self.bytes += bytes;
            progress(bytes);
            next = end;
        }
        let more = damaged.len().saturating_sub(PAGES_LISTED_MAX);
        self.findings.extend(damaged.iter().take(PAGES_LISTED_MAX).map(ToString::to_string));
        if more > 0 {
            self.findings.push(format!("{more} more pages are damaged"));
        }
        Ok(())
    }
}
