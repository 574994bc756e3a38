//! Fixed limits with their reasons, and the limits of the machine.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Maximum size of a stream name. Senders use 40 bytes (docs/protocol.md).
pub const NAME_BYTES_MAX: usize = 4096;

/// Maximum size of an escaped file name without the part number and the manifest's suffix. File systems allow 255.
pub const FILE_NAME_BYTES_MAX: usize = 200;

/// Maximum size of a packet of most link types: the largest snaplen of tcpdump and Wireshark. A larger length is malformed.
pub const PACKET_BYTES_MAX: u32 = 262_144;

/// Maximum size of a pcapng block, as in Wireshark: the largest packet of any link type, and 128 KiB of options.
pub const BLOCK_BYTES_MAX: u32 = (128 << 20) + (128 << 10) + 32;

/// Maximum size of a Kafka record or of a line in a dump. Brokers accept 1 MiB by default, and a chunk has a few kB.
pub const RECORD_BYTES_MAX: usize = 16 << 20;

/// Maximum size of a decompressed record batch. A batch of 1 MiB can claim a thousand times its size.
pub const BATCH_BYTES_MAX: usize = 64 << 20;

/// Descriptors reserved for everything except streams and stream files: the directory, the journal, listeners, HTTP
/// connections, and files that are briefly open while they are read, synced or created.
const DESCRIPTORS_RESERVED: u64 = 128;

/// Minimum of stream files that may be open at the same time. With fewer, each write would open its file.
const FILES_MIN: u64 = 32;

/// Stream files that get descriptors before streams do, if there are enough.
const FILES_WANTED: u64 = 1024;

/// Memory maps per thread: its stack and its signal stack, each with a guard page. The standard library aborts the process
/// when the limit is reached, so the limit must never be reached.
const MAPS_PER_THREAD: u64 = 4;

/// Memory maps and threads reserved for everything except streams.
const MAPS_RESERVED: u64 = 2048;
const THREADS_RESERVED: u64 = 64;

/// Memory that a process may use for what peers send and ask, in bytes. On a machine with enough memory these are constants;
/// in a small control group they are shares of its limit, so that queries do not end the process that receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryLimits {
    /// Work of all HTTP requests together.
    pub requests: usize,
    /// Work of one HTTP request.
    pub request: usize,
    /// Bodies of all HTTP requests and responses.
    pub bodies: usize,
    /// Documents that are indexed at the same time.
    pub indexing: usize,
    /// Documents that wait for the writer of the embedded store.
    pub store_queue: usize,
    /// Incomplete messages of all connections.
    pub held_messages: usize,
}

impl MemoryLimits {
    /// Reads the memory of the machine and the limits of the control groups of this process.
    pub fn detect() -> MemoryLimits {
        static DETECTED: OnceLock<MemoryLimits> = OnceLock::new();
        *DETECTED.get_or_init(|| MemoryLimits::of(memory_bytes().unwrap_or(u64::MAX)))
    }

    fn of(memory: u64) -> MemoryLimits {
        let memory = usize::try_from(memory).unwrap_or(usize::MAX);
        let share = |divisor: usize, least: usize, most: usize| (memory / divisor).clamp(least, most);
        // A single body of the largest size has to fit.
        let requests = share(4, 48 << 20, 256 << 20);
        MemoryLimits {
            requests,
            request: requests / 4 * 3,
            bodies: share(6, 34 << 20, 64 << 20),
            indexing: share(8, 32 << 20, 128 << 20),
            store_queue: share(16, 16 << 20, 32 << 20),
            held_messages: share(16, 16 << 20, 64 << 20),
        }
    }
}

/// Returns the memory of the machine, or the smallest limit of this process's control group and its ancestors.
fn memory_bytes() -> Option<u64> {
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let machine = total.and_then(|rest| rest.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
    let limits = |group: (PathBuf, &'static str)| {
        let (dir, root) = group;
        let file = if root == "/sys/fs/cgroup" { "memory.max" } else { "memory.limit_in_bytes" };
        dir.ancestors()
            .take_while(|dir| dir.starts_with(root))
            .filter_map(|dir| read_number(dir.join(file)))
            .min()
    };
    let group = cgroup_dir("memory").and_then(limits);
    let own = rustix::process::getrlimit(rustix::process::Resource::As).current;
    [machine.map(|kb| kb << 10), group, own].into_iter().flatten().min()
}

/// The limits of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MachineLimits {
    /// Descriptors that this process may open.
    pub descriptors: u64,
    /// Memory maps that this process may have.
    pub maps: u64,
    /// Threads that can still be started.
    pub threads: u64,
}

impl MachineLimits {
    /// Raises the soft limit of descriptors to the hard limit and reads all limits.
    pub fn detect() -> MachineLimits {
        MachineLimits {
            descriptors: raise_descriptor_limit(),
            maps: read_number("/proc/sys/vm/max_map_count").unwrap_or(65_530),
            threads: threads_allowed(),
        }
    }

    /// Maximum of open streams: the smallest limit of descriptors, memory maps and threads.
    pub fn streams_max(&self) -> usize {
        let files = (self.descriptors / 8).clamp(FILES_MIN, FILES_WANTED);
        let by_descriptors = self.descriptors.saturating_sub(DESCRIPTORS_RESERVED + files);
        let by_maps = self.maps.saturating_sub(MAPS_RESERVED) / MAPS_PER_THREAD;
        let by_threads = self.threads.saturating_sub(THREADS_RESERVED);
        usize::try_from(by_descriptors.min(by_maps).min(by_threads).max(1)).unwrap_or(usize::MAX)
    }

    /// Descriptors that streams and stream files share.
    pub fn descriptors_shared(&self) -> usize {
        let shared = self.descriptors.saturating_sub(DESCRIPTORS_RESERVED).max(2 * FILES_MIN);
        usize::try_from(shared).unwrap_or(usize::MAX)
    }
}

/// Raises the soft limit of descriptors to the hard limit. Returns the limit.
pub fn raise_descriptor_limit() -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    // Some systems reject "unlimited" here; then the soft limit stays.
    let current = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    };
    current.unwrap_or(1 << 20)
}

/// Returns the number of threads that the system, the user and the control group still allow.
fn threads_allowed() -> u64 {
    use rustix::process::{Resource, getrlimit};
    let limits = [
        read_number("/proc/sys/kernel/threads-max"),
        read_number("/proc/sys/kernel/pid_max"),
        getrlimit(Resource::Nproc).current,
        cgroup_pids(),
    ];
    limits.into_iter().flatten().min().unwrap_or(4096)
}

/// Returns the smallest `pids.max` of this process's control group and its ancestors, minus the processes in it.
fn cgroup_pids() -> Option<u64> {
    let (group, root) = cgroup_dir("pids")?;
    let left = |dir: &Path| {
        let max = read_number(dir.join("pids.max"))?;
        Some(max.saturating_sub(read_number(dir.join("pids.current")).unwrap_or(0)))
    };
    group.ancestors().take_while(|dir| dir.starts_with(root)).filter_map(left).min()
}

/// Returns the directory of this process's control group with a controller, and the root of that hierarchy.
fn cgroup_dir(controller: &str) -> Option<(PathBuf, &'static str)> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let entry = |line: &str| {
        let mut fields = line.splitn(3, ':');
        let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        Some((controllers.to_owned(), path.trim_start_matches('/').to_owned()))
    };
    let groups: Vec<(String, String)> = groups.lines().filter_map(entry).collect();
    let has = |(controllers, _): &&(String, String)| controllers.split(',').any(|name| name == controller);
    let (root, path) = match (groups.iter().find(has), controller) {
        (Some((_, path)), "memory") => ("/sys/fs/cgroup/memory", path),
        (Some((_, path)), _) => ("/sys/fs/cgroup/pids", path),
        // The unified hierarchy has no names of controllers.
        (None, _) => ("/sys/fs/cgroup", &groups.iter().find(|(controllers, _)| controllers.is_empty())?.1),
    };
    Some((Path::new(root).join(path), root))
}

fn read_number(path: impl AsRef<Path>) -> Option<u64> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twelve_thousand_descriptors_allow_ten_thousand_streams() {
        let machine = MachineLimits { descriptors: 12_000, maps: 65_530, threads: 100_000 };
        assert!(machine.streams_max() >= 10_000);
    }

    #[test]
    fn a_small_control_group_gets_shares_of_its_memory() {
        let small = MemoryLimits::of(256 << 20);
        let all = small.requests + small.bodies + small.indexing + small.store_queue + small.held_messages;
        assert!(all <= 192 << 20, "{} MiB", all >> 20);
        assert_eq!(MemoryLimits::of(8 << 30), MemoryLimits::of(u64::MAX));
        assert!(small.request > 32 << 20 && small.bodies > 32 << 20, "the largest body fits");
        assert!(memory_bytes().is_some_and(|bytes| bytes > 64 << 20));
    }

    #[test]
    fn the_smallest_limit_applies() {
        let much = MachineLimits { descriptors: 1 << 30, maps: 1 << 30, threads: 1 << 30 };
        assert_eq!(MachineLimits { descriptors: 1024, ..much }.streams_max(), 1024 - 128 - 128);
        assert_eq!(MachineLimits { maps: 65_530, ..much }.streams_max(), (65_530 - 2048) / 4);
        assert_eq!(MachineLimits { threads: 100, ..much }.streams_max(), 36);
        assert_eq!(MachineLimits { descriptors: 0, maps: 0, threads: 0 }.streams_max(), 1);
    }
}
