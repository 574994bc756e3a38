//! One module a subcommand: its `Args` (clap), a check of them, and `run`.

pub mod completions;
pub mod configure;
pub mod ls;
pub mod replay;
pub mod run;
pub mod serve_tcp;
pub mod service;
pub mod values;
pub mod verify;
