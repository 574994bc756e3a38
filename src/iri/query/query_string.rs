//! The `query_string` language (what stands in `q=`) into a [`Query`]. Pure.
//!
//! It is read as Elasticsearch 7.17 reads it, on Lucene's classic query parser: AND, OR and NOT are no operators with
//! a precedence, they make the clauses beside them required, optional or prohibited, as `+` and `-` do. So
//! `a OR b AND c` finds what has b and c. Words beside each other without an operator are one text
//! ([`Query::Match`]), which each field takes apart in its own way. Fuzziness, proximity and regular expressions are
//! refused; boosts are read and do nothing.

use super::lex::{Kind, Word, words};
use super::{Bound, Fields, Operator, Query, QueryError, Value};

/// A query string's bytes.
pub const QUERY_BYTES_MAX: usize = 32 << 10;

/// Groups within groups. Elasticsearch has no bound but its stack.
pub const NESTING_MAX: usize = 64;

/// Clauses of one group, as in Elasticsearch; words of one text count each.
pub const CLAUSES_MAX: usize = 1024;

/// How a query string is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// What is asked where no field is named (`df`).
    pub fields: Fields,
    /// What stands between clauses that have no operator between them.
    pub operator: Operator,
    /// Whether values that do not fit their field's type are no error. `None`: where all fields are asked.
    pub lenient: Option<bool>,
}

impl Default for Options {
    fn default() -> Options {
        Options { fields: Fields::All, operator: Operator::Or, lenient: None }
    }
}

/// Reads a query string.
pub fn parse(text: &str, options: &Options) -> Result<Query, QueryError> {
    if text.len() > QUERY_BYTES_MAX {
        let cause = format!("it is longer than {QUERY_BYTES_MAX} bytes");
        return Err(QueryError::query_string(text, QUERY_BYTES_MAX, &cause));
    }
    if text.bytes().all(|byte| byte <= b' ') {
        return Ok(Query::None);
    }
    let mut parser = Parser { text, words: words(text)?, at: 0, options };
    let query = parser.clauses(None, 0)?;
    let rest = parser.word();
    if rest.kind != Kind::End {
        return Err(parser.unexpected("the end or another clause"));
    }
    Ok(match options.lenient.unwrap_or(asks_all(&options.fields)) {
        true => Query::Lenient(Box::new(query)),
        false => query,
    })
}

fn asks_all(fields: &Fields) -> bool {
    match fields {
        Fields::All => true,
        Fields::Named(names) => names.iter().any(|name| name == "*"),
    }
}

/// Reads words one by one; never goes back.
struct Parser<'a> {
    text: &'a str,
    words: Vec<Word>,
    at: usize,
    options: &'a Options,
}

#[derive(Clone, Copy, PartialEq)]
enum Occur {
    Must,
    Should,
    MustNot,
}

impl Parser<'_> {
    fn word(&self) -> Word {
        self.ahead(0)
    }

    fn ahead(&self, words: usize) -> Word {
        self.words[(self.at + words).min(self.words.len() - 1)]
    }

    fn take(&mut self, kind: Kind) -> bool {
        let fits = self.word().kind == kind;
        self.at += usize::from(fits);
        fits
    }

    fn image(&self, word: Word) -> &str {
        &self.text[word.start..word.end]
    }

    fn refuse(&self, word: Word, cause: &str) -> QueryError {
        QueryError::query_string(self.text, word.start, cause)
    }

    fn unexpected(&self, expected: &str) -> QueryError {
        let word = self.word();
        let found = match word.kind {
            Kind::End => "it ends".to_owned(),
            _ => format!("there is [{}]", self.image(word)),
        };
        self.refuse(word, &format!("{found} where {expected} was expected"))
    }

    /// The clauses of a group, or of the whole: one at least.
    fn clauses(&mut self, field: Option<&str>, depth: usize) -> Result<Query, QueryError> {
        let (mut clauses, mut count) = (Vec::new(), 0);
        let begin = self.word();
        loop {
            let (conjunction, first) = (self.conjunction(), count == 0);
            if first && conjunction.is_some() {
                self.at -= 1;
                return Err(self.unexpected("a term, a phrase, a range or a group"));
            }
            let texts = if conjunction.is_none() { self.texts() } else { 0 };
            if texts > 1 {
                let default = self.occur(None, None);
                let text = self.text_of(texts)?;
                clauses.push((default, self.field_query(field, text)));
            } else {
                let modifier = self.modifier();
                let query = self.clause(field, depth)?;
                if conjunction == Some(Operator::And) || self.is_or_under_and(conjunction) {
                    let changed =
                        if conjunction == Some(Operator::And) { Occur::Must } else { Occur::Should };
                    if let Some((occur, _)) = clauses.last_mut().filter(|(occur, _)| *occur != Occur::MustNot)
                    {
                        *occur = changed;
                    }
                }
                clauses.push((self.occur(conjunction, modifier), query));
            }
            count += texts.max(1);
            if count > CLAUSES_MAX {
                return Err(self.refuse(begin, &format!("more than {CLAUSES_MAX} clauses")));
            }
            if matches!(self.word().kind, Kind::End | Kind::GroupEnd) {
                return Ok(together(clauses));
            }
        }
    }

    fn conjunction(&mut self) -> Option<Operator> {
        match self.word().kind {
            Kind::And => {
                self.at += 1;
                Some(Operator::And)
            }
            Kind::Or => {
                self.at += 1;
                Some(Operator::Or)
            }
            _ => None,
        }
    }

    /// OR takes back that the clause before it is required by default.
    fn is_or_under_and(&self, conjunction: Option<Operator>) -> bool {
        self.options.operator == Operator::And && conjunction == Some(Operator::Or)
    }

    fn modifier(&mut self) -> Option<Occur> {
        let modifier = match self.word().kind {
            Kind::Plus => Occur::Must,
            Kind::Minus | Kind::Not => Occur::MustNot,
            _ => return None,
        };
        self.at += 1;
        Some(modifier)
    }

    fn occur(&self, conjunction: Option<Operator>, modifier: Option<Occur>) -> Occur {
        match (modifier, conjunction, self.options.operator) {
            (Some(Occur::MustNot), ..) => Occur::MustNot,
            (_, Some(Operator::Or), Operator::And) => Occur::Should,
            (Some(Occur::Must), ..) | (_, Some(Operator::And), _) | (.., Operator::And) => Occur::Must,
            _ => Occur::Should,
        }
    }

    /// How many terms from here are one text: those that no operator, colon or boost follows.
    fn texts(&self) -> usize {
        if self.word().kind != Kind::Term {
            return 0;
        }
        let ends = |kind| matches!(kind, Kind::Colon | Kind::Star | Kind::Caret | Kind::And | Kind::Or);
        let follows =
            |words: &usize| self.ahead(*words).kind == Kind::Term && !ends(self.ahead(*words + 1).kind);
        1 + (1..).take_while(follows).count()
    }

    /// So many terms, with a blank between them.
    fn text_of(&mut self, terms: usize) -> Result<String, QueryError> {
        let mut text = String::new();
        for _ in 0..terms {
            if !text.is_empty() {
                text.push(' ');
            }
            let word = self.word();
            text.push_str(&self.unescaped(word, self.image(word))?);
            self.at += 1;
        }
        Ok(text)
    }

    /// `[field:] (term | phrase | range | group)`, a boost behind it.
    fn clause(&mut self, field: Option<&str>, depth: usize) -> Result<Query, QueryError> {
        let named = match (self.word().kind, self.ahead(1).kind) {
            (Kind::Term, Kind::Colon) => Some(self.unescaped(self.word(), self.image(self.word()))?),
            (Kind::Star, Kind::Colon) => Some("*".to_owned()),
            _ => None,
        };
        if named.is_some() {
            self.at += 2;
        }
        let field = named.as_deref().or(field);
        let word = self.word();
        self.at += 1;
        let query = match word.kind {
            Kind::GroupStart => self.group(field, word, depth)?,
            Kind::Term => self.field_query(field, self.unescaped(word, self.image(word))?),
            Kind::BareOperator => self.field_query(field, self.text[word.start..=word.start].to_owned()),
            Kind::Star | Kind::Wildcard => {
                self.unescaped(word, self.image(word))?; // refuses what is no escape
                self.wildcard(field, self.image(word))
            }
            Kind::Prefix => {
                let prefix = self.unescaped(word, &self.text[word.start..word.end - 1])?;
                Query::Prefix { fields: self.fields(field), prefix }
            }
            Kind::Quoted => {
                let text = self.unescaped(word, &self.text[word.start + 1..word.end - 1])?;
                self.phrase(field, text)
            }
            Kind::RangeStartIncluded | Kind::RangeStartExcluded => self.range(field, word)?,
            _ => {
                self.at -= 1;
                return Err(self.unexpected("a term, a phrase, a range or a group"));
            }
        };
        if self.take(Kind::Caret) && !self.take(Kind::Number) {
            return Err(self.unexpected("a number"));
        }
        Ok(query)
    }

    fn group(&mut self, field: Option<&str>, begin: Word, depth: usize) -> Result<Query, QueryError> {
        if depth == NESTING_MAX {
            return Err(self.refuse(begin, &format!("more than {NESTING_MAX} groups within each other")));
        }
        let query = self.clauses(field, depth + 1)?;
        match self.take(Kind::GroupEnd) {
            true => Ok(query),
            false => Err(self.unexpected("the end of the group")),
        }
    }

    fn range(&mut self, field: Option<&str>, begin: Word) -> Result<Query, QueryError> {
        let from = self.range_value()?;
        if !self.take(Kind::RangeTo) {
            return Err(self.unexpected("TO"));
        }
        let to = self.range_value()?;
        let included = match self.word().kind {
            Kind::RangeEndIncluded => true,
            Kind::RangeEndExcluded => false,
            _ => return Err(self.unexpected("the end of the range")),
        };
        self.at += 1;
        let from = bound(from, begin.kind == Kind::RangeStartIncluded);
        Ok(self.range_query(field, from, bound(to, included)))
    }

    fn range_value(&mut self) -> Result<String, QueryError> {
        let word = self.word();
        let value = match word.kind {
            Kind::RangeValue | Kind::RangeTo => self.unescaped(word, self.image(word))?,
            Kind::RangeQuoted => self.unescaped(word, &self.text[word.start + 1..word.end - 1])?,
            _ => return Err(self.unexpected("a value")),
        };
        self.at += 1;
        Ok(value)
    }

    fn fields(&self, field: Option<&str>) -> Fields {
        match field {
            Some("*") => Fields::All,
            Some(name) => Fields::Named(vec![name.to_owned()]),
            None => self.options.fields.clone(),
        }
    }

    /// The one field that is asked, where it is one.
    fn single<'a>(&'a self, field: Option<&'a str>) -> Option<&'a str> {
        match (field, &self.options.fields) {
            (Some(name), _) => Some(name),
            (None, Fields::All) => Some("*"),
            (None, Fields::Named(names)) if names.len() == 1 => Some(&names[0]),
            _ => None,
        }
    }

    fn range_query(&self, field: Option<&str>, from: Bound, to: Bound) -> Query {
        Query::Range { fields: self.fields(field), from, to, format: None, zone_minutes: 0 }
    }

    fn field_query(&self, field: Option<&str>, text: String) -> Query {
        let single = self.single(field);
        if single == Some("_exists_") {
            return Query::Exists { field: text };
        }
        let (sign, rest) = match text.chars().next() {
            Some(sign @ ('<' | '>')) if single.is_some() => (sign, &text[1..]),
            _ => return Query::Match { fields: self.fields(field), text, operator: self.options.operator },
        };
        // `>=` alone is `>` and the value `=`.
        let (value, included) = match rest.strip_prefix('=').filter(|value| !value.is_empty()) {
            Some(value) => (value, true),
            None => (rest, false),
        };
        match sign {
            _ if rest.is_empty() => {
                Query::Match { fields: self.fields(field), text, operator: self.options.operator }
            }
            '>' => self.range_query(field, bound(value.to_owned(), included), Bound::Open),
            _ => self.range_query(field, Bound::Open, bound(value.to_owned(), included)),
        }
    }

    fn phrase(&self, field: Option<&str>, text: String) -> Query {
        match self.single(field) {
            Some("_exists_") => Query::Exists { field: text },
            _ => Query::Phrase { fields: self.fields(field), text },
        }
    }

    fn wildcard(&self, field: Option<&str>, pattern: &str) -> Query {
        let exists = |field: &str| Query::Exists { field: field.to_owned() };
        match (pattern, self.single(field), &self.options.fields) {
            ("*", Some("*"), _) => Query::All,
            ("*", Some(name), _) => exists(name),
            ("*", None, Fields::Named(names)) => Query::Bool {
                must: Vec::new(),
                should: names.iter().map(|name| exists(name)).collect(),
                must_not: Vec::new(),
                should_min: 1,
            },
            _ => Query::Wildcard { fields: self.fields(field), pattern: pattern.to_owned() },
        }
    }

    /// Without the backslashes; `\u0041` is A.
    fn unescaped(&self, word: Word, image: &str) -> Result<String, QueryError> {
        if !image.contains('\\') {
            return Ok(image.to_owned());
        }
        // Two escapes may be one character (a surrogate pair), so units are gathered and not characters.
        let (mut units, mut rest) = (Vec::with_capacity(image.len()), image.chars());
        while let Some(c) = rest.next() {
            match if c == '\\' { rest.next() } else { Some(c) } {
                Some('u') if c == '\\' => {
                    let digits =
                        rest.as_str().get(..4).filter(|text| text.bytes().all(|b| b.is_ascii_hexdigit()));
                    let unit = digits.and_then(|digits| u16::from_str_radix(digits, 16).ok());
                    units.push(
                        unit.ok_or_else(|| self.refuse(word, "\\u is not followed by four hex digits"))?,
                    );
                    rest = rest.as_str()[4..].chars();
                }
                Some(c) => units.extend_from_slice(c.encode_utf16(&mut [0; 2])),
                None => return Err(self.refuse(word, "nothing follows the backslash")),
            }
        }
        Ok(String::from_utf16_lossy(&units))
    }
}

fn bound(value: String, included: bool) -> Bound {
    match (value.as_str(), included) {
        ("*", _) => Bound::Open,
        (_, true) => Bound::Included(Value::Text(value)),
        (_, false) => Bound::Excluded(Value::Text(value)),
    }
}

/// One query of all clauses. Optional ones count only where none is required.
fn together(mut clauses: Vec<(Occur, Query)>) -> Query {
    if clauses.len() == 1 && clauses[0].0 != Occur::MustNot {
        return clauses.remove(0).1;
    }
    let (mut must, mut should, mut must_not) = (Vec::new(), Vec::new(), Vec::new());
    for (occur, query) in clauses {
        match occur {
            Occur::Must => must.push(query),
            Occur::Should => should.push(query),
            Occur::MustNot => must_not.push(query),
        }
    }
    let should_min = usize::from(must.is_empty() && !should.is_empty());
    Query::Bool { must, should, must_not, should_min }
}

/// Whether all patterns are of letters and digits alone: `analyze_wildcard` makes no difference to these.
pub(super) fn has_plain_patterns(query: &Query) -> bool {
    let plain = |pattern: &str| pattern.chars().all(|c| c.is_ascii_alphanumeric() || c == '*' || c == '?');
    match query {
        Query::Prefix { prefix: pattern, .. } | Query::Wildcard { pattern, .. } => plain(pattern),
        Query::Bool { must, should, must_not, .. } => {
            must.iter().chain(should).chain(must_not).all(has_plain_patterns)
        }
        Query::Lenient(query) => has_plain_patterns(query),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::iri::query::token::{lower, tokens};

    /// The default field is `t`, and values of another type are errors.
    fn options(operator: Operator) -> Options {
        Options { fields: Fields::Named(vec!["t".into()]), operator, lenient: None }
    }

    #[track_caller]
    fn check_tree(text: &str, expected: &str) {
        assert_eq!(parse(text, &options(Operator::Or)).unwrap().to_string(), expected, "{text}");
    }

    #[track_caller]
    fn check_refused(text: &str, position: usize, cause: &str) {
        let error = parse(text, &options(Operator::Or)).unwrap_err();
        assert_eq!(error.kind, "query_shard_exception");
        assert_eq!(
            (error.position, error.cause),
            (Some(position), Some(format!("{cause}, at character {position}")))
        );
    }

    #[test]
    fn trees() {
        let table = [
            ("a", r#"any(t "a")"#),
            ("a b", r#"any(t "a b")"#),
            ("a AND b", r#"(+any(t "a") +any(t "b"))"#),
            ("a && b", r#"(+any(t "a") +any(t "b"))"#),
            ("a&&b", r#"any(t "a&&b")"#),
            ("a OR b", r#"(any(t "a") any(t "b"))"#),
            ("a || b", r#"(any(t "a") any(t "b"))"#),
            ("a OR b AND c", r#"(+any(t "b") +any(t "c") any(t "a"))"#),
            ("a AND b OR c", r#"(+any(t "a") +any(t "b") any(t "c"))"#),
            ("a b AND c", r#"(+any(t "b") +any(t "c") any(t "a"))"#),
            ("a b c AND d", r#"(+any(t "c") +any(t "d") any(t "a b"))"#),
            ("a AND (b OR c)", r#"(+any(t "a") +(any(t "b") any(t "c")))"#),
            ("((a))", r#"any(t "a")"#),
            ("+a -b c", r#"(+any(t "a") any(t "c") -any(t "b"))"#),
            ("-a", r#"(-any(t "a"))"#),
            ("NOT a", r#"(-any(t "a"))"#),
            ("!a", r#"(-any(t "a"))"#),
            ("! a", r#"(any(t "!") any(t "a"))"#),
            ("a NOT b", r#"(any(t "a") -any(t "b"))"#),
            ("a AND NOT b", r#"(+any(t "a") -any(t "b"))"#),
            ("a - b", r#"(any(t "a") any(t "-") any(t "b"))"#),
            ("a-b", r#"any(t "a-b")"#),
            ("friendly-scanner", r#"any(t "friendly-scanner")"#),
            ("destNum:9011972598294121", r#"any(destNum "9011972598294121")"#),
            ("f:(a OR b)", r#"(any(f "a") any(f "b"))"#),
            ("f:(a b)", r#"any(f "a b")"#),
            ("f:(a g:b)", r#"(any(f "a") any(g "b"))"#),
            ("f: a", r#"any(f "a")"#),
            ("f:a b", r#"(any(f "a") any(t "b"))"#),
            (r#""a b""#, r#"phrase(t "a b")"#),
            (r#"f:"a \"b\"""#, r#"phrase(f "a \"b\"")"#),
            (r#""a b" c"#, r#"(phrase(t "a b") any(t "c"))"#),
            ("972*", r#"prefix(t "972")"#),
            ("*abc", r#"wildcard(t "*abc")"#),
            ("a?c", r#"wildcard(t "a?c")"#),
            (r"a\**", r#"prefix(t "a*")"#),
            (r"a\*?", r#"wildcard(t "a\\*?")"#),
            ("*", "exists(t)"),
            ("f:*", "exists(f)"),
            ("*:*", "all"),
            ("*:a", r#"any(* "a")"#),
            (r"book.\*:x", r#"any(book.* "x")"#),
            (r"book.\*:*", "exists(book.*)"),
            ("_exists_:f", "exists(f)"),
            (r#"_exists_:"f""#, "exists(f)"),
            ("f:[a TO b]", r#"range(f ["a" TO "b"])"#),
            ("f:{a TO *}", r#"range(f {"a" TO *])"#),
            ("f:[a TO b}", r#"range(f ["a" TO "b"})"#),
            (r#"f:["a b" TO "*"]"#, r#"range(f ["a b" TO *])"#),
            ("f:[TO TO TO]", r#"range(f ["TO" TO "TO"])"#),
            ("f:>5", r#"range(f {"5" TO *])"#),
            ("f:>=5", r#"range(f ["5" TO *])"#),
            ("f:<5", r#"range(f [* TO "5"})"#),
            ("f:<=5", r#"range(f [* TO "5"])"#),
            ("<=5", r#"range(t [* TO "5"])"#),
            ("f:>", r#"any(f ">")"#),
            (r"f:\-5", r#"any(f "-5")"#),
            (r"a\ b", r#"any(t "a b")"#),
            (r"sip\:100", r#"any(t "sip:100")"#),
            (r"\u0041\ud83d\ude00", "any(t \"A\u{1f600}\")"),
            ("a^2 b^0.5", r#"(any(t "a") any(t "b"))"#),
            ("(a b)^2 c", r#"(any(t "a b") any(t "c"))"#),
            ("AND*", r#"prefix(t "AND")"#),
            ("and", r#"any(t "and")"#),
            ("", "none"),
            ("  ", "none"),
        ];
        for (text, expected) in table {
            check_tree(text, expected);
        }
        let all = |text| parse(text, &Options::default()).unwrap().to_string();
        assert_eq!(all("*"), "lenient all");
        assert_eq!(all("a >5"), r#"lenient any(* "a >5")"#);
        assert_eq!(all(">5"), r#"lenient range(* {"5" TO *])"#);
        let every = |text| parse(text, &options(Operator::And)).unwrap().to_string();
        assert_eq!(every("a b"), r#"every(t "a b")"#);
        assert_eq!(every("a AND b OR c"), r#"(+every(t "a") every(t "b") every(t "c"))"#);
        let two = Options { fields: Fields::Named(vec!["t".into(), "k".into()]), ..Options::default() };
        assert_eq!(parse("*", &two).unwrap().to_string(), "(exists(t) exists(k))");
        assert_eq!(parse(">5", &two).unwrap().to_string(), r#"any(t,k ">5")"#);
    }

    #[test]
    fn refusals_say_why_and_where() {
        check_refused("a~", 1, "fuzziness and proximity (~) are not supported");
        check_refused("\"a b\"~2", 5, "fuzziness and proximity (~) are not supported");
        let regexp = "regular expressions are not supported (a '/' that is meant itself is escaped: \\/)";
        check_refused("é:/a/", 2, regexp);
        check_refused("192.0.2.0/24", 9, regexp);
        check_refused("(a", 2, "it ends where the end of the group was expected");
        check_refused("a)", 1, "there is [)] where the end or another clause was expected");
        check_refused("a AND", 5, "it ends where a term, a phrase, a range or a group was expected");
        check_refused("OR a", 0, "there is [OR] where a term, a phrase, a range or a group was expected");
        check_refused("f:[1 2]", 5, "there is [2] where TO was expected");
        check_refused("\"a", 0, "a quote has no end");
        check_refused("a\\", 1, "nothing follows the backslash");
        check_refused("b \\u00", 2, "\\u is not followed by four hex digits");
        check_refused("a^x", 2, "no number follows '^'");
        check_refused("a]", 1, "a range ends that did not begin");
    }

    #[test]
    fn limits_hold_on_both_sides() {
        let parses = |text: &str| parse(text, &options(Operator::Or));
        assert!(parses(&"a".repeat(QUERY_BYTES_MAX)).is_ok());
        let error = parses(&"a".repeat(QUERY_BYTES_MAX + 1)).unwrap_err();
        assert!(
            error.cause.unwrap().starts_with("it is longer than 32768 bytes") && error.reason.len() < 1100
        );
        let nested = |depth: usize| format!("{}a{}", "(".repeat(depth), ")".repeat(depth));
        assert!(parses(&nested(NESTING_MAX)).is_ok());
        assert_eq!(parses(&nested(NESTING_MAX + 1)).unwrap_err().position, Some(NESTING_MAX));
        for text in [vec!["a"; CLAUSES_MAX].join(" OR "), vec!["a"; CLAUSES_MAX].join(" ")] {
            assert!(parses(&text).is_ok());
            assert!(
                parses(&format!("{text} OR b"))
                    .unwrap_err()
                    .cause
                    .unwrap()
                    .starts_with("more than 1024 clauses")
            );
        }
    }

    /// Half a million brackets, operators and quotes cost no stack and little time.
    #[test]
    fn hostile_strings_are_refused() {
        for piece in ["(", ")", "-", "NOT ", "a:", "[", "\"", "^", "a AND ", "(a OR ", "{* TO ", "f:(", "*:"]
        {
            let text = piece.repeat(QUERY_BYTES_MAX / piece.len());
            assert!(parse(&text, &Options::default()).is_err(), "{piece}");
        }
    }

    /// The query as Elasticsearch's explanation has it, in an index where `t` is text, `k` a keyword, `book.title`
    /// and `book.author` are texts. `None`: nothing is left of it, since its text has no words.
    fn explained(query: &Query, nested: bool) -> Option<String> {
        let clauses = |clauses: Vec<String>| match (nested, clauses.as_slice()) {
            (_, []) => None,
            (_, [one]) => Some(one.clone()),
            (true, many) => Some(format!("({})", many.join(" "))),
            (false, many) => Some(many.join(" ")),
        };
        let each = |fields: &Fields, one: &dyn Fn(&str) -> Option<String>| {
            let Fields::Named(names) = fields else { return Some("[all fields]".to_owned()) };
            let names: Vec<&str> = match names[0].as_str() {
                "book.*" => vec!["book.author", "book.title"],
                name => vec![name],
            };
            let found: Vec<String> = names.into_iter().filter_map(one).collect();
            if found.len() > 1 { Some(format!("({})", found.join(" | "))) } else { found.into_iter().next() }
        };
        let known = |field: &str| ["t", "k", "book.title", "book.author"].contains(&field);
        let unmapped = |field: &str| Some(format!("MatchNoDocsQuery(\"unmapped fields [{field}]\")"));
        let normal =
            |field: &str, text: &str| if field == "k" { text.to_owned() } else { lower(text).into_owned() };
        match query {
            Query::All => Some("*:*".to_owned()),
            Query::None => {
                Some("MatchNoDocsQuery(\"Matching no documents because no terms present\")".to_owned())
            }
            Query::Match { fields, text, operator } => each(fields, &|field| {
                let sign = if *operator == Operator::And { "+" } else { "" };
                match field {
                    "k" => Some(format!("k:{text}")),
                    field if !known(field) => unmapped(field),
                    field => {
                        let words: Vec<String> = tokens(text).map(|word| format!("{field}:{word}")).collect();
                        match words.len() {
                            0 | 1 => words.into_iter().next(),
                            _ => clauses(words.into_iter().map(|word| format!("{sign}{word}")).collect()),
                        }
                    }
                }
            }),
            Query::Phrase { fields, text } => each(fields, &|field| {
                let words: Vec<_> = tokens(text).collect();
                match (field, words.as_slice()) {
                    ("k", _) => Some(format!("k:{text}")),
                    (field, _) if !known(field) => unmapped(field),
                    (_, []) => None,
                    (field, [word]) => Some(format!("{field}:{word}")),
                    (field, words) => Some(format!("{field}:\"{}\"", words.join(" "))),
                }
            }),
            Query::Prefix { fields, prefix } => each(fields, &|field| match known(field) {
                true => Some(format!("{field}:{}*", normal(field, prefix))),
                false => unmapped(field),
            }),
            Query::Wildcard { fields, pattern } => {
                each(fields, &|field| Some(format!("{field}:{}", normal(field, pattern))))
            }
            Query::Exists { field } => Some(match field.as_str() {
                "t" => "ConstantScore(NormsFieldExistsQuery [field=t])".to_owned(),
                "k" => "ConstantScore(DocValuesFieldExistsQuery [field=k])".to_owned(),
                "book" | "book.*" => "ConstantScore(NormsFieldExistsQuery [field=book.author] \
                                      NormsFieldExistsQuery [field=book.title])"
                    .to_owned(),
                field => format!("MatchNoDocsQuery(\"unmapped field:{field}\")"),
            }),
            Query::Range { fields, from, to, .. } => each(fields, &|field| {
                let end = |bound: &Bound| match bound {
                    Bound::Included(Value::Text(text)) | Bound::Excluded(Value::Text(text)) => {
                        normal(field, text)
                    }
                    _ => "*".to_owned(),
                };
                let open = if matches!(from, Bound::Excluded(_)) { '{' } else { '[' };
                let close = if matches!(to, Bound::Excluded(_)) { '}' } else { ']' };
                match known(field) {
                    true => Some(format!("{field}:{open}{} TO {}{close}", end(from), end(to))),
                    false => unmapped(field),
                }
            }),
            Query::Bool { must, should, must_not, .. } => {
                let signed = |sign: &str, queries: &[Query]| -> Vec<String> {
                    queries.iter().filter_map(|q| Some(format!("{sign}{}", explained(q, true)?))).collect()
                };
                let (must, should, not) = (signed("+", must), signed("", should), signed("-", must_not));
                let all = if must.is_empty() && should.is_empty() && !not.is_empty() {
                    vec!["#*:*".into()]
                } else {
                    vec![]
                };
                let many: Vec<String> = [must, should, not, all].concat();
                match (nested, many.as_slice()) {
                    (_, []) => None,
                    (true, many) => Some(format!("({})", many.join(" "))),
                    (false, many) => Some(many.join(" ")),
                }
            }
            query => Some(query.to_string()),
        }
    }

    /// An explanation as what it says: without boosts, clauses sorted, groups that make no difference taken apart.
    fn normalised(explanation: &str) -> Vec<String> {
        let clauses = group(&mut explanation.replace("{*", "[*").replace("*}", "*]").chars().peekable());
        let grouped =
            |one: &str| one.strip_prefix('(').and_then(|one| one.strip_suffix(')')).map(str::to_owned);
        match clauses.as_slice() {
            [one] => match grouped(one) {
                Some(inner) => inner.split(' ').map(str::to_owned).collect(),
                None => vec![one.trim_start_matches('+').to_owned()],
            },
            _ => clauses,
        }
    }

    fn group(chars: &mut std::iter::Peekable<std::str::Chars>) -> Vec<String> {
        let mut found = Vec::new();
        while let Some(c) = chars.next() {
            let sign = if matches!(c, '+' | '-' | '#') { c.to_string() } else { String::new() };
            let first = if sign.is_empty() { Some(c) } else { chars.next() };
            match first {
                Some(' ') => {}
                Some(')') => break,
                Some('(') => {
                    let inner = group(chars);
                    while chars.next_if(|c| matches!(c, '^' | '.' | '0'..='9')).is_some() {}
                    let all = |fits: fn(&String) -> bool| inner.iter().all(fits);
                    match sign.as_str() {
                        "" if all(|clause| !clause.starts_with(['+', '-', '#'])) => found.extend(inner),
                        "+" if all(|clause| clause.starts_with('+')) => found.extend(inner),
                        _ if inner.len() == 1 && !inner[0].starts_with('-') => found.push(sign + &inner[0]),
                        _ => found.push(format!("{sign}({})", inner.join(" "))),
                    }
                }
                first => {
                    // A word, with the brackets that it opens.
                    let (mut word, mut open) = (sign, 0);
                    word.extend(first);
                    while let Some(c) = chars.next_if(|c| open > 0 || !matches!(c, ' ' | ')')) {
                        open += i32::from(c == '(') - i32::from(c == ')');
                        word.push(c);
                    }
                    found.push(word);
                }
            }
        }
        found.sort();
        found
    }

    #[test]
    fn strings_are_read_as_elasticsearch_reads_them() {
        let golden =
            include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/elasticsearch/query_string.jsonl"));
        let (mut cases, mut differ) = (0, Vec::new());
        for line in golden.lines() {
            let case: serde_json::Value = serde_json::from_str(line).unwrap();
            let text = case["query"].as_str().unwrap();
            let operator = if case["operator"] == "and" { Operator::And } else { Operator::Or };
            let found =
                parse(text, &options(operator)).map(|query| explained(&query, false).unwrap_or_default());
            cases += 1;
            let fits = match (&found, case["explanation"].as_str()) {
                (Err(_), None) => true,
                // What is not supported.
                (Err(_), Some(_)) => text.contains(['~', '/']),
                // There an unmapped field's prefix is taken for its name.
                (Ok(_), Some(_)) if text == "nothing:a*" => true,
                (Ok(found), Some(expected)) => normalised(found) == normalised(expected),
                _ => false,
            };
            if !fits {
                differ.push(format!(
                    "{text:?} {operator:?}: {:?}, not {found:?}",
                    case["explanation"].as_str()
                ));
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
