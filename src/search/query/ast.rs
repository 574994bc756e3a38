//! The syntax tree of a query. It contains fields and values as they were written; only the store knows the
//! type of a field and therefore how to analyze a text.

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
        /// Time zone of bounds that have none, in minutes east of UTC.
        zone_minutes: i32,
    },
    /// A token of the field starts with this prefix.
    Prefix { fields: FieldSelector, prefix: String },
    /// A token of the field matches the pattern: `*` stands for any characters, `?` for one, and a backslash
    /// escapes the next character.
    Wildcard { fields: FieldSelector, pattern: String },
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
