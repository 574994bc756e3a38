//! What the process counts: one struct of atomics, named as /metrics shows them.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

/// One number that only grows, or a gauge that goes both ways.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds one.
    pub fn inc(&self) {
        self.add(1);
    }

    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// Takes `n` away (gauges).
    pub fn sub(&self, n: u64) {
        self.0.fetch_sub(n, Ordering::Relaxed);
    }

    /// Sets a gauge.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// The value now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

macro_rules! counters {
    ($($(#[doc = $help:literal])+ $name:ident: $kind:ident,)+) => {
        /// All counters and gauges of a process.
        #[derive(Debug, Default)]
        pub struct Counters { $($(#[doc = $help])+ pub $name: Counter,)+ }

        impl Counters {
            /// The Prometheus text format, version 0.0.4: each metric as `lea_NAME`.
            pub fn render(&self) -> String {
                let mut text = String::new();
                $(render_one(&mut text, stringify!($name), stringify!($kind), concat!($($help),+), self.$name.get());)+
                text
            }
        }
    };
}

fn render_one(text: &mut String, name: &str, kind: &str, help: &str, value: u64) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "# HELP lea_{name} {}\n# TYPE lea_{name} {kind}\nlea_{name} {value}", help.trim());
}

counters! {
    /// Streams open now.
    streams_open: gauge,
    /// TCP connections accepted, refused ones included.
    streams_accepted_total: counter,
    /// Streams that ended, in whatever way.
    streams_ended_total: counter,
    /// Bytes of streams received, names not included.
    received_bytes_total: counter,
    /// Bytes written into stream files.
    written_bytes_total: counter,
    /// Writes into stream files (system calls).
    writes_total: counter,
    /// Packets seen in captures.
    packets_total: counter,
    /// Bytes of a re-send that were equal to what is stored.
    compared_bytes_total: counter,
    /// Parts made because a stream of a known name differed from what is stored, or came beside it.
    parts_total: counter,
    /// Streams refused: as many were open as --streams-max allows.
    refused_streams_max_total: counter,
    /// Peers refused: not in --allow.
    refused_peer_total: counter,
    /// Streams refused: no thread could be started.
    refused_thread_total: counter,
    /// Connections that ended or timed out before they sent a byte.
    refused_silent_total: counter,
    /// Connections refused: more than 4,096 bytes and no end of a name.
    refused_name_total: counter,
    /// Streams cut at --stream-bytes-max.
    limited_streams_total: counter,
    /// Streams ended by --idle-timeout.
    idle_streams_total: counter,
    /// Streams ended by a reset or a dead peer.
    reset_streams_total: counter,
    /// Streams ended by an error of the file system.
    failed_streams_total: counter,
    /// Bytes received that could not be written at all.
    lost_bytes_total: counter,
    /// Begun packets written through because all together passed --partial-packet-memory.
    pending_written_through_total: counter,
    /// Bytes of begun packets that wait in memory.
    pending_bytes: gauge,
    /// Writes that had to wait because the disk was full or failed.
    write_retries_total: counter,
    /// Sync rounds done.
    sync_rounds_total: counter,
    /// Stream files recovered at the start after a crash.
    recovered_files_total: counter,
    /// HTTP connections open now.
    http_connections_open: gauge,
    /// Kafka records that went into stream files.
    kafka_records_total: counter,
    /// Kafka records that came again, and were passed over by their offset.
    kafka_repeated_total: counter,
    /// Records that could not be used and are kept in .lea/dead-letters.jsonl.
    dead_letters_total: counter,
    /// Batches of Kafka records that arrived damaged and are missing.
    kafka_damaged_total: counter,
    /// Kafka records between what was taken and the partitions' ends.
    kafka_lag_records: gauge,
    /// HTTP requests answered.
    http_requests_total: counter,
    /// Requests of senders and askers of events refused: no right password.
    events_refused_user_total: counter,
    /// Requests of senders and askers of events refused: no room now, to be tried again.
    events_refused_full_total: counter,
    /// HTTP requests refused: malformed, too large, too slow, or too many at once.
    http_refused_total: counter,
    /// Connections of --lines, --content-lines and --syslog open now.
    event_connections_open: gauge,
    /// Connections of these accepted, refused ones included.
    event_connections_total: counter,
    /// Connections of these refused: too many at once, or no thread could be started.
    event_connections_refused_total: counter,
    /// Lines that came to --lines and --content-lines.
    event_lines_total: counter,
    /// Lines with content of a stream, which went into stream files.
    event_data_lines_total: counter,
    /// Syslog messages that came over TCP.
    syslog_tcp_messages_total: counter,
    /// Syslog messages that came over UDP.
    syslog_udp_messages_total: counter,
    /// Syslog messages that fit no pattern; they are stored with a tag.
    syslog_unmatched_total: counter,
    /// Syslog datagrams dropped because the store did not keep up.
    syslog_udp_dropped_total: counter,
    /// Syslog datagrams that the kernel dropped because its buffer was full.
    syslog_udp_kernel_dropped_total: counter,
    /// 1 while the queue of --amqp is consumed.
    amqp_connected: gauge,
    /// Messages that came from the queue of --amqp.
    amqp_messages_total: counter,
    /// Messages of these that the broker may have delivered before.
    amqp_redelivered_total: counter,
    /// Events that were there already: their messages were delivered once more.
    events_there_already_total: counter,
    /// Events stored, whichever way they came.
    events_stored_total: counter,
    /// Lines and messages that could not be used and are kept in .lea/event-dead-letters.jsonl.
    event_dead_letters_total: counter,
    /// Lines and messages that were longer than is taken.
    event_too_long_total: counter,
    /// Lines that are no JSON object, or no chunk of a stream.
    event_malformed_total: counter,
    /// Events that the store refused.
    event_unfit_total: counter,
    /// Lines and messages that could not be used and were not kept either: the dead letters are full, or failed.
    event_dead_letters_dropped_total: counter,
    /// Events lost: the store failed until the end of the drain.
    events_lost_total: counter,
    /// Events in the queue on the disk: acknowledged, and not yet confirmed by the cluster.
    queue_events: gauge,
    /// Bytes of the queue that the cluster has not confirmed.
    queue_bytes: gauge,
    /// 1 while the queue, or the disk that it is on, has no room.
    queue_full: gauge,
    /// Events lost because the queue was damaged on the disk.
    queue_damaged_total: counter,
    /// 1 while the cluster does not take events: it is away, full, or refuses.
    cluster_away: gauge,
    /// Bulks that the cluster answered.
    cluster_bulks_total: counter,
    /// Events that the cluster confirmed.
    cluster_confirmed_total: counter,
    /// Events among these that were there already: sent again after a crash, or under an id that was taken.
    cluster_there_total: counter,
    /// Events sent again because the cluster did not take them the first time.
    cluster_retries_total: counter,
    /// Events that the cluster refused; they are kept in .lea/event-dead-letters.jsonl.
    cluster_refused_total: counter,
    /// Daily indices deleted because they were older than --keep-days.
    cluster_deleted_indices_total: counter,
    /// Threads that wait because the store fails or does not move.
    event_store_waiting: gauge,
}
