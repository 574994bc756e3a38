//! Reads any number of events in the order of their time, in time windows that hold one page each. Main
//! thread.
//!
//! Invariants: at most one page of events is in memory. Each event that exists when its window is read is
//! returned once.

use std::ops::ControlFlow;

use crate::Result;
use crate::search::query::{Hit, SearchResult, Sort};
use crate::search::source::{QuerySession, SearchRequest, TimeRange};

/// Events per page; a store sorts this many without a scan.
pub(crate) const PAGE_SIZE: usize = 2_000;

/// Target number of events per window; after a smaller window the next one is longer.
const PAGE_WANTED: u64 = PAGE_SIZE as u64 / 2;

/// Maximum growth from one window to the next.
const GROWTH_MAX: i64 = 8;

impl QuerySession {
    /// Calls `each` with every event of the range, ordered by time and then by insertion; with `backwards`,
    /// newest first. Events without a time are skipped (lea's own stores have none).
    pub(crate) fn scan(
        &self,
        range: TimeRange,
        backwards: bool,
        each: &mut dyn FnMut(Hit) -> Result<ControlFlow<()>>,
    ) -> Result<()> {
        let Some((first, last, total)) = self.time_bounds(range)? else { return Ok(()) };
        let mut left = (first, last.saturating_add(1));
        let mut length = (last.saturating_sub(first) / (total.div_ceil(PAGE_WANTED) as i64).max(1)).max(1);
        while left.0 < left.1 {
            let window = if backwards {
                (left.1.saturating_sub(length).max(left.0), left.1)
            } else {
                (left.0, left.0.saturating_add(length).min(left.1))
            };
            // Counting is cheaper than reading a page and discarding it.
            let total = self.count(TimeRange { from_ms: Some(window.0), to_ms: Some(window.1) })?;
            if total > PAGE_SIZE as u64 && window.1 - window.0 > 1 {
                length = shorter_window(window.1 - window.0, total);
                continue;
            }
            if total > 0 && self.scan_window(window, backwards, each)?.is_break() {
                return Ok(());
            }
            left = if backwards { (left.0, window.0) } else { (window.1, left.1) };
            length = longer_window(length, total);
        }
        Ok(())
    }

    /// Returns the times of the first and last event, and the number of events.
    fn time_bounds(&self, range: TimeRange) -> Result<Option<(i64, i64, u64)>> {
        let end = |descending| {
            let sort = vec![Sort::by_field(self.time_field(), descending)];
            self.search(&SearchRequest { range, sort, size: 1, ..SearchRequest::default() })
        };
        let (first, last) = (end(false)?, end(true)?);
        let time = |found: &SearchResult| {
            found.hits.first().and_then(|hit| hit.sort.first()).and_then(|time| time.as_i64())
        };
        Ok(time(&first).zip(time(&last)).map(|(from, to)| (from, to, first.total)))
    }

    /// Reads one window. More than a page occurs within a single millisecond, or if events arrived since the
    /// count; then it reads page by page.
    fn scan_window(
        &self,
        window: (i64, i64),
        backwards: bool,
        each: &mut dyn FnMut(Hit) -> Result<ControlFlow<()>>,
    ) -> Result<ControlFlow<()>> {
        let range = TimeRange { from_ms: Some(window.0), to_ms: Some(window.1) };
        let sort = vec![Sort::by_field(self.time_field(), backwards), Sort::by_seq_no(backwards)];
        let mut page = SearchRequest { range, sort, size: PAGE_SIZE, ..SearchRequest::default() };
        loop {
            let hits = self.search(&page)?.hits;
            page.after = hits.last().map(|hit| hit.sort.clone());
            let is_last = hits.len() < PAGE_SIZE;
            for hit in hits {
                if each(hit)?.is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
            if is_last {
                return Ok(ControlFlow::Continue(()));
            }
        }
    }
}

/// Length of the window after one with too many events; it should hold half a page.
fn shorter_window(length: i64, total: u64) -> i64 {
    let parts = i64::try_from(total.div_ceil(PAGE_WANTED)).unwrap_or(i64::MAX).max(2);
    (length / parts).max(1)
}

fn longer_window(length: i64, total: u64) -> i64 {
    let times = i64::try_from(PAGE_WANTED / total.max(1)).unwrap_or(GROWTH_MAX).clamp(1, GROWTH_MAX);
    length.saturating_mul(times)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_adapt_to_the_number_of_events() {
        assert_eq!(shorter_window(1_000, 2_001), 333);
        assert_eq!(shorter_window(2, u64::MAX), 1);
        assert_eq!(shorter_window(1_000_000, 10_000), 100_000);
        assert_eq!(longer_window(1_000, 0), 8_000);
        assert_eq!(longer_window(1_000, 300), 3_000);
        assert_eq!(longer_window(1_000, 2_000), 1_000);
        assert_eq!(longer_window(i64::MAX, 0), i64::MAX);
    }
}
