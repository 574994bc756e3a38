//! Link types that Wireshark 4.0 reads in a pcap file. It refuses a file with any other one.

/// Ranges of link types (LINKTYPE_ values), each with its last one, in order.
const READABLE: [(u16, u16); 41] = [
    (0, 3),
    (6, 14),
    (16, 16),
    (18, 19),
    (32, 32),
    (50, 51),
    (99, 101),
    (104, 109),
    (112, 114),
    (117, 119),
    (121, 123),
    (127, 131),
    (133, 133),
    (135, 144),
    (147, 163),
    (165, 165),
    (167, 167),
    (169, 173),
    (177, 181),
    (183, 184),
    (186, 190),
    (192, 192),
    (195, 197),
    (199, 204),
    (209, 215),
    (220, 220),
    (224, 231),
    (235, 237),
    (239, 243),
    (245, 245),
    (248, 256),
    (258, 260),
    (264, 264),
    (266, 266),
    (268, 268),
    (270, 276),
    (279, 280),
    (283, 283),
    (287, 288),
    (290, 290),
    (292, 295),
];

/// Reports whether Wireshark reads a pcap file of this link type.
pub(super) fn is_readable(link_type: u32) -> bool {
    READABLE.iter().any(|(first, last)| (u32::from(*first)..=u32::from(*last)).contains(&link_type))
}
