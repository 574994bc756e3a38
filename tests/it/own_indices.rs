//! The indices of the service: no sender decides with its first events what is stored of the others'.

use std::fs;

use std::process::Command;

use crate::support::events::send;
use crate::support::{Events, Workdir, lea};

fn call_events(count: usize) -> String {
    let event = |n: usize| {
        format!(
            "{{\"event\":\"start_call\",\"key\":\"+4477009{n:05}\",\"userid\":\"+447700900123\",\
             \"@timestamp\":\"2026-11-30T10:00:00.{n:03}Z\",\"level\":\"INFO\"}}\n"
        )
    };
    (0..count).map(event).collect()
}

fn dead_letters(events: &Events) -> String {
    fs::read_to_string(events.output().join(".lea/event-dead-letters.jsonl")).unwrap_or_default()
}

#[test]
fn the_first_line_takes_no_call_event_away() {
    let names: String = (0..1_000).map(|n| format!("\"f{n}\":{n},")).collect();
    for first in [
        "{\"event\":\"start_call\",\"key\":\"2020-01-01\"}\n".to_owned(),
        "{\"userid\":447700900123,\"level\":30,\"@timestamp\":\"n/a\"}\n".to_owned(),
        "{\"event\":\"start_call\",\"to_user\":{\"x\":1},\"userid\":[{\"y\":2}]}\n".to_owned(),
        format!("{{{names}\"event\":\"start_call\"}}\n"),
    ] {
        let work = Workdir::new();
        let mut events = Events::start(&work.join("out"), &["--lines", "0"]);
        let lines = events.addr("lines");
        send(lines, &first);
        events.wait_count("/interception/_count", 1);
        send(lines, call_events(100));
        events.wait_count("/interception/_count", 101);
        assert_eq!(events.count("/_count?q=userid:%2B447700900123+AND+level:INFO"), 100, "{first}");
        assert_eq!(events.count("/_count?q=to_user:%2B447700900007"), 1, "{first}");
        assert_eq!(dead_letters(&events), "", "{first}");
        events.term();
    }
}

#[test]
fn a_user_agent_that_looks_like_a_date_takes_no_message_away() {
    let work = Workdir::new();
    let mut events = Events::start(&work.join("out"), &["--syslog", "tcp:127.0.0.1:0"]);
    let message = |agent: &str| {
        format!(
            "<134>Apr 11 14:02:07 honey1 opensips[2101]: 198.51.100.7,203.0.113.9,INVITE,\
             sip:100@198.51.100.7,sip:9011972598294121@198.51.100.7,{agent},[-46.63,-23.54]\n"
        )
    };
    let syslog = events.addr("syslog transport=tcp");
    send(syslog, message("2026-01-01"));
    events.wait_count("/syslog/_count", 1);
    send(syslog, message("friendly-scanner").repeat(100));
    events.wait_count("/syslog/_count", 101);
    assert_eq!(events.count("/_count?q=%22friendly-scanner%22"), 100);
    assert_eq!(dead_letters(&events), "");
    events.term();
}

#[test]
fn what_is_not_indexed_is_shown() {
    let work = Workdir::new();
    let mut events = Events::start(&work.join("out"), &["--lines", "0"]);
    send(events.addr("lines"), "{\"event\":\"start_call\",\"to_user\":{\"x\":1},\"reply_code\":\"busy\"}\n");
    events.wait_count("/interception/_count", 1);
    let found = events.get("/_search?q=_ignored:to_user");
    assert_eq!(found["hits"]["hits"][0]["_ignored"], serde_json::json!(["reply_code", "to_user"]), "{found}");
    assert_eq!(found["hits"]["hits"][0]["_source"]["reply_code"], "busy");
    events.term();
}

/// Times before 1970 and beyond what a time can be.
#[test]
fn events_of_any_time_can_be_read() {
    let work = Workdir::new();
    let mut events = Events::start(&work.join("out"), &["--lines", "0"]);
    let times = [
        "1969-12-31T23:59:59Z",
        "0001-01-01T00:00:00Z",
        "9999-12-31T23:59:59Z",
        "-0001-01-01",
        "+20000-01-01",
    ];
    let line = |time: &&str| {
        format!(
            "{{\"event\":\"start_call\",\"key\":\"+447700900456\",\"userid\":\"+447700900123\",\"@timestamp\":\"{time}\"}}\n"
        )
    };
    send(events.addr("lines"), times.iter().map(line).collect::<String>());
    events.wait_count("/interception/_count", 5);
    let store = events.output().to_str().unwrap().to_owned();
    let server = format!("http://{}", events.http());
    for target in [&store, &server] {
        let run = |args: &[&str]| {
            let output = Command::new(lea()).args(args).args(["--store", target]).output().unwrap();
            assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8(output.stdout).unwrap()
        };
        assert_eq!(run(&["search", "--size", "all", "--json"]).lines().count(), 5, "{target}");
        let started = run(&["calls", "report", "--json", "--time-zone", "utc"]);
        assert!(started.contains("1969-12-31") && started.contains("0001-01-01"), "{target}: {started}");
    }
    events.term();
}

/// The answers to a POST of a document with an id of its own.
#[test]
fn t2_another_document_cannot_replace_an_event() {
    let work = Workdir::new();
    let events = Events::start(&work.join("out"), &[]);
    let event = r#"{"event":"start_call","key":"+447700900123"}"#;
    let other = r#"{"event":"start_call","key":"+447700900999"}"#;
    assert_eq!(events.post("/interception/_doc/1", event)["result"], "created");
    // The same document can be sent again; another one cannot take its place, alone or in a bulk.
    assert_eq!(events.post("/interception/_doc/1", event)["_version"], 1);
    assert_eq!(events.post("/interception/_doc/1", other)["status"], 409);
    let bulk =
        format!("{{\"index\":{{\"_id\":\"1\"}}}}\n{other}\n{{\"index\":{{\"_id\":\"2\"}}}}\n{other}\n");
    let answer = events.post("/interception/_bulk?filter_path=items.*.status", &bulk);
    assert_eq!(answer["items"][0]["index"]["status"], 409, "{answer}");
    assert_eq!(answer["items"][1]["index"]["status"], 201, "{answer}");
    assert_eq!(events.count("/interception/_count?q=key:%2B447700900123"), 1);
    assert_eq!(events.count("/interception/_count"), 2);
    // In other indices it can, and the log says so.
    assert_eq!(events.post("/opensips/_doc/1", event)["result"], "created");
    assert_eq!(events.post("/opensips/_doc/1", other)["result"], "updated");
    let said = events.term();
    assert!(said.contains("event_replacement_refused index=interception id=\"1\" version=1"), "{said}");
    assert!(said.contains("event_replaced index=opensips id=\"1\" version=2"), "{said}");
}

/// Templates and aliases are there after a restart.
#[test]
fn templates_and_aliases_survive_a_restart() {
    let work = Workdir::new();
    let events = Events::start(&work.join("out"), &[]);
    let template = r#"{"index_patterns":["seen-*"],"mappings":{"properties":{"code":{"type":"keyword"}}},"aliases":{"seen":{}}}"#;
    assert_eq!(events.post("/_template/seen", template)["acknowledged"], true);
    events.term();
    let events = Events::start(&work.join("out"), &[]);
    assert_eq!(events.post("/seen-1/_doc", r#"{"code":486}"#)["result"], "created");
    events.term();
    let events = Events::start(&work.join("out"), &[]);
    let mapping = events.get("/seen-1/_mapping");
    assert_eq!(mapping["seen-1"]["mappings"]["properties"]["code"]["type"], "keyword", "{mapping}");
    assert_eq!(events.count("/seen/_count"), 1);
    events.term();
}

/// A page of a browser can neither write nor read, and the other senders are served.
#[test]
fn t2_web_pages_can_neither_write_nor_read() {
    let work = Workdir::new();
    let events = Events::start(
        &work.join("out"),
        &["--http-cors", "http://grafana.example", "--http-name", "lea.example"],
    );
    let mut client = crate::http::client::Client::connect(events.http());
    let mut status = |head: &str, body: &str| {
        client.send(format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()));
        let answer = client.answer();
        if answer.closes() {
            client = crate::http::client::Client::connect(events.http());
        }
        answer.status
    };
    let post = "POST /calls/_doc HTTP/1.1\r\nHost: 127.0.0.1:9200\r\n";
    assert_eq!(
        status(&format!("{post}Origin: https://evil.example\r\nContent-Type: text/plain\r\n"), "{}"),
        403
    );
    assert_eq!(
        status(&format!("{post}Origin: https://evil.example\r\nContent-Type: application/json\r\n"), "{}"),
        403
    );
    assert_eq!(status(&format!("{post}Content-Type: text/plain\r\n"), "{}"), 406);
    assert_eq!(status("GET /_count HTTP/1.1\r\nHost: evil.example:9200\r\n", ""), 403);
    assert_eq!(
        status(&format!("{post}Origin: http://grafana.example\r\nContent-Type: application/json\r\n"), "{}"),
        201
    );
    assert_eq!(status("GET /_count HTTP/1.1\r\nHost: lea.example:9200\r\n", ""), 200);
    assert_eq!(status("POST /opensips/1 HTTP/1.1\r\nHost: localhost:9200\r\n", "{}"), 201);
    assert_eq!(status("GET /_count HTTP/1.1\r\nHost: [::1]:9200\r\n", ""), 200);
    let said = events.term();
    assert!(said.contains("http_foreign_page_refused peer=127.0.0.1:"), "{said}");
}

/// `/streams` says whose calls are received.
#[test]
fn t2_web_pages_cannot_read_the_admin_listener() {
    let work = Workdir::new();
    let mut events = Events::start(&work.join("out"), &["--admin-listen", "127.0.0.1:0"]);
    let mut client = crate::http::client::Client::connect(events.addr("admin"));
    let mut status = |headers: &str| {
        client.send(format!("GET /streams HTTP/1.1\r\n{headers}\r\n"));
        client.answer().status
    };
    assert_eq!(status("Host: 127.0.0.1:1\r\n"), 200);
    assert_eq!(status("Host: evil.example\r\n"), 403);
    assert_eq!(status("Host: 127.0.0.1:1\r\nOrigin: https://evil.example\r\n"), 403);
    assert_eq!(status("Host: localhost\r\n"), 200);
    let said = events.term();
    assert!(said.contains("http_foreign_page_refused peer=127.0.0.1:"), "{said}");
}
