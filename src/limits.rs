//! Every bound of the process that is no option, with its reason, and what the machine allows.

/// A stream name's bytes. Senders use 40; beyond a page it is no name (protocol, section 2).
pub const NAME_BYTES_MAX: usize = 4096;

/// An escaped file name's bytes before the part number and the manifest's suffix; the file system allows 255.
pub const FILE_NAME_BYTES_MAX: usize = 200;

/// The longest packet that a capture may announce: tcpdump's and Wireshark's largest snaplen. What claims more is
/// no packet.
pub const PACKET_BYTES_MAX: u32 = 262_144;

/// The longest block of a pcapng file that is followed (Wireshark's own bound).
pub const BLOCK_BYTES_MAX: u32 = 16 << 20;

/// A Kafka record's value, or a line of a dump. Brokers take 1 MiB unless told otherwise, and a chunk is a few kB.
pub const RECORD_BYTES_MAX: usize = 16 << 20;

/// A batch of records once decompressed: a batch of 1 MiB can claim to be a thousand times that.
pub const BATCH_BYTES_MAX: usize = 64 << 20;

/// Descriptors that are neither streams nor stream files: the folder, the journal, listeners, HTTP connections, and
/// those that files being read, synced or created need for a moment.
const DESCRIPTORS_RESERVED: u64 = 128;

/// Stream files open at once, at least: with fewer, each write would open its file.
const FILES_MIN: u64 = 32;

/// Stream files that get a descriptor before streams do, where there are many.
const FILES_WANTED: u64 = 1024;

/// Memory maps of one thread: its stack and its signal stack, each with a guard. Past the limit the standard library
/// aborts the process, so that limit must never be met.
const MAPS_PER_THREAD: u64 = 4;

/// Memory maps and threads of everything but streams, with room to spare.
const MAPS_RESERVED: u64 = 2048;
const THREADS_RESERVED: u64 = 64;

/// What the machine carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Machine {
    /// Descriptors that this process may open.
    pub descriptors: u64,
    /// Memory maps that this process may have.
    pub maps: u64,
    /// Threads that may still be started.
    pub threads: u64,
}

impl Machine {
    /// Raises the soft limit of descriptors to the hard one and reads what there is.
    pub fn prepare() -> Machine {
        Machine {
            descriptors: raise_descriptors(),
            maps: number("/proc/sys/vm/max_map_count").unwrap_or(65_530),
            threads: threads(),
        }
    }

    /// Streams at once: the least of what descriptors, memory maps and threads carry.
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

/// Raises the soft limit of descriptors to the hard one; gives how many there may be now.
pub fn raise_descriptors() -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    // Some systems refuse "unlimited" here; then the soft limit stays as it is.
    let current = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    };
    current.unwrap_or(1 << 20)
}

/// Threads that the system, the user and the control group still allow.
fn threads() -> u64 {
    use rustix::process::{Resource, getrlimit};
    let limits = [
        number("/proc/sys/kernel/threads-max"),
        number("/proc/sys/kernel/pid_max"),
        getrlimit(Resource::Nproc).current,
        cgroup_pids(),
    ];
    limits.into_iter().flatten().min().unwrap_or(4096)
}

/// The least `pids.max` of this process's control group and those above it, less what is in use there.
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
        let max = number(dir.join("pids.max"))?;
        Some(max.saturating_sub(number(dir.join("pids.current")).unwrap_or(0)))
    };
    group.ancestors().take_while(|dir| dir.starts_with(root)).filter_map(left).min()
}

fn number(path: impl AsRef<std::path::Path>) -> Option<u64> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_thousand_streams_fit_into_twelve_thousand_descriptors() {
        let machine = Machine { descriptors: 12_000, maps: 65_530, threads: 100_000 };
        assert!(machine.streams_max() >= 10_000);
    }

    #[test]
    fn the_least_counts() {
        let much = Machine { descriptors: 1 << 30, maps: 1 << 30, threads: 1 << 30 };
        assert_eq!(Machine { descriptors: 1024, ..much }.streams_max(), 1024 - 128 - 128);
        assert_eq!(Machine { maps: 65_530, ..much }.streams_max(), (65_530 - 2048) / 4);
        assert_eq!(Machine { threads: 100, ..much }.streams_max(), 36);
        assert_eq!(Machine { descriptors: 0, maps: 0, threads: 0 }.streams_max(), 1);
    }
}
