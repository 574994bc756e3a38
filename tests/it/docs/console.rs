//! Executes examples: `$ command` lines, each followed by the output that is expected of it.
//!
//! In expected output, `...` stands for any text in a line, and a line `...` for any number of lines. A line `^C` sends
//! SIGINT to the server that was started last. Commands run in a directory of their own, in which `testdata` and `config`
//! are those of the repository. Ports of examples are replaced with free ones.

use std::collections::BTreeMap;
use std::net::{TcpListener, UdpSocket};
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::Signal;

use super::root;
use crate::support::process::Process;
use crate::support::{DEADLINE, Workdir, wait_for};

const LEA: &str = env!("CARGO_BIN_EXE_lea");

/// Ports that examples use.
const PORTS: [u16; 9] = [5004, 5514, 5959, 5960, 9100, 9200, 9201, 25004, 25104];

/// Commands that run until a signal.
const SERVERS: [&str; 4] = ["lea run", "lea serve-tcp", "lea serve-events", "scripts/run.sh"];

/// Commands that only read: they are repeated until the output is the expected one, because what they show arrives
/// a moment after the command that sent it.
const QUERIES: [&str; 8] =
    ["lea ls", "lea verify", "lea search", "lea count", "lea top", "lea calls", "curl -s '", "curl -s 127"];

/// A command, and the lines that are expected after it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) command: String,
    pub(super) output: Vec<String>,
}

/// The steps in all `console` blocks of a Markdown text.
pub(super) fn steps(markdown: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut is_console = false;
    for line in markdown.lines() {
        match line.strip_prefix("$ ") {
            _ if line.starts_with("```") => is_console = line == "```console",
            _ if !is_console => {}
            Some(command) => steps.push(Step { command: command.to_owned(), output: Vec::new() }),
            None if line == "^C" => steps.push(Step { command: "^C".to_owned(), output: Vec::new() }),
            None => match steps.last_mut() {
                Some(Step { command, output }) if output.is_empty() && command.ends_with('\\') => {
                    command.pop();
                    command.push_str(line.trim_start());
                }
                Some(Step { output, .. }) => output.push(line.to_owned()),
                None => panic!("a console block starts with output: {line}"),
            },
        }
    }
    steps
}

/// A directory in which the steps of one page are executed, with the servers that they start.
pub(super) struct Session {
    work: Workdir,
    ports: BTreeMap<u16, u16>,
    servers: Vec<Process>,
}

impl Session {
    /// An empty directory with `testdata` and `config`.
    pub(super) fn new() -> Session {
        let work = Workdir::new();
        let ports = PORTS.iter().map(|port| (*port, free_port())).collect();
        let session = Session { work, ports, servers: Vec::new() };
        std::os::unix::fs::symlink(root().join("testdata"), session.work.join("testdata")).unwrap();
        std::fs::create_dir(session.work.join("config")).unwrap();
        for file in ["base.conf", "configurationFile.conf", "events.conf"] {
            let text = std::fs::read_to_string(root().join("config").join(file)).unwrap();
            session.work.write(Path::new("config").join(file), session.with_free_ports(&text));
        }
        session
    }

    /// The directory.
    pub(super) fn dir(&self) -> &Path {
        self.work.path()
    }

    /// Executes a step and fails unless its output is the expected one.
    #[track_caller]
    pub(super) fn execute(&mut self, step: &Step) {
        let command = self.with_free_ports(&step.command);
        if step.command == "^C" {
            let mut server = self.servers.pop().expect("a server that runs");
            server.signal(Signal::INT);
            server.wait_code(DEADLINE, 0);
            self.assert_output(step, &server.stderr(), true);
        } else if Session::is_server(&step.command) {
            self.start_server(step, &command);
        } else {
            self.run(step, &command);
        }
    }

    /// Returns whether a command runs until a signal.
    pub(super) fn is_server(command: &str) -> bool {
        SERVERS.iter().any(|server| command.starts_with(server))
    }

    #[track_caller]
    fn start_server(&mut self, step: &Step, command: &str) {
        let command = command.replace("scripts/run.sh", "lea run");
        let mut server =
            Process::start(self.bash(&format!("exec {command}")).stdin(Stdio::null()).stdout(Stdio::null()));
        for expected in &step.output {
            let expected = self.with_free_ports(expected);
            server.wait_line(DEADLINE, &expected, |line| line_matches(&expected, line).then_some(()));
        }
        self.servers.push(server);
    }

    #[track_caller]
    fn run(&self, step: &Step, command: &str) {
        let is_query = QUERIES.iter().any(|query| step.command.starts_with(query));
        let run = || {
            let script = format!("exec 2>&1 < <(echo secret)\n{command}");
            let done = self.bash(&script).output().unwrap();
            let text = String::from_utf8_lossy(&done.stdout).into_owned();
            let is_done = matches!(done.status.code(), Some(0 | 3));
            (is_done && self.is_expected(step, &text), done.status, text)
        };
        let (is_expected, mut status, mut text) = run();
        if !is_expected && is_query {
            let start = std::time::Instant::now();
            wait_for(DEADLINE, "the end of the attempts", || {
                let is_expected;
                (is_expected, status, text) = run();
                (is_expected || start.elapsed() > DEADLINE / 4).then_some(())
            });
        }
        assert!(matches!(status.code(), Some(0 | 3)), "$ {command}\nended with {status}:\n{text}");
        self.assert_output(step, &text, false);
    }

    fn bash(&self, script: &str) -> Command {
        let mut command = Command::new("bash");
        let bin = Path::new(LEA).parent().unwrap().display().to_string();
        let path = std::env::var("PATH").unwrap_or_default();
        command.arg("-c").arg(script).current_dir(self.dir());
        command
            .env("PATH", format!("{bin}:{path}"))
            .env("TZ", "UTC")
            .env("HOME", self.dir())
            .env_remove("LEA_STORE")
            .env_remove("LEA_CLUSTER");
        command
    }

    fn with_free_ports(&self, text: &str) -> String {
        self.ports.iter().fold(text.to_owned(), |text, (port, free)| replace_number(&text, *port, *free))
    }

    fn with_example_ports(&self, text: &str) -> String {
        self.ports.iter().fold(text.to_owned(), |text, (port, free)| replace_number(&text, *free, *port))
    }

    fn is_expected(&self, step: &Step, output: &str) -> bool {
        let output = self.with_example_ports(output);
        lines_match(&step.output, &output.lines().collect::<Vec<_>>())
    }

    /// `is_end`: only the last lines have to be the expected ones.
    #[track_caller]
    fn assert_output(&self, step: &Step, output: &str, is_end: bool) {
        let output = self.with_example_ports(output);
        let lines: Vec<&str> = output.lines().collect();
        let lines = if is_end { &lines[lines.len().saturating_sub(step.output.len())..] } else { &lines[..] };
        assert!(
            lines_match(&step.output, lines),
            "$ {}\nexpected:\n{}\nprinted:\n{}",
            step.command,
            step.output.join("\n"),
            lines.join("\n")
        );
    }
}

/// A port that is free for TCP and UDP.
fn free_port() -> u16 {
    loop {
        let tcp = TcpListener::bind("0.0.0.0:0").unwrap();
        let port = tcp.local_addr().unwrap().port();
        if UdpSocket::bind(("0.0.0.0", port)).is_ok() {
            return port;
        }
    }
}

/// Replaces a number where no digit is next to it.
fn replace_number(text: &str, from: u16, to: u16) -> String {
    let from = from.to_string();
    let mut replaced = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(&from) {
        let (before, after) = (&rest[..at], &rest[at + from.len()..]);
        let is_digit = |c: char| c.is_ascii_digit();
        let is_whole = !before.ends_with(is_digit) && !after.starts_with(is_digit);
        replaced.push_str(before);
        replaced.push_str(if is_whole { "" } else { &from });
        if is_whole {
            replaced.push_str(&to.to_string());
        }
        rest = after;
    }
    replaced + rest
}

/// True if the lines are the expected ones; an expected line `...` stands for any number of lines.
pub(super) fn lines_match(expected: &[String], lines: &[&str]) -> bool {
    match (expected.split_first(), lines.split_first()) {
        (None, None) => true,
        (None, Some(_)) => false,
        (Some((first, rest)), _) if first == "..." => {
            (0..=lines.len()).any(|skipped| lines_match(rest, &lines[skipped..]))
        }
        (Some(_), None) => false,
        (Some((first, rest)), Some((line, lines))) => line_matches(first, line) && lines_match(rest, lines),
    }
}

/// True if a line is the expected one, in which `...` stands for any text. Blanks at the end do not count.
pub(super) fn line_matches(expected: &str, line: &str) -> bool {
    let parts: Vec<&str> = expected.trim_end().split("...").collect();
    let [first, middle @ .., last] = &parts[..] else { return expected.trim_end() == line.trim_end() };
    let Some(mut rest) = line.trim_end().strip_prefix(first) else { return false };
    for part in middle {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[test]
fn wildcards_match() {
    assert!(line_matches("a ... c", "a b c") && line_matches("...", "") && line_matches("a", "a  "));
    assert!(!line_matches("a ... c", "a b d") && !line_matches("a", "b") && !line_matches("a...", "ba"));
    let expected = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>();
    assert!(lines_match(&expected(&["a", "...", "c"]), &["a", "b", "b", "c"]));
    assert!(lines_match(&expected(&["..."]), &[]) && lines_match(&[], &[]));
    assert!(
        !lines_match(&expected(&["a"]), &["a", "b"]) && !lines_match(&expected(&["a", "c"]), &["a", "b"])
    );
}

#[test]
fn steps_are_found_in_markdown() {
    let text = "text\n```console\n$ a \\\n  b\nout\n$ c\n^C\nend\n```\n```sh\n$ d\n```\n";
    let step = |command: &str, output: &[&str]| Step {
        command: command.to_owned(),
        output: output.iter().map(|line| (*line).to_owned()).collect(),
    };
    assert_eq!(steps(text), [step("a b", &["out"]), step("c", &[]), step("^C", &["end"])]);
    assert_eq!(replace_number("5004 15004 x5004:5004", 5004, 7), "7 15004 x7:7");
}
