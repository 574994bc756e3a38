//! Queries to a cluster that is the store: the answers through lea and directly from the cluster are
//! compared. Also: the expansion of numbers, and a slow or unreachable cluster.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use lea::es_api::EsApi;
use lea::http::basic_auth::Users;
use lea::phone::{NumberSettings, PhoneNumberNormalizer};
use lea::search::cluster::{
    ClusterStore, ClusterStoreConfig, EsClient as ClusterClient, ShipConfig, SpoolConfig,
};
use lea::search::dead_letters::EventDeadLetters;
use serde_json::{Value, json};

use crate::elastic::ask;
use crate::elastic::compare::{Asked, REQUESTS, Rule, requests, said};
use crate::http::client::{Answer, Client, Running};
use crate::support::process::Process;
use crate::support::relay::Relay;
use crate::support::{DEADLINE, Events, Workdir, lea, search_node, wait_until};

/// Dialled forms of one number.
const DIALLED_FORMS: [&str; 6] = [
    "+972598294121",
    "00972598294121",
    "011972598294121",
    "9011972598294121",
    "901511972598294121",
    "972598294121",
];

/// A part of each request whose answers differ, because lea reports itself as Elasticsearch 7.17.
const OPENSEARCH_DIFFERS: [&str; 2] = ["GET /?filter_path=version.number", "GET /_license?"];

/// The HTTP API in front of a cluster, with a short query timeout.
struct Edge {
    server: Running,
    _work: Workdir,
}

impl Edge {
    #[track_caller]
    fn start(cluster: SocketAddr, search_timeout: Duration) -> Edge {
        let work = Workdir::new();
        std::fs::create_dir(work.join(".lea")).unwrap();
        let numbers = Arc::new(PhoneNumberNormalizer::new(NumberSettings::default()).unwrap());
        let config = ClusterStoreConfig {
            client: ClusterClient::new("--cluster", &format!("http://{cluster}"), None, None).unwrap(),
            search_timeout,
            normalizer: Some(Arc::clone(&numbers)),
            templates: lea::billing::index_templates("billing"),
            spool: SpoolConfig::of(64 << 20, 1 << 20),
            ship: ShipConfig::default(),
        };
        let letters = Arc::new(EventDeadLetters::open(work.path()).unwrap());
        let store = ClusterStore::open(work.path(), config, letters, Arc::default()).unwrap();
        let elastic = EsApi::new(Arc::new(store), Some(numbers), Users::allow_all(), Arc::default());
        Edge { server: Running::start(EsApi::server_config(), elastic), _work: work }
    }
}

/// `lea serve-events` in front of a cluster.
fn serve(work: &Workdir, cluster: SocketAddr, flags: &[&str]) -> Events {
    let url = format!("http://{cluster}");
    Events::start(&work.join("out"), &[&["--cluster", &url], flags].concat())
}

fn once(addr: SocketAddr, method: &str, target: &str, body: &str) -> Answer {
    ask(&mut Client::connect(addr), method, target, body)
}

fn json(answer: &Answer) -> Value {
    serde_json::from_slice(&answer.body).unwrap_or_else(|error| panic!("{error}: {}", answer.text()))
}

/// Returns whether a request writes. Such requests are sent only through lea.
fn writes(asked: &Asked<'_>) -> bool {
    let Asked { method, target, .. } = asked;
    let path = target.split('?').next().unwrap();
    let is_question = path.contains("/_search") || path.contains("/_count") || path.contains("_cat/");
    !is_question && !matches!(*method, "GET" | "HEAD")
}

/// Removes the parts that may differ: the member `lea` of a source, types (which later clusters do not
/// return), and the names of ignored fields (which lea does not return).
fn bare(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut map: serde_json::Map<_, _> =
                map.into_iter().map(|(key, value)| (key, bare(value))).collect();
            map.remove("_type");
            map.remove("_ignored");
            // The body is a bare source.
            for whole in ["_source", "body"] {
                if let Some(source) = map.get_mut(whole).and_then(Value::as_object_mut) {
                    source.remove("lea");
                }
            }
            Value::Object(map)
        }
        Value::Array(list) => list.into_iter().map(bare).collect(),
        other => other,
    }
}

/// Fills the cluster through lea and queries both. Returns unexpected differences and the number of compared
/// answers.
fn differences(cluster: SocketAddr, reasons: &[&str]) -> (String, usize) {
    let work = Workdir::new();
    let events = serve(&work, cluster, &["--number-match", "exact"]);
    let (mut ours, mut theirs) = (Client::connect(events.http()), Client::connect(cluster));
    let (mut found, mut compared, mut is_new) = (String::new(), 0, false);
    for asked in requests(REQUESTS) {
        let one = |client: &mut Client| {
            let answer = ask(client, asked.method, asked.target, &asked.body);
            if answer.closes() {
                *client = Client::connect(client.stream.peer_addr().unwrap());
            }
            bare(said(&answer))
        };
        if !writes(&asked) && std::mem::take(&mut is_new) {
            refresh(events.http(), "");
        }
        let through = one(&mut ours);
        is_new |= writes(&asked);
        if writes(&asked) || matches!(asked.rule, Rule::Differs(_)) {
            continue;
        }
        compared += 1;
        let straight = one(&mut theirs);
        let line = format!("{} {} {}", asked.method, asked.target, asked.body);
        let explained = reasons.iter().any(|part| line.contains(part));
        let differs = match asked.rule {
            Rule::Status(_) => {
                ["status", "type", "root"].iter().any(|key| through.get(key) != straight.get(key))
            }
            _ => through != straight,
        };
        if differs != explained {
            let what =
                if differs { "differs" } else { "is the same, but a reason is given why it should not be" };
            let _ = writeln!(found, "{line} {what}\n  lea:      {through}\n  straight: {straight}");
        }
    }
    events.term();
    (found, compared)
}

#[track_caller]
fn check_same(cluster: SocketAddr, reasons: &[&str]) {
    let (found, compared) = differences(cluster, reasons);
    assert!(found.is_empty(), "{} differences of {compared}\n{found}", found.lines().count() / 3);
    assert!(compared >= 180, "{compared}");
}

#[test]
fn answers_through_lea_are_those_of_elasticsearch_7() {
    check_same(search_node::elasticsearch_7(), &[]);
}

#[test]
fn answers_through_lea_are_those_of_opensearch_3() {
    check_same(search_node::opensearch_3(), &OPENSEARCH_DIFFERS);
}

/// Attempts on one number in different dialled forms, and on two other numbers.
#[track_caller]
fn attempts(edge: SocketAddr, index: &str) {
    let mut lines = String::new();
    for (nth, number) in DIALLED_FORMS.iter().chain(&["+12025550100", "100"]).enumerate() {
        let source = json!({
            "time": "2026-11-21 14:02:07-0300", "sipRequest": "INVITE", "destNum": number,
            "userAgent": "friendly-scanner", "country": if nth < 4 { "NL" } else { "FR" },
        });
        let _ = writeln!(lines, "{}\n{source}", json!({"index": {"_index": index, "_id": nth.to_string()}}));
    }
    let answer = once(edge, "POST", "/_bulk", &lines);
    assert_eq!(json(&answer)["errors"], false, "{}", answer.text());
    refresh(edge, &format!("/{index}"));
}

/// Waits until a refresh through lea succeeds. A slow cluster can need more time than one query has.
#[track_caller]
fn refresh(edge: SocketAddr, path: &str) {
    let target = format!("{path}/_refresh");
    wait_until(DEADLINE, &target, || once(edge, "POST", &target, "").status == 200);
}

/// Runs a query command of lea directly on the cluster.
#[track_caller]
fn run(cluster: SocketAddr, args: &[&str]) -> String {
    let mut command = Command::new(lea());
    command.args(args).args(["--store", &format!("http://{cluster}")]);
    command.env_remove("LEA_STORE").env("TZ", "UTC").stdin(Stdio::null());
    let work = Workdir::new();
    let Output { status, stdout, stderr } = command.current_dir(work.path()).output().unwrap();
    assert_eq!(status.code(), Some(0), "{args:?}: {}", String::from_utf8_lossy(&stderr));
    String::from_utf8(stdout).unwrap()
}

#[track_caller]
fn check_dialled_forms(cluster: SocketAddr, index: &str) {
    let work = Workdir::new();
    let events = serve(&work, cluster, &[]);
    let edge = events.http();
    attempts(edge, index);
    let mut straight = Client::connect(cluster);
    let mut both = |target: &str, body: &str| {
        let method = if body.is_empty() { "GET" } else { "POST" };
        let counted = |answer: Answer| json(&answer)["count"].clone();
        let target = format!("/{index}/_count{target}");
        (counted(once(edge, method, &target, body)), counted(ask(&mut straight, method, &target, body)))
    };
    let terms = r#"{"query":{"terms":{"destNum.keyword":["972598294121"]}}}"#;
    let named = r#"{"query":{"terms":{"destNum":["972598294121","12025550100"]}}}"#;
    let phrase = r#"{"query":{"match_phrase":{"destNum":"+972 59-829-4121"}}}"#;
    for number in DIALLED_FORMS.map(|number| number.replace('+', "%2B")) {
        // A plus sign is not part of a word.
        let plain = if number.trim_start_matches("%2B") == "972598294121" { 2 } else { 1 };
        assert_eq!(both(&format!("?q=destNum:%22{number}%22"), ""), (json!(6), json!(plain)), "{number}");
        // The canonical number in the field that lea adds is found without lea, too.
        let anywhere = if number.starts_with("%2B") { 6 } else { plain };
        assert_eq!(both(&format!("?q=%22{number}%22"), ""), (json!(6), json!(anywhere)), "{number}");
        assert_eq!(both(&format!("?q=NOT%20destNum:%22{number}%22"), ""), (json!(2), json!(8 - plain)));
    }
    assert_eq!(both("", phrase), (json!(6), json!(0)));
    assert_eq!(both("", named), (json!(7), json!(3)));
    // A query for one dialled form is not expanded.
    assert_eq!(both("", terms), (json!(1), json!(1)));
    assert_eq!(both("?q=destNum:9011*", ""), (json!(1), json!(1)));
    assert_eq!(both("?q=destNum:100", ""), (json!(1), json!(1)));
    assert_eq!(both("?q=friendly-scanner", ""), (json!(8), json!(8)));

    // The commands expand the numbers, because the cluster does not.
    let at = ["--index", index];
    let ask = |args: &[&str]| run(cluster, &[args, &at].concat());
    assert_eq!(ask(&["count", "destNum:9011972598294121"]).trim(), "6");
    assert_eq!(ask(&["count", "00972598294121"]).trim(), "6");
    assert_eq!(ask(&["count", "00972598294121", "--number-match", "exact"]).trim(), "1");
    assert_eq!(ask(&["count", "972598294121", "--since", "2026-11-21", "--until", "2026-11-22"]).trim(), "6");
    assert_eq!(ask(&["count", "972598294121", "--since", "2026-11-22"]).trim(), "0");
    let top = ask(&["top", "country", "972598294121", "--json"]);
    assert_eq!(top, "{\"count\":4,\"value\":\"NL\"}\n{\"count\":2,\"value\":\"FR\"}\n");
    let found = ask(&["search", "972598294121", "--json"]);
    assert_eq!(found.lines().count(), 6);
    assert!(!found.contains("\"lea\""), "{found}");
    events.term();
}

/// Billing rows (docs/protocol.md, section 8) in a cluster give the same calls as in a file. The replies have
/// only `reply_time`.
fn check_billing(cluster: SocketAddr, index: &str) {
    let work = Workdir::new();
    let config = format!(r#"{{"parameters":{{"events":{{"indices":{{"billing":"{index}"}}}}}}}}"#);
    let config = work.write("lea.json", config).display().to_string();
    let events = serve(&work, cluster, &["--config", &config]);
    let mut rows = String::new();
    for call in 0..700 {
        let (began, ends) = (1_795_305_600 + call * 60, call * 60 + 1_795_305_630);
        let row = |method: &str, time: &str, at: i64, code: i64| {
            let row = serde_json::json!({
                "method": method, time: at, "microseconds": call, "reply_code": code, "call_id": format!("{call}@a"),
                "caller_id": "+447700900123", "callee_id": "+447700900456",
            });
            row.to_string() + "\n"
        };
        rows += &row("INVITE", "request_time", began, 0);
        rows += &row("INVITE", "reply_time", began + 3, if call % 7 == 0 { 486 } else { 200 });
        if call % 7 > 0 {
            rows += &row("BYE", "request_time", ends, 0);
            rows += &row("BYE", "reply_time", ends, 200);
        }
    }
    let bulk: String = rows.lines().map(|row| format!("{{\"index\":{{}}}}\n{row}\n")).collect();
    let stored = once(events.http(), "POST", &format!("/{index}/_bulk"), &bulk);
    assert_eq!(json(&stored)["errors"], serde_json::json!(false));
    refresh(events.http(), &format!("/{index}"));
    let file = work.write("rows.jsonl", &rows).display().to_string();
    let build = |args: &[&str]| {
        let output =
            std::process::Command::new(lea()).args(["billing", "build", "--csv"]).args(args).output();
        let output = output.unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let span = ["--since", "2026-11-22T02:00:00Z", "--until", "2026-11-22T09:00:00Z"];
    let from_file = build(&[&span[..], &[&file]].concat());
    assert_eq!(from_file.lines().count(), 1 + 7 * 60);
    for place in [format!("http://{cluster}"), format!("http://{}", events.http())] {
        let from_store = build(&[&span[..], &["--store", &place, "--index", index]].concat());
        assert_eq!(from_store, from_file, "{place}");
    }
    let at = |query: &str| run(cluster, &["count", query, "--index", index]).trim().to_owned();
    assert_eq!(at("request_time:[2026-11-22T00:00:00Z TO 2026-11-22T00:00:59Z]"), "1", "seconds are a date");
    events.term();
}

#[test]
fn billing_rows_in_a_cluster_make_the_calls_that_a_file_makes() {
    check_billing(search_node::elasticsearch_7(), "rows7");
    check_billing(search_node::opensearch_3(), "rows3");
}

#[test]
fn a_number_is_found_in_all_dialled_forms_through_elasticsearch_7() {
    check_dialled_forms(search_node::elasticsearch_7(), "families7");
}

#[test]
fn a_number_is_found_in_all_dialled_forms_through_opensearch_3() {
    check_dialled_forms(search_node::opensearch_3(), "families3");
}

/// The calls report and `events tail` work on a cluster as on a directory.
fn check_commands(cluster: SocketAddr, index: &str) {
    let work = Workdir::new();
    let line = |time: &str, subscriber: &str, event: &str| {
        json!({"@timestamp": time, "userid": subscriber, "event": event, "key": "+447700900456"}).to_string()
            + "\n"
    };
    let lines = [
        line("2026-11-22T09:00:00Z", "+447700900200", "incoming_call"),
        line("2026-11-22T09:00:04Z", "00447700900200", "start_call"),
        line("2026-11-22T09:01:00Z", "+447700900200", "stop_call"),
        line("2026-11-22T10:00:00Z", "+447700900300", "incoming_call"),
        line("2026-11-23T10:00:00Z", "+447700900200", "rejected_call"),
    ];
    let file = work.write("calls.jsonl", lines.concat()).display().to_string();
    let output =
        Command::new(lea()).args(["events", "load", "-s"]).arg(work.join("folder")).arg(&file).output();
    assert!(output.unwrap().status.success());
    let events = serve(&work, cluster, &[]);
    let bulk: String = lines.iter().map(|line| format!("{{\"index\":{{}}}}\n{line}")).collect();
    once(events.http(), "POST", &format!("/{index}/_bulk"), &bulk);
    refresh(events.http(), &format!("/{index}"));
    let report = ["calls", "report", "--csv"];
    let folder =
        Command::new(lea()).args(report).arg("-s").arg(work.join("folder")).env("TZ", "UTC").output();
    let from_folder = String::from_utf8(folder.unwrap().stdout).unwrap();
    assert_eq!(from_folder.lines().count(), 4, "{from_folder}");
    assert_eq!(run(cluster, &[&report[..], &["--index", index]].concat()), from_folder);

    let mut tail = Command::new(lea());
    tail.args(["events", "tail", "-n", "2", "--index", index, "--json", "--store"])
        .arg(format!("http://{cluster}"));
    let path = work.join("tail");
    tail.stdin(Stdio::null()).stdout(std::fs::File::create(&path).unwrap());
    let _tail = Process::start(&mut tail);
    let read = || std::fs::read_to_string(&path).unwrap();
    wait_until(DEADLINE, "what is there", || read().lines().count() == 2);
    let now = chrono::Utc::now().to_rfc3339();
    once(events.http(), "POST", &format!("/{index}/_doc"), &line(&now, "+447700900300", "start_call"));
    wait_until(DEADLINE, "what comes", || read().lines().count() == 3);
    assert!(read().lines().last().unwrap().contains(&now), "{}", read());
    events.term();
}

#[test]
fn calls_are_reported_and_followed_in_a_cluster() {
    check_commands(search_node::elasticsearch_7(), "calls7");
    check_commands(search_node::opensearch_3(), "calls3");
}

/// A query to a cluster that lea does not fill is sent unchanged.
#[test]
fn a_foreign_cluster_is_asked_as_it_was_written() {
    let cluster = search_node::elasticsearch_7();
    let mut client = Client::connect(cluster);
    let body = r#"{"@timestamp":"2026-11-21T10:00:00Z","destNum":"00972598294121"}"#;
    let answer = ask(&mut client, "PUT", "/foreign/_doc/1?refresh=true", body);
    assert!(answer.status < 300, "{}", answer.text());
    let count = |text: &str| run(cluster, &["count", text, "--index", "foreign", "--since", "2026-11-21"]);
    assert_eq!(count("destNum:00972598294121").trim(), "1");
    assert_eq!(count("destNum:972598294121").trim(), "0");
}

#[test]
fn a_cluster_that_is_late_or_away_is_a_clear_error_in_time() {
    let relay = Relay::start(search_node::elasticsearch_7());
    let limit = Duration::from_secs(3);
    let edge = Edge::start(relay.addr(), limit);
    let at = edge.server.addr;
    attempts(at, "late");
    let count = || json(&once(at, "GET", "/late/_count?q=972598294121", ""))["count"].clone();
    wait_until(DEADLINE, "6 events", || count() == 6);

    relay.hold();
    let started = Instant::now();
    let answer = once(at, "GET", "/late/_count?q=972598294121", "");
    let took = started.elapsed();
    let error = json(&answer);
    assert_eq!((answer.status, &error["error"]["type"]), (503, &json!("timeout_exception")), "{error}");
    assert_eq!(error["error"]["reason"], "the search took longer than the timeout of 3000 ms");
    assert!(took >= limit && took < limit + Duration::from_secs(10), "{took:?}");
    relay.release();
    wait_until(DEADLINE, "6 events", || count() == 6);
    edge.server.end();

    // The node is gone.
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let edge = Edge::start(gone, limit);
    for target in ["/late/_search?q=1", "/late/_count", "/_cat/indices", "/_cluster/health", "/late/_mapping"]
    {
        let answer = once(edge.server.addr, "GET", target, "");
        let error = json(&answer);
        assert_eq!(answer.status, 503, "{target}: {error}");
        let reason = error["error"]["reason"].as_str().unwrap_or_default();
        assert!(
            reason.starts_with("the cluster is unreachable or incomplete: cannot reach http://127.0.0.1"),
            "{reason}"
        );
    }
    edge.server.end();
}
