//! A question about a number becomes a question about its family. Pure: a tree in, a tree out.
//!
//! What asks for a value (`field:N`, a phrase, a term) asks for the family too, beside the value: so nothing that was
//! found before is lost, and a negation excludes the whole family. What asks for a form (wildcards, prefixes, ranges)
//! stays as it is, and so does a sub-field (`destNum.keyword`): it is how one asks for a spelling.

use super::families::Families;
use crate::iri::query::{Fields, Query, Value};

/// The hidden field that has the families of all fields of a document.
pub const FAMILY_ALL: &str = "_number";

/// The hidden field that has the family of a number field: `destNum._number`.
pub fn family_field(field: &str) -> String {
    format!("{field}.{FAMILY_ALL}")
}

/// Adds to each number in the question the family that it belongs to.
pub fn expand(query: Query, families: &Families) -> Query {
    match query {
        Query::Bool { must, should, must_not, should_min } => {
            let all =
                |queries: Vec<Query>| queries.into_iter().map(|query| expand(query, families)).collect();
            Query::Bool { must: all(must), should: all(should), must_not: all(must_not), should_min }
        }
        Query::Lenient(inner) => Query::Lenient(Box::new(expand(*inner, families))),
        other => {
            let family = family_terms(&other, families);
            if family.is_empty() {
                return other;
            }
            let should = std::iter::once(other).chain(family).collect();
            Query::Bool { must: Vec::new(), should, must_not: Vec::new(), should_min: 1 }
        }
    }
}

/// The family of the number that a question without parts asks for, in each field that may have it.
fn family_terms(query: &Query, families: &Families) -> Vec<Query> {
    let (fields, text) = match query {
        Query::Match { fields, text, .. } | Query::Phrase { fields, text } => {
            (number_fields(fields, families), text.clone())
        }
        Query::Term { field, value } if families.is_number_field(field) => match value {
            Value::Text(text) => (vec![family_field(field)], text.clone()),
            Value::Long(number) => (vec![family_field(field)], number.to_string()),
            Value::Double(_) | Value::Bool(_) => return Vec::new(),
        },
        _ => return Vec::new(),
    };
    if fields.is_empty() {
        return Vec::new();
    }
    let Some(canonical) = families.canonical(&text) else { return Vec::new() };
    let value = Value::Text(canonical.number().to_owned());
    fields.into_iter().map(|field| Query::Term { field, value: value.clone() }).collect()
}

/// The hidden fields that go with these. A number has seven digits at least, so a bare word of fewer is none.
fn number_fields(fields: &Fields, families: &Families) -> Vec<String> {
    let names = match fields {
        Fields::All => return vec![FAMILY_ALL.to_owned()],
        Fields::Named(names) if names.iter().any(|name| name == "*") => return vec![FAMILY_ALL.to_owned()],
        Fields::Named(names) => names,
    };
    let is_asked = |field: &&String| names.iter().any(|name| fits(name, field));
    families.settings().fields.iter().filter(is_asked).map(|field| family_field(field)).collect()
}

/// True for a name that fits a pattern; `*` stands for any characters.
fn fits(pattern: &str, name: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(mut name) = name.strip_prefix(start) else { return false };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let end = parts.pop().unwrap_or_default();
    for part in parts {
        // The first place is the best one: it leaves most for the parts behind it.
        let Some(at) = name.find(part) else { return false };
        name = &name[at + part.len()..];
    }
    name.ends_with(end)
}

#[cfg(test)]
mod tests {
    use super::super::Settings;
    use super::*;
    use crate::iri::query::{Bound, Operator};

    const FAMILY: &str = "+972598294121";

    fn families() -> Families {
        Families::new(Settings::default()).unwrap()
    }

    fn named(names: &[&str], text: &str) -> Query {
        let fields = Fields::Named(names.iter().map(|name| (*name).to_owned()).collect());
        Query::Match { fields, text: text.to_owned(), operator: Operator::Or }
    }

    fn everywhere(text: &str) -> Query {
        Query::Match { fields: Fields::All, text: text.to_owned(), operator: Operator::And }
    }

    fn term(field: &str, text: &str) -> Query {
        Query::Term { field: field.to_owned(), value: Value::Text(text.to_owned()) }
    }

    fn any(should: Vec<Query>) -> Query {
        Query::Bool { must: vec![], should, must_not: vec![], should_min: 1 }
    }

    fn check_expand(query: Query, fields: &[&str]) {
        let mut should = vec![query.clone()];
        should.extend(fields.iter().map(|field| term(field, FAMILY)));
        assert_eq!(expand(query, &families()), any(should));
    }

    fn check_same(query: Query) {
        assert_eq!(expand(query.clone(), &families()), query);
    }

    #[test]
    fn a_number_field_is_asked_for_the_family_too() {
        for text in ["9011972598294121", "+972598294121", "sip:00972598294121@198.51.100.7"] {
            check_expand(named(&["destNum"], text), &["destNum._number"]);
            check_expand(everywhere(text), &["_number"]);
            check_expand(term("dnis", text), &["dnis._number"]);
        }
        let phrase = Query::Phrase { fields: Fields::All, text: "+972 59 829 4121".to_owned() };
        check_expand(phrase, &["_number"]);
        let long = Query::Term { field: "destNum".to_owned(), value: Value::Long(972_598_294_121) };
        check_expand(long, &["destNum._number"]);
    }

    #[test]
    fn of_several_fields_and_patterns_those_with_numbers() {
        let text = "972598294121";
        check_expand(
            named(&["to_user", "country", "from_user"], text),
            &["from_user._number", "to_user._number"],
        );
        check_expand(named(&["*_user"], text), &["from_user._number", "to_user._number"]);
        check_expand(named(&["c*_n*r"], text), &["called_number._number"]);
        check_expand(named(&["*"], text), &["_number"]);
        check_expand(named(&["destNum", "*"], text), &["_number"]);
        check_same(named(&["country", "dest*x", "destNum.keyword", "destNum.*"], text));
        check_same(named(&[], text));
    }

    #[test]
    fn what_asks_for_a_form_stays() {
        let fields = || Fields::Named(vec!["destNum".to_owned()]);
        check_same(Query::Wildcard { fields: fields(), pattern: "9725982941?1".to_owned() });
        check_same(Query::Prefix { fields: fields(), prefix: "972598294121".to_owned() });
        let to = Bound::Included(Value::Text("972598294121".to_owned()));
        check_same(Query::Range { fields: fields(), from: Bound::Open, to, format: None, zone_minutes: 0 });
        check_same(Query::Exists { field: "destNum".to_owned() });
        check_same(Query::Ids(vec!["972598294121".to_owned()]));
        check_same(term("country", "972598294121"));
        check_same(term("destNum.keyword", "972598294121"));
        check_same(Query::Term { field: "destNum".to_owned(), value: Value::Double(972_598_294_121.0) });
        check_same(Query::All);
        check_same(Query::None);
    }

    #[test]
    fn what_is_no_number_stays() {
        for text in ["100", "598294", "friendly-scanner", "173.208.203.122", "0598294121", ""] {
            check_same(everywhere(text));
            check_same(named(&["destNum"], text));
        }
    }

    #[test]
    fn a_negation_excludes_the_family() {
        let number = named(&["destNum"], "972598294121");
        let not = |query| Query::Bool {
            must: vec![Query::All],
            should: vec![],
            must_not: vec![query],
            should_min: 0,
        };
        let family = any(vec![number.clone(), term("destNum._number", FAMILY)]);
        assert_eq!(expand(not(number.clone()), &families()), not(family.clone()));
        let twice = not(not(any(vec![number, Query::None])));
        assert_eq!(expand(twice, &families()), not(not(any(vec![family, Query::None]))));
    }

    #[test]
    fn patterns() {
        for (pattern, name) in
            [("*", ""), ("a*", "a"), ("*a", "ba"), ("a*a", "aa"), ("a*b*c", "abbc"), ("**", "x")]
        {
            assert!(fits(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [("a*a", "a"), ("a", "ab"), ("*ab*b", "ab"), ("a*", "ba"), ("", "a")] {
            assert!(!fits(pattern, name), "{pattern} {name}");
        }
    }
}
