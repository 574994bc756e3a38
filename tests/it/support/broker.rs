//! A Kafka broker for one test, started by `scripts/kafka-broker`. Topics are created and deleted through
//! librdkafka, because one of Kafka's Java programs takes over a second to start.

use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::{DEADLINE, Workdir, wait_until};

/// Tested versions: the last of 3.x, and 4.x, which removed old requests.
pub(crate) const VERSIONS: [&str; 2] = ["3.9.2", "4.3.1"];

/// A running broker in its own directory. Dropping it kills this broker only.
pub(crate) struct Broker {
    version: &'static str,
    is_secured: bool,
    port: u16,
    dir: Workdir,
}

impl Broker {
    /// Starts a broker on a free port.
    #[track_caller]
    pub(crate) fn start(version: &'static str) -> Broker {
        Broker::start_as(version, false)
    }

    /// Starts a broker with additional TLS and SASL listeners: [`listener`](Broker::listener).
    #[track_caller]
    pub(crate) fn start_secured(version: &'static str) -> Broker {
        Broker::start_as(version, true)
    }

    #[track_caller]
    fn start_as(version: &'static str, is_secured: bool) -> Broker {
        // Another program may take the port before the broker listens on it.
        for _ in 0..3 {
            let port = free_port();
            let broker = Broker { version, is_secured, port, dir: Workdir::new() };
            let output = broker.start_script();
            if output.status.success() {
                return broker;
            }
            let text = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(text.contains("is taken") || broker.log().contains("BindException"), "{text}");
        }
        panic!("no free port for a broker");
    }

    /// Returns the address in the form that clients take.
    pub(crate) fn addr(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Shuts the broker down cleanly.
    #[track_caller]
    pub(crate) fn stop(&self) {
        succeed(&self.script("stop", &[self.path()]));
    }

    /// Kills the broker with SIGKILL and waits until it is gone.
    pub(crate) fn kill9(&self) {
        let Some(pid) = self.pid() else { return };
        let _ = kill_process(pid, Signal::KILL);
        // A dying process loses its command line before its sockets.
        let listens = || TcpStream::connect(("127.0.0.1", self.port)).is_ok();
        wait_until(DEADLINE, "the end of the broker", || self.pid().is_none() && !listens());
    }

    /// Restarts the broker with the same port and data.
    #[track_caller]
    pub(crate) fn restart(&self) {
        succeed(&self.start_script());
    }

    fn start_script(&self) -> Output {
        let port = self.port.to_string();
        let args = [self.version, &port, self.path(), "secured"];
        self.script("start", &args[..if self.is_secured { 4 } else { 3 }])
    }

    /// Returns the address of a secured broker's listener: `tls`, `sasl`, `sasl-tls`.
    pub(crate) fn listener(&self, name: &str) -> String {
        format!("127.0.0.1:{}", fs::read_to_string(self.file(&format!("port-{name}"))).unwrap().trim())
    }

    /// Returns the path of a file in the broker's directory; see the script for the files.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Creates a topic.
    #[track_caller]
    pub(crate) fn topic(&self, name: &str, partitions: i32) {
        // A broker under load may take longer than one request, and then have the topic nevertheless.
        let mut has_timed_out = false;
        wait_until(DEADLINE, &format!("topic {name} to be made"), || {
            match self.try_topic(name, partitions) {
                Ok(()) => true,
                Err(reason) if reason.contains("TimedOut") => {
                    has_timed_out = true;
                    false
                }
                Err(reason) if has_timed_out && reason.contains("TopicAlreadyExists") => true,
                Err(reason) => panic!("cannot make topic {name}: {reason}"),
            }
        });
    }

    fn try_topic(&self, name: &str, partitions: i32) -> Result<(), String> {
        let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
        let made =
            block_on(self.admin().create_topics([&topic], &options())).map_err(|error| error.to_string())?;
        if !made.iter().all(Result::is_ok) {
            return Err(format!("{made:?}"));
        }
        // A broker under load acknowledges the creation before its metadata has the topic.
        let admin = self.admin();
        wait_until(DEADLINE, &format!("topic {name}"), || {
            let known = admin.inner().fetch_metadata(Some(name), Duration::from_secs(5));
            known.is_ok_and(|known| known.topics().iter().any(|topic| topic.error().is_none()))
        });
        Ok(())
    }

    #[track_caller]
    pub(crate) fn delete_topic(&self, name: &str) {
        let deleted = block_on(self.admin().delete_topics(&[name], &options())).unwrap();
        assert!(deleted.iter().all(Result::is_ok), "cannot delete topic {name}: {deleted:?}");
    }

    /// Adds partitions to a topic, up to a number.
    #[track_caller]
    pub(crate) fn add_partitions(&self, topic: &str, count: usize) {
        let partitions = NewPartitions::new(topic, count);
        let added = block_on(self.admin().create_partitions([&partitions], &options())).unwrap();
        assert!(added.iter().all(Result::is_ok), "{added:?}");
    }

    /// Deletes a topic and creates it again as soon as the broker allows it.
    #[track_caller]
    pub(crate) fn make_topic_again(&self, name: &str, partitions: i32) {
        self.delete_topic(name);
        wait_until(DEADLINE, "the deleted topic to be made again", || {
            self.try_topic(name, partitions).is_ok()
        });
    }

    /// Returns all records of a topic, partition by partition.
    pub(crate) fn records(&self, topic: &str, partitions: i32) -> Vec<Record> {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.addr()).set("group.id", "reader");
        let consumer: BaseConsumer = config.set("enable.auto.commit", "false").create().unwrap();
        let mut records = Vec::new();
        for partition in 0..partitions {
            let mut list = TopicPartitionList::new();
            list.add_partition_offset(topic, partition, Offset::Beginning).unwrap();
            let (_, end) = consumer.fetch_watermarks(topic, partition, DEADLINE).unwrap();
            consumer.assign(&list).unwrap();
            for _ in 0..end {
                let message = consumer.poll(DEADLINE).expect("a record").unwrap();
                let (key, value) = (message.key().map(<[u8]>::to_vec), message.payload().unwrap().to_vec());
                records.push(Record { partition, key, value });
            }
        }
        records
    }

    /// Runs one of Kafka's programs with `--bootstrap-server`. Returns its stdout.
    #[track_caller]
    pub(crate) fn tool(&self, class: &str, args: &[&str]) -> Vec<u8> {
        let addr = self.addr();
        let args = [&["tool", self.path(), class, "--bootstrap-server", &addr], args].concat();
        let output = self.script(args[0], &args[1..]);
        succeed(&output);
        output.stdout
    }

    /// Returns the values of a topic's first `count` records, one per line, as Kafka's console consumer
    /// prints them.
    #[track_caller]
    pub(crate) fn console_values(&self, topic: &str, count: usize) -> Vec<u8> {
        self.console_consumer(topic, count, &[])
    }

    /// Returns a topic's first `count` records as Kafka's console consumer prints them with these properties.
    #[track_caller]
    pub(crate) fn console_consumer(&self, topic: &str, count: usize, properties: &[&str]) -> Vec<u8> {
        let count = count.to_string();
        // At its timeout the program ends with 0, whatever is missing, so a busy machine gets minutes.
        let args = ["--topic", topic, "--from-beginning", "--max-messages", &count, "--timeout-ms", "300000"];
        let properties = properties.iter().flat_map(|property| ["--property", property]);
        let args: Vec<&str> = args.into_iter().chain(properties).collect();
        self.tool("org.apache.kafka.tools.consumer.ConsoleConsumer", &args)
    }

    /// Runs Kafka's console producer, with these lines as its records.
    pub(crate) fn console_producer(&self, args: &[&str], lines: &[u8]) -> Output {
        let class = match self.version.starts_with('3') {
            true => "kafka.tools.ConsoleProducer",
            false => "org.apache.kafka.tools.ConsoleProducer",
        };
        let addr = self.addr();
        let args = [&["tool", self.path(), class, "--bootstrap-server", &addr], args].concat();
        let mut command = script();
        command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // Its first lines fit into the pipe, and it prints little before it has read all.
        child.stdin.take().unwrap().write_all(lines).unwrap();
        child.wait_with_output().unwrap()
    }

    /// Returns a partition's first segment as DumpLogSegments prints it.
    #[track_caller]
    pub(crate) fn dump_log(&self, topic: &str, partition: i32) -> String {
        let segment = self.segment(topic, partition);
        let args = ["--print-data-log", "--files", segment.to_str().unwrap()];
        let class = match self.version.starts_with('3') {
            true => "kafka.tools.DumpLogSegments",
            false => "org.apache.kafka.tools.DumpLogSegments",
        };
        let output = self.script("tool", &[&[self.path(), class][..], &args].concat());
        succeed(&output);
        String::from_utf8(output.stdout).unwrap()
    }

    /// Returns the file of a partition's first segment.
    pub(crate) fn segment(&self, topic: &str, partition: i32) -> PathBuf {
        self.dir.join(format!("data/{topic}-{partition}/00000000000000000000.log"))
    }

    /// Returns the broker's log.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    fn path(&self) -> &str {
        self.dir.path().to_str().unwrap()
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        ClientConfig::new().set("bootstrap.servers", self.addr()).create().unwrap()
    }

    /// Returns the process id if the process runs. The command line is checked because the kernel may have
    /// reused the id.
    fn pid(&self) -> Option<Pid> {
        let text = fs::read_to_string(self.dir.join("pid")).ok()?;
        let pid = Pid::from_raw(text.trim().parse().ok()?)?;
        let command = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let own = fs::canonicalize(self.dir.path()).ok()?.join("properties");
        let own = own.to_str()?.as_bytes();
        command.split(|byte| *byte == 0).any(|word| word == own).then_some(pid)
    }

    fn script(&self, command: &str, args: &[&str]) -> Output {
        script().arg(command).args(args).stdin(Stdio::null()).output().unwrap()
    }
}

/// The script that starts brokers and runs Kafka's programs.
fn script() -> Command {
    let mut script = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/kafka-broker"));
    // The broker ends when the test process ends.
    script.env("KAFKA_BROKER_OWNER", std::process::id().to_string());
    // Tests start many brokers for a short time. Without its second compiler a JVM takes half the CPU time for that.
    script.env("KAFKA_BROKER_JAVA_OPTIONS", "-XX:TieredStopAtLevel=1");
    script
}

impl Drop for Broker {
    fn drop(&mut self) {
        if thread::panicking() {
            let log = self.log();
            let last: Vec<&str> = log.lines().rev().take(30).collect();
            eprintln!("the broker's last lines, the latest first:\n{}", last.join("\n"));
        }
        self.kill9();
    }
}

/// A record of a topic.
pub(crate) struct Record {
    pub partition: i32,
    pub key: Option<Vec<u8>>,
    pub value: Vec<u8>,
}

impl Record {
    /// Parses the value as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.value).unwrap()
    }

    /// Returns the decoded `data` field, or `None` if it is not base64.
    pub(crate) fn data(&self) -> Option<Vec<u8>> {
        STANDARD.decode(self.json()["data"].as_str()?).ok()
    }

    /// Returns the stream name.
    pub(crate) fn stream(&self) -> String {
        self.json()["interceptionfilename"].as_str().unwrap_or_default().to_owned()
    }
}

/// Returns a free port below the ephemeral range. From that range the kernel could assign this very port to a
/// client that connects to a stopped broker, and the client would connect to itself.
pub(crate) fn free_port() -> u16 {
    loop {
        let chance = RandomState::new().hash_one(0);
        let port = 10_000 + (chance % 20_000) as u16;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

#[track_caller]
fn succeed(output: &Output) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "kafka-broker ended with {}: {text}", output.status);
}

fn options() -> AdminOptions {
    AdminOptions::new()
        .operation_timeout(Some(Duration::from_secs(20)))
        .request_timeout(Some(Duration::from_secs(20)))
}

/// Waits for a future that librdkafka's threads complete.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(value) => return value,
            Poll::Pending => thread::park(),
        }
    }
}
