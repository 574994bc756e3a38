//! A request's body: its type looked at, unpacked where it is gzip. Bounded in itself and over all requests.

use std::io::Read;
use std::sync::atomic::{AtomicUsize, Ordering};

use flate2::bufread::MultiGzDecoder;

use super::failure::Failure;
use crate::http::Request;

/// A body, packed and unpacked.
pub const BODY_BYTES_MAX: usize = 32 << 20;

/// How much is unpacked at once.
const STEP_BYTES: usize = 64 << 10;

/// How much of all unpacked bodies is held now.
#[derive(Debug)]
pub struct Inflating {
    held: AtomicUsize,
    body_bytes_max: usize,
}

impl Default for Inflating {
    fn default() -> Inflating {
        Inflating { held: AtomicUsize::new(0), body_bytes_max: BODY_BYTES_MAX }
    }
}

/// A body that can be read.
pub enum Body<'a> {
    /// As it came.
    Plain(&'a [u8]),
    /// Unpacked.
    Inflated(Inflated<'a>),
}

/// Unpacked bytes, counted as long as they are held.
pub struct Inflated<'a> {
    bytes: Vec<u8>,
    held: Held<'a>,
}

struct Held<'a> {
    all: &'a Inflating,
    bytes: usize,
}

impl Held<'_> {
    fn more(&mut self, bytes: usize) -> Result<(), Failure> {
        let before = self.all.held.fetch_add(bytes, Ordering::Relaxed);
        self.bytes += bytes;
        // All together have what one of the largest takes, or many as they are.
        match before + bytes <= self.all.body_bytes_max / 4 * 5 {
            true => Ok(()),
            false => Err(Failure::full("too many packed bodies are under way, try again")),
        }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.all.held.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Body<'_> {
    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Body::Plain(bytes) => bytes,
            Body::Inflated(inflated) => &inflated.bytes,
        }
    }
}

impl Inflating {
    /// The body of a request, unpacked where it says so. Any type is taken for JSON, since scripts send none or any,
    /// but those that surely are none.
    pub fn body<'a>(&'a self, request: &'a Request) -> Result<Body<'a>, Failure> {
        if let Some(kind) = request.header("content-type") {
            let kind = kind.to_ascii_lowercase();
            if let Some(other) =
                ["yaml", "smile", "cbor"].into_iter().find(|other| has(&kind, other.as_bytes()))
            {
                let reason = format!("Content-Type header [application/{other}] is not supported");
                return Err(Failure::new(406, "media_type_header_exception", reason));
            }
        }
        match request.header("content-encoding") {
            None => Ok(Body::Plain(request.body())),
            Some(coding) if coding.eq_ignore_ascii_case(b"identity") => Ok(Body::Plain(request.body())),
            Some(coding)
                if coding.eq_ignore_ascii_case(b"gzip") || coding.eq_ignore_ascii_case(b"x-gzip") =>
            {
                self.inflate(request.body()).map(Body::Inflated)
            }
            Some(_) => {
                Err(Failure::new(415, "illegal_argument_exception", "the only Content-Encoding is gzip"))
            }
        }
    }

    fn inflate(&self, packed: &[u8]) -> Result<Inflated<'_>, Failure> {
        let mut inflated = Inflated { bytes: Vec::new(), held: Held { all: self, bytes: 0 } };
        let mut decoder = MultiGzDecoder::new(packed);
        loop {
            let bytes = &mut inflated.bytes;
            if bytes.capacity() - bytes.len() < STEP_BYTES {
                // Old and new are there for a moment, so both count.
                let more =
                    bytes.capacity().clamp(STEP_BYTES, self.body_bytes_max.div_ceil(8).max(STEP_BYTES));
                inflated.held.more(more)?;
                bytes.reserve_exact(more);
            }
            let step = STEP_BYTES.min(self.body_bytes_max + 1 - bytes.len());
            match decoder.by_ref().take(step as u64).read_to_end(bytes) {
                Ok(0) => return Ok(inflated),
                Ok(_) if inflated.bytes.len() > self.body_bytes_max => {
                    let reason = format!("the body unpacks to more than {} bytes", self.body_bytes_max);
                    return Err(Failure::new(413, "content_too_long_exception", reason));
                }
                Ok(_) => {}
                Err(_) => {
                    return Err(Failure::new(
                        400,
                        "zip_exception",
                        "the body is not in gzip format, or cut off",
                    ));
                }
            }
        }
    }
}

fn has(text: &[u8], part: &[u8]) -> bool {
    memchr::memmem::find(text, part).is_some()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn packed(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn both_sides_of_the_limit() {
        let all = Inflating { body_bytes_max: 1 << 20, ..Inflating::default() };
        let whole = vec![b' '; (1 << 20) + 1];
        let inflated = all.inflate(&packed(&whole[1..])).map_err(|failure| failure.status());
        assert_eq!(inflated.as_ref().map(|inflated| inflated.bytes.len()).ok(), Some(1 << 20));
        // While it is held, there is little room for others.
        assert_eq!(all.inflate(&packed(&whole[1..])).err().map(|failure| failure.status()), Some(429));
        drop(inflated);
        assert_eq!(all.inflate(&packed(&whole)).err().map(|failure| failure.status()), Some(413));
        assert_eq!(all.held.load(Ordering::Relaxed), 0, "all was given back");
    }

    #[test]
    fn what_is_no_gzip_or_cut_off_is_refused() {
        let all = Inflating::default();
        let whole = packed(b"{\"a\":1}");
        for bytes in [&b"{}"[..], &whole[..whole.len() - 1], &[&whole[..], b"x"].concat()] {
            assert_eq!(all.inflate(bytes).err().map(|failure| failure.status()), Some(400), "{bytes:?}");
        }
        let two = [&whole[..], &whole].concat();
        assert_eq!(
            all.inflate(&two).map(|inflated| inflated.bytes).ok(),
            Some(b"{\"a\":1}{\"a\":1}".to_vec())
        );
    }
}
