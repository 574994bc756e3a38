//! A server of the library on port 0, and a client that sends exactly the given bytes.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use lea::http::{Handler, HttpServer, HttpServerConfig, HttpServerHandle};
use lea::runtime::metrics::Metrics;
use lea::runtime::shutdown::Shutdown;

/// Longest wait of a test.
pub(crate) const PATIENCE: Duration = crate::support::DEADLINE;

pub(crate) struct Running {
    pub addr: SocketAddr,
    pub stop: Shutdown,
    pub metrics: Arc<Metrics>,
    handle: HttpServerHandle,
}

impl Running {
    pub(crate) fn start(config: HttpServerConfig, handler: impl Handler + 'static) -> Running {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (stop, metrics) = (Shutdown::new().unwrap(), Arc::new(Metrics::default()));
        let handle =
            HttpServer::spawn(listener, config, Arc::new(handler), stop.clone(), Arc::clone(&metrics))
                .unwrap();
        Running { addr: handle.local_addr(), stop, metrics, handle }
    }

    pub(crate) fn client(&self) -> Client {
        Client::connect(self.addr)
    }

    /// Triggers the shutdown and joins. Returns the duration.
    pub(crate) fn end(self) -> Duration {
        let started = Instant::now();
        self.stop.trigger();
        self.handle.join().unwrap();
        assert_eq!(self.metrics.listener("http").open.get(), 0);
        started.elapsed()
    }
}

/// Waits for a condition.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < PATIENCE, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (given, value) = line.split_once(": ")?;
            given.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    pub(crate) fn text(&self) -> &str {
        str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn closes(&self) -> bool {
        self.header("Connection") == Some("close")
    }
}

pub(crate) struct Client {
    pub stream: TcpStream,
    received: Vec<u8>,
}

impl Client {
    pub(crate) fn connect(addr: SocketAddr) -> Client {
        Client::try_connect(addr).unwrap()
    }

    /// Connects. Fails if no server listens.
    pub(crate) fn try_connect(addr: SocketAddr) -> io::Result<Client> {
        let stream = TcpStream::connect(addr)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Client { stream, received: Vec::new() })
    }

    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).unwrap();
    }

    pub(crate) fn get(&mut self, path: &str) -> Answer {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
        self.answer()
    }

    /// Reads the next response with its body.
    pub(crate) fn answer(&mut self) -> Answer {
        self.try_answer().unwrap()
    }

    /// Sends a request and reads the response. Fails if the server closes before the response is complete.
    pub(crate) fn try_ask(&mut self, request: &[u8]) -> io::Result<Answer> {
        self.stream.write_all(request)?;
        self.try_answer()
    }

    fn try_answer(&mut self) -> io::Result<Answer> {
        let mut answer = self.try_head()?;
        let bytes: usize = answer.header("Content-Length").map_or(0, |length| length.parse().unwrap());
        while self.received.len() < bytes {
            self.read_some("closed in the middle of a body")?;
        }
        answer.body = self.received.drain(..bytes).collect();
        Ok(answer)
    }

    /// Reads the next response that has no body, such as one to HEAD.
    pub(crate) fn head_only(&mut self) -> Answer {
        self.try_head().unwrap()
    }

    fn try_head(&mut self) -> io::Result<Answer> {
        let head_bytes = loop {
            match self.received.windows(4).position(|four| four == b"\r\n\r\n") {
                Some(at) => break at + 4,
                None => self.read_some("closed before a response")?,
            }
        };
        let head = String::from_utf8(self.received.drain(..head_bytes).collect()).unwrap();
        let status = head.strip_prefix("HTTP/1.1 ").unwrap()[..3].parse().unwrap();
        Ok(Answer { status, head, body: Vec::new() })
    }

    fn read_some(&mut self, or: &str) -> io::Result<()> {
        match self.read() {
            0 => Err(io::Error::new(ErrorKind::UnexpectedEof, format!("{or}: {:?}", self.received))),
            _ => Ok(()),
        }
    }

    /// Returns true if the server closes without sending another byte. A reset counts, because the server may
    /// leave bytes unread.
    pub(crate) fn is_closed(&mut self) -> bool {
        self.received.is_empty() && self.read() == 0
    }

    fn read(&mut self) -> usize {
        let mut bytes = [0; 65536];
        match self.stream.read(&mut bytes) {
            Ok(count) => {
                self.received.extend_from_slice(&bytes[..count]);
                count
            }
            Err(error) if error.kind() == ErrorKind::ConnectionReset => 0,
            Err(error) => panic!("nothing came: {error}"),
        }
    }
}
