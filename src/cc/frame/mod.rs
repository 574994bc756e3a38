//! Pure parsers of what streams are made of: no I/O, no clock.

pub mod capture;
pub mod chunk;
pub mod dump;
pub mod handshake;
pub mod json;
pub mod name;
