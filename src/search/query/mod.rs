//! Query parsing: two query languages, one syntax tree. Pure code.
//!
//! `query_string` (the language of `q=`) and `search_request` (Elasticsearch's JSON) produce a [`Query`].
//! Each store translates this tree into its own language. Anything unsupported is rejected with a reason.

pub(crate) mod aggregations;
mod ast;
pub(crate) mod canonical_numbers;
mod display;
mod error;
mod hits;
pub(crate) mod json;
mod lexer;
mod output;
pub(crate) mod query_dsl;
mod query_dsl_patterns;
pub mod query_string;
mod search;
pub mod search_request;
mod simple_query_string;
mod sort;

pub use canonical_numbers::add_canonical_terms;

pub use aggregations::{Aggregation, NamedAggregations};
pub use ast::{Bound, FieldSelector, Fuzziness, Operator, Query, QueryValue, TokenPattern};
pub use error::QueryError;
pub use hits::{HitOptions, SourceFilter, WantedField};
pub use output::{BucketHits, OutputJson};
pub use search::{Bucket, Hit, Search, SearchAfter, SearchResult};
pub use sort::{Sort, SortKey};
