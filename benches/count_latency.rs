//! How fast a number's count is answered over HTTP with a password and a connection that is kept: what a SIP proxy
//! waits for in the middle of a call.
//!
//! `cargo run --release --example count_latency [EVENTS [SECONDS]]`

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use lea::counters::Counters;
use lea::http::Server;
use lea::iri::document::{Document, Mode};
use lea::iri::elastic::{Elastic, User, Users, hash_password};
use lea::iri::number::{Families, Settings};
use lea::iri::store::Store;
use lea::iri::store::sqlite::{SqliteStore, StoreConfig};
use lea::stop::Stop;

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    let mut args = std::env::args().skip(1);
    let events: usize = args.next().map_or(Ok(200_000), |text| text.parse())?;
    let seconds: u64 = args.next().map_or(Ok(3), |text| text.parse())?;
    let dir = tempfile::tempdir()?;
    let families = Arc::new(Families::new(Settings::default())?);
    let for_store = Arc::clone(&families);
    let family: lea::iri::store::sqlite::Family = Arc::new(move |field: &str, value: &str| {
        let canonical = for_store.is_number_field(field).then(|| for_store.canonical(value)).flatten();
        canonical.map(|canonical| canonical.number().to_owned())
    });
    let store = Arc::new(SqliteStore::open(dir.path(), StoreConfig { family, ..StoreConfig::default() })?);
    fill(&*store, events)?;
    let hash = hash_password(b"secret").ok_or("no hash")?;
    let users = Users::new(vec![User { name: "proxy".to_owned(), password_hash: hash }])?;
    let counters = Arc::<Counters>::default();
    let elastic = Elastic::new(store, Some(families), users, Arc::clone(&counters));
    let stop = Stop::new()?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let server =
        Server::spawn(listener, Elastic::server_config(), Arc::new(elastic), stop.clone(), counters)?;
    for connections in [1, 8] {
        report(connections, events, Duration::from_secs(seconds), server.local_addr())?;
    }
    stop.ask();
    server.join()?;
    Ok(())
}

/// The n-th number; one in ten comes again.
fn number(n: usize) -> String {
    format!("90119725{:08}", (n % (n / 10 * 9 + 1)) * 7919 % 100_000_000)
}

fn fill(store: &dyn Store, events: usize) -> Result<(), Failure> {
    let mut n = 0;
    while n < events {
        let batch: Vec<Document> = (n..events.min(n + 1_000)).map(event).collect();
        n += batch.len();
        for written in store.write(batch)? {
            written?;
        }
    }
    Ok(())
}

fn event(n: usize) -> Document {
    let source = format!(
        r#"{{"time":"2016-04-{:02} {:02}:02:07-0300","sipRequest":"INVITE","ipIntruder":"198.51.100.{}","destNum":"{}","userAgent":"friendly-scanner","country":"ZZ","location":"31.5,34.8","ipHost":"203.0.113.9"}}"#,
        n % 28 + 1,
        n % 24,
        n % 250,
        number(n),
    );
    Document {
        index: "opensips".to_owned(),
        kind: None,
        id: None,
        mode: Mode::Index,
        source: source.into_bytes().into(),
    }
}

fn report(connections: usize, events: usize, length: Duration, addr: SocketAddr) -> Result<(), Failure> {
    let clients: Vec<_> = (0..connections)
        .map(|nth| std::thread::spawn(move || latencies(addr, events, nth, length)))
        .collect();
    let mut all = Vec::new();
    for client in clients {
        all.extend(client.join().map_err(|_| "a client failed")??);
    }
    all.sort_unstable();
    let share = |permille: usize| all[(all.len() - 1) * permille / 1000].as_nanos() as f64 / 1000.0;
    writeln!(
        std::io::stdout(),
        "events={events} connections={connections} requests_per_s={:.0} p50_us={:.1} p99_us={:.1} p999_us={:.1} max_us={:.1}",
        all.len() as f64 / length.as_secs_f64(),
        share(500),
        share(990),
        share(999),
        share(1000),
    )?;
    Ok(())
}

/// One question after the other; every second one is about a number that is not there.
fn latencies(
    addr: SocketAddr,
    events: usize,
    nth: usize,
    length: Duration,
) -> Result<Vec<Duration>, Failure> {
    let mut stream = TcpStream::connect(addr)?;
    stream.set_nodelay(true)?;
    let mut answer = [0; 1024];
    let mut latencies = Vec::new();
    let started = Instant::now();
    let mut n = nth * 7;
    while started.elapsed() < length {
        n += 31;
        let asked =
            if n.is_multiple_of(2) { number(n % events) } else { format!("9011447700900{:03}", n % 1000) };
        let request = format!(
            "GET /_count?q=destNum:{asked} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Basic cHJveHk6c2VjcmV0\r\n\r\n"
        );
        let begin = Instant::now();
        stream.write_all(request.as_bytes())?;
        let bytes = stream.read(&mut answer)?;
        let took = begin.elapsed();
        let text = std::str::from_utf8(&answer[..bytes])?;
        if !text.starts_with("HTTP/1.1 200") || text.contains("\"count\":0") == n.is_multiple_of(2) {
            return Err(format!("not the answer that was expected: {text}").into());
        }
        latencies.push(took);
    }
    // The first one has the password hashed.
    latencies.remove(0);
    Ok(latencies)
}
