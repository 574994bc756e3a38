//! A cluster as the store, with real nodes of Elasticsearch 7.17 and OpenSearch 3. Each acknowledged event
//! must be stored once, although processes are killed, nodes are unreachable and disks are full.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use super::support::broker::free_port;
use super::support::process::Process;
use super::support::search_node::{ELASTICSEARCH_7, Node, OPENSEARCH_3, exchange};
use super::support::status::{find_metric, health, metric};
use super::support::{DEADLINE, Events, Random, Workdir, lea, long, wait_for, wait_until};

/// Time limit for the start of a node, while other nodes start on the same two cores.
const NODE_DEADLINE: Duration = Duration::from_secs(240);

/// Events per request.
const BULK: u64 = 20;

/// Pause between two requests of a sender, so that a node can start at the same time.
const PACE: Duration = Duration::from_millis(20);

/// The same pause in the long outage, because all spooled events must be checked afterwards.
const SLOW_PACE: Duration = Duration::from_secs(1);

/// More than the free space of any disk.
const WATERMARK_REACHED: &str = "100tb";

/// Less than the free space of every disk.
const WATERMARK_FAR: &str = "1mb";

/// A lea in front of a cluster, which can be killed and restarted.
struct Front {
    work: Workdir,
    url: String,
    flags: Vec<String>,
    events: Option<Events>,
    addr: Arc<Mutex<Option<SocketAddr>>>,
}

impl Front {
    #[track_caller]
    fn start(node: SocketAddr, flags: &[&str]) -> Front {
        let flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
        let url = format!("http://{node}");
        let mut front = Front { work: Workdir::new(), url, flags, events: None, addr: Arc::default() };
        front.restart();
        front
    }

    #[track_caller]
    fn restart(&mut self) {
        let mut flags = vec!["--cluster", &self.url, "--admin-listen", "0"];
        flags.extend(self.flags.iter().map(String::as_str));
        let events = Events::start(&self.work.join("out"), &flags);
        *self.addr.lock().unwrap() = Some(events.http());
        self.events = Some(events);
    }

    fn kill9(&mut self) {
        *self.addr.lock().unwrap() = None;
        if let Some(mut events) = self.events.take() {
            events.process().kill();
        }
    }

    fn events(&mut self) -> &mut Events {
        self.events.as_mut().expect("it runs")
    }

    fn status(&mut self) -> SocketAddr {
        self.events().addr("admin")
    }

    #[track_caller]
    fn metric(&mut self, name: &str) -> u64 {
        metric(self.status(), name)
    }

    #[track_caller]
    fn wait_metric(&mut self, name: &str, what: &str, is_met: impl Fn(u64) -> bool) {
        let status = self.status();
        wait_until(NODE_DEADLINE, &format!("{name} {what}"), || {
            find_metric(status, name).is_some_and(&is_met)
        });
    }

    /// Waits until the cluster has all events.
    #[track_caller]
    fn wait_shipped(&mut self) {
        self.wait_metric("spool_events", "to be 0", |events| events == 0);
    }
}

/// Senders that post bulk requests to a lea until they are stopped. No event is sent twice; unacknowledged
/// ones are dropped.
struct Load {
    stop: Arc<AtomicBool>,
    is_slow: Arc<AtomicBool>,
    senders: Vec<JoinHandle<Vec<u64>>>,
    acknowledged: Arc<AtomicU64>,
}

impl Load {
    fn start(addr: &Arc<Mutex<Option<SocketAddr>>>, numbers: &Arc<AtomicU64>, senders: usize) -> Load {
        let (stop, is_slow, acknowledged): (Arc<AtomicBool>, Arc<AtomicBool>, _) = Default::default();
        let sender = |_| {
            let (addr, numbers) = (Arc::clone(addr), Arc::clone(numbers));
            let (stop, is_slow) = (Arc::clone(&stop), Arc::clone(&is_slow));
            let acknowledged = Arc::clone(&acknowledged);
            std::thread::spawn(move || send(&addr, &numbers, (&stop, &is_slow), &acknowledged))
        };
        let senders = (0..senders).map(sender).collect();
        Load { stop, is_slow, senders, acknowledged }
    }

    fn slow_down(&self, on: bool) {
        self.is_slow.store(on, Ordering::Relaxed);
    }

    /// Waits until `count` more events are acknowledged.
    #[track_caller]
    fn wait_more(&self, count: u64) {
        let wanted = self.acknowledged.load(Ordering::Relaxed) + count;
        wait_until(DEADLINE, &format!("{count} more events acknowledged"), || {
            self.acknowledged.load(Ordering::Relaxed) >= wanted
        });
    }

    /// The numbers of all acknowledged events.
    fn end(self) -> Vec<u64> {
        self.stop.store(true, Ordering::Relaxed);
        self.senders.into_iter().flat_map(|sender| sender.join().unwrap()).collect()
    }
}

fn send(
    addr: &Mutex<Option<SocketAddr>>,
    numbers: &AtomicU64,
    (stop, is_slow): (&AtomicBool, &AtomicBool),
    acknowledged: &AtomicU64,
) -> Vec<u64> {
    let mut known = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        std::thread::sleep(if is_slow.load(Ordering::Relaxed) { SLOW_PACE } else { PACE });
        let Some(to) = *addr.lock().unwrap() else { continue };
        let first = numbers.fetch_add(BULK, Ordering::Relaxed);
        let mut body = String::new();
        for number in first..first + BULK {
            let action = match number % 5 {
                // An id given by the sender, in both possible places.
                0 => json!({"index": {"_id": format!("own-{number}")}}),
                1 => json!({"create": {"_id": format!("own-{number}")}}),
                _ => json!({"index": {}}),
            };
            let event = json!({
                "n": number, "sipRequest": "INVITE", "ipIntruder": "203.0.113.9",
                "destNum": "9011972598294121", "userAgent": "friendly-scanner", "country": "XX",
            });
            writeln!(body, "{action}\n{event}").unwrap();
        }
        match exchange(to, "POST", "/opensips/_bulk", body.as_bytes()) {
            Ok((200, answer)) => {
                let items = answer["items"].as_array().unwrap();
                assert_eq!((items.len() as u64, &answer["errors"]), (BULK, &json!(false)));
                known.extend(first..first + BULK);
                acknowledged.fetch_add(BULK, Ordering::Relaxed);
            }
            Ok((status, answer)) => assert!(matches!(status, 429 | 503), "{status} {answer}"),
            // The server was killed.
            Err(_) => {}
        }
    }
    known
}

/// How often each event number is in the cluster.
#[track_caller]
fn found(node: &Node) -> BTreeMap<u64, u64> {
    node.good("POST", "/opensips/_refresh", Value::Null);
    let (mut found, mut after) = (BTreeMap::new(), None);
    loop {
        let mut body =
            json!({"size": 10_000, "_source": false, "sort": [{"n": "asc"}], "track_total_hits": true});
        if let Some(after) = after {
            body["search_after"] = after;
        }
        let answer = node.good("POST", "/opensips/_search", body);
        let hits = answer["hits"]["hits"].as_array().unwrap();
        for hit in hits {
            *found.entry(hit["sort"][0].as_u64().unwrap()).or_default() += 1;
        }
        match hits.last() {
            Some(last) => after = Some(last["sort"].clone()),
            None => {
                // Two events with one number could be on different pages.
                assert_eq!(answer["hits"]["total"]["value"], found.values().sum::<u64>());
                return found;
            }
        }
    }
}

#[track_caller]
fn check_once(node: &Node, acknowledged: &[u64]) {
    let found = found(node);
    let missing: Vec<_> = acknowledged.iter().filter(|number| !found.contains_key(number)).collect();
    let doubled: Vec<_> = found.iter().filter(|(_, times)| **times > 1).collect();
    assert!(missing.is_empty(), "{} of {} are missing: {missing:?}", missing.len(), acknowledged.len());
    assert!(doubled.is_empty(), "{} of {} are there twice: {doubled:?}", doubled.len(), found.len());
    eprintln!("{} acknowledged, {} there, each once", acknowledged.len(), found.len());
}

#[test]
fn each_acknowledged_event_is_in_elasticsearch_once() {
    check_all(ELASTICSEARCH_7);
}

#[test]
fn each_acknowledged_event_is_in_opensearch_once() {
    check_all(OPENSEARCH_3);
}

/// All scenarios that need a node, one after another.
fn check_all(version: &'static str) {
    let node = Node::new(version, "http.max_content_length: 1mb");
    let acknowledged = check_outages(&node);
    check_once(&node, &acknowledged);
    check_form(&node);
    check_unfit(&node);
    check_large(&node);
    check_days(&node);
    check_mappings(&node);
    check_tls(&node);
}

/// Two lea processes under load, in front of a node that is unreachable, killed and read-only. One of them is
/// killed repeatedly.
fn check_outages(node: &Node) -> Vec<u64> {
    let numbers = Arc::default();
    let mut random = Random::new("check_outages");
    let mut fronts = [Front::start(node.addr(), &[]), Front::start(node.addr(), &[])];
    let loads = [Load::start(&fronts[0].addr, &numbers, 2), Load::start(&fronts[1].addr, &numbers, 1)];

    // The node is unreachable from the start; events are accepted.
    loads.iter().for_each(|load| load.wait_more(500));
    let status = fronts[0].status();
    wait_until(DEADLINE, "the outage in /health", || health(status) == "cluster_unreachable");
    assert!(fronts[0].metric("spool_events") >= 500);
    node.start();
    fronts[0].wait_metric("cluster_acked_total", "to grow", |events| events >= 500);
    wait_until(DEADLINE, "the end of the outage in /health", || health(status) == "ok");

    // The lea is killed.
    for _ in 0..if long() { 200 } else { 10 } {
        loads[0].wait_more(BULK * (1 + random.below(20)));
        fronts[0].kill9();
        fronts[0].restart();
    }
    fronts[0].wait_metric("cluster_acked_total", "to grow", |events| events > 0);

    check_full_disk(node, &mut fronts[0], &loads);

    // The node is killed and stays down for some time.
    node.kill();
    let away = Instant::now();
    loads.iter().for_each(|load| load.wait_more(500));
    loads.iter().for_each(|load| load.slow_down(true));
    let least = Duration::from_secs(if long() { 3_600 } else { 20 });
    while away.elapsed() < least {
        loads.iter().for_each(|load| load.wait_more(BULK));
    }
    loads.iter().for_each(|load| load.slow_down(false));
    eprintln!("away for {:?}, {} events wait", away.elapsed(), fronts[0].metric("spool_events"));
    node.start();
    let acknowledged = loads.into_iter().flat_map(Load::end).collect();
    for mut front in fronts {
        front.wait_shipped();
        let said = front.events.take().unwrap().term();
        assert!(said.contains("spool_events=0"), "{said}");
        assert!(said.contains("rejected_events=0"), "{said}");
    }
    acknowledged
}

/// The disk watermark is reached, so that indices become read-only. In the long form the node detects it,
/// which takes half a minute; in the short form the test sets the block itself.
fn check_full_disk(node: &Node, front: &mut Front, loads: &[Load]) {
    let is_full = |on: bool| {
        if !long() {
            let block = json!({"index.blocks.read_only_allow_delete": on.then_some(true)});
            return drop(node.good("PUT", "/opensips/_settings", block));
        }
        let mark = if on { WATERMARK_REACHED } else { WATERMARK_FAR };
        let disk = json!({
            "threshold_enabled": true, "watermark": {"low": mark, "high": mark, "flood_stage": mark},
        });
        let settings = json!({"cluster": {"info.update.interval": "10s", "routing.allocation.disk": disk}});
        node.good("PUT", "/_cluster/settings", json!({ "persistent": settings }));
    };
    is_full(true);
    front.wait_metric("cluster_up", "to be 0", |is_up| is_up == 0);
    loads.iter().for_each(|load| load.wait_more(500));
    let refused = front.metric("cluster_rejected_total");
    let said = front.events().process().stderr();
    assert!(said.contains("read-only"), "{said}");
    is_full(false);
    front.wait_metric("cluster_up", "to be 1", |is_up| is_up == 1);
    assert_eq!(refused, 0, "a full disk is nobody's mistake");
}

/// The indices in the cluster: names, types, added fields.
fn check_form(node: &Node) {
    let mut front = Front::start(node.addr(), &["--lines", "0"]);
    let http = front.events().http();
    let today = chrono::Utc::now().format("%Y.%m.%d").to_string();
    let event = json!({
        "time": chrono::Utc::now().format("%Y-%m-%d %H:%M:%S-0000").to_string(), "sipRequest": "INVITE",
        "ipIntruder": "203.0.113.9", "destNum": "9011972598294121", "location": "-23.54,-46.63",
    });
    let (status, answer) = exchange(http, "POST", "/honeypot/1", event.to_string().as_bytes()).unwrap();
    assert_eq!((status, &answer["result"]), (201, &json!("created")));
    // Values that do not fit their types must not lose an event.
    let odd =
        json!({"time": "soon", "ipIntruder": "somewhere", "location": "x", "portHost": "many", "destNum": 7});
    let (status, _) = exchange(http, "POST", "/honeypot/_doc/own", odd.to_string().as_bytes()).unwrap();
    assert_eq!(status, 201);
    let (status, _) = exchange(http, "POST", "/honeypot/_refresh", b"null").unwrap();
    assert_eq!(status, 200);

    let index = format!("honeypot-{today}");
    let there = node.good("GET", "/honeypot/_search?version=true", Value::Null);
    let hits = there["hits"]["hits"].as_array().unwrap();
    let hit = |id: &str| hits.iter().find(|hit| hit["_id"] == id).unwrap_or_else(|| panic!("{id}: {there}"));
    let stored = hit(answer["_id"].as_str().unwrap());
    assert_eq!(stored["_index"], index);
    let mut source = stored["_source"].clone();
    let added = source.as_object_mut().unwrap().remove("lea").unwrap();
    assert_eq!(source, event);
    assert_eq!(added["number"], json!({"destNum": "+972598294121"}));
    assert_eq!(hit("own")["_source"]["ipIntruder"], "somewhere");

    let count =
        |query: Value| node.good("POST", "/honeypot/_count", json!({ "query": query }))["count"].clone();
    assert_eq!(count(json!({"term": {"lea.number.destNum": "+972598294121"}})), 1);
    assert_eq!(count(json!({"term": {"ipIntruder": "203.0.113.0/24"}})), 1);
    assert_eq!(count(json!({"term": {"ipIntruder.keyword": "somewhere"}})), 1);
    assert_eq!(count(json!({"range": {"lea.time": {"gte": "now-1d", "lte": "now+1d"}}})), 2);
    assert_eq!(count(json!({"range": {"time": {"gte": "now-1d"}}})), 1);
    let near = json!({"geo_distance": {"distance": "1km", "location": {"lat": -23.54, "lon": -46.63}}});
    assert_eq!(count(near), 1);
    // A query through lea finds the number by any dialled form.
    assert_eq!(front.events().count("/honeypot/_count?q=destNum:00972598294121"), 1);
    front.events.take().unwrap().term();
}

/// An event that the cluster rejects becomes a dead letter with the reason, and does not stop other events.
fn check_unfit(node: &Node) {
    let mut front = Front::start(node.addr(), &[]);
    let http = front.events().http();
    let post = |event: Value| {
        let (status, answer) = exchange(http, "POST", "/unfit/_doc", event.to_string().as_bytes()).unwrap();
        assert_eq!(status, 201, "{answer}");
    };
    post(json!({"host": {"name": "a"}, "n": 1}));
    front.wait_shipped();
    post(json!({"host": "a", "n": 2}));
    post(json!({"host": {"name": "b"}, "n": 3}));
    front.wait_shipped();
    assert_eq!(front.metric("cluster_rejected_total"), 1);
    node.good("POST", "/unfit/_refresh", Value::Null);
    assert_eq!(node.good("GET", "/unfit/_count", Value::Null)["count"], 2);
    let letters = std::fs::read_to_string(front.work.join("out/.lea/event-dead-letters.jsonl")).unwrap();
    let letter: Value = serde_json::from_str(letters.trim()).unwrap();
    assert_eq!(letter["source"], format!("cluster http://{} unfit", node.addr()));
    assert!(letter["reason"].as_str().unwrap().contains("host"), "{letter}");
    let text: Value = serde_json::from_str(letter["text"].as_str().unwrap()).unwrap();
    assert_eq!(text, json!({"host": "a", "n": 2}), "as it came");
    front.events.take().unwrap().term();
}

/// A bulk request that is too large is split; a single event that is too large becomes a dead letter.
fn check_large(node: &Node) {
    let mut front = Front::start(node.addr(), &[]);
    let event = |bytes: usize| json!({"x": "x".repeat(bytes - 8)}).to_string();
    let lines: String = [300_000, 300_000, 300_000, 300_000, 300_000, 1 << 20, 300_000]
        .iter()
        .map(|bytes| format!("{{\"index\":{{}}}}\n{}\n", event(*bytes)))
        .collect();
    let (status, answer) = exchange(front.events().http(), "POST", "/large/_bulk", lines.as_bytes()).unwrap();
    assert_eq!((status, &answer["errors"]), (200, &json!(false)));
    front.wait_shipped();
    assert_eq!((front.metric("cluster_acked_total"), front.metric("cluster_rejected_total")), (6, 1));
    let letters = std::fs::read_to_string(front.work.join("out/.lea/event-dead-letters.jsonl")).unwrap();
    let letter: Value = serde_json::from_str(letters.trim()).unwrap();
    assert!(letter["reason"].as_str().unwrap().starts_with("status 413"), "{}", letter["reason"]);
    assert_eq!(letter["text"].as_str().unwrap().len(), 1 << 20);
    node.good("POST", "/large/_refresh", Value::Null);
    assert_eq!(node.good("GET", "/large/_count", Value::Null)["count"], 6);
    front.events.take().unwrap().term();
}

/// Events are in the indices of their days. Old ones are deleted, and indices of other programs are not.
fn check_days(node: &Node) {
    let day = |back: i64| chrono::Utc::now() - chrono::TimeDelta::days(back);
    let name = |back: i64| format!("aged-{}", day(back).format("%Y.%m.%d"));
    let mut front = Front::start(node.addr(), &[]);
    let http = front.events().http();
    for back in [0, 3, 20, 100] {
        let event = json!({"@timestamp": day(back).to_rfc3339(), "back": back});
        exchange(http, "POST", "/aged/_doc", event.to_string().as_bytes()).unwrap();
    }
    // A sender that uses daily index names itself.
    exchange(http, "POST", "/aged-2020.01.02/_doc", b"{}").unwrap();
    front.wait_shipped();
    front.events.take().unwrap().term();
    let indices = || {
        let all = node.good("GET", "/_cat/indices/aged*,other*?format=json&h=index", Value::Null);
        let mut names: Vec<String> =
            all.as_array().unwrap().iter().map(|one| one["index"].as_str().unwrap().to_owned()).collect();
        names.sort();
        names
    };
    let made: Vec<String> = vec!["aged-2020.01.02".to_owned(), name(20), name(3), name(0)];
    assert_eq!(indices(), made);
    for others in ["aged-archive", "aged-2020.01.03-x", "other-2020.01.01"] {
        node.good("PUT", &format!("/{others}"), json!({}));
    }
    let mut front = Front::start(node.addr(), &["--keep-days", "3"]);
    front.wait_metric("cluster_deleted_indices_total", "to be 2", |deleted| deleted == 2);
    let left = vec![
        "aged-2020.01.03-x".to_owned(),
        name(3),
        name(0),
        "aged-archive".to_owned(),
        "other-2020.01.01".to_owned(),
    ];
    assert_eq!(indices(), left);
    front.events.take().unwrap().term();
}

/// The mapping of a sender applies, also to later days. An existing index is used as it is.
fn check_mappings(node: &Node) {
    node.good("PUT", "/standing", json!({"mappings": {"properties": {"destNum": {"type": "keyword"}}}}));
    let mut front = Front::start(node.addr(), &[]);
    let http = front.events().http();
    let put = |path: &str, body: Value| exchange(http, "PUT", path, body.to_string().as_bytes()).unwrap();
    let mapping = json!({"mappings": {"properties": {"code": {"type": "keyword"}}}});
    assert_eq!(put("/mapped", mapping.clone()).0, 200);
    assert_eq!(put("/mapped", mapping).0, 400, "it is there");
    assert_eq!(put("/mapped/_mapping", json!({"properties": {"more": {"type": "ip"}}})).0, 200);
    assert_eq!(put("/mapped/_mapping", json!({"properties": {"code": {"type": "long"}}})).0, 400);
    let template = node.good("GET", "/_index_template/lea-mapped", Value::Null);
    let fields = &template["index_templates"][0]["index_template"]["template"]["mappings"]["properties"];
    assert_eq!((&fields["code"]["type"], &fields["more"]["type"]), (&json!("keyword"), &json!("ip")));
    let count = |path: &str| exchange(http, "GET", path, b"null").unwrap().1["count"].clone();
    assert_eq!(count("/mapped/_count"), 0);
    for index in ["mapped", "standing"] {
        let event = json!({"code": 1, "destNum": "00972598294121"}).to_string();
        exchange(http, "POST", &format!("/{index}/_doc?refresh=true"), event.as_bytes()).unwrap();
        assert_eq!(count(&format!("/{index}/_count?q=destNum:972598294121")), 1, "{index}");
    }
    assert!(front.events().process().stderr().contains("index_preexisting index=standing"));
    assert_eq!(node.good("GET", "/standing/_count", Value::Null)["count"], 1);
    front.events.take().unwrap().term();
}

/// https with a private authority. Without the certificate nothing is sent.
fn check_tls(node: &Node) {
    let work = Workdir::new();
    let certificate = |name: &str, more: &[&str]| {
        let (key, out) = (work.join(format!("{name}.key")), work.join(format!("{name}.pem")));
        let mut openssl = Command::new("openssl");
        openssl.args([
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=lea-tests",
        ]);
        openssl.arg("-keyout").arg(key).arg("-out").arg(out).args(more).current_dir(work.path());
        let made = openssl.output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    };
    certificate("ca", &[]);
    let server = ["-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE"];
    certificate("server", &[&["-CA", "ca.pem", "-CAkey", "ca.key"], &server[..]].concat());
    let port = free_port();
    let mut socat = Command::new("socat");
    socat.arg(format!(
        "OPENSSL-LISTEN:{port},bind=127.0.0.1,reuseaddr,fork,verify=0,cert={},key={}",
        work.join("server.pem").display(),
        work.join("server.key").display()
    ));
    socat.arg(format!("TCP:{}", node.addr())).stdin(Stdio::null()).stdout(Stdio::null());
    let _socat = Process::start(&mut socat);
    wait_until(DEADLINE, "socat", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
    let url = format!("https://lea:secret@127.0.0.1:{port}");
    for (ca, is_trusted) in [(true, true), (false, false)] {
        let path = work.join("ca.pem").display().to_string();
        let mut flags = vec!["--cluster", &url, "--admin-listen", "0"];
        flags.extend(if ca { vec!["--cluster-ca", &path] } else { Vec::new() });
        let mut events = Events::start(&work.join(format!("out-{ca}")), &flags);
        let status = events.addr("admin");
        exchange(events.http(), "POST", "/tls/_doc", b"{}").unwrap();
        if is_trusted {
            wait_until(DEADLINE, "the event confirmed", || metric(status, "cluster_acked_total") == 1);
        } else {
            wait_until(DEADLINE, "the outage", || find_metric(status, "cluster_up") == Some(0));
        }
        let said = events.term();
        assert!(!said.contains("secret"), "{said}");
    }
}

/// A port without a listener.
fn nobody() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], free_port()))
}

#[test]
fn a_full_queue_is_told_and_nothing_acknowledged_is_lost_over_stops() {
    let mut front = Front::start(nobody(), &["--spool-bytes-max", "1M", "--lines", "0"]);
    let http = front.events().http();
    let event = json!({"text": "x".repeat(20_000)}).to_string();
    let mut taken = 0;
    let refused = wait_for(DEADLINE, "a full queue", || {
        match exchange(http, "POST", "/a/_doc", event.as_bytes()).unwrap() {
            (201, _) => {
                taken += 1;
                None
            }
            refused => Some(refused),
        }
    });
    assert_eq!((refused.0, &refused.1["error"]["type"]), (429, &json!("es_rejected_execution_exception")));
    assert_eq!(taken, (1 << 20) / 20_100, "events of a little more than 20,000 bytes");
    let status = front.status();
    assert_eq!(health(status), "spool_full");
    // Lines are not read.
    let mut lines = std::net::TcpStream::connect(front.events().addr("lines")).unwrap();
    std::io::Write::write_all(&mut lines, format!("{event}\n").as_bytes()).unwrap();
    assert_eq!(front.metric("spool_events"), taken);
    drop(lines);

    // The shutdown timeout also limits the wait for an unreachable cluster.
    let stopping = Instant::now();
    let mut events = front.events.take().unwrap();
    events.process().signal(Signal::TERM);
    events.process().wait_code(DEADLINE, 1);
    assert!(stopping.elapsed() < Duration::from_secs(20), "{:?}", stopping.elapsed());
    let said = events.process().stderr();
    assert!(said.contains(&format!(" spool_events={taken} ")), "{said}");
    assert!(said.contains("lost_events=1"), "the line that had no room: {said}");
    front.restart();
    assert_eq!(front.metric("spool_events"), taken);
    front.kill9();
    front.restart();
    assert_eq!(front.metric("spool_events"), taken);
}

#[test]
fn what_cannot_be_a_store_is_wrong_usage() {
    let work = Workdir::new();
    let check = |flags: &[&str], why: &str| {
        let mut command = Command::new(lea());
        command.args(["serve-events", "--http", "0", "--output"]).arg(work.join("out")).args(flags);
        let mut process = Process::start(command.stdin(Stdio::null()).stdout(Stdio::null()));
        process.wait_code(DEADLINE, 2);
        let said = process.stderr();
        assert!(said.contains(why) && !said.contains("secret"), "{flags:?}: {said}");
    };
    check(&["--cluster", "ftp://u:secret@a"], "not an http or https URL");
    check(&["--cluster", "http://u:secret@a/index"], "must not contain an index");
    check(&["--cluster", "http://a", "--cluster-ca", "x.pem"], "applies only to an https URL");
    check(&["--cluster", "http://a", "--keep-days", "0"], "--keep-days");
    check(&["--cluster", "http://a", "--keep-days", "36501"], "--keep-days");
    check(&["--cluster", "http://a", "--spool-bytes-max", "1023K"], "at least 1M");
    check(&["--cluster-ca", "x.pem"], "requires --cluster");
}

#[test]
fn the_configuration_names_the_cluster_and_a_start_without_it_tells_what_is_left() {
    let work = Workdir::new();
    let config = json!({"parameters": {
        "loggerLevel": "INFO", "tcpServer": {"address": "", "port": 0},
        "events": {"http": "127.0.0.1:0", "cluster": format!("http://lea:secret@{}", nobody()), "keepDays": 30},
    }});
    let config = work.write("lea.conf", config.to_string());
    let mut command = Command::new(lea());
    command.args(["run", "--config"]).arg(config).arg("--output").arg(work.join("out"));
    let mut process = Process::start(command.stdin(Stdio::null()).stdout(Stdio::null()));
    let http: SocketAddr = process.wait_line(DEADLINE, "listener=http", |line| {
        line.strip_prefix("listening addr=")?.strip_suffix(" listener=http")?.parse().ok()
    });
    assert_eq!(exchange(http, "POST", "/a/_doc", b"{}").unwrap().0, 201);
    let (status, answer) = exchange(http, "GET", "/a/_count", b"null").unwrap();
    assert_eq!(status, 503, "{answer}");
    process.signal(Signal::TERM);
    process.wait_code(DEADLINE, 0);
    let said = process.stderr();
    assert!(said.contains(" spool_events=1 ") && !said.contains("secret"), "{said}");
    let said = Events::start(&work.join("out"), &[]).term();
    assert!(said.contains("spool_not_empty events=1"), "{said}");
}
