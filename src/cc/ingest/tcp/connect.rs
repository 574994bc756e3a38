//! Fetches streams from a sensor (PCAP-over-IP): connects, receives one capture without a name, and connects again when it
//! has ended. Runs in the thread `tcp-connect`, one per sensor.

use std::io;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::io::Errno;
use socket2::{Domain, Protocol, Socket, Type};

use super::ReceiverContext;
use super::accept::RegisteredStream;
use crate::Result;
use crate::runtime::net::{PollOutcome, wait};
use crate::runtime::shutdown::Shutdown;

/// Time for one attempt to connect to one address.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Pause before the next attempt. It doubles up to the maximum, and starts again after a stream that had content.
const RETRY_PAUSE_MIN: Duration = Duration::from_secs(1);
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(60);

/// Fetches the streams of one sensor.
pub(super) struct SensorFetcher {
    /// Address as the user wrote it. It is looked up for each attempt.
    pub target: String,
    pub context: Arc<ReceiverContext>,
}

impl SensorFetcher {
    /// Runs until shutdown.
    pub(super) fn run(self) -> Result<()> {
        let shutdown = self.context.shutdown.clone();
        let mut pause = RETRY_PAUSE_MIN;
        while !shutdown.is_triggered() {
            match self.fetch(&shutdown) {
                Ok(0) => {}
                Ok(_) => pause = RETRY_PAUSE_MIN,
                Err(_) if shutdown.is_triggered() => break,
                Err(error) => {
                    let (target, seconds) = (&self.target, pause.as_secs());
                    log::warn!("sensor_unreachable target={target:?} error=\"{error}\" retry_in={seconds}s");
                }
            }
            if shutdown.wait(pause) {
                break;
            }
            pause = (2 * pause).min(RETRY_PAUSE_MAX);
        }
        Ok(())
    }

    /// Receives one stream. Returns the number of its bytes.
    fn fetch(&self, shutdown: &Shutdown) -> io::Result<u64> {
        let (socket, peer) = connect(&self.target, shutdown)?;
        log::info!("sensor_connected target={:?} peer={peer}", self.target);
        let stream = RegisteredStream::of_sensor(&self.context, socket, peer)?;
        self.context.receive(&stream);
        Ok(stream.stats().bytes.load(Ordering::Relaxed))
    }
}

/// Connects to the first address of `target` that accepts.
fn connect(target: &str, shutdown: &Shutdown) -> io::Result<(TcpStream, SocketAddr)> {
    let mut failed = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for addr in target.to_socket_addrs()? {
        match connect_to(addr, shutdown) {
            Ok(socket) => return Ok((socket, addr)),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

fn connect_to(addr: SocketAddr, shutdown: &Shutdown) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    match socket.connect(&addr.into()) {
        Err(error) if Errno::from_io_error(&error) == Some(Errno::INPROGRESS) => {
            match wait(&socket, PollFlags::OUT, Some(shutdown), Some(Instant::now() + CONNECT_TIMEOUT)) {
                PollOutcome::Ready => {}
                PollOutcome::TimedOut => return Err(io::ErrorKind::TimedOut.into()),
                PollOutcome::ShutDown => return Err(io::ErrorKind::Interrupted.into()),
            }
            socket.take_error()?.map_or(Ok(()), Err)?;
        }
        connected => connected?,
    }
    Ok(socket.into())
}
