//! SIP message: start line, headers that matter to an analyst, body.

use super::address::Address;
use super::header::{Header, HeaderLines, split_line};
use super::method::Method;
#[cfg(test)]
use super::uri::Uri;
use super::value::{number, split_at_byte};
use super::via::Via;
use super::{MESSAGE_BYTES_MAX, VALUE_BYTES_MAX};

/// Why bytes are not a SIP message that can be assigned to anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SipError {
    #[error("message is longer than {MESSAGE_BYTES_MAX} bytes")]
    TooLong,
    /// Neither `METHOD URI SIP/2.0` nor `SIP/2.0 CODE REASON`. Includes other versions and codes that are not 100 to
    /// 699.
    #[error("start line is not SIP/2.0")]
    NoStartLine,
    #[error("header Call-ID is missing or empty")]
    NoCallId,
    /// Only in responses: they have the method nowhere else.
    #[error("header CSeq is missing or has no method")]
    NoCSeq,
}

/// First line of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StartLine<'a> {
    /// Method as on the wire, and request URI.
    Request { method: &'a [u8], uri: &'a [u8] },
    /// Status code 100 to 699, and reason phrase.
    Response { code: u16, reason: &'a [u8] },
}

/// CSeq (RFC 3261 section 20.16).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct CSeq<'a> {
    /// `u32::MAX` if it does not fit, 0 if it is missing.
    pub number: u32,
    /// Method as on the wire. In a request, that of the request line.
    pub method: &'a [u8],
}

/// SIP message. All slices are parts of the message and keep their line folding; those of headers that are missing are
/// empty. If a header with one value occurs several times, the first one counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message<'a> {
    pub start: StartLine<'a>,
    pub call_id: &'a [u8],
    pub from: Address<'a>,
    pub to: Address<'a>,
    /// Topmost Via value.
    pub via: Via<'a>,
    pub cseq: CSeq<'a>,
    /// Raw value: `*`, or a list of addresses.
    pub contact: &'a [u8],
    /// User-Agent, else Server.
    pub agent: &'a [u8],
    server: &'a [u8],
    pub content_type: &'a [u8],
    pub content_encoding: &'a [u8],
    /// `None` if it is missing or not a number.
    pub content_length: Option<u32>,
    pub rack: &'a [u8],
    pub replaces: &'a [u8],
    pub refer_to: &'a [u8],
    pub asserted_identity: &'a [u8],
    pub remote_party_id: &'a [u8],
    pub reason: &'a [u8],
    /// Diversion or History-Info is present.
    pub has_diversion: bool,
    /// `100rel` is in Require (RFC 3262).
    pub requires_100rel: bool,
    /// `100rel` is in Supported.
    pub supports_100rel: bool,
    /// Bytes after the empty line, as many as Content-Length says. All of them if it is missing.
    pub body: &'a [u8],
    /// The body is shorter than Content-Length says, or the headers have no end.
    pub is_truncated: bool,
    /// Header lines over [`super::HEADER_LINES_MAX`].
    pub lines_omitted: usize,
    /// Values over [`VALUE_BYTES_MAX`].
    pub values_cut: u32,
    /// Bytes from the start of the input to the end of the body.
    pub size: usize,
}

impl<'a> Message<'a> {
    /// Reads a message. Empty lines before it are skipped (RFC 3261 section 7.5). Bytes after its body are ignored.
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Message<'a>, SipError> {
        if bytes.len() > MESSAGE_BYTES_MAX {
            return Err(SipError::TooLong);
        }
        let blank = bytes.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
        let (line, rest) = bytes.get(blank..).and_then(split_line).ok_or(SipError::NoStartLine)?;
        let mut message = Message::new(StartLine::parse(line)?);
        let mut lines = HeaderLines::new(rest);
        for (name, value) in lines.by_ref() {
            message.set(Header::from_name(name), value);
        }
        let (body, lines_omitted) = lines.finish();
        message.lines_omitted = lines_omitted;
        if message.agent.is_empty() {
            message.agent = message.server;
        }
        message.set_body(bytes.len(), body);
        message.check()
    }

    fn new(start: StartLine<'a>) -> Message<'a> {
        Message {
            start,
            call_id: &[],
            from: Address::default(),
            to: Address::default(),
            via: Via::default(),
            cseq: CSeq::default(),
            contact: &[],
            agent: &[],
            server: &[],
            content_type: &[],
            content_encoding: &[],
            content_length: None,
            rack: &[],
            replaces: &[],
            refer_to: &[],
            asserted_identity: &[],
            remote_party_id: &[],
            reason: &[],
            has_diversion: false,
            requires_100rel: false,
            supports_100rel: false,
            body: &[],
            is_truncated: false,
            lines_omitted: 0,
            values_cut: 0,
            size: 0,
        }
    }

    /// Takes a header. The first one with a value counts.
    fn set(&mut self, header: Header, value: &'a [u8]) {
        let field = match header {
            Header::CallId => &mut self.call_id,
            Header::Contact => &mut self.contact,
            Header::UserAgent => &mut self.agent,
            Header::Server => &mut self.server,
            Header::ContentType => &mut self.content_type,
            Header::ContentEncoding => &mut self.content_encoding,
            Header::RAck => &mut self.rack,
            Header::Replaces => &mut self.replaces,
            Header::ReferTo => &mut self.refer_to,
            Header::AssertedIdentity => &mut self.asserted_identity,
            Header::RemotePartyId => &mut self.remote_party_id,
            Header::Reason => &mut self.reason,
            Header::Other => return,
            _ => return self.set_parsed(header, value),
        };
        if field.is_empty() {
            *field = value;
        }
    }

    /// Takes a header that is not kept as it is.
    fn set_parsed(&mut self, header: Header, value: &'a [u8]) {
        match header {
            Header::From if self.from.is_empty() => self.from = Address::parse(self.limit(value)),
            Header::To if self.to.is_empty() => self.to = Address::parse(self.limit(value)),
            Header::Via if self.via.is_empty() => self.via = Via::parse(self.limit(value)),
            Header::CSeq if self.cseq.method.is_empty() => self.cseq = CSeq::parse(value),
            Header::ContentLength => self.content_length = self.content_length.or_else(|| number(value)),
            Header::Diversion | Header::HistoryInfo => self.has_diversion = true,
            Header::Require => self.requires_100rel |= has_token(value, b"100rel"),
            Header::Supported => self.supports_100rel |= has_token(value, b"100rel"),
            _ => {}
        }
    }

    fn limit(&mut self, value: &'a [u8]) -> &'a [u8] {
        match value.get(..VALUE_BYTES_MAX) {
            Some(kept) if kept.len() < value.len() => {
                self.values_cut = self.values_cut.saturating_add(1);
                kept
            }
            _ => value,
        }
    }

    fn set_body(&mut self, input_len: usize, body: Option<&'a [u8]>) {
        let available = body.unwrap_or_default();
        let wanted = self.content_length.map(|len| usize::try_from(len).unwrap_or(usize::MAX));
        let len = wanted.unwrap_or(available.len()).min(available.len());
        self.body = available.get(..len).unwrap_or(available);
        self.is_truncated = body.is_none() || wanted.is_some_and(|wanted| wanted > available.len());
        self.size = input_len - (available.len() - len);
    }

    fn check(mut self) -> Result<Message<'a>, SipError> {
        if self.call_id.is_empty() {
            return Err(SipError::NoCallId);
        }
        match self.start {
            StartLine::Request { method, .. } => self.cseq.method = method,
            StartLine::Response { .. } if self.cseq.method.is_empty() => return Err(SipError::NoCSeq),
            StartLine::Response { .. } => {}
        }
        Ok(self)
    }

    /// Returns whether a limit cut something off.
    pub(crate) fn is_cut(&self) -> bool {
        self.lines_omitted > 0 || self.values_cut > 0
    }

    /// Method of the request, or of the request that is answered.
    pub(crate) fn method(&self) -> Method {
        Method::parse(self.cseq.method)
    }

    /// Status code of a response.
    pub(crate) fn code(&self) -> Option<u16> {
        match self.start {
            StartLine::Response { code, .. } => Some(code),
            StartLine::Request { .. } => None,
        }
    }

    #[cfg(test)]
    pub(crate) fn request_uri(&self) -> Option<Uri<'a>> {
        match self.start {
            StartLine::Request { uri, .. } => Some(Uri::parse(uri)),
            StartLine::Response { .. } => None,
        }
    }
}

impl<'a> StartLine<'a> {
    fn parse(line: &'a [u8]) -> Result<StartLine<'a>, SipError> {
        let line = line.trim_ascii();
        let start = match strip_version(line) {
            Some(rest) => StartLine::parse_response(rest),
            None => StartLine::parse_request(line),
        };
        start.ok_or(SipError::NoStartLine)
    }

    /// `200 OK` after the version. Some senders leave the reason out, with its blank.
    fn parse_response(rest: &'a [u8]) -> Option<StartLine<'a>> {
        let rest = rest.strip_prefix(b" ")?.trim_ascii();
        let (code, reason) = split_at_byte(rest, b' ');
        let code = match code {
            [b'1'..=b'6', b'0'..=b'9', b'0'..=b'9'] => u16::try_from(number(code)?).ok()?,
            _ => return None,
        };
        Some(StartLine::Response { code, reason: reason.unwrap_or_default().trim_ascii() })
    }

    /// `INVITE sip:user@example.com SIP/2.0`, with any number of blanks, and blanks in the URI (RFC 4475 section
    /// 3.1.2.8 and 3.1.2.9).
    fn parse_request(line: &'a [u8]) -> Option<StartLine<'a>> {
        let (method, rest) = line.split_at_checked(line.iter().position(|&byte| byte == b' ')?)?;
        let rest = rest.trim_ascii();
        let uri_len = rest.len().checked_sub(VERSION.len())?;
        let (uri, version) = rest.split_at_checked(uri_len)?;
        let is_valid = version.eq_ignore_ascii_case(VERSION) && uri.ends_with(b" ") && is_token(method);
        is_valid.then(|| StartLine::Request { method, uri: uri.trim_ascii() })
    }
}

const VERSION: &[u8] = b"SIP/2.0";

fn strip_version(line: &[u8]) -> Option<&[u8]> {
    let (version, rest) = line.split_at_checked(VERSION.len())?;
    version.eq_ignore_ascii_case(VERSION).then_some(rest)
}

/// `token` of RFC 3261 section 25.1.
fn is_token(bytes: &[u8]) -> bool {
    let is_token_byte = |byte: &u8| byte.is_ascii_alphanumeric() || b"-.!%*_+`'~".contains(byte);
    !bytes.is_empty() && bytes.iter().all(is_token_byte)
}

/// Returns whether a packet begins like a SIP message. Cheap, for the classification of packets.
#[cfg(test)]
pub(crate) fn is_start_line(bytes: &[u8]) -> bool {
    let blank = bytes.iter().take(64).take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
    let Some(bytes) = bytes.get(blank..) else { return false };
    if strip_version(bytes).is_some() {
        return true;
    }
    // The shortest method has 3 letters, the longest of the registry 9; extensions may be longer.
    let method_len = bytes.iter().take(64).position(|&byte| byte == b' ');
    let Some(method) = method_len.and_then(|len| bytes.get(..len)).filter(|method| is_token(method)) else {
        return false;
    };
    if !matches!(Method::parse(method), Method::Other) {
        return true;
    }
    split_line(bytes).is_some_and(|(line, _)| StartLine::parse(line).is_ok())
}

fn has_token(list: &[u8], token: &[u8]) -> bool {
    list.split(|&byte| byte == b',').any(|item| item.trim_ascii().eq_ignore_ascii_case(token))
}

impl<'a> CSeq<'a> {
    fn parse(value: &'a [u8]) -> CSeq<'a> {
        let len = value.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let method = value.get(len..).unwrap_or_default().trim_ascii();
        CSeq { number: number(value).unwrap_or(0), method }
    }
}
