//! capture

pub(crate) mod reader;
pub mod tracker;
