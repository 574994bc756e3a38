//! The examples of the documentation and of `--help`, executed.

use std::process::Command;

use super::console::{Session, Step, steps};
use super::{drift, markdown_files, read};
use crate::support::lea;

/// Examples of `--help` that are not executed, and why.
const SKIPPED: [(&str, &str); 6] = [
    ("lea consume-kafka", "needs a broker; tests/it/consume_kafka.rs has one"),
    ("kcat ", "needs a broker"),
    ("lea serve-events --amqp", "has no listener to wait for; tests/it/billing.rs has a broker"),
    ("lea events tail", "runs until Ctrl-C; tests/it/asking.rs runs it"),
    ("lea man", "is hidden"),
    ("lea tail", "needs Wireshark and a stream that grows; tests/it/tail.rs has both, with tshark"),
];

/// Files that the examples of `--help` name.
const FIXTURE: &str = r#"
cp testdata/pcap/answered-call.pcap call.pcap
cp testdata/kafka/kcat-J.jsonl dump.jsonl
cp testdata/wire/logstash-call-events.jsonl events.jsonl
echo 'Apr 11 14:02:07 honey1 opensips[2101]: 198.51.100.7,203.0.113.9,INVITE,sip:100@198.51.100.7,sip:9011972598294121@198.51.100.7,friendly-scanner,[-46.63,-23.54]' > honeypot.log
echo secret > password
head -c 300 call.pcap > start.pcap
tail -c +301 call.pcap > rest.pcap
cat > ours.jsonl <<'END'
{"call_id":"a","method":"INVITE request","caller_id":"+447700900123","callee_id":"+447700900456","request_time":"2026-11-22T10:00:00Z"}
{"call_id":"a","method":"INVITE reply","caller_id":"+447700900123","callee_id":"+447700900456","reply_time":"2026-11-22T10:00:02Z","reply_code":200}
END
cat > theirs.csv <<'END'
call_id,method,caller_id,callee_id,request_time,reply_time,reply_code
a,INVITE request,+447700900123,+447700900456,2026-11-22T10:00:00Z,,
a,INVITE reply,+447700900123,+447700900456,,2026-11-22T10:00:09Z,200
END
mkdir -p sent etc/lea var/lib .local/share/bash-completion/completions
cp call.pcap sent
cp config/configurationFile.conf etc/lea/lea.conf
lea events load events.jsonl ours.jsonl --store interceptions
for output in interceptions member1 member2; do lea decode dump.jsonl --output $output; done
cp call.pcap interceptions
"#;

#[test]
fn examples_of_the_pages_run() {
    let mut count = 0;
    for file in markdown_files() {
        let steps = steps(&read(&file));
        if steps.is_empty() {
            continue;
        }
        eprintln!("{file}: {} commands", steps.len());
        let mut session = Session::new();
        for step in &steps {
            eprintln!("{file}: $ {}", step.command);
            session.execute(step);
        }
        count += steps.len();
    }
    assert!(count >= 20, "only {count} commands were found in the pages");
}

/// The examples at the end of `lea COMMAND --help`: a text with a colon, then the command, which may be wrapped.
fn examples_of_help(name: &str) -> Vec<String> {
    let help = Command::new(lea()).args(name.split(' ')).arg("--help").output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let (_, examples) =
        help.split_once("Examples:\n").unwrap_or_else(|| panic!("lea {name} --help has no examples"));
    let mut commands: Vec<String> = Vec::new();
    for line in examples.lines() {
        match (line.strip_prefix("      "), commands.last_mut()) {
            (Some(part), Some(command)) => *command = format!("{command} {}", part.trim()).trim().to_owned(),
            _ => commands.push(String::new()),
        }
    }
    commands.retain(|command| !command.is_empty());
    commands
}

/// A step that accepts any output.
fn step(command: &str, output: &str) -> Step {
    Step { command: command.to_owned(), output: vec![output.to_owned()] }
}

#[test]
fn examples_of_help_run() {
    let mut session = Session::new();
    session.execute(&step(FIXTURE, "..."));
    // The receivers of the examples that send or query.
    let receivers = [
        "lea serve-tcp --listen 127.0.0.1:5004 --output received",
        "lea serve-events --http 9200 --output stored",
    ];
    let mut count = 0;
    for example in drift::commands().into_keys().flat_map(|name| examples_of_help(&name)) {
        if SKIPPED.iter().any(|(skipped, _)| example.starts_with(skipped)) {
            continue;
        }
        let command = example.replace("/etc/lea", "etc/lea").replace("/var/lib/lea", "var/lib/lea");
        eprintln!("$ {command}");
        let needs = |port: &str| {
            command.contains(&format!("--tcp {port}")) || command.contains(&format!("--store http://{port}"))
        };
        let receiver =
            ["127.0.0.1:5004", "127.0.0.1:9200"].into_iter().zip(receivers).find(|(port, _)| needs(port));
        if let Some((_, receiver)) = receiver {
            session.execute(&step(receiver, "listening addr=..."));
        }
        if Session::is_server(&command) {
            session.execute(&step(&command, "listening addr=..."));
            session.execute(&Step { command: "^C".to_owned(), output: Vec::new() });
        } else {
            session.execute(&step(&command, "..."));
        }
        if receiver.is_some() {
            session.execute(&Step { command: "^C".to_owned(), output: Vec::new() });
        }
        count += 1;
    }
    assert!(count >= 40, "only {count} examples were found in --help");
}
