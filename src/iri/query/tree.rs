//! The tree that every question becomes. It names fields and values as they were asked; which type a field has, and so
//! which words a text is, only the store knows.

/// A question about documents.
#[derive(Clone, Debug, PartialEq)]
pub enum Query {
    /// All documents.
    All,
    /// No document.
    None,
    /// The text's words are in the field, all of them or one (`field:text`, `match`); of several fields, all of them in
    /// one field. In a field that is no text the value itself is looked for.
    Match {
        /// Where.
        fields: Fields,
        /// What; not yet taken apart.
        text: String,
        /// All words, or one.
        operator: Operator,
    },
    /// The text's words stand in the field, one behind the other (`"a b"`, `match_phrase`).
    Phrase {
        /// Where.
        fields: Fields,
        /// What; not yet taken apart.
        text: String,
    },
    /// The field has exactly this value (`term`); a text is not taken apart.
    Term {
        /// The field's full name.
        field: String,
        /// The value.
        value: Value,
    },
    /// The field has a value between these.
    Range {
        /// Where.
        fields: Fields,
        /// The lower end.
        from: Bound,
        /// The upper end.
        to: Bound,
        /// A `format` for dates, where one was given.
        format: Option<String>,
        /// A `time_zone` for dates without one: minutes east of UTC.
        zone_minutes: i32,
    },
    /// A word of the field begins so.
    Prefix {
        /// Where.
        fields: Fields,
        /// How.
        prefix: String,
    },
    /// A word of the field looks so: `*` any characters, `?` one; behind a backslash each character means itself.
    Wildcard {
        /// Where.
        fields: Fields,
        /// How.
        pattern: String,
    },
    /// The field has a value.
    Exists {
        /// The field's full name, or a pattern of names.
        field: String,
    },
    /// One of these ids.
    Ids(Vec<String>),
    /// All of `must` and `filter`, none of `must_not`, and so many of `should`.
    Bool {
        /// All of these. Filters are among them: nothing is scored.
        must: Vec<Query>,
        /// So many of these.
        should: Vec<Query>,
        /// None of these.
        must_not: Vec<Query>,
        /// How many of `should`, 0 to its length.
        should_min: usize,
    },
    /// What this asks; but a value that does not fit its field's type, which elsewhere is an error, fits no document.
    Lenient(Box<Query>),
}

/// Which fields are asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fields {
    /// All of the index.
    All,
    /// These; a name may be a pattern with `*`.
    Named(Vec<String>),
}

/// How many of a text's words there must be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Operator {
    /// One of them.
    #[default]
    Or,
    /// All of them.
    And,
}

/// A value as it was asked for.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A string; for a number field it is read as one.
    Text(String),
    /// An integer.
    Long(i64),
    /// Any other number.
    Double(f64),
    /// `true` or `false`.
    Bool(bool),
}

/// An end of a range.
#[derive(Clone, Debug, PartialEq)]
pub enum Bound {
    /// Open.
    Open,
    /// This value, itself too.
    Included(Value),
    /// This value, itself not.
    Excluded(Value),
}
