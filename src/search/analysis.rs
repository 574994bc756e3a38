//! Text analysis: the tokens that Elasticsearch's standard analyzer produces. Pure code.
//!
//! Words are split by Unicode's annex 29 and lowercased; punctuation is dropped. An IPv4 address or a run of
//! digits is one token, `friendly-scanner` is two. In Han and Hiragana each character is a token; a run of
//! Thai, Lao, Khmer or Burmese is one token. Queries and documents use the same function, so a difference
//! from Lucene in a rare script loses no hits. Compared with Elasticsearch in
//! testdata/elasticsearch/tokens.jsonl.

use std::borrow::Cow;
use std::iter::Peekable;
use std::ops::Range;

use unicode_segmentation::{UWordBoundIndices, UnicodeSegmentation};

/// Maximum length of a token, in UTF-16 units as Lucene counts; longer ones are split.
pub const TOKEN_UNITS_MAX: usize = 255;

/// Distance between the positions of two values of a field; no phrase matches across it.
pub const VALUE_GAP: usize = 100;

/// Returns the lowercased tokens of a text in order. A token's position is its index.
pub fn tokens(text: &str) -> impl Iterator<Item = Cow<'_, str>> {
    TokenSegments::new(text).map(to_lowercase)
}

/// Returns the tokens of a text as parts of it, before they are lowercased.
pub(crate) fn segments(text: &str) -> impl Iterator<Item = &str> {
    TokenSegments::new(text)
}

/// Lowercases character by character, as Java's `Character.toLowerCase` does.
pub fn to_lowercase(text: &str) -> Cow<'_, str> {
    if text.is_ascii() {
        return match text.bytes().any(|byte| byte.is_ascii_uppercase()) {
            true => Cow::Owned(text.to_ascii_lowercase()),
            false => Cow::Borrowed(text),
        };
    }
    let changes = text.chars().any(|c| c.to_lowercase().next() != Some(c));
    match changes {
        // Only `İ` has a lowercase form of two characters; Java keeps the first.
        true => Cow::Owned(text.chars().map(|c| c.to_lowercase().next().unwrap_or(c)).collect()),
        false => Cow::Borrowed(text),
    }
}

/// Iterator over the tokens of a text, before lowercasing.
struct TokenSegments<'a> {
    text: &'a str,
    breaks: WordBreaks<'a>,
    /// Byte range of the current segment, which is being split into tokens.
    piece: Range<usize>,
    /// Start of the rest of the segment.
    at: usize,
}

impl<'a> TokenSegments<'a> {
    fn new(text: &'a str) -> TokenSegments<'a> {
        let breaks = match text.is_ascii() {
            true => WordBreaks::Ascii { from: 0 },
            false => WordBreaks::of_unicode(text),
        };
        TokenSegments { text, breaks, piece: 0..0, at: 0 }
    }

    /// Moves to the next segment between two word breaks.
    fn next_piece(&mut self) -> Option<()> {
        self.piece = match &mut self.breaks {
            WordBreaks::Ascii { from } => {
                let piece = next_ascii_piece(self.text.as_bytes(), *from)?;
                *from = piece.end;
                piece
            }
            WordBreaks::Unicode(breaks) => {
                let (start, mut last) = breaks.next()?;
                let mut end = start + last.len();
                while let Some((at, next)) = breaks.next_if(|(_, next)| joins(last, next)) {
                    (last, end) = (next, at + next.len());
                }
                start..end
            }
        };
        Some(())
    }
}

/// The word breaks of a text.
enum WordBreaks<'a> {
    /// The subset of the rules that applies to ASCII; the next segment starts at `from` or later.
    Ascii { from: usize },
    /// All rules of annex 29.
    Unicode(Peekable<UWordBoundIndices<'a>>),
}

impl<'a> WordBreaks<'a> {
    fn of_unicode(text: &'a str) -> WordBreaks<'a> {
        WordBreaks::Unicode(text.split_word_bound_indices().peekable())
    }
}

/// Returns the next segment of an ASCII text, at `from` or later, that can be a token. It consists of
/// letters, digits, `_`, and of single characters that split neither two letters nor two digits (annex 29,
/// WB5 to WB13b).
fn next_ascii_piece(text: &[u8], from: usize) -> Option<Range<usize>> {
    let is_inner = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    let start = from + text[from..].iter().position(is_inner)?;
    let mut end = start + 1;
    while let Some(byte) = text.get(end) {
        let around = (text[end - 1], text.get(end + 1).copied().unwrap_or_default());
        end += match byte {
            byte if is_inner(byte) => 1,
            b'.' | b'\''
                if both_are(around, u8::is_ascii_alphabetic) || both_are(around, u8::is_ascii_digit) =>
            {
                2
            }
            b':' if both_are(around, u8::is_ascii_alphabetic) => 2,
            b',' | b';' if both_are(around, u8::is_ascii_digit) => 2,
            _ => break,
        };
    }
    Some(start..end)
}

fn both_are((left, right): (u8, u8), is: impl Fn(&u8) -> bool) -> bool {
    is(&left) && is(&right)
}

impl<'a> Iterator for TokenSegments<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        loop {
            if self.at == self.piece.end {
                self.next_piece()?;
            }
            let rest = &self.text[self.at..self.piece.end];
            let word = &rest[..next_token_length(rest, self.at == self.piece.start)];
            self.at += word.len();
            if is_word(word) {
                return Some(word);
            }
        }
    }
}

/// True if Lucene keeps two segments together that Unicode's rules split.
fn joins(left: &str, right: &str) -> bool {
    let last = left.chars().next_back().is_some_and(needs_dictionary);
    last && right.chars().next().is_some_and(needs_dictionary)
}

/// Length in bytes of the next token in the rest of a segment. Lucene looks ahead no further than the maximum
/// token length, and starts over after each split.
fn next_token_length(rest: &str, whole: bool) -> usize {
    let mut units = 0;
    let within = |c: &char| {
        units += c.len_utf16();
        units <= TOKEN_UNITS_MAX
    };
    if whole && rest.len() <= TOKEN_UNITS_MAX {
        return rest.len();
    }
    let seen = &rest[..rest.chars().take_while(within).map(char::len_utf8).sum()];
    match whole && seen.len() == rest.len() || rest.starts_with(needs_dictionary) {
        true => seen.len(),
        false => seen.split_word_bounds().next().map_or(rest.len(), str::len),
    }
}

/// True if a segment is a token: letters, digits and pictographs are, punctuation and fractions are not.
fn is_word(piece: &str) -> bool {
    piece.bytes().any(|byte| byte.is_ascii_alphanumeric())
        || !piece.is_ascii()
            && (piece
                .chars()
                .any(|c| c.is_alphabetic() || is_digit(c) || is_kana_or_han(c) || is_pictographic(c))
                || piece.chars().filter(|c| matches!(c, '\u{1f1e6}'..='\u{1f1ff}')).count() == 2)
}

/// True for a decimal digit of any script: one that Unicode does not split from another digit. Fractions are
/// split.
fn is_digit(c: char) -> bool {
    c.is_numeric() && ['1', c].iter().collect::<String>().split_word_bounds().count() == 1
}

/// Token characters that are not letters: Katakana marks, Han radicals, and one Hebrew mark.
fn is_kana_or_han(c: char) -> bool {
    matches!(c, '\u{5f3}' | '\u{2e80}'..='\u{2fd5}' | '\u{309b}'..='\u{309c}' | '\u{30a0}'
        | '\u{32d0}'..='\u{32fe}' | '\u{3300}'..='\u{3357}')
}

/// Unicode's Extended_Pictographic, skin tone modifiers, and the enclosing keycap.
fn is_pictographic(c: char) -> bool {
    matches!(c, '\u{a9}' | '\u{ae}' | '\u{203c}' | '\u{2049}' | '\u{20e3}' | '\u{2122}' | '\u{2139}'
        | '\u{2194}'..='\u{2199}' | '\u{21a9}'..='\u{21aa}' | '\u{231a}'..='\u{231b}' | '\u{2328}' | '\u{2388}'
        | '\u{23cf}' | '\u{23e9}'..='\u{23f3}' | '\u{23f8}'..='\u{23fa}' | '\u{24c2}' | '\u{25aa}'..='\u{25ab}'
        | '\u{25b6}' | '\u{25c0}' | '\u{25fb}'..='\u{25fe}' | '\u{2600}'..='\u{2605}' | '\u{2607}'..='\u{2612}'
        | '\u{2614}'..='\u{2685}' | '\u{2690}'..='\u{2705}' | '\u{2708}'..='\u{2712}' | '\u{2714}' | '\u{2716}'
        | '\u{271d}' | '\u{2721}' | '\u{2728}' | '\u{2733}'..='\u{2734}' | '\u{2744}' | '\u{2747}' | '\u{274c}'
        | '\u{274e}' | '\u{2753}'..='\u{2755}' | '\u{2757}' | '\u{2763}'..='\u{2767}' | '\u{2795}'..='\u{2797}'
        | '\u{27a1}' | '\u{27b0}' | '\u{27bf}' | '\u{2934}'..='\u{2935}' | '\u{2b05}'..='\u{2b07}'
        | '\u{2b1b}'..='\u{2b1c}' | '\u{2b50}' | '\u{2b55}' | '\u{3030}' | '\u{303d}' | '\u{3297}' | '\u{3299}'
        | '\u{1f000}'..='\u{1f0ff}' | '\u{1f10d}'..='\u{1f10f}' | '\u{1f12f}' | '\u{1f16c}'..='\u{1f171}'
        | '\u{1f17e}'..='\u{1f17f}' | '\u{1f18e}' | '\u{1f191}'..='\u{1f19a}' | '\u{1f1ad}'..='\u{1f1e5}'
        | '\u{1f200}'..='\u{1f64f}' | '\u{1f680}'..='\u{1f6ff}' | '\u{1f774}'..='\u{1f77f}'
        | '\u{1f7d5}'..='\u{1f7ff}' | '\u{1f80c}'..='\u{1f80f}' | '\u{1f90c}'..='\u{1faff}')
}

/// Scripts written without spaces that only a dictionary could split (line break class SA).
fn needs_dictionary(c: char) -> bool {
    matches!(c, '\u{e01}'..='\u{e3a}' | '\u{e40}'..='\u{e4e}' | '\u{e81}'..='\u{ece}' | '\u{edc}'..='\u{edf}'
        | '\u{1000}'..='\u{103f}' | '\u{1050}'..='\u{108f}' | '\u{109a}'..='\u{109f}' | '\u{1780}'..='\u{17d3}'
        | '\u{17d7}' | '\u{17dc}'..='\u{17dd}' | '\u{1950}'..='\u{1974}' | '\u{1980}'..='\u{19c9}'
        | '\u{19da}'..='\u{19df}' | '\u{1a20}'..='\u{1aad}' | '\u{a9e0}'..='\u{a9ef}' | '\u{a9fa}'..='\u{a9fe}'
        | '\u{aa60}'..='\u{aac2}' | '\u{aadb}'..='\u{aadf}')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Known differences: characters newer than Lucene's Unicode 9, marks without a letter before them, and a
    /// letter or pictograph followed by a joiner or variation selector.
    const KNOWN_DIFFERENCES: [&str; 8] = [
        "\u{3006}",
        "a\u{200d}\u{1f600}",
        "\u{1f600}\u{fe0e}",
        "\u{1c90}",
        "\u{a7c4}",
        "\u{ff9e}",
        "\u{1b00}0",
        "\u{30000}",
    ];

    #[test]
    fn ascii_tokens_equal_unicode_tokens() {
        let signs = b"aZ09__..''::,,;;\"-@/ \t\r\n\0";
        let mut seed = 1_u64;
        let mut random = |below: usize| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) as usize % below
        };
        for _ in 0..200_000 {
            let length = random(12);
            let text: String = (0..length).map(|_| char::from(signs[random(signs.len())])).collect();
            let by_all = TokenSegments { breaks: WordBreaks::of_unicode(&text), ..TokenSegments::new(&text) };
            assert_eq!(TokenSegments::new(&text).collect::<Vec<_>>(), by_all.collect::<Vec<_>>(), "{text:?}");
        }
    }

    #[test]
    fn tokens_are_those_of_elasticsearch() {
        let golden =
            include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/elasticsearch/tokens.jsonl"));
        let (mut cases, mut differ) = (0, Vec::new());
        for line in golden.split('\n').filter(|line| !line.is_empty()) {
            let case: serde_json::Value = serde_json::from_str(line).unwrap();
            let (text, expected) = (case["text"].as_str().unwrap(), case["tokens"].as_array().unwrap());
            let expected: Vec<_> = expected.iter().map(|token| token[0].as_str().unwrap()).collect();
            let found: Vec<_> = tokens(text).collect();
            cases += 1;
            if (found == expected) == KNOWN_DIFFERENCES.contains(&text) {
                differ.push(format!("{text:?}: {expected:?}, not {found:?}"));
            }
        }
        assert!(
            cases > 600 && differ.is_empty(),
            "{} of {cases} differ:\n{}",
            differ.len(),
            differ.join("\n")
        );
    }
}
