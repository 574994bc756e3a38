//! Regular expressions of Lucene, which match whole values. Pure.
//!
//! The syntax is translated for the crate `regex`, which matches in linear time. `^` and `$` are literal there, and a
//! quoted text is too. The operators that `regex` lacks are refused: complement (`~`), intersection (`&`), numeric
//! ranges (`<1-9>`) and named automata.

use regex::{Regex, RegexBuilder};

/// Maximum length of an expression, as in Elasticsearch (`index.max_regex_length`).
pub(crate) const REGEXP_CHARS_MAX: usize = 1_000;

/// Maximum size of a compiled expression.
const COMPILED_BYTES_MAX: usize = 1 << 20;

/// A compiled regular expression.
#[derive(Clone, Debug)]
pub(crate) struct Regexp {
    regex: Regex,
    /// Every match starts with this text.
    prefix: String,
}

impl Regexp {
    /// Compiles an expression, or tells what is wrong with it.
    pub(crate) fn new(pattern: &str, ignores_case: bool) -> Result<Regexp, String> {
        if pattern.chars().count() > REGEXP_CHARS_MAX {
            return Err(format!(
                "The length of regex [{}] used in the request has exceeded the allowed maximum of [{REGEXP_CHARS_MAX}]",
                pattern.chars().count()
            ));
        }
        let translated = translate(pattern)?;
        let regex = RegexBuilder::new(&format!("^(?:{translated})$"))
            .dot_matches_new_line(true)
            .case_insensitive(ignores_case)
            .size_limit(COMPILED_BYTES_MAX)
            .build()
            .map_err(|_| format!("invalid or too complex regular expression [{pattern}]"))?;
        let prefix = if ignores_case { String::new() } else { literal_prefix(pattern) };
        Ok(Regexp { regex, prefix })
    }

    pub(crate) fn is_match(&self, value: &[u8]) -> bool {
        std::str::from_utf8(value).is_ok_and(|value| self.regex.is_match(value))
    }

    /// Returns a text with which every match starts.
    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }
}

/// Translates an expression. `regex` then checks its structure.
fn translate(pattern: &str) -> Result<String, String> {
    let mut out = String::with_capacity(pattern.len() + 8);
    let mut chars = pattern.chars().enumerate().peekable();
    let (mut in_class, mut depth) = (false, 0_usize);
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => {
                let (_, escaped) = chars.next().ok_or_else(|| "unexpected end-of-string".to_owned())?;
                push_literal(&mut out, escaped);
            }
            ']' if in_class => {
                in_class = false;
                out.push(']');
            }
            '-' if in_class => out.push('-'),
            c if in_class => push_class_literal(&mut out, c),
            '[' => {
                in_class = true;
                out.push('[');
                if chars.next_if(|(_, next)| *next == '^').is_some() {
                    out.push('^');
                }
            }
            '"' => {
                let mut is_closed = false;
                for (_, quoted) in chars.by_ref() {
                    if quoted == '"' {
                        is_closed = true;
                        break;
                    }
                    push_literal(&mut out, quoted);
                }
                if !is_closed {
                    return Err(format!("expected '\"' at position {}", pattern.chars().count()));
                }
            }
            '~' | '&' | '<' => {
                return Err(format!(
                    "the operator [{c}] at position {at} is not supported (escape a literal one as \\{c})"
                ));
            }
            '@' => out.push_str(".*"),
            // The empty language: it matches nothing.
            '#' => out.push_str("[^\\s\\S]"),
            '(' => {
                depth += 1;
                out.push_str("(?:");
            }
            // Without this check, a group could end the one around the whole expression.
            ')' => {
                depth = depth.checked_sub(1).ok_or_else(|| format!("unexpected ')' at position {at}"))?;
                out.push(')');
            }
            '|' | '*' | '+' | '?' | '{' | '}' | '.' => out.push(c),
            c => push_literal(&mut out, c),
        }
    }
    match in_class {
        true => Err(format!("expected ']' at position {}", pattern.chars().count())),
        false => Ok(out),
    }
}

fn push_literal(out: &mut String, c: char) {
    out.push_str(&regex::escape(c.encode_utf8(&mut [0; 4])));
}

fn push_class_literal(out: &mut String, c: char) {
    if matches!(c, '[' | '\\' | '&' | '~' | '^') {
        out.push('\\');
    }
    out.push(c);
}

/// Returns the characters before the first operator.
fn literal_prefix(pattern: &str) -> String {
    let is_operator = |c: char| "\\[\"~&<@#().|*+?{}".contains(c);
    let end = pattern.find(is_operator).unwrap_or(pattern.len());
    let is_alternative = pattern.contains('|');
    let prefix = &pattern[..if is_alternative { 0 } else { end }];
    // The last character may be optional or repeated.
    match pattern[prefix.len()..].starts_with(['*', '?', '{', '+']) {
        true => prefix.char_indices().last().map_or("", |(at, _)| &prefix[..at]).to_owned(),
        false => prefix.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_of_lucene_match_whole_values() {
        for (pattern, value, expected) in [
            ("fr.*", "friendly", true),
            ("fr", "friendly", false),
            ("97259829412[0-9]", "972598294121", true),
            ("a|b", "b", true),
            ("ab?c", "ac", true),
            ("ab{2,3}", "abb", true),
            ("a\\.b", "a.b", true),
            ("a\\.b", "axb", false),
            ("\"a.b\"", "a.b", true),
            ("\"a.b\"", "axb", false),
            ("^a$", "^a$", true),
            ("[^a-c]", "d", true),
            ("@", "anything", true),
            ("#", "", false),
            ("a\nb", "a\nb", true),
            ("[a&&b]", "&", true),
            ("\\<a\\>", "<a>", true),
            ("", "", true),
        ] {
            let regexp = Regexp::new(pattern, false).unwrap();
            assert_eq!(regexp.is_match(value.as_bytes()), expected, "{pattern} {value}");
            assert!(!expected || value.starts_with(regexp.prefix()), "{pattern} {}", regexp.prefix());
        }
        assert!(Regexp::new("FR.*", true).unwrap().is_match(b"friendly"));
    }

    #[test]
    fn unsupported_and_malformed_expressions_are_refused() {
        for pattern in
            ["[a", "a\\", "~a", "a&b", "<1-9>", "(a", "a)", "a)|(b", "*a", "\"a", "(a{1000}){1000}"]
        {
            assert!(Regexp::new(pattern, false).is_err(), "{pattern}");
        }
        let long = |chars: usize| Regexp::new(&"a".repeat(chars), false).is_ok();
        assert!(long(REGEXP_CHARS_MAX) && !long(REGEXP_CHARS_MAX + 1));
    }
}
