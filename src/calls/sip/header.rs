//! Header lines: their end, their folding and their names.

use memchr::memmem;

use super::HEADER_LINES_MAX;

/// Header fields that the scanner keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Header {
    CallId,
    From,
    To,
    Via,
    CSeq,
    Contact,
    UserAgent,
    Server,
    ContentType,
    ContentLength,
    ContentEncoding,
    RAck,
    Replaces,
    ReferTo,
    AssertedIdentity,
    RemotePartyId,
    Diversion,
    HistoryInfo,
    Reason,
    Require,
    Supported,
    Other,
}

impl Header {
    /// Header of a name in any case, or of its compact form (RFC 3261 section 7.3.3 and the IANA registry). Compact
    /// forms of headers that are not kept (a b d j n o s u x y) are `Other`.
    pub(super) fn from_name(name: &[u8]) -> Header {
        if let [letter] = name {
            return Header::from_compact(letter.to_ascii_lowercase());
        }
        let candidates: &[(&[u8], Header)] = match name.len() {
            2 => &[(b"To", Header::To)],
            3 => &[(b"Via", Header::Via)],
            4 => &[(b"From", Header::From), (b"CSeq", Header::CSeq), (b"RAck", Header::RAck)],
            6 => &[(b"Server", Header::Server), (b"Reason", Header::Reason)],
            7 => {
                &[(b"Call-ID", Header::CallId), (b"Contact", Header::Contact), (b"Require", Header::Require)]
            }
            8 => &[(b"Replaces", Header::Replaces), (b"Refer-To", Header::ReferTo)],
            9 => &[(b"Supported", Header::Supported), (b"Diversion", Header::Diversion)],
            10 => &[(b"User-Agent", Header::UserAgent)],
            12 => &[(b"Content-Type", Header::ContentType), (b"History-Info", Header::HistoryInfo)],
            14 => &[(b"Content-Length", Header::ContentLength)],
            15 => &[(b"Remote-Party-ID", Header::RemotePartyId)],
            16 => &[(b"Content-Encoding", Header::ContentEncoding)],
            19 => &[(b"P-Asserted-Identity", Header::AssertedIdentity)],
            _ => &[],
        };
        let found = candidates.iter().find(|(candidate, _)| candidate.eq_ignore_ascii_case(name));
        found.map_or(Header::Other, |&(_, header)| header)
    }

    fn from_compact(letter: u8) -> Header {
        match letter {
            b'c' => Header::ContentType,
            b'e' => Header::ContentEncoding,
            b'f' => Header::From,
            b'i' => Header::CallId,
            b'k' => Header::Supported,
            b'l' => Header::ContentLength,
            b'm' => Header::Contact,
            b'r' => Header::ReferTo,
            b't' => Header::To,
            b'v' => Header::Via,
            _ => Header::Other,
        }
    }
}

/// Header lines of a message or of a part of a multipart body, as (name, value). Lines end with CR LF or LF. A line
/// that begins with a blank continues the one before it (RFC 3261 section 7.3.1). Lines without colon are skipped. The
/// iterator ends after [`HEADER_LINES_MAX`] lines.
#[derive(Clone, Debug)]
pub(super) struct HeaderLines<'a> {
    rest: &'a [u8],
    lines_left: u32,
    /// True after the empty line that ends the headers.
    is_complete: bool,
}

impl<'a> HeaderLines<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> HeaderLines<'a> {
        HeaderLines { rest: bytes, lines_left: HEADER_LINES_MAX, is_complete: false }
    }

    /// Bytes after the empty line, and the number of lines that the iterator left. `None` if the empty line is
    /// missing.
    pub(super) fn finish(self) -> (Option<&'a [u8]>, usize) {
        if self.is_complete {
            return (Some(self.rest), 0);
        }
        let end = find_empty_line(self.rest);
        let lines = self.rest.get(..end.unwrap_or(self.rest.len())).unwrap_or_default();
        let body = end.and_then(|end| self.rest.get(end..)).and_then(split_line).map(|(_, body)| body);
        (body, memchr::memchr_iter(b'\n', lines).count())
    }

    fn next_physical_line(&mut self) -> Option<&'a [u8]> {
        self.lines_left = self.lines_left.checked_sub(1)?;
        let (line, rest) = split_line(self.rest)?;
        self.rest = rest;
        Some(line)
    }

    /// Next line with its continuations.
    fn next_line(&mut self) -> Option<&'a [u8]> {
        let start = self.rest;
        let first = self.next_physical_line()?;
        if first.is_empty() {
            self.is_complete = true;
            return None;
        }
        let mut is_folded = false;
        while matches!(self.rest.first(), Some(b' ' | b'\t')) && self.next_physical_line().is_some() {
            is_folded = true;
        }
        let folded = start.get(..start.len() - self.rest.len()).unwrap_or(start);
        Some(if is_folded { folded.trim_ascii_end() } else { first })
    }
}

impl<'a> Iterator for HeaderLines<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<(&'a [u8], &'a [u8])> {
        while !self.is_complete {
            let line = self.next_line()?;
            if let Some((name, value)) = memchr::memchr(b':', line).and_then(|at| line.split_at_checked(at)) {
                return Some((name.trim_ascii(), value.get(1..).unwrap_or_default().trim_ascii()));
            }
        }
        None
    }
}

/// Offset of the first empty line. `bytes` begin at the start of a line.
fn find_empty_line(bytes: &[u8]) -> Option<usize> {
    if bytes.starts_with(b"\n") || bytes.starts_with(b"\r\n") {
        return Some(0);
    }
    let line_feeds = memmem::find(bytes, b"\n\n");
    let line_ends = memmem::find(bytes, b"\n\r\n");
    let first = [line_feeds, line_ends].into_iter().flatten().min()?;
    Some(first + 1)
}

/// First line without its end, and the bytes after it. `None` at the end of the input.
pub(super) fn split_line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    if bytes.is_empty() {
        return None;
    }
    let len = memchr::memchr(b'\n', bytes).map_or(bytes.len(), |at| at + 1);
    let (line, rest) = bytes.split_at_checked(len)?;
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    Some((line.strip_suffix(b"\r").unwrap_or(line), rest))
}
