//! The saved objects in config/dashboards: their form, and their requests to real nodes with events that lea
//! has stored. The import and the display of OpenSearch Dashboards and Kibana are not tested.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::net::{SocketAddr, TcpStream};

use serde_json::{Map, Value, json};

use crate::elastic::ask;
use crate::http::client::Client;
use crate::support::{DEADLINE, Events, Workdir, search_node, wait_for};

const FILE: &str = include_str!("../../config/dashboards/lea.ndjson");

/// Format versions of the objects: the highest ones that OpenSearch Dashboards 2 and 3 both support. Kibana
/// upgrades older objects.
const FORMS: [(&str, &str); 3] =
    [("index-pattern", "7.6.0"), ("visualization", "7.10.0"), ("dashboard", "7.9.3")];

/// Members of a saved object in both products. Other members are rejected.
const SAVED_OBJECTS: &str = r#"{"mappings": {"dynamic": "strict", "properties": {
    "type": {"type": "keyword"}, "updated_at": {"type": "date"}, "migrationVersion": {"dynamic": "true", "type": "object"},
    "references": {"type": "nested", "properties": {"name": {"type": "keyword"}, "type": {"type": "keyword"}, "id": {"type": "keyword"}}},
    "index-pattern": {"dynamic": "false", "properties": {"title": {"type": "text"}, "type": {"type": "keyword"}}},
    "visualization": {"properties": {
        "description": {"type": "text"}, "title": {"type": "text"}, "uiStateJSON": {"type": "text", "index": false},
        "kibanaSavedObjectMeta": {"properties": {"searchSourceJSON": {"type": "text", "index": false}}},
        "version": {"type": "integer"}, "visState": {"type": "text", "index": false}}},
    "dashboard": {"properties": {
        "description": {"type": "text"}, "title": {"type": "text"}, "hits": {"type": "integer", "index": false},
        "kibanaSavedObjectMeta": {"properties": {"searchSourceJSON": {"type": "text", "index": false}}},
        "optionsJSON": {"type": "text", "index": false}, "panelsJSON": {"type": "text", "index": false},
        "refreshInterval": {"properties": {"pause": {"type": "boolean", "index": false}, "value": {"type": "integer", "index": false}}},
        "timeFrom": {"type": "keyword", "index": false}, "timeRestore": {"type": "boolean", "index": false},
        "timeTo": {"type": "keyword", "index": false}, "version": {"type": "integer"}}}}}}"#;

fn objects() -> Vec<Value> {
    FILE.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}

fn of_type(kind: &str) -> Vec<Value> {
    objects().into_iter().filter(|object| object["type"] == kind).collect()
}

/// JSON that is stored as text in an attribute of an object.
#[track_caller]
fn packed(object: &Value, pointer: &str) -> Value {
    let text = object.pointer(pointer).and_then(Value::as_str);
    let text = text.unwrap_or_else(|| panic!("no text at {pointer}: {object}"));
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn search_source(object: &Value) -> Value {
    packed(object, "/attributes/kibanaSavedObjectMeta/searchSourceJSON")
}

fn name_of(object: &Value) -> String {
    format!("{}:{}", object["type"].as_str().unwrap(), object["id"].as_str().unwrap())
}

/// The names of references that the parts of an object use.
fn names_used(object: &Value) -> BTreeSet<String> {
    let mut used = BTreeSet::new();
    if object["type"] != "index-pattern" {
        used.extend(search_source(object)["indexRefName"].as_str().map(str::to_owned));
    }
    if object["type"] == "dashboard" {
        for panel in packed(object, "/attributes/panelsJSON").as_array().unwrap() {
            assert!(used.insert(panel["panelRefName"].as_str().unwrap().to_owned()), "{panel}");
        }
    }
    used
}

#[test]
fn objects_are_whole() {
    let objects = objects();
    let names: BTreeSet<String> = objects.iter().map(name_of).collect();
    assert_eq!(names.len(), objects.len(), "a name stands twice");
    let mut referred = BTreeSet::new();
    for object in &objects {
        let kind = object["type"].as_str().unwrap();
        let form = FORMS.iter().find(|(known, _)| *known == kind).unwrap_or_else(|| panic!("{kind}?"));
        assert_eq!(object["migrationVersion"], json!({ form.0: form.1 }), "{object}");
        let references = object["references"].as_array().unwrap();
        let given: BTreeSet<String> =
            references.iter().map(|reference| reference["name"].as_str().unwrap().to_owned()).collect();
        assert_eq!(given, names_used(object), "{object}");
        for reference in references {
            assert!(names.contains(&name_of(reference)), "{reference} is not in the file");
            referred.insert(name_of(reference));
        }
    }
    let top: BTreeSet<String> = names.difference(&referred).cloned().collect();
    assert_eq!(top, BTreeSet::from(["dashboard:lea".to_owned()]), "what nothing shows");
}

#[test]
fn panels_stand_beside_each_other() {
    let [dashboard] = &of_type("dashboard")[..] else { panic!("more than one dashboard") };
    let mut taken = BTreeMap::new();
    for panel in packed(dashboard, "/attributes/panelsJSON").as_array().unwrap() {
        let grid = |key: &str| panel["gridData"][key].as_u64().unwrap_or_else(|| panic!("{panel}"));
        assert_eq!(panel["gridData"]["i"], panel["panelIndex"]);
        assert!(grid("x") + grid("w") <= 48, "wider than a dashboard: {panel}");
        for x in grid("x")..grid("x") + grid("w") {
            for y in grid("y")..grid("y") + grid("h") {
                assert_eq!(taken.insert((x, y), panel["panelIndex"].clone()), None, "two panels at {x}, {y}");
            }
        }
    }
}

/// The day of all events in this test. Other tests on the node use other days.
const DAY: &str = "2021-03-04";

/// Stores events of all kinds.
fn store(events: &mut Events) {
    let lines = events.addr("lines");
    let syslog = events.addr("syslog transport=tcp");
    let mut http = Client::connect(events.http());
    let dialled_forms =
        ["+972598294121", "00972598294121", "011972598294121", "9011972598294121", "972598294121"];
    for (n, number) in dialled_forms.iter().chain(&["0012025550100"]).enumerate() {
        let source = json!({
            "time": format!("{DAY} 10:0{n}:07-0300"), "sipRequest": "INVITE", "destNum": number,
            "ipIntruder": if n < 2 { "203.0.113.9" } else { "203.0.113.10" },
            "userAgent": if n < 4 { "friendly-scanner" } else { "sipcli/v1.8" },
            "country": if n < 2 { "BR" } else { "NL" }, "ipHost": "198.51.100.7",
            "location": if n < 2 { "-23.54,-46.63" } else { "52.37,4.89" },
        });
        let answer = ask(&mut http, "POST", "/opensips/_doc", &source.to_string());
        assert_eq!(answer.status, 201, "{}", answer.text());
    }
    let mut lines = TcpStream::connect(lines).unwrap();
    for (n, event) in ["incoming_call", "start_call", "stop_call", "incoming_call"].iter().enumerate() {
        let line = json!({
            "@timestamp": format!("{DAY}T1{}:30:00.000Z", n / 2), "@version": "1", "message": "", "userid": "+447700900123",
            "providerid": "2", "serviceid": "3", "event": event, "key": "+447700900456",
        });
        writeln!(lines, "{line}").unwrap();
    }
    let sentrypeer = json!({
        "app_name": "sentrypeer", "event_timestamp": format!("{DAY} 14:00:00.123456789"), "called_number": "00972598294121",
        "source_ip": "203.0.113.11:5060", "destination_ip": "198.51.100.7", "sip_method": "OPTIONS", "sip_user_agent": "sipcli/v1.8",
    });
    writeln!(lines, "{sentrypeer}").unwrap();
    let mut syslog = TcpStream::connect(syslog).unwrap();
    for (number, intruder) in [("9011972598294121", 9), ("00972598294121", 9), ("12025550100", 12)] {
        writeln!(
            syslog,
            "<134>1 {DAY}T16:02:07Z honey1 opensips 2101 - - 198.51.100.7,203.0.113.{intruder},INVITE,sip:100@198.51.100.7,\
             sip:{number}@198.51.100.7,pplsip,[-46.63,-23.54]"
        )
        .unwrap();
    }
}

/// Expected buckets and metrics of each visualization for the events of `store`, one line per bucket.
fn expected(id: &str) -> &'static [&'static str] {
    match id {
        "lea-calls-over-time" => &[
            "2021-03-04T10:30:00.000Z incoming_call 1",
            "2021-03-04T10:30:00.000Z start_call 1",
            "2021-03-04T11:30:00.000Z incoming_call 1",
            "2021-03-04T11:30:00.000Z stop_call 1",
        ],
        "lea-attempts-over-time" => {
            &["2021-03-04T13:00:00.000Z INVITE 6", "2021-03-04T14:00:00.000Z OPTIONS 1"]
        }
        "lea-numbers" => &[
            "+972598294121 6 attackers=3 last=2021-03-04T14:00:00.123Z",
            "+12025550100 1 attackers=1 last=2021-03-04T13:05:07.000Z",
        ],
        "lea-intruders" => &[
            "203.0.113.10 4 numbers=2 last=2021-03-04T13:05:07.000Z",
            "203.0.113.9 2 numbers=1 last=2021-03-04T13:01:07.000Z",
            "203.0.113.11 1 numbers=1 last=2021-03-04T14:00:00.123Z",
        ],
        "lea-user-agents" => &["friendly-scanner 4", "sipcli/v1.8 3"],
        "lea-map" => &["u1 4 at 52.37,4.89", "6g 2 at -23.54,-46.63"],
        "lea-countries" => &["NL 4", "BR 2"],
        "lea-honeypot-numbers" => &[
            "+972598294121 2 attackers=1 last=2021-03-04T16:02:07.000Z",
            "+12025550100 1 attackers=1 last=2021-03-04T16:02:07.000Z",
        ],
        "lea-honeypot-intruders" => &[
            "203.0.113.9 2 numbers=1 last=2021-03-04T16:02:07.000Z",
            "203.0.113.12 1 numbers=1 last=2021-03-04T16:02:07.000Z",
        ],
        "lea-honeypot-user-agents" => &["pplsip 3"],
        other => panic!("what does {other} show?"),
    }
}

/// The query of a search bar: empty, or `FIELD:*`.
fn question(query: &Value) -> Value {
    assert_eq!(query["language"], "kuery");
    match query["query"].as_str().unwrap() {
        "" => json!({"match_all": {}}),
        text => {
            let field = text.strip_suffix(":*").unwrap_or_else(|| panic!("{text} is not known here"));
            json!({"bool": {"should": [{"exists": {"field": field}}], "minimum_should_match": 1}})
        }
    }
}

/// One bucket aggregation as the product requests it, with its sub-aggregations.
fn bucket(agg: &Value, mut within: Map<String, Value>) -> Map<String, Value> {
    let (id, params) = (agg["id"].as_str().unwrap(), &agg["params"]);
    let field = &params["field"];
    let mut asked = match agg["type"].as_str().unwrap() {
        "terms" => {
            assert_eq!(params["orderBy"], "1", "the first metric counts");
            json!({"terms": {"field": field, "size": params["size"], "order": {"_count": params["order"]}}})
        }
        // The product chooses the interval from the time range: half an hour for a day.
        "date_histogram" => json!({"date_histogram": {
            "field": field, "fixed_interval": "30m", "time_zone": "UTC", "min_doc_count": params["min_doc_count"],
        }}),
        "geohash_grid" => {
            within.insert("centroid".to_owned(), json!({"geo_centroid": {"field": field}}));
            json!({"geohash_grid": {"field": field, "precision": params["precision"]}})
        }
        other => panic!("{other} is not known here"),
    };
    if !within.is_empty() {
        asked["aggs"] = within.into();
    }
    let asked = Map::from_iter([(id.to_owned(), asked)]);
    if params["isFilteredByCollar"] != true {
        return asked;
    }
    // The visible part of the map, here the whole world.
    let (top_left, bottom_right) = (json!({"lat": 89.9, "lon": -179.9}), json!({"lat": -89.9, "lon": 179.9}));
    let mut seen = json!({"ignore_unmapped": true});
    seen[field.as_str().unwrap()] = json!({"top_left": top_left, "bottom_right": bottom_right});
    let filter = json!({"filter": {"geo_bounding_box": seen}, "aggs": asked});
    Map::from_iter([("filter_agg".to_owned(), filter)])
}

/// The body of the `_search` request of a visualization for the day of the events.
fn request(visualization: &Value, time_field: &str) -> Value {
    let state = packed(visualization, "/attributes/visState");
    let aggs = state["aggs"].as_array().unwrap();
    let (metrics, buckets): (Vec<&Value>, Vec<&Value>) =
        aggs.iter().partition(|agg| agg["schema"] == "metric");
    // Each bucket has a count without an aggregation for it.
    let metrics = metrics.iter().filter(|metric| metric["type"] != "count");
    let innermost = metrics.map(|metric| {
        let id = metric["id"].as_str().unwrap().to_owned();
        (id, json!({ metric["type"].as_str().unwrap(): {"field": metric["params"]["field"]} }))
    });
    let asked = buckets.iter().rev().fold(innermost.collect(), |within, agg| bucket(agg, within));
    let span = json!({"gte": format!("{DAY}T00:00:00.000Z"), "lte": format!("{DAY}T23:59:59.999Z"),
        "format": "strict_date_optional_time"});
    json!({
        "aggs": asked, "size": 0, "stored_fields": ["*"],
        "docvalue_fields": [{"field": time_field, "format": "date_time"}],
        "query": {"bool": {"must": [], "filter": [question(&search_source(visualization)["query"]), {"range": { time_field: span }}]}},
    })
}

/// The buckets of an answer, one line each: keys, count, metrics.
fn lines(aggs: &Value, before: &str) -> Vec<String> {
    if let Some(filtered) = aggs.get("filter_agg") {
        return lines(filtered, before);
    }
    let Some(buckets) = aggs.as_object().unwrap().values().find_map(|agg| agg["buckets"].as_array()) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for bucket in buckets {
        let key = bucket["key_as_string"].as_str().or(bucket["key"].as_str()).unwrap();
        let inner = lines(bucket, &format!("{before}{key} "));
        if inner.is_empty() {
            found.push(format!("{before}{key} {}{}", bucket["doc_count"], metrics(bucket)));
        }
        found.extend(inner);
    }
    found
}

fn metrics(bucket: &Value) -> String {
    let mut text = String::new();
    for (id, metric) in bucket.as_object().unwrap() {
        if let Some(at) = metric.get("location") {
            let degrees = |key: &str| at[key].as_f64().unwrap();
            text += &format!(" at {:.2},{:.2}", degrees("lat"), degrees("lon"));
        } else if let Some(time) = metric.get("value_as_string") {
            text += &format!(" {id}={}", time.as_str().unwrap());
        } else if let Some(value) = metric.get("value") {
            text += &format!(" {id}={value}");
        }
    }
    text
}

/// The metrics of a visualization by id, with the titles of their columns.
fn columns(visualization: &Value, line: &str) -> String {
    let state = packed(visualization, "/attributes/visState");
    state["aggs"].as_array().unwrap().iter().fold(line.to_owned(), |line, agg| {
        let label = agg["params"]["customLabel"].as_str().unwrap_or_default().to_lowercase();
        line.replace(&format!(" {}=", agg["id"].as_str().unwrap()), &format!(" {label}="))
    })
}

/// The type of a field in all indices of a pattern, as the product reads it.
#[track_caller]
fn type_of(fields: &Value, field: &str) -> String {
    let types = fields["fields"][field].as_object().unwrap_or_else(|| panic!("no field {field}"));
    // The product reports a conflict for several types, and does not aggregate such a field.
    let [(kind, said)] = &types.iter().filter(|(kind, _)| *kind != "unmapped").collect::<Vec<_>>()[..] else {
        panic!("{field} is of several types: {types:?}");
    };
    assert!((&said["aggregatable"], &said["searchable"]) == (&true.into(), &true.into()), "{field}: {said}");
    (*kind).clone()
}

fn can_be_used(agg: &str, kind: &str) -> bool {
    match agg {
        "terms" | "cardinality" => ["keyword", "ip", "long", "boolean"].contains(&kind),
        "date_histogram" | "max" => kind == "date",
        "geohash_grid" => kind == "geo_point",
        _ => false,
    }
}

#[track_caller]
fn answer(node: &mut Client, method: &str, target: &str, body: &str) -> Value {
    let answer = ask(node, method, target, body);
    assert!((200..300).contains(&answer.status), "{method} {target} {body}: {}", answer.text());
    serde_json::from_slice(&answer.body).unwrap()
}

/// Each field of a visualization has a type that its aggregation supports, and the request returns the stored
/// events.
fn check_visualization(
    node: &mut Client,
    visualization: &Value,
    title: &str,
    time_field: &str,
    fields: &Value,
) {
    let state = packed(visualization, "/attributes/visState");
    for agg in state["aggs"].as_array().unwrap() {
        if let Some(field) = agg["params"]["field"].as_str() {
            let (kind, used) = (type_of(fields, field), agg["type"].as_str().unwrap());
            assert!(can_be_used(used, &kind), "{used} of {field}, which is {kind}");
        }
    }
    let body = request(visualization, time_field);
    let target = format!("/{title}/_search?ignore_unavailable=true&track_total_hits=true");
    let found = answer(node, "POST", &target, &body.to_string());
    let lines: Vec<String> =
        lines(&found["aggregations"], "").iter().map(|line| columns(visualization, line)).collect();
    let id = visualization["id"].as_str().unwrap();
    assert_eq!(lines, expected(id), "{id}: {body}\n{found}");
}

/// Stores the objects in an index with the product's mapping, and reads them back.
fn check_saved(node: &mut Client) {
    let index = "/.kibana_lea_1";
    answer(node, "PUT", index, SAVED_OBJECTS);
    for object in objects() {
        let kind = object["type"].as_str().unwrap();
        let saved = json!({
            "type": kind, kind: object["attributes"], "references": object["references"],
            "migrationVersion": object["migrationVersion"], "updated_at": format!("{DAY}T00:00:00.000Z"),
        });
        answer(
            node,
            "PUT",
            &format!("{index}/_create/{}?refresh=true", name_of(&object)),
            &saved.to_string(),
        );
        let read = answer(node, "GET", &format!("{index}/_source/{}", name_of(&object)), "");
        assert_eq!(read, saved);
    }
    let uses_pattern = json!({"query": {"bool": {"filter": [{"term": {"type": "visualization"}}, {"nested": {"path": "references",
        "query": {"term": {"references.type": "index-pattern"}}}}]}}});
    let found = answer(node, "POST", &format!("{index}/_count"), &uses_pattern.to_string());
    assert_eq!(found["count"], of_type("visualization").len());
    answer(node, "DELETE", index, "");
}

fn check_on(node: SocketAddr) {
    let work = Workdir::new();
    let store_url = format!("http://{node}");
    let flags = ["--lines", "0", "--syslog", "tcp:127.0.0.1:0", "--cluster", &store_url];
    let mut events = Events::start(&work.join("out"), &flags);
    store(&mut events);
    let mut node = Client::connect(node);
    for pattern in of_type("index-pattern") {
        let (title, time_field) = (&pattern["attributes"]["title"], &pattern["attributes"]["timeFieldName"]);
        let (title, time_field) = (title.as_str().unwrap(), time_field.as_str().unwrap());
        let range = json!({"query": {"range": { time_field: {"gte": DAY, "lte": DAY} }}}).to_string();
        wait_for(DEADLINE, "14 events in the cluster", || {
            // Before the first events there is no index, or one that is not ready.
            let refreshed = ask(&mut node, "POST", &format!("/{title}/_refresh"), "").status == 200;
            let found = ask(&mut node, "POST", &format!("/{title}/_count"), &range);
            let count = || serde_json::from_slice::<Value>(&found.body).unwrap()["count"].as_u64();
            (refreshed && found.status == 200 && count() == Some(14)).then_some(())
        });
        for part in title.split(',') {
            let found = answer(&mut node, "POST", &format!("/{part}/_count"), &range);
            assert_ne!(found["count"], 0, "no event in {part}");
        }
        let fields =
            answer(&mut node, "GET", &format!("/{title}/_field_caps?fields=*&ignore_unavailable=true"), "");
        assert_eq!(type_of(&fields, time_field), "date");
        for visualization in of_type("visualization") {
            if visualization["references"][0]["id"] == pattern["id"] {
                check_visualization(&mut node, &visualization, title, time_field, &fields);
            }
        }
    }
    check_saved(&mut node);
    events.term();
}

#[test]
fn visualizations_show_what_lea_stored_in_elasticsearch_7() {
    check_on(search_node::elasticsearch_7());
}

#[test]
fn visualizations_show_what_lea_stored_in_opensearch_3() {
    check_on(search_node::opensearch_3());
}
