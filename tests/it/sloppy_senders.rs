//! Senders that deviate from their protocol: their events are stored. Requests of a web page are not.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::events::send;
use crate::support::{Events, Workdir, lea, status};

fn start(work: &Workdir, flags: &[&str]) -> Events {
    Events::start(&work.join("out"), flags)
}

/// Python's standard handler ends each message with a NUL, also over TCP.
#[test]
fn python_s_syslog_handler_over_tcp() {
    const PROGRAM: &str = "
import logging, logging.handlers, socket, sys
handler = logging.handlers.SysLogHandler(('127.0.0.1', int(sys.argv[1])), socktype=socket.SOCK_STREAM)
logger = logging.getLogger()
logger.addHandler(handler)
for n in range(300):
    logger.warning('attempt %d', n)
handler.close()
";
    let work = Workdir::new();
    let mut events = start(&work, &["--syslog", "tcp:127.0.0.1:0"]);
    let port = events.addr("syslog transport=tcp").port().to_string();
    let output = Command::new("python3").args(["-c", PROGRAM, &port]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    events.wait_count("/syslog/_count", 300);
    assert_eq!(events.count("/_count?q=message:%22attempt+299%22"), 1);
    events.term();
}

#[test]
fn a_second_60_is_stored_and_spoils_nothing() {
    let work = Workdir::new();
    let mut events = start(&work, &["--syslog", "tcp:127.0.0.1:0"]);
    let syslog = events.addr("syslog transport=tcp");
    send(syslog, "<13>Nov 29 01:02:60 h a: first\n");
    events.wait_count("/syslog/_count", 1);
    send(syslog, "<13>1 2026-11-29T23:59:60.5Z h a - - - second\n<13>Nov 29 01:02:03 h a: third\n");
    events.wait_count("/syslog/_count", 3);
    let times: Vec<Value> =
        events.sources("syslog").iter().map(|source| source["@timestamp"].clone()).collect();
    assert_eq!(times[1], "2026-11-30T00:00:00.500Z");
    assert!(times[0].as_str().unwrap().ends_with(":03:00.000Z"), "{}", times[0]);
    assert_eq!(events.count("/_count?q=%40timestamp:%5B2026-11-30+TO+2026-11-30%5D+AND+message:second"), 1);
    events.term();
}

#[test]
fn a_user_agent_that_is_not_unicode_hides_nothing() {
    let work = Workdir::new();
    let mut events = start(&work, &["--lines", "0"]);
    let attempt = r#"{"destNum":"9011972598294121","userAgent":"x\udcffy"}"#;
    let written = events.post("/opensips/_doc", attempt);
    assert_eq!(written["result"], "created", "{written}");
    send(events.addr("lines"), format!("{attempt}\n"));
    events.wait_count("/_count?q=destNum:972598294121", 2);
    let output = Command::new(lea())
        .args(["search", "972598294121", "--store", events.output().to_str().unwrap()])
        .output()
        .unwrap();
    let table = String::from_utf8(output.stdout).unwrap();
    assert_eq!(table.matches("x\u{fffd}y").count(), 2, "{table}");
    // What was received is kept as it was.
    let (_, body) = crate::support::events::ask(events.http(), "/opensips/_search");
    assert!(body.contains(r#""x\udcffy""#), "{body}");
    events.term();
}

#[test]
fn several_objects_on_a_line_are_several_events() {
    let work = Workdir::new();
    let mut events = start(&work, &["--lines", "0"]);
    let event = |n: u32| json!({"event": "undefined", "n": n}).to_string();
    let text = format!(
        "[{},{}]\n{}{}\n{}\0{}\0\u{feff}{}\n[{},1]\n",
        event(1),
        event(2),
        event(3),
        event(4),
        event(5),
        event(6),
        event(7),
        event(8)
    );
    send(events.addr("lines"), &text);
    events.wait_count("/interception/_count?q=n:%5B1+TO+7%5D", 7);
    let said = events.term();
    assert!(said.contains("events=7 content_lines=0 dead_letters=1"), "{said}");
}

#[test]
fn a_honeypot_without_a_place_has_all_other_fields() {
    let work = Workdir::new();
    let mut events = start(&work, &["--syslog", "tcp:127.0.0.1:0"]);
    let line = "<134>Apr 11 14:02:07 honey1 opensips[2101]: 198.51.100.7,203.0.113.9,INVITE,sip:100@198.51.100.7,\
                sip:9011972598294121@198.51.100.7,friendly-scanner,[,]\n";
    send(events.addr("syslog transport=tcp"), line);
    events.wait_count("/_count?q=dnis:972598294121+AND+intruder_ip:203.0.113.9", 1);
    let source = events.sources("syslog").remove(0);
    assert!(source.get("latitude").is_none() && source.get("tags").is_none(), "{source}");
    events.term();
}

/// A web page can make its visitor post to any port of his machine.
#[test]
fn http_on_another_port_is_refused() {
    let work = Workdir::new();
    let flags =
        ["--lines", "0", "--content-lines", "0", "--syslog", "tcp:127.0.0.1:0", "--admin-listen", "0"];
    let mut events = start(&work, &flags);
    let admin = events.addr("admin");
    for name in ["lines", "content-lines", "syslog transport=tcp"] {
        let mut stream = TcpStream::connect(events.addr(name)).unwrap();
        // In two pieces: the decision does not depend on how the bytes arrive.
        stream.write_all(b"POST / HT").unwrap();
        let rest =
            "TP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\n\r\n{\"event\":\"start_call\"}\n";
        stream.write_all(rest.as_bytes()).unwrap();
        // The connection is closed; depending on timing the peer sees a reset.
        let _ = stream.read_to_end(&mut Vec::new());
    }
    assert_eq!(status::metric(admin, "events_rejected_total{reason=\"http\"}"), 3);
    // A message that merely mentions HTTP is a message.
    send(events.addr("lines"), "{\"event\":\"GET / HTTP/1.1\"}\n");
    events.wait_count("/_count", 1);
    let said = events.term();
    assert!(said.contains("connection_rejected listener=lines reason=http"), "{said}");
}
