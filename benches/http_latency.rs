//! Speed of the HTTP server: requests per second and latency of `/health` over keep-alive connections, with 1
//! and 32 connections. Client and server share the process and the machine, so the server alone is faster.
//!
//! `cargo run --release --example http_latency [SECONDS]`

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use lea::daemon::admin::AdminHandler;
use lea::http::{HttpServer, HttpServerConfig};
use lea::runtime::metrics::Metrics;
use lea::runtime::shutdown::Shutdown;

const REQUEST: &[u8] = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n";

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    let seconds: u64 = std::env::args().nth(1).map_or(Ok(3), |text| text.parse())?;
    let stop = Shutdown::new()?;
    let metrics = Arc::<Metrics>::default();
    let status = AdminHandler::new(stop.clone(), Arc::clone(&metrics), Arc::default());
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let server =
        HttpServer::spawn(listener, HttpServerConfig::default(), Arc::new(status), stop.clone(), metrics)?;
    for connections in [1, 32] {
        report(connections, Duration::from_secs(seconds), server.local_addr())?;
    }
    stop.trigger();
    server.join()?;
    Ok(())
}

fn report(connections: usize, length: Duration, addr: SocketAddr) -> Result<(), Failure> {
    let clients: Vec<_> =
        (0..connections).map(|_| std::thread::spawn(move || latencies(addr, length))).collect();
    let mut all = Vec::new();
    for client in clients {
        all.extend(client.join().map_err(|_| "a client failed")??);
    }
    all.sort_unstable();
    let share = |permille: usize| all[(all.len() - 1) * permille / 1000].as_nanos() as f64 / 1000.0;
    let mut out = std::io::stdout();
    writeln!(
        out,
        "connections={connections} requests_per_s={:.0} p50_us={:.1} p99_us={:.1} p999_us={:.1} max_us={:.1}",
        all.len() as f64 / length.as_secs_f64(),
        share(500),
        share(990),
        share(999),
        share(1000),
    )?;
    Ok(())
}

/// Sends requests one after another, each after the response to the previous one.
fn latencies(addr: SocketAddr, length: Duration) -> Result<Vec<Duration>, Failure> {
    let mut stream = TcpStream::connect(addr)?;
    stream.set_nodelay(true)?;
    let mut answer = [0; 1024];
    let mut latencies = Vec::new();
    let started = Instant::now();
    while started.elapsed() < length {
        let sent_at = Instant::now();
        stream.write_all(REQUEST)?;
        let bytes = stream.read(&mut answer)?;
        if !answer[..bytes].ends_with(br#"{"status":"ok"}"#) {
            return Err("not the answer that was expected, or not in one piece".into());
        }
        latencies.push(sent_at.elapsed());
    }
    Ok(latencies)
}
