//! Every bound of the process that is no option, with its reason, and what the machine allows.

/// A stream name's bytes. Senders use 40; beyond a page it is no name (protocol, section 2).
pub const NAME_BYTES_MAX: usize = 4096;

/// An escaped file name's bytes before the part number and the manifest's suffix; the file system allows 255.
pub const FILE_NAME_BYTES_MAX: usize = 200;

/// The longest packet that a capture may announce: tcpdump's and Wireshark's largest snaplen. What claims more is
/// no packet.
pub const PACKET_BYTES_MAX: u32 = 262_144;

/// The longest block of a pcapng file that is followed (Wireshark's own bound).
pub const BLOCK_BYTES_MAX: u32 = 16 << 20;
