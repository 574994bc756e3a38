//! What a read found damaged. SQLite passes on a number only, so the virtual file systems leave the description here, for
//! the thread that reads.

use std::cell::{Cell, RefCell};
use std::fmt;

/// Something in the files of a store that is not as it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::search::sqlite) enum Damage {
    /// A page of events.db does not have its checksum.
    Page(u32),
    /// A page is beyond the end of events.db.
    MissingPage(u32),
    /// The write-ahead log has another page than the one that was written.
    LogFrame(u64),
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Damage::Page(page) => write!(f, "page {page} of events.db is damaged (wrong checksum)"),
            Damage::MissingPage(page) => write!(f, "events.db is truncated: page {page} is missing"),
            Damage::LogFrame(frame) => {
                write!(f, "frame {frame} of events.db-wal is damaged (wrong checksum)")
            }
        }
    }
}

thread_local! {
    static FOUND: RefCell<Option<Damage>> = const { RefCell::new(None) };
}

/// Keeps what a read of this thread found.
pub(super) fn report(damage: Damage) {
    FOUND.with(|found| {
        found.borrow_mut().get_or_insert(damage);
    });
}

thread_local! {
    static IS_MIXED: Cell<bool> = const { Cell::new(false) };
}

/// Keeps that a read of this thread may have seen two states, because a writer started meanwhile.
pub(super) fn report_mixed_state() {
    IS_MIXED.set(true);
}

/// Takes whether a read of this thread may have seen two states.
pub(in crate::search::sqlite) fn take_mixed_state() -> bool {
    IS_MIXED.take()
}

/// Takes what the reads of this thread found first.
pub(in crate::search::sqlite) fn take() -> Option<Damage> {
    FOUND.with(|found| found.borrow_mut().take())
}

/// Adds to an error of SQLite what was found damaged.
pub(in crate::search::sqlite) fn explain(error: impl fmt::Display) -> String {
    match take() {
        Some(found) => format!("{found}; {}", crate::search::sqlite::schema::ADVICE),
        None => error.to_string(),
    }
}
