//! Syslog over UDP: each datagram is a message. The thread `syslog-udp` receives and never waits for the store; the thread
//! `syslog-store` parses and writes. Between them is a bounded queue. Datagrams that do not fit into the queue are dropped
//! and counted, and so are those that the kernel dropped. UDP is lossy: a sender that must not lose messages uses TCP.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use chrono::{DateTime, Local};
use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use rustix::event::PollFlags;
use socket2::{Domain, Protocol, Socket, Type};

use super::{MESSAGE_BYTES_MAX, SyslogConfig, SyslogWriter};
use crate::iri::ingest::event_sink::EventSink;
use crate::iri::ingest::listener::ListenerDeps;
use crate::runtime::metrics::SourceMetrics;
use crate::runtime::net::port_holder::{Transport, listen_error};
use crate::runtime::net::wait;
use crate::runtime::shutdown::Shutdown;
use crate::runtime::threads;
use crate::{Error, Result};

/// Messages in the queue between the threads: 5 MiB at the usual 300 bytes, 128 MiB at most.
const QUEUE_MAX: usize = 16_384;

/// Requested size of the socket's receive buffer. The kernel limits it to net.core.rmem_max.
const RECEIVE_BYTES: usize = 8 << 20;

/// Maximum size of a datagram.
const DATAGRAM_BYTES_MAX: usize = 64 << 10;

/// Interval at which the kernel's drop counter is read.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

struct Datagram {
    message: Box<[u8]>,
    peer: SocketAddr,
    arrived: DateTime<Local>,
    /// `message` holds only the first bytes of a datagram that is too long.
    is_truncated: bool,
}

/// A running UDP listener.
pub(crate) struct UdpReceiver {
    pub local_addr: SocketAddr,
    pub threads: Vec<JoinHandle<Result<()>>>,
}

impl UdpReceiver {
    /// Starts the threads. After shutdown they still receive what the kernel holds, until the timeout ends.
    pub(crate) fn start(
        addr: SocketAddr,
        deps: &ListenerDeps,
        config: Arc<SyslogConfig>,
    ) -> Result<UdpReceiver> {
        let sink = &deps.sink;
        let socket = bind(addr).map_err(listen_error(Transport::Udp, addr))?;
        let local_addr = socket.local_addr().map_err(Error::system("read the address of a listener"))?;
        let (queue, queued) = bounded(QUEUE_MAX);
        let writer = SyslogWriter::new(Arc::clone(sink), config);
        let receiver = DatagramReceiver {
            socket,
            queue,
            sink: Arc::clone(sink),
            source_metrics: sink.metrics().source("syslog", Some("udp")),
            shutdown_timeout: deps.shutdown_timeout,
            shutdown: deps.shutdown.clone(),
        };
        let threads = vec![
            threads::spawn("syslog-udp", move || receiver.run())?,
            threads::spawn("syslog-store", move || {
                store_datagrams(&queued, writer);
                Ok(())
            })?,
        ];
        Ok(UdpReceiver { local_addr, threads })
    }
}

fn bind(addr: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // A smaller buffer works too.
    let _ = socket.set_recv_buffer_size(RECEIVE_BYTES);
    log::info!("udp_buffer addr={addr} bytes={}", socket.recv_buffer_size().unwrap_or(0));
    socket.bind(&addr.into())?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

struct DatagramReceiver {
    socket: UdpSocket,
    queue: Sender<Datagram>,
    sink: Arc<EventSink>,
    source_metrics: Arc<SourceMetrics>,
    shutdown_timeout: Duration,
    shutdown: Shutdown,
}

impl DatagramReceiver {
    fn run(self) -> Result<()> {
        let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
        let mut kernel = KernelDrops::default();
        let mut until = None;
        loop {
            match self.socket.recv_from(&mut buffer) {
                Ok((bytes, peer)) => self.enqueue(&buffer[..bytes], peer),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if self.shutdown.is_triggered() {
                        break;
                    }
                    wait(
                        &self.socket,
                        PollFlags::IN,
                        Some(&self.shutdown),
                        Some(Instant::now() + CHECK_INTERVAL),
                    );
                }
                // An ICMP error for a packet that this socket never sent, or a signal.
                Err(error) if is_transient(&error) => {}
                Err(error) => {
                    self.shutdown.trigger();
                    return Err(Error::System { act: "receive datagrams", source: error });
                }
            }
            kernel.check(&self.socket, &self.sink, false);
            if self.shutdown.is_triggered()
                && Instant::now() >= *until.get_or_insert_with(|| Instant::now() + self.shutdown_timeout)
            {
                break;
            }
        }
        kernel.check(&self.socket, &self.sink, true);
        Ok(())
    }

    fn enqueue(&self, datagram: &[u8], peer: SocketAddr) {
        let metrics = self.sink.metrics();
        self.source_metrics.messages.inc();
        let is_truncated = datagram.len() > MESSAGE_BYTES_MAX;
        let kept = if is_truncated { crate::iri::ingest::framing::EXCERPT_BYTES } else { datagram.len() };
        let message = datagram[..kept].into();
        match self.queue.try_send(Datagram { message, peer, arrived: Local::now(), is_truncated }) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                metrics.syslog_dropped_queue_full.inc();
                self.sink.warn(
                    "udp_dropped",
                    format_args!(
                        "datagram_dropped reason=queue_full peer={peer} note=\"the store is too slow\""
                    ),
                );
            }
        }
    }
}

fn is_transient(error: &io::Error) -> bool {
    use io::ErrorKind::{
        ConnectionRefused, ConnectionReset, HostUnreachable, Interrupted, NetworkUnreachable,
    };
    matches!(
        error.kind(),
        ConnectionRefused | ConnectionReset | HostUnreachable | Interrupted | NetworkUnreachable
    )
}

/// Parses and writes datagrams; those that are in the queue at the same time are written together.
fn store_datagrams(queued: &Receiver<Datagram>, mut messages: SyslogWriter) {
    while let Ok(first) = queued.recv() {
        let mut peer = String::new();
        for datagram in std::iter::once(first).chain(queued.try_iter()) {
            peer = datagram.peer.to_string();
            if datagram.is_truncated {
                messages.too_long(&datagram.message, &peer);
                continue;
            }
            // Some senders end datagrams with a newline or NUL.
            let end = datagram.message.iter().rposition(|byte| !matches!(byte, b'\r' | b'\n' | 0));
            let Some(end) = end else { continue };
            let host = datagram.peer.ip().to_canonical().to_string();
            if messages.add(&datagram.message[..=end], &peer, &host, &datagram.arrived).is_err() {
                return;
            }
        }
        if messages.flush(&peer).is_err() {
            return;
        }
    }
}

/// Tracks how many datagrams the kernel dropped.
#[derive(Default)]
struct KernelDrops {
    reported: u32,
    checked_at: Option<Instant>,
}

impl KernelDrops {
    fn check(&mut self, socket: &UdpSocket, sink: &EventSink, last: bool) {
        let now = Instant::now();
        if !last && self.checked_at.is_some_and(|looked| now < looked + CHECK_INTERVAL) {
            return;
        }
        self.checked_at = Some(now);
        let Ok(dropped) = meminfo::read_drops(socket) else { return };
        let new = dropped.wrapping_sub(std::mem::replace(&mut self.reported, dropped));
        if new > 0 {
            sink.metrics().syslog_dropped_kernel.add(new.into());
            sink.warn(
                "udp_kernel_dropped",
                format_args!("datagrams_dropped reason=kernel_buffer_full datagrams={new}"),
            );
        }
    }
}

/// Reads SO_MEMINFO (socket(7)). No safe crate offers it. The alternatives, SO_RXQ_OVFL and /proc/net/udp, cost more per
/// datagram or are shared by all sockets.
mod meminfo {
    use std::io;
    use std::os::fd::AsRawFd;

    /// Index of SK_MEMINFO_DROPS (linux/sock_diag.h) among the values.
    const DROPS: usize = 8;

    /// Returns the number of datagrams that the kernel dropped because the socket's buffer was full.
    #[allow(unsafe_code)]
    pub(super) fn read_drops(socket: &impl AsRawFd) -> io::Result<u32> {
        let mut values = [0u32; DROPS + 1];
        let mut bytes = size_of_val(&values) as libc::socklen_t;
        // SAFETY: the pointers refer to a live array and to its size in bytes, and getsockopt(2) does not write beyond that
        // size. The descriptor stays open while `socket` is borrowed.
        let result = unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_MEMINFO,
                values.as_mut_ptr().cast(),
                &raw mut bytes,
            )
        };
        if result == 0 { Ok(values[DROPS]) } else { Err(io::Error::last_os_error()) }
    }

    #[cfg(test)]
    mod tests {
        use std::net::UdpSocket;

        #[test]
        fn datagrams_dropped_by_the_kernel_are_counted() {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            socket2::SockRef::from(&socket).set_recv_buffer_size(4096).unwrap();
            assert_eq!(super::read_drops(&socket).unwrap(), 0);
            let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
            for _ in 0..64 {
                sender.send_to(&[b'x'; 1024], socket.local_addr().unwrap()).unwrap();
            }
            assert!(super::read_drops(&socket).unwrap() > 0);
        }
    }
}
