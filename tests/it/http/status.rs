//! /health, /metrics and /streams.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use lea::cc::stream_registry::StreamRegistry;
use lea::cc::vault::disk_retry::DiskRetry;
use lea::daemon::admin::AdminHandler;
use lea::http::HttpServerConfig;
use lea::runtime::metrics::Metrics;
use lea::runtime::shutdown::Shutdown;
use rustix::io::Errno;
use serde_json::Value;

use super::client::{Client, Running};

struct Kit {
    server: Running,
    stop: Shutdown,
    pressure: Arc<DiskRetry>,
    metrics: Arc<Metrics>,
    live: Arc<StreamRegistry>,
}

fn status() -> Kit {
    let (metrics, live) = (Arc::<Metrics>::default(), Arc::<StreamRegistry>::default());
    let (stop, pressure) = (Shutdown::new().unwrap(), Arc::new(DiskRetry::new(Arc::clone(&metrics))));
    let handler = AdminHandler::new(stop.clone(), Arc::clone(&metrics), Arc::clone(&live));
    Kit { server: Running::start(HttpServerConfig::default(), handler), stop, pressure, metrics, live }
}

#[test]
fn health_says_what_is_wrong() {
    let kit = status();
    let mut client = kit.server.client();
    let mut check = |status: u16, word: &str| {
        let answer = client.get("/health");
        let body: Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!((answer.status, body["status"].as_str()), (status, Some(word)));
        assert_eq!(body["problems"][0]["problem"].as_str(), Some(word).filter(|word| *word == "disk_full"));
        assert_eq!(answer.header("Content-Type"), Some("application/json"));
    };
    check(200, "ok");
    let full = Arc::new(AtomicBool::new(true));
    let writer = std::thread::spawn({
        let (pressure, full) = (Arc::clone(&kit.pressure), Arc::clone(&full));
        let full_now = move || if full.load(Ordering::SeqCst) { Err(Errno::NOSPC.into()) } else { Ok(()) };
        move || pressure.retry("write", "f", full_now)
    });
    while !kit.pressure.is_blocked() {
        std::thread::yield_now();
    }
    check(503, "disk_full");
    full.store(false, Ordering::SeqCst);
    writer.join().unwrap().unwrap();
    check(200, "ok");
    kit.stop.trigger();
    check(503, "draining");
    kit.server.end();
}

#[test]
fn metrics_are_prometheus_text() {
    let kit = status();
    kit.metrics.packets_total.add(7);
    let answer = kit.server.client().get("/metrics");
    assert_eq!(answer.header("Content-Type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let value = |name: &str| -> f64 {
        let line = answer.text().lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name}")).parse().unwrap()
    };
    assert_eq!(value("lea_packets_total"), 7.0);
    assert!(value("process_resident_memory_bytes") > 1e6);
    assert!(value("process_open_fds") >= 4.0);
    assert!(value("process_threads") >= 3.0);
    assert!(value("process_start_time_seconds") > 1.7e9);
    // Each sample follows its TYPE line, and each line has a known form.
    for line in answer.text().lines().filter(|line| !line.starts_with("# ")) {
        let name = line.split([' ', '{']).next().unwrap();
        assert!(answer.text().contains(&format!("# TYPE {name} ")), "{line}");
    }
    kit.server.end();
}

fn rows(client: &mut Client) -> Vec<Value> {
    let answer = client.get("/streams");
    assert_eq!(answer.header("Content-Type"), Some("application/json"));
    let mut all: Value = serde_json::from_slice(&answer.body).unwrap();
    let rows: Vec<Value> = serde_json::from_value(all["streams"].take()).unwrap();
    assert_eq!(all["count"], rows.len());
    rows
}

#[test]
fn streams_are_rows() {
    let kit = status();
    let mut client = kit.server.client();
    assert!(rows(&mut client).is_empty());

    let stream = kit.live.add("[::1]:5000".parse().unwrap(), 1_795_294_781_042);
    let expected = serde_json::json!({
        "id": stream.id, "peer": "[::1]:5000", "file": null, "bytes": 0, "packets": 0, "last_byte": null,
        "connected_at": "2026-11-21T20:59:41.042Z", "state": "handshake",
    });
    assert_eq!(rows(&mut client), [expected]);

    stream.name.set("a\"\\%0A.pcap".to_owned()).unwrap();
    stream.bytes.store(u64::MAX, Ordering::Relaxed);
    stream.last_byte_ms.store(1_795_294_781_500, Ordering::Relaxed);
    let row = &rows(&mut client)[0];
    assert_eq!((&row["file"], &row["state"]), (&Value::from("a\"\\%0A.pcap"), &Value::from("receiving")));
    assert_eq!(
        (&row["bytes"], &row["last_byte"]),
        (&Value::from(u64::MAX), &Value::from("2026-11-21T20:59:41.500Z"))
    );

    kit.live.remove(stream.id);
    for n in 0..10_000 {
        let stream = kit.live.add("127.0.0.1:5000".parse().unwrap(), n);
        stream.name.set(format!("+447700900123-2-3_21_11_2026_20:59:41.{n}.pcap")).unwrap();
    }
    let all = rows(&mut client);
    assert_eq!(all.len(), 10_000);
    assert!(all.windows(2).all(|two| two[0]["id"].as_u64() < two[1]["id"].as_u64()));
    kit.server.end();
}

#[test]
fn other_paths_and_methods() {
    let kit = status();
    let mut client = kit.server.client();
    for path in ["/", "/healthz", "/health/", "//health", "/%68ealth", "/streams/../health"] {
        let answer = client.get(path);
        assert_eq!(answer.status, 404, "{path}");
        assert!(answer.text().contains("/health") && answer.text().contains("/streams"));
    }
    assert_eq!(client.get("/health?x").status, 200);
    assert_eq!(client.get("http://host:1/health").status, 200);
    for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
        client.send(format!("{method} /metrics HTTP/1.1\r\nHost: a\r\n\r\n"));
        let answer = client.answer();
        assert_eq!((answer.status, answer.header("Allow")), (405, Some("GET, HEAD")));
    }
    client.send("HEAD /health HTTP/1.1\r\nHost: a\r\n\r\n");
    let answer = client.head_only();
    assert_eq!((answer.status, answer.header("Content-Length")), (200, Some("15")));
    assert_eq!(client.get("/health").text(), r#"{"status":"ok"}"#);
    kit.server.end();
}

/// A third-party client.
#[test]
fn curl_understands_it() {
    let kit = status();
    let curl = |args: &[&str], path: &str| {
        let url = format!("http://{}{path}", kit.server.addr);
        let output = Command::new("curl").args(["-sS", "--max-time", "20"]).args(args).arg(&url).output();
        output.map(|output| (output.status.code(), String::from_utf8(output.stdout).unwrap()))
    };
    match curl(&[], "/health") {
        Err(error) => {
            assert!(std::env::var_os("CI").is_none(), "curl is missing: {error}");
            eprintln!("SKIPPED: curl is missing: {error}");
        }
        Ok(health) => {
            assert_eq!(health, (Some(0), r#"{"status":"ok"}"#.to_owned()));
            let code = ["-o", "/dev/null", "-w", "%{http_code}"];
            assert_eq!(curl(&code, "/nothing").unwrap().1, "404");
            assert_eq!(curl(&[&code[..], &["-I"]].concat(), "/health").unwrap(), (Some(0), "200".to_owned()));
            let body = "x".repeat(100_000);
            let large = [&code[..], &["-d", &body, "-H", "Transfer-Encoding: chunked"]].concat();
            assert_eq!(curl(&large, "/health").unwrap(), (Some(0), "405".to_owned()));
            let metrics = format!("http://{}/metrics", kit.server.addr);
            let both = curl(&["-w", " new=%{num_connects}\n", &metrics], "/health").unwrap().1;
            assert!(
                both.contains("\n new=1\n") && both.ends_with("} new=0\n"),
                "one connection for both: {both}"
            );
        }
    }
    kit.server.end();
}
