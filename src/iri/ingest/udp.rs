//! Messages over UDP: each datagram is a message or a part of one. The thread `syslog-udp` or `gelf-udp` receives and never
//! waits for the store; the thread `syslog-store` or `gelf-store` parses and writes. Between them is a bounded queue.
//! Datagrams that do not fit into the queue are dropped and counted, and so are those that the kernel dropped. UDP is lossy: a
//! sender that must not lose messages uses TCP.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use chrono::{DateTime, Local};
use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use rustix::event::PollFlags;
use socket2::{Domain, Protocol, Socket, Type};

use super::event_sink::{EventSink, StoreClosed};
use super::listener::ListenerDeps;
use crate::runtime::metrics::{Counter, Metrics, SourceMetrics};
use crate::runtime::net::port_holder::{Transport, listen_error};
use crate::runtime::net::wait;
use crate::runtime::shutdown::Shutdown;
use crate::runtime::threads;
use crate::runtime::time::now_local;
use crate::{Error, Result};

/// Messages in the queue between the threads: 5 MiB at the usual 300 bytes.
const QUEUE_MAX: usize = 16_384;

/// Memory for these messages.
const QUEUE_BYTES_MAX: usize = 16 << 20;

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

/// Handles the datagrams of one socket. Runs in the thread that stores.
pub(crate) trait DatagramHandler: Send + 'static {
    /// Handles one datagram. An error ends the thread.
    fn handle(
        &mut self,
        datagram: &[u8],
        peer: SocketAddr,
        arrived: &DateTime<Local>,
    ) -> Result<(), StoreClosed>;
    /// Handles the first bytes of a datagram that is too long.
    fn handle_too_long(&mut self, begin: &[u8], peer: SocketAddr);
    /// Stores the handled datagrams durably. Called when the queue is empty.
    fn flush(&mut self) -> Result<(), StoreClosed>;
}

/// The settings of one socket.
#[derive(Clone, Copy, Debug)]
pub(crate) struct UdpConfig {
    /// Name in metrics and, with a suffix, of the threads.
    pub name: &'static str,
    pub thread_names: [&'static str; 2],
    /// Maximum size of a datagram.
    pub message_bytes_max: usize,
    /// The counters of datagrams that are dropped for lack of room: in the queue, and in the kernel.
    pub dropped: [fn(&Metrics) -> &Counter; 2],
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
        config: UdpConfig,
        handler: impl DatagramHandler,
    ) -> crate::Result<UdpReceiver> {
        let sink = &deps.sink;
        let socket = bind(addr).map_err(listen_error(Transport::Udp, addr))?;
        let local_addr = socket.local_addr().map_err(Error::system("read the address of a listener"))?;
        let (queue, queued) = bounded(QUEUE_MAX);
        let queued_bytes: Arc<AtomicUsize> = Arc::default();
        let receiver = DatagramReceiver {
            socket,
            queue,
            queued_bytes: Arc::clone(&queued_bytes),
            config,
            sink: Arc::clone(sink),
            source_metrics: sink.metrics().source(config.name, Some("udp")),
            shutdown_timeout: deps.shutdown_timeout,
            shutdown: deps.shutdown.clone(),
        };
        let threads = vec![
            threads::spawn(config.thread_names[0], move || receiver.run())?,
            threads::spawn(config.thread_names[1], move || {
                store_datagrams(&queued, &queued_bytes, handler);
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
    queued_bytes: Arc<AtomicUsize>,
    config: UdpConfig,
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
            kernel.check(&self.socket, &self.sink, self.config, false);
            if self.shutdown.is_triggered()
                && Instant::now() >= *until.get_or_insert_with(|| Instant::now() + self.shutdown_timeout)
            {
                break;
            }
        }
        kernel.check(&self.socket, &self.sink, self.config, true);
        Ok(())
    }

    fn enqueue(&self, datagram: &[u8], peer: SocketAddr) {
        let metrics = self.sink.metrics();
        self.source_metrics.messages.inc();
        let is_truncated = datagram.len() > self.config.message_bytes_max;
        let kept = if is_truncated { crate::iri::ingest::framing::EXCERPT_BYTES } else { datagram.len() };
        let message = datagram[..kept].into();
        let has_room = self.queued_bytes.fetch_add(kept, Ordering::Relaxed) + kept <= QUEUE_BYTES_MAX;
        let datagram = Datagram { message, peer, arrived: now_local(), is_truncated };
        match has_room.then(|| self.queue.try_send(datagram)) {
            Some(Ok(())) => {}
            None | Some(Err(TrySendError::Full(_) | TrySendError::Disconnected(_))) => {
                self.queued_bytes.fetch_sub(kept, Ordering::Relaxed);
                (self.config.dropped[0])(metrics).inc();
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
fn store_datagrams(
    queued: &Receiver<Datagram>,
    queued_bytes: &AtomicUsize,
    mut handler: impl DatagramHandler,
) {
    while let Ok(first) = queued.recv() {
        for Datagram { message, peer, arrived, is_truncated } in
            std::iter::once(first).chain(queued.try_iter())
        {
            queued_bytes.fetch_sub(message.len(), Ordering::Relaxed);
            if is_truncated {
                handler.handle_too_long(&message, peer);
            } else if handler.handle(&message, peer, &arrived).is_err() {
                return;
            }
        }
        if handler.flush().is_err() {
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
    fn check(&mut self, socket: &UdpSocket, sink: &EventSink, config: UdpConfig, last: bool) {
        let now = Instant::now();
        if !last && self.checked_at.is_some_and(|looked| now < looked + CHECK_INTERVAL) {
            return;
        }
        self.checked_at = Some(now);
        let Ok(dropped) = meminfo::read_drops(socket) else { return };
        let new = dropped.wrapping_sub(std::mem::replace(&mut self.reported, dropped));
        if new > 0 {
            (config.dropped[1])(sink.metrics()).add(new.into());
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
