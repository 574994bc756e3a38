//! A topic is deleted and created again with the same name. It starts at offset 0, and each of its records is
//! new.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;

use super::{PATIENCE, check_whole, consume_until_end, consumer, listening, produce_as, read};

use crate::support::process::Process;

use crate::support::status::{get, metric};
use crate::support::{Broker, Random, Workdir, generated, manifest, wait_until};

pub(super) fn check(broker: &Broker) {
    while_it_runs(broker);
    while_it_does_not(broker);
}

/// A capture in three pieces, one for each generation of the topic. The second piece has fewer records than
/// the first, the third has more.
struct Pieces {
    work: Workdir,
    content: Vec<u8>,
    ends: [usize; 4],
}

impl Pieces {
    fn new() -> Pieces {
        let content = read("answered-call.pcap");
        let ends = [0, content.len() * 4 / 10, content.len() / 2, content.len()];
        Pieces { work: Workdir::new(), content, ends }
    }

    /// Sends a piece and returns its number of records.
    fn produce(&self, broker: &Broker, topic: &str, nth: usize) -> u64 {
        let piece = &self.content[self.ends[nth]..self.ends[nth + 1]];
        let file = self.work.write("piece", piece);
        produce_as(broker, topic, "a.pcap", file.to_str().unwrap(), &[]);
        // A repeat of the first 24 bytes of a capture would be a re-send, so each generation also has a
        // stream that no other generation has.
        let own = own_content(nth);
        let file = self.work.write("own", &own);
        produce_as(broker, topic, &format!("own-{nth}.pcap"), file.to_str().unwrap(), &[]);
        (piece.len().div_ceil(1000) + own.len().div_ceil(1000)) as u64
    }

    #[track_caller]
    fn check_stored(&self, output: &Path) {
        let own = |nth: usize| (format!("own-{nth}.pcap"), own_content(nth));
        check_whole(output, &[("a.pcap".to_owned(), self.content.clone()), own(0), own(1), own(2)]);
        let segments = manifest(output, "a.pcap").unwrap().segments;
        let at: Vec<u64> = segments.iter().map(|segment| segment.at).collect();
        assert_eq!(at, self.ends[..3].iter().map(|end| *end as u64).collect::<Vec<_>>(), "{segments:?}");
        assert!(segments.iter().all(|segment| segment.first_offset == 0));
        let ids: BTreeSet<_> = segments.iter().map(|segment| segment.topic_id.clone().unwrap()).collect();
        assert_eq!(ids.len(), 3, "each has an id of its own: {segments:?}");
        for (nth, segment) in segments.iter().enumerate() {
            let own = manifest(output, &format!("own-{nth}.pcap")).unwrap();
            assert_eq!(own.segments[0].topic_id, segment.topic_id);
        }
    }
}

/// A capture for one generation of the topic.
fn own_content(nth: usize) -> Vec<u8> {
    generated::pcap(&mut Random::with_seed(nth as u64), 5_000).bytes
}

fn while_it_runs(broker: &Broker) {
    let (pieces, output) = (Pieces::new(), Workdir::new());
    broker.topic("again", 1);
    let mut consuming =
        Process::start(&mut consumer(broker, "again", output.path(), &["--admin-listen", "127.0.0.1:0"]));
    let addr = listening(&mut consuming, "admin");
    let mut records = 0;
    for nth in 0..3 {
        if nth > 0 {
            broker.make_topic_again("again", 1);
        }
        let fresh = pieces.produce(broker, "again", nth);
        records += fresh;
        wait_until(PATIENCE, "each new record", || metric(addr, "kafka_records_total") >= records);
        // The group also gets the new offset if it had a higher offset of the deleted topic.
        wait_until(PATIENCE, "the group to have the new topic's offset", || committed(addr) == Some(fresh));
    }
    consuming.signal(rustix::process::Signal::TERM);
    consuming.wait_code(PATIENCE, 0);
    assert_eq!(consuming.stderr().matches("topic_recreated").count(), 2, "{}", consuming.stderr());
    pieces.check_stored(output.path());
    // The group has the offset of the last generation.
    let text = consume_until_end(broker, "again", output.path());
    assert!(text.contains("consumed records=0 duplicates=0") && !text.contains("WARN"), "{text}");
}

fn committed(addr: SocketAddr) -> Option<u64> {
    let start = "lea_kafka_partition_committed_offset{topic=\"again\",partition=\"0\"} ";
    get(addr, "/metrics").lines().find_map(|line| line.strip_prefix(start)?.parse().ok())
}

fn while_it_does_not(broker: &Broker) {
    let (pieces, output) = (Pieces::new(), Workdir::new());
    broker.topic("again-later", 1);
    for nth in 0..3 {
        if nth > 0 {
            broker.make_topic_again("again-later", 1);
        }
        let records = pieces.produce(broker, "again-later", nth);
        let text = consume_until_end(broker, "again-later", output.path());
        assert!(text.contains(&format!("consumed records={records} duplicates=0")), "{text}");
        assert_eq!(text.matches("topic_recreated").count(), usize::from(nth > 0), "{text}");
    }
    pieces.check_stored(output.path());
}
