//! Intercept-related information (IRI, HI2 of ETSI): call events and fraud attempts, from their sources to the store.
//!
//! `ingest` receives events and turns them into documents, `event` and `sentrypeer` classify and convert them, `calls`
//! counts calls. The store that keeps them is in `crate::search`.

pub(crate) mod calls;
pub mod event;
pub mod ingest;
mod sentrypeer;

pub use crate::search::document::Document;
