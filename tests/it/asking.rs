//! `lea search`, `count`, `top`, `events tail`, `events load` and `calls report`, with a directory and with a
//! URL as the store. The events are the recorded call events, and attempts on one number in all its
//! dialled forms.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lea::search::dead_letters::{self, DeadLetter, EventDeadLetters};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::process::Process;
use crate::support::{DEADLINE, Random, Workdir, lea, testdata, wait_until};

const PASSWORD: &str = "p:ss wörd";

/// Dialled forms of one number.
const DIALLED_FORMS: [&str; 6] = [
    "+972598294121",
    "00972598294121",
    "011972598294121",
    "9011972598294121",
    "901511972598294121",
    "972598294121",
];

/// Runs lea in a directory without a configuration.
fn run(work: &Workdir, args: &[&str]) -> Output {
    let mut command = Command::new(lea());
    command.current_dir(work.path()).args(args).env_remove("LEA_STORE").env("TZ", "UTC");
    command.stdin(Stdio::null()).output().unwrap()
}

#[track_caller]
fn stdout(output: Output, code: i32) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    String::from_utf8(output.stdout).unwrap()
}

#[track_caller]
fn ask(work: &Workdir, args: &[&str]) -> String {
    stdout(run(work, args), 0)
}

/// The summary line of `lea events load`.
#[track_caller]
fn load(work: &Workdir, code: i32, args: &[&str]) -> String {
    let args = [&["events", "load"], args].concat();
    let output = run(work, &args);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    stderr.lines().last().unwrap_or_default().to_owned()
}

/// `lea serve-events` with users.
struct Edge {
    process: Process,
    url: String,
}

impl Edge {
    #[track_caller]
    fn start(work: &Workdir, dir: &str) -> Edge {
        let mut hash = Command::new(lea());
        hash.args(["events", "hash-password"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut hash = hash.spawn().unwrap();
        std::io::Write::write_all(&mut hash.stdin.take().unwrap(), PASSWORD.as_bytes()).unwrap();
        let hash = stdout(hash.wait_with_output().unwrap(), 0);
        let config = json!({"parameters": {"events": {"users": {"analyst": hash.trim()}}}});
        let config = work.write("edge.conf", config.to_string());
        let mut command = Command::new(lea());
        command.args(["serve-events", "--http", "127.0.0.1:0", "--output", dir, "--config"]).arg(config);
        command.current_dir(work.path()).stdin(Stdio::null()).stdout(Stdio::null());
        let mut process = Process::start(&mut command);
        let addr = process.wait_line(DEADLINE, "the line `listening addr=... listener=http`", |line| {
            let (_, rest) = line.split_once("listening addr=")?;
            let (addr, rest) = rest.split_once(' ')?;
            rest.contains("listener=http").then(|| addr.to_owned())
        });
        Edge { process, url: format!("http://analyst:p%3Ass%20w%C3%B6rd@{addr}") }
    }

    #[track_caller]
    fn stop(mut self) {
        self.process.signal(Signal::TERM);
        self.process.wait_code(DEADLINE, 0);
    }
}

/// Attempts on one number in different dialled forms, and some on another number.
fn attempts(work: &Workdir) -> PathBuf {
    let mut lines = String::new();
    for (n, number) in DIALLED_FORMS.iter().chain(&["+12025550100", "100"]).enumerate() {
        let source = json!({
            "time": format!("2026-11-2{} 14:02:0{n}-0300", n % 2), "sipRequest": "INVITE", "destNum": number,
            "ipIntruder": "198.51.100.7", "userAgent": "friendly-scanner", "country": if n < 4 { "NL" } else { "FR" },
        });
        lines += &json!({"_index": "opensips", "_id": n.to_string(), "_source": source}).to_string();
        lines.push('\n');
    }
    work.write("attempts.jsonl", lines)
}

/// A store directory with the recorded call events.
fn recorded(work: &Workdir) -> PathBuf {
    work.write("calls.jsonl", testdata("wire/logstash-call-events.jsonl"))
}

/// A directory and a URL with the recorded events and the attempts. A running lea has the directory open.
fn both() -> (Workdir, Edge) {
    let work = Workdir::new();
    let edge = Edge::start(&work, "out");
    let files = [recorded(&work), attempts(&work)].map(|path| path.to_str().unwrap().to_owned());
    assert_eq!(
        load(&work, 0, &["--store", &edge.url, &files[0], &files[1]]),
        "loaded stored=14 duplicates=0 rejected=0"
    );
    assert_eq!(load(&work, 0, &["--store", &edge.url, &files[1]]), "loaded stored=0 duplicates=8 rejected=0");
    (work, edge)
}

/// Checks that the directory and the URL give the same answer.
#[track_caller]
fn ask_both(work: &Workdir, edge: &Edge, args: &[&str]) -> String {
    let answers = ["out", &edge.url].map(|place| ask(work, &[args, &["--store", place]].concat()));
    assert_eq!(answers[0], answers[1], "{args:?}");
    let [answer, _] = answers;
    answer
}

#[test]
fn a_number_is_found_in_all_its_dialled_forms() {
    let (work, edge) = both();
    for number in DIALLED_FORMS {
        let of_field = format!("destNum:\"{number}\"");
        assert_eq!(ask_both(&work, &edge, &["count", &of_field]), "6\n", "{number}");
        assert_eq!(ask_both(&work, &edge, &["count", &format!("\"{number}\"")]), "6\n", "{number}");
        let exact = ["count", "--number-match", "exact", "--store", "out", &of_field];
        let spelt_so = if number.starts_with('+') || number.starts_with('9') && number.len() == 12 {
            "2\n"
        } else {
            "1\n"
        };
        assert_eq!(ask(&work, &exact), spelt_so, "{number}");
        assert_eq!(ask_both(&work, &edge, &["count", &format!("destNum.keyword:\"{number}\"")]), "1\n");
    }
    assert_eq!(ask_both(&work, &edge, &["count", "NOT destNum:972598294121 AND _exists_:destNum"]), "2\n");
    let top = ask_both(&work, &edge, &["top", "destNum._number"]);
    assert_eq!(top, "COUNT  destNum._number\n    6  +972598294121\n    1  +12025550100\n");
    let exact = run(&work, &["count", "--number-match", "exact", "--store", &edge.url, "100"]);
    assert_eq!(exact.status.code(), Some(2), "behind a URL the other side decides");
    let tree = ask(&work, &["count", "--explain", "destNum:972598294121"]);
    assert!(tree.contains("term(destNum._number \"+972598294121\")"), "{tree}");
    edge.stop();
}

/// Sends a GET request as the user of the server and returns the JSON of the response.
fn get(edge: &Edge, path: &str) -> Value {
    let (_, addr) = edge.url.rsplit_once('@').unwrap();
    let mut stream = TcpStream::connect(addr).unwrap();
    let login = STANDARD.encode(format!("analyst:{PASSWORD}"));
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: lea\r\nauthorization: Basic {login}\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{path}: {response}");
    serde_json::from_str(body).unwrap()
}

#[test]
fn a_plus_sign_is_part_of_a_number() {
    let (work, edge) = both();
    let count = |query: &str| ask_both(&work, &edge, &["count", query]);
    for query in [
        "destNum:+972598294121",
        "destNum: +972598294121",
        "destNum:\"+972598294121\"",
        "destNum:(+972598294121 OR +447700900199)",
        "destNum:(100200300 OR +972598294121)",
        "destNum._number:+972*",
        "destNum._number:[+972 TO +973]",
        "+destNum:+972598294121 -destNum:+12025550100",
        "+972598294121",
    ] {
        assert_eq!(count(query), "6\n", "{query}");
    }
    assert_eq!(count("destNum:(+972598294121 OR +12025550100)"), "7\n");
    assert_eq!(count("destNum:+972598294121 OR destNum:100"), "7\n");
    // Without a field, the sign means that a term is required.
    assert_eq!(count("+sipRequest:INVITE +country:FR"), "4\n");
    assert_eq!(count("NL +country:FR"), "4\n");
    let quoted = count("userid:\"+447700900123\"");
    assert_eq!(count("userid:+447700900123"), quoted);
    assert_ne!(quoted, "0\n");
    let report = |query: &str| ask_both(&work, &edge, &["calls", "report", query]);
    assert_eq!(report("userid:+447700900123"), report("userid:\"+447700900123\""));
    assert_eq!(report("userid:+447700900123").lines().count(), 2);
    for query in
        ["%2B972598294121", "+972598294121", "%22%2B972598294121%22", "(%2B972598294121+OR+%2B447700900199)"]
    {
        assert_eq!(get(&edge, &format!("/opensips/_count?q=destNum:{query}"))["count"], 6, "{query}");
        let found = get(&edge, &format!("/_search?size=0&q=destNum:{query}"));
        assert_eq!(found["hits"]["total"]["value"], 6, "{query}");
    }
    edge.stop();
}

#[test]
fn signs_are_part_of_numbers_in_fields_of_each_type() {
    let work = Workdir::new();
    let edge = Edge::start(&work, "out");
    let source = json!({"n": 5, "x": -46.6, "t": "a +5", "k": "+5"});
    work.write("a.jsonl", format!("{}\n", json!({"_index": "a", "_id": "1", "_source": source})));
    load(&work, 0, &["--store", &edge.url, "a.jsonl"]);
    let count = |query: &str| ask_both(&work, &edge, &["count", query]);
    for query in [
        "n:+5",
        "n:>=+5",
        "n:[+5 TO +6]",
        "n:(+5 OR +6)",
        "n:(-6 OR +5)",
        "x:-46.6",
        "x:[-47 TO -46]",
        "x:<-46",
        "t:+5",
        "k.keyword:+5",
        "k.keyword:+5*",
        "NOT n:-5",
    ] {
        assert_eq!(count(query), "1\n", "{query}");
    }
    for query in ["n:-5", "x:+46.6", "n:(+5 +6)", "k.keyword:-5"] {
        assert_eq!(count(query), "0\n", "{query}");
    }
    edge.stop();
}

#[test]
fn words_for_days_restrict_the_time() {
    let work = Workdir::new();
    let now = chrono::Utc::now().to_rfc3339();
    let lines = [json!({"@timestamp": now, "a": 1}), json!({"@timestamp": "2020-01-01T00:00:00Z", "a": 1})];
    work.write("a.jsonl", lines.map(|line| format!("{line}\n")).concat());
    load(&work, 0, &["-s", "out", "a.jsonl"]);
    let count = |args: &[&str]| ask(&work, &[&["count", "-s", "out"], args].concat());
    assert_eq!(count(&["--since", "yesterday"]), "1\n");
    assert_eq!(count(&["--since", "yesterday", "--time-zone=-08:00"]), "1\n");
    assert_eq!(count(&["--until", "yesterday"]), "1\n");
    assert_eq!(count(&["--until", "today", "--since", "yesterday", "--time-zone=+14:00"]).len(), 2);
    assert_eq!(count(&["--until", "now"]), "2\n");
    assert_eq!(count(&["--since", "now"]), "0\n");
    assert_eq!(count(&["--since", "tomorrow"]), "0\n");
}

#[test]
fn tables_json_and_csv_of_a_folder_and_a_url_are_the_same() {
    let (work, edge) = both();
    let table = ask_both(&work, &edge, &["search", "event:*call"]);
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines[0], "TIME                      event          userid         to_user");
    let events = ["rejected_call", "stop_call", "start_call", "incoming_call"];
    assert_eq!(lines.len(), 5);
    for (line, event) in lines[1..].iter().zip(events) {
        assert!(
            line.starts_with(&format!("2026-11-21T21:00:28.899Z  {event:13}  +447700900123  +447700900")),
            "{line}"
        );
    }
    let search = ["search", "event:user_registration", "--time-zone", "+01:00", "--fields", "ip_address"];
    let expected = "TIME                           ip_address\n2026-11-21T22:00:28.898+01:00  10.77.0.1\n";
    assert_eq!(ask_both(&work, &edge, &search), expected);

    let found = ask_both(&work, &edge, &["search", "country:NL", "--sort", "destNum:asc", "--json"]);
    let found: Vec<Value> = found.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let ids: Vec<&str> = found.iter().map(|event| event["_id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["0", "1", "2", "3"]);
    assert_eq!(found[3]["_time"], "2026-11-21T17:02:03.000Z");
    assert_eq!(found[3]["_source"]["destNum"], DIALLED_FORMS[3]);

    let csv = ask_both(
        &work,
        &edge,
        &["search", "_id:0 OR _id:7", "--csv", "--fields", "destNum,nothing", "--sort", "time"],
    );
    let expected =
        "_time,destNum,nothing\n2026-11-20T17:02:00.000Z,+972598294121,\n2026-11-21T17:02:07.000Z,100,\n";
    assert_eq!(csv, expected);

    assert_eq!(ask_both(&work, &edge, &["top", "country", "--csv"]), "country,count\nFR,4\nNL,4\n");
    assert_eq!(
        ask_both(&work, &edge, &["top", "country", "destNum:972598294121", "-n", "1"]),
        "COUNT  country\n    4  NL\n"
    );
    assert_eq!(ask_both(&work, &edge, &["top", "nothing"]), "COUNT  nothing\n");
    assert_eq!(ask_both(&work, &edge, &["search", "nothing:x"]), "TIME\n");
    edge.stop();
}

#[test]
fn times_are_read_in_the_zone() {
    let (work, edge) = both();
    let count = |args: &[&str]| ask_both(&work, &edge, &[&["count", "--index", "opensips"], args].concat());
    assert_eq!(count(&[]), "8\n");
    assert_eq!(count(&["--since", "2026-11-21"]), "4\n");
    assert_eq!(count(&["--until", "2026-11-21"]), "4\n");
    assert_eq!(count(&["--since", "2026-11-20T17:02:02Z", "--until", "2026-11-20T17:02:04Z"]), "1\n");
    assert_eq!(count(&["--since", "2026-11-21", "--time-zone=-08:00"]), "4\n");
    assert_eq!(count(&["--since", "2026-11-21T10:00", "--time-zone=-08:00"]), "0\n");
    assert_eq!(count(&["--index", "inter*", "--since", "2026-11-21"]), "10\n");
    edge.stop();
}

#[test]
fn what_is_wrong_is_said() {
    let work = Workdir::new();
    recorded(&work);
    load(&work, 0, &["-s", "out", "calls.jsonl"]);
    let check = |args: &[&str], code, expected: &str| {
        let output = run(&work, args);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {stderr}");
        assert!(stderr.contains(expected), "{args:?}: {stderr}");
        assert!(output.stdout.is_empty(), "{args:?}");
    };
    check(&["count", "-s", "out", "a AND ("], 2, "at character 7");
    check(&["calls", "report", "-s", "out", "a AND ("], 2, "at character 7");
    check(&["search", "-s", "out", "a^x"], 2, "QUERY");
    let missing = "cannot query nowhere: no such directory; set --store or LEA_STORE to the output directory";
    check(&["count", "-s", "nowhere"], 1, missing);
    check(&["count"], 1, "cannot query interceptions: no such directory; set --store or LEA_STORE");
    std::fs::create_dir(work.path().join("empty")).unwrap();
    for command in ["count", "search"] {
        check(
            &[command, "-s", "empty"],
            1,
            "cannot query empty: this directory has no event store; set --store",
        );
    }
    check(
        &["events", "tail", "-s", "calls.jsonl"],
        1,
        "cannot query calls.jsonl: not a directory; set --store",
    );
    check(&["count", "-s", "out", "--index", "nothing"], 1, "no such index [nothing]");
    check(&["count", "-s", "out", "--since", "yesteryear"], 2, "--since: [yesteryear] is neither a duration");
    check(&["count", "-s", "out", "--until", "2d3h"], 2, "--until: [2d3h] is neither a duration");
    check(&["search", "-s", "out", "--size", "10001"], 2, "--json");
    check(
        &["search", "-s", "out", "--size", "all", "--json", "--sort", "userid"],
        2,
        "only \"time\" is supported",
    );
    for url in ["https://127.0.0.1:1", "http://127.0.0.1:1"] {
        let with_password = url.replace("://", "://u:secret@");
        let refused = format!("cannot query {url}: Connection refused");
        check(&["count", "-s", &with_password, "--connect-timeout", "0"], 1, &refused);
        let waiting = format!("waiting for {url} (up to ");
        check(&["count", "-s", &with_password, "--connect-timeout", "2s"], 1, &waiting);
    }
    check(&["top", "-s", "out", "userid", "-n", "0"], 2, "--size");
    let edge = Edge::start(&work, "out");
    let wrong = edge.url.replace("p%3Ass", "wrong");
    check(&["count", "-s", &wrong], 1, "wrong user or password");
    check(&["events", "load", "-s", "out", "calls.jsonl"], 1, "in use");
    edge.stop();
}

/// One field contains terminal control characters, another one CSV metacharacters.
#[test]
fn text_of_documents_stays_in_its_cell() {
    let work = Workdir::new();
    let agent = "\u{1b}]0;owned\u{7}\u{202e}x\n";
    let line = json!({"@timestamp": "2026-11-21T00:00:00Z", "userAgent": agent, "note": "a \"b\", c\r\nd"});
    work.write("a.jsonl", format!("{line}\n"));
    load(&work, 0, &["-s", "out", "a.jsonl"]);
    let table = ask(&work, &["search", "-s", "out", "--fields", "userAgent"]);
    assert_eq!(table.lines().nth(1), Some(r"2026-11-21T00:00:00.000Z  \u{1b}]0;owned\u{7}\u{202e}x\n"));
    let json = ask(&work, &["search", "-s", "out", "--json"]);
    assert!(!json.trim_end().contains(|c: char| c.is_control() || c == '\u{202e}'), "{json:?}");
    assert_eq!(serde_json::from_str::<Value>(&json).unwrap()["_source"], line);
    let csv = ask(&work, &["search", "-s", "out", "--csv", "--fields", "note,userAgent"]);
    let cells = format!("2026-11-21T00:00:00.000Z,\"a \"\"b\"\", c\r\nd\",\"{agent}\"\n");
    assert_eq!(csv, format!("_time,note,userAgent\n{cells}"));
}

#[test]
fn calls_are_reported_by_subscriber_and_day() {
    let (work, edge) = both();
    let line = |time: &str, subscriber: &str, event: &str| {
        json!({"@timestamp": time, "userid": subscriber, "event": event, "key": "+447700900456"}).to_string()
            + "\n"
    };
    let more = [
        // The call comes in before midnight and is answered after it. The second spelling means the same
        // subscriber.
        line("2026-11-22T23:59:00Z", "+447700900200", "incoming_call"),
        line("2026-11-23T00:01:00Z", "00447700900200", "start_call"),
        line("2026-11-23T00:09:00Z", "+447700900200", "stop_call"),
        // A missed call, and a call that another subscriber answers at the same time.
        line("2026-11-22T10:00:00Z", "+447700900300", "incoming_call"),
        line("2026-11-22T10:03:01Z", "+447700900300", "start_call"),
        line("2026-11-22T10:00:01Z", "+447700900200", "incoming_call"),
        line("2026-11-22T10:00:30Z", "+447700900200", "rejected_call"),
    ];
    work.write("more.jsonl", more.concat());
    load(&work, 0, &["-s", &edge.url, "more.jsonl"]);
    let report = |args: &[&str]| ask_both(&work, &edge, &[&["calls", "report", "--csv"], args].concat());
    let head = "day,subscriber,started,stopped,rejected,missed\n";
    let first = "2026-11-21,+447700900123,1,1,1,0\n";
    let second = "2026-11-22,+447700900200,0,0,1,0\n2026-11-22,+447700900300,1,0,0,1\n";
    let third = "2026-11-23,+447700900200,1,1,0,0\n";
    assert_eq!(report(&[]), [head, first, second, third].concat());
    assert_eq!(report(&["--since", "2026-11-22", "--until", "2026-11-23"]), [head, second].concat());
    assert_eq!(report(&["userid:447700900200", "--since", "2026-11-23"]), [head, third].concat());
    let longer = "2026-11-22,+447700900200,0,0,1,0\n2026-11-22,+447700900300,1,0,0,0\n";
    assert_eq!(report(&["--ringing-time", "5m", "--since", "2026-11-22"]), [head, longer, third].concat());
    let moved = ask_both(&work, &edge, &["calls", "report", "userid:447700900200", "--time-zone", "-01:00"]);
    let expected = "\
DAY          STARTED   STOPPED  REJECTED    MISSED  SUBSCRIBER
2026-11-22         1         1         1         0  +447700900200
";
    assert_eq!(moved, expected);
    let json = ask_both(&work, &edge, &["calls", "report", "--json", "--until", "2026-11-22"]);
    let expected = json!({"day": "2026-11-21", "subscriber": "+447700900123", "started": 1, "stopped": 1, "rejected": 1, "missed": 0});
    assert_eq!(serde_json::from_str::<Value>(&json).unwrap(), expected);
    edge.stop();
}

/// More events than fit on a page, also within one millisecond.
#[test]
fn all_events_come_once_and_in_order() {
    let work = Workdir::new();
    let mut random = Random::new("all_events_come_once_and_in_order");
    let mut lines = String::new();
    for n in 0..12_500 {
        // A third of the events in one millisecond, some years earlier, the others within a day.
        let ms = match n % 3 {
            0 => 1_795_305_600_000,
            1 if n % 50 == 1 => random.below(1_795_305_600_000),
            _ => 1_795_305_600_000 + random.below(86_400_000),
        };
        lines += &format!("{{\"timestamp\":\"{}\",\"n\":{n}}}\n", rfc3339(ms));
    }
    work.write("many.jsonl", lines);
    let edge = Edge::start(&work, "out");
    assert_eq!(
        load(&work, 0, &["-s", &edge.url, "many.jsonl"]),
        "loaded stored=12500 duplicates=0 rejected=0"
    );
    for sort in ["time:asc", "time:desc"] {
        let all =
            ask_both(&work, &edge, &["search", "--size", "all", "--json", "--fields", "n", "--sort", sort]);
        let events: Vec<Value> = all.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let mut times: Vec<&str> = events.iter().map(|event| event["_time"].as_str().unwrap()).collect();
        if sort == "time:desc" {
            times.reverse();
        }
        assert!(times.is_sorted(), "{sort}");
        let numbers: BTreeSet<u64> =
            events.iter().map(|event| event["_source"]["n"].as_u64().unwrap()).collect();
        assert_eq!((events.len(), numbers.len()), (12_500, 12_500), "{sort}");
    }
    let some = ask(&work, &["search", "-s", "out", "--size", "10001", "--json"]);
    assert_eq!(some.lines().count(), 10_001);
    edge.stop();
}

fn rfc3339(ms: u64) -> String {
    let time = chrono::DateTime::from_timestamp_millis(ms as i64).unwrap();
    time.to_rfc3339_opts(chrono::SecondsFormat::Millis, true)
}

#[test]
fn each_line_is_stored_once_also_after_kills() {
    let work = Workdir::new();
    let mut random = Random::new("each_line_is_stored_once_also_after_kills");
    // Every fourth line occurs twice and gives two events.
    let line =
        |n: u64| format!("{{\"@timestamp\":\"2026-11-21T00:00:00Z\",\"n\":{}}}\n", n - u64::from(n % 4 == 1));
    let lines: String = (0..20_000).map(line).collect();
    let path = work.write("many.jsonl", &lines);
    for kill in 0..if crate::support::long() { 100 } else { 5 } {
        let mut command = Command::new(lea());
        command.current_dir(work.path()).args(["events", "load", "-s", "out", "many.jsonl"]);
        let mut process = Process::start(&mut command);
        std::thread::sleep(std::time::Duration::from_millis(random.below(400)));
        process.kill();
        eprintln!("kill {kill}");
    }
    let done = load(&work, 0, &["-s", "out", "many.jsonl"]);
    assert!(done.ends_with("rejected=0"), "{done}");
    assert_eq!(ask(&work, &["count", "-s", "out"]), "20000\n");
    assert_eq!(ask(&work, &["count", "-s", "out", "n:8"]), "2\n");
    // Lines added at the end are new; the others are duplicates.
    fs::write(&path, lines + &line(20_000)).unwrap();
    assert_eq!(load(&work, 0, &["-s", "out", "many.jsonl"]), "loaded stored=1 duplicates=20000 rejected=0");
}

#[test]
fn dead_letters_are_taken_in_again_and_the_others_stay() {
    let work = Workdir::new();
    fs::create_dir_all(work.join("out/.lea")).unwrap();
    let letter = |source: &str, text: &[u8]| DeadLetter {
        time: "2026-11-21T00:00:00.000Z".to_owned(),
        source: source.to_owned(),
        reason: "it was a bad day".to_owned(),
        text: text.to_vec(),
    };
    let bad = [letter("lines 192.0.2.1:5000", b"{half"), letter("lines 192.0.2.1:5001", b"\xff")];
    let letters = EventDeadLetters::open(&work.join("out")).unwrap();
    letters.add(&letter("http 192.0.2.1:6000 opensips", br#"{"destNum":"972598294121"}"#)).unwrap();
    letters.add(&bad[0]).unwrap();
    letters.add(&letter("lines 192.0.2.1:5000", br#"{"event":"start_call","key":"+447700900456"}"#)).unwrap();
    letters.add(&bad[1]).unwrap();
    drop(letters);
    assert_eq!(load(&work, 3, &["-s", "out"]), "loaded stored=2 duplicates=0 rejected=2");
    let left = || -> Vec<DeadLetter> {
        let file = fs::File::open(work.join("out/.lea").join(dead_letters::FILE_NAME)).unwrap();
        dead_letters::read(file).map(Result::unwrap).collect()
    };
    assert_eq!(left(), bad);
    assert_eq!(load(&work, 3, &["-s", "out"]), "loaded stored=0 duplicates=0 rejected=2");
    assert_eq!(left(), bad);
    assert_eq!(
        ask(&work, &["count", "-s", "out", "--index", "opensips", "destNum:\"+972598294121\""]),
        "1\n"
    );
    assert_eq!(
        ask(&work, &["count", "-s", "out", "--index", "interception", "to_user:\"+447700900456\""]),
        "1\n"
    );
    // The dead letter that was fixed.
    let path = work.join("out/.lea").join(dead_letters::FILE_NAME);
    let text = fs::read_to_string(&path).unwrap().replace("{half", r#"{\"event\":\"undefined\"}"#);
    fs::write(&path, text).unwrap();
    assert_eq!(load(&work, 3, &["-s", "out"]), "loaded stored=1 duplicates=0 rejected=1");
    assert_eq!(left(), bad[1..]);
    // Files other than the dead-letter file are not changed.
    let other = work.write("other.jsonl", "{}\n\n[1]\n");
    assert_eq!(load(&work, 3, &["-s", "out", "other.jsonl"]), "loaded stored=1 duplicates=0 rejected=1");
    assert_eq!(fs::read_to_string(other).unwrap(), "{}\n\n[1]\n");
}

/// The sender gets an error, and the event is kept as a dead letter until its field is fixed.
#[test]
fn what_http_refuses_is_a_dead_letter() {
    let work = Workdir::new();
    let edge = Edge::start(&work, "out");
    work.write("a.jsonl", "{\"_index\":\"opensips\",\"_id\":\"1\",\"_source\":{\"n\":1}}\n");
    load(&work, 0, &["-s", &edge.url, "a.jsonl"]);
    // The second time it is a duplicate, which is not a dead letter.
    load(&work, 0, &["-s", &edge.url, "a.jsonl"]);
    work.write("b.jsonl", "{\"_index\":\"opensips\",\"_id\":\"2\",\"_source\":{\"n\":\"many\"}}\n");
    load(&work, 3, &["-s", &edge.url, "b.jsonl"]);
    edge.stop();
    let file = fs::File::open(work.join("out/.lea").join(dead_letters::FILE_NAME)).unwrap();
    let letters: Vec<DeadLetter> = dead_letters::read(file).map(Result::unwrap).collect();
    let [letter] = &letters[..] else { panic!("{letters:?}") };
    assert!(letter.source.starts_with("http 127.0.0.1:") && letter.source.ends_with(" opensips"));
    assert_eq!(letter.text, br#"{"n":"many"}"#);
    assert!(letter.reason.contains("[n]"), "{}", letter.reason);
    load(&work, 3, &["-s", "out"]);
    let path = work.join("out/.lea").join(dead_letters::FILE_NAME);
    let mended = fs::read_to_string(&path).unwrap().replace("many", "2");
    fs::write(&path, mended.replace("\\\"2\\\"", "2")).unwrap();
    assert_eq!(load(&work, 0, &["-s", "out"]), "loaded stored=1 duplicates=0 rejected=0");
    assert_eq!(ask(&work, &["count", "-s", "out", "n:[2 TO 2]"]), "1\n");
}

/// Starts `lea events tail` on a store, with its output in a file.
fn tail(work: &Workdir, name: &str, args: &[&str]) -> (Process, PathBuf) {
    let path = work.join(name);
    let mut command = Command::new(lea());
    command.current_dir(work.path()).args(["events", "tail"]).args(args).env("TZ", "UTC");
    command.stdin(Stdio::null()).stdout(fs::File::create(&path).unwrap());
    (Process::start(&mut command), path)
}

#[track_caller]
fn wait_lines(path: &Path, lines: usize) -> Vec<String> {
    let read = || fs::read_to_string(path).unwrap();
    let what = format!("{lines} lines in {}", path.display());
    wait_until(DEADLINE, &what, || read().matches('\n').count() >= lines);
    read().lines().map(str::to_owned).collect()
}

#[test]
fn tail_prints_what_is_there_and_what_comes() {
    let (work, edge) = both();
    let (mut folder, folder_out) = tail(&work, "a", &["-n", "2", "-s", "out"]);
    let (mut url, url_out) = tail(&work, "b", &["-n", "2", "-s", &edge.url]);
    let (mut calls, calls_out) = tail(&work, "c", &["-n", "1", "-s", "out", "event:start_call", "--json"]);
    let ends = "  opensips  sipRequest=INVITE  ipIntruder=198.51.100.7  destNum=100  userAgent=friendly-scanner  country=FR";
    for path in [&folder_out, &url_out] {
        let lines = wait_lines(path, 2);
        assert_eq!(lines[1], format!("2026-11-21T17:02:07.000Z{ends}"));
    }
    wait_lines(&calls_out, 1);
    // This event has an earlier time than the printed ones, but it is new.
    let line = |n: u32| {
        format!("{{\"@timestamp\":\"2020-01-01T00:00:00Z\",\"event\":\"start_call\",\"userid\":\"{n}\"}}\n")
    };
    work.write("new.jsonl", (0..1_500).map(line).collect::<String>());
    load(&work, 0, &["-s", &edge.url, "new.jsonl"]);
    for path in [&folder_out, &url_out] {
        let lines = wait_lines(path, 1_502);
        assert_eq!(lines.len(), 1_502);
        assert_eq!(lines[1_501], "2020-01-01T00:00:00.000Z  interception  event=start_call  userid=1499");
        let new: BTreeSet<&String> = lines[2..].iter().collect();
        assert_eq!(new.len(), 1_500);
    }
    let lines = wait_lines(&calls_out, 1_501);
    assert_eq!(serde_json::from_str::<Value>(&lines[1_500]).unwrap()["_source"]["userid"], "1499");
    for process in [&mut folder, &mut url, &mut calls] {
        process.signal(Signal::INT);
        process.wait_code(DEADLINE, 0);
    }
    edge.stop();
}
