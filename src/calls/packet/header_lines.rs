//! Header lines of SIP and HTTP messages, with folded lines (RFC 3261 section 7.3.1) joined.

use memchr::memchr;

/// Returns name and value of each header after the start line. Blanks around both are removed. A folded value keeps its
/// line ends inside. A line without colon has an empty name.
pub(super) fn headers(head: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let mut rest = split_line(head).1;
    std::iter::from_fn(move || {
        let (line, after) = logical_line(rest);
        rest = after;
        if line.trim_ascii().is_empty() {
            return None;
        }
        let (name, value) = match memchr(b':', line) {
            Some(colon) => (line.get(..colon)?, line.get(colon + 1..)?),
            None => (line.get(..0)?, line),
        };
        Some((name.trim_ascii(), value.trim_ascii()))
    })
}

/// Splits after the first LF, or at the end.
fn split_line(bytes: &[u8]) -> (&[u8], &[u8]) {
    let end = memchr(b'\n', bytes).map_or(bytes.len(), |lf| lf + 1);
    bytes.split_at_checked(end).unwrap_or((bytes, &[]))
}

/// Splits after the first line and the lines that continue it.
fn logical_line(bytes: &[u8]) -> (&[u8], &[u8]) {
    let (first, mut rest) = split_line(bytes);
    let mut end = first.len();
    while let [b' ' | b'\t', ..] = rest {
        let (line, after) = split_line(rest);
        // Only blanks: not a continuation, but a damaged end of the headers.
        if line.trim_ascii().is_empty() {
            break;
        }
        end += line.len();
        rest = after;
    }
    bytes.split_at_checked(end).unwrap_or((bytes, &[]))
}

/// Reports whether a comma-separated value has an element, in any case.
pub(super) fn has_element(value: &[u8], element: &[u8]) -> bool {
    value.split(|byte| *byte == b',').any(|part| part.trim_ascii().eq_ignore_ascii_case(element))
}

/// Returns the length of a message head including its blank line. `None` if it is not complete.
pub(super) fn head_bytes(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        let (line, rest) = split_line(bytes.get(at..)?);
        at += line.len();
        match line {
            b"\n" | b"\r\n" => return Some(at),
            _ if rest.is_empty() => return None,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folded_headers_are_joined() {
        let head = b"START\r\nA : 1\r\nB:\r\n\t2\r\n  3\r\nno colon\r\nc:4\n\r\nbody: 5\r\n";
        let found: Vec<(&[u8], &[u8])> = headers(head).collect();
        assert_eq!(found, [(&b"A"[..], &b"1"[..]), (b"B", b"2\r\n  3"), (b"", b"no colon"), (b"c", b"4")]);
        assert_eq!(head_bytes(head), Some(head.len() - "body: 5\r\n".len()));
        assert_eq!(head_bytes(b"A\r\nB\r\n"), None);
        assert_eq!(head_bytes(b""), None);
        assert!(has_element(b"chat, SIP", b"sip") && !has_element(b"sips", b"sip"));
    }
}
