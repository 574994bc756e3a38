//! Parts of header values: separators outside quoted strings, parameters, numbers and text.
//!
//! Values keep their line folding. CR and LF count as blanks, and text loses them when it becomes a `String`.

use std::borrow::Cow;

/// Index of the first `separator` that is not in a quoted string and not between `<` and `>`.
///
/// Inside quotes a backslash escapes the next byte (RFC 3261 section 25.1). A quote that is never closed is an
/// ordinary character: `To: "Mr. J. User <sip:j.user@example.com>`.
pub(super) fn find_outside(value: &[u8], separator: u8) -> Option<usize> {
    scan(value, separator, true).unwrap_or_else(|UnclosedQuote| scan(value, separator, false).unwrap_or(None))
}

struct UnclosedQuote;

#[derive(Clone, Copy)]
enum Place {
    Outside,
    Quoted,
    Escaped,
    Angle,
}

fn scan(value: &[u8], separator: u8, has_quotes: bool) -> Result<Option<usize>, UnclosedQuote> {
    let mut place = Place::Outside;
    for (index, &byte) in value.iter().enumerate() {
        place = match (place, byte) {
            (Place::Outside, _) if byte == separator => return Ok(Some(index)),
            (Place::Outside, b'"') if has_quotes => Place::Quoted,
            (Place::Outside, b'<') => Place::Angle,
            (Place::Quoted, b'\\') => Place::Escaped,
            (Place::Quoted, b'"') | (Place::Angle, b'>') => Place::Outside,
            (Place::Escaped, _) => Place::Quoted,
            _ => place,
        };
    }
    match place {
        Place::Quoted | Place::Escaped => Err(UnclosedQuote),
        Place::Outside | Place::Angle => Ok(None),
    }
}

/// Splits at the first `separator` outside quotes and angle brackets. The second part is without the separator.
pub(super) fn split_outside(value: &[u8], separator: u8) -> (&[u8], Option<&[u8]>) {
    match find_outside(value, separator).and_then(|at| value.split_at_checked(at)) {
        Some((head, tail)) => (head, tail.get(1..)),
        None => (value, None),
    }
}

/// Splits at the first `separator`, wherever it is.
pub(super) fn split_at_byte(value: &[u8], separator: u8) -> (&[u8], Option<&[u8]>) {
    match memchr::memchr(separator, value).and_then(|at| value.split_at_checked(at)) {
        Some((head, tail)) => (head, tail.get(1..)),
        None => (value, None),
    }
}

/// Parameters of a header or a URI: `;name=value;name`. Names and values are trimmed, values lose their quotes but
/// keep their escapes.
#[derive(Clone, Debug)]
pub(super) struct Params<'a> {
    rest: Option<&'a [u8]>,
    /// False after a quote that is never closed: it would be looked for again in each parameter.
    has_quotes: bool,
}

impl<'a> Params<'a> {
    /// `params` is what follows the value, with or without the first semicolon.
    pub(super) fn new(params: &'a [u8]) -> Params<'a> {
        Params { rest: Some(params), has_quotes: true }
    }

    /// Value of the first parameter `name`, in any case. Empty if it has none.
    pub(super) fn get(self, name: &[u8]) -> Option<&'a [u8]> {
        let mut params = self;
        params.find_map(|(key, value)| key.eq_ignore_ascii_case(name).then_some(value))
    }
}

impl<'a> Iterator for Params<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<(&'a [u8], &'a [u8])> {
        loop {
            let rest = self.rest.take()?;
            let at = match scan(rest, b';', self.has_quotes) {
                Ok(at) => at,
                Err(UnclosedQuote) => {
                    self.has_quotes = false;
                    scan(rest, b';', false).unwrap_or(None)
                }
            };
            let (param, tail) = rest.split_at_checked(at.unwrap_or(rest.len()))?;
            self.rest = at.and_then(|_| tail.get(1..));
            let (name, value) = split_at_byte(param, b'=');
            let name = name.trim_ascii();
            if !name.is_empty() {
                return Some((name, unquote(value.unwrap_or_default().trim_ascii())));
            }
        }
    }
}

/// Value without its quotes, if it has a quote at both ends.
pub(super) fn unquote(value: &[u8]) -> &[u8] {
    value.strip_prefix(b"\"").and_then(|inner| inner.strip_suffix(b"\"")).unwrap_or(value)
}

/// Decimal number at the beginning, after blanks. A number that does not fit is `u32::MAX`.
pub(super) fn number(value: &[u8]) -> Option<u32> {
    let digits = value.trim_ascii_start();
    let len = digits.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let digits = digits.get(..len).filter(|digits| !digits.is_empty())?;
    Some(
        digits.iter().fold(0_u32, |sum, &byte| {
            sum.saturating_mul(10).saturating_add(u32::from(byte.wrapping_sub(b'0')))
        }),
    )
}

/// Text of a value with each run of blanks and line folding as one space. Bytes that are not UTF-8 become U+FFFD.
pub(crate) fn text(value: &[u8]) -> String {
    let value = value.trim_ascii();
    let text = String::from_utf8_lossy(value);
    if !value.iter().any(|&byte| matches!(byte, b'\r' | b'\n' | b'\t')) {
        return text.into_owned();
    }
    text.split([' ', '\t', '\r', '\n']).filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

/// Text of a quoted string without its escapes (RFC 3261 section 25.1, `quoted-pair`).
pub(super) fn unescape(value: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memchr(b'\\', value).is_none() {
        return Cow::Borrowed(value);
    }
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.iter();
    while let Some(&byte) = rest.next() {
        bytes.push(if byte == b'\\' { rest.next().copied().unwrap_or(byte) } else { byte });
    }
    Cow::Owned(bytes)
}
