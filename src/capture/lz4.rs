//! Decoder of LZ4 frames (lz4_Frame_format.md, version 1.6.3) that accepts its input in pieces. The decoder of `lz4_flex`
//! reads from a source and cannot go on after the source had no bytes.

use std::hash::Hasher;

use twox_hash::XxHash32;

use super::compressed::{DecodeError, Decoded};

/// Largest block of the format.
const BLOCK_BYTES_MAX: usize = 4 << 20;

/// Number of bytes that a block can refer back to.
const WINDOW_BYTES: usize = 64 << 10;

/// A compressed block, its decompressed bytes, and the same after a window of older ones.
pub(super) const MEMORY_BYTES: usize = 3 * BLOCK_BYTES_MAX + WINDOW_BYTES;

const FRAME_MAGIC: u32 = 0x184d_2204;
/// Magic numbers of frames to skip have any last digit.
const SKIPPED_MAGIC: u32 = 0x184d_2a50;

/// Part of the frame that is expected next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Step {
    #[default]
    Magic,
    /// Flags and maximum block size; then as many bytes as the flags say.
    Descriptor,
    DescriptorRest,
    SkippedLength,
    Skipped,
    BlockLength,
    Block {
        is_compressed: bool,
    },
    Checksum,
}

/// Decoder of LZ4 frames in a row.
#[derive(Default)]
pub(super) struct Lz4Decoder {
    step: Step,
    /// Bytes of the current step so far.
    part: Vec<u8>,
    /// Number of bytes that the current step needs. 0: what `Step::Magic` needs.
    wanted: usize,
    block_bytes_max: usize,
    has_block_checksums: bool,
    has_content_checksum: bool,
    are_blocks_independent: bool,
    /// Hash of the decompressed content, if the frame has a checksum of it.
    content_hash: Option<XxHash32>,
    /// Decompressed bytes: at most a window of old ones, then the last block.
    decoded: Vec<u8>,
    /// Start of the decoded bytes that are not returned yet.
    returned: usize,
}

impl Lz4Decoder {
    /// Reports whether the next byte starts a frame.
    pub(super) fn is_between_frames(&self) -> bool {
        self.step == Step::Magic && self.part.is_empty()
    }

    /// Decodes some of `input` into `output`.
    pub(super) fn decode(&mut self, input: &[u8], output: &mut [u8]) -> Decoded {
        let mut consumed = 0;
        loop {
            let ready = (self.decoded.len() - self.returned).min(output.len());
            if ready > 0 {
                output[..ready].copy_from_slice(&self.decoded[self.returned..self.returned + ready]);
                self.returned += ready;
                return Decoded { consumed, produced: ready, error: None };
            }
            if !self.fill(input, &mut consumed) {
                return Decoded { consumed, ..Decoded::default() };
            }
            if let Err(error) = self.finish_step() {
                return Decoded { consumed, produced: 0, error: Some(error) };
            }
        }
    }

    /// Collects the bytes of the current step. Returns false if more are needed.
    fn fill(&mut self, input: &[u8], consumed: &mut usize) -> bool {
        let wanted = if self.step == Step::Magic { 4 } else { self.wanted };
        let rest = &input[*consumed..];
        let taken = rest.len().min(wanted - self.part.len());
        *consumed += taken;
        if self.step == Step::Skipped {
            self.wanted -= taken;
            return self.wanted == 0;
        }
        self.part.extend_from_slice(&rest[..taken]);
        self.part.len() == wanted
    }

    fn expect(&mut self, step: Step, wanted: usize) {
        (self.step, self.wanted) = (step, wanted);
        self.part.clear();
    }

    fn word(&self) -> u32 {
        self.part.first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes))
    }

    fn finish_step(&mut self) -> Result<(), DecodeError> {
        match self.step {
            Step::Magic => match self.word() {
                FRAME_MAGIC => self.expect(Step::Descriptor, 2),
                magic if magic & !0xf == SKIPPED_MAGIC => self.expect(Step::SkippedLength, 4),
                _ => return Err(DecodeError::Damaged),
            },
            Step::Descriptor => self.descriptor()?,
            Step::DescriptorRest => self.expect(Step::BlockLength, 4),
            Step::SkippedLength => match self.word() as usize {
                0 => self.expect(Step::Magic, 4),
                bytes => self.expect(Step::Skipped, bytes),
            },
            Step::Skipped => self.expect(Step::Magic, 4),
            Step::Checksum => match &self.content_hash {
                Some(hash) if hash.finish_32() != self.word() => return Err(DecodeError::Damaged),
                _ => self.expect(Step::Magic, 4),
            },
            Step::BlockLength => self.block_length()?,
            Step::Block { is_compressed } => self.block(is_compressed)?,
        }
        Ok(())
    }

    fn descriptor(&mut self) -> Result<(), DecodeError> {
        let (flags, sizes) = (self.part[0], self.part[1]);
        let has_content_size = flags & 0x08 != 0;
        let has_dictionary = flags & 0x01 != 0;
        self.are_blocks_independent = flags & 0x20 != 0;
        self.has_block_checksums = flags & 0x10 != 0;
        self.has_content_checksum = flags & 0x04 != 0;
        self.block_bytes_max = match sizes >> 4 & 7 {
            4 => 64 << 10,
            5 => 256 << 10,
            6 => 1 << 20,
            7 => BLOCK_BYTES_MAX,
            _ => return Err(DecodeError::Damaged),
        };
        // Nobody has told which dictionary.
        if flags >> 6 != 1 || has_dictionary {
            return Err(DecodeError::Damaged);
        }
        self.content_hash = self.has_content_checksum.then(|| XxHash32::with_seed(0));
        self.decoded.clear();
        self.returned = 0;
        self.expect(Step::DescriptorRest, 8 * usize::from(has_content_size) + 1);
        Ok(())
    }

    fn block_length(&mut self) -> Result<(), DecodeError> {
        const IS_STORED: u32 = 1 << 31;
        let word = self.word();
        let bytes = (word & !IS_STORED) as usize;
        if bytes > self.block_bytes_max {
            return Err(DecodeError::Damaged);
        }
        match word {
            0 if self.has_content_checksum => self.expect(Step::Checksum, 4),
            0 => self.expect(Step::Magic, 4),
            _ => {
                let checksum_bytes = 4 * usize::from(self.has_block_checksums);
                self.expect(Step::Block { is_compressed: word & IS_STORED == 0 }, bytes + checksum_bytes);
            }
        }
        Ok(())
    }

    fn block(&mut self, is_compressed: bool) -> Result<(), DecodeError> {
        let bytes = self.part.len() - 4 * usize::from(self.has_block_checksums);
        let (block, checksum) = self.part.split_at(bytes);
        if let Some(checksum) = checksum.first_chunk()
            && XxHash32::oneshot(0, block) != u32::from_le_bytes(*checksum)
        {
            return Err(DecodeError::Damaged);
        }
        // What is before the window is not needed any more.
        let window = if self.are_blocks_independent { 0 } else { self.decoded.len().min(WINDOW_BYTES) };
        self.decoded.drain(..self.decoded.len() - window);
        if is_compressed {
            let mut block = vec![0; self.block_bytes_max];
            let decoded =
                lz4_flex::block::decompress_into_with_dict(&self.part[..bytes], &mut block, &self.decoded)
                    .map_err(|_| DecodeError::Damaged)?;
            self.decoded.extend_from_slice(&block[..decoded]);
        } else {
            self.decoded.extend_from_slice(&self.part[..bytes]);
        }
        self.returned = window;
        if let Some(hash) = &mut self.content_hash {
            hash.write(&self.decoded[window..]);
        }
        self.expect(Step::BlockLength, 4);
        Ok(())
    }
}
