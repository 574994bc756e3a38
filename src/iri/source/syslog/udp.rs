//! Syslog over UDP: a datagram is a message. Two threads: `syslog-udp` receives and never waits for the store,
//! `syslog-store` takes apart and writes. Between them is a bounded queue; what does not fit in is dropped and counted,
//! and so is what the kernel dropped before, as far as it says: UDP is lossy, and a sender that must not lose uses TCP.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use chrono::{DateTime, Local};
use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use rustix::event::PollFlags;
use socket2::{Domain, Protocol, Socket, Type};

use super::{MESSAGE_BYTES_MAX, Messages, SyslogConfig};
use crate::http::wait;
use crate::iri::source::intake::Intake;
use crate::stop::Stop;
use crate::{Error, Result};

/// Messages between the threads: at the usual 300 bytes 5 MiB, at worst 128 MiB.
const QUEUE_MAX: usize = 16_384;

/// Asked of the kernel for its own queue; it gives what net.core.rmem_max allows.
const RECEIVE_BYTES: usize = 8 << 20;

/// The largest datagram there is.
const DATAGRAM_BYTES_MAX: usize = 64 << 10;

/// Between two looks at what the kernel dropped.
const LOOK: Duration = Duration::from_secs(1);

struct Datagram {
    message: Box<[u8]>,
    peer: SocketAddr,
    arrived: DateTime<Local>,
    /// Its whole length was more than is taken.
    cut: bool,
}

/// A socket that receives.
pub struct UdpReceiver {
    /// Where.
    pub local_addr: SocketAddr,
    /// The threads.
    pub threads: Vec<JoinHandle<Result<()>>>,
}

impl UdpReceiver {
    /// Receives until the stop; what the kernel has then is taken too, for as long as the drain lasts.
    pub fn spawn(
        addr: SocketAddr,
        intake: &Arc<Intake>,
        config: &Arc<SyslogConfig>,
        drain: Duration,
        stop: &Stop,
    ) -> Result<UdpReceiver> {
        let socket = bind(addr).map_err(Error::net("listen on", addr))?;
        let local_addr = socket.local_addr().map_err(Error::system("read a listener's address"))?;
        let (queue, queued) = bounded(QUEUE_MAX);
        let messages = Messages::new("syslog", Arc::clone(intake), Arc::clone(config));
        let receive = Receive { socket, queue, intake: Arc::clone(intake), drain, stop: stop.clone() };
        let threads = vec![
            spawn("syslog-udp", move || receive.run())?,
            spawn("syslog-store", move || {
                store(&queued, messages);
                Ok(())
            })?,
        ];
        Ok(UdpReceiver { local_addr, threads })
    }
}

fn spawn(name: &str, run: impl FnOnce() -> Result<()> + Send + 'static) -> Result<JoinHandle<Result<()>>> {
    Builder::new().name(name.to_owned()).spawn(run).map_err(Error::system("start a thread"))
}

fn bind(addr: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // Less is no reason not to start.
    let _ = socket.set_recv_buffer_size(RECEIVE_BYTES);
    log::info!("udp_buffer addr={addr} bytes={}", socket.recv_buffer_size().unwrap_or(0));
    socket.bind(&addr.into())?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

struct Receive {
    socket: UdpSocket,
    queue: Sender<Datagram>,
    intake: Arc<Intake>,
    drain: Duration,
    stop: Stop,
}

impl Receive {
    fn run(self) -> Result<()> {
        let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
        let mut kernel = Dropped::default();
        let mut until = None;
        loop {
            match self.socket.recv_from(&mut buffer) {
                Ok((bytes, peer)) => self.queue(&buffer[..bytes], peer),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if self.stop.is_asked() {
                        break;
                    }
                    wait(&self.socket, PollFlags::IN, Some(&self.stop), Some(Instant::now() + LOOK));
                }
                // An answer to something that was never sent from here, or a signal.
                Err(error) if is_passing(&error) => {}
                Err(error) => {
                    self.stop.ask();
                    return Err(Error::System { act: "receive datagrams", source: error });
                }
            }
            kernel.look(&self.socket, &self.intake, false);
            if self.stop.is_asked()
                && Instant::now() >= *until.get_or_insert_with(|| Instant::now() + self.drain)
            {
                break;
            }
        }
        kernel.look(&self.socket, &self.intake, true);
        Ok(())
    }

    fn queue(&self, datagram: &[u8], peer: SocketAddr) {
        let counters = self.intake.counters();
        counters.syslog_udp_messages_total.one();
        let cut = datagram.len() > MESSAGE_BYTES_MAX;
        let kept = if cut { super::super::frame::BEGIN_BYTES } else { datagram.len() };
        let message = datagram[..kept].into();
        match self.queue.try_send(Datagram { message, peer, arrived: Local::now(), cut }) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                counters.syslog_udp_dropped_total.one();
                self.intake.warn(
                    "udp_dropped",
                    format_args!(
                        "datagram_dropped reason=queue_full peer={peer} note=\"the store does not keep up\""
                    ),
                );
            }
        }
    }
}

fn is_passing(error: &io::Error) -> bool {
    use io::ErrorKind::{
        ConnectionRefused, ConnectionReset, HostUnreachable, Interrupted, NetworkUnreachable,
    };
    matches!(
        error.kind(),
        ConnectionRefused | ConnectionReset | HostUnreachable | Interrupted | NetworkUnreachable
    )
}

/// Takes datagrams apart and writes them, as many at once as are there.
fn store(queued: &Receiver<Datagram>, mut messages: Messages) {
    while let Ok(first) = queued.recv() {
        let mut peer = String::new();
        for datagram in std::iter::once(first).chain(queued.try_iter()) {
            peer = datagram.peer.to_string();
            if datagram.cut {
                messages.too_long(&datagram.message, &peer);
                continue;
            }
            // Some senders end datagrams as they end lines.
            let end = datagram.message.iter().rposition(|byte| !matches!(byte, b'\r' | b'\n' | 0));
            let Some(end) = end else { continue };
            let host = datagram.peer.ip().to_canonical().to_string();
            if messages.take(&datagram.message[..=end], &peer, &host, &datagram.arrived).is_err() {
                return;
            }
        }
        if messages.flush(&peer).is_err() {
            return;
        }
    }
}

/// What the kernel dropped, as it is shown.
#[derive(Default)]
struct Dropped {
    seen: u32,
    looked: Option<Instant>,
}

impl Dropped {
    fn look(&mut self, socket: &UdpSocket, intake: &Intake, last: bool) {
        let now = Instant::now();
        if !last && self.looked.is_some_and(|looked| now < looked + LOOK) {
            return;
        }
        self.looked = Some(now);
        let Ok(dropped) = meminfo::dropped(socket) else { return };
        let new = dropped.wrapping_sub(std::mem::replace(&mut self.seen, dropped));
        if new > 0 {
            intake.counters().syslog_udp_kernel_dropped_total.add(new.into());
            intake.warn(
                "udp_kernel_dropped",
                format_args!("datagrams_dropped reason=kernel_buffer_full datagrams={new}"),
            );
        }
    }
}

/// SO_MEMINFO, socket(7): no safe crate has it, and the other ways (SO_RXQ_OVFL, /proc/net/udp) cost more a datagram or
/// are shared by all sockets.
mod meminfo {
    use std::io;
    use std::os::fd::AsRawFd;

    /// SK_MEMINFO_DROPS of linux/sock_diag.h: the place among the values.
    const DROPS: usize = 8;

    /// Datagrams that the kernel threw away because the socket's buffer was full.
    #[allow(unsafe_code)]
    pub fn dropped(socket: &impl AsRawFd) -> io::Result<u32> {
        let mut values = [0u32; DROPS + 1];
        let mut bytes = size_of_val(&values) as libc::socklen_t;
        // SAFETY: the pointers are to a live array and to its size in bytes, beyond which getsockopt(2) does not write;
        // the descriptor is open for as long as `socket` is borrowed.
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
        fn what_the_kernel_drops_is_seen() {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            socket2::SockRef::from(&socket).set_recv_buffer_size(4096).unwrap();
            assert_eq!(super::dropped(&socket).unwrap(), 0);
            let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
            for _ in 0..64 {
                sender.send_to(&[b'x'; 1024], socket.local_addr().unwrap()).unwrap();
            }
            assert!(super::dropped(&socket).unwrap() > 0);
        }
    }
}
