//! The same requests to lea and to a real Elasticsearch. Each difference has a reason, which
//! docs/elasticsearch.md lists.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;

use lea::es_api::EsApi;
use lea::http::basic_auth::Users;
use serde_json::{Map, Value, json};

use super::{Events, ask};
use crate::http::client::{Answer, Client};
use crate::support::search_node::{self, Node};
use crate::support::{DEADLINE, wait_until};

pub(crate) const REQUESTS: &str = include_str!("requests.txt");
const TYPED: &str = include_str!("typed.txt");

/// Documents that the tables of [`KINDS`] query.
const EVENTS: &str = include_str!("events.txt");

/// Requests of one kind, as real clients send them.
struct Kind {
    title: &'static str,
    requests: &'static str,
    /// Minimum number of requests.
    count_min: usize,
    /// Minimum percentage of answers that are equal.
    equal_min: usize,
}

/// The kinds of requests that are compared with Elasticsearch 7.17.29 besides [`REQUESTS`].
const KINDS: [Kind; 5] = [
    // These come first, because they ask about an empty server.
    Kind { title: "endpoints", requests: include_str!("endpoints.txt"), count_min: 300, equal_min: 90 },
    Kind {
        title: "query strings",
        requests: include_str!("query_strings.txt"),
        count_min: 300,
        equal_min: 98,
    },
    Kind { title: "documents", requests: include_str!("documents.txt"), count_min: 300, equal_min: 95 },
    Kind { title: "request bodies", requests: include_str!("bodies.txt"), count_min: 300, equal_min: 95 },
    Kind { title: "aggregations", requests: include_str!("aggregations.txt"), count_min: 300, equal_min: 95 },
];

/// How the answers to a request are compared.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Rule<'a> {
    Same,
    /// They differ for this reason.
    Differs(&'a str),
    /// The status and the error type are equal. The rest differs, for this reason.
    Status(&'a str),
}

pub(crate) struct Asked<'a> {
    pub rule: Rule<'a>,
    pub method: &'a str,
    pub target: &'a str,
    pub body: String,
}

/// Returns the requests of a table.
pub(crate) fn requests(text: &str) -> Vec<Asked<'_>> {
    let mut rule = Rule::Same;
    let mut found = Vec::new();
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(reason) = line.strip_prefix("~ ") {
            rule = Rule::Differs(reason);
        } else if let Some(reason) = line.strip_prefix("? ") {
            rule = Rule::Status(reason);
        } else {
            let mut words = line.splitn(3, ' ');
            let (method, target) = (words.next().unwrap(), words.next().unwrap());
            let body = words.next().unwrap_or_default().replace("\\r", "\r").replace("\\n", "\n");
            found.push(Asked { rule, method, target, body });
            rule = Rule::Same;
        }
    }
    found
}

/// Returns an answer without members that differ each time: times, generated ids, scores, shards.
pub(crate) fn said(answer: &Answer) -> Value {
    let Ok(body) = serde_json::from_slice::<Value>(&answer.body) else {
        return json!({ "status": answer.status, "text": String::from_utf8_lossy(&answer.body) });
    };
    let mut said = json!({ "status": answer.status });
    let more = match &body {
        Value::Object(body) if body.get("error").is_some_and(Value::is_object) => error(&body["error"]),
        Value::Object(body) if body.contains_key("hits") => hits(body),
        body => json!({ "body": plain(body) }),
    };
    said.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    said
}

/// Returns the root cause of an error and the errors around it.
fn error(error: &Value) -> Value {
    let root = &error["root_cause"][0];
    let reason = root["reason"].as_str().map(without_place);
    json!({ "type": error["type"], "root": root["type"], "reason": plain(&reason.into()) })
}

/// Removes what depends on the parser of JSON: the place before the reason (`[1:17] `), and the source after it.
fn without_place(reason: &str) -> &str {
    let reason = reason.split_once("\n at [Source").map_or(reason, |(reason, _)| reason);
    let is_place = |place: &str| place.bytes().all(|byte| byte.is_ascii_digit() || byte == b':');
    match reason.strip_prefix('[').and_then(|rest| rest.split_once("] ")) {
        Some((place, rest)) if is_place(place) => rest,
        _ => reason,
    }
}

fn hits(body: &Map<String, Value>) -> Value {
    let hits = &body["hits"];
    let mut list: Vec<Value> = hits["hits"].as_array().into_iter().flatten().map(plain).collect();
    if !list.iter().any(|hit| hit.get("sort").is_some()) {
        list.sort_by_key(Value::to_string);
    }
    json!({ "total": hits["total"], "hits": list, "aggregations": body.get("aggregations") })
}

/// Returns a value without members that differ each time.
fn plain(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let passing = [
                "took",
                "ingest_took",
                "_score",
                "max_score",
                "_shards",
                "_seq_no",
                "_primary_term",
                "index_uuid",
                "caused_by",
                "shard",
                "creation_date",
            ];
            let kept = map.iter().filter(|(key, _)| !passing.contains(&key.as_str()));
            Value::Object(
                kept.map(|(key, value)| {
                    (made_up(key), if key == "_source" { value.clone() } else { plain(value) })
                })
                .collect(),
            )
        }
        Value::Array(list) => Value::Array(list.iter().map(plain).collect()),
        Value::String(text) => Value::String(methods_in_order(&made_up(&without_address(text)))),
        other => other.clone(),
    }
}

/// Replaces the name of the real server by that of lea, and its address by one word.
fn without_address(text: &str) -> String {
    let text = text.replace("lea-tests", "lea");
    let Some((before, after)) = text.split_once("127.0.0.1:") else { return text };
    let port_bytes = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
    format!("{before}(address){}", &after[port_bytes..])
}

/// Sorts the allowed methods in an error text: Java lists them in a different order each time it starts.
fn methods_in_order(text: &str) -> String {
    let Some((before, list)) = text.split_once("allowed: [") else { return text.to_owned() };
    let (list, after) = list.split_once(']').unwrap_or((list, ""));
    let mut methods: Vec<&str> = list.split(", ").collect();
    methods.sort_unstable();
    format!("{before}allowed: [{}]{after}", methods.join(", "))
}

/// Replaces generated ids and uuids by one word.
fn made_up(text: &str) -> String {
    let is_of_word = |character: char| character.is_ascii_alphanumeric() || "-_".contains(character);
    let mut out = String::new();
    let mut rest = text;
    while !rest.is_empty() {
        let word_bytes = rest.find(|character| !is_of_word(character)).unwrap_or(rest.len());
        let (word, after) = rest.split_at(word_bytes);
        out.push_str(if is_id(word) { "(made up)" } else { word });
        let between = after.find(is_of_word).unwrap_or(after.len());
        out.push_str(&after[..between]);
        rest = &after[between..];
    }
    out
}

/// Recognizes base64 of 15 or 16 bytes. Names of errors and parameters of the same length are lower case; one
/// in fifteen million ids is too. A digit is not required, because one in thirty ids has none.
fn is_id(word: &str) -> bool {
    (20..=22).contains(&word.len())
        && word.bytes().any(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit())
}

#[test]
fn ids_are_told_from_words() {
    let check = |text: &str, expected: &str| assert_eq!(made_up(text), expected);
    check("index [cmp/AbCdEfGhIjKlMnOpQrStUv] already exists", "index [cmp/(made up)] already exists");
    check("index [cmp/7bcdefghijklmnopqrst] already exists", "index [cmp/(made up)] already exists");
    check("AbCd-fGhI_KlMnOpQrSt", "(made up)");
    check(
        "parameter [minimum_should_match]: query_shard_exception",
        "parameter [minimum_should_match]: query_shard_exception",
    );
    check("ä AbCdEfGhIjKlMnOpQrS é", "ä AbCdEfGhIjKlMnOpQrS é");
    check("", "");
}

/// Sends all requests to both servers. Returns the unexplained differences, and the reasons that explain
/// nothing.
fn differences(text: &str, ours: SocketAddr, theirs: SocketAddr) -> String {
    let (mut ours, mut theirs) = (Client::connect(ours), Client::connect(theirs));
    let mut found = String::new();
    for asked in requests(text) {
        let one = |client: &mut Client| {
            let answer = ask(client, asked.method, asked.target, &asked.body);
            // A request that is rejected before its body arrives ends the connection.
            if answer.closes() {
                *client = Client::connect(client.stream.peer_addr().unwrap());
            }
            said(&answer)
        };
        let (lea, real) = (one(&mut ours), one(&mut theirs));
        let problem = match asked.rule {
            Rule::Same if lea != real => "differs",
            Rule::Status(_) if ["status", "type", "root"].iter().any(|key| lea.get(key) != real.get(key)) => {
                "differs in its status or type"
            }
            Rule::Differs(_) | Rule::Status(_) if lea == real => {
                "is the same, but a reason is given why it should not be"
            }
            _ => continue,
        };
        let _ = writeln!(
            found,
            "{} {} {:?} {problem}\n  lea:  {lea}\n  real: {real}",
            asked.method, asked.target, asked.body
        );
    }
    found
}

#[test]
fn answers_are_those_of_elasticsearch_7() {
    assert!(requests(REQUESTS).len() >= 120);
    // This test needs its own node, because it creates indices whose names lea uses for aliases in other
    // tests.
    let theirs = Node::new(search_node::ELASTICSEARCH_7, "");
    theirs.start();
    let ours = Events::start(EsApi::server_config(), Users::allow_all());
    let mut asking = Client::connect(theirs.addr());
    wait_until(DEADLINE, "a license, which a node makes after it has answered", || {
        ask(&mut asking, "GET", "/_license", "").status == 200
    });
    let [endpoints, others @ ..] = &KINDS;
    let mut found = differences(endpoints.requests, ours.server.addr, theirs.addr());
    found.push_str(&differences(EVENTS, ours.server.addr, theirs.addr()));
    for kind in others {
        found.push_str(&differences(kind.requests, ours.server.addr, theirs.addr()));
    }
    found.push_str(&differences(REQUESTS, ours.server.addr, theirs.addr()));
    assert!(found.is_empty(), "{} differences\n{found}", found.lines().count() / 3);
    ours.server.end();
}

#[test]
fn kinds_have_enough_equal_answers() {
    for kind in &KINDS {
        let (count, equal) = equal_answers(kind);
        assert!(count >= kind.count_min, "{}: {count} requests", kind.title);
        assert!(equal * 100 >= count * kind.equal_min, "{}: {equal} of {count} are equal", kind.title);
    }
}

/// Returns the number of requests, and how many of them have equal answers.
fn equal_answers(kind: &Kind) -> (usize, usize) {
    let asked = requests(kind.requests);
    (asked.len(), asked.iter().filter(|asked| asked.rule == Rule::Same).count())
}

#[test]
fn typed_forms_are_taken_as_elasticsearch_2_takes_them() {
    let theirs = search_node::elasticsearch_2();
    let ours = Events::start(EsApi::server_config(), Users::allow_all());
    let found = differences(TYPED, ours.server.addr, theirs);
    assert!(found.is_empty(), "{} differences\n{found}", found.lines().count() / 3);
    ours.server.end();
}

/// docs/elasticsearch.md must list the reasons of the tables.
#[test]
fn differences_are_listed() {
    let mut list = String::from(
        "### Requests of clients compared with Elasticsearch 7.17.29\n\n| kind | requests | equal answers |\n|---|---|---|\n",
    );
    for kind in &KINDS {
        let (count, equal) = equal_answers(kind);
        let percent = equal as f64 * 100.0 / count as f64;
        let _ = writeln!(list, "| {} | {count} | {equal} ({percent:.1} %) |", kind.title);
    }
    list.push('\n');
    let tables = KINDS.iter().map(|kind| (format!("Differences: {}", kind.title), kind.requests));
    let others = [
        ("Differences: other requests".to_owned(), REQUESTS),
        ("Compared with Elasticsearch 2.4.6".to_owned(), TYPED),
    ];
    for (title, text) in tables.chain(others) {
        if requests(text).iter().all(|asked| asked.rule == Rule::Same) {
            continue;
        }
        let _ = writeln!(list, "### {title}\n\n| request | why the answer differs |\n|---|---|");
        for asked in requests(text) {
            let (Rule::Differs(reason) | Rule::Status(reason)) = asked.rule else { continue };
            let request = format!("{} {} {}", asked.method, asked.target, asked.body.replace('\n', "\\n"));
            let _ = writeln!(list, "| `{}` | {reason} |", request.trim().replace('|', "\\|"));
        }
        list.push('\n');
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/elasticsearch.md");
    let text = fs::read_to_string(path).unwrap();
    let (begin, end) = ("<!-- differences -->\n", "<!-- end of differences -->\n");
    let (before, rest) = text.split_once(begin).unwrap();
    let (listed, after) = rest.split_once(end).unwrap();
    if std::env::var_os("LEA_UPDATE").is_some() {
        fs::write(path, format!("{before}{begin}{list}{end}{after}")).unwrap();
    } else {
        assert_eq!(listed, list, "docs/elasticsearch.md is not up to date (LEA_UPDATE=1 writes it)");
    }
}
