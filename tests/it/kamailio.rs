//! Kamailio as a SIP honeypot that reports each attempt to `lea` and rejects calls to known numbers, and SIPp
//! as the attacker.

use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::Signal;
use serde_json::Value;

use super::support::process::Process;
use super::support::{DEADLINE, Events, Workdir, unpacked};

/// Kamailio with testdata/kamailio/honeypot.cfg. It ends its own child processes.
struct Honeypot {
    process: Process,
    port: u16,
}

impl Honeypot {
    fn start(work: &Workdir, lea: &str) -> Honeypot {
        let root = unpacked("kamailio");
        let port = free_port();
        let mut command = Command::new(root.join("usr/sbin/kamailio"));
        // In the foreground, its log on stderr without colours, with little memory.
        command.args(["-DD", "-E", "-e", "-m", "32", "-M", "4", "-f"]).arg(testdata("kamailio/honeypot.cfg"));
        command.arg("-L").arg(modules(&root)).args(["-l", &format!("udp:127.0.0.1:{port}")]);
        command.args(["-A", &format!("LEA={lea}")]);
        for (option, name) in [("-Y", "."), ("-w", "."), ("-P", "kamailio.pid")] {
            command.arg(option).arg(work.join(name));
        }
        let process = Process::start(command.stdin(Stdio::null()).stdout(Stdio::null()));
        Honeypot { process, port }
    }

    /// Calls numbers one after another. Returns the outcome of each call.
    #[track_caller]
    fn attack(&mut self, work: &Workdir, attempts: &[(&str, &str)]) -> Vec<String> {
        let lines = attempts.iter().map(|(number, agent)| format!("{number};{agent}\n"));
        let numbers = work.write("numbers.csv", format!("SEQUENTIAL\n{}", lines.collect::<String>()));
        let mut sipp = Command::new("sipp");
        // One call at a time.
        sipp.arg("-sf")
            .arg(testdata("sipp/attacker.xml"))
            .arg("-inf")
            .arg(numbers)
            .args(["-l", "1", "-r", "50"]);
        sipp.args(["-m", &attempts.len().to_string(), "-i", "127.0.0.1", "-p", &free_port().to_string()]);
        sipp.args(["-nostdin", "-trace_logs", "-log_file", "attempts.log"]);
        sipp.arg(format!("127.0.0.1:{}", self.port)).current_dir(work.path());
        let mut sipp = Process::start(sipp.stdin(Stdio::null()).stdout(Stdio::null()));
        sipp.wait_code(DEADLINE, 0);
        assert!(self.process.is_running(), "{}", self.process.stderr());
        let log = std::fs::read_to_string(work.join("attempts.log")).unwrap();
        log.lines().map(str::to_owned).collect()
    }
}

impl Drop for Honeypot {
    fn drop(&mut self) {
        self.process.signal(Signal::TERM);
        self.process.wait_code(DEADLINE, 0);
    }
}

fn testdata(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(name)
}

/// The modules are in a directory named after the architecture.
fn modules(root: &Path) -> PathBuf {
    let kinds = std::fs::read_dir(root.join("usr/lib")).unwrap();
    let mut modules = kinds.map(|kind| kind.unwrap().path().join("kamailio/modules"));
    modules.find(|path| path.is_dir()).expect("Kamailio has modules")
}

/// Returns a free UDP port.
fn free_port() -> u16 {
    UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[test]
fn attempts_are_stored_and_known_numbers_refused() {
    let work = Workdir::new();
    let events = Events::with_user(&work, "proxy", "s3cret", &["--lines", "0"]);
    let mut honeypot = Honeypot::start(&work, &format!("http://proxy:s3cret@{}", events.http()));
    let answers = honeypot.attack(
        &work,
        &[
            ("9011972598294121", "friendly-scanner"),
            ("+972598294121", "friendly-scanner"),
            ("+447700900456", "a \"quoted\" one, with a comma"),
            ("00447700900456", "x"),
            ("447700900457", "x"),
            // A call without a number is not looked up.
            ("admin&q=*", "x"),
        ],
    );
    let expected = [
        "9011972598294121 200",
        "+972598294121 603",
        "+447700900456 200",
        "00447700900456 603",
        "447700900457 200",
        "admin&q=* 200",
    ];
    assert_eq!(answers, expected, "{}", honeypot.process.stderr());
    let said = honeypot.process.stderr();
    assert!(!said.contains("failed") && !said.contains("not stored"), "{said}");
    drop(honeypot);
    let said = events.term();
    assert!(said.contains("events=6 "), "each is stored once: {said}");

    // The events are found by another dialled form, by address and by words.
    let again = Events::start(&work.join("out"), &[]);
    let count = |question: &str| again.count(&format!("/opensips/1/_count?q={question}"));
    assert_eq!(count("destNum:00972598294121"), 2);
    assert_eq!(count("destNum:%22011%20972-59-829-4121%22"), 2);
    assert_eq!(count("447700900456"), 2);
    assert_eq!(count("ipIntruder:127.0.0.1"), 6);
    assert_eq!(count("friendly-scanner"), 2);
    assert_eq!(count("_event_time:[now-1h%20TO%20now%2B1m]"), 6);
    let stored = again.get("/opensips/_search?q=userAgent:quoted");
    let source: &Value = &stored["hits"]["hits"][0]["_source"];
    assert_eq!(source["destNum"], "+447700900456");
    assert_eq!(source["userAgent"], "a \"quoted\" one, with a comma");
    let names = ["country", "destNum", "ipHost", "ipIntruder", "location", "sipRequest", "time", "userAgent"];
    assert!(source.as_object().unwrap().keys().eq(names), "{source}");
    again.term();
}
