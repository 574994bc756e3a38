//! A request as a handler sees it. It owns one buffer with its head and keeps positions in it, so that a connection
//! that is kept alive parses request after request without allocating.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::Range;

/// The methods that are understood; any other is answered with 501.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// GET. It may have a body.
    Get,
    /// HEAD: as GET, and the answer's body is left out by the server.
    Head,
    /// POST.
    Post,
    /// PUT.
    Put,
    /// DELETE.
    Delete,
    /// PATCH.
    Patch,
    /// OPTIONS.
    Options,
}

impl Method {
    /// The method of that name; names are case-sensitive.
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
}

/// A request: its head, and its body once that has come.
#[derive(Clone, Debug)]
pub struct Request {
    /// The head as received, its last empty line included.
    pub(super) head: Vec<u8>,
    pub(super) method: Method,
    /// Where the path stands in the head; empty means `/` (absolute form without a path).
    pub(super) path: Range<usize>,
    pub(super) query: Range<usize>,
    /// Name and value of each header.
    pub(super) headers: Vec<(Range<usize>, Range<usize>)>,
    pub(super) body: Vec<u8>,
    pub(super) http_1_0: bool,
    /// The peer lets the connection be used again.
    pub(super) keep_alive: bool,
    /// The peer waits for `100 Continue` before it sends the body.
    pub(super) expects_continue: bool,
    pub(super) peer: SocketAddr,
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
        }
    }

    /// Back to what `new` gives, with the same buffers and the same peer.
    pub(super) fn clear(&mut self) {
        self.head.clear();
        self.headers.clear();
        self.body.clear();
        self.method = Method::Get;
        (self.path, self.query) = (0..0, 0..0);
        (self.http_1_0, self.keep_alive, self.expects_continue) = (false, false, false);
    }

    /// The method.
    pub fn method(&self) -> Method {
        self.method
    }

    /// The path as sent, without the query: starts with `/`, or is `*` (OPTIONS only). Not percent-decoded, so that
    /// a `%2F` in a part of it can be told from a `/`.
    pub fn path(&self) -> &str {
        match self.text(&self.path) {
            "" => "/",
            path => path,
        }
    }

    /// What stands after the `?`, as sent; empty without one.
    pub fn query(&self) -> &str {
        self.text(&self.query)
    }

    /// The pairs of the query, percent-decoded, `+` as a blank; bytes that are no UTF-8 become U+FFFD. A name
    /// without `=` has an empty value.
    pub fn query_pairs(&self) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
        form_urlencoded::parse(self.query().as_bytes())
    }

    /// The first header of that name, in any case. A value is bytes: it has no control characters but tabs, and need
    /// not be UTF-8.
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers().find(|(given, _)| given.eq_ignore_ascii_case(name.as_bytes())).map(|(_, value)| value)
    }

    /// All headers in the order in which they came.
    pub fn headers(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.headers.iter().map(|(name, value)| (&self.head[name.clone()], &self.head[value.clone()]))
    }

    /// The body: whole, chunks put together.
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// Who asks.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    fn text(&self, at: &Range<usize>) -> &str {
        str::from_utf8(&self.head[at.clone()]).expect("the target was checked to be UTF-8 when it was parsed")
    }
}
