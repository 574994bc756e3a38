//! Session descriptions (SDP, RFC 8866) as far as they say which media go where.
//!
//! The parser reads lines in any order and skips what it does not know. The result is owned and small: it is kept in
//! the state of a call.

mod parse;
mod payload_types;
#[cfg(test)]
mod tests;

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::endpoint::Endpoint;

pub(crate) use parse::parse;
pub(crate) use payload_types::static_format;

/// Most media lines of a description. Conferences have a few dozen. More are counted in [`Sdp::media_omitted`].
pub(crate) const MEDIA_MAX: usize = 64;

/// Most payload types of a media line: more than the 32 dynamic ones and those of the offers of real phones. More are
/// counted in [`Sdp::formats_omitted`].
pub(crate) const FORMATS_MAX: usize = 64;

/// Most ICE candidates of a media line. Browsers send up to 30. More are counted in [`Sdp::candidates_omitted`].
pub(crate) const CANDIDATES_MAX: usize = 64;

/// Most SSRCs of a media line. Browsers send two for each of up to three layers. More are counted in
/// [`Sdp::ssrcs_omitted`].
pub(crate) const SSRCS_MAX: usize = 16;

/// Most ports of one media line that [`Media::endpoints`] gives. Layered encodings use two or three; `m=audio 2/65535`
/// would name half of all ports.
pub(crate) const PORTS_MAX: u16 = 8;

/// Longest text in bytes that is kept of a codec name, a protocol or a host name.
pub(crate) const NAME_BYTES_MAX: usize = 64;

/// Longest `fmtp` in bytes. Those of video codecs with parameter sets reach some hundred.
pub(crate) const FMTP_BYTES_MAX: usize = 512;

/// Why bytes are not a session description.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SdpError {
    /// Neither a version line nor a media line.
    #[error("body has neither a v= nor an m= line")]
    NotSdp,
}

/// Session description.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sdp {
    /// `c=` of the session. Media lines without their own `c=` have it already.
    pub connection: Option<IpAddr>,
    pub media: Vec<Media>,
    pub media_omitted: u32,
    pub formats_omitted: u32,
    pub candidates_omitted: u32,
    pub ssrcs_omitted: u32,
    /// Texts that were cut to [`NAME_BYTES_MAX`] or [`FMTP_BYTES_MAX`].
    pub texts_cut: u32,
}

/// Media line with its attributes and those of the session that hold for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Media {
    pub kind: MediaKind,
    /// 0 if the stream is refused (RFC 3264 section 6).
    pub port: u16,
    /// Number of ports, as in `m=audio 49170/2`. Usually 1.
    pub port_count: u16,
    /// As in `RTP/AVP`.
    pub protocol: Box<str>,
    /// Formats of RTP in order of preference. Empty for other protocols.
    pub formats: Vec<Format>,
    /// Address where media are received. `None` if it is missing or a host name.
    pub connection: Option<IpAddr>,
    pub direction: Direction,
    pub ptime_ms: Option<u16>,
    /// `a=rtcp` (RFC 3605): port, and the address if it differs.
    pub rtcp_port: Option<u16>,
    pub rtcp_address: Option<IpAddr>,
    pub is_rtcp_mux: bool,
    pub encryption: Encryption,
    /// ICE candidates of UDP: other addresses that media may use.
    pub candidates: Vec<Endpoint>,
    pub ssrcs: Vec<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum MediaKind {
    Audio,
    Video,
    /// Fax (T.38).
    Image,
    Application,
    /// MSRP.
    Message,
    Other,
}

/// Payload type of RTP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Format {
    /// 0 to 127.
    pub payload_type: u8,
    /// As in `PCMA`. Empty if neither `rtpmap` nor RFC 3551 says it.
    pub name: Box<str>,
    /// RTP clock in hertz. 0 if unknown.
    pub clock_hz: u32,
    pub channels: u8,
    /// Parameters of `fmtp`.
    pub parameters: Option<Box<str>>,
}

/// Direction, as the sender of the description sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Direction {
    #[default]
    SendReceive,
    SendOnly,
    ReceiveOnly,
    Inactive,
}

/// How media are encrypted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Encryption {
    #[default]
    None,
    /// Keys in `a=crypto` (RFC 4568).
    Sdes,
    /// Keys by DTLS, `a=fingerprint` (RFC 5763).
    Dtls,
    /// The protocol is `SAVP`, but there is no key.
    Unknown,
}

impl Media {
    /// Returns whether the line uses RTP.
    pub(crate) fn is_rtp(&self) -> bool {
        self.protocol.contains("RTP/")
    }

    pub(crate) fn is_encrypted(&self) -> bool {
        self.encryption != Encryption::None
    }

    #[cfg(test)]
    pub(crate) fn is_refused(&self) -> bool {
        self.port == 0
    }

    /// Returns whether the sender put the other side on hold: by direction (RFC 3264 section 8.4), or by the address
    /// 0.0.0.0 (RFC 2543).
    #[cfg(test)]
    pub(crate) fn is_hold(&self) -> bool {
        let is_held_by_direction = matches!(self.direction, Direction::SendOnly | Direction::Inactive);
        is_held_by_direction || self.connection.is_some_and(|address| address.is_unspecified())
    }

    /// Addresses and ports where the sender of the description may receive RTP, without refused and held ones.
    pub(crate) fn endpoints(&self) -> impl Iterator<Item = Endpoint> + '_ {
        let last = self.port.saturating_add(self.port_count.clamp(1, PORTS_MAX).saturating_sub(1) * 2);
        let connection = self.connection.filter(|address| !address.is_unspecified() && self.port != 0);
        let ports = (self.port..=last).step_by(2);
        let own =
            connection.into_iter().flat_map(move |ip| ports.clone().map(move |port| Endpoint { ip, port }));
        own.chain(self.candidates.iter().copied())
    }

    /// Address and port where RTCP is received, if it does not share the port of RTP.
    #[cfg(test)]
    pub(crate) fn rtcp_endpoint(&self) -> Option<Endpoint> {
        let ip = self.rtcp_address.or(self.connection).filter(|address| !address.is_unspecified())?;
        let port = self.rtcp_port.or_else(|| self.port.checked_add(1).filter(|_| self.port != 0))?;
        (!self.is_rtcp_mux).then_some(Endpoint { ip, port })
    }

    #[cfg(test)]
    pub(crate) fn format(&self, payload_type: u8) -> Option<&Format> {
        self.formats.iter().find(|format| format.payload_type == payload_type)
    }
}

impl Sdp {
    /// Memory of the description in bytes, about.
    pub(crate) fn memory(&self) -> usize {
        let media = self.media.iter().map(|media| {
            let formats = media.formats.iter().map(|format| {
                size_of::<Format>()
                    + format.name.len()
                    + format.parameters.as_ref().map_or(0, |text| text.len())
            });
            let lists = media.candidates.len() * size_of::<Endpoint>() + media.ssrcs.len() * 4;
            size_of::<Media>() + media.protocol.len() + lists + formats.sum::<usize>()
        });
        size_of::<Sdp>() + media.sum::<usize>()
    }

    /// Returns whether a limit cut something off.
    pub(crate) fn is_cut(&self) -> bool {
        let counters = [
            self.media_omitted,
            self.formats_omitted,
            self.candidates_omitted,
            self.ssrcs_omitted,
            self.texts_cut,
        ];
        counters.iter().any(|&count| count > 0)
    }

    pub(crate) fn has_encryption(&self) -> bool {
        self.media.iter().any(Media::is_encrypted)
    }
}
