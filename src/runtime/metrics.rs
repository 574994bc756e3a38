//! Metrics of the process: atomics that any thread updates, and their Prometheus text (version 0.0.4) for /metrics.
//!
//! The crate prometheus-client does not fit: it writes OpenMetrics, where a counter's type line lacks the suffix
//! `_total`, so a parser of version 0.0.4 sees counters without a type. Here each labelled series is a field, so an update
//! is one atomic addition without a look-up.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::health::{Health, Problem};

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn inc(&self) {
        self.add(1);
    }

    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number that goes up and down.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    pub fn inc(&self) {
        self.add(1);
    }

    pub fn dec(&self) {
        self.sub(1);
    }

    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    pub fn sub(&self, n: u64) {
        self.0.fetch_sub(n, Ordering::Relaxed);
    }

    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Whether a remote service is up. Absent from /metrics until it is set, because the service may not be in use.
#[derive(Debug)]
pub struct UpGauge(AtomicU64);

impl UpGauge {
    const UNSET: u64 = u64::MAX;

    pub fn set(&self, is_up: bool) {
        self.0.store(is_up.into(), Ordering::Relaxed);
    }

    /// Returns true if the service is in use and down.
    pub fn is_down(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
    }
}

impl Default for UpGauge {
    fn default() -> UpGauge {
        UpGauge(AtomicU64::new(UpGauge::UNSET))
    }
}

/// A type of metric, for the text format.
trait Metric {
    const TYPE: &'static str;

    fn value(&self) -> Option<u64>;
}

impl Metric for Counter {
    const TYPE: &'static str = "counter";

    fn value(&self) -> Option<u64> {
        Some(self.get())
    }
}

impl Metric for Gauge {
    const TYPE: &'static str = "gauge";

    fn value(&self) -> Option<u64> {
        Some(self.get())
    }
}

impl Metric for UpGauge {
    const TYPE: &'static str = "gauge";

    fn value(&self) -> Option<u64> {
        Some(self.0.load(Ordering::Relaxed)).filter(|value| *value != UpGauge::UNSET)
    }
}

/// Appends the two comment lines of a metric. `name` includes the prefix `lea_`.
pub(crate) fn render_header(text: &mut String, name: &str, kind: &str, help: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

/// Appends a series. `labels` is empty or has the form `{name="value"}`.
pub(crate) fn render_value(text: &mut String, name: &str, labels: &str, value: u64) {
    let _ = writeln!(text, "{name}{labels} {value}");
}

macro_rules! labels {
    () => {
        ""
    };
    ($($label:ident = $value:literal),+) => {
        concat!("{", metrics_join!($(concat!(stringify!($label), "=\"", $value, "\"")),+), "}")
    };
}

macro_rules! metrics_join {
    ($first:expr $(, $rest:expr)*) => { concat!($first $(, ",", $rest)*) };
}

/// Declares the metrics: `TYPE NAME HELP => FIELD{LABELS}, ...;`. Each series is a field of `Metrics`.
macro_rules! metrics {
    ($($kind:ident $name:ident $help:literal => $($field:ident $({$($label:ident = $value:literal),+})?),+;)+) => {
        /// All metrics of a process.
        #[derive(Debug, Default)]
        pub struct Metrics {
            $($(#[doc = $help] pub $field: $kind,)+)+
            /// What keeps the process from storing what it receives.
            pub health: Health,
            listeners: Mutex<Vec<Arc<ListenerMetrics>>>,
            sources: Mutex<Vec<Arc<SourceMetrics>>>,
        }

        impl Metrics {
            /// Returns the metrics in Prometheus text format, version 0.0.4.
            pub fn render(&self) -> String {
                let mut text = String::with_capacity(16 << 10);
                $(
                    let name = concat!("lea_", stringify!($name));
                    render_header(&mut text, name, <$kind as Metric>::TYPE, $help);
                    $(
                        if let Some(value) = self.$field.value() {
                            render_value(&mut text, name, labels!($($($label = $value),+)?), value);
                        }
                    )+
                )+
                self.render_listeners(&mut text);
                self.render_problems(&mut text);
                text
            }
        }
    };
}

metrics! {
    Gauge streams_open "Streams that are open." => streams_open;
    Counter streams_ended_total "Streams that ended, by reason. Rejected connections are not included." =>
        streams_ended_eof{reason = "eof"}, streams_ended_reset{reason = "reset"}, streams_ended_idle{reason = "idle"},
        streams_ended_limit{reason = "limit"}, streams_ended_shutdown{reason = "shutdown"},
        streams_ended_io_error{reason = "io_error"};
    Counter streams_failed_total "Streams whose file could not be written completely." => streams_failed_total;
    Counter streams_damaged_total "Streams that ended with a damaged capture, by kind." =>
        streams_damaged_truncated{kind = "truncated"}, streams_damaged_malformed{kind = "malformed"},
        streams_damaged_other{kind = "other"};
    Counter received_bytes_total "Bytes of stream content received, without stream names." => received_bytes_total;
    Counter packets_total "Packets found in captures." => packets_total;
    Counter written_bytes_total "Bytes written to stream files." => written_bytes_total;
    Counter writes_total "System calls that wrote to stream files." => writes_total;
    Counter write_retries_total "Writes repeated because the disk was full or failed." => write_retries_total;
    Counter lost_bytes_total "Bytes received that could not be written." => lost_bytes_total;
    Counter unsynced_bytes_total "Bytes written whose fsync failed: they may not be on the disk." =>
        unsynced_bytes_total;
    Counter storage_failures_total "Files whose fsync or manifest failed for good." => storage_failures_total;
    Counter sync_rewrites_total "Files written and synced again because an fsync had failed." => sync_rewrites_total;
    Counter compared_bytes_total "Bytes of re-sent streams that matched the stored file." => compared_bytes_total;
    Counter parts_total
        "Part files created because a stream differed from the stored file of its name, or arrived at the same time." =>
        parts_total;
    Counter parts_rotated_total "Part files created by --rotate-size or --rotate-interval." => parts_rotated_total;
    Gauge partial_packet_bytes "Bytes of partial packets held in memory." => partial_packet_bytes;
    Counter partial_packets_flushed_total
        "Partial packets written early because --partial-packet-memory was reached." => partial_packets_flushed_total;
    Counter sync_rounds_total "Rounds of fsync over growing stream files." => sync_rounds_total;
    Counter recovered_files_total "Stream files recovered at start after a crash." => recovered_files_total;
    Counter kafka_records_total "Kafka records written to stream files." => kafka_records_total;
    Counter kafka_duplicates_total "Kafka records skipped because their offset was already stored." =>
        kafka_duplicates_total;
    Counter kafka_dead_letters_total
        "Kafka records that could not be decoded and are kept in .lea/dead-letters.jsonl." => kafka_dead_letters_total;
    Counter kafka_late_records_total "Kafka records that belong before stored ones, or that may be stored already, and were not stored." =>
        kafka_late_records_total;
    Counter kafka_damaged_batches_total "Kafka record batches that could not be read; their records are missing." =>
        kafka_damaged_batches_total;
    Gauge kafka_lag_records "Kafka records between the next offset and the end of all assigned partitions." =>
        kafka_lag_records;
    Counter http_requests_total "HTTP requests answered." => http_requests_total;
    Counter http_requests_rejected_total "HTTP requests rejected, by reason." =>
        http_rejected_bad_request{reason = "bad_request"}, http_rejected_unauthorized{reason = "unauthorized"},
        http_rejected_store_full{reason = "store_full"}, http_rejected_memory{reason = "memory"},
        http_rejected_foreign{reason = "foreign"};
    Counter http_cancelled_total "HTTP requests given up because their client had closed the connection." => http_cancelled_total;
    Counter events_stored_total "Events stored, from all sources." => events_stored_total;
    Counter events_duplicate_total "Events skipped because an event with the same id was already stored." =>
        events_duplicate_total;
    Counter events_replaced_total "Events that were replaced by another document with their id." =>
        events_replaced_total;
    Counter events_rejected_total "Messages and events rejected, by reason." =>
        events_rejected_too_long{reason = "too_long"}, events_rejected_malformed{reason = "malformed"},
        events_rejected_unfit{reason = "unfit"}, events_rejected_http{reason = "http"};
    Counter events_lost_total "Events lost because the store still failed when the shutdown timeout ended." =>
        events_lost_total;
    Counter event_dead_letters_total
        "Messages and events kept in .lea/event-dead-letters.jsonl because they could not be stored." =>
        event_dead_letters_total;
    Counter event_dead_letters_dropped_total
        "Dead letters dropped because the dead-letter file was full or could not be written." =>
        event_dead_letters_dropped_total;
    Gauge store_waiting_threads "Threads that wait because the event store fails or is stalled." =>
        store_waiting_threads;
    Gauge store_documents_numbered "Document numbers that the event store has used, of 4294967296." =>
        store_documents_numbered;
    Counter events_purged_total "Events deleted because they were older than --keep-days." => events_purged_total;
    Counter store_damaged_reads_total "Reads of the event store that met damage on disk." => store_damaged_reads_total;
    Counter content_lines_total "Lines with stream content written to stream files." => content_lines_total;
    Counter syslog_unmatched_total "Syslog messages that matched no pattern; they are stored with a tag." =>
        syslog_unmatched_total;
    Counter syslog_datagrams_dropped_total "Syslog datagrams dropped, by reason." =>
        syslog_dropped_queue_full{reason = "queue_full"}, syslog_dropped_kernel{reason = "kernel_buffer_full"};
    Counter gelf_datagrams_dropped_total "GELF datagrams dropped for lack of room, and messages whose chunks did not all arrive, by reason." =>
        gelf_dropped_queue_full{reason = "queue_full"}, gelf_dropped_kernel{reason = "kernel_buffer_full"},
        gelf_dropped_incomplete{reason = "incomplete"};
    UpGauge amqp_up "1 while the AMQP queue is consumed, 0 while the broker is unreachable; absent without --amqp." =>
        amqp_up;
    Counter amqp_redelivered_total "AMQP messages that the broker marked as redelivered." => amqp_redelivered_total;
    Gauge spool_events "Events in the spool that the cluster has not acknowledged." => spool_events;
    Gauge spool_bytes "Bytes of the spool that the cluster has not acknowledged." => spool_bytes;
    Gauge spool_full "1 while the spool has reached its limit or its disk is full." => spool_full;
    Counter spool_damaged_total "Events lost because the spool was damaged on disk." => spool_damaged_total;
    UpGauge cluster_up
        "1 while the cluster accepts events, 0 while it is unreachable, full or rejects them; absent without --cluster." =>
        cluster_up;
    Counter cluster_bulks_total "Bulk requests answered by the cluster." => cluster_bulks_total;
    Counter cluster_acked_total "Events acknowledged by the cluster." => cluster_acked_total;
    Counter cluster_duplicate_total "Acknowledged events whose id already existed in the cluster." =>
        cluster_duplicate_total;
    Counter cluster_retries_total "Events sent again because the cluster did not accept them the first time." =>
        cluster_retries_total;
    Counter cluster_rejected_total
        "Events rejected by the cluster; they are kept in .lea/event-dead-letters.jsonl." => cluster_rejected_total;
    Counter cluster_deleted_indices_total "Daily indices deleted because they were older than --keep-days." =>
        cluster_deleted_indices_total;
}

/// Reason why a listener rejects a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RejectReason {
    /// As many connections as allowed are open.
    LimitReached,
    /// No thread could be started.
    NoThread,
    /// The peer's address is not in `--allow`.
    NotAllowed,
    /// The peer sent nothing before it closed or reset the connection, or before the timeout.
    Silent,
    /// The stream's name is too long.
    NameTooLong,
    /// The peer has as many connections as it may have.
    PeerLimitReached,
    /// The peer has used too many new names.
    TooManyNames,
    /// The stream starts with content instead of its name.
    NoName,
}

impl RejectReason {
    const ALL: [RejectReason; 8] = [
        RejectReason::LimitReached,
        RejectReason::NoThread,
        RejectReason::NotAllowed,
        RejectReason::Silent,
        RejectReason::NameTooLong,
        RejectReason::PeerLimitReached,
        RejectReason::TooManyNames,
        RejectReason::NoName,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            RejectReason::LimitReached => "limit_reached",
            RejectReason::NoThread => "no_thread",
            RejectReason::NotAllowed => "not_allowed",
            RejectReason::Silent => "silent",
            RejectReason::NameTooLong => "name_too_long",
            RejectReason::PeerLimitReached => "peer_limit_reached",
            RejectReason::TooManyNames => "too_many_names",
            RejectReason::NoName => "no_name",
        }
    }
}

/// Metrics of a listener for TCP connections, with the label `listener`.
#[derive(Debug)]
pub struct ListenerMetrics {
    listener: &'static str,
    pub connections: Counter,
    pub open: Gauge,
    rejected: [Counter; RejectReason::ALL.len()],
}

impl ListenerMetrics {
    /// Returns the counter of connections that were rejected for this reason.
    pub fn rejected(&self, reason: RejectReason) -> &Counter {
        &self.rejected[reason as usize]
    }

    /// Returns the number of all rejected connections.
    pub fn rejected_total(&self) -> u64 {
        self.rejected.iter().map(Counter::get).sum()
    }
}

/// Metrics of an event source, with the label `listener` and, if it has more than one, `transport`.
#[derive(Debug)]
pub struct SourceMetrics {
    labels: String,
    pub messages: Counter,
}

impl Metrics {
    /// Returns the metrics of the listener with this name. The first call creates them.
    pub fn listener(&self, listener: &'static str) -> Arc<ListenerMetrics> {
        let mut listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = listeners.iter().find(|known| known.listener == listener) {
            return Arc::clone(found);
        }
        let (connections, open, rejected) = Default::default();
        listeners.push(Arc::new(ListenerMetrics { listener, connections, open, rejected }));
        Arc::clone(&listeners[listeners.len() - 1])
    }

    /// Returns the metrics of the event source with this name and transport. The first call creates them.
    pub fn source(&self, listener: &str, transport: Option<&str>) -> Arc<SourceMetrics> {
        let transport = transport.map_or_else(String::new, |transport| format!(",transport=\"{transport}\""));
        let labels = format!("{{listener=\"{listener}\"{transport}}}");
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = sources.iter().find(|known| known.labels == labels) {
            return Arc::clone(found);
        }
        sources.push(Arc::new(SourceMetrics { labels, messages: Counter::default() }));
        Arc::clone(&sources[sources.len() - 1])
    }

    fn render_problems(&self, text: &mut String) {
        let name = "lea_problem";
        render_header(text, name, Gauge::TYPE, "1 while /health reports this problem.");
        let active = self.problems();
        for problem in Problem::ALL {
            let is_active = active.iter().any(|active| active.problem == problem);
            let labels = format!("{{problem=\"{}\"}}", problem.as_str());
            render_value(text, name, &labels, is_active.into());
        }
    }

    fn render_listeners(&self, text: &mut String) {
        let listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        let name = "lea_connections_total";
        render_header(
            text,
            name,
            Counter::TYPE,
            "TCP connections accepted, including those rejected afterwards.",
        );
        for each in &*listeners {
            render_value(text, name, &format!("{{listener=\"{}\"}}", each.listener), each.connections.get());
        }
        let name = "lea_connections_open";
        render_header(text, name, Gauge::TYPE, "Connections that are open.");
        for each in &*listeners {
            render_value(text, name, &format!("{{listener=\"{}\"}}", each.listener), each.open.get());
        }
        let name = "lea_connections_rejected_total";
        render_header(text, name, Counter::TYPE, "Connections rejected, by listener and reason.");
        for each in &*listeners {
            for reason in RejectReason::ALL {
                let labels = format!("{{listener=\"{}\",reason=\"{}\"}}", each.listener, reason.as_str());
                render_value(text, name, &labels, each.rejected(reason).get());
            }
        }
        let name = "lea_messages_received_total";
        render_header(text, name, Counter::TYPE, "Messages received, by listener.");
        for each in &*self.sources.lock().unwrap_or_else(PoisonError::into_inner) {
            render_value(text, name, &each.labels, each.messages.get());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_metric_has_one_header_and_its_series() {
        let metrics = Metrics::default();
        metrics.streams_ended_idle.inc();
        metrics.listener("tcp").rejected(RejectReason::Silent).add(2);
        metrics.source("syslog", Some("udp")).messages.inc();
        let text = metrics.render();
        for line in [
            "# TYPE lea_streams_ended_total counter",
            "lea_streams_ended_total{reason=\"eof\"} 0",
            "lea_streams_ended_total{reason=\"idle\"} 1",
            "# TYPE lea_spool_events gauge",
            "lea_spool_events 0",
            "lea_connections_rejected_total{listener=\"tcp\",reason=\"silent\"} 2",
            "lea_connections_open{listener=\"tcp\"} 0",
            "lea_messages_received_total{listener=\"syslog\",transport=\"udp\"} 1",
        ] {
            assert_eq!(text.lines().filter(|found| *found == line).count(), 1, "{line}\n{text}");
        }
    }

    #[test]
    fn a_service_that_is_not_in_use_has_no_series() {
        let metrics = Metrics::default();
        assert!(!metrics.render().contains("\nlea_cluster_up ") && !metrics.cluster_up.is_down());
        metrics.cluster_up.set(false);
        assert!(metrics.render().contains("\nlea_cluster_up 0\n") && metrics.cluster_up.is_down());
    }

    #[test]
    fn metrics_of_a_listener_are_created_once() {
        let metrics = Metrics::default();
        metrics.listener("tcp").connections.inc();
        metrics.listener("tcp").connections.inc();
        assert_eq!(metrics.listener("tcp").connections.get(), 2);
    }
}
