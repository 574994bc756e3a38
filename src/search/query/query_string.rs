//! Parser of the `query_string` language (the one of `q=`) into a [`Query`]. Pure code.
//!
//! It follows Elasticsearch 7.17, which uses Lucene's classic query parser. AND, OR and NOT have no
//! precedence: they make the clauses next to them required, optional or prohibited, as `+` and `-` do. So `a
//! OR b AND c` finds documents that contain b and c. Adjacent terms without an operator form one text
//! ([`Query::Match`]), which each field analyzes in its own way. Boosts are parsed
//! and ignored.

use std::borrow::Cow;

use super::lexer::{Token, TokenKind, starts_signed_number, tokenize};
use super::{Bound, FieldSelector, Fuzziness, Operator, Query, QueryError, QueryValue, TokenPattern};
use crate::search::date::TimeZone;
use crate::search::regexp::Regexp;

/// Maximum length of a query string.
pub const QUERY_BYTES_MAX: usize = 32 << 10;

/// Maximum nesting depth of groups. Elasticsearch is limited only by its stack.
pub const NESTING_MAX: usize = 64;

/// Maximum number of clauses in one group, as in Elasticsearch; each term of a text counts.
pub const CLAUSES_MAX: usize = 1024;

/// Parameters of the parser.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueryStringOptions {
    /// Fields of a clause that names none (`df`).
    pub fields: FieldSelector,
    /// Operator between clauses that have none.
    pub operator: Operator,
    /// True if a value that does not fit its field's type is not an error. `None`: only if all fields are
    /// searched.
    pub lenient: Option<bool>,
    /// Time zone of dates without one.
    pub zone: TimeZone,
}

impl Default for QueryStringOptions {
    fn default() -> QueryStringOptions {
        QueryStringOptions {
            fields: FieldSelector::All,
            operator: Operator::Or,
            lenient: None,
            zone: TimeZone::UTC,
        }
    }
}

/// Parses a query.
pub fn parse(text: &str, options: &QueryStringOptions) -> Result<Query, QueryError> {
    Ok(parse_with_signs(text, options)?.0)
}

/// Rewrites a query so that every server accepts it: escapes the signs of numbers, which Lucene takes for operators. A
/// malformed query is returned unchanged; the server reports its error.
pub(crate) fn portable(text: &str) -> Cow<'_, str> {
    let signs = match parse_with_signs(text, &QueryStringOptions::default()) {
        Ok((_, signs)) if !signs.is_empty() => signs,
        _ => return text.into(),
    };
    let mut portable = String::with_capacity(text.len() + signs.len());
    let mut copied = 0;
    for sign in signs {
        portable.push_str(&text[copied..sign]);
        portable.push('\\');
        copied = sign;
    }
    portable.push_str(&text[copied..]);
    portable.into()
}

/// Parses a query. Also returns the offsets of signs that are part of a number.
fn parse_with_signs(text: &str, options: &QueryStringOptions) -> Result<(Query, Vec<usize>), QueryError> {
    if text.len() > QUERY_BYTES_MAX {
        let cause = format!("longer than {QUERY_BYTES_MAX} bytes");
        return Err(QueryError::query_string(text, QUERY_BYTES_MAX, &cause));
    }
    if text.bytes().all(|byte| byte <= b' ') {
        return Ok((Query::None, Vec::new()));
    }
    let mut parser = QueryStringParser { text, tokens: tokenize(text)?, at: 0, options };
    let query = parser.parse_clauses(None, 0)?;
    let rest = parser.peek();
    if rest.kind != TokenKind::End {
        return Err(parser.unexpected("the end or another clause"));
    }
    let query = match options.lenient.unwrap_or(selects_all_fields(&options.fields)) {
        true => Query::Lenient(Box::new(query)),
        false => query,
    };
    Ok((query, parser.signs()))
}

fn selects_all_fields(fields: &FieldSelector) -> bool {
    match fields {
        FieldSelector::All => true,
        FieldSelector::Named(names) => names.iter().any(|name| name == "*"),
    }
}

/// A recursive-descent parser; it never backtracks.
struct QueryStringParser<'a> {
    text: &'a str,
    tokens: Vec<Token>,
    at: usize,
    options: &'a QueryStringOptions,
}

#[derive(Clone, Copy, PartialEq)]
enum Occur {
    Must,
    Should,
    MustNot,
}

impl QueryStringParser<'_> {
    fn peek(&self) -> Token {
        self.peek_at(0)
    }

    fn peek_at(&self, count: usize) -> Token {
        self.tokens[(self.at + count).min(self.tokens.len() - 1)]
    }

    fn consume(&mut self, kind: TokenKind) -> bool {
        let fits = self.peek().kind == kind;
        self.at += usize::from(fits);
        fits
    }

    fn token_text(&self, token: Token) -> &str {
        &self.text[token.start..token.end]
    }

    fn error_at(&self, token: Token, cause: &str) -> QueryError {
        QueryError::query_string(self.text, token.start, cause)
    }

    fn unexpected(&self, expected: &str) -> QueryError {
        let token = self.peek();
        let found = match token.kind {
            TokenKind::End => "unexpected end".to_owned(),
            _ => format!("unexpected [{}]", self.token_text(token)),
        };
        self.error_at(token, &format!("{found}, expected {expected}"))
    }

    /// Parses the clauses of a group or of the whole text; there must be at least one.
    fn parse_clauses(&mut self, field: Option<&str>, depth: usize) -> Result<Query, QueryError> {
        let (mut clauses, mut count) = (Vec::new(), 0);
        let start = self.peek();
        loop {
            let (conjunction, first) = (self.parse_conjunction(), count == 0);
            if first && conjunction.is_some() {
                self.at -= 1;
                return Err(self.unexpected("a term, a phrase, a range or a group"));
            }
            let texts = if conjunction.is_none() { self.text_run_length() } else { 0 };
            if texts > 1 {
                let default = self.occur(None, None);
                let text = self.join_terms(texts)?;
                clauses.push((default, self.field_query(field, text)));
            } else {
                let is_signed = field.is_some() && self.join_sign(conjunction);
                let modifier = if is_signed { None } else { self.parse_modifier() };
                let query = self.parse_clause(field, depth)?;
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
                return Err(self.error_at(start, &format!("more than {CLAUSES_MAX} clauses")));
            }
            if matches!(self.peek().kind, TokenKind::End | TokenKind::GroupEnd) {
                return Ok(combine(clauses));
            }
        }
    }

    /// Joins a sign and the number after it, if the clause is an alternative in a field's group: in
    /// `destNum:(+972598294121 OR 100)` the sign cannot mean that the number is required.
    fn join_sign(&mut self, conjunction: Option<Operator>) -> bool {
        let (sign, number, next) = (self.peek(), self.peek_at(1), self.peek_at(2).kind);
        let is_alternative = conjunction == Some(Operator::Or) || next == TokenKind::Or;
        let is_number = matches!(number.kind, TokenKind::Term | TokenKind::Prefix | TokenKind::Wildcard)
            && number.start == sign.end
            && next != TokenKind::Colon
            && starts_signed_number(&self.text[sign.start..]);
        if !(sign.kind == TokenKind::Plus && is_alternative && is_number) {
            return false;
        }
        self.at += 1;
        self.tokens[self.at].start = sign.start;
        true
    }

    /// Offsets of the signs that are part of a number.
    fn signs(&self) -> Vec<usize> {
        let is_signed = |token: &&Token| {
            matches!(token.kind, TokenKind::Term | TokenKind::Prefix | TokenKind::Wildcard)
                && starts_signed_number(self.token_text(**token))
        };
        self.tokens.iter().filter(is_signed).map(|token| token.start).collect()
    }

    fn parse_conjunction(&mut self) -> Option<Operator> {
        match self.peek().kind {
            TokenKind::And => {
                self.at += 1;
                Some(Operator::And)
            }
            TokenKind::Or => {
                self.at += 1;
                Some(Operator::Or)
            }
            _ => None,
        }
    }

    /// With AND as default operator, OR makes the clause before it optional again.
    fn is_or_under_and(&self, conjunction: Option<Operator>) -> bool {
        self.options.operator == Operator::And && conjunction == Some(Operator::Or)
    }

    fn parse_modifier(&mut self) -> Option<Occur> {
        let modifier = match self.peek().kind {
            TokenKind::Plus => Occur::Must,
            TokenKind::Minus | TokenKind::Not => Occur::MustNot,
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

    /// Number of terms from here on that form one text: a term followed by an operator, a colon or a boost
    /// does not belong to it.
    fn text_run_length(&self) -> usize {
        if self.peek().kind != TokenKind::Term {
            return 0;
        }
        let ends = |kind| {
            matches!(
                kind,
                TokenKind::Colon
                    | TokenKind::Star
                    | TokenKind::Caret
                    | TokenKind::Similar
                    | TokenKind::And
                    | TokenKind::Or
            )
        };
        let follows = |count: &usize| {
            self.peek_at(*count).kind == TokenKind::Term && !ends(self.peek_at(*count + 1).kind)
        };
        1 + (1..).take_while(follows).count()
    }

    /// Joins this number of terms with blanks.
    fn join_terms(&mut self, terms: usize) -> Result<String, QueryError> {
        let mut text = String::new();
        for _ in 0..terms {
            if !text.is_empty() {
                text.push(' ');
            }
            let token = self.peek();
            text.push_str(&self.unescape(token, self.token_text(token))?);
            self.at += 1;
        }
        Ok(text)
    }

    /// `[field:] (term | phrase | range | group) [^boost]`
    fn parse_clause(&mut self, field: Option<&str>, depth: usize) -> Result<Query, QueryError> {
        let name = match (self.peek().kind, self.peek_at(1).kind) {
            (TokenKind::Term, TokenKind::Colon) => {
                Some(self.unescape(self.peek(), self.token_text(self.peek()))?)
            }
            (TokenKind::Star, TokenKind::Colon) => Some("*".to_owned()),
            _ => None,
        };
        if name.is_some() {
            self.at += 2;
        }
        let field = name.as_deref().or(field);
        let token = self.peek();
        self.at += 1;
        let query = match token.kind {
            TokenKind::GroupStart => self.parse_group(field, token, depth)?,
            TokenKind::Term => {
                let text = self.unescape(token, self.token_text(token))?;
                match self.parse_similar() {
                    Some(number) => self.similar_query(field, text, &number),
                    None => self.field_query(field, text),
                }
            }
            TokenKind::Regexp => {
                let pattern = &self.text[token.start + 1..token.end - 1];
                self.regexp_query(field, token, pattern.replace("\\/", "/"))?
            }
            TokenKind::BareOperator => {
                self.field_query(field, self.text[token.start..=token.start].to_owned())
            }
            TokenKind::Star | TokenKind::Wildcard => {
                self.unescape(token, self.token_text(token))?; // rejects invalid escapes
                self.wildcard_query(field, self.token_text(token))
            }
            TokenKind::Prefix => {
                let prefix = self.unescape(token, &self.text[token.start..token.end - 1])?;
                Query::Prefix { fields: self.selector(field), prefix }
            }
            TokenKind::Quoted => {
                let text = self.unescape(token, &self.text[token.start + 1..token.end - 1])?;
                let slop = self.parse_similar().and_then(|number| number.parse::<f32>().ok());
                match slop.map(|slop| slop as u32).filter(|slop| *slop > 0) {
                    Some(slop) => Query::NearPhrase { fields: self.selector(field), text, slop },
                    None => self.phrase_query(field, text),
                }
            }
            TokenKind::RangeStartIncluded | TokenKind::RangeStartExcluded => {
                self.parse_range(field, token)?
            }
            _ => {
                self.at -= 1;
                return Err(self.unexpected("a term, a phrase, a range or a group"));
            }
        };
        if self.consume(TokenKind::Caret) && !self.consume(TokenKind::Number) {
            return Err(self.unexpected("a number"));
        }
        Ok(query)
    }

    /// Parses `~` and a number. Returns the number as it is written.
    fn parse_similar(&mut self) -> Option<String> {
        let token = self.peek();
        self.consume(TokenKind::Similar).then(|| self.text[token.start + 1..token.end].to_owned())
    }

    /// Words that are similar to one word: `~` alone depends on the length, and a number is that of edits.
    fn similar_query(&self, field: Option<&str>, text: String, number: &str) -> Query {
        let edits_max = number.parse::<f32>().ok().map(|edits| edits.min(2.0) as u8);
        Query::Fuzzy {
            fields: self.selector(field),
            text,
            operator: self.options.operator,
            fuzziness: Fuzziness { edits_max, ..Fuzziness::default() },
        }
    }

    fn regexp_query(&self, field: Option<&str>, token: Token, pattern: String) -> Result<Query, QueryError> {
        Regexp::new(&pattern, false).map_err(|why| self.error_at(token, &why))?;
        let pattern = TokenPattern::Regexp(pattern);
        Ok(Query::Pattern { fields: self.selector(field), pattern, ignores_case: false })
    }

    fn parse_group(&mut self, field: Option<&str>, start: Token, depth: usize) -> Result<Query, QueryError> {
        if depth == NESTING_MAX {
            return Err(self.error_at(start, &format!("groups are nested more than {NESTING_MAX} deep")));
        }
        let query = self.parse_clauses(field, depth + 1)?;
        match self.consume(TokenKind::GroupEnd) {
            true => Ok(query),
            false => Err(self.unexpected("the end of the group")),
        }
    }

    fn parse_range(&mut self, field: Option<&str>, start: Token) -> Result<Query, QueryError> {
        let from = self.parse_range_value()?;
        if !self.consume(TokenKind::RangeTo) {
            return Err(self.unexpected("TO"));
        }
        let to = self.parse_range_value()?;
        let included = match self.peek().kind {
            TokenKind::RangeEndIncluded => true,
            TokenKind::RangeEndExcluded => false,
            _ => return Err(self.unexpected("the end of the range")),
        };
        self.at += 1;
        let from = bound(from, start.kind == TokenKind::RangeStartIncluded);
        Ok(self.range_query(field, from, bound(to, included)))
    }

    fn parse_range_value(&mut self) -> Result<String, QueryError> {
        let token = self.peek();
        let value = match token.kind {
            TokenKind::RangeValue | TokenKind::RangeTo => self.unescape(token, self.token_text(token))?,
            TokenKind::RangeQuoted => self.unescape(token, &self.text[token.start + 1..token.end - 1])?,
            _ => return Err(self.unexpected("a value")),
        };
        self.at += 1;
        Ok(value)
    }

    fn selector(&self, field: Option<&str>) -> FieldSelector {
        match field {
            Some("*") => FieldSelector::All,
            Some(name) => FieldSelector::Named(vec![name.to_owned()]),
            None => self.options.fields.clone(),
        }
    }

    /// The field name, if the clause applies to a single one.
    fn single_field<'a>(&'a self, field: Option<&'a str>) -> Option<&'a str> {
        match (field, &self.options.fields) {
            (Some(name), _) => Some(name),
            (None, FieldSelector::All) => Some("*"),
            (None, FieldSelector::Named(names)) if names.len() == 1 => Some(&names[0]),
            _ => None,
        }
    }

    fn range_query(&self, field: Option<&str>, from: Bound, to: Bound) -> Query {
        Query::Range { fields: self.selector(field), from, to, format: None, zone: self.options.zone }
    }

    fn field_query(&self, field: Option<&str>, text: String) -> Query {
        let single = self.single_field(field);
        if single == Some("_exists_") {
            return Query::Exists { field: text };
        }
        let (sign, rest) = match text.chars().next() {
            Some(sign @ ('<' | '>')) if single.is_some() => (sign, &text[1..]),
            _ => return Query::Match { fields: self.selector(field), text, operator: self.options.operator },
        };
        // `>=` alone means `>` with the value `=`.
        let (value, included) = match rest.strip_prefix('=').filter(|value| !value.is_empty()) {
            Some(value) => (value, true),
            None => (rest, false),
        };
        match sign {
            _ if rest.is_empty() => {
                Query::Match { fields: self.selector(field), text, operator: self.options.operator }
            }
            '>' => self.range_query(field, bound(value.to_owned(), included), Bound::Open),
            _ => self.range_query(field, Bound::Open, bound(value.to_owned(), included)),
        }
    }

    fn phrase_query(&self, field: Option<&str>, text: String) -> Query {
        match self.single_field(field) {
            Some("_exists_") => Query::Exists { field: text },
            _ => Query::Phrase { fields: self.selector(field), text },
        }
    }

    fn wildcard_query(&self, field: Option<&str>, pattern: &str) -> Query {
        let exists = |field: &str| Query::Exists { field: field.to_owned() };
        match (pattern, self.single_field(field), &self.options.fields) {
            ("*", Some("*"), _) => Query::All,
            ("*", Some(name), _) => exists(name),
            ("*", None, FieldSelector::Named(names)) => Query::Bool {
                must: Vec::new(),
                should: names.iter().map(|name| exists(name)).collect(),
                must_not: Vec::new(),
                should_min: 1,
            },
            _ => Query::Wildcard { fields: self.selector(field), pattern: pattern.to_owned() },
        }
    }

    /// Resolves backslash escapes; `\u0041` is A.
    fn unescape(&self, token: Token, image: &str) -> Result<String, QueryError> {
        if !image.contains('\\') {
            return Ok(image.to_owned());
        }
        // Two escapes can form one character (a surrogate pair), so UTF-16 units are collected.
        let (mut units, mut rest) = (Vec::with_capacity(image.len()), image.chars());
        while let Some(c) = rest.next() {
            match if c == '\\' { rest.next() } else { Some(c) } {
                Some('u') if c == '\\' => {
                    let digits =
                        rest.as_str().get(..4).filter(|text| text.bytes().all(|b| b.is_ascii_hexdigit()));
                    let unit = digits.and_then(|digits| u16::from_str_radix(digits, 16).ok());
                    units.push(
                        unit.ok_or_else(|| self.error_at(token, "\\u must be followed by four hex digits"))?,
                    );
                    rest = rest.as_str()[4..].chars();
                }
                Some(c) => units.extend_from_slice(c.encode_utf16(&mut [0; 2])),
                None => return Err(self.error_at(token, "a backslash must be followed by a character")),
            }
        }
        Ok(String::from_utf16_lossy(&units))
    }
}

fn bound(value: String, included: bool) -> Bound {
    match (value.as_str(), included) {
        ("*", _) => Bound::Open,
        (_, true) => Bound::Included(QueryValue::Text(value)),
        (_, false) => Bound::Excluded(QueryValue::Text(value)),
    }
}

/// Combines clauses into one query. Optional clauses are decisive only if none is required.
fn combine(mut clauses: Vec<(Occur, Query)>) -> Query {
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

/// True if all patterns consist of letters and digits only; `analyze_wildcard` has no effect on these.
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
    use crate::search::analysis::{to_lowercase, tokens};

    /// The default field is `t`; a value of the wrong type is an error.
    fn options(operator: Operator) -> QueryStringOptions {
        QueryStringOptions {
            fields: FieldSelector::Named(vec!["t".into()]),
            operator,
            ..QueryStringOptions::default()
        }
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
    fn syntax_trees_are_correct() {
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
            ("f:+5", r#"any(f "+5")"#),
            ("f:-5", r#"any(f "-5")"#),
            ("f: +5", r#"any(f "+5")"#),
            ("userid:+447700900123", r#"any(userid "+447700900123")"#),
            ("userid:+447700900123 a", r#"(any(userid "+447700900123") any(t "a"))"#),
            ("f:+5 AND NOT g:+6", r#"(+any(f "+5") -any(g "+6"))"#),
            ("+f:+5", r#"any(f "+5")"#),
            ("-f:+5", r#"(-any(f "+5"))"#),
            ("f:+97*", r#"prefix(f "+97")"#),
            ("f:+97*2", r#"wildcard(f "+97*2")"#),
            ("f:+5^2", r#"any(f "+5")"#),
            (r#"f:"+5""#, r#"phrase(f "+5")"#),
            ("f:[+5 TO +7]", r#"range(f ["+5" TO "+7"])"#),
            ("f:>=+5", r#"range(f ["+5" TO *])"#),
            ("f:(+5 OR +6)", r#"(any(f "+5") any(f "+6"))"#),
            ("f:(5 OR +6 OR +7*)", r#"(any(f "5") any(f "+6") prefix(f "+7"))"#),
            ("f:((+5 OR 6) AND 7)", r#"(+(any(f "+5") any(f "6")) +any(f "7"))"#),
            // As in Lucene: an operator, unless the clause is an alternative.
            ("+5", r#"any(t "5")"#),
            ("+5 OR +6", r#"(+any(t "5") +any(t "6"))"#),
            ("f:(+5 6)", r#"(+any(f "5") any(f "6"))"#),
            ("f:(+5 -6)", r#"(+any(f "5") -any(f "6"))"#),
            ("f:(+5 AND +6)", r#"(+any(f "5") +any(f "6"))"#),
            ("f:(a OR -6)", r#"(any(f "a") -any(f "6"))"#),
            (r"a\ b", r#"any(t "a b")"#),
            (r"sip\:100", r#"any(t "sip:100")"#),
            (r"\u0041\ud83d\ude00", "any(t \"A\u{1f600}\")"),
            ("a^2 b^0.5", r#"(any(t "a") any(t "b"))"#),
            ("(a b)^2 c", r#"(any(t "a b") any(t "c"))"#),
            ("f:ab~", r#"any(f "ab"~)"#),
            ("f:ab~1 c", r#"(any(f "ab"~1) any(t "c"))"#),
            (r#""a b"~3"#, r#"phrase(t "a b")~3"#),
            (r#""a b"~0"#, r#"phrase(t "a b")"#),
            ("f:/a.*b/ c", r#"(regexp(f "a.*b") any(t "c"))"#),
            (r"/a\/b/", r#"regexp(t "a/b")"#),
            ("AND*", r#"prefix(t "AND")"#),
            ("and", r#"any(t "and")"#),
            ("", "none"),
            ("  ", "none"),
        ];
        for (text, expected) in table {
            check_tree(text, expected);
        }
        let all = |text| parse(text, &QueryStringOptions::default()).unwrap().to_string();
        assert_eq!(all("*"), "lenient all");
        assert_eq!(all("a >5"), r#"lenient any(* "a >5")"#);
        assert_eq!(all(">5"), r#"lenient range(* {"5" TO *])"#);
        let every = |text| parse(text, &options(Operator::And)).unwrap().to_string();
        assert_eq!(every("a b"), r#"every(t "a b")"#);
        assert_eq!(every("a AND b OR c"), r#"(+every(t "a") every(t "b") every(t "c"))"#);
        let two = QueryStringOptions {
            fields: FieldSelector::Named(vec!["t".into(), "k".into()]),
            ..QueryStringOptions::default()
        };
        assert_eq!(parse("*", &two).unwrap().to_string(), "(exists(t) exists(k))");
        assert_eq!(parse(">5", &two).unwrap().to_string(), r#"any(t,k ">5")"#);
    }

    #[track_caller]
    fn check_portable(text: &str, expected: &str) {
        assert_eq!(portable(text), expected, "{text}");
        let options = QueryStringOptions::default();
        assert_eq!(parse(expected, &options).ok(), parse(text, &options).ok(), "{text}");
    }

    #[test]
    fn signs_of_numbers_are_escaped_for_other_servers() {
        check_portable("userid:+447700900123", r"userid:\+447700900123");
        check_portable("é:+1 AND n:-2", r"é:\+1 AND n:\-2");
        check_portable("f:(+5 OR +6) g:+7*", r"f:(\+5 OR \+6) g:\+7*");
        for unchanged in ["+5 -6", "f:(+5 -6)", r"f:\+5", r#"f:"+5""#, "f:[+5 TO 6]", "f:(+5", "f:++5", ""] {
            check_portable(unchanged, unchanged);
        }
    }

    #[test]
    fn errors_have_a_reason_and_a_position() {
        let regexp = "unmatched start of a regular expression (escape a literal '/' as \\/)";
        check_refused("é:/a", 2, regexp);
        check_refused("192.0.2.0/24", 9, regexp);
        check_refused("~ a", 0, "unexpected [~], expected a term, a phrase, a range or a group");
        let complement = "the operator [~] at position 0 is not supported (escape a literal one as \\~)";
        check_refused("/~a/", 0, complement);
        check_refused("(a", 2, "unexpected end, expected the end of the group");
        check_refused("a)", 1, "unexpected [)], expected the end or another clause");
        check_refused("a AND", 5, "unexpected end, expected a term, a phrase, a range or a group");
        check_refused("OR a", 0, "unexpected [OR], expected a term, a phrase, a range or a group");
        check_refused("f:[1 2]", 5, "unexpected [2], expected TO");
        check_refused("\"a", 0, "unmatched quote");
        check_refused("a\\", 1, "a backslash must be followed by a character");
        check_refused("b \\u00", 2, "\\u must be followed by four hex digits");
        check_refused("a^x", 2, "'^' must be followed by a number");
        check_refused("f:+x", 2, "unexpected [+], expected a term, a phrase, a range or a group");
        check_refused("f:++5", 2, "unexpected [+], expected a term, a phrase, a range or a group");
        check_refused("a]", 1, "unmatched end of a range");
    }

    #[test]
    fn limits_hold_on_both_sides() {
        let parses = |text: &str| parse(text, &options(Operator::Or));
        assert!(parses(&"a".repeat(QUERY_BYTES_MAX)).is_ok());
        let error = parses(&"a".repeat(QUERY_BYTES_MAX + 1)).unwrap_err();
        assert!(error.cause.unwrap().starts_with("longer than 32768 bytes") && error.reason.len() < 1100);
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

    /// Nesting, operators and quotes up to the maximum length exhaust neither the stack nor the time.
    #[test]
    fn hostile_strings_are_rejected() {
        for piece in ["(", ")", "-", "NOT ", "a:", "[", "\"", "^", "a AND ", "(a OR ", "{* TO ", "f:(", "*:"]
        {
            let text = piece.repeat(QUERY_BYTES_MAX / piece.len());
            assert!(parse(&text, &QueryStringOptions::default()).is_err(), "{piece}");
        }
    }

    /// Renders a query as Elasticsearch's explanation does, for an index in which `t` is text, `k` is a
    /// keyword, and `book.title` and `book.author` are text. `None`: the text contains no tokens, so nothing
    /// remains.
    fn explained(query: &Query, nested: bool) -> Option<String> {
        let clauses = |clauses: Vec<String>| match (nested, clauses.as_slice()) {
            (_, []) => None,
            (_, [one]) => Some(one.clone()),
            (true, many) => Some(format!("({})", many.join(" "))),
            (false, many) => Some(many.join(" ")),
        };
        let each = |fields: &FieldSelector, one: &dyn Fn(&str) -> Option<String>| {
            let FieldSelector::Named(names) = fields else { return Some("[all fields]".to_owned()) };
            let names: Vec<&str> = match names[0].as_str() {
                "book.*" => vec!["book.author", "book.title"],
                name => vec![name],
            };
            let found: Vec<String> = names.into_iter().filter_map(one).collect();
            if found.len() > 1 { Some(format!("({})", found.join(" | "))) } else { found.into_iter().next() }
        };
        let known = |field: &str| ["t", "k", "book.title", "book.author"].contains(&field);
        let unmapped = |field: &str| Some(format!("MatchNoDocsQuery(\"unmapped fields [{field}]\")"));
        let normal = |field: &str, text: &str| {
            if field == "k" { text.to_owned() } else { to_lowercase(text).into_owned() }
        };
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
            Query::Fuzzy { fields, text, fuzziness, .. } => {
                each(fields, &|field| Some(format!("{field}:{text}~{}", fuzziness.edits_of(text))))
            }
            Query::NearPhrase { fields, text, slop } => {
                each(fields, &|field| Some(format!("{field}:\"{text}\"~{slop}")))
            }
            Query::Pattern { fields, pattern: TokenPattern::Regexp(pattern), .. } => {
                each(fields, &|field| Some(format!("{field}:/{pattern}/")))
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
                    Bound::Included(QueryValue::Text(text)) | Bound::Excluded(QueryValue::Text(text)) => {
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

    /// Normalizes an explanation: without boosts and redundant groups, with sorted clauses.
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
                    // A word, including the brackets that it opens.
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
                // An extension: a sign and digits in the value of a field.
                (Ok(_), None) if text == "t:-5" => true,
                // Elasticsearch reports the prefix of an unmapped field as the field's name.
                (Ok(_), Some(_)) if text == "nothing:a*" || text.starts_with("http:") => true,
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
