//! Reads the body of a request: checks its type and decompresses gzip. Runs on the threads of the HTTP connections.
//!
//! Invariant: both the size of one decompressed body and the size of all of them together are limited.

use std::io::Read;
use std::sync::atomic::{AtomicUsize, Ordering};

use flate2::bufread::MultiGzDecoder;

use super::error::ApiError;
use crate::http::Request;

/// Size limit of a body, both compressed and decompressed.
pub const BODY_BYTES_MAX: usize = 32 << 20;

/// Bytes that are decompressed in one step.
const STEP_BYTES: usize = 64 << 10;

/// The memory budget of all decompressed bodies.
#[derive(Debug)]
pub(super) struct DecompressionBudget {
    held: AtomicUsize,
    body_bytes_max: usize,
}

impl Default for DecompressionBudget {
    fn default() -> DecompressionBudget {
        DecompressionBudget { held: AtomicUsize::new(0), body_bytes_max: BODY_BYTES_MAX }
    }
}

/// The readable body of a request.
pub(super) enum RequestBody<'a> {
    Plain(&'a [u8]),
    Decompressed(DecompressedBody<'a>),
}

/// Decompressed bytes. They count against the budget until they are dropped.
pub(super) struct DecompressedBody<'a> {
    bytes: Vec<u8>,
    share: BudgetShare<'a>,
}

struct BudgetShare<'a> {
    budget: &'a DecompressionBudget,
    bytes: usize,
}

impl BudgetShare<'_> {
    fn reserve(&mut self, bytes: usize) -> Result<(), ApiError> {
        let before = self.budget.held.fetch_add(bytes, Ordering::Relaxed);
        self.bytes += bytes;
        // The budget is 1.25 times the largest body.
        match before + bytes <= self.budget.body_bytes_max / 4 * 5 {
            true => Ok(()),
            false => {
                Err(ApiError::rejected_execution("too many compressed bodies at the same time, try again"))
            }
        }
    }
}

impl Drop for BudgetShare<'_> {
    fn drop(&mut self) {
        self.budget.held.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl RequestBody<'_> {
    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            RequestBody::Plain(bytes) => bytes,
            RequestBody::Decompressed(body) => &body.bytes,
        }
    }
}

impl DecompressionBudget {
    /// Returns the body of a request and decompresses it if necessary. Every content type is read as JSON, since scripts
    /// send none or any, except types that are certainly not JSON.
    pub(super) fn read_body<'a>(&'a self, request: &'a Request) -> Result<RequestBody<'a>, ApiError> {
        if let Some(content_type) = request.header("content-type") {
            let content_type = content_type.to_ascii_lowercase();
            if let Some(other) =
                ["yaml", "smile", "cbor"].into_iter().find(|other| contains(&content_type, other.as_bytes()))
            {
                let reason = format!("Content-Type header [application/{other}] is not supported");
                return Err(ApiError::new(406, "media_type_header_exception", reason));
            }
        }
        match request.header("content-encoding") {
            None => Ok(RequestBody::Plain(request.body())),
            Some(coding) if coding.eq_ignore_ascii_case(b"identity") => {
                Ok(RequestBody::Plain(request.body()))
            }
            Some(coding)
                if coding.eq_ignore_ascii_case(b"gzip") || coding.eq_ignore_ascii_case(b"x-gzip") =>
            {
                self.decompress(request.body()).map(RequestBody::Decompressed)
            }
            Some(_) => {
                Err(ApiError::new(415, "illegal_argument_exception", "the only Content-Encoding is gzip"))
            }
        }
    }

    fn decompress(&self, compressed: &[u8]) -> Result<DecompressedBody<'_>, ApiError> {
        let mut body = DecompressedBody { bytes: Vec::new(), share: BudgetShare { budget: self, bytes: 0 } };
        let mut decoder = MultiGzDecoder::new(compressed);
        loop {
            let bytes = &mut body.bytes;
            if bytes.capacity() - bytes.len() < STEP_BYTES {
                // While the buffer grows, the old and the new one exist together, so both count.
                let more =
                    bytes.capacity().clamp(STEP_BYTES, self.body_bytes_max.div_ceil(8).max(STEP_BYTES));
                body.share.reserve(more)?;
                bytes.reserve_exact(more);
            }
            let step = STEP_BYTES.min(self.body_bytes_max + 1 - bytes.len());
            match decoder.by_ref().take(step as u64).read_to_end(bytes) {
                Ok(0) => return Ok(body),
                Ok(_) if body.bytes.len() > self.body_bytes_max => {
                    let reason = format!("the decompressed body has more than {} bytes", self.body_bytes_max);
                    return Err(ApiError::new(413, "content_too_long_exception", reason));
                }
                Ok(_) => {}
                Err(_) => {
                    return Err(ApiError::new(
                        400,
                        "zip_exception",
                        "the body is not in gzip format, or it is truncated",
                    ));
                }
            }
        }
    }
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    memchr::memmem::find(text, part).is_some()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn compress(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn decompressed_bodies_are_limited_alone_and_together() {
        let budget = DecompressionBudget { body_bytes_max: 1 << 20, ..DecompressionBudget::default() };
        let whole = vec![b' '; (1 << 20) + 1];
        let body = budget.decompress(&compress(&whole[1..])).map_err(|error| error.status());
        assert_eq!(body.as_ref().map(|body| body.bytes.len()).ok(), Some(1 << 20));
        // While one body exists, a second one of this size exceeds the budget.
        assert_eq!(budget.decompress(&compress(&whole[1..])).err().map(|error| error.status()), Some(429));
        drop(body);
        assert_eq!(budget.decompress(&compress(&whole)).err().map(|error| error.status()), Some(413));
        assert_eq!(budget.held.load(Ordering::Relaxed), 0, "the whole budget is free again");
    }

    #[test]
    fn malformed_or_truncated_gzip_is_rejected() {
        let budget = DecompressionBudget::default();
        let whole = compress(b"{\"a\":1}");
        for bytes in [&b"{}"[..], &whole[..whole.len() - 1], &[&whole[..], b"x"].concat()] {
            assert_eq!(budget.decompress(bytes).err().map(|error| error.status()), Some(400), "{bytes:?}");
        }
        let two = [&whole[..], &whole].concat();
        assert_eq!(budget.decompress(&two).map(|body| body.bytes).ok(), Some(b"{\"a\":1}{\"a\":1}".to_vec()));
    }
}
