//! Syslog into the store: real senders, both transports, both formats, patterns.

use std::io::Write;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::process::{Command, Stdio};

use serde_json::Value;

use super::support::process::Process;
use super::support::{DEADLINE, Events, Workdir, lea, unpacked, wait_for};

/// A line that a honeypot logs for an attack.
const TEXT: &str = "198.51.100.7,203.0.113.9,INVITE,sip:100@198.51.100.7,sip:9011972598294121@198.51.100.7,\
    friendly-scanner,[-46.63,-23.54]";

const FOUND: &str = "/syslog/_count?q=dnis:972598294121%20AND%20syslog_program:opensips";

fn start(work: &Workdir) -> (Events, SocketAddr, SocketAddr) {
    let mut events = Events::start(&work.join("out"), &["--syslog", "udp:0", "--syslog", "tcp:127.0.0.1:0"]);
    let (udp, tcp) = (events.addr("syslog transport=udp"), events.addr("syslog transport=tcp"));
    (events, udp, tcp)
}

fn run(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output();
    let output =
        output.unwrap_or_else(|error| panic!("cannot run {command:?}: {error} (see scripts/test.sh)"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn logger_in_all_its_forms() {
    let work = Workdir::new();
    let (events, udp, tcp) = start(&work);
    let mut sent = 0;
    for form in [&["--rfc3164"][..], &["--rfc5424"], &["--rfc5424=notime,nohost"]] {
        for transport in [&["--udp"][..], &["--tcp"], &["--tcp", "--octet-count"]] {
            let addr = if transport[0] == "--udp" { udp } else { tcp };
            let mut command = Command::new("logger");
            command.args(["--server", "127.0.0.1", "--port", &addr.port().to_string()]);
            command.args(form).args(transport).args([
                "--id=2101",
                "-t",
                "opensips",
                "-p",
                "local0.info",
                TEXT,
            ]);
            run(&mut command);
            sent += 1;
            // One message at a time, so that a missing one can be identified.
            events.wait_count("/syslog/_count", sent);
            assert_eq!(events.count(FOUND), sent, "{form:?} {transport:?}");
        }
    }
    for source in events.sources("syslog") {
        assert_eq!(
            (&source["syslog_pid"], &source["intruder_ip"]),
            (&"2101".into(), &"203.0.113.9".into()),
            "{source}"
        );
        assert_eq!(
            (&source["syslog_facility"], &source["syslog_severity"]),
            (&16.into(), &6.into()),
            "{source}"
        );
        assert_eq!(source["host"], "127.0.0.1");
    }
    events.term();
}

#[test]
fn rsyslog_over_udp_tcp_and_http() {
    let work = Workdir::new();
    let (events, udp, tcp) = start(&work);
    let log = work.write("honeypot.log", "");
    let config = work.write(
        "rsyslog.conf",
        format!(
            r#"global(workDirectory="{dir}")
               module(load="imfile") module(load="omelasticsearch")
               template(name="event" type="string" string="{{\"destNum\":\"9011972598294121\",\"ipIntruder\":\"203.0.113.9\",\"tag\":\"%syslogtag%\"}}")
               input(type="imfile" File="{log}" Tag="opensips[2101]:" Facility="local0" Severity="info")
               action(type="omfwd" target="127.0.0.1" port="{udp}" protocol="udp" template="RSYSLOG_TraditionalForwardFormat")
               action(type="omfwd" target="127.0.0.1" port="{tcp}" protocol="tcp" template="RSYSLOG_ForwardFormat")
               action(type="omfwd" target="127.0.0.1" port="{tcp}" protocol="tcp" template="RSYSLOG_SyslogProtocol23Format" TCP_Framing="octet-counted")
               action(type="omelasticsearch" server="127.0.0.1" serverport="{http}" template="event" searchIndex="rsyslog" searchType="_doc" bulkmode="on" errorFile="{dir}/errors")
            "#,
            dir = work.path().display(),
            log = log.display(),
            udp = udp.port(),
            tcp = tcp.port(),
            http = events.http().port(),
        ),
    );
    let mut command = Command::new("/usr/sbin/rsyslogd");
    command.arg("-n").arg("-f").arg(&config).arg("-i").arg(work.join("pid"));
    let _rsyslog = Process::start(command.stdin(Stdio::null()).stdout(Stdio::null()));
    let mut log = std::fs::File::options().append(true).open(log).unwrap();
    for _ in 0..3 {
        writeln!(log, "{TEXT}").unwrap();
    }
    events.wait_count("/syslog/_count", 9);
    assert_eq!(events.count(FOUND), 9, "all three forms fit");
    events.wait_count("/rsyslog/_count?q=destNum:00972598294121", 3);
    events.term();
}

#[test]
fn syslog_ng_over_udp_tcp_and_http() {
    let root = unpacked("syslog-ng");
    let work = Workdir::new();
    let (events, udp, tcp) = start(&work);
    let log = work.write("honeypot.log", format!("{TEXT}\n").repeat(3));
    let config = work.write(
        "syslog-ng.conf",
        format!(
            // syslog-ng requires `@version` at the start of a line.
            r#"@version: 3.38
@include "{root}/usr/share/syslog-ng/include/scl/elasticsearch/elastic-http.conf"
               source s {{ file("{log}" flags(no-parse) program-override("opensips") read-old-records(yes)); }};
               destination d {{
                 network("127.0.0.1" port({udp}) transport("udp"));
                 syslog("127.0.0.1" port({tcp}) transport("tcp"));
                 elasticsearch-http(url("http://127.0.0.1:{http}/_bulk") index("syslog-ng") type("")
                   template("$(format-json destNum=9011972598294121 text=$MSG)"));
               }};
               log {{ source(s); destination(d); }};
            "#,
            root = root.display(),
            log = log.display(),
            udp = udp.port(),
            tcp = tcp.port(),
            http = events.http().port(),
        ),
    );
    let libraries = root.join("usr/lib/syslog-ng");
    let module_path = format!("{}/syslog-ng/3.38", root.join("usr/lib").display());
    let mut command = Command::new(root.join("usr/sbin/syslog-ng"));
    command
        .args(["--foreground", "--no-caps", "--stderr", "--module-path", &module_path])
        .arg("--cfgfile")
        .arg(config);
    for (option, file) in [("--persist-file", "persist"), ("--pidfile", "pid"), ("--control", "control")] {
        command.arg(option).arg(work.join(file));
    }
    command.env("LD_LIBRARY_PATH", libraries);
    let _syslog_ng = Process::start(command.stdin(Stdio::null()).stdout(Stdio::null()));
    events.wait_count("/syslog/_count", 6);
    assert_eq!(events.count(FOUND), 6, "both forms fit");
    events.wait_count("/syslog-ng/_count?q=destNum:00972598294121", 3);
    events.term();
}

#[test]
fn what_fits_no_pattern_is_stored_with_a_tag_and_both_sides_of_the_limit() {
    let work = Workdir::new();
    let (events, udp, tcp) = start(&work);
    let message = |bytes: usize| format!("<13>Nov 21 20:59:41 h p: {}", "x".repeat(bytes - 25));
    let (fits, over) = (message(8 << 10), message((8 << 10) + 1));
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut stream = TcpStream::connect(tcp).unwrap();
    for message in [fits.as_str(), &over, "hello"] {
        socket.send_to(message.as_bytes(), udp).unwrap();
        writeln!(stream, "{message}").unwrap();
        if message.starts_with('<') {
            write!(stream, "{} {message}", message.len()).unwrap();
        }
    }
    events.wait_count("/syslog/_count?q=tags:_grokparsefailure", 5);
    drop(stream);
    let letters = events.output().join(".lea/event-dead-letters.jsonl");
    wait_for(DEADLINE, "three letters", || {
        (std::fs::read_to_string(&letters).ok()?.matches("longer than 8192 bytes").count() == 3).then_some(())
    });
    events.term();
}

#[test]
fn a_flood_of_datagrams_is_stored_or_counted() {
    let work = Workdir::new();
    let (events, udp, _) = start(&work);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let sent = 20_000;
    for n in 0..sent {
        socket.send_to(format!("<13>Nov 21 20:59:41 h p: {n}").as_bytes(), udp).unwrap();
    }
    let said = events.term();
    let number = |name: &str| -> u64 {
        let word = said.split_whitespace().find_map(|word| word.strip_prefix(&format!("{name}=")));
        word.unwrap_or_else(|| panic!("no {name} in {said}")).parse().unwrap()
    };
    let all = number("events") + number("dropped_datagrams") + number("kernel_dropped_datagrams");
    assert_eq!(all, sent, "{said}");
}

#[test]
fn test_pattern_shows_what_a_pattern_makes_of_lines() {
    let work = Workdir::new();
    let lines = format!("Apr 11 14:02:07 honey1 opensips[2101]: {TEXT}\n<13>1 - - p - - - CALL 7 ends\n");
    let file = work.write("lines", &lines);
    let test = |args: &[&str]| {
        let mut command = assert_cmd::Command::new(lea());
        let output =
            command.current_dir(work.path()).args(["events", "test-pattern"]).args(args).arg(&file).output();
        let output = output.unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let (code, table, _) = test(&[]);
    assert_eq!(code, Some(3));
    assert!(table.contains("line 1: pattern 1") && table.contains("line 2: no pattern matches"), "{table}");
    assert!(table.lines().any(|line| line.split_whitespace().eq(["dnis", "9011972598294121"])), "{table}");
    let (code, _, said) = test(&["--pattern", "%{IP:ip}", "--pattern", "CALL %{INT:call:int}", "--json"]);
    assert_eq!(code, Some(0), "{said}");
    let (_, json, _) = test(&["--pattern", "%{IP:ip}", "--pattern", "CALL %{INT:call:int}", "--json"]);
    let objects: Vec<Value> = json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((&objects[0]["pattern"], &objects[0]["fields"]["ip"]), (&1.into(), &"198.51.100.7".into()));
    assert_eq!((&objects[1]["pattern"], &objects[1]["fields"]["call"]), (&2.into(), &7.into()));
    let (code, _, said) = test(&["--pattern", "%{NOPE:x}"]);
    assert_eq!(code, Some(2));
    assert!(said.contains("pattern 1, character 1: unknown pattern NOPE"), "{said}");
}
