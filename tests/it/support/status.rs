//! Requests to `--admin-listen` over HTTP/1.0, which ends each answer by closing.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::DEADLINE;

/// Returns the body of the answer to `path`.
#[track_caller]
pub(crate) fn get(addr: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {addr}\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (_, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {answer:?}"));
    body.to_owned()
}

/// Returns a value of /metrics, by its name without `lea_`.
#[track_caller]
pub(crate) fn metric(addr: SocketAddr, name: &str) -> u64 {
    find_metric(addr, name).unwrap_or_else(|| panic!("no metric {name}"))
}

/// Returns a value of /metrics, or `None` while it is absent, as `cluster_up` is until the first attempt.
#[track_caller]
pub(crate) fn find_metric(addr: SocketAddr, name: &str) -> Option<u64> {
    let body = get(addr, "/metrics");
    let value =
        body.lines().find_map(|line| line.strip_prefix("lea_")?.strip_prefix(name)?.strip_prefix(' '))?;
    Some(value.parse().unwrap())
}

/// Returns the state in /health: `ok`, `disk_full`, `shutting_down`.
#[track_caller]
pub(crate) fn health(addr: SocketAddr) -> String {
    let body: serde_json::Value = serde_json::from_str(&get(addr, "/health")).unwrap();
    body["status"].as_str().unwrap().to_owned()
}
