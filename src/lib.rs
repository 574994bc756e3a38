//! `lea`, the receiving end of lawful interception: receives intercepted calls and call events, and stores them as evidence.
//!
//! ARCHITECTURE.md describes the modules and how data flows through them.

pub mod billing;
pub(crate) mod calls;
pub mod capture;
pub mod cli;
pub(crate) mod cmd;
pub mod config;
pub mod daemon;
pub mod es_api;
pub(crate) mod manual;
pub mod phone;
pub mod runtime;
pub mod search;

pub mod error;
pub(crate) mod exit;
pub mod limits;

pub mod cc;
pub mod http;
pub mod iri;
pub(crate) mod replay;

pub use error::{Error, Result};
pub use exit::Exit;
