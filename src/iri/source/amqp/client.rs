//! A blocking consumer of one queue over TCP. Runs in the consumer's thread; bounded waits, and none beyond the stop.
//!
//! Invariant: of a message no more than [`SOURCE_BYTES_MAX`] bytes and a frame are in memory.

use std::io::{self, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use std::os::fd::AsFd as _;

use super::frame::{self, Broken, FRAME_BYTES_MAX, FRAME_BYTES_MIN, Said, Writer};
use super::url::Url;
use crate::iri::document::SOURCE_BYTES_MAX;
use crate::stop::Stop;

/// Messages that are delivered and not acknowledged.
const PREFETCH: u16 = 2_000;

/// For one address of the broker.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// For each answer while the queue is opened, and for what is sent.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// For the broker's word that it is done.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Seconds between signs of life that we want; the broker may want it sooner.
const HEARTBEAT_SECONDS: u16 = 60;

const READ_BYTES: usize = 64 << 10;

/// Why there is no connection any more.
#[derive(Debug, thiserror::Error)]
pub enum Failed {
    /// A call on the socket failed.
    #[error("cannot {act}: {source}")]
    Socket {
        /// What was tried.
        act: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// It speaks something else.
    #[error(transparent)]
    Broken(#[from] Broken),
    /// The broker closed it.
    #[error("the broker says {code}: {text}")]
    Closed {
        /// The reason's number.
        code: u16,
        /// The reason.
        text: String,
    },
    /// No word, and no sign of life.
    #[error("the broker is silent")]
    Silent,
    /// The queue was deleted.
    #[error("the queue is gone")]
    NoQueue,
    /// It offers no login with user and password.
    #[error("the broker takes no user and password, but {0:?}")]
    NoLogin(String),
    /// Something that must not come here.
    #[error("an answer that does not belong here: {0}")]
    Unexpected(String),
    /// The stop was asked for.
    #[error("the stop was asked for")]
    Stopped,
}

/// A message.
#[derive(Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Its number on this connection.
    pub tag: u64,
    /// It may have been delivered before.
    pub redelivered: bool,
    /// The publisher's id of it.
    pub message_id: Option<String>,
    /// The body, or its begin.
    pub body: Vec<u8>,
    /// The body is longer than is taken.
    pub cut: bool,
}

/// What comes next.
#[derive(Debug)]
pub enum Next {
    /// A message.
    Delivery(Delivery),
    /// No whole message is there now.
    Nothing,
    /// The stop was asked for.
    Stopped,
}

/// A consumer of a queue.
pub struct Client {
    stream: TcpStream,
    input: Vec<u8>,
    taken: usize,
    out: Writer,
    frame_bytes_max: u32,
    /// None: no signs of life are wanted.
    heartbeat: Option<Duration>,
    heard: Instant,
    said: Instant,
    begun: Option<Begun>,
}

/// A message whose content is not all there yet.
struct Begun {
    delivery: Delivery,
    /// Bytes of the body that have to come; none before its head.
    left: Option<u64>,
}

fn socket(act: &'static str) -> impl FnOnce(io::Error) -> Failed {
    move |source| Failed::Socket { act, source }
}

impl Client {
    /// Connects, logs in, and asks for the queue's messages.
    pub fn open(url: &Url, queue: &str, stop: &Stop) -> Result<Client, Failed> {
        let now = Instant::now();
        let mut client = Client {
            stream: connect(url)?,
            input: Vec::new(),
            taken: 0,
            out: Writer::default(),
            frame_bytes_max: FRAME_BYTES_MAX,
            heartbeat: None,
            heard: now,
            said: now,
            begun: None,
        };
        client.out.bytes.extend_from_slice(&frame::PROTOCOL_HEADER);
        let mechanisms = client.answer(stop, |said| match said {
            Said::Start(mechanisms) => Some((*mechanisms).to_owned()),
            _ => None,
        })?;
        if !mechanisms.split(' ').any(|mechanism| mechanism == "PLAIN") {
            return Err(Failed::NoLogin(mechanisms));
        }
        client.out.start_ok(&url.user, &url.password);
        let (channel_max, frame_max, heartbeat) = client.answer(stop, |said| match said {
            Said::Tune { channel_max, frame_max, heartbeat } => Some((*channel_max, *frame_max, *heartbeat)),
            _ => None,
        })?;
        let frame_max = if frame_max == 0 { FRAME_BYTES_MAX } else { frame_max };
        client.frame_bytes_max = frame_max.clamp(FRAME_BYTES_MIN, FRAME_BYTES_MAX);
        let heartbeat = if heartbeat == 0 { HEARTBEAT_SECONDS } else { heartbeat.min(HEARTBEAT_SECONDS) };
        client.heartbeat = Some(Duration::from_secs(heartbeat.into()));
        client.out.tune_ok(channel_max.min(frame::CHANNEL), client.frame_bytes_max, heartbeat);
        client.out.open(&url.vhost);
        client.answer(stop, |said| (*said == Said::OpenOk).then_some(()))?;
        client.out.channel_open();
        client.answer(stop, |said| (*said == Said::ChannelOpenOk).then_some(()))?;
        client.out.qos(PREFETCH);
        client.answer(stop, |said| (*said == Said::QosOk).then_some(()))?;
        client.out.consume(queue);
        client.answer(stop, |said| (*said == Said::ConsumeOk).then_some(()))?;
        Ok(client)
    }

    /// The next message; with `wait` also one that has yet to come.
    pub fn next(&mut self, wait: bool, stop: &Stop) -> Result<Next, Failed> {
        loop {
            self.send()?;
            while let Some(said) = self.frame()? {
                if let Some(delivery) = said {
                    return Ok(Next::Delivery(delivery));
                }
            }
            if stop.is_asked() {
                return Ok(Next::Stopped);
            }
            if !self.receive()? {
                if !wait {
                    return Ok(Next::Nothing);
                }
                self.live()?;
                self.wait(self.heartbeat.map(|heartbeat| heartbeat / 2), stop)?;
            }
        }
    }

    /// Acknowledges this message and all before it.
    pub fn ack_to(&mut self, tag: u64) -> Result<(), Failed> {
        self.out.ack_to(tag);
        self.send()
    }

    /// Refuses one message for good.
    pub fn reject(&mut self, tag: u64) -> Result<(), Failed> {
        self.out.reject(tag);
        self.send()
    }

    /// Says goodbye, and waits a moment for the answer: what was acknowledged has arrived then.
    pub fn close(mut self) {
        self.out.close();
        let until = Instant::now() + CLOSE_TIMEOUT;
        let mut closing = || -> Result<(), Failed> {
            self.send()?;
            while Instant::now() < until {
                while let Some((said, bytes)) = frame::read(&self.input[self.taken..], self.frame_bytes_max)?
                {
                    let is_done = said == Said::CloseOk;
                    self.taken += bytes;
                    if is_done {
                        return Ok(());
                    }
                }
                if !self.receive()? {
                    poll_in(&self.stream, until.saturating_duration_since(Instant::now()), None)?;
                }
            }
            Ok(())
        };
        if let Err(failed) = closing() {
            log::debug!("amqp_close error={:?}", failed.to_string());
        }
    }

    /// Waits for the answer that `find` looks for.
    fn answer<T>(&mut self, stop: &Stop, find: impl Fn(&Said<'_>) -> Option<T>) -> Result<T, Failed> {
        self.send()?;
        let until = Instant::now() + ANSWER_TIMEOUT;
        loop {
            while let Some((said, bytes)) = frame::read(&self.input[self.taken..], self.frame_bytes_max)? {
                let found = find(&said);
                let passed_over = matches!(said, Said::Heartbeat | Said::Other(..));
                let failed = if let Said::Close { code, text, .. } = said {
                    Failed::Closed { code, text: text.to_owned() }
                } else {
                    Failed::Unexpected(format!("{said:?}"))
                };
                self.taken += bytes;
                match found {
                    Some(found) => return Ok(found),
                    None if passed_over => {}
                    None => return Err(failed),
                }
            }
            if !self.receive()? {
                let left = until.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return Err(Failed::Silent);
                }
                self.wait(Some(left), stop)?;
                if stop.is_asked() {
                    return Err(Failed::Stopped);
                }
            }
        }
    }

    /// Takes a frame from what was read. None: no whole one is there; `Some(None)`: no message is whole by it.
    #[allow(clippy::option_option)]
    fn frame(&mut self) -> Result<Option<Option<Delivery>>, Failed> {
        let Some((said, bytes)) = frame::read(&self.input[self.taken..], self.frame_bytes_max)? else {
            return Ok(None);
        };
        let whole = match said {
            Said::Deliver { tag, redelivered } => {
                let delivery = Delivery { tag, redelivered, message_id: None, body: Vec::new(), cut: false };
                self.begun = Some(Begun { delivery, left: None });
                false
            }
            Said::Header { body_bytes, message_id } => {
                let begun = self.begun.as_mut().filter(|begun| begun.left.is_none());
                let begun = begun.ok_or_else(|| Failed::Unexpected("a message's head".to_owned()))?;
                begun.delivery.message_id = message_id.map(str::to_owned);
                begun.left = Some(body_bytes);
                body_bytes == 0
            }
            Said::Body(part) => {
                let begun = self.begun.as_mut();
                let whole = begun.and_then(|begun| begun.add(part));
                whole.ok_or_else(|| Failed::Unexpected("a message's body".to_owned()))?
            }
            Said::Cancel => return Err(Failed::NoQueue),
            Said::Close { whole, code, text } => {
                let failed = Failed::Closed { code, text: text.to_owned() };
                self.out.close_ok(whole);
                // The connection ends in either case.
                let _ = self.send();
                return Err(failed);
            }
            Said::Heartbeat | Said::Other(..) => false,
            said => return Err(Failed::Unexpected(format!("{said:?}"))),
        };
        self.taken += bytes;
        Ok(Some(if whole { self.begun.take().map(|begun| begun.delivery) } else { None }))
    }

    /// Reads what is there; false if nothing is.
    fn receive(&mut self) -> Result<bool, Failed> {
        self.input.drain(..self.taken);
        self.taken = 0;
        let end = self.input.len();
        self.input.resize(end + READ_BYTES, 0);
        let received = recv(&self.stream, &mut self.input[end..], RecvFlags::DONTWAIT);
        self.input.truncate(end + received.as_ref().map_or(0, |(bytes, _)| *bytes));
        match received {
            Ok((0, _)) => Err(socket("read")(io::ErrorKind::UnexpectedEof.into())),
            Ok(_) => {
                self.heard = Instant::now();
                Ok(true)
            }
            Err(Errno::WOULDBLOCK) => Ok(false),
            Err(Errno::INTR) => Ok(true),
            Err(error) => Err(socket("read")(error.into())),
        }
    }

    fn send(&mut self) -> Result<(), Failed> {
        if self.out.bytes.is_empty() {
            return Ok(());
        }
        let sent = self.stream.write_all(&self.out.bytes);
        self.out.bytes.clear();
        self.said = Instant::now();
        sent.map_err(socket("write"))
    }

    /// Gives a sign of life where one is due, and looks for the broker's: it was just tried to read from it.
    fn live(&mut self) -> Result<(), Failed> {
        let Some(heartbeat) = self.heartbeat else { return Ok(()) };
        if self.heard.elapsed() > 2 * heartbeat {
            return Err(Failed::Silent);
        }
        if self.said.elapsed() >= heartbeat / 2 {
            self.out.heartbeat();
            self.send()?;
        }
        Ok(())
    }

    fn wait(&self, timeout: Option<Duration>, stop: &Stop) -> Result<(), Failed> {
        poll_in(&self.stream, timeout.unwrap_or(ANSWER_TIMEOUT), Some(stop))
    }
}

impl Begun {
    /// Adds a part of the body; true if that was the last, none if it does not belong here.
    fn add(&mut self, part: &[u8]) -> Option<bool> {
        let left = self.left?.checked_sub(part.len() as u64)?;
        self.left = Some(left);
        let room = SOURCE_BYTES_MAX.saturating_sub(self.delivery.body.len());
        self.delivery.cut |= part.len() > room;
        self.delivery.body.extend_from_slice(&part[..part.len().min(room)]);
        Some(left == 0)
    }
}

fn connect(url: &Url) -> Result<TcpStream, Failed> {
    let addrs = (url.host.as_str(), url.port).to_socket_addrs().map_err(socket("look the broker up"))?;
    let mut failed = io::Error::from(io::ErrorKind::NotFound);
    for addr in addrs {
        match TcpStream::connect_timeout(&addr, CONNECT_TIMEOUT) {
            Ok(stream) => {
                stream.set_write_timeout(Some(ANSWER_TIMEOUT)).map_err(socket("set up the connection"))?;
                stream.set_nodelay(true).map_err(socket("set up the connection"))?;
                return Ok(stream);
            }
            Err(error) => failed = error,
        }
    }
    Err(socket("connect")(failed))
}

fn poll_in(stream: &TcpStream, timeout: Duration, stop: Option<&Stop>) -> Result<(), Failed> {
    let mut fds = vec![PollFd::new(stream, PollFlags::IN)];
    fds.extend(stop.map(|stop| PollFd::from_borrowed_fd(stop.as_fd(), PollFlags::empty())));
    match poll(&mut fds, Timespec::try_from(timeout).ok().as_ref()) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(socket("wait for the broker")(error.into())),
    }
}
