//! A blocking AMQP consumer of one queue over TCP. Runs in the consumer's thread. Each wait is bounded and ends at shutdown.
//!
//! Invariant: at most [`SOURCE_BYTES_MAX`] bytes of a message, plus one frame, are in memory.

use std::io::{self, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use std::os::fd::AsFd as _;

use super::frame::{self, FRAME_BYTES_MAX, FRAME_BYTES_MIN, FrameError, FrameWriter, ServerMethod};
use super::url::AmqpUrl;
use crate::runtime::shutdown::Shutdown;
use crate::search::document::SOURCE_BYTES_MAX;

/// Messages that may be delivered without being acknowledged.
const PREFETCH: u16 = 2_000;

/// Timeout for each address of the broker.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Timeout for each reply while the queue is opened, and for each write.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Timeout for the reply to a close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Requested interval between heartbeats. The broker may choose a shorter one.
const HEARTBEAT_SECONDS: u16 = 60;

const READ_BYTES: usize = 64 << 10;

/// The reason why a connection could not be opened, or ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum AmqpError {
    /// A system call on the socket failed.
    #[error("cannot {act}: {source}")]
    Socket {
        /// What was tried, as a verb.
        act: &'static str,
        source: io::Error,
    },
    /// The broker's data is not valid AMQP 0-9-1.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The broker closed the connection or the channel.
    #[error("the broker closed the connection: {code} {text}")]
    Closed {
        /// Reply code.
        code: u16,
        text: String,
    },
    /// The broker sent neither data nor heartbeats in time.
    #[error("the broker does not answer")]
    Silent,
    #[error("the queue was deleted")]
    QueueDeleted,
    /// The broker does not offer the mechanism PLAIN; the value lists those that it offers.
    #[error("the broker does not offer PLAIN authentication (offers: {0})")]
    PlainNotOffered(String),
    /// A method arrived that is not allowed in this state.
    #[error("unexpected reply: {0}")]
    Unexpected(String),
    #[error("shutdown was triggered")]
    Stopped,
}

/// A message from the queue.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Delivery {
    /// Delivery tag, unique on this connection.
    pub tag: u64,
    /// The broker may have delivered it before.
    pub redelivered: bool,
    /// The publisher's message ID.
    pub message_id: Option<String>,
    /// The body, or its first [`SOURCE_BYTES_MAX`] bytes.
    pub body: Vec<u8>,
    /// The body was longer than [`SOURCE_BYTES_MAX`].
    pub is_truncated: bool,
}

/// The result of waiting for a message.
#[derive(Debug)]
pub(super) enum NextMessage {
    Delivery(Delivery),
    /// No complete message has arrived.
    NoneReady,
    /// Shutdown was triggered.
    Stopped,
}

/// A connection that consumes one queue.
pub(super) struct AmqpClient {
    stream: TcpStream,
    input: Vec<u8>,
    consumed: usize,
    out: FrameWriter,
    frame_bytes_max: u32,
    /// Interval between heartbeats; `None` if disabled.
    heartbeat: Option<Duration>,
    last_received: Instant,
    last_sent: Instant,
    partial: Option<PartialDelivery>,
}

/// A message whose content has not arrived completely.
struct PartialDelivery {
    delivery: Delivery,
    /// Missing bytes of the body; `None` before the content header.
    missing_bytes: Option<u64>,
}

fn socket_error(act: &'static str) -> impl FnOnce(io::Error) -> AmqpError {
    move |source| AmqpError::Socket { act, source }
}

impl AmqpClient {
    /// Connects, logs in and starts to consume the queue.
    pub(super) fn open(url: &AmqpUrl, queue: &str, shutdown: &Shutdown) -> Result<AmqpClient, AmqpError> {
        let now = Instant::now();
        let mut client = AmqpClient {
            stream: connect(url)?,
            input: Vec::new(),
            consumed: 0,
            out: FrameWriter::default(),
            frame_bytes_max: FRAME_BYTES_MAX,
            heartbeat: None,
            last_received: now,
            last_sent: now,
            partial: None,
        };
        client.out.bytes.extend_from_slice(&frame::PROTOCOL_HEADER);
        let mechanisms = client.await_reply(shutdown, |said| match said {
            ServerMethod::Start(mechanisms) => Some((*mechanisms).to_owned()),
            _ => None,
        })?;
        if !mechanisms.split(' ').any(|mechanism| mechanism == "PLAIN") {
            return Err(AmqpError::PlainNotOffered(mechanisms));
        }
        client.out.start_ok(&url.user, &url.password);
        let (channel_max, frame_max, heartbeat) = client.await_reply(shutdown, |said| match said {
            ServerMethod::Tune { channel_max, frame_max, heartbeat } => {
                Some((*channel_max, *frame_max, *heartbeat))
            }
            _ => None,
        })?;
        let frame_max = if frame_max == 0 { FRAME_BYTES_MAX } else { frame_max };
        client.frame_bytes_max = frame_max.clamp(FRAME_BYTES_MIN, FRAME_BYTES_MAX);
        let heartbeat = if heartbeat == 0 { HEARTBEAT_SECONDS } else { heartbeat.min(HEARTBEAT_SECONDS) };
        client.heartbeat = Some(Duration::from_secs(heartbeat.into()));
        client.out.tune_ok(channel_max.min(frame::CHANNEL), client.frame_bytes_max, heartbeat);
        client.out.open(&url.vhost);
        client.await_reply(shutdown, |said| (*said == ServerMethod::OpenOk).then_some(()))?;
        client.out.channel_open();
        client.await_reply(shutdown, |said| (*said == ServerMethod::ChannelOpenOk).then_some(()))?;
        client.out.qos(PREFETCH);
        client.await_reply(shutdown, |said| (*said == ServerMethod::QosOk).then_some(()))?;
        client.out.consume(queue);
        client.await_reply(shutdown, |said| (*said == ServerMethod::ConsumeOk).then_some(()))?;
        Ok(client)
    }

    /// Returns the next message. With `wait` it waits for one; otherwise it returns [`NextMessage::NoneReady`].
    pub(super) fn next(&mut self, wait: bool, shutdown: &Shutdown) -> Result<NextMessage, AmqpError> {
        loop {
            self.send()?;
            while let Some(said) = self.take_frame()? {
                if let Some(delivery) = said {
                    return Ok(NextMessage::Delivery(delivery));
                }
            }
            if shutdown.is_triggered() {
                return Ok(NextMessage::Stopped);
            }
            if !self.receive()? {
                if !wait {
                    return Ok(NextMessage::NoneReady);
                }
                self.exchange_heartbeats()?;
                self.wait(self.heartbeat.map(|heartbeat| heartbeat / 2), shutdown)?;
            }
        }
    }

    /// Acknowledges all messages up to this one.
    pub(super) fn ack_to(&mut self, tag: u64) -> Result<(), AmqpError> {
        self.out.ack_to(tag);
        self.send()
    }

    /// Rejects one message; the broker does not deliver it again.
    pub(super) fn reject(&mut self, tag: u64) -> Result<(), AmqpError> {
        self.out.reject(tag);
        self.send()
    }

    /// Closes the connection and waits briefly for the reply, which proves that acknowledgements have arrived.
    pub(super) fn close(mut self) {
        self.out.close();
        let until = Instant::now() + CLOSE_TIMEOUT;
        let mut closing = || -> Result<(), AmqpError> {
            self.send()?;
            while Instant::now() < until {
                while let Some((said, bytes)) =
                    frame::parse_frame(&self.input[self.consumed..], self.frame_bytes_max)?
                {
                    let is_done = said == ServerMethod::CloseOk;
                    self.consumed += bytes;
                    if is_done {
                        return Ok(());
                    }
                }
                if !self.receive()? {
                    poll_readable(&self.stream, until.saturating_duration_since(Instant::now()), None)?;
                }
            }
            Ok(())
        };
        if let Err(failed) = closing() {
            log::debug!("amqp_close_failed error={:?}", failed.to_string());
        }
    }

    /// Waits for the reply that `find` accepts.
    fn await_reply<T>(
        &mut self,
        shutdown: &Shutdown,
        find: impl Fn(&ServerMethod<'_>) -> Option<T>,
    ) -> Result<T, AmqpError> {
        self.send()?;
        let until = Instant::now() + ANSWER_TIMEOUT;
        loop {
            while let Some((said, bytes)) =
                frame::parse_frame(&self.input[self.consumed..], self.frame_bytes_max)?
            {
                let found = find(&said);
                let passed_over = matches!(said, ServerMethod::Heartbeat | ServerMethod::Other(..));
                let failed = if let ServerMethod::Close { code, text, .. } = said {
                    AmqpError::Closed { code, text: text.to_owned() }
                } else {
                    AmqpError::Unexpected(format!("{said:?}"))
                };
                self.consumed += bytes;
                match found {
                    Some(found) => return Ok(found),
                    None if passed_over => {}
                    None => return Err(failed),
                }
            }
            if !self.receive()? {
                let left = until.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return Err(AmqpError::Silent);
                }
                self.wait(Some(left), shutdown)?;
                if shutdown.is_triggered() {
                    return Err(AmqpError::Stopped);
                }
            }
        }
    }

    /// Handles the next frame in the buffer. Returns `None` if no frame is complete, `Some(None)` if no message is complete.
    #[allow(clippy::option_option)]
    fn take_frame(&mut self) -> Result<Option<Option<Delivery>>, AmqpError> {
        let Some((said, bytes)) = frame::parse_frame(&self.input[self.consumed..], self.frame_bytes_max)?
        else {
            return Ok(None);
        };
        let whole = match said {
            ServerMethod::Deliver { tag, redelivered } => {
                let delivery =
                    Delivery { tag, redelivered, message_id: None, body: Vec::new(), is_truncated: false };
                self.partial = Some(PartialDelivery { delivery, missing_bytes: None });
                false
            }
            ServerMethod::Header { body_bytes, message_id } => {
                let begun = self.partial.as_mut().filter(|begun| begun.missing_bytes.is_none());
                let begun = begun.ok_or_else(|| AmqpError::Unexpected("content header".to_owned()))?;
                begun.delivery.message_id = message_id.map(str::to_owned);
                begun.missing_bytes = Some(body_bytes);
                body_bytes == 0
            }
            ServerMethod::Body(part) => {
                let begun = self.partial.as_mut();
                let whole = begun.and_then(|begun| begun.add(part));
                whole.ok_or_else(|| AmqpError::Unexpected("content body".to_owned()))?
            }
            ServerMethod::Cancel => return Err(AmqpError::QueueDeleted),
            ServerMethod::Close { is_connection: whole, code, text } => {
                let failed = AmqpError::Closed { code, text: text.to_owned() };
                self.out.close_ok(whole);
                // The connection ends even if the reply cannot be sent.
                let _ = self.send();
                return Err(failed);
            }
            ServerMethod::Heartbeat | ServerMethod::Other(..) => false,
            said => return Err(AmqpError::Unexpected(format!("{said:?}"))),
        };
        self.consumed += bytes;
        Ok(Some(if whole { self.partial.take().map(|begun| begun.delivery) } else { None }))
    }

    /// Reads available bytes. Returns false if there are none.
    fn receive(&mut self) -> Result<bool, AmqpError> {
        self.input.drain(..self.consumed);
        self.consumed = 0;
        let end = self.input.len();
        self.input.resize(end + READ_BYTES, 0);
        let received = recv(&self.stream, &mut self.input[end..], RecvFlags::DONTWAIT);
        self.input.truncate(end + received.as_ref().map_or(0, |(bytes, _)| *bytes));
        match received {
            Ok((0, _)) => Err(socket_error("read")(io::ErrorKind::UnexpectedEof.into())),
            Ok(_) => {
                self.last_received = Instant::now();
                Ok(true)
            }
            Err(Errno::WOULDBLOCK) => Ok(false),
            Err(Errno::INTR) => Ok(true),
            Err(error) => Err(socket_error("read")(error.into())),
        }
    }

    fn send(&mut self) -> Result<(), AmqpError> {
        if self.out.bytes.is_empty() {
            return Ok(());
        }
        let sent = self.stream.write_all(&self.out.bytes);
        self.out.bytes.clear();
        self.last_sent = Instant::now();
        sent.map_err(socket_error("write"))
    }

    /// Sends a heartbeat if one is due and fails if the broker's are missing. Call it after a read that found nothing.
    fn exchange_heartbeats(&mut self) -> Result<(), AmqpError> {
        let Some(heartbeat) = self.heartbeat else { return Ok(()) };
        if self.last_received.elapsed() > 2 * heartbeat {
            return Err(AmqpError::Silent);
        }
        if self.last_sent.elapsed() >= heartbeat / 2 {
            self.out.heartbeat();
            self.send()?;
        }
        Ok(())
    }

    fn wait(&self, timeout: Option<Duration>, shutdown: &Shutdown) -> Result<(), AmqpError> {
        poll_readable(&self.stream, timeout.unwrap_or(ANSWER_TIMEOUT), Some(shutdown))
    }
}

impl PartialDelivery {
    /// Adds a part of the body. Returns true if it was the last part, and `None` if it was not expected.
    fn add(&mut self, part: &[u8]) -> Option<bool> {
        let left = self.missing_bytes?.checked_sub(part.len() as u64)?;
        self.missing_bytes = Some(left);
        let room = SOURCE_BYTES_MAX.saturating_sub(self.delivery.body.len());
        self.delivery.is_truncated |= part.len() > room;
        self.delivery.body.extend_from_slice(&part[..part.len().min(room)]);
        Some(left == 0)
    }
}

fn connect(url: &AmqpUrl) -> Result<TcpStream, AmqpError> {
    let addrs =
        (url.host.as_str(), url.port).to_socket_addrs().map_err(socket_error("look up the broker"))?;
    let mut failed = io::Error::from(io::ErrorKind::NotFound);
    for addr in addrs {
        match TcpStream::connect_timeout(&addr, CONNECT_TIMEOUT) {
            Ok(stream) => {
                stream
                    .set_write_timeout(Some(ANSWER_TIMEOUT))
                    .map_err(socket_error("configure the connection"))?;
                stream.set_nodelay(true).map_err(socket_error("configure the connection"))?;
                return Ok(stream);
            }
            Err(error) => failed = error,
        }
    }
    Err(socket_error("connect")(failed))
}

fn poll_readable(
    stream: &TcpStream,
    timeout: Duration,
    shutdown: Option<&Shutdown>,
) -> Result<(), AmqpError> {
    let mut fds = vec![PollFd::new(stream, PollFlags::IN)];
    fds.extend(shutdown.map(|shutdown| PollFd::from_borrowed_fd(shutdown.as_fd(), PollFlags::empty())));
    match poll(&mut fds, Timespec::try_from(timeout).ok().as_ref()) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(socket_error("wait for the broker")(error.into())),
    }
}
