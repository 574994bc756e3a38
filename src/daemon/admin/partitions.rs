//! Kafka partitions in /metrics and /partitions. Runs in connections' threads and only reads.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde::Serialize;

use super::json_table;
use crate::cc::partitions::PartitionStats;
use crate::cc::stream_registry::StreamRegistry;
use crate::http::Response;
use crate::runtime::metrics::{render_header, render_value};

/// A metric of a partition: name, type, help and a function that returns its value.
type PartitionMetric = (&'static str, &'static str, &'static str, fn(&PartitionStats) -> Option<u64>);

const METRICS: [PartitionMetric; 7] = [
    ("lag_records", "gauge", "Records between the next offset and the end of the partition.", |partition| {
        if_assigned(partition).and_then(PartitionStats::lag)
    }),
    ("committed_offset", "gauge", "Offset committed by the consumer group.", |partition| {
        if_assigned(partition)?.committed_offset.get()
    }),
    ("next_offset", "gauge", "Offset after the last record that was stored.", |partition| {
        if_assigned(partition)?.next_offset.get()
    }),
    ("end_offset", "gauge", "Offset after the last record in the partition.", |partition| {
        if_assigned(partition)?.end_offset.get()
    }),
    ("records_total", "counter", "Records written to stream files.", |partition| {
        Some(partition.records_total.get())
    }),
    (
        "duplicates_total",
        "counter",
        "Records skipped because their offset was already stored.",
        |partition| Some(partition.duplicates_total.get()),
    ),
    ("dead_letters_total", "counter", "Records that could not be decoded.", |partition| {
        Some(partition.dead_letters_total.get())
    }),
];

/// Returns the partition if it is assigned to this consumer. The progress of other consumers is unknown.
fn if_assigned(partition: &PartitionStats) -> Option<&PartitionStats> {
    partition.is_assigned.load(Ordering::Relaxed).then_some(partition)
}

/// Returns all partitions that were consumed since the start.
pub(super) fn response(live: &StreamRegistry) -> Response {
    let partitions = live.partitions.list();
    json_table("partitions", partitions.iter().map(|partition| PartitionRow::new(partition)))
}

/// Appends the metrics `lea_kafka_partition_...` with the labels topic and partition in Prometheus text format.
pub(crate) fn render(text: &mut String, partitions: &[Arc<PartitionStats>]) {
    for (name, kind, help, value) in METRICS {
        let name = format!("lea_kafka_partition_{name}");
        render_header(text, &name, kind, help);
        for partition in partitions {
            if let Some(value) = value(partition) {
                // A topic name needs no escaping: Kafka allows no such characters.
                let labels = format!("{{topic=\"{}\",partition=\"{}\"}}", partition.topic, partition.number);
                render_value(text, &name, &labels, value);
            }
        }
    }
}

/// A partition in /partitions.
#[derive(Serialize)]
pub(crate) struct PartitionRow<'a> {
    topic: &'a str,
    partition: i32,
    assigned: bool,
    lag: Option<u64>,
    committed_offset: Option<u64>,
    next_offset: Option<u64>,
    end_offset: Option<u64>,
    records: u64,
    duplicates: u64,
    dead_letters: u64,
}

impl PartitionRow<'_> {
    pub(crate) fn new(partition: &PartitionStats) -> PartitionRow<'_> {
        let ours = if_assigned(partition);
        PartitionRow {
            topic: &partition.topic,
            partition: partition.number,
            assigned: ours.is_some(),
            lag: ours.and_then(PartitionStats::lag),
            committed_offset: ours.and_then(|ours| ours.committed_offset.get()),
            next_offset: ours.and_then(|ours| ours.next_offset.get()),
            end_offset: ours.and_then(|ours| ours.end_offset.get()),
            records: partition.records_total.get(),
            duplicates: partition.duplicates_total.get(),
            dead_letters: partition.dead_letters_total.get(),
        }
    }
}
