//! search

pub mod analysis;
pub mod cluster;
pub mod date;
pub mod dead_letters;
pub mod document;
pub mod export;
pub mod mapping;
pub mod query;
pub mod remote;
pub mod sqlite;
pub mod store;
