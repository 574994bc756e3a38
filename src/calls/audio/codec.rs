//! Codecs of RTP streams and their decoders.

use serde::{Deserialize, Serialize};

use super::g711;
use super::g722::G722Decoder;
use super::l16;

/// Sample rates of L16 that are decoded, in hertz. The resampler has a filter for each; others would need filters of
/// arbitrary size.
const L16_RATES_HZ: [u32; 9] = [8000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000];

/// RTP clock of Opus in hertz (RFC 7587 section 4.1).
pub(super) const OPUS_CLOCK_HZ: u32 = 48_000;

/// Time that a packet is assumed to last if only its decoder could tell.
const DEFAULT_PACKET_MS: u32 = 20;

/// Codec of an RTP payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) enum AudioCodec {
    /// G.711 A-law.
    Pcma,
    /// G.711 mu-law.
    Pcmu,
    /// At 64 kbit/s. Its RTP clock is 8000 Hz, though it has 16,000 samples per second (RFC 3551 section 4.5.2).
    G722,
    L16 {
        rate_hz: u32,
        /// 1 or 2.
        channels: u8,
    },
    /// Placed in time, not decoded.
    Opus,
    /// Any other codec: placed in time, not decoded.
    Other { clock_hz: u32 },
}

impl AudioCodec {
    /// Returns the codec of an `a=rtpmap` line of SDP. Names are compared without case (RFC 8866 section 6.6).
    pub(crate) fn from_rtpmap(name: &str, clock_hz: u32, channels: u8) -> AudioCodec {
        let is = |other: &str| name.eq_ignore_ascii_case(other);
        match clock_hz {
            8000 if is("PCMA") => AudioCodec::Pcma,
            8000 if is("PCMU") => AudioCodec::Pcmu,
            8000 if is("G722") => AudioCodec::G722,
            OPUS_CLOCK_HZ if is("opus") => AudioCodec::Opus,
            rate_hz if is("L16") && L16_RATES_HZ.contains(&rate_hz) && (1..=2).contains(&channels) => {
                AudioCodec::L16 { rate_hz, channels }
            }
            clock_hz => AudioCodec::Other { clock_hz },
        }
    }

    /// Returns the codec of a static payload type (RFC 3551 section 6, table 4) if it can be decoded.
    pub(crate) fn from_payload_type(payload_type: u8) -> Option<AudioCodec> {
        match payload_type {
            0 => Some(AudioCodec::Pcmu),
            8 => Some(AudioCodec::Pcma),
            9 => Some(AudioCodec::G722),
            10 => Some(AudioCodec::L16 { rate_hz: 44_100, channels: 2 }),
            11 => Some(AudioCodec::L16 { rate_hz: 44_100, channels: 1 }),
            _ => None,
        }
    }

    /// RTP clock in hertz. At least 1.
    pub(crate) fn clock_hz(self) -> u32 {
        match self {
            AudioCodec::Pcma | AudioCodec::Pcmu | AudioCodec::G722 => 8000,
            AudioCodec::L16 { rate_hz: hz, .. } | AudioCodec::Other { clock_hz: hz } => hz.max(1),
            AudioCodec::Opus => OPUS_CLOCK_HZ,
        }
    }

    pub(crate) fn can_decode(self) -> bool {
        !matches!(self, AudioCodec::Opus | AudioCodec::Other { .. })
    }

    /// Samples that a tick of the RTP clock has.
    pub(super) fn samples_per_tick(self) -> u32 {
        if self == AudioCodec::G722 { 2 } else { 1 }
    }

    /// Sample rate in hertz. That of a codec that is not decoded is its clock.
    pub(crate) fn sample_rate(self) -> u32 {
        self.clock_hz().saturating_mul(self.samples_per_tick())
    }

    /// Duration of a payload in ticks of the RTP clock.
    pub(super) fn ticks(self, payload_bytes: usize) -> u32 {
        let bytes = u32::try_from(payload_bytes).unwrap_or(u32::MAX);
        match self {
            AudioCodec::Pcma | AudioCodec::Pcmu | AudioCodec::G722 => bytes,
            AudioCodec::L16 { channels, .. } => bytes / (2 * u32::from(channels.clamp(1, 2))),
            AudioCodec::Opus | AudioCodec::Other { .. } => self.clock_hz() / (1000 / DEFAULT_PACKET_MS),
        }
    }

    /// Reports whether the samples of a payload depend on the payloads before it.
    pub(super) fn has_state(self) -> bool {
        self == AudioCodec::G722
    }
}

/// Decoder of one stream.
#[derive(Clone, Debug)]
pub(crate) struct Decoder {
    codec: AudioCodec,
    g722: Option<Box<G722Decoder>>,
}

impl Decoder {
    pub(crate) fn new(codec: AudioCodec) -> Decoder {
        Decoder { codec, g722: codec.has_state().then(|| Box::new(G722Decoder::new())) }
    }

    /// Appends the samples of a payload. There are none if the codec cannot be decoded.
    pub(crate) fn decode(&mut self, payload: &[u8], samples: &mut Vec<i16>) {
        match (self.codec, &mut self.g722) {
            (AudioCodec::Pcma, _) => g711::decode(&g711::ALAW, payload, samples),
            (AudioCodec::Pcmu, _) => g711::decode(&g711::ULAW, payload, samples),
            (AudioCodec::L16 { channels, .. }, _) => l16::decode(channels, payload, samples),
            (AudioCodec::G722, Some(decoder)) => decoder.decode(payload, samples),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_codec_is_known_by_its_rtpmap() {
        let codec = AudioCodec::from_rtpmap;
        assert_eq!(codec("pcma", 8000, 1), AudioCodec::Pcma);
        assert_eq!(codec("PCMU", 16_000, 1), AudioCodec::Other { clock_hz: 16_000 });
        assert_eq!(codec("G722", 8000, 1), AudioCodec::G722);
        assert_eq!(codec("L16", 44_100, 2), AudioCodec::L16 { rate_hz: 44_100, channels: 2 });
        assert_eq!(codec("L16", 47_999, 1), AudioCodec::Other { clock_hz: 47_999 });
        assert_eq!(codec("L16", 8000, 6), AudioCodec::Other { clock_hz: 8000 });
        assert_eq!(codec("OPUS", 48_000, 2), AudioCodec::Opus);
        assert_eq!(codec("x", 0, 0).clock_hz(), 1);
    }

    #[test]
    fn a_payload_lasts_as_long_as_its_samples() {
        let codecs = [
            (AudioCodec::Pcma, 160, 160),
            (AudioCodec::G722, 160, 320),
            (AudioCodec::L16 { rate_hz: 16_000, channels: 1 }, 640, 320),
            (AudioCodec::L16 { rate_hz: 48_000, channels: 2 }, 3840, 960),
            (AudioCodec::Opus, 77, 0),
        ];
        for (codec, bytes, expected) in codecs {
            let mut samples = Vec::new();
            Decoder::new(codec).decode(&vec![0; bytes], &mut samples);
            assert_eq!(samples.len(), expected, "{codec:?}");
            assert!(!codec.can_decode() || codec.ticks(bytes) * codec.samples_per_tick() == expected as u32);
        }
        assert_eq!(AudioCodec::Opus.ticks(77), 960);
        assert_eq!(AudioCodec::Other { clock_hz: u32::MAX }.sample_rate(), u32::MAX);
    }

    #[test]
    fn a_codec_survives_the_index() {
        let codec = AudioCodec::L16 { rate_hz: 48_000, channels: 2 };
        let bytes = postcard::to_allocvec(&codec).unwrap();
        assert_eq!(postcard::from_bytes::<AudioCodec>(&bytes).unwrap(), codec);
    }
}
