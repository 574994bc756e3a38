//! Requests as dashboards send them: Grafana's Elasticsearch data source, Kibana's Discover, and the visualisations of
//! OpenSearch Dashboards. Highlighting is switched off in them.

use lea::es_api::EsApi;
use lea::http::basic_auth::Users;
use serde_json::{Value, json};

use super::{Events, ask};
use crate::http::client::Client;

/// 10:00, 10:01, 10:03 and 11:00 of a day.
const DOCUMENTS: [(&str, &str); 4] = [
    (
        "1",
        r#"{"@timestamp":"2026-11-30T10:00:10Z","sipRequest":"INVITE","destNum":"+447700900001","attempts":1}"#,
    ),
    (
        "2",
        r#"{"@timestamp":"2026-11-30T10:01:20Z","sipRequest":"INVITE","destNum":"+447700900002","attempts":4}"#,
    ),
    ("3", r#"{"@timestamp":"2026-11-30T10:03:30Z","sipRequest":"REGISTER","attempts":10,"ratio":0.5}"#),
    (
        "4",
        r#"{"@timestamp":"2026-11-30T11:00:40Z","sipRequest":"INVITE","destNum":"+447700900001","attempts":2}"#,
    ),
];

/// 10:00 and 11:00 of that day, in milliseconds.
const TEN: u64 = 1_796_032_800_000;
const ELEVEN: u64 = TEN + 3_600_000;

struct Dashboard {
    _events: Events,
    client: Client,
}

impl Dashboard {
    fn start() -> Dashboard {
        let events = Events::start(EsApi::server_config(), Users::allow_all());
        let mut client = events.server.client();
        for (id, source) in DOCUMENTS {
            let answer = ask(&mut client, "PUT", &format!("/seen-calls/_doc/{id}"), source);
            assert_eq!(answer.status, 201, "{}", answer.text());
        }
        Dashboard { _events: events, client }
    }

    #[track_caller]
    fn send(&mut self, target: &str, body: &str) -> Value {
        let answer = ask(&mut self.client, "POST", target, body);
        assert_eq!(answer.status, 200, "{body}: {}", answer.text());
        serde_json::from_slice(&answer.body).unwrap()
    }

    /// Sends one search as Grafana does, and returns its answer.
    #[track_caller]
    fn grafana(&mut self, body: Value) -> Value {
        let header =
            json!({"ignore_unavailable": true, "index": "seen-*", "search_type": "query_then_fetch"});
        let target = "/_msearch?max_concurrent_shard_requests=5";
        let answer = self.send(target, &format!("{header}\n{body}\n"));
        assert_eq!(answer["responses"][0]["status"], 200, "{answer}");
        answer["responses"][0].clone()
    }

    /// Sends a search as Kibana and OpenSearch Dashboards do.
    #[track_caller]
    fn dashboards(&mut self, body: Value) -> Value {
        let target = "/seen-calls*/_search?ignore_unavailable=true&track_total_hits=true&timeout=30000ms\
                      &preference=1796032800000&batched_reduce_size=64&ignore_throttled=true";
        self.send(target, &body.to_string())
    }
}

/// The filter of a panel from 10:00 to 10:59:59.999.
fn panel(query: &str) -> Value {
    json!({"bool": {"filter": [
        {"range": {"@timestamp": {"format": "epoch_millis", "gte": TEN, "lte": ELEVEN - 1}}},
        {"query_string": {"analyze_wildcard": true, "query": query}},
    ]}})
}

fn time_filter() -> Value {
    let (from, to) = ("2026-11-30T10:00:00.000Z", "2026-11-30T10:59:59.999Z");
    json!({"range": {"@timestamp": {"format": "strict_date_optional_time", "gte": from, "lte": to}}})
}

#[track_caller]
fn check_buckets(answer: &Value, name: &str, expected: &[(Value, u64)]) {
    let buckets = answer["aggregations"][name]["buckets"].as_array().unwrap();
    let found: Vec<_> =
        buckets.iter().map(|one| (one["key"].clone(), one["doc_count"].as_u64().unwrap())).collect();
    assert_eq!(found, expected, "{answer}");
}

#[test]
fn grafana_draws_a_metric_over_time() {
    let mut dashboard = Dashboard::start();
    let answer = dashboard.grafana(json!({
        "size": 0, "query": panel("sipRequest:INVITE"),
        "aggs": {"2": {
            "date_histogram": {
                "field": "@timestamp", "fixed_interval": "60000ms", "min_doc_count": 0, "format": "epoch_millis",
                "extended_bounds": {"min": TEN, "max": TEN + 120_000},
            },
            "aggs": {"1": {"avg": {"field": "attempts"}}},
        }},
    }));
    check_buckets(&answer, "2", &[(TEN.into(), 1), ((TEN + 60_000).into(), 1), ((TEN + 120_000).into(), 0)]);
    let buckets = &answer["aggregations"]["2"]["buckets"];
    assert_eq!(buckets[1]["1"]["value"], 4.0);
    assert_eq!(buckets[2]["1"]["value"], Value::Null);
    assert_eq!(buckets[0]["key_as_string"], TEN.to_string());
}

#[test]
fn grafana_orders_terms_by_a_metric_and_lists_values() {
    let mut dashboard = Dashboard::start();
    let answer = dashboard.grafana(json!({
        "size": 0, "query": panel("*"),
        "aggs": {"3": {
            "terms": {"field": "sipRequest.keyword", "size": 10, "order": {"1": "desc"}, "min_doc_count": 1},
            "aggs": {"1": {"max": {"field": "attempts"}}},
        }},
    }));
    check_buckets(&answer, "3", &[("REGISTER".into(), 1), ("INVITE".into(), 2)]);
    assert_eq!(answer["aggregations"]["3"]["buckets"][0]["1"]["value"], 10.0);
    // The values of a variable of the dashboard.
    let answer = dashboard.grafana(json!({
        "size": 0, "query": {"bool": {"filter": [
            {"range": {"@timestamp": {"format": "epoch_millis", "gte": TEN, "lte": ELEVEN + 60_000}}},
        ]}},
        "aggs": {"1": {"terms": {"field": "destNum.keyword", "size": 500, "order": {"_key": "asc"}}}},
    }));
    check_buckets(&answer, "1", &[("+447700900001".into(), 2), ("+447700900002".into(), 1)]);
}

#[test]
fn grafana_shows_raw_events() {
    let mut dashboard = Dashboard::start();
    let answer = dashboard.grafana(json!({
        "size": 500, "query": panel("*"),
        "sort": [{"@timestamp": {"order": "desc", "unmapped_type": "boolean"}}, {"_doc": {"order": "desc"}}],
        "docvalue_fields": ["@timestamp"], "script_fields": {},
    }));
    assert_eq!(answer["hits"]["total"]["value"], 3);
    let hit = &answer["hits"]["hits"][0];
    assert_eq!(hit["fields"], json!({"@timestamp": ["2026-11-30T10:03:30.000Z"]}));
    assert_eq!((&hit["_id"], &hit["_source"]["attempts"]), (&json!("3"), &json!(10)));
    // A log panel asks for the time in a fixed form too, and reads the source.
    let answer = dashboard.grafana(json!({
        "size": 2, "query": panel("*"), "sort": [{"@timestamp": {"order": "asc", "unmapped_type": "boolean"}}],
        "docvalue_fields": ["@timestamp"], "script_fields": {},
        "fields": [{"field": "@timestamp", "format": "strict_date_optional_time_nanos"}],
    }));
    let hit = &answer["hits"]["hits"][0];
    assert_eq!(hit["fields"]["@timestamp"][0].as_str().unwrap()[..19], *"2026-11-30T10:00:10");
    assert_eq!(hit["_source"]["destNum"], "+447700900001");
}

#[test]
fn discover_lists_events_by_their_fields() {
    let mut dashboard = Dashboard::start();
    let answer = dashboard.dashboards(json!({
        "size": 500, "version": true, "sort": [{"@timestamp": {"order": "desc", "unmapped_type": "boolean"}}],
        "fields": [
            {"field": "*", "include_unmapped": "true"},
            {"field": "@timestamp", "format": "strict_date_optional_time"},
        ],
        "script_fields": {}, "stored_fields": ["*"], "runtime_mappings": {}, "_source": false,
        "query": {"bool": {"must": [], "should": [], "must_not": [], "filter": [
            {"bool": {"should": [{"match": {"sipRequest": "INVITE"}}], "minimum_should_match": 1}},
            time_filter(),
        ]}},
    }));
    assert_eq!(answer["hits"]["total"], json!({"value": 2, "relation": "eq"}));
    let hit = &answer["hits"]["hits"][1];
    assert_eq!((&hit["_id"], &hit["_version"], hit.get("_source")), (&json!("1"), &json!(1), None));
    let expected = json!({
        "@timestamp": ["2026-11-30T10:00:10.000Z"], "sipRequest": ["INVITE"], "sipRequest.keyword": ["INVITE"],
        "destNum": ["+447700900001"], "destNum.keyword": ["+447700900001"], "attempts": [1],
    });
    assert_eq!(hit["fields"], expected);
}

#[test]
fn discover_counts_events_over_time_and_opens_one() {
    let mut dashboard = Dashboard::start();
    let answer = dashboard.dashboards(json!({
        "size": 0, "track_total_hits": true, "stored_fields": ["*"], "script_fields": {}, "runtime_mappings": {},
        "docvalue_fields": [], "_source": {"excludes": []},
        "aggs": {"2": {"date_histogram": {
            "field": "@timestamp", "fixed_interval": "30m", "time_zone": "Europe/Berlin", "min_doc_count": 1,
        }}},
        "query": {"bool": {"must": [], "filter": [{"match_all": {}}], "should": [], "must_not": []}},
    }));
    check_buckets(&answer, "2", &[(TEN.into(), 3), (ELEVEN.into(), 1)]);
    let key = &answer["aggregations"]["2"]["buckets"][0]["key_as_string"];
    assert_eq!(key, "2026-11-30T11:00:00.000+01:00");
    let answer = dashboard.dashboards(json!({
        "query": {"ids": {"values": ["3"]}}, "stored_fields": ["*"], "script_fields": {}, "version": true,
        "docvalue_fields": [{"field": "@timestamp", "format": "date_time"}, "ratio"], "_source": true,
    }));
    let hit = &answer["hits"]["hits"][0];
    assert_eq!(hit["fields"], json!({"@timestamp": ["2026-11-30T10:03:30.000Z"], "ratio": [0.5]}));
    assert_eq!(hit["_source"]["sipRequest"], "REGISTER");
}

#[test]
fn visualisations_of_dashboards_are_answered() {
    let mut dashboard = Dashboard::start();
    let mut draw = |aggregations: Value| {
        dashboard.dashboards(json!({
            "aggs": aggregations, "size": 0, "stored_fields": ["*"], "script_fields": {},
            "docvalue_fields": [{"field": "@timestamp", "format": "date_time"}], "_source": {"excludes": []},
            "query": {"bool": {"must": [], "filter": [{"match_all": {}}, time_filter()], "should": [], "must_not": []}},
        }))
    };
    let pie = draw(
        json!({"2": {"terms": {"field": "sipRequest.keyword", "order": {"_count": "desc"}, "size": 5}}}),
    );
    check_buckets(&pie, "2", &[("INVITE".into(), 2), ("REGISTER".into(), 1)]);
    let table = draw(json!({"2": {
        "date_histogram": {"field": "@timestamp", "calendar_interval": "1h", "time_zone": "UTC", "min_doc_count": 1},
        "aggs": {"1": {"cardinality": {"field": "destNum.keyword"}}, "4": {"sum": {"field": "attempts"}}},
    }}));
    let row = &table["aggregations"]["2"]["buckets"][0];
    assert_eq!(
        (&row["1"]["value"], &row["4"]["value"], &row["doc_count"]),
        (&json!(2), &json!(15.0), &json!(3))
    );
    let filters = draw(json!({"2": {"filters": {"filters": {
        "calls": {"bool": {"must": [{"query_string": {
            "query": "sipRequest:INVITE", "analyze_wildcard": true, "time_zone": "UTC",
        }}], "filter": [], "should": [], "must_not": []}},
    }}}}));
    assert_eq!(filters["aggregations"]["2"]["buckets"]["calls"]["doc_count"], 2);
    let ranges = draw(json!({"2": {"range": {"field": "attempts", "keyed": true, "ranges": [
        {"from": 0, "to": 4}, {"from": 4, "to": 20},
    ]}}}));
    assert_eq!(ranges["aggregations"]["2"]["buckets"]["4.0-20.0"]["doc_count"], 2);
    let last = draw(json!({"1": {"top_hits": {
        "docvalue_fields": [{"field": "attempts"}], "_source": "attempts", "size": 1,
        "sort": [{"@timestamp": {"order": "desc"}}],
    }}}));
    let hit = &last["aggregations"]["1"]["hits"]["hits"][0];
    assert_eq!((&hit["_source"], &hit["fields"]), (&json!({"attempts": 10}), &json!({"attempts": [10]})));
    assert_eq!(last["hits"]["total"]["value"], 3);
}
