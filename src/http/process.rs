//! What the system says about this process, for /metrics. Read from /proc when asked; any thread.

use std::fmt::Write as _;
use std::fs;

/// Resident memory, descriptors, threads and the start time, in the Prometheus text format under the names that
/// its client libraries use. What cannot be read is left out.
pub(super) fn render(text: &mut String, started_ms: i64) {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    if let Some(kibibytes) = field(&status, "VmRSS:") {
        gauge(text, "process_resident_memory_bytes", "Resident memory size in bytes.", kibibytes * 1024);
    }
    if let Some(threads) = field(&status, "Threads:") {
        gauge(text, "process_threads", "Number of threads.", threads);
    }
    if let Ok(entries) = fs::read_dir("/proc/self/fd") {
        // The descriptor that reads the folder is one of them.
        let open = (entries.count() as u64).saturating_sub(1);
        gauge(text, "process_open_fds", "Number of open file descriptors.", open);
    }
    let started = format_args!("{}.{:03}", started_ms / 1000, started_ms % 1000);
    gauge(
        text,
        "process_start_time_seconds",
        "Start time of the process since unix epoch in seconds.",
        started,
    );
}

fn gauge(text: &mut String, name: &str, help: &str, value: impl std::fmt::Display) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}");
}

/// The number behind a name in /proc/self/status.
fn field(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::field;

    #[test]
    fn fields_of_a_status() {
        let status = "Name:\tlea\nVmRSS:\t    5120 kB\nThreads:\t7\nOdd:\n";
        assert_eq!(field(status, "VmRSS:"), Some(5120));
        assert_eq!(field(status, "Threads:"), Some(7));
        assert_eq!(field(status, "Odd:"), None);
        assert_eq!(field(status, "None:"), None);
    }
}
