//! Per-partition values in /metrics and /partitions.

use std::net::SocketAddr;

use serde_json::Value;

use super::{PATIENCE, capture, consumer, listening, produce_as, read};
use crate::support::process::Process;
use crate::support::status::get;
use crate::support::{Broker, Workdir, wait_until};

pub(super) fn check(broker: &Broker) {
    broker.topic("numbers", 2);
    let work = Workdir::new();
    let mut consuming =
        Process::start(&mut consumer(broker, "numbers", work.path(), &["--admin-listen", "127.0.0.1:0"]));
    let addr = listening(&mut consuming, "admin");
    let file = capture("answered-call.pcap");
    for name in ["a.pcap", "b.pcap", "c.pcap"] {
        produce_as(broker, "numbers", name, &file, &["--fault", "bad-base64", "--seed", "7"]);
    }
    let records = broker.records("numbers", 2);
    wait_until(PATIENCE, "the group to have all", || {
        let rows = partitions(addr);
        let committed = rows.iter().map(|row| row["committed_offset"].as_u64().unwrap_or(0));
        committed.sum::<u64>() == records.len() as u64
    });
    let rows = partitions(addr);
    let chunks = 3 * read("answered-call.pcap").len().div_ceil(1000);
    assert_eq!(sum(&rows, "records"), chunks as u64);
    assert_eq!(sum(&rows, "dead_letters"), (records.len() - chunks) as u64);
    for (number, row) in rows.iter().enumerate() {
        let end = records.iter().filter(|record| record.partition as usize == number).count() as u64;
        assert_eq!((&row["topic"], &row["partition"]), (&"numbers".into(), &number.into()));
        assert_eq!((&row["assigned"], &row["lag"], &row["duplicates"]), (&true.into(), &0.into(), &0.into()));
        for name in ["next_offset", "end_offset", "committed_offset"] {
            assert_eq!((&row[name], sample(addr, name, number)), (&end.into(), Some(end)), "{name}");
        }
        assert_eq!(sample(addr, "lag_records", number), Some(0));
        assert_eq!(sample(addr, "records_total", number), row["records"].as_u64());
        assert_eq!(sample(addr, "dead_letters_total", number), row["dead_letters"].as_u64());
    }
    consuming.signal(rustix::process::Signal::TERM);
    consuming.wait_code(PATIENCE, 0);
}

fn sum(rows: &[Value], key: &str) -> u64 {
    rows.iter().map(|row| row[key].as_u64().unwrap()).sum()
}

/// Returns the partitions in /partitions.
pub(super) fn partitions(addr: SocketAddr) -> Vec<Value> {
    let mut table: Value = serde_json::from_str(&get(addr, "/partitions")).unwrap();
    let rows: Vec<Value> = serde_json::from_value(table["partitions"].take()).unwrap();
    assert_eq!(table["count"], rows.len());
    rows
}

/// Returns a sample of /metrics, as a Prometheus scraper reads it.
fn sample(addr: SocketAddr, name: &str, partition: usize) -> Option<u64> {
    let start = format!("lea_kafka_partition_{name}{{topic=\"numbers\",partition=\"{partition}\"}} ");
    let text = get(addr, "/metrics");
    assert!(text.contains(&format!("# TYPE lea_kafka_partition_{name} ")));
    text.lines().find_map(|line| line.strip_prefix(&start)?.parse().ok())
}
