//! Intercept related information: call events and fraud attempts, received, stored, found.
//!
//! A source (`source`, or the Elasticsearch dialect in `elastic`) makes [`Document`]s of what came; a [`store::Store`]
//! keeps them durably and answers [`query::Search`]es. Whatever language a question was asked in, it is one
//! [`query::Query`] tree; `number` adds to it the other spellings of a telephone number. A source and a store know
//! only the types in `document`, `query` and the trait.

pub mod billing;
pub mod calls;
pub mod date;
pub mod document;
pub mod elastic;
pub mod event;
pub mod mapping;
pub mod number;
pub mod query;
mod sentrypeer;
pub mod source;
pub mod store;

pub use document::Document;
