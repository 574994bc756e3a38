//! The acceptor: takes connections, refuses what is over a limit, starts a thread a stream and joins it.

use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::socket::Socket;
use super::stream::{Refused, Stream};
use super::{BACKLOG, Shared};
use crate::cc::live::LiveStream;
use crate::cc::vault::manifest::EndReason;
use crate::cc::vault::time::now_ms;
use crate::counters::Counter;
use crate::{Error, Result};

/// A stream's thread needs little; only the pages that it touches are real.
const STACK_BYTES: usize = 128 << 10;

/// After an accept(2) that failed for want of descriptors or memory.
const PAUSE: Duration = Duration::from_millis(50);

/// Threads that may have ended and are not joined yet. Each still has its stack, which takes 2 memory maps.
const ENDED_MAX: usize = 64;

/// Between two looks for them while nobody connects.
const LOOK: Duration = Duration::from_secs(1);

/// Accepts until the end, then joins all streams; where accepting fails, all ends.
pub fn run(listener: TcpListener, shared: &Arc<Shared>) -> Result<()> {
    let mut streams = Streams::default();
    let accepted = accept(&listener, shared, &mut streams).inspect_err(|_| shared.stop.ask());
    // Who connects while the streams drain is refused by the kernel, and not taken and forgotten.
    drop(listener);
    streams.join_all();
    accepted
}

/// Accepts until a stop is asked for, then takes what already waits in the backlog.
fn accept(listener: &TcpListener, shared: &Arc<Shared>, streams: &mut Streams) -> Result<()> {
    listener.set_nonblocking(true).map_err(Error::system("set up a listener"))?;
    // Peers that go on connecting must not keep the backlog full for ever.
    let mut last = 0..BACKLOG;
    loop {
        let stopping = shared.stop.is_asked();
        if stopping && last.next().is_none() {
            return Ok(());
        }
        match listener.accept() {
            Ok((tcp, peer)) => admit(tcp, peer, shared, streams),
            Err(error) => match Errno::from_io_error(&error) {
                Some(Errno::AGAIN) if stopping => return Ok(()),
                Some(Errno::AGAIN) => {
                    if !wait(listener, shared, streams)? {
                        streams.join_ended();
                    }
                }
                // The peer was gone before it was accepted.
                Some(Errno::CONNABORTED | Errno::INTR | Errno::PROTO | Errno::PERM) => {}
                Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::NOBUFS) => {
                    shared.throttle.warn("accept", format_args!("accept_failed error=\"{error}\""));
                    std::thread::sleep(PAUSE);
                }
                _ => return Err(Error::System { act: "accept a connection", source: error }),
            },
        }
    }
}

/// Waits for a connection or the stop; false if it is only time to look for threads that have ended.
fn wait(listener: &TcpListener, shared: &Shared, streams: &Streams) -> Result<bool> {
    let mut fds = [
        PollFd::new(listener, PollFlags::IN),
        PollFd::from_borrowed_fd(shared.stop.as_fd(), PollFlags::empty()),
    ];
    let timeout = (!streams.threads.is_empty()).then(|| Timespec::try_from(LOOK).ok()).flatten();
    match poll(&mut fds, timeout.as_ref()) {
        Ok(ready) => Ok(ready > 0),
        Err(Errno::INTR) => Ok(true),
        Err(error) => Err(Error::System { act: "wait for connections", source: error.into() }),
    }
}

/// Starts a thread for the connection, or closes it and says why.
fn admit(tcp: TcpStream, peer: SocketAddr, shared: &Arc<Shared>, streams: &mut Streams) {
    let counters = &shared.counters;
    counters.streams_accepted_total.one();
    if !is_allowed(peer.ip(), shared) {
        return refuse(shared, &counters.refused_peer_total, "not_allowed", peer);
    }
    if shared.live.count() >= shared.streams_max {
        return refuse(shared, &counters.refused_streams_max_total, "streams_max", peer);
    }
    let socket = match Socket::new(tcp) {
        Ok(socket) => Arc::new(socket),
        // The peer is gone already.
        Err(error) => {
            log::debug!("connection_lost peer={peer} error=\"{error}\"");
            return;
        }
    };
    let live = shared.live.add(peer, now_ms());
    counters.streams_open.one();
    let thread = Builder::new().name(format!("tcp-{}", live.id)).stack_size(STACK_BYTES).spawn({
        let (shared, live, ended) = (Arc::clone(shared), Arc::clone(&live), Arc::clone(&streams.ended));
        move || {
            let _ended = Ended(ended);
            let _leave = Leave { shared: &shared, live: &live };
            receive(&socket, &live, &shared);
        }
    });
    match thread {
        Ok(thread) => streams.add(thread),
        Err(error) => {
            drop(Leave { shared, live: &live });
            log::debug!("thread_failed error=\"{error}\"");
            refuse(shared, &counters.refused_thread_total, "no_thread", peer);
        }
    }
}

/// IPv4 peers of an IPv6 socket stand as `::ffff:a.b.c.d`; they mean the same.
fn is_allowed(peer: IpAddr, shared: &Shared) -> bool {
    let peer = peer.to_canonical();
    shared.allow.is_empty() || shared.allow.iter().any(|net| net.contains(&peer))
}

fn refuse(shared: &Shared, counter: &Counter, reason: &'static str, peer: SocketAddr) {
    counter.one();
    shared.throttle.warn(reason, format_args!("refused reason={reason} peer={peer}"));
}

/// Takes a stream off the list, however its thread ends.
struct Leave<'a> {
    shared: &'a Shared,
    live: &'a LiveStream,
}

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        self.shared.live.remove(self.live.id);
        self.shared.counters.streams_open.sub(1);
        self.shared.counters.streams_ended_total.one();
    }
}

fn receive(socket: &Arc<Socket>, live: &LiveStream, shared: &Shared) {
    log::info!("stream_connected peer={}", live.peer);
    let counters = &shared.counters;
    match (Stream { socket, live, shared }).receive() {
        Ok((file, reason)) => {
            match reason {
                EndReason::Reset => counters.reset_streams_total.one(),
                EndReason::Idle => counters.idle_streams_total.one(),
                EndReason::Limit => counters.limited_streams_total.one(),
                EndReason::Eof | EndReason::Drained | EndReason::IoError => {}
            }
            let bytes = live.bytes.load(std::sync::atomic::Ordering::Relaxed);
            log::info!("stream_ended peer={} name={file} bytes={bytes} reason={}", live.peer, reason.word());
        }
        Err(Refused::Silent) => refuse(shared, &counters.refused_silent_total, "silent", live.peer),
        Err(Refused::NoName) => refuse(shared, &counters.refused_name_total, "no_name", live.peer),
        Err(Refused::Reset) => refuse(shared, &counters.refused_silent_total, "reset", live.peer),
        Err(Refused::Failed(error)) => {
            counters.failed_streams_total.one();
            log::error!("stream_failed peer={} error=\"{error}\"", live.peer);
        }
    }
}

/// The threads of a listener's streams.
#[derive(Default)]
struct Streams {
    threads: Vec<JoinHandle<()>>,
    ended: Arc<AtomicUsize>,
}

/// Counts a thread as ended, however it ends.
struct Ended(Arc<AtomicUsize>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Streams {
    fn add(&mut self, thread: JoinHandle<()>) {
        // In proportion to those that run, so that looking through all of them costs a connection little.
        if self.ended.load(Ordering::Relaxed) >= ENDED_MAX + self.threads.len() / 32 {
            self.join_ended();
        }
        self.threads.push(thread);
    }

    fn join_ended(&mut self) {
        for thread in self.threads.extract_if(.., |thread| thread.is_finished()) {
            self.ended.fetch_sub(1, Ordering::Relaxed);
            join(thread);
        }
    }

    fn join_all(self) {
        self.threads.into_iter().for_each(join);
    }
}

fn join(thread: JoinHandle<()>) {
    let name = thread.thread().name().unwrap_or("tcp").to_owned();
    if thread.join().is_err() {
        // The others go on: one stream's defect is not theirs.
        log::error!("thread_failed name={name} note=\"this is a defect in lea\"");
    }
}
