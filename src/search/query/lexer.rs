//! Lexer of the `query_string` language. Pure code.
//!
//! Tokens are those of Lucene's classic query parser: the longest match at each position, with separate rules
//! inside a range and after `^`. So `a-b` and `a&&b` are one token, `a!b` is three, and `a/b` is an error.
//! One rule is added, where Lucene reports an error: a sign and digits after a field's colon are one term, so that
//! `userid:+447700900123` and `longitude:-46.6` work.

use super::QueryError;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TokenKind {
    And,
    Or,
    Not,
    Plus,
    Minus,
    /// `+`, `-` or `!` followed by a blank: a term.
    BareOperator,
    GroupStart,
    GroupEnd,
    Colon,
    Star,
    Caret,
    Quoted,
    Term,
    /// A term whose only wildcard is a `*` at its end.
    Prefix,
    Wildcard,
    RangeStartIncluded,
    RangeStartExcluded,
    RangeTo,
    RangeQuoted,
    RangeValue,
    RangeEndIncluded,
    RangeEndExcluded,
    /// `~`, with a number or without.
    Similar,
    /// A regular expression between slashes.
    Regexp,
    /// The number after `^`.
    Number,
    End,
}

/// A token: the bytes `start..end` of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Token {
    pub kind: TokenKind,
    pub start: usize,
    pub end: usize,
}

#[derive(Clone, Copy, PartialEq)]
enum LexerState {
    Default,
    Range,
    Boost,
}

/// Splits a text into tokens. The last one is [`TokenKind::End`].
pub(super) fn tokenize(text: &str) -> Result<Vec<Token>, QueryError> {
    let (mut tokens, mut state, mut start) = (Vec::new(), LexerState::Default, 0);
    loop {
        if state != LexerState::Boost {
            start += text[start..].len() - text[start..].trim_start_matches(is_blank).len();
        }
        let rest = &text[start..];
        if rest.is_empty() {
            tokens.push(Token { kind: TokenKind::End, start, end: start });
            return Ok(tokens);
        }
        let found = match state {
            LexerState::Default if follows_colon(&tokens) && starts_signed_number(rest) => {
                let bytes = term_length(rest);
                Ok((term_kind(&rest[..bytes]), bytes))
            }
            LexerState::Default => lex_default(rest),
            LexerState::Range => Ok(lex_range(rest)),
            LexerState::Boost => lex_boost(rest),
        };
        let (kind, bytes) = found.map_err(|cause| QueryError::query_string(text, start, cause))?;
        tokens.push(Token { kind, start, end: start + bytes });
        start += bytes;
        state = match kind {
            TokenKind::Caret => LexerState::Boost,
            TokenKind::RangeStartIncluded | TokenKind::RangeStartExcluded => LexerState::Range,
            TokenKind::Number | TokenKind::RangeEndIncluded | TokenKind::RangeEndExcluded => {
                LexerState::Default
            }
            _ => state,
        };
    }
}

/// True if the next token is the value of a field.
fn follows_colon(tokens: &[Token]) -> bool {
    tokens.last().is_some_and(|token| token.kind == TokenKind::Colon)
}

/// True for a sign and a digit. In Lucene this is an error after a colon.
pub(super) fn starts_signed_number(text: &str) -> bool {
    matches!(text.as_bytes(), [b'+' | b'-', digit, ..] if digit.is_ascii_digit())
}

fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r' | '\u{3000}')
}

/// True for a character that can start a term. A backslash with the next character can, too.
fn starts_term(c: char) -> bool {
    !is_blank(c) && !"+-!():^[]\"{}~*?\\/".contains(c)
}

/// A token kind and the token's length in bytes.
type LexResult = Result<(TokenKind, usize), &'static str>;

fn lex_default(rest: &str) -> LexResult {
    let mut chars = rest.chars();
    let (Some(first), second) = (chars.next(), chars.next()) else { return Ok((TokenKind::End, 0)) };
    let single = |kind| Ok((kind, 1));
    match first {
        '(' => single(TokenKind::GroupStart),
        ')' => single(TokenKind::GroupEnd),
        ':' => single(TokenKind::Colon),
        '^' => single(TokenKind::Caret),
        '[' => single(TokenKind::RangeStartIncluded),
        '{' => single(TokenKind::RangeStartExcluded),
        ']' | '}' => Err("unmatched end of a range"),
        '+' | '-' | '!' => match second.filter(|c| is_blank(*c)) {
            Some(blank) => Ok((TokenKind::BareOperator, 1 + blank.len_utf8())),
            None if first == '+' => single(TokenKind::Plus),
            None if first == '-' => single(TokenKind::Minus),
            None => single(TokenKind::Not),
        },
        '"' => lex_quoted(rest),
        '~' => Ok((TokenKind::Similar, similar_length(rest))),
        '/' => lex_regexp(rest),
        _ => match term_length(rest) {
            0 => Err("a backslash must be followed by a character"),
            bytes => Ok((term_kind(&rest[..bytes]), bytes)),
        },
    }
}

/// Length in bytes of a run of term characters, `*` and `?`.
fn term_length(rest: &str) -> usize {
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

fn term_kind(term: &str) -> TokenKind {
    match term {
        "AND" | "&&" => return TokenKind::And,
        "OR" | "||" => return TokenKind::Or,
        "NOT" => return TokenKind::Not,
        "*" => return TokenKind::Star,
        _ => {}
    }
    let mut escaped = false;
    let wildcard = term.char_indices().find(|(_, c)| {
        let wild = !escaped && matches!(c, '*' | '?');
        escaped = !escaped && *c == '\\';
        wild
    });
    match wildcard {
        None => TokenKind::Term,
        Some((at, '*')) if at + 1 == term.len() => TokenKind::Prefix,
        Some(_) => TokenKind::Wildcard,
    }
}

/// Length of `~` and the number after it.
fn similar_length(rest: &str) -> usize {
    let digits = |text: &str| text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let whole = 1 + digits(&rest[1..]);
    match rest[whole..].strip_prefix('.').map(digits) {
        Some(fraction) if fraction > 0 && whole > 1 => whole + 1 + fraction,
        _ => whole,
    }
}

fn lex_regexp(rest: &str) -> LexResult {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        if c == '/' && !escaped {
            return Ok((TokenKind::Regexp, at + 1));
        }
        escaped = c == '\\';
    }
    Err("unmatched start of a regular expression (escape a literal '/' as \\/)")
}

fn lex_quoted(rest: &str) -> LexResult {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        if c == '"' && !escaped {
            return Ok((TokenKind::Quoted, at + 1));
        }
        escaped = !escaped && c == '\\';
    }
    Err("unmatched quote")
}

fn lex_range(rest: &str) -> (TokenKind, usize) {
    match rest.as_bytes()[0] {
        b']' => return (TokenKind::RangeEndIncluded, 1),
        b'}' => return (TokenKind::RangeEndExcluded, 1),
        _ => {}
    }
    let value_bytes = rest.find([' ', ']', '}']).unwrap_or(rest.len());
    let quoted_bytes = range_quoted_length(rest);
    match &rest[..value_bytes] {
        "TO" => (TokenKind::RangeTo, 2),
        _ if quoted_bytes >= value_bytes => (TokenKind::RangeQuoted, quoted_bytes),
        _ => (TokenKind::RangeValue, value_bytes),
    }
}

/// Length in bytes of a quoted range value, or 0. A quote after a backslash ends the value only if no later
/// quote does.
fn range_quoted_length(rest: &str) -> usize {
    let bytes = rest.as_bytes();
    // `""` is not a quoted value.
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

fn lex_boost(rest: &str) -> LexResult {
    let digits = |text: &str| text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let whole = digits(rest);
    let fraction = rest[whole..].strip_prefix('.').map_or(0, digits);
    match (whole, fraction) {
        (0, _) => Err("'^' must be followed by a number"),
        (_, 0) => Ok((TokenKind::Number, whole)),
        _ => Ok((TokenKind::Number, whole + 1 + fraction)),
    }
}
