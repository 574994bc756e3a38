//! Limits on the size of a request.

/// Headers of a request.
pub(super) const HEADERS_MAX: usize = 64;

/// The configurable limits of a request.
#[derive(Clone, Copy, Debug)]
pub struct RequestLimits {
    /// The request line and the headers together.
    pub head_bytes_max: usize,
    pub target_bytes_max: usize,
    /// The body, without the framing of its chunks.
    pub body_bytes_max: u64,
}

impl Default for RequestLimits {
    /// A head of 16 KiB, as most servers allow, a target that has room for long queries, and a body of 1 MiB.
    fn default() -> RequestLimits {
        RequestLimits { head_bytes_max: 16 << 10, target_bytes_max: 8 << 10, body_bytes_max: 1 << 20 }
    }
}
