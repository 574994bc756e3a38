//! The words of the `query_string` language. Pure.
//!
//! They are those of Lucene's classic query parser: at each place the longest word that fits, three states (within a
//! range and behind `^` other words hold). So `a-b` and `a&&b` are one word, `a!b` are three, and `a/b` is none.

use super::QueryError;

/// What a word is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    And,
    Or,
    Not,
    Plus,
    Minus,
    /// `+`, `-` or `!` before a blank: a term.
    BareOperator,
    GroupStart,
    GroupEnd,
    Colon,
    Star,
    Caret,
    Quoted,
    Term,
    /// A term with one `*`, at its end.
    Prefix,
    Wildcard,
    RangeStartIncluded,
    RangeStartExcluded,
    RangeTo,
    RangeQuoted,
    RangeValue,
    RangeEndIncluded,
    RangeEndExcluded,
    /// Behind `^`.
    Number,
    End,
}

/// A word: bytes `start..end` of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Word {
    pub kind: Kind,
    pub start: usize,
    pub end: usize,
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    Default,
    Range,
    Boost,
}

/// All words of a text, the last of them [`Kind::End`].
pub(super) fn words(text: &str) -> Result<Vec<Word>, QueryError> {
    let (mut words, mut state, mut start) = (Vec::new(), State::Default, 0);
    loop {
        if state != State::Boost {
            start += text[start..].len() - text[start..].trim_start_matches(is_blank).len();
        }
        let rest = &text[start..];
        if rest.is_empty() {
            words.push(Word { kind: Kind::End, start, end: start });
            return Ok(words);
        }
        let found = match state {
            State::Default => default_word(rest),
            State::Range => Ok(range_word(rest)),
            State::Boost => boost_word(rest),
        };
        let (kind, bytes) = found.map_err(|cause| QueryError::query_string(text, start, cause))?;
        words.push(Word { kind, start, end: start + bytes });
        start += bytes;
        state = match kind {
            Kind::Caret => State::Boost,
            Kind::RangeStartIncluded | Kind::RangeStartExcluded => State::Range,
            Kind::Number | Kind::RangeEndIncluded | Kind::RangeEndExcluded => State::Default,
            _ => state,
        };
    }
}

fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r' | '\u{3000}')
}

/// A character that a term may begin with; a backslash and what follows is one too.
fn starts_term(c: char) -> bool {
    !is_blank(c) && !"+-!():^[]\"{}~*?\\/".contains(c)
}

/// A word, and its length in bytes.
type Found = Result<(Kind, usize), &'static str>;

fn default_word(rest: &str) -> Found {
    let mut chars = rest.chars();
    let (Some(first), second) = (chars.next(), chars.next()) else { return Ok((Kind::End, 0)) };
    let single = |kind| Ok((kind, 1));
    match first {
        '(' => single(Kind::GroupStart),
        ')' => single(Kind::GroupEnd),
        ':' => single(Kind::Colon),
        '^' => single(Kind::Caret),
        '[' => single(Kind::RangeStartIncluded),
        '{' => single(Kind::RangeStartExcluded),
        ']' | '}' => Err("a range ends that did not begin"),
        '+' | '-' | '!' => match second.filter(|c| is_blank(*c)) {
            Some(blank) => Ok((Kind::BareOperator, 1 + blank.len_utf8())),
            None if first == '+' => single(Kind::Plus),
            None if first == '-' => single(Kind::Minus),
            None => single(Kind::Not),
        },
        '"' => quoted_word(rest),
        '~' => Err("fuzziness and proximity (~) are not supported"),
        '/' => Err("regular expressions are not supported (a '/' that is meant itself is escaped: \\/)"),
        _ => match term_bytes(rest) {
            0 => Err("nothing follows the backslash"),
            bytes => Ok((term_kind(&rest[..bytes]), bytes)),
        },
    }
}

/// The bytes of a run of term characters, `*` and `?`.
fn term_bytes(rest: &str) -> usize {
    let mut chars = rest.char_indices();
    while let Some((at, c)) = chars.next() {
        let fits = match c {
            '\\' => chars.next().is_some(),
            _ => starts_term(c) || "-+*?".contains(c),
        };
        if !fits {
            return at;
        }
    }
    rest.len()
}

fn term_kind(term: &str) -> Kind {
    match term {
        "AND" | "&&" => return Kind::And,
        "OR" | "||" => return Kind::Or,
        "NOT" => return Kind::Not,
        "*" => return Kind::Star,
        _ => {}
    }
    let mut escaped = false;
    let wildcard = term.char_indices().find(|(_, c)| {
        let wild = !escaped && matches!(c, '*' | '?');
        escaped = !escaped && *c == '\\';
        wild
    });
    match wildcard {
        None => Kind::Term,
        Some((at, '*')) if at + 1 == term.len() => Kind::Prefix,
        Some(_) => Kind::Wildcard,
    }
}

fn quoted_word(rest: &str) -> Found {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        if c == '"' && !escaped {
            return Ok((Kind::Quoted, at + 1));
        }
        escaped = !escaped && c == '\\';
    }
    Err("a quote has no end")
}

fn range_word(rest: &str) -> (Kind, usize) {
    match rest.as_bytes()[0] {
        b']' => return (Kind::RangeEndIncluded, 1),
        b'}' => return (Kind::RangeEndExcluded, 1),
        _ => {}
    }
    let value_bytes = rest.find([' ', ']', '}']).unwrap_or(rest.len());
    let quoted_bytes = range_quoted_bytes(rest);
    match &rest[..value_bytes] {
        "TO" => (Kind::RangeTo, 2),
        _ if quoted_bytes >= value_bytes => (Kind::RangeQuoted, quoted_bytes),
        _ => (Kind::RangeValue, value_bytes),
    }
}

/// A quoted value, or 0. A quote behind a backslash ends it only where no later one does.
fn range_quoted_bytes(rest: &str) -> usize {
    let bytes = rest.as_bytes();
    // `""` alone is no quoted value.
    if bytes[0] != b'"' || bytes.starts_with(b"\"\"") {
        return 0;
    }
    let mut end = 0;
    for at in 2..bytes.len() {
        if bytes[at] == b'"' {
            end = at + 1;
            if bytes[at - 1] != b'\\' {
                break;
            }
        }
    }
    end
}

fn boost_word(rest: &str) -> Found {
    let digits = |text: &str| text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let whole = digits(rest);
    let fraction = rest[whole..].strip_prefix('.').map_or(0, digits);
    match (whole, fraction) {
        (0, _) => Err("no number follows '^'"),
        (_, 0) => Ok((Kind::Number, whole)),
        _ => Ok((Kind::Number, whole + 1 + fraction)),
    }
}
