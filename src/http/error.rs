//! The error of a request that cannot be parsed.

/// The reason why a request is rejected. It is a fixed text that contains no byte of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestError {
    /// The status code of the response.
    pub status: u16,
    /// A short text for the response and the log.
    pub reason: &'static str,
}

impl RequestError {
    pub(super) const fn new(status: u16, reason: &'static str) -> RequestError {
        RequestError { status, reason }
    }
}

pub(super) const BARE_LF: RequestError = RequestError::new(400, "a line ends without a carriage return");
pub(super) const BODY_TOO_LARGE: RequestError = RequestError::new(413, "the body is larger than the limit");
