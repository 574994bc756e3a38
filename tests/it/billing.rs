//! `lea billing`: logs of two real SIPp sides with known differences, rows in all formats, more rows than fit
//! in memory, and a real RabbitMQ.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::net::{TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use super::support::process::Process;
use super::support::{DEADLINE, Events, Rabbit, Random, Workdir, events, lea, long, wait_until};

/// The columns that the SIPp scenarios log.
const HEAD: &str = "method;request_time;reply_time;microseconds;reply_code;caller_id;callee_id;call_id\n";

/// Tolerance for calls whose two sides run on one machine. A machine under load delays the log of one side.
const TOLERANCE: &str = "10s";

/// Number of known differences of each kind, 37 in total.
const PLANTED: [(&str, usize); 6] = [
    ("missing_ours", 4),
    ("missing_theirs", 4),
    ("duration", 8),
    ("reply_code", 7),
    ("answered", 7),
    ("hung_up", 7),
];

/// How the callee's scenario ends the call: who is busy, and who hangs up.
const BUSY: &str = "+447700900998";
const HANGS_UP: &str = "+447700900999";

/// A logged row: values by column.
#[derive(Clone, PartialEq)]
struct Row(Vec<String>);

impl Row {
    const METHOD: usize = 0;
    const REQUEST_TIME: usize = 1;
    const REPLY_TIME: usize = 2;
    const REPLY_CODE: usize = 4;
    const CALLER: usize = 5;
    const CALLEE: usize = 6;
    const CALL_ID: usize = 7;

    fn is_bye(&self) -> bool {
        self.0[Row::METHOD] == "BYE"
    }

    fn call_id(&self) -> &str {
        &self.0[Row::CALL_ID]
    }

    fn line(&self) -> String {
        self.0.join(";") + "\n"
    }

    fn json(&self) -> String {
        let names = HEAD.trim_end().split(';');
        let object: serde_json::Map<String, Value> =
            names.zip(&self.0).map(|(name, text)| (name.to_owned(), text.as_str().into())).collect();
        Value::Object(object).to_string() + "\n"
    }

    fn later(&mut self, seconds: f64) {
        for column in [Row::REQUEST_TIME, Row::REPLY_TIME] {
            if let Ok(time) = self.0[column].parse::<f64>() {
                self.0[column] = format!("{:.6}", time + seconds);
            }
        }
    }
}

#[track_caller]
fn billing(args: &[&str]) -> Output {
    Command::new(lea()).arg("billing").args(args).stdin(Stdio::null()).output().unwrap()
}

#[track_caller]
fn check_code(output: &Output, code: i32) {
    assert_eq!(output.status.code(), Some(code), "{}", String::from_utf8_lossy(&output.stderr));
}

fn objects(output: &Output) -> Vec<Value> {
    let text = std::str::from_utf8(&output.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Returns a free UDP port.
fn udp_port() -> String {
    UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string()
}

fn sipp(work: &Workdir, side: &str, args: &[&str]) -> Process {
    let scenario = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("testdata/sipp/billing-{side}.xml"));
    let out = fs::File::create(work.join(format!("{side}.out"))).unwrap();
    let mut command = Command::new("sipp");
    command.arg("-sf").arg(scenario).args(["-i", "127.0.0.1", "-nostdin", "-trace_logs", "-log_file"]);
    command.arg(work.join(format!("{side}.log"))).args(args).current_dir(work.path());
    Process::start(command.stdin(Stdio::null()).stdout(out))
}

/// Makes `calls` calls between two SIPp processes. Returns the rows that each side logged.
#[track_caller]
fn call(work: &Workdir, calls: usize) -> [Vec<Row>; 2] {
    let mut list = "SEQUENTIAL\n".to_owned();
    for nth in 0..calls {
        let callee = match nth % 10 {
            3 => BUSY.to_owned(),
            6 => HANGS_UP.to_owned(),
            _ => format!("+120255501{:02}", nth % 100),
        };
        writeln!(list, "+4477009001{:02};{callee};", nth % 100).unwrap();
    }
    let list = work.write("calls.csv", list);
    let (count, rate) = (calls.to_string(), if long() { "200" } else { "100" });
    let (callee_port, caller_port) = (udp_port(), udp_port());
    let mut callee = sipp(work, "callee", &["-p", &callee_port, "-m", &count]);
    let listens = || {
        fs::read_to_string("/proc/net/udp")
            .unwrap()
            .contains(&format!("0100007F:{:04X} ", callee_port.parse::<u16>().unwrap()))
    };
    wait_until(DEADLINE, "SIPp to listen", listens);
    let to = format!("127.0.0.1:{callee_port}");
    let list = list.to_str().unwrap();
    let mut caller = sipp(work, "caller", &["-p", &caller_port, &to, "-inf", list, "-m", &count, "-r", rate]);
    caller.wait_code(4 * DEADLINE, 0);
    callee.wait_code(DEADLINE, 0);
    let busy = (0..calls).filter(|nth| nth % 10 == 3).count();
    ["caller", "callee"].map(|side| {
        let text = fs::read_to_string(work.join(format!("{side}.log"))).unwrap();
        let rows: Vec<Row> =
            text.lines().map(|line| Row(line.split(';').map(str::to_owned).collect())).collect();
        assert_eq!(rows.len(), 4 * (calls - busy) + 2 * busy, "{side}");
        rows
    })
}

/// Changes the logs. Returns the calls that differ now, with the kind of difference.
fn plant(ours: &mut Vec<Row>, theirs: &mut Vec<Row>, random: &mut Random) -> BTreeMap<String, &'static str> {
    let ids = |wanted: &dyn Fn(&Row) -> bool| -> BTreeSet<String> {
        ours.iter().filter(|row| wanted(row)).map(|row| row.call_id().to_owned()).collect()
    };
    let busy = ids(&|row| row.0[Row::REPLY_CODE] == "486");
    let mut busy: Vec<String> = busy.into_iter().collect();
    let mut answered: Vec<String> = ids(&Row::is_bye).into_iter().collect();
    let mut planted = BTreeMap::new();
    for (kind, count) in PLANTED {
        for _ in 0..count {
            let from = if kind == "reply_code" { &mut busy } else { &mut answered };
            let call = from.swap_remove(random.below(from.len() as u64) as usize);
            match kind {
                "missing_ours" => ours.retain(|row| row.call_id() != call),
                "missing_theirs" => theirs.retain(|row| row.call_id() != call),
                "answered" => theirs.retain(|row| row.call_id() != call || !row.is_bye()),
                _ => {}
            }
            for row in theirs.iter_mut().filter(|row| row.call_id() == call) {
                match kind {
                    "duration" if row.is_bye() => row.later(20.25),
                    "reply_code" if !row.0[Row::REPLY_CODE].is_empty() => {
                        row.0[Row::REPLY_CODE] = "603".to_owned()
                    }
                    "answered" if !row.0[Row::REPLY_CODE].is_empty() => {
                        row.0[Row::REPLY_CODE] = "487".to_owned()
                    }
                    "hung_up" if row.is_bye() => row.0.swap(Row::CALLER, Row::CALLEE),
                    _ => {}
                }
            }
            planted.insert(call, kind);
        }
    }
    planted
}

/// Duplicates rows and shuffles them, which must not make a difference.
fn disorder(rows: &mut Vec<Row>, random: &mut Random) {
    for nth in 0..rows.len() / 10 {
        rows.push(rows[nth * 10].clone());
    }
    for nth in (1..rows.len()).rev() {
        rows.swap(nth, random.below(nth as u64 + 1) as usize);
    }
}

/// The calls that differ, each with its most important difference.
fn found(output: &Output) -> BTreeMap<String, String> {
    let lines = objects(output);
    let calls = lines.iter().filter(|line| line.get("call_id").is_some());
    let one = |line: &Value| {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        (text(&line["call_id"]), text(&line["differences"][0]))
    };
    calls.map(one).collect()
}

#[test]
fn exactly_the_planted_differences_of_two_sipp_sides_are_found() {
    let work = Workdir::new();
    let mut random = Random::new("exactly_the_planted_differences_of_two_sipp_sides_are_found");
    let calls = if long() { 10_000 } else { 300 };
    let [mut ours, mut theirs] = call(&work, calls);
    let write = |name: &str, rows: &[Row]| {
        let text: String = rows.iter().map(Row::line).collect();
        work.write(name, format!("{HEAD}{text}")).to_str().unwrap().to_owned()
    };
    let compare =
        |ours: &str, theirs: &str| billing(&["compare", ours, theirs, "--tolerance", TOLERANCE, "--json"]);
    // Unchanged logs have no difference.
    let (our_file, their_file) = (write("ours.csv", &ours), write("theirs.csv", &theirs));
    let output = compare(&our_file, &their_file);
    assert_eq!(found(&output), BTreeMap::new());
    check_code(&output, 0);

    let planted = plant(&mut ours, &mut theirs, &mut random);
    assert_eq!(planted.len(), 37);
    disorder(&mut ours, &mut random);
    disorder(&mut theirs, &mut random);
    let our_file = write("ours.csv", &ours);
    let their_rows: String = theirs.iter().map(Row::json).collect();
    let their_file = work.write("theirs.jsonl", &their_rows);
    let output = compare(&our_file, their_file.to_str().unwrap());
    check_code(&output, 3);
    let expected: BTreeMap<String, String> =
        planted.iter().map(|(call, kind)| (call.clone(), (*kind).to_owned())).collect();
    assert_eq!(found(&output), expected);
    check_sums(&output, calls as u64);

    // The same rows, sent as lines to a store, and read from its directory and over HTTP.
    let store = work.join("store");
    let mut server = Events::start(&store, &["--lines", "0"]);
    let mut lines = TcpStream::connect(server.addr("lines")).unwrap();
    lines.write_all(their_rows.as_bytes()).unwrap();
    drop(lines);
    server.wait_count("/billing/_count", theirs.len() as u64);
    for place in [store.to_str().unwrap().to_owned(), format!("http://{}", server.http())] {
        let output = compare(&our_file, &place);
        check_code(&output, 3);
        assert_eq!(found(&output), expected, "{place}");
    }
    server.term();
}

/// The totals of both sides: by caller, by country code, by day, and of all calls.
#[track_caller]
fn check_sums(output: &Output, calls: u64) {
    let lines = objects(output);
    let of = |key: &str| lines.iter().filter(|line| line["by"] == key).collect::<Vec<_>>();
    let number = |line: &Value, pointer: &str| line.pointer(pointer).and_then(Value::as_i64).unwrap();
    let sum = |key: &str, pointer: &str| of(key).iter().map(|line| number(line, pointer)).sum::<i64>();
    for key in ["all", "day", "prefix", "caller"] {
        assert_eq!(sum(key, "/ours/calls"), calls as i64 - 4, "{key}");
        assert_eq!(sum(key, "/theirs/calls"), calls as i64 - 4, "{key}");
        assert_eq!(sum(key, "/differ"), 37, "{key}");
        assert_eq!(
            sum(key, "/theirs/answered") - sum(key, "/ours/answered"),
            -7,
            "{key}: seven were not answered for them"
        );
    }
    let prefixes: Vec<&str> = of("prefix").iter().map(|line| line["value"].as_str().unwrap()).collect();
    assert_eq!(prefixes, ["+1", "+44"]);
    assert_eq!(of("caller").len(), 100);
}

const WHOLE: &str = r#"{"method":"INVITE","request_time":1795305600,"reply_time":"","caller_id":"+447700900123","callee_id":"+447700900456","call_id":"a","microseconds":100,"reply_code":""}
{"method":"INVITE","request_time":1795305600,"reply_time":1795305603,"caller_id":"+447700900123","callee_id":"+447700900456","call_id":"a","microseconds":200,"reply_code":200}
{"method":"BYE","request_time":"2026-11-22T00:01:03Z","reply_time":null,"caller_id":"00447700900456","callee_id":"+447700900123","call_id":"a","microseconds":300,"reply_code":0}
{"method":"BYE","request_time":"2026-11-22T00:01:03Z","reply_time":"2026-11-22T00:01:03Z","caller_id":"00447700900456","callee_id":"+447700900123","call_id":"a","microseconds":400,"reply_code":"200"}
"#;

fn post(addr: std::net::SocketAddr, path: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let length = body.len();
    write!(
        stream,
        "POST {path} HTTP/1.1\r\nHost: lea\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\
         Connection: close\r\n\r\n{body}"
    )
    .unwrap();
    let mut answer = String::new();
    std::io::Read::read_to_string(&mut stream, &mut answer).unwrap();
    answer
}

#[test]
fn rows_over_http_are_dates_and_numbers_and_make_calls() {
    let work = Workdir::new();
    let mut server = Events::start(&work.join("out"), &["--lines", "0"]);
    let rows: Vec<&str> = WHOLE.lines().collect();
    // The empty time in the first row must neither decide the type of the field nor cause a rejection.
    let answer = post(server.http(), "/billing/_doc", rows[0]);
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    let bulk = format!("{{\"index\":{{}}}}\n{}\n{{\"index\":{{}}}}\n{}\n", rows[1], rows[2]);
    let answer = post(server.http(), "/billing/_doc/_bulk", &bulk);
    assert!(answer.contains("\"errors\":false"), "{answer}");
    let mut lines = TcpStream::connect(server.addr("lines")).unwrap();
    lines.write_all(format!("{}\n", rows[3]).as_bytes()).unwrap();
    drop(lines);
    server.wait_count("/billing/_count", 4);

    let mapping = server.get("/billing/_mapping");
    let kind = |field: &str| mapping["billing"]["mappings"]["properties"][field]["type"].clone();
    for (field, expected) in [
        ("request_time", "date"),
        ("reply_time", "date"),
        ("microseconds", "integer"),
        ("reply_code", "integer"),
        ("call_id", "keyword"),
    ] {
        assert_eq!(kind(field), expected, "{field}");
    }
    for (question, count) in [
        ("reply_code:%5B200%20TO%20299%5D", 2),
        ("request_time:%5B2026-11-22T00:00:00Z%20TO%202026-11-22T00:00:30Z%5D", 2),
        ("_exists_:reply_time", 2),
        ("caller_id:7700900456", 0),
        ("caller_id:00447700900456", 2),
        ("caller_id:%22%2B447700900456%22", 2),
        ("microseconds:%3E300", 1),
    ] {
        assert_eq!(server.count(&format!("/billing/_count?q={question}")), count, "{question}");
    }
    let place = server.output().to_str().unwrap().to_owned();
    server.term();
    let output = billing(&["build", "--store", &place, "--json", "--time-zone", "utc"]);
    check_code(&output, 0);
    let expected = json!([{
        "call_id": "a", "start": "2026-11-22T00:00:00.000100Z", "caller": "+447700900123", "callee": "+447700900456",
        "setup_us": 3_000_100, "answered": true, "duration_us": 60_000_100, "reply_code": 200, "hung_up": "callee",
        "rows": 4, "duplicates": 0, "reordered": 0, "missing": [],
    }]);
    assert_eq!(Value::from(objects(&output)), expected);
    // The range selects calls by their start, not by the times of their rows.
    let built =
        |flags: &[&str]| objects(&billing(&[&["build", "--store", &place, "--json"], flags].concat())).len();
    assert_eq!(built(&["--since", "2026-11-22T00:00:00Z"]), 1);
    assert_eq!(built(&["--since", "2026-11-22T00:00:30Z"]), 0);
    assert_eq!(built(&["--until", "2026-11-22T00:00:30Z"]), 1);
}

#[test]
fn incomplete_calls_are_named_and_malformed_rows_are_rejected() {
    let work = Workdir::new();
    let file = |text: String| work.write("rows", text).to_str().unwrap().to_owned();
    let rows: Vec<&str> = WHOLE.lines().collect();
    let output =
        billing(&["build", &file(format!("{}\n{}\n", rows[0], rows[1])), "--csv", "--time-zone", "utc"]);
    check_code(&output, 3);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = "a,2026-11-22T00:00:00.000100Z,+447700900123,+447700900456,3000100,true,,200,,2,0,0,\"BYE request, BYE reply\"";
    assert!(text.lines().any(|found| found == line), "{text}");
    let output = billing(&["build", &file(format!("{WHOLE}{{\"call_id\":\"b\"}}\n"))]);
    check_code(&output, 3);
    let (table, log) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(table.contains("60.000100") && table.contains("callee"), "{table}");
    assert!(log.contains("row=5 reason=\"request_time is missing\"") && log.contains("rejected=1"), "{log}");
    check_code(&billing(&["build", &file("hello\n".to_owned())]), 2);
    check_code(&billing(&["build", "/nonexistent"]), 1);
    check_code(&billing(&["compare", "-", "-"]), 2);
    check_code(&billing(&["compare", &file(WHOLE.to_owned()), "/dev/null", "--csv", "--show", "all"]), 2);
    let output = billing(&["compare", &file(WHOLE.to_owned()), "/dev/null"]);
    check_code(&output, 3);
    assert!(String::from_utf8_lossy(&output.stdout).starts_with("DIFFERENCE"), "a table");
    check_code(&billing(&["build", "/dev/null"]), 0);
}

/// Rows of `calls` calls: all INVITE requests, all their replies, all BYE requests, all their replies.
fn passes(work: &Workdir, name: &str, calls: u32, longer: u32) -> PathBuf {
    let mut text = String::new();
    for (method, at, code) in
        [("INVITE", 0, 0), ("INVITE", 2, 200), ("BYE", 62 + longer, 0), ("BYE", 62 + longer, 200)]
    {
        for nth in 0..calls {
            let (id, caller) = (nth.wrapping_mul(2_654_435_761), nth % 1_000);
            let time = 1_795_305_600 + nth / 30 + at;
            let column = if code == 0 { "request_time" } else { "reply_time" };
            writeln!(
                text,
                r#"{{"method":"{method}","{column}":{time},"microseconds":{},"reply_code":{code},"caller_id":"+447700900{caller:03}","callee_id":"+12025550123","call_id":"{id:08x}@192.0.2.1"}}"#,
                nth % 1_000
            )
            .unwrap();
        }
    }
    work.write(name, text)
}

#[test]
fn more_rows_than_memory_make_the_same_calls() {
    let work = Workdir::new();
    let calls = if long() { 100_000 } else { 4_000 };
    let ours = passes(&work, "ours", calls, 0);
    let theirs = passes(&work, "theirs", calls, 3);
    let (ours, theirs) = (ours.to_str().unwrap(), theirs.to_str().unwrap());
    let temp = work.join("temp");
    fs::create_dir(&temp).unwrap();
    let little = ["--sort-memory", "64K", "--temp-dir", temp.to_str().unwrap(), "-v"];
    for (args, code) in [(vec!["build", ours, "--csv"], 0), (vec!["compare", ours, theirs, "--json"], 3)] {
        let at_once = billing(&args);
        let in_runs = billing(&[&args[..], &little].concat());
        check_code(&at_once, code);
        check_code(&in_runs, code);
        assert_eq!(at_once.stdout, in_runs.stdout);
        let lines = std::str::from_utf8(&at_once.stdout).unwrap().lines().count();
        assert!(lines > calls as usize, "{lines}");
        let log = String::from_utf8_lossy(&in_runs.stderr).into_owned();
        let runs = log.lines().find_map(|line| line.split_once(" runs=")?.1.trim().parse::<u64>().ok());
        assert!(runs.is_some_and(|runs| runs > 20), "{log}");
        assert!(!String::from_utf8_lossy(&at_once.stderr).contains(" runs="));
        assert_eq!(fs::read_dir(&temp).unwrap().count(), 0);
    }
    check_code(&billing(&["build", ours, "--sort-memory", "64K", "--temp-dir", "/nonexistent"]), 1);
}

/// Consumes a queue while lea is killed and the broker restarts. Each row must be stored once.
#[test]
fn rows_from_a_queue_are_there_once_whatever_is_killed() {
    let work = Workdir::new();
    let mut random = Random::new("rows_from_a_queue_are_there_once_whatever_is_killed");
    let calls = if long() { 20_000 } else { 1_500 };
    let rows = fs::read(passes(&work, "rows", calls, 0)).unwrap();
    let count = 4 * u64::from(calls);
    let rabbit = Rabbit::start();
    assert_eq!(rabbit.publish("rows", &rows, &[]), count);
    let url = rabbit.url();
    let flags = ["--amqp", &url, "--amqp-queue", "rows", "--admin-listen", "0"];
    let start = || Events::start(&work.join("out"), &flags);
    let some = |server: &Events, at_least: u64| {
        wait_until(DEADLINE, "rows", || server.count("/billing/_count") >= at_least);
    };

    let mut server = start();
    some(&server, 1 + random.below(count / 4));
    server.process().kill();
    let mut server = start();
    some(&server, count / 3);
    rabbit.stop();
    rabbit.restart();
    wait_until(2 * DEADLINE, "all rows", || server.count("/billing/_count") >= count);
    // All messages were acknowledged, also the unusable ones, which became dead letters.
    let unusable =
        format!("hello\n[]\n{{\"userid\":\"a\",\"data\":\"AA==\"}}\n{{\"x\":\"{}\"}}\n", "x".repeat(1 << 20));
    rabbit.publish("rows", unusable.as_bytes(), &["--ids"]);
    let status = server.addr("admin");
    let metric = |name: &str| {
        let (_, text) = events::ask(status, "/metrics");
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok());
        value.unwrap_or_else(|| panic!("no {name} in {text}"))
    };
    wait_until(DEADLINE, "dead letters", || metric("lea_event_dead_letters_total ") >= 4);
    assert_eq!((metric("lea_event_dead_letters_total "), metric("lea_amqp_up ")), (4, 1));
    assert!(metric("lea_amqp_redelivered_total ") > 0);
    // Messages with different ids are different events; equal messages without ids are one event.
    let twice = b"{\"event\":\"undefined\"}\n{\"event\":\"undefined\"}\n";
    rabbit.publish("rows", twice, &["--ids"]);
    server.wait_count("/interception/_count", 2);
    rabbit.publish("rows", twice, &[]);
    server.wait_count("/interception/_count", 3);
    assert_eq!(server.count("/billing/_count"), count);
    server.term();
    // The connection was closed, so the broker has requeued the unacknowledged messages.
    assert_eq!(rabbit.publish("rows", b"", &[]), 0);
    let output = billing(&["build", "--store", work.join("out").to_str().unwrap(), "--csv"]);
    check_code(&output, 0);
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(log.contains(&format!("built calls={calls} ")) && log.contains(" duplicates=0 "), "{log}");
}
