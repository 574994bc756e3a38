//! Clients of Elasticsearch and OpenSearch from package registries, with password.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::http::client::Client;
use super::support::{DEADLINE, Events, Workdir, python, wait_until};

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

/// go-elasticsearch 8 and olivere/elastic 7 with their default settings.
#[test]
fn clients_of_go_are_served() {
    let work = Workdir::new();
    let events = Events::with_user(&work, USER, PASSWORD, &[]);
    let program = installed("go");
    for client in ["olivere", "elastic"] {
        let mut go = Command::new(&program);
        run(go.args([client, &events.http().port().to_string(), USER, PASSWORD]));
    }
    let said = events.term();
    assert!(said.contains("events=600 "), "{said}");
}

/// The high-level REST client of Elasticsearch 7.
#[test]
fn client_of_java_is_served() {
    let work = Workdir::new();
    let events = Events::with_user(&work, USER, PASSWORD, &[]);
    let mut java = Command::new("java");
    // Two threads and a small heap are enough, and the compiler would optimise what runs once.
    java.args(["-Xmx256m", "-XX:TieredStopAtLevel=1", "-cp", &format!("{}/*", installed("java"))]);
    java.arg(support("SearchClient.java"));
    run(java.args([&events.http().port().to_string(), USER, PASSWORD]));
    let said = events.term();
    assert!(said.contains("events=300 "), "{said}");
}

/// Sends a request with the user and password, and returns status and body.
fn ask(client: &mut Client, method: &str, target: &str, body: &str) -> (u16, String) {
    client.send(format!(
        "{method} {target} HTTP/1.1\r\nHost: a\r\nAuthorization: Basic YW5hbHlzdDpzM2NyZXQ=\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    ));
    let answer = client.answer();
    (answer.status, answer.text().to_owned())
}

/// A rule of elastalert2 fires, in indices that it has created: three calls to one number within an hour.
#[test]
fn a_rule_of_elastalert_fires() {
    let work = Workdir::new();
    let events = Events::with_user(&work, USER, PASSWORD, &[]);
    let (python, port) = (installed("elastalert"), events.http().port());
    let mut client = Client::connect(events.http());
    for minute in 0..3 {
        let event = format!(
            r#"{{"@timestamp":"2026-11-30T10:0{minute}:00Z","sipRequest":"INVITE","destNum":"+447700900123"}}"#
        );
        assert_eq!(ask(&mut client, "POST", "/seen-calls/_doc", &event).0, 201);
    }
    let config = work.write(
        "config.yaml",
        format!(
            "rules_folder: rules\nrun_every: {{seconds: 1}}\nbuffer_time: {{days: 40000}}\nes_host: 127.0.0.1\n\
             es_port: {port}\nes_username: {USER}\nes_password: {PASSWORD}\nwriteback_index: elastalert_status\n"
        ),
    );
    std::fs::create_dir(work.join("rules")).unwrap();
    work.write(
        "rules/many.yaml",
        "name: many calls\ntype: frequency\nindex: seen-calls*\nnum_events: 3\ntimeframe: {hours: 1}\nfilter:\n\
         - query_string: {query: \"sipRequest:INVITE\"}\nquery_key: destNum.keyword\nalert: debug\n",
    );
    let elastalert = |module: &str| {
        let mut command = Command::new(&python);
        command.current_dir(work.path()).args(["-m", module, "--config", config.to_str().unwrap()]);
        command
    };
    run(elastalert("elastalert.create_index").args(["--index", "elastalert_status", "--old-index", ""]));
    let (_, mapping) = ask(&mut client, "GET", "/elastalert_status/_mapping", "");
    assert!(mapping.contains(r#""match_body":{"enabled":false,"type":"object"}"#), "{mapping}");
    let log = std::fs::File::create(work.join("elastalert.log")).unwrap();
    let mut running = elastalert("elastalert.elastalert")
        .args(["--start", "2026-11-30T09:00:00", "--verbose"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap();
    let fired = || {
        let (status, text) = ask(&mut client, "GET", "/elastalert_status/_count?q=alert_sent:true", "");
        status == 200 && text.contains("\"count\":1,")
    };
    let waited = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        wait_until(DEADLINE, "the alert of elastalert", fired);
    }));
    running.kill().unwrap();
    running.wait().unwrap();
    let log = std::fs::read_to_string(work.join("elastalert.log")).unwrap();
    assert!(waited.is_ok(), "{log}");
    assert!(!log.contains("ERROR"), "{log}");
    // An event of the rule is not indexed, but it is there.
    let (_, sent) = ask(&mut client, "GET", "/elastalert_status/_search?q=rule_name:%22many%20calls%22", "");
    assert!(sent.contains("+447700900123") && sent.contains("\"value\":1,"), "{sent}");
    let (_, none) = ask(&mut client, "GET", "/elastalert_status/_count?q=match_body.sipRequest:INVITE", "");
    assert!(none.contains("\"count\":0,"), "{none}");
    events.term();
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
