//! RTCP packets (RFC 3550 section 6, RFC 3611).
//!
//! Own parsing instead of the crate `rtcp-types`: that one refuses a whole compound whose last packet the snaplen cut, has no
//! notion of encrypted SRTCP, and of XR it lacks the VoIP metrics. What lea needs is a few fixed fields, read here without
//! allocation.

/// What a datagram with an RTCP packet type is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RtcpKind {
    /// Its reports were delivered.
    Plain,
    /// Only its first header and SSRC are in the clear: SRTCP (RFC 3711 section 3.4).
    Encrypted,
    Malformed,
}

/// Something that a compound packet reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Report<'a> {
    /// Sender report. `ntp_middle` is what receivers quote as LSR.
    Sender {
        ssrc: u32,
        ntp_middle: u32,
        rtp_timestamp: u32,
        packets: u32,
        bytes: u32,
    },
    /// Report block of a sender or receiver report.
    Block {
        reporter: u32,
        block: ReportBlock,
    },
    /// CNAME of SDES, as sent: UTF-8 is not checked.
    Cname {
        ssrc: u32,
        cname: &'a [u8],
    },
    Bye {
        ssrc: u32,
    },
    /// VoIP metrics of XR.
    Voip {
        reporter: u32,
        metrics: VoipMetrics,
    },
}

/// Report block: how one source is received (RFC 3550 section 6.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ReportBlock {
    /// Source that the block is about.
    pub ssrc: u32,
    /// Lost since the report before, in 256ths.
    pub fraction_lost: u8,
    /// Lost in all; negative if there were duplicates. 24 bits with sign.
    pub cumulative_lost: i32,
    pub highest_sequence: u32,
    /// Inter-arrival jitter in ticks of the RTP clock.
    pub jitter: u32,
    /// Middle 32 bits of the NTP time of the last sender report. 0 if there was none.
    pub last_sr: u32,
    /// Time since that report, in 1/65536 s.
    pub delay_since_last_sr: u32,
}

/// VoIP metrics block of RFC 3611 section 4.7, with what can be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct VoipMetrics {
    pub ssrc: u32,
    /// Lost and discarded, in 256ths.
    pub loss_rate: u8,
    pub discard_rate: u8,
    pub round_trip_ms: u16,
    pub end_system_delay_ms: u16,
    /// `None` is "unavailable" (127).
    pub r_factor: Option<u8>,
    /// Mean opinion scores times 10.
    pub mos_lq: Option<u8>,
    pub mos_cq: Option<u8>,
}

const SENDER_REPORT: u8 = 200;
const RECEIVER_REPORT: u8 = 201;
const SOURCE_DESCRIPTION: u8 = 202;
const GOODBYE: u8 = 203;
const EXTENDED_REPORT: u8 = 207;

/// SDES item with the canonical name.
const CNAME_ITEM: u8 = 1;

/// XR block with VoIP metrics, and its length in words without the header.
const VOIP_METRICS: u8 = 7;
const VOIP_METRICS_WORDS: usize = 8;

/// Least trailer of SRTCP in bytes: the index and the shortest authentication tag in use (RFC 3711 section 5.2).
const SRTCP_TRAILER_BYTES: usize = 8;

/// Parses a datagram that starts with an RTCP packet: a compound, or a single one (RFC 5506). `is_cut` says that the
/// snaplen cut it; the packets before the cut are delivered.
///
/// Reports are delivered only if all lengths agree, because the content of SRTCP would be noise.
pub(crate) fn parse_rtcp<'a>(
    datagram: &'a [u8],
    is_cut: bool,
    mut report: impl FnMut(Report<'a>),
) -> RtcpKind {
    let mut rest = datagram;
    let mut count = 0;
    while let Some((packet, tail)) = split_packet(rest) {
        if !packet.is_plausible() {
            break;
        }
        rest = tail;
        count += 1;
    }
    let is_complete = rest.is_empty() || is_cut || (count > 0 && rest.len() < SRTCP_TRAILER_BYTES);
    if !is_complete {
        let is_clear_header = matches!(datagram, [128..=191, 192..=223, _, _, _, _, _, _, ..]);
        return if is_clear_header && datagram.len() >= 8 + SRTCP_TRAILER_BYTES {
            RtcpKind::Encrypted
        } else {
            RtcpKind::Malformed
        };
    }
    if count == 0 {
        return RtcpKind::Malformed;
    }
    let mut rest = datagram;
    for _ in 0..count {
        let Some((packet, tail)) = split_packet(rest) else { break };
        packet.deliver(&mut report);
        rest = tail;
    }
    RtcpKind::Plain
}

/// One packet of a compound.
#[derive(Clone, Copy)]
struct Packet<'a> {
    /// Report count, source count or subtype.
    count: usize,
    kind: u8,
    /// Without the header of 4 bytes, and without padding.
    body: &'a [u8],
}

/// Splits the first packet off. `None` if its header is not one of RTCP, or it is not whole.
fn split_packet(data: &[u8]) -> Option<(Packet<'_>, &[u8])> {
    let (&[flags, kind, high, low], rest) = data.split_first_chunk::<4>()?;
    if flags >> 6 != 2 || !(192..=223).contains(&kind) {
        return None;
    }
    let bytes = 4 * usize::from(u16::from_be_bytes([high, low]));
    let (mut body, tail) = rest.split_at_checked(bytes)?;
    if flags & 0x20 != 0 {
        let padding = body.last().copied().map_or(0, usize::from);
        body = body.get(..body.len().saturating_sub(padding)).unwrap_or_default();
    }
    Some((Packet { count: usize::from(flags & 0x1f), kind, body }, tail))
}

fn word(data: &[u8], index: usize) -> Option<u32> {
    data.get(4 * index..)?.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))
}

impl<'a> Packet<'a> {
    /// Whether the body has room for what the header counts.
    fn is_plausible(&self) -> bool {
        let words = match self.kind {
            SENDER_REPORT => 6 + 6 * self.count,
            RECEIVER_REPORT => 1 + 6 * self.count,
            SOURCE_DESCRIPTION => 2 * self.count,
            GOODBYE => self.count,
            EXTENDED_REPORT => 1,
            _ => 0,
        };
        self.body.len() >= 4 * words
    }

    fn deliver(&self, report: &mut impl FnMut(Report<'a>)) -> Option<()> {
        match self.kind {
            SENDER_REPORT => {
                let at = |index| word(self.body, index);
                let ssrc = at(0)?;
                let ntp_middle = at(1)? << 16 | at(2)? >> 16;
                let (rtp_timestamp, packets, bytes) = (at(3)?, at(4)?, at(5)?);
                report(Report::Sender { ssrc, ntp_middle, rtp_timestamp, packets, bytes });
                self.deliver_blocks(ssrc, self.body.get(24..)?, report)
            }
            RECEIVER_REPORT => self.deliver_blocks(word(self.body, 0)?, self.body.get(4..)?, report),
            SOURCE_DESCRIPTION => self.deliver_cnames(report),
            GOODBYE => (0..self.count).try_for_each(|index| {
                report(Report::Bye { ssrc: word(self.body, index)? });
                Some(())
            }),
            EXTENDED_REPORT => self.deliver_extended(report),
            _ => None,
        }
    }

    fn deliver_blocks(
        &self,
        reporter: u32,
        blocks: &[u8],
        report: &mut impl FnMut(Report<'a>),
    ) -> Option<()> {
        for block in blocks.as_chunks::<24>().0.iter().take(self.count) {
            let at = |index| word(block, index);
            let loss = at(1)?;
            let block = ReportBlock {
                ssrc: at(0)?,
                fraction_lost: (loss >> 24) as u8,
                cumulative_lost: (loss << 8) as i32 >> 8,
                highest_sequence: at(2)?,
                jitter: at(3)?,
                last_sr: at(4)?,
                delay_since_last_sr: at(5)?,
            };
            report(Report::Block { reporter, block });
        }
        Some(())
    }

    /// Chunks of SDES: SSRC, items of (type, length, text), a zero byte, and zeros up to a word (section 6.5).
    fn deliver_cnames(&self, report: &mut impl FnMut(Report<'a>)) -> Option<()> {
        let mut rest = self.body;
        for _ in 0..self.count {
            let ssrc = word(rest, 0)?;
            let chunk = rest;
            rest = rest.get(4..)?;
            while let &[item, length, ref tail @ ..] = rest
                && item != 0
            {
                let (text, tail) = tail.split_at_checked(length.into())?;
                if item == CNAME_ITEM {
                    report(Report::Cname { ssrc, cname: text });
                }
                rest = tail;
            }
            let used = chunk.len() - rest.len();
            rest = chunk.get((used + 1).next_multiple_of(4)..)?;
        }
        Some(())
    }

    fn deliver_extended(&self, report: &mut impl FnMut(Report<'a>)) -> Option<()> {
        let reporter = word(self.body, 0)?;
        let mut rest = self.body.get(4..)?;
        while let Some((&[kind, _, high, low], tail)) = rest.split_first_chunk::<4>() {
            let words = usize::from(u16::from_be_bytes([high, low]));
            let (block, next) = tail.split_at_checked(4 * words)?;
            if kind == VOIP_METRICS && words == VOIP_METRICS_WORDS {
                report(Report::Voip { reporter, metrics: voip_metrics(block)? });
            }
            rest = next;
        }
        Some(())
    }
}

fn voip_metrics(block: &[u8]) -> Option<VoipMetrics> {
    let byte = |index: usize| block.get(index).copied();
    let available = |index: usize| byte(index).map(|value| (value != 127).then_some(value));
    let delays = word(block, 3)?;
    Some(VoipMetrics {
        ssrc: word(block, 0)?,
        loss_rate: byte(4)?,
        discard_rate: byte(5)?,
        round_trip_ms: (delays >> 16) as u16,
        end_system_delay_ms: delays as u16,
        r_factor: available(20)?,
        mos_lq: available(22)?,
        mos_cq: available(23)?,
    })
}

#[cfg(test)]
#[path = "rtcp_tests.rs"]
mod tests;
