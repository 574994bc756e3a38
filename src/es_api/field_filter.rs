//! Selects parts of JSON by patterns: `filter_path` for a response, `_source` filters for a document. Pure, except that it
//! checks the budget of the request.
//!
//! Selected members keep their order and their bytes. The elements of a list have the same path as the list. An object or
//! a list without a selected part is omitted.
//!
//! Time is bounded: a pattern is matched level by level, with the set of positions that it can have reached. The result for
//! a path is kept, so documents with the same members match their paths once.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::rc::Rc;

use serde::de::{Deserializer as _, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::error::ApiError;
use crate::runtime::json::{BorrowedText, JsonObject};
use crate::search::budget;
use crate::search::glob::glob_matches;
use crate::search::query::SourceFilter;
use crate::search::store::StoreError;

/// Limit on the patterns of one request.
const PATTERNS_MAX: usize = 64;

/// Limit on the levels of a pattern: one bit each, and one for the end.
const LEVELS_MAX: usize = 127;

/// Limit on the levels that are filtered. A deeper object is omitted unless a pattern selects it as a whole.
const DEPTH_MAX: usize = 64;

/// The same limit with the lists between the objects.
const NESTING_MAX: usize = 2 * DEPTH_MAX;

/// Paths whose results are kept.
const KEPT_PATHS_MAX: usize = 2_048;

/// Members between two checks of the budget.
const MEMBERS_PER_CHECK: u32 = 256;

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
        if self.includes.len() + self.excludes.len() > 2 * PATTERNS_MAX {
            return Err(ApiError::illegal_argument(format!("more than {PATTERNS_MAX} patterns of fields")));
        }
        if self.patterns().any(|pattern| pattern.len() > LEVELS_MAX) {
            let reason = format!("a pattern of fields has more than {LEVELS_MAX} levels");
            return Err(ApiError::illegal_argument(reason));
        }
        Ok(self)
    }

    fn patterns(&self) -> impl Iterator<Item = &PathPattern> {
        self.includes.iter().chain(&self.excludes)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.includes.is_empty() && self.excludes.is_empty()
    }

    /// Returns the selected parts of a JSON object, or `{}` if there are none. Fails if the budget of the request is used up.
    pub(super) fn apply(&self, json: &[u8]) -> Result<Vec<u8>, StoreError> {
        if self.is_empty() {
            return Ok(json.to_vec());
        }
        let mut run = FilterRun::new(self, json.len());
        let root = Rc::new(PathState { reached: self.start(), next: RefCell::default() });
        if !run.filter_value(json, self.includes.is_empty(), &root, Depth::default()) {
            run.out.extend_from_slice(b"{}");
        }
        match run.failure {
            Some(error) => Err(error),
            None => Ok(run.out),
        }
    }

    /// Returns the positions of all patterns before the first level.
    fn start(&self) -> Box<[u128]> {
        self.patterns().map(|pattern| skip_any_levels(pattern, 1)).collect()
    }

    /// Returns the positions of all patterns after one more level.
    fn step(&self, reached: &[u128], name: &str) -> Box<[u128]> {
        let next =
            self.patterns().zip(reached).map(|(pattern, reached)| step_pattern(pattern, *reached, name));
        next.collect()
    }

    fn decide(&self, reached: &[u128]) -> MemberDecision {
        let (includes, excludes) = reached.split_at(self.includes.len());
        let best_match = |patterns: &[PathPattern], reached: &[u128]| {
            let matches =
                patterns.iter().zip(reached).map(|(pattern, reached)| path_match(pattern, *reached));
            matches.max().unwrap_or(PathMatch::No)
        };
        let excluded = best_match(&self.excludes, excludes);
        let included = match self.includes.is_empty() {
            true => PathMatch::Full,
            false => best_match(&self.includes, includes),
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

/// Returns how the path fits that led to these positions. Bit n means that the first n levels of the pattern have matched.
fn path_match(pattern: &[String], reached: u128) -> PathMatch {
    match reached {
        0 => PathMatch::No,
        reached if reached >> pattern.len() & 1 == 1 => PathMatch::Full,
        _ => PathMatch::Prefix,
    }
}

/// Adds the positions after each `**`, which also matches no level.
fn skip_any_levels(pattern: &[String], reached: u128) -> u128 {
    let any = pattern.iter().enumerate().filter(|(_, level)| *level == "**");
    any.fold(reached, |reached, (at, _)| reached | (reached >> at & 1) << (at + 1))
}

/// Returns the positions of a pattern after one more level of the path.
fn step_pattern(pattern: &[String], reached: u128, name: &str) -> u128 {
    // What is within a member that matches matches too.
    let mut next = reached & 1 << pattern.len();
    for (at, level) in pattern.iter().enumerate().filter(|(at, _)| reached >> at & 1 == 1) {
        if level == "**" {
            next |= 1 << at;
        } else if glob_matches(level, name) {
            next |= 1 << (at + 1);
        }
    }
    skip_any_levels(pattern, next)
}

/// A path in the filtered JSON.
struct PathState {
    /// Positions that each pattern can have reached.
    reached: Box<[u128]>,
    /// The members of the path that were seen, with their decisions.
    next: RefCell<HashMap<String, (MemberDecision, Rc<PathState>)>>,
}

/// Number of levels above a value.
#[derive(Clone, Copy, Default)]
struct Depth {
    objects: usize,
    all: usize,
}

/// The state of filtering one text.
struct FilterRun<'f> {
    filter: &'f FieldFilter,
    out: Vec<u8>,
    kept_paths: usize,
    members: u32,
    failure: Option<StoreError>,
}

impl<'f> FilterRun<'f> {
    fn new(filter: &'f FieldFilter, bytes: usize) -> FilterRun<'f> {
        // The result is not longer, and often much shorter.
        let failure = budget::charge(bytes).err();
        let out = Vec::with_capacity(if failure.is_some() { 0 } else { bytes.min(64 << 10) });
        FilterRun { filter, out, kept_paths: 0, members: 0, failure }
    }

    /// Appends the selected parts of a value. Returns false if there are none. With `is_wanted`, each part is included unless
    /// a pattern excludes it.
    fn filter_value(&mut self, json: &[u8], is_wanted: bool, path: &Rc<PathState>, depth: Depth) -> bool {
        let json = json.trim_ascii_start();
        let start = self.out.len();
        let parts = PartVisitor { run: self, is_wanted, path, depth: Depth { all: depth.all + 1, ..depth } };
        let mut deserializer = serde_json::Deserializer::from_slice(json);
        let read = match json.first() {
            _ if depth.all >= NESTING_MAX => return false,
            Some(b'{') => deserializer.deserialize_map(parts),
            Some(b'[') => deserializer.deserialize_seq(parts),
            // A scalar has no parts that a longer pattern could select.
            _ => {
                self.out.extend_from_slice(if is_wanted { json } else { &[] });
                return is_wanted && !json.is_empty();
            }
        };
        let (open, close) = if json[0] == b'[' { (b'[', b']') } else { (b'{', b'}') };
        if read.is_err() || self.out.len() == start {
            self.out.truncate(start);
            return false;
        }
        // The parts have a comma before each of them.
        self.out[start] = open;
        self.out.push(close);
        true
    }

    /// Appends a member of an object, or nothing.
    fn filter_member(&mut self, name: &str, value: &RawValue, path: &Rc<PathState>, depth: Depth) {
        if !self.may_continue() {
            return;
        }
        let (decision, member) = self.decide_member(path, name);
        if decision == MemberDecision::Drop {
            return;
        }
        let start = self.out.len();
        self.out.push(b',');
        // Serializing a string cannot fail.
        let _ = serde_json::to_writer(&mut self.out, name);
        self.out.push(b':');
        let depth = Depth { objects: depth.objects + 1, ..depth };
        if !self.filter_part(value, decision, &member, depth) {
            self.out.truncate(start);
        }
    }

    /// Appends an element of a list, or nothing.
    fn filter_element(&mut self, value: &RawValue, is_wanted: bool, path: &Rc<PathState>, depth: Depth) {
        if !self.may_continue() {
            return;
        }
        let start = self.out.len();
        self.out.push(b',');
        if !self.filter_part(value, MemberDecision::Descend(is_wanted), path, depth) {
            self.out.truncate(start);
        }
    }

    fn filter_part(
        &mut self,
        part: &RawValue,
        decision: MemberDecision,
        path: &Rc<PathState>,
        depth: Depth,
    ) -> bool {
        match decision {
            MemberDecision::Keep => {
                self.out.extend_from_slice(part.get().as_bytes());
                true
            }
            MemberDecision::Drop => false,
            MemberDecision::Descend(_) if depth.objects > DEPTH_MAX => false,
            MemberDecision::Descend(is_wanted) => {
                self.filter_value(part.get().as_bytes(), is_wanted, path, depth)
            }
        }
    }

    fn decide_member(&mut self, path: &PathState, name: &str) -> (MemberDecision, Rc<PathState>) {
        if let Some((decision, member)) = path.next.borrow().get(name) {
            return (*decision, Rc::clone(member));
        }
        let reached = self.filter.step(&path.reached, name);
        let decision = self.filter.decide(&reached);
        let member = Rc::new(PathState { reached, next: RefCell::default() });
        if self.kept_paths < KEPT_PATHS_MAX {
            self.kept_paths += 1;
            path.next.borrow_mut().insert(name.to_owned(), (decision, Rc::clone(&member)));
        }
        (decision, member)
    }

    /// Returns false after the budget was used up.
    fn may_continue(&mut self) -> bool {
        self.members = self.members.wrapping_add(1);
        if self.members.is_multiple_of(MEMBERS_PER_CHECK) && self.failure.is_none() {
            self.failure = budget::check().err();
        }
        self.failure.is_none()
    }
}

/// Filters the parts of an object or a list while they are read, so that they need no memory.
struct PartVisitor<'r, 'f> {
    run: &'r mut FilterRun<'f>,
    is_wanted: bool,
    path: &'r Rc<PathState>,
    depth: Depth,
}

impl<'de> Visitor<'de> for PartVisitor<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object or a list")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some((BorrowedText(name), value)) = map.next_entry::<BorrowedText<'de>, &RawValue>()? {
            self.run.filter_member(&name, value, self.path, self.depth);
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while let Some(value) = list.next_element::<&RawValue>()? {
            self.run.filter_element(value, self.is_wanted, self.path, self.depth);
        }
        Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &str = r#"{"took":1,"hits":{"total":{"value":2},"hits":[{"_id":"1","_source":{"a":1}},{"_id":"2"}]},"l":[1]}"#;

    #[track_caller]
    fn check_path(path: &str, expected: &str) {
        let filtered = FieldFilter::from_filter_path(path).unwrap().apply(ANSWER.as_bytes()).unwrap();
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
        let filtered = FieldFilter::from_source_filter(&filter).unwrap().apply(source).unwrap();
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
            filter.apply(json.as_bytes()).unwrap();
        }
        let deep = format!("{}1{}", "{\"a\":".repeat(100), "}".repeat(100));
        assert_eq!(FieldFilter::from_filter_path("**.b").unwrap().apply(deep.as_bytes()).unwrap(), b"{}");
        let lists = format!("{{\"a\":{}1{}}}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(FieldFilter::from_filter_path("a.b").unwrap().apply(lists.as_bytes()).unwrap(), b"{}");
        let levels = |count: usize| FieldFilter::from_filter_path(&vec!["a"; count].join("."));
        assert!(levels(LEVELS_MAX).is_ok() && levels(LEVELS_MAX + 1).is_err());
    }

    /// The first 60 patterns took more than 50 s when each `**` was tried at each level again.
    #[test]
    fn t3_many_any_levels_take_time_in_proportion() {
        let pattern = |name: usize| format!("{}.z{name}", ["**.a"; 13].join("."));
        let patterns: Vec<String> = (0..60).map(pattern).collect();
        let filter = FieldFilter::from_filter_path(&patterns.join(",")).unwrap();
        let deep = format!("{}1{}", "{\"a\":".repeat(60), "}".repeat(60));
        let documents = format!("{{\"hits\":[{}]}}", vec![deep; 1_000].join(","));
        let start = std::time::Instant::now();
        assert_eq!(filter.apply(documents.as_bytes()).unwrap(), b"{}");
        assert!(start.elapsed().as_secs() < 20, "{:?}", start.elapsed());
        let found = FieldFilter::from_filter_path("**.a.**.a.**.a")
            .unwrap()
            .apply(br#"{"a":{"b":{"a":{"a":1}}},"c":1}"#);
        assert_eq!(found.unwrap(), br#"{"a":{"b":{"a":{"a":1}}}}"#);
    }

    #[test]
    fn t3_filtering_ends_with_the_budget_of_the_request() {
        use crate::search::budget::{RequestBudget, RequestMemory, enter};
        let memory = RequestMemory::new(usize::MAX);
        let budget =
            |bytes, seconds| RequestBudget::new(&memory, bytes, std::time::Duration::from_secs(seconds));
        let filter = FieldFilter::from_filter_path("*.b").unwrap();
        let json = format!("{{\"a\":[{}{{\"b\":1}}]}}", "1,".repeat(1_000));
        {
            let _scope = enter(budget(json.len(), 60));
            assert_eq!(filter.apply(json.as_bytes()).unwrap(), br#"{"a":[{"b":1}]}"#);
        }
        {
            let _scope = enter(budget(json.len() - 1, 60));
            assert!(matches!(filter.apply(json.as_bytes()), Err(StoreError::MemoryExceeded { .. })));
        }
        let _scope = enter(budget(json.len(), 0));
        assert!(matches!(filter.apply(json.as_bytes()), Err(StoreError::TimedOut(_))));
    }
}
