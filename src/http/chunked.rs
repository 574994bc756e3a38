//! The decoder of a chunked body (RFC 9112, section 7.1). Pure; the result is the same for every split of the input.

use super::error::{BARE_LF, BODY_TOO_LARGE, RequestError};
use super::limits::HEADERS_MAX;
use super::request::Request;

/// The size line of a chunk with its extensions. A size has at most 16 significant digits, and no client in use sends
/// extensions.
pub(super) const CHUNK_LINE_BYTES_MAX: usize = 256;

/// The extensions of all chunks of a body, and its trailers. Both are parsed and discarded.
pub(super) const CHUNK_EXTRA_BYTES_MAX: usize = 4096;

const MALFORMED_CHUNK: RequestError = RequestError::new(400, "malformed chunk");
const TRAILERS_TOO_LONG: RequestError = RequestError::new(431, "the trailers are too long");

#[derive(Clone, Copy, Debug)]
enum ChunkState {
    /// In the size line of a chunk.
    SizeLine,
    /// In the data of a chunk.
    Data {
        left: u64,
    },
    /// In the line end after the data of a chunk.
    DataEnd,
    /// After the last chunk; the current trailer starts at this offset of `line`.
    Trailers {
        line_from: usize,
    },
    Complete,
}

/// Decodes the chunks of one body after the other.
#[derive(Debug)]
pub(super) struct ChunkedDecoder {
    state: ChunkState,
    /// The current size line, or all trailers.
    line: Vec<u8>,
    /// The size of all extensions so far.
    extension_bytes: usize,
}

impl ChunkedDecoder {
    pub(super) fn new() -> ChunkedDecoder {
        ChunkedDecoder { state: ChunkState::SizeLine, line: Vec::new(), extension_bytes: 0 }
    }

    /// Resets the decoder for the next body.
    pub(super) fn reset(&mut self) {
        self.state = ChunkState::SizeLine;
        self.line.clear();
        self.extension_bytes = 0;
    }

    /// Appends the data of the chunks in `input` to the body of `request`. Returns how many bytes it consumed, and
    /// whether the body is complete.
    pub(super) fn feed(
        &mut self,
        input: &[u8],
        request: &mut Request,
        body_bytes_max: u64,
    ) -> Result<(usize, bool), RequestError> {
        let mut used = 0;
        loop {
            let rest = &input[used..];
            let (consumed, needs_more) = match self.state {
                ChunkState::SizeLine => {
                    // Cannot underflow: the body never exceeds the limit.
                    let room = body_bytes_max - request.body().len() as u64;
                    self.feed_size_line(rest, room)?
                }
                ChunkState::Data { left } => {
                    let (consumed, left) = request.append_body(rest, left);
                    self.state = if left == 0 { ChunkState::DataEnd } else { ChunkState::Data { left } };
                    (consumed, left > 0)
                }
                ChunkState::DataEnd => self.feed_data_end(rest)?,
                ChunkState::Trailers { line_from } => self.feed_trailer(rest, line_from)?,
                ChunkState::Complete => return Ok((used, true)),
            };
            used += consumed;
            if needs_more {
                return Ok((used, false));
            }
        }
    }

    fn feed_size_line(&mut self, input: &[u8], room: u64) -> Result<(usize, bool), RequestError> {
        let (consumed, needs_more) = self.append_line(input, CHUNK_LINE_BYTES_MAX, MALFORMED_CHUNK)?;
        if needs_more {
            return Ok((consumed, true));
        }
        let line = self.line.strip_suffix(b"\r\n").ok_or(BARE_LF)?;
        let (size, extension_bytes) = chunk_size(line)?;
        self.extension_bytes += extension_bytes;
        if self.extension_bytes > CHUNK_EXTRA_BYTES_MAX {
            return Err(RequestError::new(400, "too many chunk extensions"));
        }
        if size > room {
            return Err(BODY_TOO_LARGE);
        }
        self.line.clear();
        self.state = match size {
            0 => ChunkState::Trailers { line_from: 0 },
            left => ChunkState::Data { left },
        };
        Ok((consumed, false))
    }

    fn feed_data_end(&mut self, input: &[u8]) -> Result<(usize, bool), RequestError> {
        let consumed = input.len().min(2 - self.line.len());
        self.line.extend_from_slice(&input[..consumed]);
        if !b"\r\n".starts_with(&self.line) {
            return Err(MALFORMED_CHUNK);
        }
        if self.line.len() < 2 {
            return Ok((consumed, true));
        }
        self.line.clear();
        self.state = ChunkState::SizeLine;
        Ok((consumed, false))
    }

    fn feed_trailer(&mut self, input: &[u8], line_from: usize) -> Result<(usize, bool), RequestError> {
        let (consumed, needs_more) = self.append_line(input, CHUNK_EXTRA_BYTES_MAX, TRAILERS_TOO_LONG)?;
        if needs_more {
            return Ok((consumed, true));
        }
        let line = &self.line[line_from..];
        if !line.ends_with(b"\r\n") {
            return Err(BARE_LF);
        }
        if line != b"\r\n" {
            self.state = ChunkState::Trailers { line_from: self.line.len() };
            return Ok((consumed, false));
        }
        // Trailers are checked like headers and discarded: no handler uses one, and none may be mistaken for a header.
        match httparse::parse_headers(&self.line, &mut [httparse::EMPTY_HEADER; HEADERS_MAX]) {
            Ok(httparse::Status::Complete(_)) => self.state = ChunkState::Complete,
            _ => return Err(RequestError::new(400, "malformed trailers")),
        }
        Ok((consumed, false))
    }

    /// Appends input to `line`, up to and including a line feed. Returns how many bytes it consumed, and whether the line
    /// is still incomplete.
    fn append_line(
        &mut self,
        input: &[u8],
        bytes_max: usize,
        too_long: RequestError,
    ) -> Result<(usize, bool), RequestError> {
        let line_to = memchr::memchr(b'\n', input).map(|at| at + 1);
        let consumed = line_to.unwrap_or(input.len());
        if self.line.len() + consumed > bytes_max {
            return Err(too_long);
        }
        self.line.extend_from_slice(&input[..consumed]);
        Ok((consumed, line_to.is_none()))
    }
}

/// Returns the size in the line of a chunk, and how many bytes of extensions follow it.
fn chunk_size(line: &[u8]) -> Result<(u64, usize), RequestError> {
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let (size, extensions) = line.split_at(digits);
    let is_separated = extensions.is_empty() || extensions.starts_with(b";");
    let is_printable = extensions.iter().all(|byte| *byte == b'\t' || (b' '..=b'~').contains(byte));
    if size.is_empty() || !is_separated || !is_printable {
        return Err(MALFORMED_CHUNK);
    }
    // Leading zeros are accepted; a size beyond 64 bits is not.
    let size = str::from_utf8(size).map_err(|_| MALFORMED_CHUNK)?;
    let size = u64::from_str_radix(size, 16).map_err(|_| BODY_TOO_LARGE)?;
    Ok((size, extensions.len()))
}
