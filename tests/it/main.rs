//! Integration tests: the real binary. A file a subcommand; `support` is the kit.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod configure;
mod man;
mod support;
