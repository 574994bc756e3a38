//! Adds the canonical form of each phone number to a query. Pure: takes a tree and returns a tree.
//!
//! A clause that compares values (`field:N`, a phrase, a term) becomes "this value or its canonical number". So a
//! query finds at least what it found before, and a negation excludes all dialled forms of a number. A clause about
//! the form of a value (wildcard, prefix, range) does not change. Neither does a sub-field such as `destNum.keyword`:
//! it selects one dialled form.

use super::{FieldSelector, Query, QueryValue};
use crate::phone::PhoneNumberNormalizer;
use crate::search::glob::glob_matches;

/// Hidden field with the canonical numbers of all fields of a document.
pub(crate) const ALL_NUMBERS_FIELD: &str = "_number";

/// Suffix of the hidden field with the canonical numbers of a field.
pub(crate) const NUMBER_SUFFIX: &str = "._number";

/// Returns the name of the hidden field with the canonical number of `field`: `destNum._number`.
fn canonical_field_name(field: &str) -> String {
    format!("{field}{NUMBER_SUFFIX}")
}

/// Adds the canonical form of each number in `query`.
pub fn add_canonical_terms(query: Query, normalizer: &PhoneNumberNormalizer) -> Query {
    match query {
        Query::Bool { must, should, must_not, should_min } => {
            let all = |queries: Vec<Query>| {
                queries.into_iter().map(|query| add_canonical_terms(query, normalizer)).collect()
            };
            Query::Bool { must: all(must), should: all(should), must_not: all(must_not), should_min }
        }
        Query::Lenient(inner) => Query::Lenient(Box::new(add_canonical_terms(*inner, normalizer))),
        other => {
            let canonical = canonical_terms(&other, normalizer);
            if canonical.is_empty() {
                return other;
            }
            let should = std::iter::once(other).chain(canonical).collect();
            Query::Bool { must: Vec::new(), should, must_not: Vec::new(), should_min: 1 }
        }
    }
}

/// Returns the term queries for the canonical number of one leaf query.
fn canonical_terms(query: &Query, normalizer: &PhoneNumberNormalizer) -> Vec<Query> {
    let (fields, text) = match query {
        Query::Match { fields, text, .. } | Query::Phrase { fields, text } => {
            (canonical_fields_of(fields, normalizer), text.clone())
        }
        Query::Term { field, value } if normalizer.is_number_field(field) => match value {
            QueryValue::Text(text) => (vec![canonical_field_name(field)], text.clone()),
            QueryValue::Long(number) => (vec![canonical_field_name(field)], number.to_string()),
            QueryValue::Double(_) | QueryValue::Bool(_) => return Vec::new(),
        },
        _ => return Vec::new(),
    };
    if fields.is_empty() {
        return Vec::new();
    }
    let Some(canonical) = normalizer.normalize(&text) else { return Vec::new() };
    let value = QueryValue::Text(canonical.as_str().to_owned());
    fields.into_iter().map(|field| Query::Term { field, value: value.clone() }).collect()
}

/// Returns the hidden fields that belong to `fields`. A canonical number has at least 7 digits, so shorter words have
/// none.
fn canonical_fields_of(fields: &FieldSelector, normalizer: &PhoneNumberNormalizer) -> Vec<String> {
    let names = match fields {
        FieldSelector::All => return vec![ALL_NUMBERS_FIELD.to_owned()],
        FieldSelector::Named(names) if names.iter().any(|name| name == "*") => {
            return vec![ALL_NUMBERS_FIELD.to_owned()];
        }
        FieldSelector::Named(names) => names,
    };
    let is_selected = |field: &&String| names.iter().any(|name| glob_matches(name, field));
    normalizer.settings().fields.iter().filter(is_selected).map(|field| canonical_field_name(field)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::phone::NumberSettings;
    use crate::search::date::TimeZone;
    use crate::search::query::{Bound, Operator};

    const NUMBER: &str = "+972598294121";

    fn normalizer() -> PhoneNumberNormalizer {
        PhoneNumberNormalizer::new(NumberSettings::default()).unwrap()
    }

    fn match_query(names: &[&str], text: &str) -> Query {
        let fields = FieldSelector::Named(names.iter().map(|name| (*name).to_owned()).collect());
        Query::Match { fields, text: text.to_owned(), operator: Operator::Or }
    }

    fn match_all_fields(text: &str) -> Query {
        Query::Match { fields: FieldSelector::All, text: text.to_owned(), operator: Operator::And }
    }

    fn term(field: &str, text: &str) -> Query {
        Query::Term { field: field.to_owned(), value: QueryValue::Text(text.to_owned()) }
    }

    fn any(should: Vec<Query>) -> Query {
        Query::Bool { must: vec![], should, must_not: vec![], should_min: 1 }
    }

    fn check_expand(query: Query, fields: &[&str]) {
        let mut should = vec![query.clone()];
        should.extend(fields.iter().map(|field| term(field, NUMBER)));
        assert_eq!(add_canonical_terms(query, &normalizer()), any(should));
    }

    fn check_same(query: Query) {
        assert_eq!(add_canonical_terms(query.clone(), &normalizer()), query);
    }

    #[test]
    fn a_number_field_is_searched_for_the_canonical_number_too() {
        for text in ["9011972598294121", "+972598294121", "sip:00972598294121@198.51.100.7"] {
            check_expand(match_query(&["destNum"], text), &["destNum._number"]);
            check_expand(match_all_fields(text), &["_number"]);
            check_expand(term("dnis", text), &["dnis._number"]);
        }
        let phrase = Query::Phrase { fields: FieldSelector::All, text: "+972 59 829 4121".to_owned() };
        check_expand(phrase, &["_number"]);
        let long = Query::Term { field: "destNum".to_owned(), value: QueryValue::Long(972_598_294_121) };
        check_expand(long, &["destNum._number"]);
    }

    #[test]
    fn field_patterns_select_number_fields_only() {
        let text = "972598294121";
        check_expand(
            match_query(&["to_user", "country", "from_user"], text),
            &["from_user._number", "to_user._number"],
        );
        check_expand(match_query(&["*_user"], text), &["from_user._number", "to_user._number"]);
        check_expand(match_query(&["c*_n*r"], text), &["called_number._number"]);
        check_expand(match_query(&["*"], text), &["_number"]);
        check_expand(match_query(&["destNum", "*"], text), &["_number"]);
        check_same(match_query(&["country", "dest*x", "destNum.keyword", "destNum.*"], text));
        check_same(match_query(&[], text));
    }

    #[test]
    fn a_query_about_the_form_of_a_value_does_not_change() {
        let fields = || FieldSelector::Named(vec!["destNum".to_owned()]);
        check_same(Query::Wildcard { fields: fields(), pattern: "9725982941?1".to_owned() });
        check_same(Query::Prefix { fields: fields(), prefix: "972598294121".to_owned() });
        let to = Bound::Included(QueryValue::Text("972598294121".to_owned()));
        check_same(Query::Range {
            fields: fields(),
            from: Bound::Open,
            to,
            format: None,
            zone: TimeZone::UTC,
        });
        check_same(Query::Exists { field: "destNum".to_owned() });
        check_same(Query::Ids(vec!["972598294121".to_owned()]));
        check_same(term("country", "972598294121"));
        check_same(term("destNum.keyword", "972598294121"));
        check_same(Query::Term { field: "destNum".to_owned(), value: QueryValue::Double(972_598_294_121.0) });
        check_same(Query::All);
        check_same(Query::None);
    }

    #[test]
    fn a_text_that_is_not_a_number_does_not_change() {
        for text in ["100", "598294", "friendly-scanner", "173.208.203.122", "0598294121", ""] {
            check_same(match_all_fields(text));
            check_same(match_query(&["destNum"], text));
        }
    }

    #[test]
    fn a_negation_excludes_all_dialled_forms() {
        let number = match_query(&["destNum"], "972598294121");
        let not = |query| Query::Bool {
            must: vec![Query::All],
            should: vec![],
            must_not: vec![query],
            should_min: 0,
        };
        let canonical = any(vec![number.clone(), term("destNum._number", NUMBER)]);
        assert_eq!(add_canonical_terms(not(number.clone()), &normalizer()), not(canonical.clone()));
        let twice = not(not(any(vec![number, Query::None])));
        assert_eq!(add_canonical_terms(twice, &normalizer()), not(not(any(vec![canonical, Query::None]))));
    }
}
