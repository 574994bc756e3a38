//! One module a subcommand: its `Args` (clap), a check of them, and `run`. `stored` is what `ls` and `verify` share.

pub mod completions;
pub mod configure;
pub mod ls;
pub mod replay;
pub mod run;
pub mod serve_tcp;
pub mod stored;
pub mod verify;
