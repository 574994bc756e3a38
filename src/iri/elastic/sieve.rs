//! Leaves out parts of JSON: `filter_path` of an answer, `_source` filters of a document. Pure.
//!
//! Members keep their order and their bytes; a list is seen through: its elements have its own path. An object or a
//! list of which nothing is left is left out itself.

use std::fmt;

use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::failure::Failure;
use crate::iri::query::SourceFilter;

/// Patterns of one request.
const PATTERNS_MAX: usize = 64;

/// Levels that are looked into; deeper parts are taken or left as a whole.
const DEPTH_MAX: usize = 64;

/// What is left of a document or an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sieve {
    includes: Vec<Pattern>,
    excludes: Vec<Pattern>,
}

/// A path: names or patterns of names, `**` for any number of levels.
type Pattern = Vec<String>;

/// How a member stands to the patterns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Take,
    Leave,
    /// Parts of it may be taken; true: all but those that are left out.
    Look(bool),
}

impl Sieve {
    /// Reads `filter_path`: patterns with commas between them; one with `-` before it leaves out.
    pub fn of_path(text: &str) -> Result<Sieve, Failure> {
        let mut sieve = Sieve::default();
        for pattern in text.split(',').map(str::trim).filter(|pattern| !pattern.is_empty()) {
            match pattern.strip_prefix('-') {
                Some(pattern) => sieve.excludes.push(levels(pattern)),
                None => sieve.includes.push(levels(pattern)),
            }
        }
        sieve.checked()
    }

    /// A `_source` filter. A pattern takes whole objects too, and its `*` goes over dots.
    pub fn of_source(filter: &SourceFilter) -> Result<Sieve, Failure> {
        let all = |patterns: &[String]| {
            let deep = patterns.iter().filter(|pattern| pattern.contains('*')).map(|pattern| deep(pattern));
            patterns.iter().map(|pattern| levels(pattern)).chain(deep).collect()
        };
        Sieve { includes: all(&filter.includes), excludes: all(&filter.excludes) }.checked()
    }

    fn checked(self) -> Result<Sieve, Failure> {
        match self.includes.len() + self.excludes.len() <= 2 * PATTERNS_MAX {
            true => Ok(self),
            false => Err(Failure::argument(format!("more than {PATTERNS_MAX} patterns of fields"))),
        }
    }

    /// True where it leaves all.
    pub fn is_empty(&self) -> bool {
        self.includes.is_empty() && self.excludes.is_empty()
    }

    /// What is left of a JSON object; `{}` where nothing is.
    pub fn sift(&self, json: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(json.len());
        if self.is_empty() {
            out.extend_from_slice(json);
        } else if !self.value(json, self.includes.is_empty(), &mut Vec::new(), &mut out) {
            out.extend_from_slice(b"{}");
        }
        out
    }

    /// Writes what is left of a value; false where nothing is.
    fn value(&self, json: &[u8], wanted: bool, path: &mut Vec<String>, out: &mut Vec<u8>) -> bool {
        let start = out.len();
        let members = match json.trim_ascii_start().first() {
            Some(b'{') => members(json),
            Some(b'[') => elements(json),
            _ => None,
        };
        let Some(members) = members else {
            // A plain value of which parts alone were wanted has none.
            out.extend_from_slice(if wanted { json } else { &[] });
            return wanted && !json.is_empty();
        };
        let is_list = json.trim_ascii_start().starts_with(b"[");
        out.push(if is_list { b'[' } else { b'{' });
        let first = out.len();
        for (name, value) in members {
            let before = out.len();
            if before > first {
                out.push(b',');
            }
            let named = !is_list;
            if named {
                path.push(name);
                // A name was a string, and serializes as one.
                let _ = serde_json::to_writer(&mut *out, &path[path.len() - 1]);
                out.push(b':');
            }
            let verdict = if named { self.verdict(path) } else { Verdict::Look(wanted) };
            let taken = match verdict {
                Verdict::Take => {
                    out.extend_from_slice(value.get().as_bytes());
                    true
                }
                Verdict::Leave => false,
                Verdict::Look(_) if path.len() > DEPTH_MAX => false,
                Verdict::Look(wanted) => self.value(value.get().as_bytes(), wanted, path, out),
            };
            if named {
                path.pop();
            }
            if !taken {
                out.truncate(before);
            }
        }
        let any = out.len() > first;
        match any {
            true => out.push(if is_list { b']' } else { b'}' }),
            false => out.truncate(start),
        }
        any
    }

    fn verdict(&self, path: &[String]) -> Verdict {
        let fit = |patterns: &[Pattern]| patterns.iter().map(|pattern| fits(pattern, path)).max();
        let excluded = fit(&self.excludes).unwrap_or(Fit::No);
        let included = match self.includes.is_empty() {
            true => Fit::Whole,
            false => fit(&self.includes).unwrap_or(Fit::No),
        };
        match (included, excluded) {
            (_, Fit::Whole) | (Fit::No, _) => Verdict::Leave,
            (Fit::Whole, Fit::No) => Verdict::Take,
            (Fit::Whole, Fit::Begin) => Verdict::Look(true),
            (Fit::Begin, Fit::Begin | Fit::No) => Verdict::Look(false),
        }
    }
}

/// How a path fits a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fit {
    No,
    /// It is on the way to what fits.
    Begin,
    /// It fits, or lies within what does.
    Whole,
}

fn fits(pattern: &[String], path: &[String]) -> Fit {
    match (pattern.split_first(), path.split_first()) {
        (None, _) => Fit::Whole,
        (Some((level, rest)), _) if level == "**" => {
            let here = fits(rest, path);
            let below = match path.split_first() {
                Some((_, path)) if here != Fit::Whole => fits(pattern, path),
                _ => Fit::Begin,
            };
            here.max(below)
        }
        (Some(_), None) => Fit::Begin,
        (Some((level, rest)), Some((name, path))) if like(level.as_bytes(), name.as_bytes()) => {
            fits(rest, path)
        }
        _ => Fit::No,
    }
}

fn levels(pattern: &str) -> Pattern {
    let mut levels: Pattern = pattern.split('.').map(str::to_owned).collect();
    levels.dedup_by(|one, other| one == "**" && other == "**");
    levels
}

/// The same where each `*` within a name goes over dots.
fn deep(pattern: &str) -> Pattern {
    levels(
        &pattern
            .split('.')
            .map(|level| if level == "*" { "**.*" } else { level })
            .collect::<Vec<_>>()
            .join("."),
    )
}

/// True for a name that fits a pattern; `*` stands for any characters.
pub fn like(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    // Where to go on when what follows the last star does not fit: that star, and the name behind it.
    let mut back: Option<(usize, usize)> = None;
    while n < name.len() {
        if pattern.get(p) == Some(&b'*') {
            back = Some((p, n));
            p += 1;
        } else if pattern.get(p) == Some(&name[n]) {
            (p, n) = (p + 1, n + 1);
        } else if let Some((star, from)) = back {
            back = Some((star, from + 1));
            (p, n) = (star + 1, from + 1);
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

type Members<'a> = Vec<(String, &'a RawValue)>;

/// The members of an object, in their order.
pub fn members(json: &[u8]) -> Option<Members<'_>> {
    struct Object;
    impl<'de> Visitor<'de> for Object {
        type Value = Members<'de>;
        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("an object")
        }
        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
            let mut members = Vec::new();
            while let Some(member) = map.next_entry()? {
                members.push(member);
            }
            Ok(members)
        }
    }
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let members = deserializer.deserialize_map(Object).ok()?;
    deserializer.end().ok()?;
    Some(members)
}

fn elements(json: &[u8]) -> Option<Members<'_>> {
    struct List;
    impl<'de> Visitor<'de> for List {
        type Value = Members<'de>;
        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("a list")
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Members<'de>, A::Error> {
            let mut elements = Vec::new();
            while let Some(element) = list.next_element()? {
                elements.push((String::new(), element));
            }
            Ok(elements)
        }
    }
    serde_json::Deserializer::from_slice(json).deserialize_seq(List).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &str = r#"{"took":1,"hits":{"total":{"value":2},"hits":[{"_id":"1","_source":{"a":1}},{"_id":"2"}]},"l":[1]}"#;

    #[track_caller]
    fn check_path(path: &str, expected: &str) {
        let left = Sieve::of_path(path).unwrap().sift(ANSWER.as_bytes());
        assert_eq!(String::from_utf8(left).unwrap(), expected, "{path}");
    }

    #[test]
    fn paths() {
        check_path("", ANSWER);
        check_path("took", r#"{"took":1}"#);
        check_path("t*k,l", r#"{"took":1,"l":[1]}"#);
        check_path("hits.total.value", r#"{"hits":{"total":{"value":2}}}"#);
        check_path("hits.hits._source,took", r#"{"took":1,"hits":{"hits":[{"_source":{"a":1}}]}}"#);
        check_path("**._id", r#"{"hits":{"hits":[{"_id":"1"},{"_id":"2"}]}}"#);
        check_path("hits.*._id", r#"{"hits":{"hits":[{"_id":"1"},{"_id":"2"}]}}"#);
        check_path("-hits", r#"{"took":1,"l":[1]}"#);
        check_path("hits.hits,-**._id", r#"{"hits":{"hits":[{"_source":{"a":1}}]}}"#);
        check_path("nothing", "{}");
        check_path("took.more", "{}");
        check_path("l.x", "{}");
    }

    #[track_caller]
    fn check_source(includes: &[&str], excludes: &[&str], expected: &str) {
        let all = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
        let filter = SourceFilter { none: false, includes: all(includes), excludes: all(excludes) };
        let source = br#"{"b": "x","a":{"c":1,"d":[{"e":2},{"f":3}]},"ab":[1,2]}"#;
        let left = Sieve::of_source(&filter).unwrap().sift(source);
        assert_eq!(String::from_utf8(left).unwrap(), expected, "{includes:?} {excludes:?}");
    }

    #[test]
    fn sources() {
        check_source(&["a"], &[], r#"{"a":{"c":1,"d":[{"e":2},{"f":3}]}}"#);
        check_source(&["a.c", "b"], &[], r#"{"b":"x","a":{"c":1}}"#);
        check_source(&["a*"], &["a.d"], r#"{"a":{"c":1},"ab":[1,2]}"#);
        check_source(&[], &["*.e", "ab"], r#"{"b":"x","a":{"c":1,"d":[{"f":3}]}}"#);
        check_source(&["a.d.f"], &[], r#"{"a":{"d":[{"f":3}]}}"#);
        check_source(&["zz"], &[], "{}");
    }

    #[test]
    fn patterns_are_limited_and_bad_json_is_no_panic() {
        assert!(Sieve::of_path(&"a,".repeat(2 * PATTERNS_MAX)).is_ok());
        assert!(Sieve::of_path(&"a,".repeat(2 * PATTERNS_MAX + 1)).is_err());
        let sieve = Sieve::of_path("a.b").unwrap();
        for json in ["", "{", "[", "{\"a\":{\"b\"", "1", "{\"a\":[[[{\"b\":1}]]]}"] {
            sieve.sift(json.as_bytes());
        }
        let deep = format!("{}1{}", "{\"a\":".repeat(100), "}".repeat(100));
        assert_eq!(Sieve::of_path("**.b").unwrap().sift(deep.as_bytes()), b"{}");
    }

    #[test]
    fn names_fit_patterns() {
        for (pattern, name) in [("*", ""), ("a*", "a"), ("*a", "ba"), ("a*b*c", "abbc"), ("**", "x")] {
            assert!(like(pattern.as_bytes(), name.as_bytes()), "{pattern} {name}");
        }
        for (pattern, name) in [("a*a", "a"), ("a", "ab"), ("a*", "ba"), ("", "a")] {
            assert!(!like(pattern.as_bytes(), name.as_bytes()), "{pattern} {name}");
        }
    }
}
