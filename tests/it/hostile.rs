//! Hostile input: the scenarios of docs/hostile-input.md.
//!
//! Each scenario has its own server, and real streams at the same time that must arrive completely. At the
//! end nothing outside the output directory has changed, and no thread, descriptor or foreign file is left.
//! `LEA_UPDATE=1` writes the tables; otherwise they are compared. The measured figures are written if
//! `LEA_TEST_LONG=1` is set as well.

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
