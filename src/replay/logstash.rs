//! Sending lines as the field's senders do to Logstash (protocol, section 4): one connection, on which all streams go
//! interleaved, a line a chunk. Runs in the streams' threads.
//!
//! Invariant: a line is written whole before the next one begins; after a failure the connection is made anew by the
//! next stream that opens.

use std::sync::{Arc, Mutex, MutexGuard};

use chrono::{SecondsFormat, Utc};
use socket2::Socket;

use crate::replay::chunk::{self, Labels};
use crate::replay::sink::{Broken, Close, Sender, Sink};
use crate::replay::tcp::{Peer, send_all};
use crate::stop::Stop;
use crate::{Error, Result};

/// A receiver of lines.
#[derive(Debug)]
pub struct LogstashSink {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    peer: Peer,
    /// This machine's name.
    host: String,
    connection: Mutex<Option<Socket>>,
}

impl Shared {
    fn connection(&self) -> MutexGuard<'_, Option<Socket>> {
        self.connection.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl LogstashSink {
    /// Nothing here connects.
    pub fn new(peer: Peer) -> LogstashSink {
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        LogstashSink { shared: Arc::new(Shared { peer, host, connection: Mutex::new(None) }) }
    }
}

impl Sink for LogstashSink {
    fn open(&self, name: &[u8], stop: &Stop) -> Result<Box<dyn Sender>, Broken> {
        let mut connection = self.shared.connection();
        if connection.is_none() {
            *connection = Some(self.shared.peer.connect(stop)?);
        }
        Ok(Box::new(LineSender { shared: Arc::clone(&self.shared), labels: Labels::of(name) }))
    }
}

/// A stream.
struct LineSender {
    shared: Arc<Shared>,
    labels: Labels,
}

impl Sender for LineSender {
    fn send(&mut self, bytes: &[u8], stop: &Stop) -> Result<(), Broken> {
        let time = Utc::now().to_rfc3339_opts(SecondsFormat::Millis, true);
        let line = self.labels.line(&chunk::encoded(bytes), &time, &self.shared.host) + "\n";
        let mut connection = self.shared.connection();
        let Some(socket) = &*connection else {
            let gone = std::io::ErrorKind::NotConnected.into();
            return Err(Error::net("send to", &self.shared.peer.label)(gone).into());
        };
        let sent = send_all(socket, &self.shared.peer.label, line.as_bytes(), stop);
        if sent.is_err() {
            // Part of the line may be gone; nothing may follow it.
            *connection = None;
        }
        sent
    }

    fn close(self: Box<Self>, _: Close, _: &Stop) -> Result<(), Broken> {
        Ok(())
    }
}
