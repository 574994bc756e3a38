//! Brokers that require TLS or a password. SASL PLAIN without TLS needs no OpenSSL; the other cases are
//! tested with the feature `kafka-tls`.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use super::{PATIENCE, capture, check_whole, read};
use crate::support::broker::VERSIONS;
use crate::support::process::Process;
use crate::support::{Broker, Workdir, lea};

/// A listener of a secured broker and the options to connect to it.
struct Scene<'a> {
    addr: String,
    options: &'a [&'a str],
    password: Option<&'a str>,
    topic: &'a str,
}

impl Scene<'_> {
    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(lea());
        command.args(args).args(self.options).stdin(Stdio::null());
        if let Some(password) = self.password {
            command.env("KAFKAPASSWORD", password);
        }
        command
    }

    fn replay(&self) -> Output {
        let file = capture("answered-call.pcap");
        let args = ["replay", &file, "--topspeed", "--chunk", "1000", "--connect-timeout", "20000ms"];
        self.command(&[&args[..], &["--kafka", &self.addr, "--topic", self.topic]].concat()).output().unwrap()
    }

    fn consume(&self, output: &Path, args: &[&str]) -> Command {
        let mut command = self.command(&["consume-kafka", "--brokers", &self.addr, "--topic", self.topic]);
        command.arg("--output").arg(output).args(args);
        command
    }

    /// Checks that records sent through the listener arrive through it.
    #[track_caller]
    fn check_works(&self, broker: &Broker) {
        broker.topic(self.topic, 1);
        let sent = self.replay();
        assert!(sent.status.success(), "{}", String::from_utf8_lossy(&sent.stderr));
        let work = Workdir::new();
        let consumed = self.consume(work.path(), &["--exit-at-end"]).output().unwrap();
        let text = String::from_utf8_lossy(&consumed.stderr);
        assert!(consumed.status.success(), "{text}");
        check_whole(work.path(), &[("answered-call.pcap".to_owned(), read("answered-call.pcap"))]);
        assert!(self.password.is_none_or(|password| !text.contains(password)), "the password is in the log");
    }

    /// A consumer keeps trying and logs a hint. A replay ends.
    #[track_caller]
    fn check_refused(&self, hint: &str) {
        let work = Workdir::new();
        let mut consuming = Process::start(&mut self.consume(work.path(), &[]));
        consuming.wait_line(PATIENCE, hint, |line| {
            (line.contains("kafka_error") && line.contains(hint)).then_some(())
        });
        consuming.signal(rustix::process::Signal::TERM);
        consuming.wait_code(PATIENCE, 0);
        let sent = self.replay();
        let text = String::from_utf8_lossy(&sent.stderr);
        assert!(sent.status.code() == Some(1) && text.contains("cannot connect to"), "{text}");
    }
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn a_password_over_plain_text() {
    let broker = Broker::start_secured(VERSIONS[1]);
    let file = broker.file("password");
    let password = std::fs::read_to_string(&file).unwrap();
    let addr = || broker.listener("sasl");
    let by_file = ["--sasl-user", "lea", "--sasl-password-file", path(&file)];
    Scene { addr: addr(), options: &by_file, password: None, topic: "by-file" }.check_works(&broker);
    let by_variable = ["--sasl-mechanism", "PLAIN", "--sasl-user", "lea"];
    let password = password.trim();
    Scene { addr: addr(), options: &by_variable, password: Some(password), topic: "by-variable" }
        .check_works(&broker);
    let as_kcat =
        ["-X", "security.protocol=SASL_PLAINTEXT", "-X", "sasl.mechanisms=PLAIN", "-X", "sasl.username=lea"];
    let secret = format!("sasl.password={}", password);
    let as_kcat = [&as_kcat[..], &["-X", &secret]].concat();
    Scene { addr: addr(), options: &as_kcat, password: None, topic: "as-kcat" }.check_works(&broker);

    let wrong = Scene { addr: addr(), options: &by_variable, password: Some("wrong"), topic: "by-variable" };
    wrong.check_refused("check --sasl-mechanism, --sasl-user and the password");
    let none = Scene { addr: addr(), options: &[], password: None, topic: "by-variable" };
    none.check_refused("whether it needs --tls or --sasl-user");
}

#[track_caller]
fn check_usage(args: &[&str], expected: &str) {
    let work = Workdir::new();
    let output = work.join("out");
    let mut command = Command::new(lea());
    command.args(["consume-kafka", "--brokers", "127.0.0.1:1", "--output"]).arg(&output).args(args);
    let mut ended = Process::start(command.stdin(Stdio::null()).env_remove("KAFKAPASSWORD"));
    ended.wait_code(PATIENCE, 2);
    let text = ended.stderr();
    assert!(text.contains(expected) && !output.exists(), "{text}");
}

#[test]
fn wrong_usage_starts_nothing() {
    check_usage(&["--sasl-user", "lea"], "the environment variable KAFKAPASSWORD");
    check_usage(&["--sasl-user", "lea", "--sasl-password-file", "/nowhere"], "/nowhere: No such file");
    check_usage(&["-X", "no.such=1"], "-X no.such: No such configuration property");
    check_usage(&["-X", "session.timeout.ms=0"], "session.timeout.ms");
    if !cfg!(feature = "kafka-tls") {
        check_usage(&["--tls"], "TLS needs OpenSSL, and this lea was built without it");
        check_usage(&["-X", "security.protocol=ssl"], "--features kafka-tls");
        let scram = ["security.protocol=sasl_plaintext", "sasl.mechanism=SCRAM-SHA-512"];
        let user = ["sasl.username=lea", "sasl.password=a"];
        let args: Vec<&str> = scram.iter().chain(&user).flat_map(|property| ["-X", property]).collect();
        check_usage(&args, "--features kafka-tls");
    }
}

#[test]
#[cfg(feature = "kafka-tls")]
fn tls_and_each_mechanism_over_it() {
    for version in VERSIONS {
        let broker = Broker::start_secured(version);
        let [ca, cert, key, password] =
            ["ca.pem", "client.pem", "client.key", "password"].map(|name| broker.file(name));
        let tls = ["--tls-ca", path(&ca), "--tls-cert", path(&cert), "--tls-key", path(&key)];
        Scene { addr: broker.listener("tls"), options: &tls, password: None, topic: "tls" }
            .check_works(&broker);
        for mechanism in ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] {
            let user = [
                "--sasl-mechanism",
                mechanism,
                "--sasl-user",
                "lea",
                "--sasl-password-file",
                path(&password),
            ];
            let options = [&["--tls-ca", path(&ca)][..], &user].concat();
            let addr = broker.listener("sasl-tls");
            Scene { addr, options: &options, password: None, topic: mechanism }.check_works(&broker);
            if mechanism != "PLAIN" {
                let topic = format!("plain-text-{mechanism}");
                let addr = broker.listener("sasl");
                Scene { addr, options: &user, password: None, topic: &topic }.check_works(&broker);
            }
        }
        // The system's certificate authorities do not include the test's authority.
        let unknown =
            Scene { addr: broker.listener("tls"), options: &["--tls"], password: None, topic: "tls" };
        unknown.check_refused("check --tls-ca, --tls-cert and --tls-key");
        let wrong = ["--tls-ca", path(&ca), "--sasl-mechanism", "SCRAM-SHA-512", "--sasl-user", "lea"];
        let wrong = Scene {
            addr: broker.listener("sasl-tls"),
            options: &wrong,
            password: Some("wrong"),
            topic: "tls",
        };
        wrong.check_refused("check --sasl-mechanism, --sasl-user and the password");
    }
}
