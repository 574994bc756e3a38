//! Random captures of any size, with their packet boundaries. Tests compare stored files with these bytes, so
//! no two captures are alike.

use super::Random;

/// A complete capture.
#[derive(Clone, Debug)]
pub(crate) struct Generated {
    pub bytes: Vec<u8>,
    /// Offsets at which the file may end while it grows: 0, and after the file header and each packet (pcap),
    /// or after each block (pcapng).
    pub ends: Vec<usize>,
}

impl Generated {
    fn new() -> Generated {
        Generated { bytes: Vec::new(), ends: vec![0] }
    }

    fn unit(&mut self, pieces: &[&[u8]]) {
        pieces.iter().for_each(|piece| self.bytes.extend_from_slice(piece));
        self.ends.push(self.bytes.len());
    }
}

/// Returns a pcap capture of at least `bytes_min` bytes: little-endian, microseconds, Ethernet.
pub(crate) fn pcap(random: &mut Random, bytes_min: usize) -> Generated {
    let mut made = Generated::new();
    let head = words(&[0xa1b2_c3d4, 0x0004_0002, 0, 0, 262_144, 1]);
    made.unit(&[&head]);
    let mut number = 0;
    while made.bytes.len() < bytes_min {
        let packet = packet(random);
        let len = packet.len() as u32;
        made.unit(&[&words(&[1_795_000_000 + number, number, len, len]), &packet]);
        number += 1;
    }
    made
}

/// Returns a pcapng capture of at least `bytes_min` bytes: little-endian, one interface, microseconds.
pub(crate) fn pcapng(random: &mut Random, bytes_min: usize) -> Generated {
    let mut made = Generated::new();
    made.unit(&[&words(&[0x0a0d_0d0a, 28, 0x1a2b_3c4d, 1, u32::MAX, u32::MAX, 28])]);
    made.unit(&[&words(&[1, 20, 1, 262_144, 20])]);
    while made.bytes.len() < bytes_min {
        let mut packet = packet(random);
        let len = packet.len() as u32;
        packet.resize(packet.len().next_multiple_of(4), 0);
        let total = 32 + packet.len() as u32;
        let head = words(&[6, total, 0, 0x0006_5b00, random.next() as u32, len, len]);
        made.unit(&[&head, &packet, &words(&[total])]);
    }
    made
}

/// Returns a packet of the size of a call's packets, or sometimes a large one.
fn packet(random: &mut Random) -> Vec<u8> {
    let len = match random.below(20) {
        0 => 1500,
        1 => 14,
        _ => 180 + random.below(60),
    };
    random.bytes(len as usize)
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

#[test]
fn they_are_read_as_they_were_made() {
    let mut random = Random::with_seed(1);
    for (made, others) in [(pcap(&mut random, 50_000), 2), (pcapng(&mut random, 50_000), 3)] {
        let packets = super::capture::packets(&made.bytes);
        assert_eq!(packets.iter().map(|packet| packet.end).collect::<Vec<_>>(), made.ends[others..]);
    }
}
