//! Acceptor thread: accepts connections, rejects those over a limit, starts one thread per stream and joins
//! it.

use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::socket::StreamSocket;
use super::stream::{ReceiveError, StreamReceiver};
use super::{BACKLOG, ReceiverContext};
use crate::cc::stream_registry::StreamStats;
use crate::cc::vault::manifest::EndReason;
use crate::cc::vault::time::now_ms;
use crate::runtime::metrics::Counter;
use crate::{Error, Result};

/// Stack size of a stream's thread. Only the pages that it touches are allocated.
const STREAM_STACK_BYTES: usize = 128 << 10;

/// Pause after accept(2) failed for lack of descriptors or memory.
const ACCEPT_RETRY_PAUSE: Duration = Duration::from_millis(50);

/// Number of ended threads that are not joined immediately. Each keeps its stack, which takes two memory
/// maps.
const UNJOINED_MAX: usize = 64;

/// Interval for joining ended threads while nobody connects.
const JOIN_INTERVAL: Duration = Duration::from_secs(1);

/// Accepts until shutdown, then joins all streams. A failure to accept shuts everything down.
pub(super) fn run(listener: TcpListener, shared: &Arc<ReceiverContext>) -> Result<()> {
    let mut streams = StreamThreads::default();
    let accepted = accept_streams(&listener, shared, &mut streams).inspect_err(|_| shared.shutdown.trigger());
    // The kernel now refuses new connections. Otherwise they would be accepted and then forgotten.
    drop(listener);
    streams.join_all();
    accepted
}

/// Accepts until a shutdown is requested, then accepts what is already in the kernel's queue.
fn accept_streams(
    listener: &TcpListener,
    shared: &Arc<ReceiverContext>,
    streams: &mut StreamThreads,
) -> Result<()> {
    listener.set_nonblocking(true).map_err(Error::system("set up a listener"))?;
    // Peers that keep connecting must not delay the shutdown indefinitely.
    let mut last = 0..BACKLOG;
    loop {
        let stopping = shared.shutdown.is_triggered();
        if stopping && last.next().is_none() {
            return Ok(());
        }
        match listener.accept() {
            Ok((tcp, peer)) => start_stream(tcp, peer, shared, streams),
            Err(error) => match Errno::from_io_error(&error) {
                Some(Errno::AGAIN) if stopping => return Ok(()),
                Some(Errno::AGAIN) => {
                    if !wait_for_connection(listener, shared, streams)? {
                        streams.join_ended();
                    }
                }
                // The peer disconnected before it was accepted.
                Some(Errno::CONNABORTED | Errno::INTR | Errno::PROTO | Errno::PERM) => {}
                Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::NOBUFS) => {
                    shared.throttle.warn("accept", format_args!("accept_failed error=\"{error}\""));
                    std::thread::sleep(ACCEPT_RETRY_PAUSE);
                }
                _ => return Err(Error::System { act: "accept a connection", source: error }),
            },
        }
    }
}

/// Waits for a connection or the shutdown. Returns false if it is only time to join ended threads.
fn wait_for_connection(
    listener: &TcpListener,
    shared: &ReceiverContext,
    streams: &StreamThreads,
) -> Result<bool> {
    let mut fds = [
        PollFd::new(listener, PollFlags::IN),
        PollFd::from_borrowed_fd(shared.shutdown.as_fd(), PollFlags::empty()),
    ];
    let timeout = (!streams.threads.is_empty()).then(|| Timespec::try_from(JOIN_INTERVAL).ok()).flatten();
    match poll(&mut fds, timeout.as_ref()) {
        Ok(ready) => Ok(ready > 0),
        Err(Errno::INTR) => Ok(true),
        Err(error) => Err(Error::System { act: "wait for connections", source: error.into() }),
    }
}

/// Starts a thread for the connection, or closes it and logs why.
fn start_stream(
    tcp: TcpStream,
    peer: SocketAddr,
    shared: &Arc<ReceiverContext>,
    streams: &mut StreamThreads,
) {
    let metrics = &shared.metrics;
    metrics.streams_accepted_total.inc();
    if !is_allowed(peer.ip(), shared) {
        return reject(shared, &metrics.refused_peer_total, "not_allowed", peer);
    }
    if shared.live.count() >= shared.streams_max {
        return reject(shared, &metrics.refused_streams_max_total, "streams_max", peer);
    }
    let socket = match StreamSocket::new(tcp) {
        Ok(socket) => Arc::new(socket),
        // The peer has already disconnected.
        Err(error) => {
            log::debug!("connection_lost peer={peer} error=\"{error}\"");
            return;
        }
    };
    let live = shared.live.add(peer, now_ms());
    metrics.streams_open.inc();
    let thread = Builder::new().name(format!("tcp-{}", live.id)).stack_size(STREAM_STACK_BYTES).spawn({
        let (shared, live, ended) = (Arc::clone(shared), Arc::clone(&live), Arc::clone(&streams.ended));
        move || {
            let _ended = CountEnded(ended);
            let _leave = DeregisterStream { shared: &shared, live: &live };
            run_stream(&socket, &live, &shared);
        }
    });
    match thread {
        Ok(thread) => streams.add(thread),
        Err(error) => {
            drop(DeregisterStream { shared, live: &live });
            log::debug!("thread_failed error=\"{error}\"");
            reject(shared, &metrics.refused_thread_total, "no_thread", peer);
        }
    }
}

/// IPv4 peers of an IPv6 socket have addresses like `::ffff:a.b.c.d`. They are compared as IPv4 addresses.
fn is_allowed(peer: IpAddr, shared: &ReceiverContext) -> bool {
    let peer = peer.to_canonical();
    shared.allow.is_empty() || shared.allow.iter().any(|net| net.contains(&peer))
}

fn reject(shared: &ReceiverContext, counter: &Counter, reason: &'static str, peer: SocketAddr) {
    counter.inc();
    shared.throttle.warn(reason, format_args!("refused reason={reason} peer={peer}"));
}

/// Guard that deregisters a stream however its thread ends.
struct DeregisterStream<'a> {
    shared: &'a ReceiverContext,
    live: &'a StreamStats,
}

impl Drop for DeregisterStream<'_> {
    fn drop(&mut self) {
        self.shared.live.remove(self.live.id);
        self.shared.metrics.streams_open.sub(1);
    }
}

fn run_stream(socket: &Arc<StreamSocket>, live: &StreamStats, shared: &ReceiverContext) {
    log::info!("stream_connected peer={}", live.peer);
    let metrics = &shared.metrics;
    match (StreamReceiver { socket, live, shared }).receive_stream() {
        Ok((file, reason)) => {
            match reason {
                EndReason::Eof => metrics.streams_ended_eof.inc(),
                EndReason::Reset => metrics.streams_ended_reset.inc(),
                EndReason::Idle => metrics.streams_ended_idle.inc(),
                EndReason::Limit => metrics.streams_ended_limit.inc(),
                EndReason::Drained => metrics.streams_ended_shutdown.inc(),
                EndReason::IoError => metrics.streams_ended_io_error.inc(),
            }
            let bytes = live.bytes.load(std::sync::atomic::Ordering::Relaxed);
            log::info!(
                "stream_ended peer={} name={file} bytes={bytes} reason={}",
                live.peer,
                reason.as_str()
            );
        }
        Err(ReceiveError::Silent) => reject(shared, &metrics.refused_silent_total, "silent", live.peer),
        Err(ReceiveError::NoName) => reject(shared, &metrics.refused_name_total, "no_name", live.peer),
        Err(ReceiveError::Reset) => reject(shared, &metrics.refused_silent_total, "reset", live.peer),
        Err(ReceiveError::Failed(error)) => {
            metrics.streams_ended_io_error.inc();
            metrics.streams_failed_total.inc();
            log::error!("stream_failed peer={} error=\"{error}\"", live.peer);
        }
    }
}

/// Threads of a listener's streams.
#[derive(Default)]
struct StreamThreads {
    threads: Vec<JoinHandle<()>>,
    ended: Arc<AtomicUsize>,
}

/// Guard that counts a thread as ended however it ends.
struct CountEnded(Arc<AtomicUsize>);

impl Drop for CountEnded {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl StreamThreads {
    fn add(&mut self, thread: JoinHandle<()>) {
        // The threshold grows with the number of running threads, so that scanning all of them stays cheap
        // per connection.
        if self.ended.load(Ordering::Relaxed) >= UNJOINED_MAX + self.threads.len() / 32 {
            self.join_ended();
        }
        self.threads.push(thread);
    }

    fn join_ended(&mut self) {
        for thread in self.threads.extract_if(.., |thread| thread.is_finished()) {
            self.ended.fetch_sub(1, Ordering::Relaxed);
            join_thread(thread);
        }
    }

    fn join_all(self) {
        self.threads.into_iter().for_each(join_thread);
    }
}

fn join_thread(thread: JoinHandle<()>) {
    let name = thread.thread().name().unwrap_or("tcp").to_owned();
    if thread.join().is_err() {
        // Other streams continue: a panic in one thread does not affect them.
        log::error!("thread_failed name={name} note=\"the thread panicked; this is a bug in lea\"");
    }
}
