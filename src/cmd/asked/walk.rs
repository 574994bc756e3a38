//! All events of a span in the order of their time, however many: in windows of time that hold a page each. Main thread.
//!
//! Invariant: no more than a page of events is in memory, and each event that is there when its window is asked for is
//! given once.

use std::ops::ControlFlow;

use super::{Asked, Page, Span, as_stored, by_field};
use crate::Result;
use crate::iri::query::{Found, Hit};

/// Events asked for at once; a store orders so many without walking over others.
pub const PAGE: usize = 2_000;

/// A window that held fewer is followed by a longer one.
const PAGE_WANTED: u64 = PAGE as u64 / 2;

/// How much longer the next window is at most.
const GROWTH_MAX: i64 = 8;

impl Asked {
    /// Calls `each` with every event of the span, ordered by time and then as they were stored; backwards, the newest
    /// first. Events without a time, which lea's own stores do not have, are left out.
    pub fn walk(
        &self,
        span: Span,
        backwards: bool,
        each: &mut dyn FnMut(Hit) -> Result<ControlFlow<()>>,
    ) -> Result<()> {
        let Some((first, last, total)) = self.ends(span)? else { return Ok(()) };
        let mut left = (first, last.saturating_add(1));
        let mut length = (last.saturating_sub(first) / (total.div_ceil(PAGE_WANTED) as i64).max(1)).max(1);
        while left.0 < left.1 {
            let window = if backwards {
                (left.1.saturating_sub(length).max(left.0), left.1)
            } else {
                (left.0, left.0.saturating_add(length).min(left.1))
            };
            // Counting is cheap; reading a page that is thrown away is not.
            let total = self.count(Span { from_ms: Some(window.0), to_ms: Some(window.1) })?;
            if total > PAGE as u64 && window.1 - window.0 > 1 {
                length = shorter(window.1 - window.0, total);
                continue;
            }
            if total > 0 && self.window(window, backwards, each)?.is_break() {
                return Ok(());
            }
            left = if backwards { (left.0, window.0) } else { (window.1, left.1) };
            length = longer(length, total);
        }
        Ok(())
    }

    /// The times of the first and the last event, and how many there are.
    fn ends(&self, span: Span) -> Result<Option<(i64, i64, u64)>> {
        let end = |descending| {
            let sort = vec![by_field(self.time_field(), descending)];
            self.page(&Page { span, sort, size: 1, ..Page::default() })
        };
        let (first, last) = (end(false)?, end(true)?);
        let time = |found: &Found| {
            found.hits.first().and_then(|hit| hit.sort.first()).and_then(|time| time.as_i64())
        };
        Ok(time(&first).zip(time(&last)).map(|(from, to)| (from, to, first.total)))
    }

    /// The events of one window; more than a page in a millisecond, or of what has come since, page by page.
    fn window(
        &self,
        window: (i64, i64),
        backwards: bool,
        each: &mut dyn FnMut(Hit) -> Result<ControlFlow<()>>,
    ) -> Result<ControlFlow<()>> {
        let span = Span { from_ms: Some(window.0), to_ms: Some(window.1) };
        let sort = vec![by_field(self.time_field(), backwards), as_stored(backwards)];
        let mut page = Page { span, sort, size: PAGE, ..Page::default() };
        loop {
            let hits = self.page(&page)?.hits;
            page.after = hits.last().map(|hit| hit.sort.clone());
            let is_last = hits.len() < PAGE;
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

/// The length of a window that held too many, made to hold about half a page.
fn shorter(length: i64, total: u64) -> i64 {
    let parts = i64::try_from(total.div_ceil(PAGE_WANTED)).unwrap_or(i64::MAX).max(2);
    (length / parts).max(1)
}

fn longer(length: i64, total: u64) -> i64 {
    let times = i64::try_from(PAGE_WANTED / total.max(1)).unwrap_or(GROWTH_MAX).clamp(1, GROWTH_MAX);
    length.saturating_mul(times)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_get_shorter_and_longer() {
        assert_eq!(shorter(1_000, 2_001), 333);
        assert_eq!(shorter(2, u64::MAX), 1);
        assert_eq!(shorter(1_000_000, 10_000), 100_000);
        assert_eq!(longer(1_000, 0), 8_000);
        assert_eq!(longer(1_000, 300), 3_000);
        assert_eq!(longer(1_000, 2_000), 1_000);
        assert_eq!(longer(i64::MAX, 0), i64::MAX);
    }
}
