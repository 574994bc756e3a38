//! Reads the body of a request: checks its type and decompresses gzip. Runs on the threads of the HTTP connections.
//!
//! Invariant: both the size of one decompressed body and the size of all of them together are limited.

use std::io::Read;
use std::sync::atomic::{AtomicUsize, Ordering};

use flate2::bufread::MultiGzDecoder;

use super::api::{EsApi, RoutedRequest};
use super::content_type::check_content_type;
use super::error::ApiError;
use crate::http::Request;
use crate::search::budget;

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
    /// The value of the parameter `source`.
    Parameter(&'a str),
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
        budget::charge(bytes)?;
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
            RequestBody::Parameter(text) => text.as_bytes(),
            RequestBody::Decompressed(body) => &body.bytes,
        }
    }
}

impl EsApi {
    /// Returns the body of a request, or the parameter `source` in its place.
    pub(super) fn read_body<'a>(
        &'a self,
        routed: &'a RoutedRequest<'_>,
    ) -> Result<RequestBody<'a>, ApiError> {
        let RoutedRequest { request, route, parameters } = routed;
        if request.body().is_empty() {
            return match (parameters.get("source"), parameters.get("source_content_type")) {
                (Some(_), None) => {
                    Err(ApiError::illegal_argument("source and source_content_type parameters are required"))
                }
                (Some(text), Some(_)) => Ok(RequestBody::Parameter(text)),
                (None, _) => Ok(RequestBody::Plain(&[])),
            };
        }
        // The paths with a type are those of 2.x, which read every content type as JSON. The scripts of SIP proxies send
        // any or none.
        if route.doc_type.is_none() {
            check_content_type(request)?;
        }
        self.decompression.decode_body(request)
    }

    /// Returns the body of a request that needs one.
    pub(super) fn read_required_body<'a>(
        &'a self,
        routed: &'a RoutedRequest<'_>,
    ) -> Result<RequestBody<'a>, ApiError> {
        let body = self.read_body(routed)?;
        match body.bytes() {
            [] => {
                let reason = "request body or source parameter is required";
                Err(ApiError::new(400, "parse_exception", reason))
            }
            _ => Ok(body),
        }
    }
}

impl DecompressionBudget {
    /// Returns the body of a request and decompresses it if necessary.
    fn decode_body<'a>(&'a self, request: &'a Request) -> Result<RequestBody<'a>, ApiError> {
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
