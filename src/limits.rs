//! Fixed limits with their reasons, and the limits of the machine.

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
    let groups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let (root, path) = groups.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':');
        match (fields.next(), fields.next(), fields.next()) {
            (Some("0"), Some(""), Some(path)) => Some(("/sys/fs/cgroup", path)),
            (_, Some(controllers), Some(path)) if controllers.split(',').any(|name| name == "pids") => {
                Some(("/sys/fs/cgroup/pids", path))
            }
            _ => None,
        }
    })?;
    let group = std::path::Path::new(root).join(path.trim_start_matches('/'));
    let left = |dir: &std::path::Path| {
        let max = read_number(dir.join("pids.max"))?;
        Some(max.saturating_sub(read_number(dir.join("pids.current")).unwrap_or(0)))
    };
    group.ancestors().take_while(|dir| dir.starts_with(root)).filter_map(left).min()
}

fn read_number(path: impl AsRef<std::path::Path>) -> Option<u64> {
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
    fn the_smallest_limit_applies() {
        let much = MachineLimits { descriptors: 1 << 30, maps: 1 << 30, threads: 1 << 30 };
        assert_eq!(MachineLimits { descriptors: 1024, ..much }.streams_max(), 1024 - 128 - 128);
        assert_eq!(MachineLimits { maps: 65_530, ..much }.streams_max(), (65_530 - 2048) / 4);
        assert_eq!(MachineLimits { threads: 100, ..much }.streams_max(), 36);
        assert_eq!(MachineLimits { descriptors: 0, maps: 0, threads: 0 }.streams_max(), 1);
    }
}
