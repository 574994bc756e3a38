//! Parser from the text of a field to the dialled digits. Pure, allocates nothing.
//!
//! The parser removes: white space, a display name with its angle brackets, the schemes `sip:`, `sips:` and `tel:`,
//! and everything after `@`, after a password's `:` or after the first `;` (RFC 3261, 19.1; RFC 3966, 3). It reads
//! `%2B` as `+` and skips the visual separators of RFC 3966 (`-`, `.`, `(`, `)`) and blanks between digits. A text
//! with anything else is not a phone number: letters, `*`, `#`, a second `+`, an IP address. The parser never
//! guesses: it rejects `123x45`.

use std::net::Ipv4Addr;

/// Longest text of a number, in bytes.
pub const TEXT_BYTES_MAX: usize = 256;

/// Maximum number of digits: the longest international prefix, 15 digits of a number, and room to detect that there
/// are too many.
pub const DIGITS_MAX: usize = 32;

/// Digits of a phone number as a caller dialled them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DialledDigits {
    digits: [u8; DIGITS_MAX],
    len: usize,
    /// True if the text has a `+` before the digits.
    pub has_plus: bool,
}

/// Reason why a text is not a phone number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseNumberError {
    #[error("no digits")]
    NoDigits,
    #[error("longer than {TEXT_BYTES_MAX} bytes")]
    TooLong,
    #[error("more than {DIGITS_MAX} digits")]
    TooManyDigits,
    #[error("a SIP URI without a user part")]
    NoUserPart,
    #[error("an IP address")]
    IpAddress,
    #[error("invalid character {0:?} in a phone number")]
    InvalidCharacter(char),
}

impl DialledDigits {
    /// Parses the text of a field.
    #[inline]
    pub(super) fn parse(text: &str) -> Result<DialledDigits, ParseNumberError> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(ParseNumberError::TooLong);
        }
        // Nearly all values consist of digits only. They need no further parsing.
        let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
        if is_plain { DialledDigits::new().append(text) } else { DialledDigits::parse_uri(text) }
    }

    fn new() -> DialledDigits {
        DialledDigits { digits: [0; DIGITS_MAX], len: 0, has_plus: false }
    }

    /// Returns the digits, in ASCII.
    pub(super) fn digits(&self) -> &[u8] {
        &self.digits[..self.len]
    }

    fn parse_uri(text: &str) -> Result<DialledDigits, ParseNumberError> {
        let text = text.trim();
        // Form: `"Alice" <sip:+447700900123@198.51.100.7>;tag=1` (RFC 3261, 20.10).
        let in_brackets = text.split_once('<').and_then(|(_, rest)| rest.split_once('>'));
        let uri = in_brackets.map_or(text, |(uri, _)| uri);
        let (number, parameters) = split_uri(uri)?;
        if number.parse::<Ipv4Addr>().is_ok() {
            return Err(ParseNumberError::IpAddress);
        }
        let number = number.trim();
        match global_context(parameters).filter(|_| !starts_with_plus(number)) {
            // `tel:7700900123;phone-context=+44` has the first digits of a global number in its context (RFC 3966,
            // 5.1.5).
            Some(context) => DialledDigits::new().append(context)?.append(number),
            None => DialledDigits::new().append(number),
        }
    }

    /// Appends the digits of `part`.
    fn append(mut self, part: &str) -> Result<DialledDigits, ParseNumberError> {
        let mut rest = part;
        if self.len == 0 && starts_with_plus(part) {
            self.has_plus = true;
            rest = part.strip_prefix('+').unwrap_or_else(|| &part["%2B".len()..]);
        }
        for character in rest.chars() {
            match character {
                '0'..='9' if self.len == DIGITS_MAX => return Err(ParseNumberError::TooManyDigits),
                '0'..='9' => {
                    self.digits[self.len] = character as u8;
                    self.len += 1;
                }
                '-' | '.' | '(' | ')' | ' ' | '\t' | '\u{a0}' => {}
                other => return Err(ParseNumberError::InvalidCharacter(other)),
            }
        }
        if self.len == 0 { Err(ParseNumberError::NoDigits) } else { Ok(self) }
    }
}

/// Splits a URI into the part with the number, and its parameters.
fn split_uri(uri: &str) -> Result<(&str, &str), ParseNumberError> {
    let (scheme, rest) = match uri.split_once(':') {
        Some((scheme, rest)) if is_any_of(scheme, &["sip", "sips", "tel"]) => (scheme, rest),
        _ => ("", uri),
    };
    let user = match rest.split_once('@') {
        Some((user, _)) => user,
        None if is_any_of(scheme, &["sip", "sips"]) => return Err(ParseNumberError::NoUserPart),
        None => rest,
    };
    let (number, parameters) = user.split_once(';').unwrap_or((user, ""));
    // The text after a colon is a password if a host follows. Otherwise the colon is an invalid character.
    let number = if user.len() < rest.len() { number.split(':').next().unwrap_or(number) } else { number };
    Ok((number, parameters))
}

/// Returns the `phone-context` that holds the first digits of a number. A context that is a domain is ignored.
fn global_context(parameters: &str) -> Option<&str> {
    let mut pairs = parameters.split(';').filter_map(|parameter| parameter.split_once('='));
    let (_, context) = pairs.find(|(name, _)| name.eq_ignore_ascii_case("phone-context"))?;
    starts_with_plus(context).then_some(context)
}

fn starts_with_plus(text: &str) -> bool {
    text.starts_with('+') || text.get(..3).is_some_and(|start| start.eq_ignore_ascii_case("%2b"))
}

fn is_any_of(word: &str, words: &[&str]) -> bool {
    words.iter().any(|known| word.eq_ignore_ascii_case(known))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<String, ParseNumberError> {
        let dialled = DialledDigits::parse(text)?;
        let digits = String::from_utf8(dialled.digits().to_vec()).unwrap();
        Ok(format!("{}{digits}", if dialled.has_plus { "+" } else { "" }))
    }

    #[test]
    fn text_around_a_number_is_removed() {
        for text in [
            "+972598294121",
            " +972598294121\t",
            "+972-59-829-4121",
            "+972 (59) 829.4121",
            "+972\u{a0}598294121",
            "tel:+972-59-829-4121",
            "TEL:+972598294121;ext=12",
            "tel:598294121;phone-context=+972",
            "tel:59-8294121;isub=1;Phone-Context=+972",
            "tel:+972598294121;phone-context=+44",
            "sip:+972598294121@198.51.100.7",
            "sips:+972598294121@[2001:db8::1]:5061;transport=tls",
            "SIP:+972598294121;user=phone@198.51.100.7:5060",
            "sip:+972598294121:secret@198.51.100.7",
            "sip:%2B972598294121@198.51.100.7",
            "sip:%2b972598294121@198.51.100.7",
            "+972598294121@198.51.100.7",
            "<sip:+972598294121@198.51.100.7>;tag=1",
            "\"Alice 2\" <tel:+972598294121>",
        ] {
            assert_eq!(read(text).as_deref(), Ok("+972598294121"), "{text}");
        }
        assert_eq!(read("tel:7700900123;phone-context=example.com").as_deref(), Ok("7700900123"));
        assert_eq!(read("+44 (0)7700 900123").as_deref(), Ok("+4407700900123"));
        assert_eq!(read("sip:9011972598294121@198.51.100.7").as_deref(), Ok("9011972598294121"));
    }

    #[test]
    fn a_text_that_is_not_a_number_is_rejected_with_its_reason() {
        use ParseNumberError::{InvalidCharacter, IpAddress, NoDigits, NoUserPart};
        for (text, why) in [
            ("", NoDigits),
            ("+", NoDigits),
            (" () ", NoDigits),
            ("sip:@198.51.100.7", NoDigits),
            ("sip:198.51.100.7", NoUserPart),
            ("198.151.100.107", IpAddress),
            ("12025550100x12", InvalidCharacter('x')),
            ("12025550100,12", InvalidCharacter(',')),
            ("*67#12025550100", InvalidCharacter('*')),
            ("++12025550100", InvalidCharacter('+')),
            ("1202+5550100", InvalidCharacter('+')),
            ("12025550100:5060", InvalidCharacter(':')),
            ("2026-11-22T20:59:41", InvalidCharacter('T')),
            ("friendly-scanner", InvalidCharacter('f')),
            ("john.doe@example.com", InvalidCharacter('j')),
            ("١٢٣٤٥٦٧٨٩٠١", InvalidCharacter('١')),
            ("1202555\u{0}0100", InvalidCharacter('\0')),
        ] {
            assert_eq!(read(text), Err(why), "{text:?}");
        }
    }

    #[test]
    fn both_sides_of_each_limit() {
        assert_eq!(read(&"1".repeat(DIGITS_MAX)).map(|text| text.len()), Ok(DIGITS_MAX));
        assert_eq!(read(&"1".repeat(DIGITS_MAX + 1)), Err(ParseNumberError::TooManyDigits));
        let padded = |bytes: usize| format!("{}1", "-".repeat(bytes - 1));
        assert_eq!(read(&padded(TEXT_BYTES_MAX)).as_deref(), Ok("1"));
        assert_eq!(read(&padded(TEXT_BYTES_MAX + 1)), Err(ParseNumberError::TooLong));
    }
}
