//! A request as a handler sees it. Pure.
//!
//! It owns one buffer with its head and keeps positions in that buffer, so that a connection parses one request after
//! the other without allocating.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::ops::Range;
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// The supported methods; the server answers 501 to any other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// A GET request may have a body.
    Get,
    /// The handler answers as for GET; the server leaves the body out.
    Head,
    Post,
    Put,
    Delete,
    Patch,
    Options,
}

impl Method {
    /// Returns the method with that name. Names are case-sensitive.
    pub fn from_name(name: &[u8]) -> Option<Method> {
        match name {
            b"GET" => Some(Method::Get),
            b"HEAD" => Some(Method::Head),
            b"POST" => Some(Method::Post),
            b"PUT" => Some(Method::Put),
            b"DELETE" => Some(Method::Delete),
            b"PATCH" => Some(Method::Patch),
            b"OPTIONS" => Some(Method::Options),
            _ => None,
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Method::Get => "GET",
            Method::Head => "HEAD",
            Method::Post => "POST",
            Method::Put => "PUT",
            Method::Delete => "DELETE",
            Method::Patch => "PATCH",
            Method::Options => "OPTIONS",
        }
    }
}

/// A request: its head, and its body once that is complete.
#[derive(Clone, Debug)]
pub struct Request {
    /// The head as received, including the empty line at its end.
    pub(super) head: Vec<u8>,
    pub(super) method: Method,
    /// The position of the path in the head. An empty range means `/` (absolute form without a path).
    pub(super) path: Range<usize>,
    pub(super) query: Range<usize>,
    /// The positions of each header's name and value in the head.
    pub(super) headers: Vec<(Range<usize>, Range<usize>)>,
    pub(super) body: Vec<u8>,
    pub(super) http_1_0: bool,
    /// The peer allows another request on this connection.
    pub(super) keep_alive: bool,
    /// The peer waits for `100 Continue` before it sends the body.
    pub(super) expects_continue: bool,
    pub(super) peer: SocketAddr,
    /// `None` for a request that did not come over a connection.
    pub(super) client: Option<ClientConnection>,
}

/// The connection of a request, to see whether anybody waits for its response.
#[derive(Clone, Debug)]
pub struct ClientConnection(pub(super) Arc<TcpStream>);

impl ClientConnection {
    /// Returns true if the client has closed its side of the connection, or all of it: that cannot be told apart.
    pub fn is_gone(&self) -> bool {
        let mut poll_fd = [PollFd::new(&*self.0, PollFlags::RDHUP)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut poll_fd, Some(&now)).is_ok_and(|ready| ready > 0)
    }
}

impl Request {
    pub(super) fn new() -> Request {
        Request {
            head: Vec::new(),
            method: Method::Get,
            path: 0..0,
            query: 0..0,
            headers: Vec::new(),
            body: Vec::new(),
            http_1_0: false,
            keep_alive: false,
            expects_continue: false,
            peer: SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0),
            client: None,
        }
    }

    /// Resets the request to the state after `new`, but keeps its buffers and its peer.
    pub(super) fn clear(&mut self) {
        self.head.clear();
        self.headers.clear();
        self.body.clear();
        self.method = Method::Get;
        (self.path, self.query) = (0..0, 0..0);
        (self.http_1_0, self.keep_alive, self.expects_continue) = (false, false, false);
    }

    /// Appends at most `left` bytes of input to the body. Returns how many it appended, and how many are still missing.
    pub(super) fn append_body(&mut self, input: &[u8], left: u64) -> (usize, u64) {
        let appended = usize::try_from(left).map_or(input.len(), |left| left.min(input.len()));
        self.body.extend_from_slice(&input[..appended]);
        (appended, left - appended as u64)
    }

    pub fn method(&self) -> Method {
        self.method
    }

    /// The path as sent, without the query. It starts with `/`, or is `*` (OPTIONS only). It is not percent-decoded, so
    /// that a caller can distinguish `%2F` from `/`.
    pub fn path(&self) -> &str {
        match self.text(&self.path) {
            "" => "/",
            path => path,
        }
    }

    /// The part after the `?` as sent, or an empty string.
    pub fn query(&self) -> &str {
        self.text(&self.query)
    }

    /// The names and values of the query, percent-decoded. A `+` becomes a space, and bytes that are not UTF-8 become
    /// U+FFFD. A name without `=` has an empty value.
    pub fn query_pairs(&self) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
        form_urlencoded::parse(self.query().as_bytes())
    }

    /// The value of the first header with that name, in any case. A value has no control characters except tabs; it may
    /// not be UTF-8.
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers().find(|(given, _)| given.eq_ignore_ascii_case(name.as_bytes())).map(|(_, value)| value)
    }

    /// All headers in the order in which they were received.
    pub fn headers(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.headers.iter().map(|(name, value)| (&self.head[name.clone()], &self.head[value.clone()]))
    }

    /// The complete body; chunks are joined.
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    pub fn client(&self) -> Option<ClientConnection> {
        self.client.clone()
    }

    fn text(&self, at: &Range<usize>) -> &str {
        str::from_utf8(&self.head[at.clone()]).expect("the target was checked to be UTF-8 when it was parsed")
    }
}
