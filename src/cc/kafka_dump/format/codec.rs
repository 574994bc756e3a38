//! Decompression of a batch's records.

use std::io::Read;

/// Java clients split snappy data into blocks after this magic and two version numbers (xerial framing).
/// Other clients write one block without a header.
const XERIAL_MAGIC: &[u8] = b"\x82SNAPPY\0";
const XERIAL_HEADER_BYTES: usize = 16;

/// Compression codec of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Codec {
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

impl Codec {
    /// Looks up the codec number in a batch's attributes.
    pub(super) fn from_number(number: u16) -> Result<Codec, u16> {
        match number {
            0 => Ok(Codec::None),
            1 => Ok(Codec::Gzip),
            2 => Ok(Codec::Snappy),
            3 => Ok(Codec::Lz4),
            4 => Ok(Codec::Zstd),
            other => Err(other),
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Codec::None => "none",
            Codec::Gzip => "gzip",
            Codec::Snappy => "snappy",
            Codec::Lz4 => "lz4",
            Codec::Zstd => "zstd",
        }
    }

    /// Decompresses `from` into `into`, which is cleared first. The error is the reason as text.
    pub(super) fn decompress(self, from: &[u8], into: &mut Vec<u8>, bytes_max: usize) -> Result<(), String> {
        into.clear();
        let done = match self {
            Codec::None => {
                into.extend_from_slice(from);
                Ok(())
            }
            Codec::Gzip => read(flate2::read::MultiGzDecoder::new(from), into, bytes_max),
            Codec::Snappy => snappy(from, into, bytes_max),
            Codec::Lz4 => read(lz4_flex::frame::FrameDecoder::new(from), into, bytes_max)
                .or_else(|reason| old_lz4(from, into, bytes_max).ok_or(reason)),
            Codec::Zstd => zstd::Decoder::new(from)
                .map_err(|error| error.to_string())
                .and_then(|decoder| read(decoder, into, bytes_max)),
        };
        done.map_err(|reason| format!("{}: {reason}", self.as_str()))
    }
}

fn read(decoder: impl Read, into: &mut Vec<u8>, bytes_max: usize) -> Result<(), String> {
    decoder.take(bytes_max as u64 + 1).read_to_end(into).map_err(|error| error.to_string())?;
    if into.len() > bytes_max { Err(too_long(bytes_max)) } else { Ok(()) }
}

fn too_long(bytes_max: usize) -> String {
    format!("decompressed, it exceeds the limit of {bytes_max} bytes")
}

/// Decompresses a frame of clients for message format v0, whose checksum of the frame's header is wrong. It is one
/// byte, so one of its 256 values is right.
fn old_lz4(from: &[u8], into: &mut Vec<u8>, bytes_max: usize) -> Option<()> {
    const CHECKSUM_AT: usize = 6;
    let mut mended = from.to_vec();
    for checksum in 0..=u8::MAX {
        *mended.get_mut(CHECKSUM_AT)? = checksum;
        let mut first = [0];
        if lz4_flex::frame::FrameDecoder::new(&*mended).read(&mut first).is_ok() {
            into.clear();
            return read(lz4_flex::frame::FrameDecoder::new(&*mended), into, bytes_max).ok();
        }
    }
    None
}

fn snappy(from: &[u8], into: &mut Vec<u8>, bytes_max: usize) -> Result<(), String> {
    if !from.starts_with(XERIAL_MAGIC) {
        return snappy_block(from, into, bytes_max);
    }
    let mut rest = from.get(XERIAL_HEADER_BYTES..).ok_or("truncated in its header")?;
    while !rest.is_empty() {
        let (length, after) = rest.split_first_chunk::<4>().ok_or("truncated in a block's length")?;
        let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
        let (block, after) = after.split_at_checked(length).ok_or("truncated in a block")?;
        snappy_block(block, into, bytes_max)?;
        rest = after;
    }
    Ok(())
}

fn snappy_block(block: &[u8], into: &mut Vec<u8>, bytes_max: usize) -> Result<(), String> {
    let length = snap::raw::decompress_len(block).map_err(|error| error.to_string())?;
    let start = into.len();
    if length > bytes_max - start {
        return Err(too_long(bytes_max));
    }
    into.resize(start + length, 0);
    let bytes = snap::raw::Decoder::new().decompress(block, &mut into[start..]);
    into.truncate(start + bytes.map_err(|error| error.to_string())?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn compressed(codec: Codec, data: &[u8]) -> Vec<u8> {
        match codec {
            Codec::None => data.to_vec(),
            Codec::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                encoder.write_all(data).unwrap();
                encoder.finish().unwrap()
            }
            Codec::Snappy => snap::raw::Encoder::new().compress_vec(data).unwrap(),
            Codec::Lz4 => {
                let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
                encoder.write_all(data).unwrap();
                encoder.finish().unwrap()
            }
            Codec::Zstd => zstd::encode_all(data, 1).unwrap(),
        }
    }

    fn check_decompress(codec: Codec, from: &[u8], expected: &[u8]) {
        let mut into = b"old".to_vec();
        assert_eq!(codec.decompress(from, &mut into, expected.len()), Ok(()), "{codec:?}");
        assert_eq!(into, expected, "{codec:?}");
        if codec != Codec::None {
            let refused = codec.decompress(from, &mut into, expected.len() - 1).unwrap_err();
            assert!(refused.contains("decompressed, it exceeds the limit of"), "{refused}");
        }
        // Truncated anywhere, it gives an error or a shorter result, and never panics.
        for end in 0..from.len() {
            if codec.decompress(&from[..end], &mut into, expected.len()).is_ok() {
                assert!(expected.starts_with(&into), "{codec:?} cut at {end}");
            }
        }
    }

    #[test]
    fn each_codec_decompresses_up_to_the_limit() {
        let data: Vec<u8> = (0..5000u32).flat_map(|n| (n / 7).to_le_bytes()).collect();
        for codec in [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
            check_decompress(codec, &compressed(codec, &data), &data);
        }
        let mut framed = b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01".to_vec();
        for block in data.chunks(3000) {
            let block = compressed(Codec::Snappy, block);
            framed.extend((block.len() as u32).to_be_bytes());
            framed.extend(block);
        }
        check_decompress(Codec::Snappy, &framed, &data);
        assert_eq!(Codec::from_number(5), Err(5));
    }
}
