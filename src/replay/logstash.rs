//! Sends lines as real senders do to Logstash (docs/protocol.md, section 4): one connection for all streams,
//! interleaved, one line per chunk. Runs in the streams' threads.
//!
//! Invariant: a line is written completely before the next one starts. After a failure, the next stream that
//! opens reconnects.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use socket2::Socket;

use crate::replay::chunk::{self, ChunkLabels};
use crate::replay::sink::{CloseMode, Delivery, SendError, StreamSender, StreamSink};
use crate::replay::tcp::{TcpTarget, send_all};
use crate::runtime::shutdown::Shutdown;
use crate::runtime::time::rfc3339_now;
use crate::{Error, Result};

/// Time limit for connecting after an attempt has failed.
const SECOND_TIMEOUT: Duration = Duration::from_secs(1);

/// Destination that receives lines.
#[derive(Debug)]
pub(crate) struct LogstashSink {
    shared: Arc<LineConnection>,
}

#[derive(Debug)]
struct LineConnection {
    peer: TcpTarget,
    /// Host name of this machine.
    host: String,
    connection: Mutex<Connection>,
}

#[derive(Debug, Default)]
struct Connection {
    socket: Option<Socket>,
    /// True if the last attempt to connect failed.
    has_failed: bool,
}

impl LineConnection {
    fn connection(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl LogstashSink {
    /// Does not connect yet.
    pub(crate) fn new(peer: TcpTarget) -> LogstashSink {
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        LogstashSink { shared: Arc::new(LineConnection { peer, host, connection: Mutex::default() }) }
    }
}

impl StreamSink for LogstashSink {
    fn check_name(&self, name: &[u8], _: &[u8]) -> Result<(), String> {
        chunk::check_name(name)
    }

    fn open(&self, name: &[u8], shutdown: &Shutdown) -> Result<Box<dyn StreamSender>, SendError> {
        let mut connection = self.shared.connection();
        if connection.socket.is_none() {
            // Streams connect one after another: only the first one waits for a server that does not answer.
            let limit = if connection.has_failed { SECOND_TIMEOUT } else { self.shared.peer.connect_timeout };
            let connected = self.shared.peer.connect_within(limit, shutdown);
            connection.has_failed = connected.is_err();
            connection.socket = Some(connected?);
        }
        Ok(Box::new(LineSender {
            shared: Arc::clone(&self.shared),
            labels: ChunkLabels::from_stream_name(name),
        }))
    }
}

/// Stream being sent.
struct LineSender {
    shared: Arc<LineConnection>,
    labels: ChunkLabels,
}

impl StreamSender for LineSender {
    fn send(&mut self, bytes: &[u8], shutdown: &Shutdown) -> Result<(), SendError> {
        let time = rfc3339_now();
        let line = self.labels.line(&chunk::encode_base64(bytes), &time, &self.shared.host) + "\n";
        let mut connection = self.shared.connection();
        let Some(socket) = &connection.socket else {
            let gone = std::io::ErrorKind::NotConnected.into();
            return Err(Error::net("send to", &self.shared.peer.label)(gone).into());
        };
        let sent = send_all(socket, &self.shared.peer.label, line.as_bytes(), shutdown);
        if sent.is_err() {
            // Part of the line may have been sent, so nothing may follow it on this connection.
            connection.socket = None;
        }
        sent
    }

    /// Lines are not acknowledged.
    fn close(self: Box<Self>, _: CloseMode, _: &Shutdown) -> Result<Delivery, SendError> {
        Ok(Delivery::Unknown)
    }
}
