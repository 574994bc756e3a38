//! Payloads of codecs that are not decoded, as files that ffmpeg reads.

use super::amr::{self, AmrKind};

const GSM_FRAME_BYTES: usize = 33;
const G729_FRAME_BYTES: usize = 10;

/// Form of a file of codec frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RawFormat {
    G729,
    /// GSM full rate (RFC 3551 section 4.5.8).
    Gsm,
    G7231,
    Amr {
        is_octet_aligned: bool,
    },
    AmrWb {
        is_octet_aligned: bool,
    },
    /// Frames of 20 or 30 ms (RFC 3952).
    Ilbc {
        ms: u8,
    },
    G726 {
        /// 2 to 5.
        bits_per_sample: u8,
        /// As in RTP (RFC 3551 section 4.5.4): the first sample in the least significant bits. Otherwise as in AAL2.
        /// Some senders, such as baresip, use the order of AAL2 under the names of RTP; SDP does not tell.
        is_little_endian: bool,
    },
}

impl RawFormat {
    /// Returns the form for an `a=rtpmap` name with the parameters of its `a=fmtp`. `None` if there is none.
    pub(crate) fn from_sdp(name: &str, parameters: &str) -> Option<RawFormat> {
        let parameter = |key: &str| {
            let pairs = parameters.split(';').filter_map(|pair| pair.split_once('='));
            pairs
                .map(|(k, v)| (k.trim(), v.trim()))
                .find(|(k, _)| k.eq_ignore_ascii_case(key))
                .map(|(_, value)| value)
        };
        let is_octet_aligned = parameter("octet-align") == Some("1");
        let g726 = |rate: &str, is_little_endian| {
            let bits_per_sample = match rate {
                "16" => 2,
                "24" => 3,
                "32" => 4,
                "40" => 5,
                _ => return None,
            };
            Some(RawFormat::G726 { bits_per_sample, is_little_endian })
        };
        let name = name.to_ascii_uppercase();
        match name.as_str() {
            "G729" => Some(RawFormat::G729),
            "GSM" => Some(RawFormat::Gsm),
            "G723" => Some(RawFormat::G7231),
            "AMR" => Some(RawFormat::Amr { is_octet_aligned }),
            "AMR-WB" => Some(RawFormat::AmrWb { is_octet_aligned }),
            "ILBC" => Some(RawFormat::Ilbc { ms: if parameter("mode") == Some("20") { 20 } else { 30 } }),
            other => match (other.strip_prefix("G726-"), other.strip_prefix("AAL2-G726-")) {
                (Some(rate), _) => g726(rate, true),
                (_, Some(rate)) => g726(rate, false),
                _ => None,
            },
        }
    }

    /// Extension of the file name.
    pub(crate) fn extension(self) -> &'static str {
        match self {
            RawFormat::G729 => "g729",
            RawFormat::Gsm => "gsm",
            RawFormat::G7231 => "g723_1",
            RawFormat::Amr { .. } => "amr",
            RawFormat::AmrWb { .. } => "awb",
            RawFormat::Ilbc { .. } => "ilbc",
            RawFormat::G726 { is_little_endian: true, .. } => "g726le",
            RawFormat::G726 { .. } => "g726",
        }
    }

    /// Options that ffmpeg needs before `-i FILE`.
    pub(crate) fn ffmpeg_options(self) -> String {
        match self {
            RawFormat::G726 { bits_per_sample, is_little_endian } => {
                let format = if is_little_endian { "g726le" } else { "g726" };
                format!("-f {format} -code_size {bits_per_sample}")
            }
            RawFormat::G729 => "-f g729".to_owned(),
            RawFormat::Gsm => "-f gsm".to_owned(),
            RawFormat::G7231 => "-f g723_1".to_owned(),
            RawFormat::Amr { .. } | RawFormat::AmrWb { .. } | RawFormat::Ilbc { .. } => String::new(),
        }
    }

    /// First bytes of the file.
    pub(crate) fn header(self) -> &'static [u8] {
        match self {
            RawFormat::Amr { .. } => AmrKind::Narrowband.file_header(),
            RawFormat::AmrWb { .. } => AmrKind::Wideband.file_header(),
            RawFormat::Ilbc { ms: 20 } => b"#!iLBC20\n",
            RawFormat::Ilbc { .. } => b"#!iLBC30\n",
            _ => b"",
        }
    }

    /// Appends the frames of a payload. Returns `None`, and appends nothing, if it is malformed.
    pub(crate) fn append(self, payload: &[u8], file: &mut Vec<u8>) -> Option<()> {
        let frames = match self {
            RawFormat::Amr { is_octet_aligned } => {
                return amr::append_frames(AmrKind::Narrowband, is_octet_aligned, payload, file).map(|_| ());
            }
            RawFormat::AmrWb { is_octet_aligned } => {
                return amr::append_frames(AmrKind::Wideband, is_octet_aligned, payload, file).map(|_| ());
            }
            RawFormat::Gsm => whole_frames(payload, GSM_FRAME_BYTES)?,
            RawFormat::Ilbc { ms } => whole_frames(payload, if ms == 20 { 38 } else { 50 })?,
            // A frame of comfort noise (annex B, 2 bytes) may end the payload. ffmpeg does not know it.
            RawFormat::G729 => match payload.len() % G729_FRAME_BYTES {
                0 | 2 => payload.get(..payload.len() / G729_FRAME_BYTES * G729_FRAME_BYTES)?,
                _ => return None,
            },
            RawFormat::G7231 => g7231_frames(payload)?,
            RawFormat::G726 { .. } => payload,
        };
        file.extend_from_slice(frames);
        Some(())
    }
}

fn whole_frames(payload: &[u8], frame_bytes: usize) -> Option<&[u8]> {
    payload.len().is_multiple_of(frame_bytes).then_some(payload)
}

/// The length of each frame of G.723.1 is in the two lowest bits of its first byte (RFC 3551 section 4.5.3).
fn g7231_frames(payload: &[u8]) -> Option<&[u8]> {
    let mut rest = payload;
    while let Some(first) = rest.first() {
        let bytes = match first & 3 {
            0 => 24,
            1 => 20,
            2 => 4,
            _ => return None,
        };
        rest = rest.get(bytes..)?;
    }
    Some(payload)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn append(format: RawFormat, payload: &[u8]) -> Option<Vec<u8>> {
        let mut file = Vec::new();
        format.append(payload, &mut file).map(|()| file)
    }

    #[test]
    fn the_format_follows_from_the_sdp() {
        let cases = [
            ("G729", "annexb=no", Some(RawFormat::G729)),
            ("gsm", "", Some(RawFormat::Gsm)),
            ("AMR", "mode-set=0,2; octet-align=1", Some(RawFormat::Amr { is_octet_aligned: true })),
            ("AMR-WB", "octet-align=0", Some(RawFormat::AmrWb { is_octet_aligned: false })),
            ("iLBC", "mode=20", Some(RawFormat::Ilbc { ms: 20 })),
            ("iLBC", "", Some(RawFormat::Ilbc { ms: 30 })),
            ("G726-32", "", Some(RawFormat::G726 { bits_per_sample: 4, is_little_endian: true })),
            ("AAL2-G726-16", "", Some(RawFormat::G726 { bits_per_sample: 2, is_little_endian: false })),
            ("G726-99", "", None),
            ("opus", "", None),
        ];
        for (name, parameters, expected) in cases {
            assert_eq!(RawFormat::from_sdp(name, parameters), expected, "{name}");
        }
    }

    #[test]
    fn payloads_of_whole_frames_are_kept() {
        assert_eq!(append(RawFormat::Gsm, &[0xd0; 66]), Some(vec![0xd0; 66]));
        assert_eq!(append(RawFormat::Gsm, &[0xd0; 65]), None);
        assert_eq!(append(RawFormat::Ilbc { ms: 20 }, &[1; 76]), Some(vec![1; 76]));
        assert_eq!(append(RawFormat::Ilbc { ms: 30 }, &[1; 76]), None);
        assert_eq!(append(RawFormat::G729, &[1; 22]), Some(vec![1; 20]));
        assert_eq!(append(RawFormat::G729, &[1; 25]), None);
        let mut mixed = vec![0; 24];
        mixed.extend([1; 20]);
        mixed.extend([2; 4]);
        assert_eq!(append(RawFormat::G7231, &mixed), Some(mixed.clone()));
        assert_eq!(append(RawFormat::G7231, &mixed[..47]), None);
        assert_eq!(append(RawFormat::G7231, &[3; 24]), None);
    }

    #[test]
    fn the_magic_number_is_that_of_the_format() {
        assert_eq!(RawFormat::Amr { is_octet_aligned: true }.header(), b"#!AMR\n");
        assert_eq!(RawFormat::AmrWb { is_octet_aligned: true }.header(), b"#!AMR-WB\n");
        assert_eq!(RawFormat::Ilbc { ms: 20 }.header(), b"#!iLBC20\n");
        assert_eq!(RawFormat::Gsm.header(), b"");
    }
}
