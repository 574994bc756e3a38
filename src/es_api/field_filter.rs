//! Selects parts of JSON by patterns: `filter_path` for a response, `_source` filters for a document. Pure.
//!
//! Selected members keep their order and their bytes. The elements of a list have the same path as the list. An object or
//! a list without a selected part is omitted.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::error::ApiError;
use crate::runtime::json::JsonObject;
use crate::search::glob::glob_matches;
use crate::search::query::SourceFilter;

/// Limit on the patterns of one request.
const PATTERNS_MAX: usize = 64;

/// Limit on the levels that are filtered. A deeper object is omitted unless a pattern selects it as a whole.
const DEPTH_MAX: usize = 64;

/// Patterns of the members to include and to exclude. Without patterns everything is included.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct FieldFilter {
    includes: Vec<PathPattern>,
    excludes: Vec<PathPattern>,
}

/// The levels of a path: names, patterns of names, or `**` for any number of levels.
type PathPattern = Vec<String>;

/// The result of matching a member with the patterns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum MemberDecision {
    Keep,
    Drop,
    /// The parts of the member decide. True: each part is included unless a pattern excludes it.
    Descend(bool),
}

impl FieldFilter {
    /// Parses `filter_path`: patterns separated by commas; a pattern that starts with `-` excludes.
    pub(super) fn from_filter_path(text: &str) -> Result<FieldFilter, ApiError> {
        let mut filter = FieldFilter::default();
        for pattern in text.split(',').map(str::trim).filter(|pattern| !pattern.is_empty()) {
            match pattern.strip_prefix('-') {
                Some(pattern) => filter.excludes.push(parse_pattern(pattern)),
                None => filter.includes.push(parse_pattern(pattern)),
            }
        }
        filter.check_limit()
    }

    /// Converts a `_source` filter. Its patterns also select whole objects, and its `*` also matches dots.
    pub(super) fn from_source_filter(filter: &SourceFilter) -> Result<FieldFilter, ApiError> {
        let all = |patterns: &[String]| {
            let deep = patterns
                .iter()
                .filter(|pattern| pattern.contains('*'))
                .map(|pattern| parse_pattern_across_dots(pattern));
            patterns.iter().map(|pattern| parse_pattern(pattern)).chain(deep).collect()
        };
        FieldFilter { includes: all(&filter.includes), excludes: all(&filter.excludes) }.check_limit()
    }

    fn check_limit(self) -> Result<FieldFilter, ApiError> {
        match self.includes.len() + self.excludes.len() <= 2 * PATTERNS_MAX {
            true => Ok(self),
            false => Err(ApiError::illegal_argument(format!("more than {PATTERNS_MAX} patterns of fields"))),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.includes.is_empty() && self.excludes.is_empty()
    }

    /// Returns the selected parts of a JSON object, or `{}` if there are none.
    pub(super) fn apply(&self, json: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(json.len());
        if self.is_empty() {
            out.extend_from_slice(json);
        } else if !self.filter_value(json, self.includes.is_empty(), &mut Vec::new(), &mut out) {
            out.extend_from_slice(b"{}");
        }
        out
    }

    /// Appends the selected parts of a value to `out`. Returns false if there are none. With `is_wanted`, each part is
    /// included unless a pattern excludes it.
    fn filter_value(&self, json: &[u8], is_wanted: bool, path: &mut Vec<String>, out: &mut Vec<u8>) -> bool {
        let json = json.trim_ascii_start();
        let parts = match json.first() {
            Some(b'{') => raw_members(json),
            Some(b'[') => raw_elements(json),
            _ => None,
        };
        let Some(parts) = parts else {
            // A scalar has no parts that a longer pattern could select.
            out.extend_from_slice(if is_wanted { json } else { &[] });
            return is_wanted && !json.is_empty();
        };
        let is_list = json.starts_with(b"[");
        let (open, close) = if is_list { (b'[', b']') } else { (b'{', b'}') };
        let start = out.len();
        out.push(open);
        for (name, part) in parts {
            let before = out.len();
            if before > start + 1 {
                out.push(b',');
            }
            let is_kept = match is_list {
                true => self.filter_part(part, MemberDecision::Descend(is_wanted), path, out),
                false => self.filter_member(name.into_owned(), part, path, out),
            };
            if !is_kept {
                out.truncate(before);
            }
        }
        if out.len() == start + 1 {
            out.truncate(start);
            return false;
        }
        out.push(close);
        true
    }

    fn filter_member(
        &self,
        name: String,
        value: &RawValue,
        path: &mut Vec<String>,
        out: &mut Vec<u8>,
    ) -> bool {
        // Serializing a string cannot fail.
        let _ = serde_json::to_writer(&mut *out, &name);
        out.push(b':');
        path.push(name);
        let decision = self.decide_member(path);
        let is_kept = self.filter_part(value, decision, path, out);
        path.pop();
        is_kept
    }

    fn filter_part(
        &self,
        part: &RawValue,
        decision: MemberDecision,
        path: &mut Vec<String>,
        out: &mut Vec<u8>,
    ) -> bool {
        match decision {
            MemberDecision::Keep => {
                out.extend_from_slice(part.get().as_bytes());
                true
            }
            MemberDecision::Drop => false,
            MemberDecision::Descend(_) if path.len() > DEPTH_MAX => false,
            MemberDecision::Descend(is_wanted) => {
                self.filter_value(part.get().as_bytes(), is_wanted, path, out)
            }
        }
    }

    fn decide_member(&self, path: &[String]) -> MemberDecision {
        let best_match =
            |patterns: &[PathPattern]| patterns.iter().map(|pattern| match_path_pattern(pattern, path)).max();
        let excluded = best_match(&self.excludes).unwrap_or(PathMatch::No);
        let included = match self.includes.is_empty() {
            true => PathMatch::Full,
            false => best_match(&self.includes).unwrap_or(PathMatch::No),
        };
        match (included, excluded) {
            (_, PathMatch::Full) | (PathMatch::No, _) => MemberDecision::Drop,
            (PathMatch::Full, PathMatch::No) => MemberDecision::Keep,
            (PathMatch::Full, PathMatch::Prefix) => MemberDecision::Descend(true),
            (PathMatch::Prefix, PathMatch::Prefix | PathMatch::No) => MemberDecision::Descend(false),
        }
    }
}

/// How a path fits a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum PathMatch {
    No,
    /// The path leads to members that may match.
    Prefix,
    /// The path matches, or it is within a member that matches.
    Full,
}

fn match_path_pattern(pattern: &[String], path: &[String]) -> PathMatch {
    match (pattern.split_first(), path.split_first()) {
        (None, _) => PathMatch::Full,
        (Some((level, rest)), _) if level == "**" => {
            let here = match_path_pattern(rest, path);
            let below = match path.split_first() {
                Some((_, path)) if here != PathMatch::Full => match_path_pattern(pattern, path),
                _ => PathMatch::Prefix,
            };
            here.max(below)
        }
        (Some(_), None) => PathMatch::Prefix,
        (Some((level, rest)), Some((name, path))) if glob_matches(level, name) => {
            match_path_pattern(rest, path)
        }
        _ => PathMatch::No,
    }
}

fn parse_pattern(pattern: &str) -> PathPattern {
    let mut levels: PathPattern = pattern.split('.').map(str::to_owned).collect();
    levels.dedup_by(|one, other| one == "**" && other == "**");
    levels
}

/// Parses a pattern whose `*` also matches dots.
fn parse_pattern_across_dots(pattern: &str) -> PathPattern {
    parse_pattern(
        &pattern
            .split('.')
            .map(|level| if level == "*" { "**.*" } else { level })
            .collect::<Vec<_>>()
            .join("."),
    )
}

pub(super) type RawMembers<'a> = Vec<(Cow<'a, str>, &'a RawValue)>;

/// Returns the members of a JSON object in their order, or `None` if `json` is not an object.
pub(super) fn raw_members(json: &[u8]) -> Option<RawMembers<'_>> {
    serde_json::from_slice(json).ok().map(|JsonObject(members)| members)
}

fn raw_elements(json: &[u8]) -> Option<RawMembers<'_>> {
    let elements: Vec<&RawValue> = serde_json::from_slice(json).ok()?;
    Some(elements.into_iter().map(|element| (Cow::Borrowed(""), element)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &str = r#"{"took":1,"hits":{"total":{"value":2},"hits":[{"_id":"1","_source":{"a":1}},{"_id":"2"}]},"l":[1]}"#;

    #[track_caller]
    fn check_path(path: &str, expected: &str) {
        let filtered = FieldFilter::from_filter_path(path).unwrap().apply(ANSWER.as_bytes());
        assert_eq!(String::from_utf8(filtered).unwrap(), expected, "{path}");
    }

    #[test]
    fn filter_path_selects_members_at_any_level() {
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
        let filter = SourceFilter { excludes_all: false, includes: all(includes), excludes: all(excludes) };
        let source = br#"{"b": "x","a":{"c":1,"d":[{"e":2},{"f":3}]},"ab":[1,2]}"#;
        let filtered = FieldFilter::from_source_filter(&filter).unwrap().apply(source);
        assert_eq!(String::from_utf8(filtered).unwrap(), expected, "{includes:?} {excludes:?}");
    }

    #[test]
    fn source_filters_select_objects_and_names_with_dots() {
        check_source(&["a"], &[], r#"{"a":{"c":1,"d":[{"e":2},{"f":3}]}}"#);
        check_source(&["a.c", "b"], &[], r#"{"b":"x","a":{"c":1}}"#);
        check_source(&["a*"], &["a.d"], r#"{"a":{"c":1},"ab":[1,2]}"#);
        check_source(&[], &["*.e", "ab"], r#"{"b":"x","a":{"c":1,"d":[{"f":3}]}}"#);
        check_source(&["a.d.f"], &[], r#"{"a":{"d":[{"f":3}]}}"#);
        check_source(&["zz"], &[], "{}");
    }

    #[test]
    fn patterns_are_limited_and_malformed_json_does_not_panic() {
        assert!(FieldFilter::from_filter_path(&"a,".repeat(2 * PATTERNS_MAX)).is_ok());
        assert!(FieldFilter::from_filter_path(&"a,".repeat(2 * PATTERNS_MAX + 1)).is_err());
        let filter = FieldFilter::from_filter_path("a.b").unwrap();
        for json in ["", "{", "[", "{\"a\":{\"b\"", "1", "{\"a\":[[[{\"b\":1}]]]}"] {
            filter.apply(json.as_bytes());
        }
        let deep = format!("{}1{}", "{\"a\":".repeat(100), "}".repeat(100));
        assert_eq!(FieldFilter::from_filter_path("**.b").unwrap().apply(deep.as_bytes()), b"{}");
    }
}
