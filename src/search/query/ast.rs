//! The syntax tree of a query. It contains fields and values as they were written; only the store knows the
//! type of a field and therefore how to analyze a text.

use crate::search::date::TimeZone;
use crate::search::geo::GeoShape;

/// A query.
#[derive(Clone, Debug, PartialEq)]
pub enum Query {
    /// Matches every document.
    All,
    /// Matches no document.
    None,
    /// The field contains the tokens of the text, all or any of them (`field:text`, `match`). With several
    /// fields, one of them must contain all. A field that is not text must have this value.
    Match {
        fields: FieldSelector,
        /// The text before analysis.
        text: String,
        operator: Operator,
    },
    /// The field contains the tokens of the text next to each other (`"a b"`, `match_phrase`).
    Phrase {
        fields: FieldSelector,
        /// The text before analysis.
        text: String,
    },
    /// The field has exactly this value, which is not analyzed (`term`).
    Term {
        /// Full field name.
        field: String,
        value: QueryValue,
    },
    /// The field has a value in this range.
    Range {
        fields: FieldSelector,
        from: Bound,
        to: Bound,
        /// Date format of the bounds, if one was given.
        format: Option<String>,
        /// Time zone of bounds that have none.
        zone: TimeZone,
    },
    /// A token of the field starts with this prefix.
    Prefix { fields: FieldSelector, prefix: String },
    /// A token of the field matches the pattern: `*` stands for any characters, `?` for one, and a backslash
    /// escapes the next character.
    Wildcard { fields: FieldSelector, pattern: String },
    /// At least this number of the tokens are in the field: `2`, `-1`, `75%` ([`minimum_count`]).
    ///
    /// [`minimum_count`]: super::query_dsl::minimum_count
    MatchAtLeast { fields: FieldSelector, text: String, minimum: String },
    /// The tokens are near each other: they can be moved by `slop` places in total.
    NearPhrase { fields: FieldSelector, text: String, slop: u32 },
    /// A phrase whose last token is a prefix.
    PhrasePrefix { fields: FieldSelector, text: String, slop: u32 },
    /// The field contains tokens that are similar to those of the text.
    Fuzzy { fields: FieldSelector, text: String, operator: Operator, fuzziness: Fuzziness },
    /// A token of the field matches the pattern, which is not normalized.
    Pattern { fields: FieldSelector, pattern: TokenPattern, ignores_case: bool },
    /// The field has a point in this area.
    Geo {
        field: String,
        shape: GeoShape,
        /// False: an unknown field is an error.
        ignores_unmapped: bool,
    },
    /// The field has a value.
    Exists {
        /// Full field name, or a pattern.
        field: String,
    },
    /// The document has one of these ids.
    Ids(Vec<String>),
    /// Matches all of `must`, none of `must_not` and at least `should_min` of `should`.
    Bool {
        /// Includes filters, because nothing is scored.
        must: Vec<Query>,
        should: Vec<Query>,
        must_not: Vec<Query>,
        /// Minimum number of clauses in `should` that must match; at most its length.
        should_min: usize,
    },
    /// Like the inner query, but a value that does not fit its field's type matches nothing instead of being
    /// an error.
    Lenient(Box<Query>),
}

/// A pattern for tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenPattern {
    /// The whole token.
    Exact(String),
    Prefix(String),
    /// `*`, `?` and backslashes as in [`Query::Wildcard`].
    Wildcard(String),
    /// A regular expression of Lucene.
    Regexp(String),
}

/// How similar tokens have to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fuzziness {
    /// Maximum number of edits. `None`: depends on the length of the token (`AUTO`).
    pub edits_max: Option<u8>,
    /// Lengths from which on `AUTO` allows one and two edits.
    pub auto_lengths: (usize, usize),
    /// Number of first characters that have to be equal.
    pub prefix_chars: usize,
    /// Swapped neighbours count as one edit.
    pub swaps: bool,
}

impl Default for Fuzziness {
    fn default() -> Fuzziness {
        Fuzziness { edits_max: None, auto_lengths: (3, 6), prefix_chars: 0, swaps: true }
    }
}

impl Fuzziness {
    /// Returns the maximum number of edits of a token.
    pub(crate) fn edits_of(&self, token: &str) -> usize {
        let chars = token.chars().count();
        match self.edits_max {
            Some(edits) => usize::from(edits),
            None => usize::from(chars >= self.auto_lengths.0) + usize::from(chars >= self.auto_lengths.1),
        }
    }

    /// Parses `AUTO`, `AUTO:3,6` or a number of edits up to 2.
    pub(crate) fn parse(text: &str) -> Option<Fuzziness> {
        let upper = text.to_ascii_uppercase();
        if let Some(rest) = upper.strip_prefix("AUTO") {
            let Some(lengths) = rest.strip_prefix(':') else {
                return rest.is_empty().then(Fuzziness::default);
            };
            let (low, high) = lengths.split_once(',')?;
            let auto_lengths = (low.trim().parse().ok()?, high.trim().parse().ok()?);
            return (auto_lengths.0 <= auto_lengths.1)
                .then(|| Fuzziness { auto_lengths, ..Fuzziness::default() });
        }
        let edits: f64 = text.parse().ok()?;
        let is_valid = (0.0..=2.0).contains(&edits) && edits.fract() == 0.0;
        is_valid.then(|| Fuzziness { edits_max: Some(edits as u8), ..Fuzziness::default() })
    }
}

/// The fields that a clause searches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FieldSelector {
    /// All fields of the index.
    All,
    /// These fields; a name can be a pattern with `*`.
    Named(Vec<String>),
}

/// Whether any or all tokens of a text are required.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Operator {
    #[default]
    Or,
    And,
}

/// A value of a query.
#[derive(Clone, Debug, PartialEq)]
pub enum QueryValue {
    /// A string; a numeric field parses it.
    Text(String),
    Long(i64),
    Double(f64),
    Bool(bool),
}

/// A bound of a range.
#[derive(Clone, Debug, PartialEq)]
pub enum Bound {
    Open,
    Included(QueryValue),
    Excluded(QueryValue),
}
