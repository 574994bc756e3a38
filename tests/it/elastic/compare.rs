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

pub(crate) const REQUESTS: &str = include_str!("requests.txt");
const TYPED: &str = include_str!("typed.txt");

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
    json!({ "type": error["type"], "root": root["type"], "reason": plain(&root["reason"]) })
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
                "_score",
                "max_score",
                "_shards",
                "_seq_no",
                "_primary_term",
                "index_uuid",
                "caused_by",
                "shard",
            ];
            let kept = map.iter().filter(|(key, _)| !passing.contains(&key.as_str()));
            Value::Object(
                kept.map(|(key, value)| {
                    (key.clone(), if key == "_source" { value.clone() } else { plain(value) })
                })
                .collect(),
            )
        }
        Value::Array(list) => Value::Array(list.iter().map(plain).collect()),
        Value::String(text) => Value::String(methods_in_order(&made_up(text))),
        other => other.clone(),
    }
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
    let found = differences(REQUESTS, ours.server.addr, theirs.addr());
    assert!(found.is_empty(), "{} differences\n{found}", found.lines().count() / 3);
    ours.server.end();
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
    let mut list = String::new();
    for (title, text) in
        [("Compared with Elasticsearch 7.17.29", REQUESTS), ("Compared with Elasticsearch 2.4.6", TYPED)]
    {
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
