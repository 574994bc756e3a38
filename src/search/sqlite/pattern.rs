//! Patterns with `*` and `?`. Pure.

use std::collections::HashMap;

use memchr::memmem;

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

    /// Returns the pattern that only this text matches.
    pub(super) fn literal(text: &str) -> WildcardPattern {
        let mut pattern = WildcardPattern(Vec::new());
        text.chars().for_each(|c| pattern.push(c));
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
        self.matcher().matches(value)
    }

    /// Returns a matcher for many values.
    pub(super) fn matcher(&self) -> WildcardMatcher<'_> {
        let sections: Vec<&[PatternPart]> = self.0.split(|part| *part == PatternPart::AnyText).collect();
        let first = sections[0];
        let (last, middle) = match &sections[..] {
            [_, middle @ .., last] => (Some(*last), middle),
            _ => (None, &[][..]),
        };
        let middle =
            middle.iter().filter(|section| !section.is_empty()).map(|section| SectionFinder::new(section));
        WildcardMatcher { first, middle: middle.collect(), last }
    }
}

/// Matches values with a pattern. The time for a value is in proportion to its length, and with `?` between two `*` also to a
/// 64th of the length of the pattern.
pub(super) struct WildcardMatcher<'p> {
    /// What is before the first `*`.
    first: &'p [PatternPart],
    /// What is between two `*`.
    middle: Vec<SectionFinder<'p>>,
    /// What is after the last `*`. `None` without a `*`.
    last: Option<&'p [PatternPart]>,
}

impl WildcardMatcher<'_> {
    /// Tells whether a value matches. Invalid UTF-8 does not.
    pub(super) fn matches(&self, value: &[u8]) -> bool {
        let Ok(value) = std::str::from_utf8(value) else { return false };
        let Some(mut rest) = strip_start(value, self.first) else { return false };
        let Some(last) = self.last else { return rest.is_empty() };
        match strip_end(rest, last) {
            Some(before) => rest = before,
            None => return false,
        }
        for section in &self.middle {
            // The first occurrence is the best one: it leaves the most text for the sections after it.
            match section.find_end(rest) {
                Some(end) => rest = &rest[end..],
                None => return false,
            }
        }
        true
    }
}

/// Removes a section from the start of a value.
fn strip_start<'v>(value: &'v str, section: &[PatternPart]) -> Option<&'v str> {
    section.iter().try_fold(value, |rest, part| match part {
        PatternPart::Literal(text) => rest.strip_prefix(text.as_str()),
        PatternPart::AnyChar | PatternPart::AnyText => {
            let mut chars = rest.chars();
            chars.next().map(|_| chars.as_str())
        }
    })
}

/// Removes a section from the end of a value.
fn strip_end<'v>(value: &'v str, section: &[PatternPart]) -> Option<&'v str> {
    section.iter().rev().try_fold(value, |rest, part| match part {
        PatternPart::Literal(text) => rest.strip_suffix(text.as_str()),
        PatternPart::AnyChar | PatternPart::AnyText => {
            let mut chars = rest.chars();
            chars.next_back().map(|_| chars.as_str())
        }
    })
}

/// Finds the first occurrence of what is between two `*`.
enum SectionFinder<'p> {
    Literal(Box<memmem::Finder<'p>>),
    /// With `?`: all positions of the section are tried at once, one bit each (Baeza-Yates and Gonnet, 1992).
    Bits(Box<BitPositions>),
}

/// The positions of a section that accept a character.
struct BitPositions {
    /// Sets of positions. The first has the positions of `?`, which accept every character.
    sets: Vec<Vec<u64>>,
    /// The sets of ASCII characters and of other ones, by their number.
    of_ascii: [u16; 128],
    of_others: HashMap<char, u16>,
    length: usize,
}

impl BitPositions {
    fn new(positions: &[Option<char>]) -> BitPositions {
        let mut any = vec![0; positions.len().div_ceil(64)];
        let set = |bits: &mut Vec<u64>, at: usize| bits[at / 64] |= 1 << (at % 64);
        for (at, _) in positions.iter().enumerate().filter(|(_, c)| c.is_none()) {
            set(&mut any, at);
        }
        let mut found = BitPositions {
            sets: vec![any],
            of_ascii: [0; 128],
            of_others: HashMap::new(),
            length: positions.len(),
        };
        for (at, c) in positions.iter().enumerate() {
            let Some(c) = *c else { continue };
            let mut number = found.number_of(c);
            if number == 0 {
                // A section of 64 KiB can have as many different characters; the last ones share a set that accepts more.
                number = found.sets.len().min(usize::from(u16::MAX)) as u16;
                if usize::from(number) == found.sets.len() {
                    found.sets.push(found.sets[0].clone());
                }
                match found.of_ascii.get_mut(c as usize) {
                    Some(of_ascii) => *of_ascii = number,
                    None => drop(found.of_others.insert(c, number)),
                }
            }
            set(&mut found.sets[usize::from(number)], at);
        }
        found
    }

    fn number_of(&self, c: char) -> u16 {
        match self.of_ascii.get(c as usize) {
            Some(number) => *number,
            None => self.of_others.get(&c).copied().unwrap_or(0),
        }
    }

    /// Returns the end of the first occurrence.
    fn find_end(&self, value: &str) -> Option<usize> {
        // Bit n is set if the last n + 1 characters match the first n + 1 positions.
        let mut reached = vec![0_u64; self.sets[0].len()];
        let (last_word, last_bit) = ((self.length - 1) / 64, (self.length - 1) % 64);
        for (at, c) in value.char_indices() {
            let mut carry = 1;
            for (word, accepted) in reached.iter_mut().zip(&self.sets[usize::from(self.number_of(c))]) {
                let next = (*word << 1 | carry) & accepted;
                carry = *word >> 63;
                *word = next;
            }
            if reached[last_word] >> last_bit & 1 == 1 {
                return Some(at + c.len_utf8());
            }
        }
        None
    }
}

impl<'p> SectionFinder<'p> {
    fn new(section: &'p [PatternPart]) -> SectionFinder<'p> {
        if let [PatternPart::Literal(text)] = section {
            return SectionFinder::Literal(Box::new(memmem::Finder::new(text)));
        }
        let mut positions: Vec<Option<char>> = Vec::new();
        for part in section {
            match part {
                PatternPart::Literal(text) => positions.extend(text.chars().map(Some)),
                PatternPart::AnyChar | PatternPart::AnyText => positions.push(None),
            }
        }
        SectionFinder::Bits(Box::new(BitPositions::new(&positions)))
    }

    /// Returns the end of the first occurrence.
    fn find_end(&self, value: &str) -> Option<usize> {
        match self {
            SectionFinder::Literal(finder) => {
                finder.find(value.as_bytes()).map(|at| at + finder.needle().len())
            }
            SectionFinder::Bits(positions) => positions.find_end(value),
        }
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
            ("a", "ab", false),
            ("?", "ab", false),
            ("*?", "", false),
            ("*?", "é", true),
            ("?*?", "a", false),
            ("?*?", "ab", true),
            ("ab*ba", "aba", false),
            ("*a?c*", "xxabaéc", true),
            ("*a?c*", "xxabbcac", false),
            ("*a?c*a?c", "abcabc", true),
            ("*a?c*a?c", "abcbc", false),
            ("*?b?*", "aab", false),
            ("*?b?*", "aabé", true),
            ("**?**a", "aa", true),
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

    #[test]
    fn sections_longer_than_a_word_of_bits_match() {
        for length in [63, 64, 65, 127, 128, 129] {
            let section = format!("a{}b", "?".repeat(length - 2));
            let pattern = WildcardPattern::wildcard(&format!("*{section}*"));
            let value = |inner: usize| format!("xxa{}bxx", "c".repeat(inner));
            assert!(pattern.matches(value(length - 2).as_bytes()), "{length}");
            assert!(!pattern.matches(value(length - 3).as_bytes()), "{length}");
            assert!(!pattern.matches(value(length - 1).as_bytes()), "{length}");
        }
    }

    /// These took 75 s and more when each position of the value was tried alone.
    #[test]
    fn t3_long_patterns_take_time_in_proportion() {
        let value = "a".repeat(32 << 10);
        let half = "a".repeat(8 << 10);
        let start = std::time::Instant::now();
        for pattern in [
            format!("*{half}{half}b"),
            format!("*{half}b*"),
            format!("*{half}?b*"),
            format!("*{}b*", "a?".repeat(4 << 10)),
            format!("{}b", "*a".repeat(8 << 10)),
            format!("*{}b?*", "a*".repeat(4 << 10)),
        ] {
            let pattern = WildcardPattern::wildcard(&pattern);
            let matcher = pattern.matcher();
            for _ in 0..20 {
                assert!(!matcher.matches(value.as_bytes()));
            }
        }
        assert!(start.elapsed().as_secs() < 60, "{:?}", start.elapsed());
    }
}
