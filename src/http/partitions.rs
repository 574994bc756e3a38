//! What /metrics and /partitions say of Kafka's partitions. Runs on the connections' threads and only reads.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde::Serialize;

use crate::cc::partitions::LivePartition;

/// A metric of a partition: name, type, help, and its value where there is one.
type Metric = (&'static str, &'static str, &'static str, fn(&LivePartition) -> Option<u64>);

const METRICS: [Metric; 7] = [
    ("lag_records", "gauge", "Records that are there and were not taken.", |partition| {
        ours(partition).and_then(LivePartition::lag)
    }),
    ("committed_offset", "gauge", "The offset that the group has acknowledged.", |partition| {
        ours(partition)?.committed_offset.get()
    }),
    ("next_offset", "gauge", "The offset behind the last record that was taken.", |partition| {
        ours(partition)?.next_offset.get()
    }),
    ("end_offset", "gauge", "The offset behind the last record that is there.", |partition| {
        ours(partition)?.end_offset.get()
    }),
    ("records_total", "counter", "Records that went into stream files.", |partition| {
        Some(partition.records_total.get())
    }),
    ("repeated_total", "counter", "Records that came again and were passed over.", |partition| {
        Some(partition.repeated_total.get())
    }),
    ("dead_letters_total", "counter", "Records that could not be used.", |partition| {
        Some(partition.dead_letters_total.get())
    }),
];

/// A partition that another member has by now: how far that one is we do not know.
fn ours(partition: &LivePartition) -> Option<&LivePartition> {
    partition.is_assigned.load(Ordering::Relaxed).then_some(partition)
}

/// Appends the metrics `lea_kafka_partition_...`, labelled by topic and partition, as Prometheus text.
pub fn render(text: &mut String, partitions: &[Arc<LivePartition>]) {
    for (name, kind, help, value) in METRICS {
        let name = format!("lea_kafka_partition_{name}");
        // Writing to a String cannot fail.
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for partition in partitions {
            if let Some(value) = value(partition) {
                // A topic's name has no byte that a label would have to escape: brokers refuse it.
                let _ = writeln!(
                    text,
                    "{name}{{topic=\"{}\",partition=\"{}\"}} {value}",
                    partition.topic, partition.number
                );
            }
        }
    }
}

/// A partition as /partitions shows it.
#[derive(Serialize)]
pub struct Row<'a> {
    topic: &'a str,
    partition: i32,
    assigned: bool,
    lag: Option<u64>,
    committed_offset: Option<u64>,
    next_offset: Option<u64>,
    end_offset: Option<u64>,
    records: u64,
    repeated: u64,
    dead_letters: u64,
}

impl Row<'_> {
    /// The numbers of this moment.
    pub fn of(partition: &LivePartition) -> Row<'_> {
        let ours = ours(partition);
        Row {
            topic: &partition.topic,
            partition: partition.number,
            assigned: ours.is_some(),
            lag: ours.and_then(LivePartition::lag),
            committed_offset: ours.and_then(|ours| ours.committed_offset.get()),
            next_offset: ours.and_then(|ours| ours.next_offset.get()),
            end_offset: ours.and_then(|ours| ours.end_offset.get()),
            records: partition.records_total.get(),
            repeated: partition.repeated_total.get(),
            dead_letters: partition.dead_letters_total.get(),
        }
    }
}
