//! Clients of Elasticsearch and OpenSearch from package registries, with password.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::support::{Events, Workdir, python};

const USER: &str = "analyst";
const PASSWORD: &str = "s3cret";

fn support(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/support").join(file)
}

/// Returns what `scripts/search-clients KIND` prints: the path of an interpreter or of a directory.
#[track_caller]
fn installed(kind: &str) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/search-clients");
    let made = Command::new(script).arg(kind).stdin(Stdio::null()).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    String::from_utf8(made.stdout).unwrap().trim().to_owned()
}

#[track_caller]
fn run(command: &mut Command) {
    let said = command.stdin(Stdio::null()).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr));
    assert!(said.status.success(), "{command:?}\n{out}\n{err}");
}

/// `tests/it/support/search_client.py` sends the requests and checks the answers.
#[track_caller]
fn check(module: &str) {
    let work = Workdir::new();
    let events = Events::with_user(&work, USER, PASSWORD, &[]);
    let mut client = python("python-search");
    client.arg(support("search_client.py"));
    run(client.args([module, &events.http().port().to_string(), USER, PASSWORD]));
    let said = events.term();
    // 2,000 documents in the two indices, one that was replaced, and one in an index with a template.
    assert!(said.contains("events=2003 "), "{said}");
}

#[test]
fn elasticsearch_py_7_is_served() {
    check("elasticsearch");
}

#[test]
fn opensearch_py_is_served() {
    check("opensearchpy");
}

/// elasticsearch-py 8 with elasticsearch-dsl, and elasticsearch-py 9.
#[test]
fn elasticsearch_py_8_and_9_are_served() {
    let work = Workdir::new();
    let events = Events::with_user(&work, USER, PASSWORD, &[]);
    for major in ["8", "9"] {
        let mut client = Command::new(installed(&format!("python{major}")));
        client.arg(support("search_client_new.py"));
        run(client.args([major, &events.http().port().to_string(), USER, PASSWORD]));
    }
    let said = events.term();
    assert!(said.contains("events=2000 "), "{said}");
}

/// @elastic/elasticsearch 7 and 8, @opensearch-project/opensearch, winston-elasticsearch, pino-elasticsearch.
#[test]
fn clients_of_node_are_served() {
    let work = Workdir::new();
    let events = Events::with_user(&work, USER, PASSWORD, &[]);
    let modules = Path::new(&installed("node")).join("node_modules");
    for client in ["es7", "es8", "opensearch", "winston", "pino"] {
        let mut node = Command::new("node");
        node.env("NODE_PATH", &modules).arg(support("search_clients.cjs"));
        run(node.args([client, &events.http().port().to_string(), USER, PASSWORD]));
    }
    let said = events.term();
    assert!(said.contains("events=1506 "), "{said}");
}

/// elasticdump writes an index to a file and a file to an index; both indices are then equal.
#[test]
fn elasticdump_loads_what_it_dumped() {
    let work = Workdir::new();
    let events = Events::with_user(&work, USER, PASSWORD, &[]);
    let program = Path::new(&installed("node")).join("node_modules/.bin/elasticdump");
    let lines: String = (0..250)
        .map(|n| format!("{{\"_index\":\"a\",\"_id\":\"{n}\",\"_source\":{{\"n\":{n},\"number\":\"+44770090{n:04}\"}}}}\n"))
        .collect();
    let file = work.join("made.jsonl");
    std::fs::write(&file, lines).unwrap();
    let url = |index: &str| format!("http://{USER}:{PASSWORD}@{}/{index}", events.http());
    let dump = |input: &str, output: &str, kind: &str| {
        let mut command = Command::new(&program);
        command.args(["--input", input, "--output", output, "--type", kind, "--limit", "60", "--quiet"]);
        // Without its list of stored fields, which no event has.
        run(command.args(["--searchBody", r#"{"query":{"match_all":{}}}"#]));
    };
    let (first, second) = (work.join("first.jsonl"), work.join("second.jsonl"));
    let path = |path: &PathBuf| path.to_str().unwrap().to_owned();
    dump(&path(&file), &url("a"), "data");
    dump(&url("a"), &url("b"), "mapping");
    dump(&url("a"), &path(&first), "data");
    dump(&path(&first), &url("b"), "data");
    dump(&url("b"), &path(&second), "data");
    let sources = |path: &PathBuf| {
        let text = std::fs::read_to_string(path).unwrap();
        let mut all: Vec<_> = text
            .lines()
            .map(|line| {
                let hit: serde_json::Value = serde_json::from_str(line).unwrap();
                (hit["_id"].to_string(), hit["_source"].to_string())
            })
            .collect();
        all.sort();
        all
    };
    let (one, other) = (sources(&first), sources(&second));
    assert_eq!(one.len(), 250);
    assert_eq!(one, other);
    events.term();
}
