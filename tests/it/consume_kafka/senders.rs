//! Records as senders in the field write them: kafka-python and `lea replay`, with and without a key, to one
//! partition and to several.

use std::collections::BTreeSet;
use std::path::Path;

use super::{capture, check_whole, consume_until_end, produce_as, read};
use crate::support::broker::Record;
use crate::support::{Broker, Workdir, kafka_python_sender, manifest};

const NAME: &str = "+447700900123-2-3_21_11_2026_20:59:41.pcap";
const OTHER_NAME: &str = "+447700900456-2-3_21_11_2026_20:59:41.pcap";

pub(super) fn check(broker: &Broker) {
    one_partition_keeps_the_order(broker);
    several_partitions_without_a_key_are_noticed(broker);
}

/// Sends the answered call with kafka-python.
#[track_caller]
fn send_python(broker: &Broker, topic: &str, name: &str, chunk_bytes: &str, user_field: &str) {
    let capture = capture("answered-call.pcap");
    let args = [&broker.addr(), topic, name, &capture, chunk_bytes, user_field, "none"];
    let output = kafka_python_sender(&args).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn one_partition_keeps_the_order(broker: &Broker) {
    broker.topic("python-1", 1);
    send_python(broker, "python-1", NAME, "100", "userid");
    send_python(broker, "python-1", OTHER_NAME, "1000", "user_id");
    let work = Workdir::new();
    let text = consume_until_end(broker, "python-1", work.path());
    assert!(text.contains("duplicates=0 dead_letters=0") && !text.contains("WARN"), "{text}");
    let sent = read("answered-call.pcap");
    check_whole(work.path(), &[(NAME.to_owned(), sent.clone()), (OTHER_NAME.to_owned(), sent)]);
    for name in [NAME, OTHER_NAME] {
        let manifest = manifest(work.path(), name).unwrap();
        assert!(!manifest.order_uncertain && manifest.segments.iter().all(|segment| segment.partition == 0));
    }
}

fn several_partitions_without_a_key_are_noticed(broker: &Broker) {
    let sent = read("answered-call.pcap");
    for sender in ["python", "replay"] {
        let topic = format!("{sender}-3");
        broker.topic(&topic, 3);
        match sender {
            "python" => send_python(broker, &topic, NAME, "1000", "userid"),
            // Without lingering, batches are small, and the records are spread over many partitions.
            _ => produce_as(
                broker,
                &topic,
                NAME,
                &capture("answered-call.pcap"),
                &["--key", "none", "-X", "linger.ms=0", "-X", "batch.num.messages=1"],
            ),
        }
        let work = Workdir::new();
        let text = consume_until_end(broker, &topic, work.path());
        assert!(text.contains("duplicates=0 dead_letters=0"), "{text}");
        assert_eq!(text.matches("order_uncertain").count(), 1, "warned of once:\n{text}");
        check_scattered(work.path(), NAME, &broker.records(&topic, 3), &sent);
    }
}

/// Checks that each record is in the file once, at the place that the manifest names.
#[track_caller]
fn check_scattered(output: &Path, file: &str, records: &[Record], sent: &[u8]) {
    let manifest = manifest(output, file).unwrap();
    assert!(manifest.order_uncertain);
    let partitions: BTreeSet<i32> = manifest.segments.iter().map(|segment| segment.partition).collect();
    assert!(partitions.len() > 1, "a sender without a key uses several partitions: {partitions:?}");
    let stored = std::fs::read(output.join(file)).unwrap();
    let (mut at, mut taken) = (0, BTreeSet::new());
    for segment in &manifest.segments {
        assert_eq!(segment.at, at, "segments are one behind the other");
        let of_partition = records.iter().filter(|record| record.partition == segment.partition);
        let range = segment.first_offset as usize..segment.next_offset as usize;
        let of_segment = of_partition.skip(range.start).take(range.len());
        let bytes: Vec<u8> = of_segment.flat_map(|record| record.data().unwrap()).collect();
        at += segment.bytes;
        assert!(stored[segment.at as usize..at as usize] == bytes, "{segment:?} has other bytes");
        for offset in range {
            assert!(taken.insert((segment.partition, offset)), "offset {offset} is in twice");
        }
    }
    assert_eq!((at, taken.len()), (stored.len() as u64, records.len()), "no byte and no record is missing");
    let sorted = |mut chunks: Vec<Vec<u8>>| {
        chunks.sort();
        chunks
    };
    let chunks = sorted(records.iter().map(|record| record.data().unwrap()).collect());
    assert!(chunks == sorted(sent.chunks(1000).map(<[u8]>::to_vec).collect()), "the topic has what was sent");
}
