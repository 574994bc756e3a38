//! Option groups and parsers of option values that several commands share.

pub(crate) mod config;
pub(crate) mod events;
pub(crate) mod globals;
pub(crate) mod kafka;
pub(crate) mod listing;
pub(crate) mod output_dir;
pub(crate) mod query;
pub(crate) mod service;
pub(crate) mod sources;
pub(crate) mod tcp;
pub(crate) mod time_zone;
pub(crate) mod units;
