//! Hostile input, and what `lea` makes of it: the rows of docs/hostile-input.md.
//!
//! Each scenario has a server of its own, real streams beside it that have to arrive whole, and an end at which
//! nothing outside the output folder has changed and nothing is left over: no thread, no descriptor, no foreign file.
//! The tables are written by this test: `LEA_UPDATE=1` writes them, otherwise they are compared. The measured figures
//! are written where `LEA_TEST_LONG=1` comes with it.

mod company;
mod connections;
mod content;
mod crowd;
mod document;
mod ground;
mod links;
mod memory;
mod names;
mod status;
