//! Looks into compressed streams while they arrive: decompresses them piece by piece and tracks the packets inside.
//!
//! Nothing here decides what is stored: the bytes of a compressed stream are stored as they are. Packets of it do not end
//! at bytes of the file, so all received bytes are visible at once.
//!
//! Memory is limited per stream by what its decompressor needs (`Decoder::memory_bytes`), and for all streams of the
//! process by [`MEMORY_BYTES_MAX`]. A stream that needs more is stored like any other, but no longer looked into, and its
//! manifest says so. Pure apart from that count.

use std::sync::atomic::{AtomicUsize, Ordering};

use flate2::{Decompress, FlushDecompress, Status};
use serde::{Deserialize, Serialize};
use zstd::stream::raw::{DParameter, Decoder as ZstdDecoder, InBuffer, Operation, OutBuffer};

use super::damage::{Damage, DamageKind};
use super::formats::CaptureFormat;
use super::lz4::Lz4Decoder;
use super::summary::{CaptureSummary, InspectionStop};
use super::tracker::PacketTracker;

/// Memory of all decompressors of the process together.
const MEMORY_BYTES_MAX: usize = 256 << 20;

/// Memory of a gzip decompressor: its window of 32 KiB and its tables.
const GZIP_BYTES: usize = 64 << 10;

/// Largest window of zstd that is accepted, as a power of two: 8 MiB, which is what `zstd -19` uses.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;
const ZSTD_BYTES: usize = (1 << ZSTD_WINDOW_LOG_MAX) + (512 << 10);

/// Decompressed bytes are handed to the tracker in pieces of this size, on the stack.
const PIECE_BYTES: usize = 8 << 10;

/// A stream that expands more than this, after the first [`FREE_BYTES`], is not a capture that somebody compressed. A
/// decompressor would be busy with it for hours.
const EXPANSION_MAX: u64 = 1100;
const FREE_BYTES: u64 = 64 << 20;

/// Container of a compressed stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    Gzip,
    Zstd,
    Lz4,
}

impl Compression {
    /// Usual file name extension, with its dot.
    pub(super) const fn extension(self) -> &'static str {
        match self {
            Compression::Gzip => ".gz",
            Compression::Zstd => ".zst",
            Compression::Lz4 => ".lz4",
        }
    }

    /// Returns the name used in manifests and tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Compression::Gzip => "gzip",
            Compression::Zstd => "zstd",
            Compression::Lz4 => "lz4",
        }
    }
}

/// Bytes of memory that decompressors of all streams use.
static MEMORY_BYTES: AtomicUsize = AtomicUsize::new(0);

/// A part of the memory for decompressors, returned when it is dropped.
#[derive(Debug)]
struct Reservation(usize);

impl Reservation {
    fn take(bytes: usize) -> Option<Reservation> {
        let add = |used: usize| used.checked_add(bytes).filter(|used| *used <= MEMORY_BYTES_MAX);
        MEMORY_BYTES.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).ok().map(|_| Reservation(bytes))
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        MEMORY_BYTES.fetch_sub(self.0, Ordering::Relaxed);
    }
}

/// Reason why decompression cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DecodeError {
    /// The data is not valid.
    Damaged,
    /// It needs more memory than a stream may have.
    TooLarge,
}

/// Result of decoding a piece. What was produced before an error counts: it does not depend on the size of the pieces.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Decoded {
    pub(super) consumed: usize,
    pub(super) produced: usize,
    pub(super) error: Option<DecodeError>,
}

impl Decoded {
    fn failed(error: DecodeError) -> Decoded {
        Decoded { error: Some(error), ..Decoded::default() }
    }
}

/// Content of a compressed stream so far.
#[derive(Debug)]
pub(super) struct CompressedContent {
    compression: Compression,
    decoder: DecoderState,
    /// Tracks what is inside.
    inner: Box<PacketTracker>,
    received: u64,
    /// Start of the member or frame that the decoder is in.
    frame_at: u64,
}

#[derive(Debug)]
enum DecoderState {
    Running {
        decoder: Box<Decoder>,
        _memory: Reservation,
    },
    /// The data is damaged from here on.
    Damaged,
    /// It is no longer looked into.
    Stopped(InspectionStop),
}

/// A copy cannot go on decompressing, because decompressors cannot be copied. It is only made where none is needed.
impl Clone for CompressedContent {
    fn clone(&self) -> CompressedContent {
        let decoder = match &self.decoder {
            DecoderState::Running { .. } => DecoderState::Stopped(self.stop("this is a copy")),
            DecoderState::Damaged => DecoderState::Damaged,
            DecoderState::Stopped(stop) => DecoderState::Stopped(stop.clone()),
        };
        CompressedContent { decoder, inner: self.inner.clone(), ..*self }
    }
}

impl CompressedContent {
    pub(super) fn new(compression: Compression) -> CompressedContent {
        let mut content = CompressedContent {
            compression,
            decoder: DecoderState::Damaged,
            inner: Box::new(PacketTracker::of_decompressed()),
            received: 0,
            frame_at: 0,
        };
        content.decoder = match Decoder::new(compression) {
            Some(decoder) => match Reservation::take(decoder.memory_bytes()) {
                Some(memory) => DecoderState::Running { decoder: Box::new(decoder), _memory: memory },
                None => DecoderState::Stopped(content.stop("too many compressed streams are open")),
            },
            None => DecoderState::Stopped(content.stop("the decompressor cannot be created")),
        };
        content
    }

    fn stop(&self, reason: &str) -> InspectionStop {
        InspectionStop { offset: self.received, reason: reason.to_owned() }
    }

    pub(super) fn packets(&self) -> u64 {
        self.inner.packets()
    }

    /// Decompresses the next bytes and tracks the packets in them.
    pub(super) fn feed(&mut self, mut bytes: &[u8]) {
        let mut piece = [0; PIECE_BYTES];
        let mut is_piece_full = false;
        while let DecoderState::Running { decoder, .. } = &mut self.decoder {
            if bytes.is_empty() && !is_piece_full {
                return;
            }
            if decoder.is_between_frames() {
                self.frame_at = self.received;
            }
            let decoded = decoder.decode(bytes, &mut piece);
            self.inner.feed(&piece[..decoded.produced]);
            match decoded.error {
                None => {}
                Some(DecodeError::Damaged) => {
                    self.decoder = DecoderState::Damaged;
                    break;
                }
                Some(DecodeError::TooLarge) => {
                    let reason = "decompression needs more memory than a stream may have".to_owned();
                    self.decoder = DecoderState::Stopped(InspectionStop { offset: self.frame_at, reason });
                    break;
                }
            }
            self.received += decoded.consumed as u64;
            bytes = &bytes[decoded.consumed..];
            is_piece_full = decoded.produced == PIECE_BYTES;
            if self.inner.received() > FREE_BYTES + EXPANSION_MAX * self.received {
                self.decoder = DecoderState::Stopped(self.stop("it expands too much"));
            }
        }
        self.received += bytes.len() as u64;
    }

    /// Summary of the stream, as if it ended here.
    pub(super) fn summary(&self) -> CaptureSummary {
        let mut summary = self.inner.summary();
        summary.compression = Some(self.compression);
        let own = self.own_damage();
        let is_cut = own.is_some() || matches!(self.decoder, DecoderState::Stopped(_));
        if is_cut {
            // The packet is cut because its container is.
            summary.damage.retain(|damage| damage.kind != DamageKind::Truncated);
        }
        for damage in &mut summary.damage {
            damage.decompressed = true;
        }
        if summary.format == CaptureFormat::Unknown && !is_cut && self.inner.received() == 0 {
            summary.format = CaptureFormat::Other;
        }
        // These count decompressed bytes, which are not bytes of the file. The findings have them.
        (summary.truncated_bytes, summary.malformed_at) = (0, None);
        summary.damage.extend(own);
        if let DecoderState::Stopped(stop) = &self.decoder {
            summary.inspection_stopped = Some(stop.clone());
        }
        summary
    }

    /// What is wrong with the container, if the stream ended here.
    fn own_damage(&self) -> Option<Damage> {
        let name = self.compression.as_str();
        let decompressed = self.inner.received();
        let (kind, detail) = match &self.decoder {
            DecoderState::Damaged => (
                DamageKind::Malformed,
                format!(
                    "the {name} data that starts here is damaged after {decompressed} decompressed bytes"
                ),
            ),
            DecoderState::Running { decoder, .. } if !decoder.is_between_frames() => (
                DamageKind::Truncated,
                format!(
                    "the {name} data that starts here has no end; {decompressed} bytes were decompressed"
                ),
            ),
            DecoderState::Running { .. } | DecoderState::Stopped(_) => return None,
        };
        let packets_before = self.inner.packets();
        Some(Damage { kind, offset: self.frame_at, decompressed: false, packets_before, detail })
    }
}

enum Decoder {
    Gzip(GzipDecoder),
    Zstd(ZstdState),
    Lz4(Lz4Decoder),
}

impl std::fmt::Debug for Decoder {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Decoder::Gzip(_) => "Gzip",
            Decoder::Zstd(_) => "Zstd",
            Decoder::Lz4(_) => "Lz4",
        })
    }
}

impl Decoder {
    fn new(compression: Compression) -> Option<Decoder> {
        Some(match compression {
            Compression::Gzip => Decoder::Gzip(GzipDecoder::default()),
            Compression::Zstd => Decoder::Zstd(ZstdState::new()?),
            Compression::Lz4 => Decoder::Lz4(Lz4Decoder::default()),
        })
    }

    /// Maximum memory of the decoder.
    fn memory_bytes(&self) -> usize {
        match self {
            Decoder::Gzip(_) => GZIP_BYTES,
            Decoder::Zstd(_) => ZSTD_BYTES,
            Decoder::Lz4(_) => super::lz4::MEMORY_BYTES,
        }
    }

    /// Reports whether the next byte starts a new member or frame.
    fn is_between_frames(&self) -> bool {
        match self {
            Decoder::Gzip(decoder) => decoder.stream.is_none(),
            Decoder::Zstd(state) => state.wanted == 0,
            Decoder::Lz4(decoder) => decoder.is_between_frames(),
        }
    }

    /// Decodes some of `input` into `output`. With an input that is not empty it makes progress.
    fn decode(&mut self, input: &[u8], output: &mut [u8]) -> Decoded {
        match self {
            Decoder::Gzip(decoder) => decoder.decode(input, output),
            Decoder::Zstd(state) => state.decode(input, output),
            Decoder::Lz4(decoder) => decoder.decode(input, output),
        }
    }
}

/// Decoder of gzip (RFC 1952) members in a row.
#[derive(Default)]
struct GzipDecoder {
    /// Decoder of the member. `None` between members.
    stream: Option<Decompress>,
    has_ended_member: bool,
}

impl GzipDecoder {
    fn decode(&mut self, input: &[u8], output: &mut [u8]) -> Decoded {
        if self.stream.is_none() && self.has_ended_member {
            // Tapes pad with zeros, and gzip ignores them.
            let zeros = input.iter().take_while(|byte| **byte == 0).count();
            if zeros > 0 || input.is_empty() {
                return Decoded { consumed: zeros, ..Decoded::default() };
            }
        }
        let stream = self.stream.get_or_insert_with(|| Decompress::new_gzip(15));
        let (before_in, before_out) = (stream.total_in(), stream.total_out());
        let status = stream.decompress(input, output, FlushDecompress::None);
        let consumed = (stream.total_in() - before_in) as usize;
        let produced = (stream.total_out() - before_out) as usize;
        let error = match status {
            Ok(Status::StreamEnd) => {
                (self.stream, self.has_ended_member) = (None, true);
                None
            }
            Ok(Status::Ok | Status::BufError) if consumed + produced > 0 || input.is_empty() => None,
            Ok(_) | Err(_) => Some(DecodeError::Damaged),
        };
        Decoded { consumed, produced, error }
    }
}

struct ZstdState {
    decoder: ZstdDecoder<'static>,
    /// Number of bytes that the decoder wants next. 0: between frames.
    wanted: usize,
}

impl ZstdState {
    fn new() -> Option<ZstdState> {
        let mut decoder = ZstdDecoder::new().ok()?;
        decoder.set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW_LOG_MAX)).ok()?;
        Some(ZstdState { decoder, wanted: 0 })
    }

    fn decode(&mut self, input: &[u8], output: &mut [u8]) -> Decoded {
        /// Shortest start of a frame header that tells its length.
        const FRAME_START_BYTES: usize = 5;
        if input.is_empty() && self.wanted == 0 {
            return Decoded::default();
        }
        /// What the decoder asks for includes the header of the block after the next one.
        const BLOCK_HEADER_BYTES: usize = 3;
        // One block per call: if the next part is damaged, the call returns nothing of the block before it.
        let wanted = match self.wanted {
            0 => FRAME_START_BYTES,
            bytes if bytes > BLOCK_HEADER_BYTES => bytes - BLOCK_HEADER_BYTES,
            bytes => bytes,
        };
        let mut source = InBuffer::around(&input[..input.len().min(wanted)]);
        let mut target = OutBuffer::around(output);
        let hint = self.decoder.run(&mut source, &mut target);
        let (consumed, produced) = (source.pos(), target.pos());
        match hint {
            Ok(wanted) if consumed + produced > 0 || input.is_empty() => {
                self.wanted = wanted;
                Decoded { consumed, produced, error: None }
            }
            Ok(_) => Decoded::failed(DecodeError::Damaged),
            Err(error) if error.to_string().contains("too much memory") => {
                Decoded::failed(DecodeError::TooLarge)
            }
            Err(_) => Decoded::failed(DecodeError::Damaged),
        }
    }
}

#[cfg(test)]
mod tests;
