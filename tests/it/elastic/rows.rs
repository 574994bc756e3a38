//! Cases in which answers were wrong. The name of a test starts with its row in the list of cases.

use lea::es_api::EsApi;
use lea::http::basic_auth::Users;
use serde_json::{Value, json};

use super::{Events, ask};
use crate::http::client::Client;

/// A store with documents, and a client.
struct Rows {
    events: Events,
    client: Client,
}

impl Rows {
    #[track_caller]
    fn start(documents: &[(&str, &str)]) -> Rows {
        let events = Events::start(EsApi::server_config(), Users::allow_all());
        let client = events.server.client();
        let mut rows = Rows { events, client };
        for (id, source) in documents {
            let (status, answer) = rows.send("PUT", &format!("/a/_doc/{id}"), source);
            assert_eq!(status, 201, "{source}: {answer}");
        }
        rows
    }

    fn send(&mut self, method: &str, target: &str, body: &str) -> (u16, Value) {
        let answer = ask(&mut self.client, method, target, body);
        (answer.status, serde_json::from_slice(&answer.body).unwrap())
    }

    #[track_caller]
    fn search(&mut self, body: Value) -> Value {
        let (status, answer) = self.send("POST", "/a/_search", &body.to_string());
        assert_eq!(status, 200, "{body}: {answer}");
        answer
    }

    #[track_caller]
    fn ids(&mut self, body: Value) -> Vec<String> {
        let answer = self.search(body);
        let hits = answer["hits"]["hits"].as_array().unwrap().iter();
        hits.map(|hit| hit["_id"].as_str().unwrap().to_owned()).collect()
    }

    #[track_caller]
    fn check_count(&mut self, query: Value, expected: u64) {
        let body = json!({ "query": query }).to_string();
        let (status, answer) = self.send("POST", "/a/_count", &body);
        assert_eq!((status, answer["count"].as_u64()), (200, Some(expected)), "{body}: {answer}");
    }

    #[track_caller]
    fn check_refused(&mut self, method: &str, target: &str, body: &str, reason: &str) {
        let (status, answer) = self.send(method, target, body);
        assert_eq!(status, 400, "{body}: {answer}");
        assert!(answer.to_string().contains(reason), "{body}: {answer}");
    }

    fn end(self) {
        drop(self.client);
        self.events.server.end();
    }
}

#[test]
fn e6_the_score_is_one_sort_key_among_others() {
    let mut rows = Rows::start(&[("1", r#"{"n":3}"#), ("2", r#"{"n":1}"#), ("3", r#"{"n":2}"#)]);
    assert_eq!(rows.ids(json!({"sort": ["_score", {"n": "asc"}]})), ["2", "3", "1"]);
    assert_eq!(rows.ids(json!({"sort": [{"n": "desc"}, "_id"]})), ["1", "3", "2"]);
    let first = rows.search(json!({"sort": ["_score", {"n": "asc"}], "size": 1}));
    assert_eq!(first["hits"]["hits"][0]["sort"], json!([1.0, 1]));
    assert_eq!(rows.ids(json!({"sort": ["_score", {"n": "asc"}], "search_after": [1.0, 1]})), ["3", "1"]);
    assert_eq!(rows.ids(json!({"sort": ["_id"], "search_after": ["1"]})), ["2", "3"]);
    rows.end();
}

#[test]
fn e7_metadata_are_fields_and_unsupported_ones_are_refused() {
    let mut rows = Rows::start(&[("1", r#"{"n":1}"#), ("2", r#"{"n":2}"#)]);
    rows.check_count(json!({"term": {"_type": "_doc"}}), 2);
    rows.check_count(json!({"bool": {"must_not": {"term": {"_type": "_doc"}}}}), 0);
    rows.check_count(json!({"term": {"_type": "other"}}), 0);
    rows.check_count(json!({"term": {"_index": "a*"}}), 2);
    rows.check_count(json!({"query_string": {"query": "_type:_doc AND _id:(1 OR 3)"}}), 1);
    let body = json!({"size": 0, "aggs": {
        "index": {"terms": {"field": "_index"}}, "type": {"terms": {"field": "_type"}}, "id": {"terms": {"field": "_id"}},
    }});
    let found = rows.search(body)["aggregations"].take();
    assert_eq!(found["index"]["buckets"], json!([{"key": "a", "doc_count": 2}]));
    assert_eq!(found["type"]["buckets"], json!([{"key": "_doc", "doc_count": 2}]));
    assert_eq!(found["id"]["buckets"], json!([{"key": "1", "doc_count": 1}, {"key": "2", "doc_count": 1}]));
    for field in ["_source", "_version", "_seq_no", "_size"] {
        let query = json!({"query": {"term": {field: 1}}}).to_string();
        rows.check_refused("POST", "/a/_search", &query, field);
        rows.check_refused("GET", &format!("/a/_search?q={field}:1"), "", field);
    }
    rows.end();
}

#[test]
fn e8_numbers_in_texts_keep_their_digits() {
    let mut rows = Rows::start(&[]);
    let mapping = r#"{"mappings":{"properties":{"k":{"type":"keyword"},"t":{"type":"text"}}}}"#;
    assert_eq!(rows.send("PUT", "/a", mapping).0, 200);
    for (id, source) in [
        ("1", r#"{"k":89440000000000000001,"t":89440000000000000001}"#),
        ("2", r#"{"k":1.50,"t":1.50}"#),
        ("3", r#"{"k":[1e3,-0.0]}"#),
    ] {
        assert_eq!(rows.send("PUT", &format!("/a/_doc/{id}"), source).0, 201, "{source}");
    }
    rows.check_count(json!({"term": {"k": "89440000000000000001"}}), 1);
    rows.check_count(json!({"match": {"t": "89440000000000000001"}}), 1);
    rows.check_count(json!({"term": {"k": "1.50"}}), 1);
    rows.check_count(json!({"term": {"k": "1.5"}}), 0);
    rows.check_count(json!({"match": {"t": "1.50"}}), 1);
    rows.check_count(json!({"terms": {"k": ["1e3", "-0.0"]}}), 1);
    assert_eq!(rows.ids(json!({"sort": ["k"], "query": {"exists": {"field": "k"}}})), ["3", "2", "1"]);
    rows.end();
}

#[test]
fn e10_patterns_of_the_query_dsl_are_not_lowercased() {
    let mut rows = Rows::start(&[("1", r#"{"t":"Friendly Scanner"}"#), ("2", r#"{"t":"other"}"#)]);
    rows.check_count(json!({"prefix": {"t": "fri"}}), 1);
    rows.check_count(json!({"prefix": {"t": "Fri"}}), 0);
    rows.check_count(json!({"bool": {"must_not": {"prefix": {"t": "Fri"}}}}), 2);
    rows.check_count(json!({"wildcard": {"t": "Fri*"}}), 0);
    rows.check_count(json!({"wildcard": {"t": {"value": "Fri*", "case_insensitive": true}}}), 1);
    rows.check_count(json!({"query_string": {"query": "t:Fri*"}}), 1);
    rows.end();
}

#[test]
fn e12_documents_with_metadata_are_refused_and_a_byte_order_mark_is_not() {
    let mut rows = Rows::start(&[]);
    for field in ["_id", "_source", "_type", "_index", "_routing"] {
        rows.check_refused("PUT", "/a/_doc/1", &json!({field: "x"}).to_string(), "is a metadata field");
    }
    assert_eq!(rows.send("PUT", "/a/_doc/2", r#"{"o":{"_id":"x"}}"#).0, 201);
    assert_eq!(rows.send("PUT", "/a/_doc/3", "\u{feff}{\"n\":1}").0, 201);
    assert_eq!(rows.send("GET", "/a/_source/3", "").1, json!({"n": 1}));
    rows.check_count(json!({"term": {"n": 1}}), 1);
    rows.end();
}

#[test]
fn e15_sloppy_values_are_read_as_elasticsearch_reads_them() {
    let mut rows = Rows::start(&[]);
    let mapping =
        r#"{"mappings":{"properties":{"ip":{"type":"ip"},"n":{"type":"long"},"d":{"type":"date"}}}}"#;
    assert_eq!(rows.send("PUT", "/a", mapping).0, 200);
    assert_eq!(rows.send("PUT", "/a/_doc/1", r#"{"ip":"fe80::1%eth0","d":"2016-04-11"}"#).0, 201);
    assert_eq!(rows.send("PUT", "/a/_doc/2", r#"{"n":9223372036854775807,"d":"2016-04-12"}"#).0, 201);
    rows.check_count(json!({"term": {"ip": "fe80::1"}}), 1);
    rows.check_refused("PUT", "/a/_doc/3", r#"{"n":9223372036854775808}"#, "out of range of long");
    rows.check_refused("PUT", "/a/_doc/3", r#"{"n":1,"n":2}"#, "Duplicate field 'n'");
    rows.check_refused("PUT", "/a/_doc/3", r#"{"o":{"n":1,"n":2}}"#, "Duplicate field 'n'");
    let after = json!({"sort": [{"d": "asc"}], "search_after": ["2016-04-11"]});
    assert_eq!(rows.ids(after), ["2"]);
    assert_eq!(rows.send("GET", "/a/_search?q=50%25", "").1["hits"]["total"]["value"], 0);
    rows.end();
}

#[test]
fn an_e164_number_after_a_field_is_found() {
    let mut rows = Rows::start(&[("1", r#"{"destNum":"+972598294121"}"#), ("2", r#"{"destNum":"1"}"#)]);
    for target in ["/a/_count?q=destNum:%2B972598294121", "/a/_count?q=destNum:+972598294121"] {
        assert_eq!(rows.send("GET", target, "").1["count"], 1, "{target}");
    }
    rows.end();
}

#[test]
fn unsupported_parts_are_refused_by_name() {
    let mut rows = Rows::start(&[("1", r#"{"n":1}"#)]);
    for aggregation in ["significant_terms", "nested", "geohash_grid", "derivative", "moving_fn", "rate"] {
        let body = json!({"aggs": {"x": {aggregation: {"field": "n"}}}}).to_string();
        rows.check_refused("POST", "/a/_search", &body, aggregation);
    }
    for query in ["nested", "more_like_this", "function_score", "span_term", "script"] {
        let body = json!({"query": {query: {}}}).to_string();
        rows.check_refused("POST", "/a/_search", &body, query);
    }
    rows.end();
}

#[test]
fn the_number_of_buckets_is_limited() {
    let mut rows =
        Rows::start(&[("1", r#"{"d":"2016-01-01T00:00:00Z"}"#), ("2", r#"{"d":"2016-02-15T12:15:00Z"}"#)]);
    // 45 days, 12 hours and 15 minutes are 65,535 minutes, so there are 65,536 buckets.
    let by_minute =
        json!({"size": 0, "aggs": {"m": {"date_histogram": {"field": "d", "fixed_interval": "1m"}}}});
    let found = rows.search(by_minute.clone());
    assert_eq!(found["aggregations"]["m"]["buckets"].as_array().unwrap().len(), 65_536);
    assert_eq!(rows.send("PUT", "/a/_doc/3", r#"{"d":"2016-02-15T12:16:00Z"}"#).0, 201);
    let (status, answer) = rows.send("POST", "/a/_search", &by_minute.to_string());
    assert_eq!(status, 503, "{answer}");
    assert_eq!(answer["error"]["caused_by"]["type"], "too_many_buckets_exception");
    rows.end();
}
