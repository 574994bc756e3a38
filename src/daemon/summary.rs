//! The line that a daemon prints when it ends.

use std::time::Duration;

use crate::cc::vault::LossTotals;
use crate::runtime::logging;
use crate::runtime::metrics::Metrics;

/// The parts of the daemon that were in use.
#[derive(Clone, Copy, Debug)]
pub(super) struct UsedParts {
    pub events: bool,
    pub cluster: bool,
}

/// Prints the summary. Counts of parts that were not in use are omitted.
pub(super) fn print(metrics: &Metrics, losses: &LossTotals, used: UsedParts, time: Duration) {
    let tcp = metrics.listener("tcp");
    let mut counts = vec![
        ("connections", tcp.connections.get()),
        ("rejected", tcp.rejected_total()),
        ("bytes", metrics.received_bytes_total.get()),
        ("packets", metrics.packets_total.get()),
        ("written_bytes", metrics.written_bytes_total.get()),
        ("lost_bytes", losses.bytes),
        ("incomplete_streams", losses.streams + losses.files),
    ];
    if used.events {
        counts.extend([
            ("events", metrics.events_stored_total.get()),
            ("content_lines", metrics.content_lines_total.get()),
            ("dead_letters", metrics.event_dead_letters_total.get()),
            ("dropped_datagrams", metrics.syslog_dropped_queue_full.get()),
            ("kernel_dropped_datagrams", metrics.syslog_dropped_kernel.get()),
            ("lost_events", metrics.events_lost_total.get()),
        ]);
    }
    if used.cluster {
        counts.extend([
            ("acked_events", metrics.cluster_acked_total.get()),
            ("spool_events", metrics.spool_events.get()),
            ("spool_bytes", metrics.spool_bytes.get()),
            ("retried_events", metrics.cluster_retries_total.get()),
            ("rejected_events", metrics.cluster_rejected_total.get()),
        ]);
    }
    let counts: Vec<String> = counts.iter().map(|(key, count)| format!("{key}={count}")).collect();
    let counts = counts.join(" ");
    logging::status_line(format_args!("summary {counts} seconds={:.3}", time.as_secs_f64()));
}
