//! Process metrics for /metrics. Read from /proc on each request.

use std::fmt::Write as _;
use std::fs;

/// Appends resident memory, descriptors, threads and start time in Prometheus text format, under the names that Prometheus
/// client libraries use. Values that cannot be read are omitted.
pub(crate) fn render(text: &mut String, started_ms: i64) {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    if let Some(kibibytes) = status_field(&status, "VmRSS:") {
        render_gauge(
            text,
            "process_resident_memory_bytes",
            "Resident memory size in bytes.",
            kibibytes * 1024,
        );
    }
    if let Some(threads) = status_field(&status, "Threads:") {
        render_gauge(text, "process_threads", "Number of threads.", threads);
    }
    if let Ok(entries) = fs::read_dir("/proc/self/fd") {
        // The descriptor that reads the directory is one of them.
        let open = (entries.count() as u64).saturating_sub(1);
        render_gauge(text, "process_open_fds", "Number of open file descriptors.", open);
    }
    let started = format_args!("{}.{:03}", started_ms / 1000, started_ms % 1000);
    render_gauge(
        text,
        "process_start_time_seconds",
        "Start time of the process since unix epoch in seconds.",
        started,
    );
}

fn render_gauge(text: &mut String, name: &str, help: &str, value: impl std::fmt::Display) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}");
}

/// Returns the number after a name in /proc/self/status.
fn status_field(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::status_field;

    #[test]
    fn status_fields_are_found_by_name() {
        let status = "Name:\tlea\nVmRSS:\t    5120 kB\nThreads:\t7\nOdd:\n";
        assert_eq!(status_field(status, "VmRSS:"), Some(5120));
        assert_eq!(status_field(status, "Threads:"), Some(7));
        assert_eq!(status_field(status, "Odd:"), None);
        assert_eq!(status_field(status, "None:"), None);
    }
}
