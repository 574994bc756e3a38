//! Sources on the disk: compressed one by one, with a dictionary that was made from the store's first events.
//!
//! The first byte says how: 0 as it is, 1 zstd without a dictionary, 2 and more zstd with the dictionary of that number
//! less one. Dictionaries are kept in the table `dictionary` for ever. Called by any thread.

use std::io;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use zstd::bulk::{Compressor, Decompressor};

use crate::iri::document::SOURCE_BYTES_MAX;

const LEVEL: i32 = 3;
const DICTIONARY_BYTES: usize = 32 << 10;

/// Samples that a dictionary is made from.
const SAMPLES: usize = 2_000;
const SAMPLES_BYTES_MAX: usize = 4 << 20;

/// Contexts kept for the next caller; each takes some hundred KiB.
const KEPT_MAX: usize = 4;

const RAW: u8 = 0;
const PLAIN: u8 = 1;

/// Compresses and decompresses.
#[derive(Default)]
pub struct Sources {
    dictionaries: RwLock<Vec<Arc<[u8]>>>,
    compressors: Mutex<Vec<(u8, Compressor<'static>)>>,
    decompressors: Mutex<Vec<(u8, Decompressor<'static>)>>,
    samples: Mutex<Samples>,
}

#[derive(Default)]
struct Samples {
    /// No more are wanted.
    closed: bool,
    bytes: Vec<u8>,
    lengths: Vec<usize>,
}

impl Samples {
    fn are_enough(&self) -> bool {
        !self.closed && (self.lengths.len() >= SAMPLES || self.bytes.len() >= SAMPLES_BYTES_MAX)
    }
}

impl Sources {
    /// Adds the next dictionary.
    pub fn add_dictionary(&self, bytes: &[u8]) {
        self.dictionaries.write().unwrap_or_else(PoisonError::into_inner).push(bytes.into());
        let mut samples = lock(&self.samples);
        *samples = Samples { closed: true, ..Samples::default() };
    }

    /// How many dictionaries are there.
    pub fn dictionaries(&self) -> usize {
        self.dictionaries.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    fn dictionary(&self, code: u8) -> Option<Arc<[u8]>> {
        let dictionaries = self.dictionaries.read().unwrap_or_else(PoisonError::into_inner);
        dictionaries.get(usize::from(code.checked_sub(PLAIN + 1)?)).cloned()
    }

    /// A source as it is kept.
    pub fn compress(&self, source: &[u8]) -> Vec<u8> {
        self.sample(source);
        let code = PLAIN + self.dictionaries() as u8;
        let kept = lock(&self.compressors).pop().filter(|(of, _)| *of == code);
        let made = kept.map(|(_, compressor)| Ok(compressor)).unwrap_or_else(|| self.compressor(code));
        let packed = made.and_then(|mut compressor| {
            let packed = compressor.compress(source)?;
            let mut kept = lock(&self.compressors);
            if kept.len() < KEPT_MAX {
                kept.push((code, compressor));
            }
            Ok(packed)
        });
        let (code, body) = match &packed {
            Ok(packed) if packed.len() < source.len() => (code, packed.as_slice()),
            _ => (RAW, source),
        };
        let mut kept = Vec::with_capacity(1 + body.len());
        kept.push(code);
        kept.extend_from_slice(body);
        kept
    }

    fn compressor(&self, code: u8) -> io::Result<Compressor<'static>> {
        let mut compressor = match self.dictionary(code) {
            Some(dictionary) => Compressor::with_dictionary(LEVEL, &dictionary)?,
            None => Compressor::new(LEVEL)?,
        };
        // SQLite and the row's own code say what these would.
        compressor.include_checksum(false)?;
        compressor.include_dictid(false)?;
        Ok(compressor)
    }

    /// The source of what [`compress`](Self::compress) gave.
    pub fn decompress(&self, kept: &[u8]) -> io::Result<Vec<u8>> {
        let damaged = || io::Error::new(io::ErrorKind::InvalidData, "a source that cannot be decompressed");
        let (&code, body) = kept.split_first().ok_or_else(damaged)?;
        if code == RAW {
            return Ok(body.to_vec());
        }
        let found = lock(&self.decompressors).pop().filter(|(of, _)| *of == code);
        let mut decompressor = match (found, self.dictionary(code)) {
            (Some((_, decompressor)), _) => decompressor,
            (None, Some(dictionary)) => Decompressor::with_dictionary(&dictionary)?,
            (None, None) if code == PLAIN => Decompressor::new()?,
            (None, None) => return Err(damaged()),
        };
        let source = decompressor.decompress(body, SOURCE_BYTES_MAX)?;
        let mut kept = lock(&self.decompressors);
        if kept.len() < KEPT_MAX {
            kept.push((code, decompressor));
        }
        Ok(source)
    }

    fn sample(&self, source: &[u8]) {
        let mut samples = lock(&self.samples);
        if !samples.closed && !samples.are_enough() {
            samples.bytes.extend_from_slice(source);
            samples.lengths.push(source.len());
        }
    }

    /// True if [`train`](Self::train) has samples enough.
    pub fn can_train(&self) -> bool {
        lock(&self.samples).are_enough()
    }

    /// A new dictionary, once there are samples enough. `None` every other time.
    pub fn train(&self) -> Option<Vec<u8>> {
        let mut samples = lock(&self.samples);
        if !samples.are_enough() {
            return None;
        }
        let taken = std::mem::replace(&mut *samples, Samples { closed: true, ..Samples::default() });
        drop(samples);
        // Samples that have nothing in common give an error: then there is no dictionary.
        zstd::dict::from_continuous(&taken.bytes, &taken.lengths, DICTIONARY_BYTES).ok()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_come_back_with_and_without_a_dictionary() {
        let sources = Sources::default();
        let event = |n: usize| {
            format!("{{\"destNum\":\"+4477009{n:05}\",\"userAgent\":\"friendly-scanner\"}}").into_bytes()
        };
        let early = sources.compress(&event(1));
        let mut dictionary = None;
        for n in 0..SAMPLES {
            sources.compress(&event(n));
            dictionary = dictionary.or(sources.train());
        }
        sources.add_dictionary(&dictionary.unwrap());
        assert!(sources.train().is_none());
        let late = sources.compress(&event(2));
        assert!(late.len() < early.len() / 2, "{} {}", late.len(), early.len());
        assert_eq!(sources.decompress(&early).unwrap(), event(1));
        assert_eq!(sources.decompress(&late).unwrap(), event(2));
        assert_eq!(sources.decompress(&sources.compress(b"")).unwrap(), b"");
        for damaged in [&b""[..], &[9], &[9, 1, 2], &[1, 1, 2], &late[..5]] {
            assert!(sources.decompress(damaged).is_err(), "{damaged:?}");
        }
    }
}
