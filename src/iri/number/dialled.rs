//! From a field's text to the digits that were dialled. Pure, no allocation.
//!
//! Taken off: blanks around, a display name and its angle brackets, `sip:`, `sips:`, `tel:` with everything from `@`,
//! a user's password or the first `;` on (RFC 3261, 19.1; RFC 3966, 3), `%2B` for `+`, and between digits the visual
//! separators of RFC 3966 (`-`, `.`, `(`, `)`) and blanks. Anything else means that the text is no number: letters, `*`,
//! `#`, a second `+`, an IP address. Nothing is guessed, so `123x45` has no family.

use std::net::Ipv4Addr;

/// A number's text in bytes; longer ones are no number.
pub const TEXT_BYTES_MAX: usize = 256;

/// Digits dialled: the longest exit prefix, an international number and room to say that there are too many.
pub const DIGITS_MAX: usize = 32;

/// What was dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dialled {
    digits: [u8; DIGITS_MAX],
    len: usize,
    /// A `+` stands before the digits.
    pub plus: bool,
}

/// Why a text is no number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// No digit in it.
    #[error("it has no digits")]
    Empty,
    /// Longer than a number with all that may stand around it.
    #[error("it is longer than {TEXT_BYTES_MAX} bytes")]
    TooLong,
    /// More digits than are ever dialled.
    #[error("it has more than {DIGITS_MAX} digits")]
    TooManyDigits,
    /// A URI without a user: its host is no number.
    #[error("it is a SIP URI without a user part")]
    NoUser,
    /// An address, whose dots are no visual separators.
    #[error("it is an IP address")]
    IpAddress,
    /// A character that numbers do not have.
    #[error("{0:?} stands in no number")]
    Character(char),
}

impl Dialled {
    /// Reads a text.
    #[inline]
    pub fn read(text: &str) -> Result<Dialled, Unreadable> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(Unreadable::TooLong);
        }
        // Nearly all values are digits alone, and those need none of the rest.
        let plain = text.bytes().all(|byte| byte.is_ascii_digit());
        if plain { Dialled::new().with(text) } else { Dialled::read_uri(text) }
    }

    fn new() -> Dialled {
        Dialled { digits: [0; DIGITS_MAX], len: 0, plus: false }
    }

    /// The digits, in ASCII.
    pub fn digits(&self) -> &[u8] {
        &self.digits[..self.len]
    }

    fn read_uri(text: &str) -> Result<Dialled, Unreadable> {
        let text = text.trim();
        // `"Alice" <sip:+447700900123@198.51.100.7>;tag=1` (RFC 3261, 20.10)
        let within = text.split_once('<').and_then(|(_, rest)| rest.split_once('>'));
        let uri = within.map_or(text, |(uri, _)| uri);
        let (number, parameters) = number_of(uri)?;
        if number.parse::<Ipv4Addr>().is_ok() {
            return Err(Unreadable::IpAddress);
        }
        let number = number.trim();
        match context(parameters).filter(|_| !starts_with_plus(number)) {
            // `tel:7700900123;phone-context=+44`: the rest of a global number (RFC 3966, 5.1.5).
            Some(context) => Dialled::new().with(context)?.with(number),
            None => Dialled::new().with(number),
        }
    }

    /// Appends a part of a number.
    fn with(mut self, part: &str) -> Result<Dialled, Unreadable> {
        let mut rest = part;
        if self.len == 0 && starts_with_plus(part) {
            self.plus = true;
            rest = part.strip_prefix('+').unwrap_or_else(|| &part["%2B".len()..]);
        }
        for character in rest.chars() {
            match character {
                '0'..='9' if self.len == DIGITS_MAX => return Err(Unreadable::TooManyDigits),
                '0'..='9' => {
                    self.digits[self.len] = character as u8;
                    self.len += 1;
                }
                '-' | '.' | '(' | ')' | ' ' | '\t' | '\u{a0}' => {}
                other => return Err(Unreadable::Character(other)),
            }
        }
        if self.len == 0 { Err(Unreadable::Empty) } else { Ok(self) }
    }
}

/// The part of a URI that is the number, and its parameters.
fn number_of(uri: &str) -> Result<(&str, &str), Unreadable> {
    let (scheme, rest) = match uri.split_once(':') {
        Some((scheme, rest)) if is_one_of(scheme, &["sip", "sips", "tel"]) => (scheme, rest),
        _ => ("", uri),
    };
    let user = match rest.split_once('@') {
        Some((user, _)) => user,
        None if is_one_of(scheme, &["sip", "sips"]) => return Err(Unreadable::NoUser),
        None => rest,
    };
    let (number, parameters) = user.split_once(';').unwrap_or((user, ""));
    // What stands behind a colon is a password where a host follows, and no number anywhere else.
    let number = if user.len() < rest.len() { number.split(':').next().unwrap_or(number) } else { number };
    Ok((number, parameters))
}

/// The `phone-context` that completes a number; one that is a domain does not.
fn context(parameters: &str) -> Option<&str> {
    let mut pairs = parameters.split(';').filter_map(|parameter| parameter.split_once('='));
    let (_, context) = pairs.find(|(name, _)| name.eq_ignore_ascii_case("phone-context"))?;
    starts_with_plus(context).then_some(context)
}

fn starts_with_plus(text: &str) -> bool {
    text.starts_with('+') || text.get(..3).is_some_and(|start| start.eq_ignore_ascii_case("%2b"))
}

fn is_one_of(word: &str, words: &[&str]) -> bool {
    words.iter().any(|known| word.eq_ignore_ascii_case(known))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<String, Unreadable> {
        let dialled = Dialled::read(text)?;
        let digits = String::from_utf8(dialled.digits().to_vec()).unwrap();
        Ok(format!("{}{digits}", if dialled.plus { "+" } else { "" }))
    }

    #[test]
    fn what_stands_around_a_number_is_taken_off() {
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
    fn what_is_no_number_says_why() {
        use Unreadable::{Character, Empty, IpAddress, NoUser};
        for (text, why) in [
            ("", Empty),
            ("+", Empty),
            (" () ", Empty),
            ("sip:@198.51.100.7", Empty),
            ("sip:198.51.100.7", NoUser),
            ("198.151.100.107", IpAddress),
            ("12025550100x12", Character('x')),
            ("12025550100,12", Character(',')),
            ("*67#12025550100", Character('*')),
            ("++12025550100", Character('+')),
            ("1202+5550100", Character('+')),
            ("12025550100:5060", Character(':')),
            ("2026-11-22T20:59:41", Character('T')),
            ("friendly-scanner", Character('f')),
            ("john.doe@example.com", Character('j')),
            ("١٢٣٤٥٦٧٨٩٠١", Character('١')),
            ("1202555\u{0}0100", Character('\0')),
        ] {
            assert_eq!(read(text), Err(why), "{text:?}");
        }
    }

    #[test]
    fn both_sides_of_each_limit() {
        assert_eq!(read(&"1".repeat(DIGITS_MAX)).map(|text| text.len()), Ok(DIGITS_MAX));
        assert_eq!(read(&"1".repeat(DIGITS_MAX + 1)), Err(Unreadable::TooManyDigits));
        let padded = |bytes: usize| format!("{}1", "-".repeat(bytes - 1));
        assert_eq!(read(&padded(TEXT_BYTES_MAX)).as_deref(), Ok("1"));
        assert_eq!(read(&padded(TEXT_BYTES_MAX + 1)), Err(Unreadable::TooLong));
    }
}
