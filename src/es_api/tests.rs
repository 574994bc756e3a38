//! Tests of the API with an embedded store and without sockets.

use std::sync::Arc;

use super::*;
use crate::http::basic_auth::{User, Users, hash_password};
use crate::http::{Handler, ParseStep, RequestParser, Response};
use crate::search::sqlite::{SqliteStore, StoreConfig};

/// A handler with its own store.
struct Kit {
    api: EsApi,
    _dir: tempfile::TempDir,
}

impl Kit {
    fn new() -> Kit {
        Kit::with(Users::allow_all())
    }

    fn with(users: Users) -> Kit {
        let dir = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(dir.path(), StoreConfig::default()).unwrap();
        Kit { api: EsApi::new(Arc::new(store), None, users, Arc::default()), _dir: dir }
    }

    /// Parses a request as the server does and returns the response.
    fn send_raw(&self, bytes: &[u8]) -> Response {
        let mut parser = RequestParser::new(EsApi::server_config().limits);
        let mut rest = bytes;
        loop {
            let (used, step) = parser.feed(rest);
            rest = &rest[used..];
            match step {
                ParseStep::Head => {
                    if let Some(response) = self.api.reject_early(parser.request()) {
                        return response;
                    }
                }
                ParseStep::Request => return self.api.handle(parser.request()),
                step => panic!("{step:?}"),
            }
        }
    }

    fn send(&self, method: &str, target: &str, body: &str) -> (u16, String) {
        let head = format!(
            "{method} {target} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let response = self.send_raw((head + body).as_bytes());
        (response.status, String::from_utf8(response.body).unwrap())
    }

    #[track_caller]
    fn check(&self, method: &str, target: &str, body: &str, status: u16, has: &str) {
        let (got, text) = self.send(method, target, body);
        assert!(got == status && text.contains(has), "{method} {target} {body}: {got} {text}");
    }
}

#[test]
fn a_proxy_script_stores_an_event_and_counts_it() {
    let kit = Kit::new();
    let event =
        r#"{"time":"2016-04-11 14:02:07-0300","destNum":"9011972598294121","ipIntruder":"198.51.100.7"}"#;
    let (status, text) = kit.send("POST", "/opensips/1", event);
    assert_eq!(status, 201, "{text}");
    assert!(text.starts_with(r#"{"_index":"opensips","_type":"1","_id":""#), "{text}");
    assert!(
        text.ends_with(
            r#""_version":1,"result":"created","_shards":{"total":1,"successful":1,"failed":0},"_seq_no":0,"_primary_term":1}"#
        ),
        "{text}"
    );
    let (status, text) = kit.send("GET", "/_count?q=destNum:9011972598294121&pretty", "");
    let expected = "{\n  \"count\" : 1,\n  \"_shards\" : {\n    \"total\" : 1,\n    \"successful\" : 1,\n    \"skipped\" : 0,\n    \"failed\" : 0\n  }\n}\n";
    assert_eq!((status, text.as_str()), (200, expected));
    kit.check("GET", "/opensips/1/_search?q=198.51.100.7", "", 200, r#""total":{"value":1,"relation":"eq"}"#);
    kit.check("GET", "/opensips/2/_count", "", 200, r#"{"count":0,"#);
}

#[test]
fn documents_are_addressed_by_id_and_have_versions() {
    let kit = Kit::new();
    kit.check("PUT", "/a/_doc/1", r#"{"k": 1}"#, 201, r#""_version":1,"result":"created""#);
    kit.check("PUT", "/a/_doc/1", r#"{"k":2}"#, 200, r#""_version":2,"result":"updated""#);
    kit.check("PUT", "/a/_create/1", r#"{"k":2}"#, 409, r#""type":"version_conflict_engine_exception""#);
    kit.check("GET", "/a/_doc/1", "", 200, r#""found":true,"_source":{"k":2}}"#);
    kit.check("GET", "/a/_source/1", "", 200, r#"{"k":2}"#);
    kit.check("GET", "/a/_doc/2", "", 404, r#"{"_index":"a","_type":"_doc","_id":"2","found":false}"#);
    kit.check("GET", "/b/_doc/2", "", 404, r#""type":"index_not_found_exception""#);
    kit.check("POST", "/a/t/1", r#"{"k":2}"#, 400, "Invalid type: expecting [_doc] but got [t]");
    kit.check("POST", "/a/_doc", "", 400, "request body is required");
    kit.check("POST", "/a/_doc", "[1]", 400, "mapper_parsing_exception");
    kit.check("POST", "/A/_doc", "{}", 400, "invalid_index_name_exception");
    kit.check("POST", "/a/_doc?foo=1", "{}", 400, "request [/a/_doc] contains unrecognized parameter: [foo]");
    kit.check("DELETE", "/a/_doc/1", "", 400, "not supported: DELETE [/a/_doc/1]");
}

#[test]
fn a_bulk_returns_one_result_per_action() {
    let kit = Kit::new();
    let body = "{\"index\":{\"_index\":\"b\",\"_id\":1}}\n{\"k\":1}\n{\"create\":{\"_index\":\"b\",\"_id\":\"1\"}}\n{\"k\":1}\n\
        {\"delete\":{\"_index\":\"b\",\"_id\":\"1\"}}\n{\"index\":{\"_index\":\"B\"}}\n{}\n{\"index\":{\"_index\":\"b\"}}\n{\"k\":\"x\"}\r\n";
    let (status, text) = kit.send("POST", "/_bulk", body);
    let answer: serde_json::Value = serde_json::from_str(&text).unwrap();
    let statuses: Vec<_> = answer["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item.as_object().unwrap().values().next().unwrap()["status"].as_u64().unwrap())
        .collect();
    assert_eq!((status, statuses), (200, vec![201, 409, 400, 400, 400]), "{text}");
    assert_eq!(answer["errors"], true);
    let lines = "{\"index\":{}}\n{}\n{\"create\":{\"_type\":\"\"}}\n{}\n";
    kit.check(
        "POST",
        "/b/_bulk?filter_path=errors,items.*.status",
        lines,
        200,
        r#"{"errors":false,"items":[{"index":{"status":201}},{"create":{"status":201}}]}"#,
    );
    kit.check("POST", "/_bulk", lines, 400, "Validation Failed: 1: index is missing;");
    kit.check("POST", "/b/_bulk", "{\"index\":{}}\n{}", 400, "must be terminated by a newline");
    kit.check("POST", "/b/_bulk", "\n", 400, "no requests added");
    kit.check("POST", "/b/_bulk", "{\"index\":{}}\n", 400, "no requests added");
    kit.check("POST", "/b/_bulk", "{\"foo\":{}}\n{}\n", 400, "Malformed action/metadata line [1]");
    kit.check("POST", "/b/_bulk", "{\"index\":{}}\n\n", 200, "failed to parse, document is empty");
}

#[test]
fn the_actions_of_a_bulk_are_limited() {
    let kit = Kit::new();
    let deletes = |count: usize| "{\"delete\":{}}\n".repeat(count);
    assert_eq!(kit.send("POST", "/b/_bulk?filter_path=errors", &deletes(ACTIONS_MAX)).0, 200);
    assert_eq!(kit.send("POST", "/b/_bulk", &deletes(ACTIONS_MAX + 1)).0, 413);
}

#[test]
fn indices_are_created_mapped_and_listed() {
    let kit = Kit::new();
    let mapping = r#"{"mappings":{"properties":{"k":{"type":"keyword"}}}}"#;
    kit.check("PUT", "/x", mapping, 200, r#"{"acknowledged":true,"shards_acknowledged":true,"index":"x"}"#);
    kit.check("PUT", "/x", "", 400, "resource_already_exists_exception");
    kit.check("PUT", "/X", "", 400, "must be lowercase");
    kit.check("GET", "/x/_mapping", "", 200, r#"{"x":{"mappings":{"properties":{"k":{"type":"keyword"}}}}}"#);
    kit.check(
        "PUT",
        "/x/_mapping",
        r#"{"properties":{"n":{"type":"long"}}}"#,
        200,
        r#"{"acknowledged":true}"#,
    );
    kit.check(
        "PUT",
        "/x/_mapping",
        r#"{"properties":{"k":{"type":"text"}}}"#,
        400,
        "illegal_argument_exception",
    );
    kit.check("GET", "/nope/_mapping", "", 404, "index_not_found_exception");
    kit.check("HEAD", "/x", "", 200, "");
    kit.check("HEAD", "/nope", "", 404, "");
    kit.check("GET", "/_cat/indices?v&h=index,docs.count", "", 200, "index docs.count\nx              0\n");
    kit.check("GET", "/_cat/indices?format=json&h=index", "", 200, r#"[{"index":"x"}]"#);
    kit.check("GET", "/_cluster/health", "", 200, r#"{"cluster_name":"lea","status":"green","#);
    kit.check("POST", "/_refresh", "", 200, r#"{"_shards":{"total":1,"successful":1,"failed":0}}"#);
    kit.check("GET", "/", "", 200, r#""number":"7.17.29""#);
    kit.check("GET", "/?filter_path=version.number", "", 200, r#"{"version":{"number":"7.17.29"}}"#);
    kit.check("GET", "/_license", "", 200, r#""status":"active""#);
    kit.check("GET", "/_snapshot", "", 400, "[/_snapshot] is not supported here");
}

#[test]
fn users_are_authenticated_before_the_body_is_read() {
    let hash = hash_password(b"secret").unwrap();
    let user = User { name: "proxy".to_owned(), password_hash: hash };
    let kit = Kit::with(Users::new(vec![user]).unwrap());
    let send = |header: &str| kit.send_raw(format!("GET / HTTP/1.1\r\nHost: a\r\n{header}\r\n").as_bytes());
    let response = send("");
    assert_eq!(response.status, 401);
    assert!(
        response
            .headers
            .iter()
            .any(|(name, value)| *name == "WWW-Authenticate" && value.starts_with("Basic "))
    );
    // proxy:secret
    assert_eq!(send("Authorization: Basic cHJveHk6c2VjcmV0\r\n").status, 200);
    assert_eq!(send("Authorization: basic cHJveHk6c2VjcmV0\r\n").status, 200);
    // proxy:secre, root:secret, no colon, no base64, another scheme
    for wrong in
        ["Basic cHJveHk6c2VjcmU=", "Basic cm9vdDpzZWNyZXQ=", "Basic cHJveHk=", "Basic *", "Bearer abc", ""]
    {
        assert_eq!(send(&format!("Authorization: {wrong}\r\n")).status, 401, "{wrong}");
    }
    let long = format!("Authorization: Basic {}\r\n", "A".repeat(1024));
    assert_eq!(send(&long).status, 401);
    assert_eq!(kit.api.metrics.http_rejected_unauthorized.get(), 8);
}

/// With many writers at once, each document answered with 201 is stored and none answered with 429 is.
#[test]
fn a_full_store_answers_429_and_stores_nothing() {
    let dir = tempfile::tempdir().unwrap();
    // The queue holds one call.
    let config = StoreConfig { queue_bytes_max: 1, ..StoreConfig::default() };
    let store = Arc::new(SqliteStore::open(dir.path(), config).unwrap());
    let kit = Kit { api: EsApi::new(store, None, Users::allow_all(), Arc::default()), _dir: dir };
    let metrics = Arc::clone(&kit.api.metrics);
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let (kit, metrics) = (&kit, &metrics);
            scope.spawn(move || {
                for n in 0.. {
                    let (status, text) = kit.send("PUT", &format!("/a/_create/{writer}-{n}"), r#"{"k":1}"#);
                    assert!(status == 201 || text.contains("es_rejected_execution_exception"), "{text}");
                    assert!(matches!(status, 201 | 429), "{status}");
                    if metrics.http_rejected_store_full.get() >= 10 && n >= 10 {
                        break;
                    }
                }
            });
        }
    });
    let stored = metrics.events_stored_total.get();
    kit.check("GET", "/a/_count", "", 200, &format!("{{\"count\":{stored},"));
}

#[test]
fn e5_metadata_without_effect_does_not_refuse_the_documents_beside_it() {
    let kit = Kit::new();
    let stored = [
        r#"{"index":{"_id":"1"},"attempts":0}"#,
        r#"{"index":{"_id":"2","routing":"r","retry_on_conflict":3,"version":-4}}"#,
        r#"{"index":{"_id":"3","pipeline":"_none","require_alias":false,"op_type":"create","dynamic_templates":{}}}"#,
        r#"{"create":{"_id":"4","_type":"_doc","routing":null,"if_seq_no":null}}"#,
    ];
    let body: String = stored.iter().map(|line| format!("{line}\n{{\"k\":1}}\n")).collect();
    kit.check("POST", "/b/_bulk?filter_path=errors", &body, 200, r#"{"errors":false}"#);
    kit.check("GET", "/b/_count", "", 200, r#"{"count":4,"#);
    // Metadata that demands something else refuses its own document alone.
    for refused in [
        r#""pipeline":"p""#,
        r#""require_alias":true"#,
        r#""if_seq_no":7"#,
        r#""version_type":"external","version":7"#,
    ] {
        let body = format!("{{\"index\":{{{refused}}}}}\n{{\"k\":1}}\n{{\"index\":{{}}}}\n{{\"k\":1}}\n");
        let (status, text) = kit.send("POST", "/b/_bulk?filter_path=errors,items.*.result", &body);
        let expected = r#"{"errors":true,"items":[{"index":{"result":"created"}}]}"#;
        assert_eq!((status, text.as_str()), (200, expected), "{refused}");
    }
    kit.check("GET", "/b/_count", "", 200, r#"{"count":8,"#);
}

#[test]
fn e9_filter_path_does_not_hide_an_error() {
    let kit = Kit::new();
    kit.check("GET", "/nope/_search?filter_path=hits.hits", "", 404, r#""type":"index_not_found_exception""#);
    kit.check("GET", "/_count?filter_path=nope", "", 200, "{}");
}

#[test]
fn t2_bodies_must_be_json_by_their_content_type() {
    let kit = Kit::new();
    let send = |target: &str, content_type: &str| {
        let head =
            format!("POST {target} HTTP/1.1\r\nHost: a\r\n{content_type}Content-Length: 2\r\n\r\n{{}}");
        let response = kit.send_raw(head.as_bytes());
        (response.status, String::from_utf8(response.body).unwrap())
    };
    for good in [
        "application/json",
        "Application/JSON; charset=utf-8",
        "application/x-ndjson",
        "application/vnd.elasticsearch+json; compatible-with=8",
    ] {
        assert_eq!(send("/a/_doc", &format!("Content-Type: {good}\r\n")).0, 201, "{good}");
    }
    for bad in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/yaml",
        "application/cbor",
        "text/json",
    ] {
        let expected = format!(r#"{{"error":"Content-Type header [{bad}] is not supported","status":406}}"#);
        assert_eq!(send("/a/_doc", &format!("Content-Type: {bad}\r\n")), (406, expected));
    }
    assert_eq!(send("/a/_doc", "").0, 406);
    assert_eq!(send("/a/_doc", "Content-Type: foo\r\n").0, 400);
    // The paths of 2.x take what the scripts of SIP proxies send.
    for any in ["", "Content-Type: text/plain\r\n", "Content-Type: application/x-www-form-urlencoded\r\n"] {
        assert_eq!(send("/opensips/1", any).0, 201, "{any}");
    }
}

#[test]
fn t2_requests_of_web_pages_are_refused() {
    let kit = Kit::new();
    let send = |headers: &str| {
        let head = format!("GET / HTTP/1.1\r\n{headers}\r\n");
        kit.send_raw(head.as_bytes()).status
    };
    assert_eq!(send("Host: 127.0.0.1:9200\r\n"), 200);
    assert_eq!(send("Host: evil.example:9200\r\n"), 403);
    assert_eq!(send("Host: 127.0.0.1:9200\r\nOrigin: https://evil.example\r\n"), 403);
    assert_eq!(kit.api.metrics.http_rejected_foreign.get(), 2);
}

#[test]
fn allowed_origins_get_the_headers_of_cors() {
    let kit = Kit::new();
    let guard = crate::http::RequestGuard::new(Vec::new(), vec!["http://a.example".to_owned()]);
    let kit = Kit { api: kit.api.for_address(Users::allow_all(), Rights::All, guard), ..kit };
    let ask = |method: &str, more: &str| {
        let head = format!(
            "{method} /a/_search HTTP/1.1\r\nHost: 127.0.0.1\r\nOrigin: http://a.example\r\n{more}\r\n"
        );
        kit.send_raw(head.as_bytes())
    };
    let has = |response: &Response, name: &str, value: &str| {
        response.headers.iter().any(|(header, text)| *header == name && text.starts_with(value))
    };
    let answer = ask("GET", "");
    assert!(
        answer.status == 404 && has(&answer, "Access-Control-Allow-Origin", "http://a.example"),
        "{answer:?}"
    );
    let answer = ask("OPTIONS", "Access-Control-Request-Method: POST\r\n");
    assert!(
        answer.status == 200 && has(&answer, "Access-Control-Allow-Methods", "OPTIONS, HEAD"),
        "{answer:?}"
    );
}

#[test]
fn scrolls_read_one_state_page_by_page() {
    check_scroll(r#"{"size":2,"sort":["_doc"]}"#, ["0,1", "2,3", "4", ""]);
    check_scroll(r#"{"size":2,"sort":[{"n":"desc"}]}"#, ["4,2", "3,0", "1", ""]);
    check_scroll(r#"{"size":2}"#, ["0,1", "2,3", "4", ""]);
}

#[track_caller]
fn check_scroll(body: &str, expected: [&str; 4]) {
    let kit = Kit::new();
    for n in 0..5 {
        kit.check("PUT", &format!("/a/_doc/{n}"), &format!(r#"{{"n":{}}}"#, n / 2), 201, "created");
    }
    let page = |(status, text): (u16, String)| {
        assert_eq!(status, 200, "{text}");
        let page: serde_json::Value = serde_json::from_str(&text).unwrap();
        let hits = page["hits"]["hits"].as_array().unwrap();
        let ids: Vec<&str> = hits.iter().map(|hit| hit["_id"].as_str().unwrap()).collect();
        (page["_scroll_id"].as_str().unwrap().to_owned(), ids.join(","))
    };
    let (id, first) = page(kit.send("POST", "/a/_search?scroll=1m", body));
    // What is written meanwhile is not in the scroll.
    kit.check("PUT", "/a/_doc/4", r#"{"n":7}"#, 200, "updated");
    kit.check("POST", "/a/_doc", r#"{"n":9}"#, 201, "created");
    let next =
        || page(kit.send("POST", "/_search/scroll", &format!(r#"{{"scroll":"1m","scroll_id":"{id}"}}"#))).1;
    assert_eq!([first, next(), next(), next()], expected, "{body}");
    let ids = format!(r#"{{"scroll_id":["{id}"]}}"#);
    kit.check("DELETE", "/_search/scroll", &ids, 200, r#"{"num_freed":1,"succeeded":true}"#);
    let again = format!(r#"{{"scroll_id":"{id}"}}"#);
    kit.check("POST", "/_search/scroll", &again, 404, "search_context_missing_exception");
}

#[test]
fn open_scrolls_are_limited_and_end() {
    let kit = Kit::new();
    kit.check("PUT", "/a/_doc/1", "{}", 201, "created");
    for _ in 0..500 {
        assert_eq!(kit.send("POST", "/a/_search?scroll=1h", r#"{"size":1}"#).0, 200);
    }
    kit.check("POST", "/a/_search?scroll=1h", r#"{"size":1}"#, 429, "too many scroll contexts");
    kit.check("DELETE", "/_search/scroll/_all", "", 200, r#""num_freed":500"#);
    // A keep-alive of no time ends at once.
    kit.check("POST", "/a/_search?scroll=0s", r#"{"size":1}"#, 200, "_scroll_id");
    kit.check("DELETE", "/_search/scroll/_all", "", 200, r#""num_freed":0"#);
}

#[test]
fn points_in_time_are_searched_with_search_after() {
    let kit = Kit::new();
    for n in 0..3 {
        kit.check("PUT", &format!("/a/_doc/{n}"), r#"{"n":1}"#, 201, "created");
    }
    let (_, text) = kit.send("POST", "/a/_pit?keep_alive=1m", "");
    let id = text.split('"').nth(3).unwrap().to_owned();
    kit.check("POST", "/a/_doc", r#"{"n":1}"#, 201, "created");
    let ask = |after: &str| {
        kit.send("POST", "/_search", &format!(r#"{{"pit":{{"id":"{id}"}},"size":2,"sort":["n"]{after}}}"#)).1
    };
    let first = ask("");
    assert!(
        first.contains(r#""value":3"#) && first.contains(r#""sort":[1,1]"#) && first.contains("pit_id"),
        "{first}"
    );
    let second = ask(r#","search_after":[1,1]"#);
    assert!(second.contains(r#""_id":"2""#) && !second.contains(r#""_id":"1""#), "{second}");
    kit.check(
        "POST",
        "/a/_search",
        &format!(r#"{{"pit":{{"id":"{id}"}}}}"#),
        400,
        "cannot be used with point in time",
    );
    kit.check("DELETE", "/_pit", &format!(r#"{{"id":"{id}"}}"#), 200, r#"{"num_freed":1,"succeeded":true}"#);
    kit.check("DELETE", "/_pit", &format!(r#"{{"id":"{id}"}}"#), 404, r#"{"num_freed":0,"succeeded":false}"#);
}

#[test]
fn searches_and_documents_of_one_request_are_limited() {
    let kit = Kit::new();
    kit.check("PUT", "/a/_doc/1", "{}", 201, "created");
    let searches = |count: usize| {
        kit.send("POST", "/_msearch?filter_path=took", &"{\"index\":\"a\"}\n{\"size\":0}\n".repeat(count)).0
    };
    assert_eq!((searches(256), searches(257)), (200, 400));
    let documents = |count: usize| {
        let ids = vec![r#""1""#; count].join(",");
        kit.send("POST", "/a/_mget?_source=false&filter_path=nope", &format!(r#"{{"ids":[{ids}]}}"#)).0
    };
    assert_eq!((documents(10_000), documents(10_001)), (200, 400));
    let analyzed =
        |bytes: usize| kit.send("POST", "/_analyze", &format!(r#"{{"text":"{}"}}"#, " ".repeat(bytes))).0;
    assert_eq!((analyzed(256 << 10), analyzed((256 << 10) + 1)), (200, 400));
}

#[test]
fn e12_head_of_unknown_names_is_404() {
    let kit = Kit::new();
    for target in ["/_alias/a", "/_template/a", "/_index_template/a", "/_component_template/a", "/a"] {
        kit.check("HEAD", target, "", 404, "");
    }
}
