//! Bodies: SDP, DTMF of INFO, SIPREC metadata, and multipart bodies that have them.

use memchr::memmem;

use super::header::{Header, HeaderLines};
use super::message::Message;
use super::value::{Params, number, split_at_byte};

/// Most parts of a multipart body that are looked at. SIPREC has two, ISUP gateways three. Those after it are counted
/// in [`Content::parts_omitted`].
pub(crate) const PARTS_MAX: u32 = 16;

/// Nesting of multipart bodies: one inside another. Nobody nests deeper, and each level reads the body again.
const DEPTH_MAX: u32 = 2;

/// What a body has for the analysis of a call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Content<'a> {
    /// First session description (`application/sdp`).
    pub sdp: Option<&'a [u8]>,
    /// Digit of `application/dtmf-relay` or `application/dtmf`.
    pub dtmf: Option<DtmfSignal>,
    /// `application/rs-metadata+xml` is present (RFC 7865): the session is a recording of another one.
    pub is_siprec: bool,
    /// The body has a Content-Encoding, so it was not read.
    pub is_encoded: bool,
    /// Parts over [`PARTS_MAX`], and multipart bodies nested too deeply.
    pub parts_omitted: u32,
}

/// DTMF digit of a SIP INFO.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DtmfSignal {
    /// `0` to `9`, `*`, `#`, `A` to `D`, or `!` for hook flash.
    pub digit: char,
    /// 0 if it is not given.
    pub duration_ms: u32,
}

impl<'a> Message<'a> {
    /// Reads the body. A body without Content-Type that begins like SDP is SDP.
    pub(crate) fn content(&self) -> Content<'a> {
        let mut content = Content::default();
        if self.body.is_empty() {
            return content;
        }
        if !is_identity(self.content_encoding) {
            content.is_encoded = true;
        } else if self.content_type.is_empty() && self.body.starts_with(b"v=0") {
            content.sdp = Some(self.body);
        } else {
            content.read(self.content_type, self.body, DEPTH_MAX);
        }
        content
    }
}

impl<'a> Content<'a> {
    fn read(&mut self, content_type: &'a [u8], body: &'a [u8], depth: u32) {
        let (media_type, params) = split_at_byte(content_type, b';');
        let (kind, subtype) = split_at_byte(media_type, b'/');
        let (kind, subtype) = (kind.trim_ascii(), subtype.unwrap_or_default().trim_ascii());
        if kind.eq_ignore_ascii_case(b"multipart") {
            let boundary = Params::new(params.unwrap_or_default()).get(b"boundary");
            self.read_parts(boundary.unwrap_or_default(), body, depth);
        } else if kind.eq_ignore_ascii_case(b"application") {
            self.read_application(subtype, body);
        }
    }

    fn read_application(&mut self, subtype: &[u8], body: &'a [u8]) {
        if subtype.eq_ignore_ascii_case(b"sdp") {
            self.sdp = self.sdp.or(Some(body));
        } else if subtype.eq_ignore_ascii_case(b"dtmf-relay") {
            self.dtmf = self.dtmf.or_else(|| DtmfSignal::parse_relay(body));
        } else if subtype.eq_ignore_ascii_case(b"dtmf") {
            self.dtmf = self.dtmf.or_else(|| DtmfSignal::new(body, 0));
        } else if subtype.eq_ignore_ascii_case(b"rs-metadata+xml") {
            self.is_siprec = true;
        }
    }

    /// RFC 2046 section 5.1.1. Without a boundary, or if it does not occur, there are no parts.
    fn read_parts(&mut self, boundary: &[u8], body: &'a [u8], depth: u32) {
        let Some(depth) = depth.checked_sub(1).filter(|_| !boundary.is_empty()) else {
            self.parts_omitted = self.parts_omitted.saturating_add(1);
            return;
        };
        let delimiter = [b"--", boundary].concat();
        let mut count = 0_u32;
        let mut part_start = None;
        for at in memmem::find_iter(body, &delimiter) {
            // A longer boundary that begins with this one belongs to a nested body.
            let is_line_start = at == 0 || body.get(at - 1) == Some(&b'\n');
            let next = body.get(at + delimiter.len());
            if !is_line_start || !matches!(next, None | Some(b'-' | b' ' | b'\t' | b'\r' | b'\n')) {
                continue;
            }
            if let Some(part) = part_start.and_then(|start| body.get(start..at)) {
                count = count.saturating_add(1);
                self.read_part_if_allowed(part, count, depth);
            }
            part_start = Some(at + delimiter.len());
        }
        // A truncated body has no closing delimiter.
        let last = part_start.and_then(|start| body.get(start..)).filter(|last| !last.starts_with(b"--"));
        if let Some(part) = last {
            self.read_part_if_allowed(part, count.saturating_add(1), depth);
        }
    }

    fn read_part_if_allowed(&mut self, part: &'a [u8], count: u32, depth: u32) {
        if count > PARTS_MAX {
            self.parts_omitted = self.parts_omitted.saturating_add(1);
        } else {
            self.read_part(part, depth);
        }
    }

    /// `part` begins after the boundary and ends at the next delimiter; the line end before the delimiter belongs to
    /// the delimiter.
    fn read_part(&mut self, part: &'a [u8], depth: u32) {
        let part = split_at_byte(part, b'\n').1.unwrap_or_default();
        let mut content_type = &[][..];
        let mut encoding = &[][..];
        let mut lines = HeaderLines::new(part);
        for (name, value) in lines.by_ref() {
            match Header::from_name(name) {
                Header::ContentType => content_type = value,
                Header::ContentEncoding => encoding = value,
                _ => {}
            }
        }
        let (Some(body), _) = lines.finish() else { return };
        let body = body.strip_suffix(b"\n").unwrap_or(body);
        let body = body.strip_suffix(b"\r").unwrap_or(body);
        if is_identity(encoding) {
            self.read(content_type, body, depth);
        } else {
            self.is_encoded = true;
        }
    }
}

fn is_identity(encoding: &[u8]) -> bool {
    encoding.is_empty() || encoding.eq_ignore_ascii_case(b"identity")
}

impl DtmfSignal {
    /// `Signal=5` and `Duration=160` on lines of their own, in any case and order, with blanks.
    fn parse_relay(body: &[u8]) -> Option<DtmfSignal> {
        let mut signal = None;
        let mut duration_ms = 0;
        for line in body.split(|&byte| byte == b'\n') {
            let (name, value) = split_at_byte(line, b'=');
            let Some(value) = value else { continue };
            let name = name.trim_ascii();
            if name.eq_ignore_ascii_case(b"signal") {
                signal = signal.or(Some(value));
            } else if name.eq_ignore_ascii_case(b"duration") {
                duration_ms = number(value).unwrap_or(0);
            }
        }
        DtmfSignal::new(signal?, duration_ms)
    }

    /// A digit, or an event number of RFC 4733 section 3.2: 10 `*`, 11 `#`, 12 to 15 `A` to `D`, 16 flash.
    fn new(signal: &[u8], duration_ms: u32) -> Option<DtmfSignal> {
        let digit = match signal.trim_ascii() {
            [digit @ (b'0'..=b'9' | b'*' | b'#' | b'A'..=b'D' | b'a'..=b'd' | b'!')] => {
                char::from(digit.to_ascii_uppercase())
            }
            b"10" => '*',
            b"11" => '#',
            b"12" => 'A',
            b"13" => 'B',
            b"14" => 'C',
            b"15" => 'D',
            b"16" => '!',
            _ => return None,
        };
        Some(DtmfSignal { digit, duration_ms })
    }
}
