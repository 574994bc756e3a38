//! cmd::args

pub(crate) mod kafka;
pub(crate) mod listing;
pub(crate) mod query;
pub(crate) mod time_zone;
pub(crate) mod units;
