//! /streams: the open streams.

use std::sync::atomic::Ordering;

use serde::Serialize;

use super::json_table;
use crate::cc::stream_registry::{StreamRegistry, StreamStats};
use crate::http::Response;
use crate::runtime::time::rfc3339_ms;

/// Returns all open streams, the oldest first.
pub(super) fn response(live: &StreamRegistry) -> Response {
    let streams = live.list();
    json_table("streams", streams.iter().map(|stream| StreamRow::new(stream)))
}

/// A stream in /streams.
#[derive(Serialize)]
struct StreamRow {
    id: u64,
    peer: std::net::SocketAddr,
    /// `None` until the name is known.
    file: Option<String>,
    bytes: u64,
    packets: u64,
    /// `None` until the first byte of content.
    last_byte: Option<String>,
    connected_at: String,
    state: &'static str,
}

impl StreamRow {
    fn new(stream: &StreamStats) -> StreamRow {
        let last_byte_ms = stream.last_byte_ms.load(Ordering::Relaxed);
        StreamRow {
            id: stream.id,
            peer: stream.peer,
            file: stream.file(),
            bytes: stream.bytes.load(Ordering::Relaxed),
            packets: stream.packets.load(Ordering::Relaxed),
            last_byte: (last_byte_ms != 0).then(|| rfc3339_ms(last_byte_ms)),
            connected_at: rfc3339_ms(stream.connected_ms),
            state: stream.state(),
        }
    }
}
