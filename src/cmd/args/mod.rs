//! cmd::args

pub mod kafka;
pub mod listing;
pub mod query;
pub mod time_zone;
pub mod units;
