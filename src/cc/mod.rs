//! Content of communication: bytes of streams into files.
//!
//! `source` reads (one thread a stream), `frame` understands (pure), `vault` stores (one writer thread). What is
//! open now stands in `live`.

pub mod chunk_sink;
pub mod chunk_store;
pub mod frame;
pub mod live;
pub mod source;
pub mod vault;
