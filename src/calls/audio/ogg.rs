//! Opus packets in an Ogg file, without decoding (RFC 7845, RFC 3533).

use super::opus;

/// Values of the lacing table of a page (RFC 3533 section 6).
const LACING_MAX: usize = 255;

/// Samples of a page at 48 kHz: a second, as RFC 7845 section 3 suggests.
const PAGE_SAMPLES: u64 = 48_000;

/// Longest packet that is written: 48 frames of 1275 bytes, and their lengths. It fits into one page.
const PACKET_BYTES_MAX: usize = 61_440;

/// Longest gap that is filled, at 48 kHz: a day. Longer ones are malformed times; the rest of a gap is left out.
const GAP_SAMPLES_MAX: u64 = 24 * 3600 * 48_000;

/// Samples at 48 kHz before the beginning of the call, which players skip: 80 ms, in which a decoder converges (RFC
/// 7845 section 4.2). They are empty packets, so nothing that was received is skipped.
const PRE_SKIP: u16 = 3840;

/// Header types of the first and the last page (RFC 3533 section 6).
const FIRST_PAGE: u8 = 2;
const LAST_PAGE: u8 = 4;

/// Numbers of packets that were not written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct OpusCounts {
    pub packets: u64,
    /// Without valid TOC, or longer than a packet can be.
    pub malformed: u64,
    /// By more than half in the time of those before.
    pub overlapping: u64,
    /// Gaps of more than a day, of which the rest was left out.
    pub cut_gaps: u64,
}

/// Ogg Opus file of one side. Bytes are appended to the buffer of the caller as pages fill up, so memory is bounded by
/// a page.
///
/// The file begins with the call, so that the files of both sides agree: time before the first packet and in gaps is
/// filled with empty packets, which decoders conceal and soon fade to silence (RFC 7845 section 4.1).
#[derive(Clone, Debug)]
pub(crate) struct OpusFile {
    serial: u32,
    page_number: u32,
    /// Lacing values and packets of the page that is being filled.
    lacing: Vec<u8>,
    body: Vec<u8>,
    /// Samples at 48 kHz until the end of the last packet, and until the end of the last page.
    position: u64,
    page_position: u64,
    /// Samples that gaps of more than a day are shorter in the file.
    left_out: u64,
    /// TOC of the last packet. `None` before the first one.
    toc: Option<u8>,
    counts: OpusCounts,
}

impl OpusFile {
    /// `serial` tells apart logical streams; any number will do.
    pub(crate) fn new(serial: u32) -> OpusFile {
        OpusFile {
            serial,
            page_number: 0,
            lacing: Vec::new(),
            body: Vec::new(),
            position: 0,
            page_position: 0,
            left_out: 0,
            toc: None,
            counts: OpusCounts::default(),
        }
    }

    /// Adds a packet that begins at `position`, in samples at 48 kHz after the beginning of the call. Packets come in
    /// the order of their positions.
    pub(crate) fn add(&mut self, position: i64, packet: &[u8], file: &mut Vec<u8>) {
        self.counts.packets += 1;
        let duration = opus::packet_samples(packet).filter(|_| packet.len() <= PACKET_BYTES_MAX);
        let (Some(samples), Some(&toc)) = (duration, packet.first()) else {
            self.counts.malformed += 1;
            return;
        };
        let position = u64::try_from(position).unwrap_or(0).saturating_add(PRE_SKIP.into());
        let position = position.saturating_sub(self.left_out);
        if position.saturating_add(u64::from(samples / 2)) < self.position {
            self.counts.overlapping += 1;
            return;
        }
        if self.toc.is_none() {
            self.write_headers(toc, file);
        }
        self.fill_gap(position, self.toc.unwrap_or(toc), file);
        self.toc = Some(toc);
        self.push(packet, samples, file);
    }

    /// Ends the file. It stays empty if there was no packet.
    pub(crate) fn finish(&mut self, file: &mut Vec<u8>) -> OpusCounts {
        if self.toc.is_some() {
            self.write_page(LAST_PAGE, self.position, file);
        }
        self.counts
    }

    fn fill_gap(&mut self, position: u64, toc: u8, file: &mut Vec<u8>) {
        let gap = position.saturating_sub(self.position);
        if gap > GAP_SAMPLES_MAX {
            self.counts.cut_gaps += 1;
            self.left_out = self.left_out.saturating_add(gap - GAP_SAMPLES_MAX);
        }
        let mut rest = gap.min(GAP_SAMPLES_MAX);
        while let Some((packet, samples)) = opus::lost_packet(toc, u32::try_from(rest).unwrap_or(u32::MAX)) {
            rest -= u64::from(samples);
            self.push(&packet, samples, file);
        }
    }

    fn push(&mut self, packet: &[u8], samples: u32, file: &mut Vec<u8>) {
        let segments = packet.len() / 255 + 1;
        let is_long = self.position + u64::from(samples) > self.page_position + PAGE_SAMPLES;
        if !self.lacing.is_empty() && (is_long || self.lacing.len() + segments > LACING_MAX) {
            self.write_page(0, self.position, file);
        }
        self.position += u64::from(samples);
        self.lacing.extend(std::iter::repeat_n(255, segments - 1));
        self.lacing.push((packet.len() % 255) as u8);
        self.body.extend_from_slice(packet);
    }

    /// OpusHead and OpusTags (RFC 7845 section 5), each on its own page.
    fn write_headers(&mut self, toc: u8, file: &mut Vec<u8>) {
        const VENDOR: &[u8] = b"lea";
        let channels = 1 + u8::from(opus::is_stereo(toc));
        let mut head = b"OpusHead\x01".to_vec();
        head.push(channels);
        head.extend_from_slice(&PRE_SKIP.to_le_bytes());
        head.extend_from_slice(&48_000_u32.to_le_bytes());
        // Gain and channel mapping family.
        head.extend_from_slice(&[0, 0, 0]);
        let mut tags = b"OpusTags".to_vec();
        tags.extend_from_slice(&(VENDOR.len() as u32).to_le_bytes());
        tags.extend_from_slice(VENDOR);
        tags.extend_from_slice(&0_u32.to_le_bytes());
        for (flags, packet) in [(FIRST_PAGE, head), (0, tags)] {
            self.push(&packet, 0, file);
            self.write_page(flags, 0, file);
        }
    }

    /// `position` is the granule position: samples until the end of the last packet of the page.
    fn write_page(&mut self, flags: u8, position: u64, file: &mut Vec<u8>) {
        let mut page = b"OggS\0".to_vec();
        page.push(flags);
        page.extend_from_slice(&position.to_le_bytes());
        page.extend_from_slice(&self.serial.to_le_bytes());
        page.extend_from_slice(&self.page_number.to_le_bytes());
        let checksum_at = page.len();
        page.extend_from_slice(&[0; 4]);
        page.push(self.lacing.len() as u8);
        page.append(&mut self.lacing);
        page.append(&mut self.body);
        let checksum = crc32(&page).to_le_bytes();
        page.iter_mut().skip(checksum_at).zip(checksum).for_each(|(place, byte)| *place = byte);
        file.append(&mut page);
        self.page_number = self.page_number.wrapping_add(1);
        self.page_position = position;
    }
}

/// CRC-32 of Ogg pages: polynomial 0x04c11db7, first bit first, from 0, not inverted (RFC 3533 section 6).
fn crc32(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |crc, &byte| {
        // A byte is always a valid index of a table of 256 values.
        crc << 8 ^ CRC_TABLE[usize::from((crc >> 24) as u8 ^ byte)]
    })
}

static CRC_TABLE: [u32; 256] = crc_table();

const fn crc_table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < table.len() {
        let mut crc = (byte as u32) << 24;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000_0000 != 0 { crc << 1 ^ 0x04c1_1db7 } else { crc << 1 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Page {
        flags: u8,
        position: u64,
        number: u32,
        packets: Vec<Vec<u8>>,
    }

    /// Reads pages whose packets do not continue on the next one. Checks their structure.
    fn pages(mut file: &[u8]) -> Vec<Page> {
        let mut pages = Vec::new();
        while !file.is_empty() {
            assert_eq!(&file[..5], b"OggS\0");
            let lacing = &file[27..27 + usize::from(file[26])];
            let (mut at, mut packets, mut packet) = (27 + lacing.len(), Vec::new(), Vec::new());
            for &value in lacing {
                packet.extend_from_slice(&file[at..at + usize::from(value)]);
                at += usize::from(value);
                if value < 255 {
                    packets.push(std::mem::take(&mut packet));
                }
            }
            assert!(packet.is_empty());
            let mut checked = file[..at].to_vec();
            checked[22..26].fill(0);
            assert_eq!(crc32(&checked).to_le_bytes(), file[22..26]);
            pages.push(Page {
                flags: file[5],
                position: u64::from_le_bytes(file[6..14].try_into().unwrap()),
                number: u32::from_le_bytes(file[18..22].try_into().unwrap()),
                packets,
            });
            file = &file[at..];
        }
        pages
    }

    fn make(packets: &[(i64, Vec<u8>)]) -> (Vec<Page>, OpusCounts) {
        let (mut opus, mut file) = (OpusFile::new(1), Vec::new());
        packets.iter().for_each(|(position, packet)| opus.add(*position, packet, &mut file));
        let counts = opus.finish(&mut file);
        (pages(&file), counts)
    }

    /// CELT, fullband, 20 ms, one frame.
    const TOC: u8 = 31 << 3;

    fn packet(bytes: usize) -> Vec<u8> {
        let mut packet = vec![0x55; bytes];
        packet[0] = TOC;
        packet
    }

    #[test]
    fn the_checksum_is_that_of_the_catalogue() {
        // CRC-32/MPEG-2 differs by its initial value. With initial value 0 and these four bytes first, it has the same
        // result as this one for the text alone: check value of CRC-32/MPEG-2 is 0x0376e6e7.
        let mut crc = 0xffff_ffff_u32;
        for byte in *b"123456789" {
            crc = crc << 8 ^ CRC_TABLE[usize::from((crc >> 24) as u8 ^ byte)];
        }
        assert_eq!(crc, 0x0376_e6e7);
        assert_eq!(crc32(b"123456789"), 0x89a1_897f);
    }

    /// First page of a file that opusenc wrote.
    #[test]
    fn the_checksum_is_that_of_opus_tools() {
        let page = include_bytes!("../../../testdata/audio/opusenc-first-page.opus");
        assert_eq!(pages(page).len(), 1);
    }

    #[test]
    fn headers_have_pages_of_their_own_and_audio_a_page_per_second() {
        let packets: Vec<_> = (0..120).map(|n| (n * 960, packet(80))).collect();
        let (pages, counts) = make(&packets);
        assert_eq!(counts, OpusCounts { packets: 120, ..OpusCounts::default() });
        assert_eq!(pages[0].packets, [b"OpusHead\x01\x01\0\x0f\x80\xbb\0\0\0\0\0"]);
        assert_eq!(pages[1].packets, [b"OpusTags\x03\0\0\0lea\0\0\0\0"]);
        let summary: Vec<_> =
            pages.iter().map(|page| (page.flags, page.position, page.packets.len())).collect();
        assert_eq!(summary, [(2, 0, 1), (0, 0, 1), (0, 48_000, 47), (0, 96_000, 50), (4, 119_040, 24)]);
        assert!(pages.iter().enumerate().all(|(number, page)| page.number == number as u32));
    }

    #[test]
    fn a_gap_is_filled_to_the_frame() {
        let (pages, _) =
            make(&[(2400, packet(10)), (3360 + 9600 + 50, packet(10)), (3360 + 9600 + 960, packet(10))]);
        let packets: Vec<_> = pages[2..].iter().flat_map(|page| &page.packets).map(Vec::as_slice).collect();
        let expected: [&[u8]; 7] =
            [&[TOC | 3, 6], &[30 << 3], &packet(10), &[TOC | 3, 6], &[TOC | 3, 4], &packet(10), &packet(10)];
        assert_eq!(packets, expected);
        assert_eq!(pages.last().unwrap().position, 3840 + 3360 + 9600 + 2 * 960);
    }

    #[test]
    fn packets_of_any_length_are_kept_whole() {
        let lengths = [1, 254, 255, 256, 509, 510, 511, 61_440, 40_000, 30_000, 30_000];
        let packets: Vec<_> =
            lengths.iter().enumerate().map(|(n, &bytes)| (n as i64 * 960, packet(bytes))).collect();
        let (pages, _) = make(&packets);
        let written: Vec<_> = pages[2..].iter().flat_map(|page| &page.packets).map(Vec::len).collect();
        // A packet of two bytes stands for the time that is skipped.
        assert_eq!(written[0], 2);
        assert_eq!(written[1..], lengths);
    }

    #[test]
    fn malformed_and_overlapping_packets_are_counted() {
        let (pages, counts) = make(&[
            (0, vec![]),
            (0, vec![TOC | 3, 0]),
            (0, packet(61_441)),
            (0, packet(9)),
            (479, packet(9)),
            (480, packet(9)),
            (i64::MIN, packet(9)),
        ]);
        assert_eq!(counts, OpusCounts { packets: 7, malformed: 3, overlapping: 2, cut_gaps: 0 });
        assert_eq!(pages[2].position, 3840 + 1920);
        assert!(make(&[(0, vec![])]).0.is_empty());
    }

    #[test]
    fn a_gap_of_more_than_a_day_is_cut() {
        let day = GAP_SAMPLES_MAX as i64;
        for (gap, cut_gaps) in [(day, 0), (day + 480, 1), (i64::MAX - 960, 1)] {
            let (pages, counts) = make(&[(0, packet(9)), (960 + gap, packet(9)), (960 + gap, packet(9))]);
            assert_eq!(counts, OpusCounts { packets: 3, overlapping: 1, cut_gaps, malformed: 0 }, "{gap}");
            assert_eq!(pages.last().unwrap().position, 3840 + 960 + GAP_SAMPLES_MAX + 960);
        }
    }
}
