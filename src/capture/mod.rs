//! Captures (pcap, pcapng, snoop, ERF): formats, packets and their boundaries. Pure: no I/O, no clock.
//!
//! `formats` is the table of formats that everything asks. `tracker` finds packet boundaries in a stream as its bytes
//! arrive, `reader` reads the packets of a file. Both use the parsers, one file per format. `compressed` looks into gzip,
//! zstd and lz4 while they stream. `header_copy` collects what each file of a rotated stream starts with.

pub mod compressed;
pub mod damage;
mod erf;
pub mod formats;
pub(crate) mod header_copy;
mod interfaces;
mod link_types;
mod lz4;
pub mod mend;
mod parser;
mod pcap;
mod pcapng;
pub mod reader;
mod snoop;
pub mod summary;
pub mod tracker;
pub mod variants;
