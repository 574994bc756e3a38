//! search

pub mod analysis;
pub mod cluster;
pub mod date;
pub mod dead_letters;
pub mod document;
pub(crate) mod export;
pub mod index_templates;
pub(crate) mod mapping;
pub mod query;
pub(crate) mod remote;
pub mod sqlite;
pub mod store;
