//! Parser of `simple_query_string`, which never fails: what is not an operator is text. Pure code.
//!
//! `+` means and, `|` or, `-` not; quotes make a phrase, `*` at the end of a word a prefix, `~N` a similar word or a loose
//! phrase, parentheses a group.

use super::{FieldSelector, Fuzziness, Operator, Query};

/// Maximum nesting depth of groups.
const NESTING_MAX: usize = 64;

/// Parses a text.
pub(super) fn parse(text: &str, fields: &FieldSelector, operator: Operator) -> Query {
    let mut parser = SimpleParser { chars: text.chars().collect(), at: 0, fields, operator };
    parser.parse_group(0).unwrap_or(Query::None)
}

struct SimpleParser<'a> {
    chars: Vec<char>,
    at: usize,
    fields: &'a FieldSelector,
    operator: Operator,
}

impl SimpleParser<'_> {
    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    /// Parses clauses up to the end of a group. `None`: there is none.
    fn parse_group(&mut self, depth: usize) -> Option<Query> {
        let mut found: Option<Query> = None;
        let mut next = self.operator;
        while let Some(c) = self.peek() {
            match c {
                ')' if depth > 0 => {
                    self.at += 1;
                    return found;
                }
                '+' => (self.at, next) = (self.at + 1, Operator::And),
                '|' => (self.at, next) = (self.at + 1, Operator::Or),
                c if c.is_whitespace() || c == ')' => self.at += 1,
                _ => {
                    let mut is_negated = false;
                    while self.peek() == Some('-') {
                        is_negated = !is_negated;
                        self.at += 1;
                    }
                    let clause = match self.peek() {
                        Some('(') if depth < NESTING_MAX => {
                            self.at += 1;
                            self.parse_group(depth + 1)
                        }
                        Some('"') => self.parse_phrase(),
                        Some(c) if !c.is_whitespace() && !"+|".contains(c) => self.parse_word(),
                        _ => None,
                    };
                    if let Some(clause) = clause {
                        let clause = if is_negated { negation(clause) } else { clause };
                        found = Some(match found {
                            None => clause,
                            Some(before) => combine(before, clause, next),
                        });
                        next = self.operator;
                    }
                }
            }
        }
        found
    }

    fn parse_phrase(&mut self) -> Option<Query> {
        let start = self.at + 1;
        let length = self.chars[start..].iter().position(|c| *c == '"');
        let Some(length) = length else {
            // Without an end the quote is text.
            self.at += 1;
            return self.parse_word();
        };
        let text: String = self.chars[start..start + length].iter().collect();
        self.at = start + length + 1;
        let fields = self.fields.clone();
        match self.parse_number() {
            Some(slop) if slop > 0 => Some(Query::NearPhrase { fields, text, slop }),
            _ => Some(Query::Phrase { fields, text }),
        }
    }

    fn parse_word(&mut self) -> Option<Query> {
        let mut text = String::new();
        while let Some(c) = self.peek() {
            if c.is_whitespace() || "+|\")(".contains(c) || c == '~' && !text.is_empty() {
                break;
            }
            self.at += 1;
            match c {
                '\\' => {
                    text.extend(self.peek());
                    self.at += 1;
                }
                '*' if self.peek().is_none_or(|next| next.is_whitespace() || "+|)".contains(next)) => {
                    return match text.is_empty() {
                        true => None,
                        false => Some(Query::Prefix { fields: self.fields.clone(), prefix: text }),
                    };
                }
                c => text.push(c),
            }
        }
        if text.is_empty() {
            self.at += usize::from(self.peek() == Some('('));
            return None;
        }
        let fields = self.fields.clone();
        match self.parse_number() {
            Some(edits) if edits > 0 => {
                let fuzziness = Fuzziness { edits_max: Some(edits.min(2) as u8), ..Fuzziness::default() };
                Some(Query::Fuzzy { fields, text, operator: self.operator, fuzziness })
            }
            _ => Some(Query::Match { fields, text, operator: self.operator }),
        }
    }

    /// Parses `~N`; without a number it is 2.
    fn parse_number(&mut self) -> Option<u32> {
        if self.peek() != Some('~') {
            return None;
        }
        self.at += 1;
        let start = self.at;
        while self.peek().is_some_and(|c| c.is_ascii_digit()) {
            self.at += 1;
        }
        let digits: String = self.chars[start..self.at].iter().collect();
        if digits.is_empty() { Some(2) } else { digits.parse().ok() }
    }
}

fn negation(query: Query) -> Query {
    Query::Bool { must: Vec::new(), should: Vec::new(), must_not: vec![query], should_min: 0 }
}

/// Combines the clauses so far with the next one, from left to right.
fn combine(before: Query, clause: Query, operator: Operator) -> Query {
    match (before, operator) {
        (Query::Bool { mut must, should, must_not, should_min: 0 }, Operator::And)
            if should.is_empty() && must_not.is_empty() =>
        {
            must.push(clause);
            Query::Bool { must, should, must_not, should_min: 0 }
        }
        (before, Operator::And) => Query::Bool {
            must: vec![before, clause],
            should: Vec::new(),
            must_not: Vec::new(),
            should_min: 0,
        },
        (before, Operator::Or) => Query::Bool {
            must: Vec::new(),
            should: vec![before, clause],
            must_not: Vec::new(),
            should_min: 1,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_text_is_a_query() {
        let fields = FieldSelector::Named(vec!["t".to_owned()]);
        for (text, expected) in [
            ("a", r#"any(t "a")"#),
            ("a b", r#"(any(t "a") any(t "b"))"#),
            ("a + b", r#"(+any(t "a") +any(t "b"))"#),
            ("a | b", r#"(any(t "a") any(t "b"))"#),
            ("a -b", r#"(any(t "a") (-any(t "b")))"#),
            (r#""a b" + c*"#, r#"(+phrase(t "a b") +prefix(t "c"))"#),
            (r#""a b"~2"#, r#"phrase(t "a b")~2"#),
            ("ab~1", r#"any(t "ab~1)"#),
            ("(a | b) + c", r#"(+(any(t "a") any(t "b")) +any(t "c"))"#),
            (r#""a"#, r#"any(t "a")"#),
            ("((", "none"),
            ("", "none"),
        ] {
            let found = parse(text, &fields, Operator::Or).to_string();
            assert_eq!(found.replace("\"~", "~"), expected.replace("\"~", "~"), "{text}");
        }
        parse(&"(".repeat(100_000), &fields, Operator::Or);
    }
}
