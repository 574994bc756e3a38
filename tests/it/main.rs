//! Integration tests: the real binary. A file a subcommand or scenario; `support` is the kit.
//!
//! A panic is how a test fails, and a test prints what it did where that is needed to run it again.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod configure;
mod man;
mod support;

mod replay;
