//! Random documents and queries: compares the store with a search that reads every document.

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};

use super::tests::Random;
use super::*;
use crate::search::analysis;
use crate::search::date::TimeZone;
use crate::search::document::WriteMode;
use crate::search::mapping::FieldType;
use crate::search::query::{
    Bound, FieldSelector, HitOptions, NamedAggregations, Operator, QueryValue, Sort, SortKey, SourceFilter,
    search_request,
};

const WORDS: [&str; 6] = ["friendly", "scanner", "INVITE", "192.0.2.1", "a", "Sip"];
const FIELDS: [&str; 8] = ["text", "word", "long", "double", "flag", "at", "ip", "sub.word"];

impl Random {
    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len() as u64) as usize]
    }

    fn words(&mut self) -> String {
        (0..1 + self.below(4)).map(|_| self.of(&WORDS)).collect::<Vec<_>>().join(" ")
    }

    /// Returns one of a few values, so that documents share values.
    fn value(&mut self, field: &str) -> Json {
        match field {
            "text" => self.words().into(),
            "word" | "sub.word" => self.of(&WORDS).into(),
            "long" => (self.below(9) as i64 - 4).into(),
            "double" => ((self.below(9) as f64 - 4.0) / 2.0).into(),
            "flag" => (self.below(2) == 1).into(),
            "at" => self.at().into(),
            _ => format!("192.0.2.{}", self.below(6)).into(),
        }
    }

    fn at(&mut self) -> String {
        let (day, hour, minute, ms) =
            (1 + self.below(3), self.below(3) * 11, self.below(2) * 59, self.below(2) * 999);
        format!("2026-11-0{day}T{hour:02}:{minute:02}:00.{ms:03}Z")
    }

    fn document(&mut self) -> Json {
        let mut document = json!({});
        for field in FIELDS {
            let value = match self.below(8) {
                0 => continue,
                1 => Json::Null,
                2 => (0..self.below(4)).map(|_| self.value(field)).collect(),
                _ => self.value(field),
            };
            match field.split_once('.') {
                Some((above, below)) => document[above] = json!({ below: value }),
                None => document[field] = value,
            }
        }
        document
    }

    fn query(&mut self, depth: u64) -> Query {
        let field = self.of(&FIELDS);
        let named = FieldSelector::Named(vec![field.to_owned()]);
        match self.below(if depth == 0 { 8 } else { 10 }) {
            0 => Query::Match {
                fields: named,
                text: self.plain(field),
                operator: self.of(&[Operator::Or, Operator::And]),
            },
            1 => Query::Phrase { fields: FieldSelector::Named(vec!["text".into()]), text: self.words() },
            2 => Query::Term { field: field.to_owned(), value: QueryValue::Text(self.plain(field)) },
            3 | 4 => Query::Range {
                fields: named,
                from: self.bound(field),
                to: self.bound(field),
                format: None,
                zone: TimeZone::UTC,
            },
            5 => Query::Exists {
                field: self.of(&["text", "word", "long", "sub", "sub.word", "at", "none"]).to_owned(),
            },
            6 => {
                let fields = FieldSelector::Named(vec![self.of(&["text", "word", "sub.word"]).to_owned()]);
                match self.below(2) {
                    0 => Query::Prefix {
                        fields,
                        prefix: self.of(&["s", "S", "192.", "friend", ""]).to_owned(),
                    },
                    _ => Query::Wildcard {
                        fields,
                        pattern: self.of(&["*n*", "?", "*er", "s?p", "S*", "*"]).to_owned(),
                    },
                }
            }
            7 => Query::Ids((0..3).map(|_| format!("id{}", self.below(40))).collect()),
            _ => {
                let mut some =
                    |most| (0..self.below(most)).map(|_| self.query(depth - 1)).collect::<Vec<_>>();
                let (must, should, must_not) = (some(3), some(4), some(2));
                let should_min = self.below(should.len() as u64 + 1) as usize;
                Query::Bool { must, should, must_not, should_min }
            }
        }
    }

    fn plain(&mut self, field: &str) -> String {
        match self.value(field) {
            Json::String(text) => text,
            other => other.to_string(),
        }
    }

    fn bound(&mut self, field: &str) -> Bound {
        let value = QueryValue::Text(self.plain(field));
        match self.below(3) {
            0 => Bound::Open,
            1 => Bound::Included(value),
            _ => Bound::Excluded(value),
        }
    }
}

/// A comparable value.
#[derive(Clone, Debug, PartialEq, PartialOrd)]
enum Plain {
    Number(f64),
    Text(String),
}

fn plain(field: &str, text: &str) -> Plain {
    match field {
        "long" | "double" => Plain::Number(text.parse().unwrap()),
        "at" => Plain::Number(chrono::DateTime::parse_from_rfc3339(text).unwrap().timestamp_millis() as f64),
        _ => Plain::Text(text.to_owned()),
    }
}

/// Returns all values of a field as texts.
fn leaves(document: &Json, field: &str) -> Vec<String> {
    let value = field.split('.').fold(document, |value, part| &value[part]);
    let all = value.as_array().cloned().unwrap_or_else(|| vec![value.clone()]);
    let text = |value: Json| match value {
        Json::Null | Json::Object(_) => None,
        Json::String(text) => Some(text),
        other => Some(other.to_string()),
    };
    all.into_iter().filter_map(text).collect()
}

fn tokens(text: &str) -> Vec<String> {
    analysis::tokens(text).map(|word| word.into_owned()).collect()
}

/// Returns the terms of a field: words of a text field, values of other fields.
fn indexed(document: &Json, field: &str) -> Vec<String> {
    let leaves = leaves(document, field);
    if field == "text" { leaves.iter().flat_map(|text| tokens(text)).collect() } else { leaves }
}

fn glob(pattern: &[char], text: &[char]) -> bool {
    match pattern.split_first() {
        None => text.is_empty(),
        Some(('*', rest)) => (0..=text.len()).any(|at| glob(rest, &text[at..])),
        Some(('?', rest)) => !text.is_empty() && glob(rest, &text[1..]),
        Some((c, rest)) => text.first() == Some(c) && glob(rest, &text[1..]),
    }
}

fn fits(id: &str, document: &Json, query: &Query) -> bool {
    let one = |fields: &FieldSelector| match fields {
        FieldSelector::Named(names) => names[0].clone(),
        FieldSelector::All => unreachable!("queries here name their field"),
    };
    let text_of = |value: &QueryValue| match value {
        QueryValue::Text(text) => text.clone(),
        other => panic!("{other:?}"),
    };
    let like = |fields: &FieldSelector, pattern: String| {
        let field = one(fields);
        let pattern = if field == "text" { pattern.to_lowercase() } else { pattern };
        let pattern: Vec<char> = pattern.chars().collect();
        indexed(document, &field).iter().any(|text| glob(&pattern, &text.chars().collect::<Vec<_>>()))
    };
    match query {
        Query::Match { fields, text, operator } => {
            let field = one(fields);
            let has = |word: &String| {
                indexed(document, &field).iter().any(|value| plain(&field, value) == plain(&field, word))
            };
            let words = if field == "text" { tokens(text) } else { vec![text.clone()] };
            if *operator == Operator::And { words.iter().all(has) } else { words.iter().any(has) }
        }
        Query::Phrase { text, .. } => {
            let words = tokens(text);
            leaves(document, "text")
                .iter()
                .any(|text| tokens(text).windows(words.len()).any(|window| window == words))
        }
        Query::Term { field, value } => {
            let asked = plain(field, &text_of(value));
            indexed(document, field).iter().any(|value| plain(field, value) == asked)
        }
        Query::Range { fields, from, to, .. } => {
            let field = one(fields);
            let above = |value: &Plain| match from {
                Bound::Open => true,
                Bound::Included(bound) => *value >= plain(&field, &text_of(bound)),
                Bound::Excluded(bound) => *value > plain(&field, &text_of(bound)),
            };
            let below = |value: &Plain| match to {
                Bound::Open => true,
                Bound::Included(bound) => *value <= plain(&field, &text_of(bound)),
                Bound::Excluded(bound) => *value < plain(&field, &text_of(bound)),
            };
            indexed(document, &field)
                .iter()
                .map(|value| plain(&field, value))
                .any(|value| above(&value) && below(&value))
        }
        Query::Exists { field } => {
            let field = if field == "sub" { "sub.word" } else { field };
            !leaves(document, field).is_empty()
        }
        Query::Prefix { fields, prefix } => like(fields, format!("{prefix}*")),
        Query::Wildcard { fields, pattern } => like(fields, pattern.clone()),
        Query::Ids(ids) => ids.iter().any(|asked| asked == id),
        Query::Bool { must, should, must_not, should_min } => {
            must.iter().all(|query| fits(id, document, query))
                && should.iter().filter(|query| fits(id, document, query)).count() >= *should_min
                && !must_not.iter().any(|query| fits(id, document, query))
        }
        Query::All => true,
        Query::None => false,
        Query::Lenient(query) => fits(id, document, query),
        other => panic!("no random query is {other:?}"),
    }
}

fn mapping() -> Mapping {
    let kinds = [
        FieldType::Text,
        FieldType::Keyword,
        FieldType::Long,
        FieldType::Double,
        FieldType::Boolean,
        FieldType::Date,
        FieldType::Ip,
        FieldType::Keyword,
    ];
    let field =
        |(name, kind): (&&str, FieldType)| ((*name).to_owned(), crate::search::mapping::Field::of_type(kind));
    Mapping { fields: FIELDS.iter().zip(kinds).map(field).collect(), ..Mapping::default() }
}

fn search(query: &Query, sort: Vec<Sort>, aggregations: NamedAggregations) -> Search {
    Search {
        indices: vec![],
        ignore_unavailable: false,
        query: query.clone(),
        sort,
        from: 0,
        size: 10_000,
        after: None,
        source: SourceFilter::default(),
        aggregations,
        typed_keys: false,
        options: HitOptions::default(),
        post_filter: None,
    }
}

/// Compares the store with the model.
fn check(store: &SqliteStore, model: &BTreeMap<String, Json>, random: &mut Random, questions: usize) {
    for _ in 0..questions {
        let query = random.query(3);
        let mut expected: Vec<&str> = model
            .iter()
            .filter(|(id, document)| fits(id, document, &query))
            .map(|(id, _)| id.as_str())
            .collect();
        expected.sort_unstable();
        let counted = store.count(&[], false, &query).unwrap();
        if counted != expected.len() as u64 {
            let found = store.search(&search(&query, vec![], vec![])).unwrap();
            let wrong = found.hits.iter().filter(|hit| !expected.contains(&hit.id.as_str()));
            let wrong: Vec<_> = wrong.map(|hit| String::from_utf8_lossy(&hit.source).into_owned()).collect();
            panic!(
                "{query:?}: counted {counted}, found {}, expected {}; not expected: {wrong:#?}",
                found.total,
                expected.len()
            );
        }
        let field = random.of(&["word", "long", "double", "at", "ip"]);
        let descending = random.below(2) == 1;
        let sort = Sort {
            key: SortKey::Field(field.into()),
            descending,
            missing_first: random.below(2) == 1,
            ..Sort::by_seq_no(false)
        };
        let body = br#"{"aggs": {
            "top": {"terms": {"field": "word", "size": 3}},
            "days": {"date_histogram": {"field": "at", "fixed_interval": "1d", "min_doc_count": 1},
                "aggs": {"top": {"terms": {"field": "word", "size": 3}}, "sum": {"sum": {"field": "long"}}}},
            "sum": {"sum": {"field": "long"}}
        }}"#;
        let aggregations = search_request::parse_search([], body).unwrap().aggregations;
        let found = store.search(&search(&query, vec![sort.clone()], aggregations)).unwrap();
        let mut ids: Vec<_> = found.hits.iter().map(|hit| hit.id.as_str()).collect();
        ids.sort_unstable();
        assert_eq!((ids, found.total), (expected.clone(), expected.len() as u64), "{query:?}");
        check_order(&found, model, field, &sort);
        check_buckets(&found, model, &expected);
    }
}

fn check_order(found: &SearchResult, model: &BTreeMap<String, Json>, field: &str, sort: &Sort) {
    let value = |id: &str| {
        let values = leaves(&model[id], field).into_iter().map(|value| plain(field, &value));
        let better = |a: Plain, b: Plain| if (a < b) == sort.descending { b } else { a };
        values.reduce(better)
    };
    let rank = |value: &Option<Plain>| if value.is_none() == sort.missing_first { 0 } else { 1 };
    for pair in found.hits.windows(2) {
        let (a, b) = (value(&pair[0].id), value(&pair[1].id));
        let is_ordered = match (&a, &b) {
            (Some(a), Some(b)) if sort.descending => a >= b,
            (Some(a), Some(b)) => a <= b,
            _ => rank(&a) <= rank(&b),
        };
        assert!(is_ordered, "{a:?} before {b:?} by {sort:?}");
    }
}

fn count_by(
    ids: &[&str],
    model: &BTreeMap<String, Json>,
    keys: impl Fn(&Json) -> Vec<String>,
) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for id in ids {
        let mut keys = keys(&model[*id]);
        keys.sort();
        keys.dedup();
        keys.into_iter().for_each(|key| *counts.entry(key).or_insert(0) += 1);
    }
    counts
}

fn check_buckets(found: &SearchResult, model: &BTreeMap<String, Json>, ids: &[&str]) {
    let found = serde_json::to_value(&found.aggregations).unwrap();
    let by_word = count_by(ids, model, |document| leaves(document, "word"));
    let mut top: Vec<_> = by_word.into_iter().collect();
    top.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
    let others: u64 = top.iter().skip(3).map(|(_, count)| count).sum();
    top.truncate(3);
    let shown = |json: &Json| -> Vec<(String, u64)> {
        let buckets = json["buckets"].as_array().unwrap().iter();
        buckets
            .map(|bucket| (bucket["key"].as_str().unwrap().to_owned(), bucket["doc_count"].as_u64().unwrap()))
            .collect()
    };
    assert_eq!((shown(&found["top"]), found["top"]["sum_other_doc_count"].as_u64()), (top, Some(others)));
    assert_eq!(found["sum"]["value"].as_f64(), Some(sum_of(ids, model)));
    let day = |document: &Json| leaves(document, "at").iter().map(|at| at[..10].to_owned()).collect();
    let by_day = count_by(ids, model, day);
    let days = found["days"]["buckets"].as_array().unwrap();
    assert_eq!(days.len(), by_day.len());
    for (bucket, (day, count)) in days.iter().zip(&by_day) {
        let begin = chrono::DateTime::from_timestamp_millis(bucket["key"].as_i64().unwrap()).unwrap();
        let counted = (begin.format("%Y-%m-%d").to_string(), bucket["doc_count"].as_u64().unwrap());
        assert_eq!(counted, (day.clone(), *count));
        let of_day: Vec<&str> = ids
            .iter()
            .copied()
            .filter(|id| leaves(&model[*id], "at").iter().any(|at| at[..10] == **day))
            .collect();
        let words: u64 = count_by(&of_day, model, |document| leaves(document, "word"))
            .values()
            .max()
            .copied()
            .unwrap_or(0);
        assert_eq!(shown(&bucket["top"]).first().map_or(0, |(_, count)| *count), words);
        assert_eq!(bucket["sum"]["value"].as_f64(), Some(sum_of(&of_day, model)));
    }
}

/// Adds up the numbers of documents. A number that a document has twice counts once.
fn sum_of(ids: &[&str], model: &BTreeMap<String, Json>) -> f64 {
    let numbers = count_by(ids, model, |document| leaves(document, "long"));
    numbers.iter().map(|(number, count)| number.parse::<i64>().unwrap() as f64 * *count as f64).sum()
}

/// A small `young_docs_max` produces disk segments and merges.
fn run(seed: u64, rounds: usize, young_docs_max: u32) {
    let dir = tempfile::tempdir().unwrap();
    let config = || StoreConfig { young_docs_max, ..StoreConfig::default() };
    let mut store = SqliteStore::open(dir.path(), config()).unwrap();
    store.create_index("events", &mapping()).unwrap();
    let (mut random, mut model) = (Random(seed), BTreeMap::new());
    for round in 0..rounds {
        let mut batch = Vec::new();
        for _ in 0..random.below(40) {
            let (id, source) = (format!("id{}", random.below(400)), random.document());
            batch.push(Document {
                index: "events".into(),
                doc_type: None,
                id: Some(id.clone()),
                mode: WriteMode::Index,
                source: source.to_string().into_bytes().into(),
            });
            model.insert(id, source);
        }
        assert!(store.write(batch).unwrap().iter().all(Result::is_ok));
        check(&store, &model, &mut random, 6);
        if round % 10 == 9 {
            drop(store);
            store = SqliteStore::open(dir.path(), config()).unwrap();
        }
        if round % 10 == 5 {
            let beside = SqliteStore::open_read_only(dir.path(), config()).unwrap();
            check(&beside, &model, &mut random, 6);
        }
    }
}

#[test]
fn random_queries_match_a_full_scan() {
    let rounds = if std::env::var_os("LEA_TEST_LONG").is_some() { 2_000 } else { 20 };
    run(88_172_645_463_325_252, rounds, 60);
    run(1_234_567_890_123, rounds, 7);
    run(987_654_321, rounds / 2, 1 << 20);
}
