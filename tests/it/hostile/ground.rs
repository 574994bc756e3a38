//! Environment of a scenario: a server in a directory that is surrounded by files it must not touch.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lea::capture::formats::CaptureFormat;
use lea::cc::vault::manifest::{Manifest, ManifestState, SUFFIX};
use lea::cc::wire::name::parse_part_file_name;
use sha2::{Digest, Sha256};

use crate::support::{DEADLINE, Server, Workdir, manifest, wait_for, wait_until};

/// Counters that do not indicate a rejection or a fault.
const USUAL: [&str; 15] = [
    "streams_open",
    "connections_open",
    "connections_total",
    "streams_ended_total{reason=\"eof\"}",
    "streams_ended_total{reason=\"shutdown\"}",
    "streams_ended_total{reason=\"io_error\"}",
    "received_bytes_total",
    "written_bytes_total",
    "writes_total",
    "packets_total",
    "partial_packet_bytes",
    "sync_rounds_total",
    "http_requests_total",
    "http_requests_rejected_total{reason=\"bad_request\"}",
    "compared_bytes_total",
];

pub(super) type Counters = BTreeMap<String, u64>;

/// Returns a counter, summed over its labels.
#[track_caller]
fn total(counters: &Counters, name: &str) -> u64 {
    let is_series =
        |found: &str| found.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('{'));
    let series: Vec<u64> =
        counters.iter().filter(|(found, _)| is_series(found)).map(|(_, value)| *value).collect();
    assert!(!series.is_empty(), "no counter {name}");
    series.iter().sum()
}

/// A server, its directory, and the files around it.
pub(super) struct Ground {
    pub server: Server,
    pub status: SocketAddr,
    work: Workdir,
    around: BTreeMap<PathBuf, Thing>,
    descriptors: usize,
    threads: usize,
}

/// Kind and content of a path.
#[derive(Debug, PartialEq, Eq)]
enum Thing {
    Dir,
    File { bytes: Vec<u8>, modified_ns: (i64, i64) },
    Link(PathBuf),
}

/// A point in time from which counters are compared.
pub(super) struct Mark {
    counters: Counters,
    files: BTreeSet<String>,
}

/// The result of a scenario.
pub(super) struct Since {
    pub counters: Counters,
    /// Stream files that were created, with their manifests.
    pub files: Vec<(String, Manifest)>,
}

impl Ground {
    /// Creates the files and starts the server.
    #[track_caller]
    pub(super) fn new(flags: &[&str]) -> Ground {
        Ground::with(flags, |_| {})
    }

    /// Like `new`, but `plant` puts something into the output directory before the start.
    #[track_caller]
    pub(super) fn with(flags: &[&str], plant: impl FnOnce(&Path)) -> Ground {
        let work = Workdir::new();
        // The directory is so deep that `../../etc/passwd` is still within the test's directory.
        let output = work.join("a/b/out");
        fs::create_dir_all(&output).unwrap();
        fs::create_dir(work.join("a/etc")).unwrap();
        for canary in ["a/etc/passwd", "a/b/canary", "canary"] {
            work.write(canary, canary);
        }
        plant(&output);
        let around = tree(work.path(), &output);
        let mut server = Server::start(&output, &[&["--admin-listen", "127.0.0.1:0"], flags].concat());
        let status = server.status_addr();
        let mut ground = Ground { server, status, work, around, descriptors: 0, threads: 0 };
        (ground.descriptors, ground.threads) = (ground.count("fd"), ground.count("task"));
        ground
    }

    pub(super) fn addr(&self) -> SocketAddr {
        self.server.addr()
    }

    pub(super) fn output(&self) -> PathBuf {
        self.server.output().to_owned()
    }

    /// Returns a path outside the output directory.
    pub(super) fn outside(&self, name: &str) -> PathBuf {
        self.work.join(name)
    }

    /// Returns the counters of /metrics. The label of the TCP listener is omitted; those of the admin listener are
    /// skipped, because each look at /metrics is a connection to it.
    #[track_caller]
    pub(super) fn counters(&self) -> Counters {
        let text = get(self.status, "/metrics");
        let lines = text.lines().filter_map(|line| line.strip_prefix("lea_")?.split_once(' '));
        lines
            .filter(|(name, _)| !name.contains("listener=\"admin\""))
            .filter_map(|(name, value)| {
                let name = name.replace("{listener=\"tcp\"}", "").replace("listener=\"tcp\",", "");
                Some((name, value.parse().ok()?))
            })
            .collect()
    }

    /// Returns one counter of /metrics, summed over its labels.
    #[track_caller]
    pub(super) fn counter(&self, name: &str) -> u64 {
        total(&self.counters(), name)
    }

    /// Returns kilobytes of memory: `VmHWM` is the peak, `VmRSS` the current value.
    pub(super) fn memory_kb(&mut self, what: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.server.process().id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(what)?.strip_prefix(':')).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    }

    /// Returns the processor time used.
    pub(super) fn processor_time(&mut self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.server.process().id())).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
        let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
        // A clock tick is 10 ms on every Linux that runs these tests (USER_HZ).
        Duration::from_millis(10 * ticks)
    }

    /// Returns the number of memory maps.
    pub(super) fn maps(&mut self) -> usize {
        let maps = fs::read_to_string(format!("/proc/{}/maps", self.server.process().id())).unwrap();
        maps.lines().count()
    }

    /// Returns the number of entries in a directory of /proc/PID.
    fn count(&mut self, what: &str) -> usize {
        let path = format!("/proc/{}/{what}", self.server.process().id());
        fs::read_dir(&path).unwrap_or_else(|error| panic!("{path}: {error}")).count()
    }

    /// Takes a mark, from which counters are compared.
    #[track_caller]
    pub(super) fn mark(&self) -> Mark {
        Mark { counters: self.counters(), files: self.files() }
    }

    /// Returns the increase of a counter since the mark.
    #[track_caller]
    pub(super) fn grown(&self, mark: &Mark, name: &str) -> u64 {
        self.counter(name) - total(&mark.counters, name)
    }

    /// Waits until at least `connections` connections have arrived since the mark and all have ended. Returns
    /// what they left.
    #[track_caller]
    pub(super) fn since(&self, mark: &Mark, connections: usize) -> Since {
        wait_until(4 * DEADLINE, "the end of the connections", || {
            let now = self.counters();
            let grown = |name: &str| total(&now, name) - total(&mark.counters, name);
            let ended = grown("streams_ended_total") + grown("connections_rejected_total");
            grown("connections_total") >= connections as u64 && ended == grown("connections_total")
        });
        let now = self.counters();
        let counters =
            now.into_iter().map(|(name, value)| (name.clone(), value.saturating_sub(mark.counters[&name])));
        Since { counters: counters.collect(), files: self.closed(&self.files() - &mark.files) }
    }

    #[track_caller]
    fn closed(&self, files: BTreeSet<String>) -> Vec<(String, Manifest)> {
        let read = |file: String| {
            let what = format!("the end of {file}");
            let manifest = wait_for(DEADLINE, &what, || {
                manifest(self.server.output(), &file)
                    .filter(|manifest| manifest.state == ManifestState::Closed)
            });
            (file, manifest)
        };
        files.into_iter().map(read).collect()
    }

    /// Returns the stream files in the directory. Panics if an entry is neither a stream file nor a manifest.
    #[track_caller]
    pub(super) fn files(&self) -> BTreeSet<String> {
        let mut files = BTreeSet::new();
        for entry in fs::read_dir(self.server.output()).unwrap() {
            let name = entry.unwrap().file_name().into_vec();
            let name = String::from_utf8(name).expect("names in the folder are plain");
            if name == ".lea" || parse_part_file_name(name.strip_suffix(SUFFIX).unwrap_or("")).is_some() {
                continue;
            }
            assert!(parse_part_file_name(&name).is_some(), "{name:?} is no name of ours");
            files.insert(name);
        }
        files
    }

    /// Checks that nothing outside has changed and nothing is left open, and that the server shuts down
    /// cleanly. Returns its stderr.
    #[track_caller]
    pub(super) fn end(mut self) -> String {
        assert!(self.server.process().is_running(), "the server has ended");
        wait_until(DEADLINE, "the end of all streams", || self.counter("streams_open") == 0);
        let (descriptors, threads) = (self.descriptors, self.threads);
        // Requests to /metrics are connections too, and end a moment later.
        wait_until(DEADLINE, "no descriptor left over", || self.count("fd") <= descriptors);
        wait_until(DEADLINE, "no thread left over", || self.count("task") <= threads);
        let counters = self.counters();
        let ended = total(&counters, "streams_ended_total") + total(&counters, "connections_rejected_total");
        assert_eq!(total(&counters, "connections_total"), ended);
        assert_eq!((counters["partial_packet_bytes"], counters["lost_bytes_total"]), (0, 0));
        self.files();
        let Ground { server, work, around, .. } = self;
        let output = server.output().to_owned();
        let stderr = server.term();
        assert!(!stderr.contains("panicked"), "{stderr}");
        for entry in fs::read_dir(output.join(".lea")).unwrap() {
            let name = entry.unwrap().file_name();
            assert!(["lock", "open.jsonl", "tmp"].iter().any(|ours| name == *ours), "{name:?} in .lea");
        }
        assert_eq!(fs::read_dir(output.join(".lea/tmp")).unwrap().count(), 0);
        assert_eq!(tree(work.path(), &output), around, "something outside the folder has changed");
        stderr
    }
}

impl Since {
    /// Returns the counters that grew, with `+1 each` if a counter grew once per connection.
    pub(super) fn counted(&self, connections: usize) -> String {
        let grown =
            self.counters.iter().filter(|(name, value)| **value > 0 && !USUAL.contains(&name.as_str()));
        let told: Vec<String> = grown
            .filter(|(name, _)| !name.starts_with("process_"))
            .map(|(name, value)| match *value {
                value if connections > 1 && value == connections as u64 => format!("`{name}` +1 each"),
                value => format!("`{name}` +{value}"),
            })
            .collect();
        if told.is_empty() { "-".to_owned() } else { told.join(", ") }
    }

    /// Describes what became of one connection that sent `content` after its name.
    pub(super) fn told(&self, output: &Path, content: &[u8]) -> String {
        let files: Vec<String> =
            self.files.iter().map(|(file, manifest)| told_file(output, file, manifest, content)).collect();
        let is_refused = || {
            self.counters
                .iter()
                .any(|(name, value)| name.starts_with("connections_rejected_total") && *value > 0)
        };
        match files.is_empty() {
            true if is_refused() => "rejected, no file".to_owned(),
            true => "no new file; appended to the stored one".to_owned(),
            false => files.join("; "),
        }
    }
}

fn told_file(output: &Path, file: &str, manifest: &Manifest, content: &[u8]) -> String {
    let stored = fs::read(output.join(file)).unwrap();
    assert_eq!(manifest.bytes, stored.len() as u64, "{file}");
    assert_eq!(
        manifest.sha256.as_deref(),
        Some(&*lea::runtime::hex::encode(&Sha256::digest(&stored))),
        "{file}"
    );
    let reason = manifest.end_reason.unwrap().as_str();
    let what = match &stored[..] {
        [] => "empty".to_owned(),
        stored if stored == content => format!("complete, {}", told_content(manifest)),
        stored => format!("{} of {} bytes sent, {}", stored.len(), content.len(), told_content(manifest)),
    };
    format!("file {}, {what}, end `{reason}`", shown(file))
}

fn told_content(manifest: &Manifest) -> String {
    let capture = &manifest.capture;
    match (capture.format, capture.malformed_at) {
        (CaptureFormat::Other | CaptureFormat::Unknown, _) => "not a capture".to_owned(),
        (_, Some(from)) => {
            format!("{} packets, malformed from byte {from} on", capture.packets)
        }
        (_, None) if capture.truncated_bytes > 0 => {
            format!("{} packets and {} bytes of a truncated one", capture.packets, capture.truncated_bytes)
        }
        (_, None) => format!("{} packets", capture.packets),
    }
}

/// Returns a file name, without the middle of a long one.
pub(super) fn shown(file: &str) -> String {
    if file.len() <= 60 {
        return format!("`{file}`");
    }
    format!("`{}` ... `{}` ({} bytes)", &file[..20], &file[file.len() - 20..], file.len())
}

/// Returns the body of a GET.
#[track_caller]
pub(super) fn get(addr: SocketAddr, path: &str) -> String {
    // While other connections use all slots, the answer is 503, which does not matter here.
    wait_for(DEADLINE, "an answer on --admin-listen", || {
        let mut stream = TcpStream::connect(addr).ok()?;
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: lea\r\nConnection: close\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        head.starts_with("HTTP/1.1 200 ").then(|| body.to_owned())
    })
}

/// Returns all files in a directory, except those in `except`.
fn tree(folder: &Path, except: &Path) -> BTreeMap<PathBuf, Thing> {
    let mut things = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let metadata = fs::symlink_metadata(&path).unwrap();
        let thing = if metadata.is_symlink() {
            Thing::Link(fs::read_link(&path).unwrap())
        } else if metadata.is_dir() {
            if path != except {
                things.extend(tree(&path, except));
            }
            Thing::Dir
        } else {
            let modified_ns = (metadata.mtime(), metadata.mtime_nsec());
            Thing::File { bytes: fs::read(&path).unwrap(), modified_ns }
        };
        things.insert(path, thing);
    }
    things
}
