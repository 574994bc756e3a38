//! Pure parsers of what streams are made of: no I/O, no clock.

pub mod capture;
pub mod handshake;
pub mod name;
