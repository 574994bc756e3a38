//! Captures (pcap, pcapng): formats, packets and their boundaries. Pure: no I/O, no clock.
//!
//! `formats` is the table of formats that everything asks. `tracker` finds packet boundaries in a stream as its bytes
//! arrive, `reader` reads the packets of a file. Both use the parsers in `pcap` and `pcapng`.

pub mod damage;
pub mod formats;
mod interfaces;
pub mod mend;
mod parser;
mod pcap;
mod pcapng;
pub mod reader;
pub mod summary;
pub mod tracker;
