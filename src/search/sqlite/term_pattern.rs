//! Patterns for the terms of a field: wildcards, regular expressions, similar words and areas. Pure.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use super::pattern::{WildcardMatcher, WildcardPattern};
use crate::search::geo::{GeoPoint, GeoShape};
use crate::search::regexp::Regexp;

/// A pattern that a term matches or not.
#[derive(Clone, Debug)]
pub(super) enum TermPattern {
    Wildcard(WildcardPattern),
    /// The literal parts are in lower case, and so is the term before it is compared.
    WildcardIgnoringCase(WildcardPattern),
    Regexp {
        text: String,
        ignores_case: bool,
        regexp: Arc<Regexp>,
    },
    Fuzzy(FuzzyPattern),
    Geo(GeoShape),
}

impl TermPattern {
    pub(super) fn regexp(text: &str, ignores_case: bool) -> Result<TermPattern, String> {
        let regexp = Arc::new(Regexp::new(text, ignores_case)?);
        Ok(TermPattern::Regexp { text: text.to_owned(), ignores_case, regexp })
    }

    pub(super) fn matches(&self, value: &[u8]) -> bool {
        self.matcher().matches(value)
    }

    /// Returns a matcher for many terms.
    pub(super) fn matcher(&self) -> TermMatcher<'_> {
        match self {
            TermPattern::Wildcard(pattern) => TermMatcher::Wildcard(pattern.matcher()),
            TermPattern::WildcardIgnoringCase(pattern) => TermMatcher::IgnoringCase(pattern.matcher()),
            TermPattern::Regexp { regexp, .. } => TermMatcher::Regexp(regexp),
            TermPattern::Fuzzy(pattern) => TermMatcher::Fuzzy(pattern),
            TermPattern::Geo(shape) => TermMatcher::Geo(shape),
        }
    }

    /// Returns the bytes that each matching term starts with.
    pub(super) fn literal_prefix(&self) -> &[u8] {
        match self {
            TermPattern::Wildcard(pattern) => pattern.literal_prefix(),
            TermPattern::Regexp { regexp, .. } => regexp.prefix().as_bytes(),
            TermPattern::Fuzzy(pattern) => pattern.prefix.as_bytes(),
            TermPattern::WildcardIgnoringCase(_) | TermPattern::Geo(_) => &[],
        }
    }

    /// What distinguishes two patterns.
    fn identity(&self) -> String {
        match self {
            TermPattern::Regexp { text, ignores_case, .. } => format!("regexp {ignores_case} {text}"),
            other => format!("{other:?}"),
        }
    }
}

/// Matches terms with a pattern.
pub(super) enum TermMatcher<'p> {
    Wildcard(WildcardMatcher<'p>),
    IgnoringCase(WildcardMatcher<'p>),
    Regexp(&'p Regexp),
    Fuzzy(&'p FuzzyPattern),
    Geo(&'p GeoShape),
}

impl TermMatcher<'_> {
    pub(super) fn matches(&self, value: &[u8]) -> bool {
        let text = || std::str::from_utf8(value);
        match self {
            TermMatcher::Wildcard(matcher) => matcher.matches(value),
            TermMatcher::IgnoringCase(matcher) => {
                text().is_ok_and(|text| matcher.matches(text.to_lowercase().as_bytes()))
            }
            TermMatcher::Regexp(regexp) => regexp.is_match(value),
            TermMatcher::Fuzzy(pattern) => text().is_ok_and(|text| pattern.matches(text)),
            TermMatcher::Geo(shape) => GeoPoint::decode(value).is_some_and(|point| shape.contains(point)),
        }
    }
}

impl PartialEq for TermPattern {
    fn eq(&self, other: &TermPattern) -> bool {
        self.identity() == other.identity()
    }
}

impl Eq for TermPattern {}

impl Hash for TermPattern {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.identity().hash(state);
    }
}

/// Words that differ from a word by a few characters.
#[derive(Clone, Debug)]
pub(super) struct FuzzyPattern {
    word: Vec<char>,
    /// The first characters, which have to be equal.
    prefix: String,
    /// Maximum number of characters that are inserted, removed, replaced or swapped.
    edits_max: usize,
    /// Two neighbours that are swapped count once.
    swaps: bool,
}

impl FuzzyPattern {
    pub(super) fn new(word: &str, edits_max: usize, prefix_chars: usize, swaps: bool) -> FuzzyPattern {
        let prefix = word.chars().take(prefix_chars).collect();
        FuzzyPattern { word: word.chars().collect(), prefix, edits_max, swaps }
    }

    fn matches(&self, value: &str) -> bool {
        let value: Vec<char> = value.chars().take(self.word.len() + self.edits_max + 1).collect();
        value.len().abs_diff(self.word.len()) <= self.edits_max && self.distance(&value) <= self.edits_max
    }

    /// Returns the optimal string alignment distance.
    fn distance(&self, value: &[char]) -> usize {
        let width = value.len() + 1;
        let mut before_last = vec![0; width];
        let mut last: Vec<usize> = (0..width).collect();
        for (row, c) in self.word.iter().enumerate() {
            let mut current = vec![row + 1; width];
            for column in 1..width {
                let other = value[column - 1];
                let replaced = last[column - 1] + usize::from(*c != other);
                current[column] = replaced.min(last[column] + 1).min(current[column - 1] + 1);
                let is_swap = self.swaps
                    && row > 0
                    && column > 1
                    && *c == value[column - 2]
                    && self.word[row - 1] == other;
                if is_swap {
                    current[column] = current[column].min(before_last[column - 2] + 1);
                }
            }
            before_last = last;
            last = current;
        }
        last[value.len()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn similar_words_match() {
        for (word, edits, prefix, value, expected) in [
            ("friendly", 2, 0, "frendly", true),
            ("friendly", 2, 0, "frindely", true),
            ("friendly", 1, 0, "frinedly", true),
            ("ab", 1, 0, "ba", true),
            ("ab", 0, 0, "ba", false),
            ("abc", 1, 0, "abcde", false),
            ("abc", 1, 0, "", false),
        ] {
            let pattern = FuzzyPattern::new(word, edits, prefix, true);
            assert_eq!(pattern.matches(value), expected, "{word} {value}");
        }
        assert!(!FuzzyPattern::new("ab", 1, 0, false).matches("ba"));
        let anywhere = TermPattern::Fuzzy(FuzzyPattern::new("abc", 1, 2, true));
        assert_eq!(anywhere.literal_prefix(), b"ab");
        assert_ne!(anywhere, TermPattern::Fuzzy(FuzzyPattern::new("abc", 1, 1, true)));
    }
}
