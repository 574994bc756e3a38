//! The first bytes of a UDP payload: which protocol it is, and the RTP header.

/// Protocol of a UDP payload on a media port, by its first byte (RFC 7983 section 7) and, to tell RTCP from RTP, its
/// second (RFC 5761 section 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Stun,
    Zrtp,
    Dtls,
    TurnChannel,
    Rtp,
    Rtcp,
    Other,
}

/// Tells the protocol of a UDP payload. Looks at two bytes only: whether the rest makes sense is the parser's affair.
#[inline]
pub(crate) fn classify(payload: &[u8]) -> Kind {
    match payload {
        [0..=3, ..] => Kind::Stun,
        [16..=19, ..] => Kind::Zrtp,
        [20..=63, ..] => Kind::Dtls,
        [64..=79, ..] => Kind::TurnChannel,
        [128..=191, 192..=223, ..] => Kind::Rtcp,
        [128..=191, _, ..] => Kind::Rtp,
        _ => Kind::Other,
    }
}

/// Length of the fixed header in bytes (RFC 3550 section 5.1).
const FIXED_HEADER_BYTES: usize = 12;

/// RTP header (RFC 3550 section 5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RtpHeader {
    pub sequence: u16,
    pub timestamp: u32,
    pub ssrc: u32,
    pub payload_type: u8,
    pub is_marker: bool,
    pub csrc_count: u8,
    pub has_extension: bool,
    /// The snaplen of the capture cut bytes of the header or of the payload.
    pub is_cut: bool,
    /// First byte of the payload in the datagram.
    payload_start: u32,
    /// End of the payload in the datagram, without padding. May be behind the captured bytes.
    payload_end: u32,
}

impl RtpHeader {
    /// Parses the header of a datagram of which `captured` was captured and which had `datagram_bytes` on the wire.
    ///
    /// Returns `None` if the version is not 2, if fewer than 12 bytes were captured, or if CSRCs or extension are
    /// longer than the datagram. A packet cut by the snaplen is valid: its fixed header is enough for statistics.
    #[inline]
    pub(crate) fn parse(captured: &[u8], datagram_bytes: usize) -> Option<RtpHeader> {
        let datagram_bytes = datagram_bytes.max(captured.len());
        let &[flags, kind, s0, s1, t0, t1, t2, t3, c0, c1, c2, c3] =
            captured.first_chunk::<FIXED_HEADER_BYTES>()?;
        if flags >> 6 != 2 {
            return None;
        }
        let mut header = RtpHeader {
            sequence: u16::from_be_bytes([s0, s1]),
            timestamp: u32::from_be_bytes([t0, t1, t2, t3]),
            ssrc: u32::from_be_bytes([c0, c1, c2, c3]),
            payload_type: kind & 0x7f,
            is_marker: kind & 0x80 != 0,
            csrc_count: flags & 0x0f,
            has_extension: flags & 0x10 != 0,
            is_cut: captured.len() < datagram_bytes,
            payload_start: FIXED_HEADER_BYTES as u32,
            payload_end: u32::try_from(datagram_bytes).ok()?,
        };
        if flags & 0x3f != 0 {
            header.parse_variable_part(captured, flags & 0x20 != 0)?;
        }
        Some(header)
    }

    /// Skips CSRCs and extension, and takes the padding away.
    fn parse_variable_part(&mut self, captured: &[u8], has_padding: bool) -> Option<()> {
        let mut start = FIXED_HEADER_BYTES + 4 * usize::from(self.csrc_count);
        if self.has_extension {
            let words = match captured.get(start..).and_then(|rest| rest.first_chunk::<4>()) {
                Some(&[_, _, high, low]) => usize::from(u16::from_be_bytes([high, low])),
                None => 0,
            };
            start += 4 + 4 * words;
        }
        let start = u32::try_from(start).ok()?;
        if start > self.payload_end {
            return None;
        }
        self.payload_start = start;
        // The last byte is the number of padding bytes including itself. A value that cannot be true (some senders set
        // the bit by mistake, and SRTP encrypts the byte) leaves the payload as it is.
        if has_padding && !self.is_cut {
            let padding = captured.last().copied().map_or(0, u32::from);
            if padding <= self.payload_end - start {
                self.payload_end -= padding;
            }
        }
        Some(())
    }

    /// Length of the payload on the wire in bytes.
    #[inline]
    pub(crate) fn payload_bytes(&self) -> u32 {
        self.payload_end - self.payload_start
    }

    /// Captured part of the payload. `captured` is what the header was parsed from.
    #[inline]
    pub(crate) fn payload<'a>(&self, captured: &'a [u8]) -> &'a [u8] {
        let end = (self.payload_end as usize).min(captured.len());
        captured.get(self.payload_start as usize..end).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Version 2, payload type 8, sequence 0x1234, timestamp 0x01020304, SSRC 0xdeadbeef, four bytes of payload.
    const PLAIN: [u8; 16] = [0x80, 0x88, 0x12, 0x34, 1, 2, 3, 4, 0xde, 0xad, 0xbe, 0xef, 0xd5, 0xd4, 0xd7, 2];

    #[test]
    fn protocols_are_told_by_the_ranges_of_rfc_7983() {
        for (first, kind) in [
            (0, Kind::Stun),
            (3, Kind::Stun),
            (4, Kind::Other),
            (15, Kind::Other),
            (16, Kind::Zrtp),
            (19, Kind::Zrtp),
            (20, Kind::Dtls),
            (63, Kind::Dtls),
            (64, Kind::TurnChannel),
            (79, Kind::TurnChannel),
            (80, Kind::Other),
            (127, Kind::Other),
            (128, Kind::Rtp),
            (191, Kind::Rtp),
            (192, Kind::Other),
            (255, Kind::Other),
        ] {
            assert_eq!(classify(&[first, 0, 0, 0]), kind, "first byte {first}");
        }
        for (second, kind) in
            [(191, Kind::Rtp), (192, Kind::Rtcp), (200, Kind::Rtcp), (223, Kind::Rtcp), (224, Kind::Rtp)]
        {
            assert_eq!(classify(&[0x80, second]), kind, "second byte {second}");
        }
        assert_eq!(classify(&[]), Kind::Other);
        assert_eq!(classify(&[0x80]), Kind::Other);
    }

    #[test]
    fn a_plain_header_is_read() {
        let header = RtpHeader::parse(&PLAIN, PLAIN.len()).unwrap();
        assert_eq!((header.sequence, header.timestamp, header.ssrc), (0x1234, 0x0102_0304, 0xdead_beef));
        assert_eq!((header.payload_type, header.is_marker), (8, true));
        assert_eq!((header.csrc_count, header.has_extension, header.is_cut), (0, false, false));
        assert_eq!(header.payload(&PLAIN), [0xd5, 0xd4, 0xd7, 2]);
        assert_eq!(header.payload_bytes(), 4);
    }

    #[test]
    fn padding_is_removed_only_if_its_length_is_plausible() {
        let mut packet = PLAIN;
        packet[0] |= 0x20;
        assert_eq!(RtpHeader::parse(&packet, 16).unwrap().payload(&packet), [0xd5, 0xd4]);
        packet[15] = 4;
        assert_eq!(RtpHeader::parse(&packet, 16).unwrap().payload_bytes(), 0);
        packet[15] = 5;
        assert_eq!(RtpHeader::parse(&packet, 16).unwrap().payload_bytes(), 4);
        packet[15] = 0;
        assert_eq!(RtpHeader::parse(&packet, 16).unwrap().payload_bytes(), 4);
    }

    #[test]
    fn csrcs_and_extension_are_skipped() {
        let mut packet = PLAIN[..12].to_vec();
        packet[0] |= 0x12;
        packet.extend_from_slice(&[0; 8]); // two CSRCs
        packet.extend_from_slice(&[0xbe, 0xde, 0, 1, 0x10, 0xff, 0, 0]); // extension of one word
        packet.extend_from_slice(b"voice");
        let header = RtpHeader::parse(&packet, packet.len()).unwrap();
        assert_eq!((header.csrc_count, header.has_extension), (2, true));
        assert_eq!(header.payload(&packet), b"voice");
    }

    #[test]
    fn an_extension_longer_than_the_datagram_is_no_rtp() {
        let mut packet = PLAIN;
        packet[0] |= 0x10;
        packet[12..].copy_from_slice(&[0xbe, 0xde, 0, 1]);
        assert_eq!(RtpHeader::parse(&packet, packet.len()), None);
        packet[15] = 0;
        assert_eq!(RtpHeader::parse(&packet, packet.len()).unwrap().payload_bytes(), 0);
    }

    #[test]
    fn a_packet_cut_by_the_snaplen_keeps_its_length_on_the_wire() {
        let mut packet = PLAIN;
        packet[0] |= 0x20; // the padding length is not in the captured bytes
        let header = RtpHeader::parse(&packet[..14], 172).unwrap();
        assert!(header.is_cut);
        assert_eq!(header.payload_bytes(), 160);
        assert_eq!(header.payload(&packet[..14]), [0xd5, 0xd4]);
        let mut packet = PLAIN;
        packet[0] |= 0x1f; // 15 CSRCs and an extension that are cut off
        let header = RtpHeader::parse(&packet, 200).unwrap();
        assert_eq!(header.payload(&packet), [0; 0]);
        assert_eq!(header.payload_bytes(), 200 - 12 - 60 - 4);
    }

    #[test]
    fn another_version_and_every_prefix_of_the_fixed_header_are_refused() {
        for version in [0x00, 0x40, 0xc0] {
            let mut packet = PLAIN;
            packet[0] = version;
            assert_eq!(RtpHeader::parse(&packet, 16), None);
        }
        for length in 0..12 {
            assert_eq!(RtpHeader::parse(&PLAIN[..length], 16), None);
        }
    }
}
