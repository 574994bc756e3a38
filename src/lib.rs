//! `lea`, the receiving end of lawful interception: captured calls and call events in, evidence out.
//!
//! The modules stand in reading order: the command line first, then the way of a byte from a socket
//! (`cc::source`) over the pure parsers (`cc::frame`) into files (`cc::vault`).

pub mod cli;
pub mod cmd;
pub mod config;

pub mod counters;
pub mod error;
pub mod exit;
pub mod limits;
pub mod logging;
pub mod stop;

pub mod cc;
pub mod http;
pub mod iri;
pub mod replay;

pub use error::{Error, Result};
pub use exit::Exit;
