//! How fast the embedded store takes events and answers: `event_store DIR EVENTS BATCH [SENDERS]`.
//!
//! Events are those of a SIP proxy under attack, some 400 bytes each. While they are written a thread of its own counts
//! one number again and again. Then: counts of numbers with few and with very many hits, a histogram by day, searches.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use lea::iri::document::{Document, Mode};
use lea::iri::query::{
    Aggregation, Fields, Interval, Operator, Query, Search, Sort, SortKey, SourceFilter, Value,
};
use lea::iri::store::Store;
use lea::iri::store::sqlite::{SqliteStore, StoreConfig};

const AGENTS: [&str; 8] = [
    "friendly-scanner",
    "sipcli/v1.8",
    "VaxSIPUserAgent/3.1",
    "pplsip",
    "Cisco-SIPGateway/IOS-12.x",
    "sipvicious",
    "eyeBeam release 3006o stamp 17551",
    "PBX",
];
const PREFIXES: [&str; 8] = ["+", "00", "011", "9011", "900", "810", "901511", ""];
const COUNTRIES: [(&str, &str); 6] =
    [("IL", "972"), ("GB", "44"), ("US", "1"), ("SE", "46"), ("DE", "49"), ("PS", "970")];

struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

/// Every tenth event asks for one number; the others are spread as attacks are: few numbers often, many rarely.
fn number(random: &mut Random) -> String {
    let prefix = PREFIXES[random.below(8) as usize];
    let national = match random.below(10) {
        0 => return format!("{prefix}972598294121"),
        1..=6 => 447_700_900_000 + random.below(1_000),
        _ => 12_025_550_100 + random.below(100),
    };
    // The last digits dialled behind it make them many.
    match random.below(4) {
        0 => format!("{prefix}{national}"),
        _ => format!("{prefix}{national}{:02}", random.below(100)),
    }
}

fn event(random: &mut Random, at: u64) -> Vec<u8> {
    let (country, _) = COUNTRIES[random.below(6) as usize];
    let time = chrono::DateTime::from_timestamp(1_760_000_000 + at as i64, 0).unwrap();
    let (agent, number) = (AGENTS[random.below(8) as usize], number(random));
    let intruder = format!("198.51.{}.{}", random.below(100), random.below(256));
    let branch = random.below(u64::MAX);
    format!(
        "{{\"time\":\"{}\",\"sipRequest\":\"INVITE\",\"ipIntruder\":\"{intruder}\",\"destNum\":\"{number}\",\"userAgent\":\"{agent}\",\
         \"country\":\"{country}\",\"location\":\"{}.{:02},{}.{:02}\",\"ipHost\":\"203.0.113.{}\",\"callId\":\"{branch:016x}@{intruder}\",\
         \"from\":\"sip:{}@203.0.113.9\",\"to\":\"sip:{number}@203.0.113.9\",\"message\":\"INVITE refused, too many attempts from {intruder} within {} seconds\"}}",
        time.format("%Y-%m-%d %H:%M:%S-0300"),
        random.below(90), random.below(100), random.below(180), random.below(100), random.below(16), random.below(1_000), random.below(60),
    )
    .into_bytes()
}

fn documents(random: &mut Random, from: u64, count: u64, all: u64) -> Vec<Document> {
    // Spread over thirty days, whatever their number.
    let at = |n: u64| n * 30 * 86_400 / all.max(1);
    let document = |n| Document {
        index: "opensips".into(),
        kind: Some("1".into()),
        id: None,
        mode: Mode::Index,
        source: event(random, at(n)).into(),
    };
    (from..from + count).map(document).collect()
}

fn asks(number: &str) -> Query {
    let named = |name: &str| Fields::Named(vec![name.to_owned()]);
    let exact = Query::Match { fields: named("destNum"), text: number.to_owned(), operator: Operator::Or };
    let family = Query::Term { field: "destNum._number".into(), value: Value::Text(format!("+{number}")) };
    Query::Bool { must: vec![], should: vec![exact, family], must_not: vec![], should_min: 1 }
}

fn percentiles(name: &str, mut times: Vec<Duration>) {
    times.sort();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
    println!("{name}: p50 {:?} p99 {:?} max {:?} ({} times)", at(0.5), at(0.99), at(1.0), times.len());
}

fn timed<T>(times: &mut Vec<Duration>, work: impl FnOnce() -> T) -> T {
    let begun = Instant::now();
    let done = work();
    times.push(begun.elapsed());
    done
}

fn rss_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = |name: &str| status.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
    let kib: u64 = line("VmHWM").split_whitespace().nth(1).unwrap().parse().unwrap();
    kib / 1024
}

fn family(field: &str, value: &str) -> Option<String> {
    let digits = value.strip_prefix('+').unwrap_or(value);
    let known = ["901511", "9011", "011", "00", "900", "810", ""];
    (field == "destNum")
        .then(|| known.iter().find_map(|prefix| digits.strip_prefix(prefix)).map(|rest| format!("+{rest}")))?
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let number = |at: usize, or: u64| arguments.get(at).map_or(or, |text| text.parse().unwrap());
    let (dir, events, batch, senders) =
        (Path::new(&arguments[1]), number(2, 200_000), number(3, 1_000), number(4, 2));
    let config = StoreConfig { family: std::sync::Arc::new(family), ..StoreConfig::default() };
    let store = SqliteStore::open(dir, config).unwrap();
    ingest(&store, events, batch, senders);
    println!("peak RSS {} MiB", rss_mib());
    let bytes = std::fs::metadata(dir.join(".lea/events.db")).unwrap().len();
    println!("{} bytes an event on the disk ({} MiB)", bytes / events.max(1), bytes >> 20);
    ask(&store);
    println!("peak RSS {} MiB", rss_mib());
}

fn ingest(store: &SqliteStore, events: u64, batch: u64, senders: u64) {
    let (next, bytes, ready) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
    let begun = Instant::now();
    let making = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..senders)
            .map(|sender| {
                let (next, bytes, making) = (&next, &bytes, &making);
                scope.spawn(move || {
                    let mut random = Random(88_172_645_463_325_252 + sender);
                    loop {
                        let from = next.fetch_add(batch, Ordering::Relaxed);
                        if from >= events {
                            break;
                        }
                        let made = Instant::now();
                        let documents = documents(&mut random, from, batch.min(events - from), events);
                        making.fetch_add(made.elapsed().as_micros() as u64, Ordering::Relaxed);
                        bytes.fetch_add(
                            documents.iter().map(|document| document.source.len() as u64).sum(),
                            Ordering::Relaxed,
                        );
                        let written = store.write(documents).unwrap();
                        assert!(written.iter().all(Result::is_ok), "{written:?}");
                    }
                })
            })
            .collect();
        let counter = scope.spawn(|| {
            let mut times = Vec::new();
            while !ready.load(Ordering::Relaxed) {
                timed(&mut times, || store.count(&[], false, &asks("972598294121")).unwrap());
                std::thread::sleep(Duration::from_millis(2));
            }
            percentiles("count while events come", times);
        });
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        let took = begun.elapsed();
        ready.store(true, Ordering::Relaxed);
        counter.join().unwrap();
        let each = bytes.load(Ordering::Relaxed) / events.max(1);
        println!(
            "{events} events of {each} bytes in {took:?}: {:.0} a second in batches of {batch} ({} ms of both went into making them)",
            events as f64 / took.as_secs_f64(),
            making.load(Ordering::Relaxed) / 1_000
        );
    });
}

fn ask(store: &SqliteStore) {
    let many = store.count(&[], false, &asks("972598294121")).unwrap();
    println!("the number with many hits has {many}");
    let mut random = Random(7);
    for (name, is_many) in
        [("count of a number with few hits", false), ("count of the number with many", true)]
    {
        let mut times = Vec::new();
        for _ in 0..2_000 {
            let number = if is_many {
                "972598294121".into()
            } else {
                format!("{}", 4_477_009_000_000_u64 * 10 + random.below(100_000))
            };
            timed(&mut times, || store.count(&[], false, &asks(&number)).unwrap());
        }
        percentiles(name, times);
    }
    let search = |query, sort, aggregations, size| Search {
        indices: vec![],
        ignore_unavailable: false,
        query,
        sort,
        from: 0,
        size,
        after: None,
        source: SourceFilter::default(),
        aggregations,
        typed_keys: false,
    };
    let by_day = |inner| Aggregation::DateHistogram {
        field: "_event_time".into(),
        interval: Interval::Fixed(86_400_000),
        zone_minutes: 0,
        count_min: 1,
        inner,
    };
    let top = Aggregation::Terms {
        field: "userAgent.keyword".into(),
        size: 10,
        by_key: false,
        ascending: false,
        count_min: 1,
        inner: vec![],
    };
    let newest = vec![Sort {
        key: SortKey::Field("_event_time".into()),
        descending: true,
        missing_first: false,
        unmapped_type: None,
    }];
    let agent = Query::Match {
        fields: Fields::Named(vec!["userAgent".into()]),
        text: "friendly-scanner".into(),
        operator: Operator::And,
    };
    let phrase =
        Query::Phrase { fields: Fields::Named(vec!["userAgent".into()]), text: "friendly scanner".into() };
    let cases = [
        ("histogram by day", search(Query::All, vec![], vec![("h".into(), by_day(vec![]))], 0)),
        (
            "histogram by day of one agent",
            search(agent.clone(), vec![], vec![("h".into(), by_day(vec![]))], 0),
        ),
        ("top agents", search(Query::All, vec![], vec![("t".into(), top.clone())], 0)),
        (
            "top agents by day",
            search(Query::All, vec![], vec![("h".into(), by_day(vec![("t".into(), top)]))], 0),
        ),
        ("newest ten", search(Query::All, newest.clone(), vec![], 10)),
        ("newest ten of one agent", search(agent, newest, vec![], 10)),
        ("a phrase", search(phrase, vec![], vec![], 10)),
        (
            "a word in any field",
            search(
                Query::Match { fields: Fields::All, text: "friendly".into(), operator: Operator::Or },
                vec![],
                vec![],
                10,
            ),
        ),
    ];
    for (name, search) in cases {
        let mut times = Vec::new();
        for _ in 0..5 {
            timed(&mut times, || store.search(&search).unwrap());
        }
        percentiles(name, times);
    }
}
