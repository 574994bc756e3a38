//! Compression of document sources, one by one, with a dictionary made from the first events of the store.
//!
//! The first byte of a stored source is its code: 0 uncompressed, 1 zstd without a dictionary, n + 1 zstd with
//! dictionary n. Dictionaries stay in the table `dictionaries` forever. Called by any thread.

use std::io;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use zstd::bulk::{Compressor, Decompressor};

use crate::search::document::SOURCE_BYTES_MAX;

const LEVEL: i32 = 3;
const DICTIONARY_BYTES: usize = 32 << 10;

/// Samples for a dictionary.
const SAMPLES_WANTED: usize = 2_000;
const SAMPLES_BYTES_MAX: usize = 4 << 20;

/// Maximum number of idle compressors and decompressors. Each takes some hundred KiB.
const IDLE_CONTEXTS_MAX: usize = 4;

const CODE_UNCOMPRESSED: u8 = 0;
const CODE_NO_DICTIONARY: u8 = 1;

/// Compressor and decompressor of sources.
#[derive(Default)]
pub(super) struct SourceCodec {
    dictionaries: RwLock<Vec<Arc<[u8]>>>,
    compressors: Mutex<Vec<(u8, Compressor<'static>)>>,
    decompressors: Mutex<Vec<(u8, Decompressor<'static>)>>,
    samples: Mutex<Samples>,
}

#[derive(Default)]
struct Samples {
    /// True if no more samples are needed.
    is_closed: bool,
    bytes: Vec<u8>,
    lengths: Vec<usize>,
}

impl Samples {
    fn is_sufficient(&self) -> bool {
        !self.is_closed && (self.lengths.len() >= SAMPLES_WANTED || self.bytes.len() >= SAMPLES_BYTES_MAX)
    }
}

impl SourceCodec {
    /// Adds the next dictionary.
    pub(super) fn add_dictionary(&self, bytes: &[u8]) {
        self.dictionaries.write().unwrap_or_else(PoisonError::into_inner).push(bytes.into());
        let mut samples = lock(&self.samples);
        *samples = Samples { is_closed: true, ..Samples::default() };
    }

    pub(super) fn dictionary_count(&self) -> usize {
        self.dictionaries.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    fn dictionary(&self, code: u8) -> Option<Arc<[u8]>> {
        let dictionaries = self.dictionaries.read().unwrap_or_else(PoisonError::into_inner);
        dictionaries.get(usize::from(code.checked_sub(CODE_NO_DICTIONARY + 1)?)).cloned()
    }

    /// Returns the stored form of a source.
    pub(super) fn compress(&self, source: &[u8]) -> Vec<u8> {
        self.add_sample(source);
        let code = CODE_NO_DICTIONARY + self.dictionary_count() as u8;
        let idle = lock(&self.compressors).pop().filter(|(of, _)| *of == code);
        let compressor = idle.map(|(_, compressor)| Ok(compressor)).unwrap_or_else(|| self.compressor(code));
        let packed = compressor.and_then(|mut compressor| {
            let packed = compressor.compress(source)?;
            let mut idle = lock(&self.compressors);
            if idle.len() < IDLE_CONTEXTS_MAX {
                idle.push((code, compressor));
            }
            Ok(packed)
        });
        let (code, body) = match &packed {
            Ok(packed) if packed.len() < source.len() => (code, packed.as_slice()),
            _ => (CODE_UNCOMPRESSED, source),
        };
        let mut stored = Vec::with_capacity(1 + body.len());
        stored.push(code);
        stored.extend_from_slice(body);
        stored
    }

    fn compressor(&self, code: u8) -> io::Result<Compressor<'static>> {
        let mut compressor = match self.dictionary(code) {
            Some(dictionary) => Compressor::with_dictionary(LEVEL, &dictionary)?,
            None => Compressor::new(LEVEL)?,
        };
        // The stored code replaces the dictionary id. SQLite and the file system guard against damage.
        compressor.include_checksum(false)?;
        compressor.include_dictid(false)?;
        Ok(compressor)
    }

    /// Returns the source of a stored form.
    pub(super) fn decompress(&self, stored: &[u8]) -> io::Result<Vec<u8>> {
        let damaged = || io::Error::new(io::ErrorKind::InvalidData, "damaged source");
        let (&code, body) = stored.split_first().ok_or_else(damaged)?;
        if code == CODE_UNCOMPRESSED {
            return Ok(body.to_vec());
        }
        let idle = lock(&self.decompressors).pop().filter(|(of, _)| *of == code);
        let mut decompressor = match (idle, self.dictionary(code)) {
            (Some((_, decompressor)), _) => decompressor,
            (None, Some(dictionary)) => Decompressor::with_dictionary(&dictionary)?,
            (None, None) if code == CODE_NO_DICTIONARY => Decompressor::new()?,
            (None, None) => return Err(damaged()),
        };
        let source = decompressor.decompress(body, SOURCE_BYTES_MAX)?;
        let mut idle = lock(&self.decompressors);
        if idle.len() < IDLE_CONTEXTS_MAX {
            idle.push((code, decompressor));
        }
        Ok(source)
    }

    fn add_sample(&self, source: &[u8]) {
        let mut samples = lock(&self.samples);
        if !samples.is_closed && !samples.is_sufficient() {
            samples.bytes.extend_from_slice(source);
            samples.lengths.push(source.len());
        }
    }

    /// Tells whether there are enough samples to train a dictionary.
    pub(super) fn can_train(&self) -> bool {
        lock(&self.samples).is_sufficient()
    }

    /// Returns a new dictionary if there are enough samples, otherwise `None`.
    pub(super) fn train_dictionary(&self) -> Option<Vec<u8>> {
        let mut samples = lock(&self.samples);
        if !samples.is_sufficient() {
            return None;
        }
        let collected = std::mem::replace(&mut *samples, Samples { is_closed: true, ..Samples::default() });
        drop(samples);
        // Training fails if the samples have nothing in common. Then the store uses no dictionary.
        zstd::dict::from_continuous(&collected.bytes, &collected.lengths, DICTIONARY_BYTES).ok()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_round_trip_with_and_without_a_dictionary() {
        let sources = SourceCodec::default();
        let event = |n: usize| {
            format!("{{\"destNum\":\"+4477009{n:05}\",\"userAgent\":\"friendly-scanner\"}}").into_bytes()
        };
        let early = sources.compress(&event(1));
        let mut dictionary = None;
        for n in 0..SAMPLES_WANTED {
            sources.compress(&event(n));
            dictionary = dictionary.or(sources.train_dictionary());
        }
        sources.add_dictionary(&dictionary.unwrap());
        assert!(sources.train_dictionary().is_none());
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
