//! Questions: two languages, one tree. Pure.
//!
//! `query_string` (what stands in `q=`) and `body` (Elasticsearch's JSON) are read into a [`Query`]; each store turns
//! that tree into its own language. What neither has is refused with a reason, never answered wrongly.

mod search;
mod tree;

pub use search::{Aggregation, Bucket, Found, Hit, Interval, Search, SearchAfter, Sort, SortKey, SourceFilter};
pub use tree::{Bound, Fields, Operator, Query, Value};
