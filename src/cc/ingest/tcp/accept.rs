//! Accepted connections of the receiver: checks the peer, registers the stream, and runs it in the connection's thread.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::ReceiverContext;
use super::socket::StreamSocket;
use super::stream::{ReceiveError, ReceivedStream, StreamReceiver};
use crate::cc::stream_registry::StreamStats;
use crate::cc::vault::damage::{self, Damage};
use crate::cc::vault::manifest::EndReason;
use crate::runtime::metrics::RejectReason;
use crate::runtime::net::acceptor::ConnectionHandler;
use crate::runtime::net::peers::PeerPermit;
use crate::runtime::time::now_ms;

/// Stack size of a stream's thread. Only the pages that it touches are allocated.
pub(super) const STREAM_STACK_BYTES: usize = 128 << 10;

/// An accepted connection that is registered as a stream.
pub(super) struct RegisteredStream {
    socket: Arc<StreamSocket>,
    stats: Arc<StreamStats>,
    context: Arc<ReceiverContext>,
    /// Place among the connections of its peer. A sensor needs none.
    permit: Option<PeerPermit>,
}

impl RegisteredStream {
    fn new(
        context: &Arc<ReceiverContext>,
        tcp: TcpStream,
        peer: SocketAddr,
        permit: Option<PeerPermit>,
    ) -> io::Result<RegisteredStream> {
        let socket = Arc::new(StreamSocket::new(tcp)?);
        let stats = context.live.add(peer, now_ms());
        context.metrics.streams_open.inc();
        Ok(RegisteredStream { socket, stats, context: Arc::clone(context), permit })
    }

    /// Registers a connection that was made to a sensor.
    pub(super) fn of_sensor(
        context: &Arc<ReceiverContext>,
        tcp: TcpStream,
        peer: SocketAddr,
    ) -> io::Result<RegisteredStream> {
        RegisteredStream::new(context, tcp, peer, None)
    }

    pub(super) fn stats(&self) -> &StreamStats {
        &self.stats
    }
}

/// Deregisters the stream, even if its thread panics or cannot be started.
impl Drop for RegisteredStream {
    fn drop(&mut self) {
        self.context.live.remove(self.stats.id);
        // In this order, a metric below the limit means that there is room.
        drop(self.permit.take());
        self.context.metrics.streams_open.dec();
    }
}

impl ConnectionHandler for ReceiverContext {
    type Connection = RegisteredStream;

    /// IPv4 peers of an IPv6 socket have addresses like `::ffff:a.b.c.d`. They are compared as IPv4 addresses.
    fn is_allowed(&self, peer: SocketAddr) -> bool {
        let peer = peer.ip().to_canonical();
        self.allow.is_empty() || self.allow.iter().any(|net| net.contains(&peer))
    }

    fn prepare(
        self: &Arc<Self>,
        stream: TcpStream,
        peer: SocketAddr,
        place: PeerPermit,
    ) -> Option<RegisteredStream> {
        let prepared = RegisteredStream::new(self, stream, peer, Some(place));
        prepared.inspect_err(|error| log::debug!("connection_lost peer={peer} error=\"{error}\"")).ok()
    }

    fn serve(&self, stream: RegisteredStream) {
        log::info!("stream_connected peer={}", stream.stats.peer);
        self.receive(&stream);
    }
}

impl ReceiverContext {
    /// Receives a stream until its end.
    pub(super) fn receive(&self, stream: &RegisteredStream) {
        let receiver = StreamReceiver {
            socket: &stream.socket,
            live: &stream.stats,
            shared: self,
            permit: stream.permit.as_ref(),
        };
        report_end(receiver.receive_stream(), &stream.stats, self);
    }
}

/// Logs and counts the end of a stream.
fn report_end(received: Result<ReceivedStream, ReceiveError>, live: &StreamStats, shared: &ReceiverContext) {
    let metrics = &shared.metrics;
    match received {
        Ok(ReceivedStream { name, reason, end }) => {
            match reason {
                EndReason::Eof => metrics.streams_ended_eof.inc(),
                EndReason::Reset => metrics.streams_ended_reset.inc(),
                EndReason::Idle => metrics.streams_ended_idle.inc(),
                EndReason::Limit => metrics.streams_ended_limit.inc(),
                EndReason::Shutdown => metrics.streams_ended_shutdown.inc(),
                EndReason::IoError => metrics.streams_ended_io_error.inc(),
                // No stream ends so, only its files.
                EndReason::Rotated => {}
            }
            let bytes = live.bytes.load(Ordering::Relaxed);
            // What the peer's kernel had not sent yet is gone, and nobody here knows how much that was.
            let note = if reason == EndReason::Reset {
                " note=\"bytes in transit at the reset are lost\""
            } else {
                ""
            };
            let file = end.file.map_or_else(String::new, |file| format!(" file={file}"));
            // A cut or malformed capture deserves a look; the reasons of the end are in the line anyway.
            let damage: Vec<Damage> = end.damage.into_iter().filter(Damage::is_of_capture).collect();
            let damage = damage::join(&damage).map_or_else(String::new, |text| format!(" damage=\"{text}\""));
            let reason = reason.as_str();
            log::info!(
                "stream_ended peer={} name={name}{file} bytes={bytes} reason={reason}{damage}{note}",
                live.peer
            );
        }
        Err(ReceiveError::TooManyNames) => shared.listener.reject(RejectReason::TooManyNames, live.peer),
        Err(ReceiveError::NameTooLong) => shared.listener.reject(RejectReason::NameTooLong, live.peer),
        Err(ReceiveError::NoName(content)) => {
            log::error!(
                "name_missing peer={} received=\"{content}\" note=\"send the name, a newline or a pause, then the content\"",
                live.peer
            );
            shared.listener.reject(RejectReason::NoName, live.peer);
        }
        Err(ReceiveError::Silent | ReceiveError::Reset) => {
            shared.listener.reject(RejectReason::Silent, live.peer)
        }
        Err(ReceiveError::Failed(error)) => {
            metrics.streams_ended_io_error.inc();
            metrics.streams_failed_total.inc();
            log::error!("stream_failed peer={} error=\"{error}\"", live.peer);
        }
    }
}
