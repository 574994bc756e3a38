//! Parser of session descriptions, line by line.

use std::net::IpAddr;

use super::super::endpoint::Endpoint;
use super::{
    CANDIDATES_MAX, Direction, Encryption, FMTP_BYTES_MAX, FORMATS_MAX, Format, MEDIA_MAX, Media, MediaKind,
    NAME_BYTES_MAX, SSRCS_MAX, Sdp, SdpError, static_format,
};

/// Reads a session description. Lines may be in any order, end with CR LF or LF, and be missing; but an attribute after
/// a media line belongs to that media line.
pub(crate) fn parse(bytes: &[u8]) -> Result<Sdp, SdpError> {
    let mut parser = Parser::default();
    for line in bytes.split(|&byte| byte == b'\n') {
        if let Some((&[kind, b'='], value)) = line.split_at_checked(2) {
            parser.read_line(kind, value.trim_ascii());
        }
    }
    if !parser.has_version && parser.sdp.media.is_empty() {
        return Err(SdpError::NotSdp);
    }
    Ok(parser.sdp)
}

/// What session-level attributes set for all media.
#[derive(Default)]
struct Defaults {
    direction: Direction,
    encryption: Encryption,
    is_rtcp_mux: bool,
    ptime_ms: Option<u16>,
}

#[derive(Default)]
struct Parser {
    sdp: Sdp,
    defaults: Defaults,
    has_version: bool,
    /// The current media line is over the limit, so its attributes are skipped.
    is_skipping: bool,
    /// Index in the current media line's formats plus one, by payload type. Spares a search for each `rtpmap`.
    positions: Vec<u8>,
}

impl Parser {
    fn read_line(&mut self, kind: u8, value: &[u8]) {
        match kind {
            b'v' => self.has_version = true,
            b'm' => self.read_media(value),
            _ if self.is_skipping => {}
            b'c' => self.read_connection(value),
            b'a' => self.read_attribute(value),
            _ => {}
        }
    }

    /// `audio 49170/2 RTP/AVP 8 0 101`.
    fn read_media(&mut self, value: &[u8]) {
        self.is_skipping = self.sdp.media.len() >= MEDIA_MAX;
        if self.is_skipping {
            self.sdp.media_omitted = self.sdp.media_omitted.saturating_add(1);
            return;
        }
        let mut words = words(value);
        let kind = MediaKind::parse(words.next().unwrap_or_default());
        let (port, port_count) = parse_ports(words.next().unwrap_or_default());
        let protocol = self.text(words.next().unwrap_or_default(), NAME_BYTES_MAX);
        let is_secure = protocol.contains("SAVP");
        let encryption = match self.defaults.encryption {
            Encryption::None if is_secure => Encryption::Unknown,
            encryption => encryption,
        };
        let mut media = Media {
            kind,
            port,
            port_count,
            protocol,
            formats: Vec::new(),
            connection: self.sdp.connection,
            direction: self.defaults.direction,
            ptime_ms: self.defaults.ptime_ms,
            rtcp_port: None,
            rtcp_address: None,
            is_rtcp_mux: self.defaults.is_rtcp_mux,
            encryption,
            candidates: Vec::new(),
            ssrcs: Vec::new(),
        };
        self.positions.clear();
        self.positions.resize(128, 0);
        if media.is_rtp() {
            self.read_formats(&mut media, words);
        }
        self.sdp.media.push(media);
    }

    fn read_formats<'a>(&mut self, media: &mut Media, words: impl Iterator<Item = &'a [u8]>) {
        for word in words {
            let Some(payload_type) = parse_number::<u8>(word) else { continue };
            let Some(position) = self.positions.get_mut(usize::from(payload_type)).filter(|at| **at == 0)
            else {
                continue;
            };
            if media.formats.len() >= FORMATS_MAX {
                self.sdp.formats_omitted = self.sdp.formats_omitted.saturating_add(1);
                continue;
            }
            let (name, clock_hz, channels) = static_format(payload_type).unwrap_or(("", 0, 1));
            media.formats.push(Format {
                payload_type,
                name: name.into(),
                clock_hz,
                channels,
                parameters: None,
            });
            *position = u8::try_from(media.formats.len()).unwrap_or(0);
        }
    }

    /// `IN IP4 192.0.2.1/127`: the address, without the TTL of multicast.
    fn read_connection(&mut self, value: &[u8]) {
        let address = words(value).nth(2).and_then(parse_ip);
        match self.sdp.media.last_mut() {
            Some(media) => media.connection = address,
            None => self.sdp.connection = address,
        }
    }

    fn read_attribute(&mut self, value: &[u8]) {
        let (name, value) = match memchr::memchr(b':', value).and_then(|at| value.split_at_checked(at)) {
            Some((name, value)) => (name, value.get(1..).unwrap_or_default().trim_ascii()),
            None => (value, &[][..]),
        };
        match name {
            b"sendrecv" => self.set_direction(Direction::SendReceive),
            b"sendonly" => self.set_direction(Direction::SendOnly),
            b"recvonly" => self.set_direction(Direction::ReceiveOnly),
            b"inactive" => self.set_direction(Direction::Inactive),
            b"crypto" => self.set_encryption(Encryption::Sdes),
            b"fingerprint" => self.set_encryption(Encryption::Dtls),
            b"rtcp-mux" | b"rtcp-mux-only" => self.set_rtcp_mux(),
            b"ptime" => self.set_ptime(value),
            b"rtpmap" => self.read_rtpmap(value),
            b"fmtp" => self.read_fmtp(value),
            b"rtcp" => self.read_rtcp(value),
            b"candidate" => self.read_candidate(value),
            b"ssrc" => self.read_ssrc(value),
            _ => {}
        }
    }

    fn set_direction(&mut self, direction: Direction) {
        let field = self.sdp.media.last_mut().map(|media| &mut media.direction);
        *field.unwrap_or(&mut self.defaults.direction) = direction;
    }

    /// A description may offer keys of both kinds (RFC 5763 section 6.11, OSRTP); the first one counts.
    fn set_encryption(&mut self, encryption: Encryption) {
        let field = self.sdp.media.last_mut().map(|media| &mut media.encryption);
        let field = field.unwrap_or(&mut self.defaults.encryption);
        if matches!(field, Encryption::None | Encryption::Unknown) {
            *field = encryption;
        }
    }

    fn set_rtcp_mux(&mut self) {
        let field = self.sdp.media.last_mut().map(|media| &mut media.is_rtcp_mux);
        *field.unwrap_or(&mut self.defaults.is_rtcp_mux) = true;
    }

    fn set_ptime(&mut self, value: &[u8]) {
        let field = self.sdp.media.last_mut().map(|media| &mut media.ptime_ms);
        *field.unwrap_or(&mut self.defaults.ptime_ms) = parse_number(value);
    }

    /// Format of the current media line that an attribute value names, and the rest of the value.
    fn format_mut<'a>(&mut self, value: &'a [u8]) -> Option<(&mut Format, &'a [u8])> {
        let (payload_type, rest) = split_word(value);
        let position = self.positions.get(usize::from(parse_number::<u8>(payload_type)?))?;
        let index = usize::from(*position).checked_sub(1)?;
        Some((self.sdp.media.last_mut()?.formats.get_mut(index)?, rest))
    }

    /// `96 opus/48000/2` (RFC 8866 section 6.6).
    fn read_rtpmap(&mut self, value: &[u8]) {
        let (name, tail) = split_at(split_word(value).1, b'/');
        let (clock, channels) = split_at(tail, b'/');
        let name = self.text(name, NAME_BYTES_MAX);
        if let Some((format, _)) = self.format_mut(value).filter(|_| !name.is_empty()) {
            format.name = name;
            format.clock_hz = parse_number(clock).unwrap_or(0);
            format.channels = parse_number(channels).unwrap_or(1);
        }
    }

    /// `101 0-16`.
    fn read_fmtp(&mut self, value: &[u8]) {
        let parameters = self.text(split_word(value).1, FMTP_BYTES_MAX);
        if let Some((format, _)) = self.format_mut(value) {
            format.parameters = Some(parameters);
        }
    }

    /// `53020 IN IP4 192.0.2.1`, the address is optional (RFC 3605).
    fn read_rtcp(&mut self, value: &[u8]) {
        let Some(media) = self.sdp.media.last_mut() else { return };
        let mut words = words(value);
        media.rtcp_port = words.next().and_then(parse_number);
        media.rtcp_address = words.nth(2).and_then(parse_ip);
    }

    /// `1 1 UDP 2130706431 192.0.2.1 5000 typ host` (RFC 8839 section 5.1). Components 1 (RTP) of UDP are kept.
    fn read_candidate(&mut self, value: &[u8]) {
        let Some(media) = self.sdp.media.last_mut() else { return };
        let mut words = words(value).skip(1);
        let (component, transport) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let ip = words.nth(1).and_then(parse_ip);
        let port = words.next().and_then(parse_number);
        let (Some(ip), Some(port)) = (ip, port) else { return };
        let endpoint = Endpoint { ip, port };
        if component != b"1"
            || !transport.eq_ignore_ascii_case(b"UDP")
            || media.candidates.contains(&endpoint)
        {
            return;
        }
        if media.candidates.len() < CANDIDATES_MAX {
            media.candidates.push(endpoint);
        } else {
            self.sdp.candidates_omitted = self.sdp.candidates_omitted.saturating_add(1);
        }
    }

    /// `2345 cname:user@example.com` (RFC 5576). A source has one line per attribute.
    fn read_ssrc(&mut self, value: &[u8]) {
        let Some(media) = self.sdp.media.last_mut() else { return };
        let Some(ssrc) = parse_number(split_word(value).0) else { return };
        if media.ssrcs.contains(&ssrc) {
            return;
        }
        if media.ssrcs.len() < SSRCS_MAX {
            media.ssrcs.push(ssrc);
        } else {
            self.sdp.ssrcs_omitted = self.sdp.ssrcs_omitted.saturating_add(1);
        }
    }

    fn text(&mut self, bytes: &[u8], bytes_max: usize) -> Box<str> {
        let bytes = bytes.trim_ascii();
        let kept = bytes.get(..bytes_max).unwrap_or(bytes);
        if kept.len() < bytes.len() {
            self.sdp.texts_cut = self.sdp.texts_cut.saturating_add(1);
        }
        String::from_utf8_lossy(kept).into()
    }
}

impl MediaKind {
    fn parse(name: &[u8]) -> MediaKind {
        match name {
            b"audio" => MediaKind::Audio,
            b"video" => MediaKind::Video,
            b"image" => MediaKind::Image,
            b"application" => MediaKind::Application,
            b"message" => MediaKind::Message,
            _ => MediaKind::Other,
        }
    }
}

/// `49170` or `49170/2`.
fn parse_ports(word: &[u8]) -> (u16, u16) {
    let (port, count) = split_at(word, b'/');
    (parse_number(port).unwrap_or(0), parse_number(count).unwrap_or(1).max(1))
}

fn parse_number<T: std::str::FromStr>(word: &[u8]) -> Option<T> {
    str::from_utf8(word).ok()?.trim().parse().ok()
}

fn parse_ip(word: &[u8]) -> Option<IpAddr> {
    parse_number(split_at(word, b'/').0)
}

fn words(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty())
}

fn split_word(value: &[u8]) -> (&[u8], &[u8]) {
    split_at(value, b' ')
}

/// Parts before and after the first `separator`. The second one is empty if there is none.
fn split_at(value: &[u8], separator: u8) -> (&[u8], &[u8]) {
    match memchr::memchr(separator, value).and_then(|at| value.split_at_checked(at)) {
        Some((head, tail)) => (head, tail.get(1..).unwrap_or_default()),
        None => (value, &[]),
    }
}
