//! Integration tests: the real binary. A file a subcommand; `support` is the kit.

mod fuzz;
mod ls;
mod stored;
mod support;
mod verify;
