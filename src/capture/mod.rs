//! capture

pub mod reader;
pub mod tracker;
