//! Decompresses a dump (gzip, zstd, xz, bzip2, lz4) and converts UTF-16 to UTF-8, by the first bytes.

use std::io::{self, BufReader, Cursor, Read};

/// Size of one read of compressed bytes.
const READ_BYTES: usize = 256 << 10;

/// Number of bytes that tell the compression.
const MAGIC_BYTES: u64 = 6;

/// A dump may be compressed this many times.
const LAYERS_MAX: usize = 3;

/// A dump that is larger than this and expands more than [`RATIO_MAX`] times is not read further: it is
/// made to fill a disk or to take forever. Dumps of captures expand up to about thousand times.
const EXPANDED_BYTES_MIN: u64 = 4 << 30;
const RATIO_MAX: u64 = 100_000;

/// Memory that the decoder of an xz file may use, in KiB. The highest level of `xz` needs 65 MiB.
const XZ_MEMORY_KIB_MAX: u32 = 256 << 10;

type Source = Box<dyn Read>;

/// Opens a dump. Also returns whether its bytes are decoded: compressed or UTF-16.
pub(in crate::cc::kafka_dump) fn open(mut from: Source) -> io::Result<(Source, bool)> {
    let mut is_decoded = false;
    for _ in 0..LAYERS_MAX {
        let mut magic = Vec::new();
        from.by_ref().take(MAGIC_BYTES).read_to_end(&mut magic)?;
        let whole = Cursor::new(magic.clone()).chain(from);
        let (decoded, is_encoded) = open_layer(&magic, Box::new(whole))?;
        from = decoded;
        if !is_encoded {
            break;
        }
        is_decoded = true;
    }
    Ok((from, is_decoded))
}

/// Opens one layer. Also returns whether there is one.
fn open_layer(magic: &[u8], from: Source) -> io::Result<(Source, bool)> {
    let limited = |from: Source| Limited::new(from);
    let is = |of: &[u8]| magic.starts_with(of);
    if is(&[0x1f, 0x8b]) {
        return Ok((limited(from).open(|from| Ok(Box::new(flate2::read::MultiGzDecoder::new(from))))?, true));
    }
    if is(&[0x28, 0xb5, 0x2f, 0xfd]) {
        return Ok((limited(from).open(|from| Ok(Box::new(zstd::Decoder::with_buffer(from)?)))?, true));
    }
    if is(b"\xfd7zXZ\0") {
        let open = |from| -> io::Result<Source> {
            Ok(Box::new(lzma_rust2::XzReader::new_mem_limit(from, true, XZ_MEMORY_KIB_MAX)))
        };
        return Ok((limited(from).open(open)?, true));
    }
    if is(b"BZh") {
        return Ok((
            limited(from).open(|from| Ok(Box::new(bzip2::bufread::MultiBzDecoder::new(from))))?,
            true,
        ));
    }
    if is(&[0x04, 0x22, 0x4d, 0x18]) {
        return Ok((
            limited(from).open(|from| Ok(Box::new(lz4_flex::frame::FrameDecoder::new(from))))?,
            true,
        ));
    }
    let utf16 = match *magic {
        [0xff, 0xfe, ..] => Some(u16::from_le_bytes as fn([u8; 2]) -> u16),
        [0xfe, 0xff, ..] => Some(u16::from_be_bytes as fn([u8; 2]) -> u16),
        [first, 0, second, 0, ..] if is_text(first) && is_text(second) => Some(u16::from_le_bytes as _),
        [0, first, 0, second, ..] if is_text(first) && is_text(second) => Some(u16::from_be_bytes as _),
        _ => None,
    };
    Ok(match utf16 {
        Some(unit) => (Box::new(Utf16Reader { from, unit, raw: Vec::new(), text: Cursor::default() }), true),
        None => (from, false),
    })
}

fn is_text(byte: u8) -> bool {
    byte.is_ascii_graphic() || byte.is_ascii_whitespace()
}

/// Compressed input whose expansion is limited.
struct Limited {
    from: BufReader<Counted>,
    read: std::rc::Rc<std::cell::Cell<u64>>,
}

impl Limited {
    fn new(from: Source) -> Limited {
        let read = std::rc::Rc::default();
        let counted = Counted { from, read: std::rc::Rc::clone(&read) };
        Limited { from: BufReader::with_capacity(READ_BYTES, counted), read }
    }

    /// Opens a decoder on the input.
    fn open(self, decoder: impl FnOnce(BufReader<Counted>) -> io::Result<Source>) -> io::Result<Source> {
        Ok(Box::new(LimitedReader { from: decoder(self.from)?, read: self.read, expanded: 0 }))
    }
}

struct Counted {
    from: Source,
    read: std::rc::Rc<std::cell::Cell<u64>>,
}

impl Read for Counted {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(into)?;
        self.read.set(self.read.get() + read as u64);
        Ok(read)
    }
}

struct LimitedReader {
    from: Source,
    read: std::rc::Rc<std::cell::Cell<u64>>,
    expanded: u64,
}

impl Read for LimitedReader {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let bytes = self.from.read(into)?;
        self.expanded += bytes as u64;
        if self.expanded > EXPANDED_BYTES_MIN && self.expanded / RATIO_MAX > self.read.get() {
            return Err(io::Error::other(format!("the file expands more than {RATIO_MAX} times")));
        }
        Ok(bytes)
    }
}

/// Converts UTF-16 to UTF-8. Unpaired surrogates become U+FFFD.
struct Utf16Reader {
    from: Source,
    unit: fn([u8; 2]) -> u16,
    /// Bytes that were read and not converted: half a unit, or the first of two units.
    raw: Vec<u8>,
    text: Cursor<Vec<u8>>,
}

impl Utf16Reader {
    /// Converts the next bytes. Returns false at the end.
    fn convert(&mut self) -> io::Result<bool> {
        let start = self.raw.len();
        self.raw.resize(start + READ_BYTES / 4, 0);
        let read = self.from.read(&mut self.raw[start..]);
        self.raw.truncate(start + *read.as_ref().unwrap_or(&0));
        let is_end = read? == 0;
        let mut units: Vec<u16> =
            self.raw.chunks_exact(2).map(|pair| (self.unit)([pair[0], pair[1]])).collect();
        let is_half = |unit: &u16| (0xd800..0xdc00).contains(unit);
        if !is_end && units.last().is_some_and(is_half) {
            units.pop();
        }
        let rest = self.raw.split_off(if is_end { self.raw.len() } else { units.len() * 2 });
        self.raw = rest;
        let text: String = char::decode_utf16(units)
            .map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER))
            .filter(|character| *character != '\u{feff}')
            .collect();
        self.text = Cursor::new(text.into_bytes());
        Ok(!is_end)
    }
}

impl Read for Utf16Reader {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = self.text.read(into)?;
            if read > 0 || into.is_empty() || !self.convert()? && self.text.get_ref().is_empty() {
                return Ok(read);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    const TEXT: &str = "{\"userid\":\"é😀\"}\n";

    fn check_open(bytes: &[u8], expected: &str) {
        let (mut from, _) = open(Box::new(Cursor::new(bytes.to_vec()))).unwrap();
        let mut text = String::new();
        from.read_to_string(&mut text).unwrap();
        assert!(text == expected, "{text}");
        // Truncated anywhere, it gives the start of the text, and an error at most.
        for end in 0..bytes.len().min(300) {
            if let Ok((mut from, _)) = open(Box::new(Cursor::new(bytes[..end].to_vec()))) {
                let mut start = Vec::new();
                let _ = from.read_to_end(&mut start);
            }
        }
    }

    #[test]
    fn compressed_dumps_are_opened() {
        let long = TEXT.repeat(20_000);
        let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
        bzip2.write_all(long.as_bytes()).unwrap();
        let mut lz4 = lz4_flex::frame::FrameEncoder::new(Vec::new());
        lz4.write_all(long.as_bytes()).unwrap();
        let zstd = zstd::encode_all(long.as_bytes(), 1).unwrap();
        let mut twice = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        twice.write_all(&zstd).unwrap();
        for bytes in [bzip2.finish().unwrap(), lz4.finish().unwrap(), zstd, twice.finish().unwrap()] {
            check_open(&bytes, &long);
        }
        check_open(TEXT.as_bytes(), TEXT);
        check_open(b"", "");
    }

    #[test]
    fn utf16_becomes_utf8() {
        let long = TEXT.repeat(20_000);
        let little = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>();
        let big = |text: &str| text.encode_utf16().flat_map(u16::to_be_bytes).collect::<Vec<_>>();
        check_open(&little(&long), &long);
        check_open(&big(&long), &long);
        check_open(&little(&format!("\u{feff}{long}")), &long);
        check_open(&big(&format!("\u{feff}{long}")), &long);
    }
}
