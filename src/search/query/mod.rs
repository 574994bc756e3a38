//! Query parsing: two query languages, one syntax tree. Pure code.
//!
//! `query_string` (the language of `q=`) and `search_request` (Elasticsearch's JSON) produce a [`Query`].
//! Each store translates this tree into its own language. Anything unsupported is rejected with a reason.

pub(crate) mod aggregations;
mod ast;
pub(crate) mod canonical_numbers;
mod display;
mod error;
mod json;
mod lexer;
pub(crate) mod query_dsl;
pub mod query_string;
mod search;
pub mod search_request;

pub use canonical_numbers::add_canonical_terms;

pub use ast::{Bound, FieldSelector, Operator, Query, QueryValue};
pub use error::QueryError;
pub use search::{
    Aggregation, Bucket, Hit, Interval, NamedBuckets, Search, SearchAfter, SearchResult, Sort, SortKey,
    SourceFilter,
};
