//! Patterns with `*` and `?`. Pure.

/// Part of a pattern.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum PatternPart {
    Literal(String),
    AnyChar,
    AnyText,
}

/// Pattern for the values of a field.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct WildcardPattern(Vec<PatternPart>);

impl WildcardPattern {
    /// Returns the pattern for texts that start with `prefix`.
    pub(super) fn prefix(prefix: &str) -> WildcardPattern {
        let mut pattern = WildcardPattern(Vec::new());
        prefix.chars().for_each(|c| pattern.push(c));
        pattern.0.push(PatternPart::AnyText);
        pattern
    }

    /// Parses a pattern: `*` is any text, `?` is any character, and a backslash escapes either.
    pub(super) fn wildcard(text: &str) -> WildcardPattern {
        let mut pattern = WildcardPattern(Vec::new());
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            match c {
                '*' if pattern.0.last() == Some(&PatternPart::AnyText) => {}
                '*' => pattern.0.push(PatternPart::AnyText),
                '?' => pattern.0.push(PatternPart::AnyChar),
                '\\' => pattern.push(chars.next().unwrap_or('\\')),
                c => pattern.push(c),
            }
        }
        pattern
    }

    fn push(&mut self, c: char) {
        match self.0.last_mut() {
            Some(PatternPart::Literal(text)) => text.push(c),
            _ => self.0.push(PatternPart::Literal(c.into())),
        }
    }

    /// Converts the literal parts to lower case.
    pub(super) fn lowercase(self) -> WildcardPattern {
        let lower = |piece| match piece {
            PatternPart::Literal(text) => PatternPart::Literal(text.to_lowercase()),
            other => other,
        };
        WildcardPattern(self.0.into_iter().map(lower).collect())
    }

    /// Returns the bytes that each matching value starts with.
    pub(super) fn literal_prefix(&self) -> &[u8] {
        match self.0.first() {
            Some(PatternPart::Literal(text)) => text.as_bytes(),
            _ => &[],
        }
    }

    /// Tells whether every value that starts with [`literal_prefix`](Self::literal_prefix) matches.
    pub(super) fn is_prefix(&self) -> bool {
        matches!(&self.0[..], [PatternPart::AnyText] | [PatternPart::Literal(_), PatternPart::AnyText])
    }

    /// Tells whether the pattern is `*`.
    pub(super) fn matches_all(&self) -> bool {
        self.0 == [PatternPart::AnyText]
    }

    /// Tells whether a value matches. Invalid UTF-8 does not.
    pub(super) fn matches(&self, value: &[u8]) -> bool {
        std::str::from_utf8(value).is_ok_and(|value| match_parts(&self.0, value))
    }
}

/// Backtracks to the last `*` only, which suffices. The time is at most the product of both lengths.
fn match_parts(pieces: &[PatternPart], value: &str) -> bool {
    let (mut at, mut rest) = (0, value);
    let mut star: Option<(usize, &str)> = None;
    loop {
        let stepped = match pieces.get(at) {
            None if rest.is_empty() => return true,
            None => None,
            Some(PatternPart::AnyText) => {
                star = Some((at + 1, rest));
                Some(rest)
            }
            Some(PatternPart::AnyChar) => rest.chars().next().map(|c| &rest[c.len_utf8()..]),
            Some(PatternPart::Literal(text)) => rest.strip_prefix(text.as_str()),
        };
        if let Some(after) = stepped {
            (at, rest) = (at + 1, after);
            continue;
        }
        let Some((after, from)) = star else { return false };
        let Some(c) = from.chars().next() else { return false };
        star = Some((after, &from[c.len_utf8()..]));
        (at, rest) = (after, &from[c.len_utf8()..]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcard_patterns_match_values() {
        let cases = [
            ("972*", "972598294121", true),
            ("972*", "0972", false),
            ("*-scanner", "friendly-scanner", true),
            ("f?iend*sc*er", "friendly-scanner", true),
            ("?", "é", true),
            ("?", "", false),
            ("a\\*b", "a*b", true),
            ("a\\*b", "axb", false),
            ("*a*b", "aab", true),
            ("*a*b", "aabc", false),
            ("", "", true),
            ("**", "", true),
        ];
        for (pattern, value, expected) in cases {
            assert_eq!(
                WildcardPattern::wildcard(pattern).matches(value.as_bytes()),
                expected,
                "{pattern} {value}"
            );
        }
        assert!(
            WildcardPattern::prefix("a*").matches(b"a*b") && !WildcardPattern::prefix("a*").matches(b"ab")
        );
    }
}
