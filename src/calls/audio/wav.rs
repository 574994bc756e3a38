//! WAV file of known length as a virtual file: any byte range can be made without the rest.
//!
//! The form is RIFF WAVE with PCM of 16 bits. Sizes in it have 32 bits. Longer audio is refused; RF64 is not written
//! because browsers do not play it. At 8 kHz in stereo the limit is 37 hours.

use std::fmt;
use std::ops::Range;

const HEADER_BYTES: usize = 44;
const BYTES_PER_SAMPLE: u64 = 2;

/// Largest amount of sample data: the RIFF size, which has 32 bits, also counts 36 bytes of the header.
const DATA_BYTES_MAX: u64 = u32::MAX as u64 - 36;

/// Sample data that is made at once.
const BLOCK_FRAMES: u64 = 16_384;

/// The audio is longer than a WAV file can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WavTooLarge {
    pub data_bytes: u64,
}

impl fmt::Display for WavTooLarge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} bytes of samples do not fit into a WAV file (at most {DATA_BYTES_MAX})",
            self.data_bytes
        )
    }
}

impl std::error::Error for WavTooLarge {}

/// WAV file of known length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WavFile {
    rate_hz: u32,
    channels: u16,
    data_bytes: u32,
}

impl WavFile {
    /// `frames` is the number of samples per channel.
    pub(crate) fn new(rate_hz: u32, channels: u16, frames: u64) -> Result<WavFile, WavTooLarge> {
        let data_bytes = frames.saturating_mul(u64::from(channels) * BYTES_PER_SAMPLE);
        match u32::try_from(data_bytes) {
            Ok(bytes) if data_bytes <= DATA_BYTES_MAX => Ok(WavFile { rate_hz, channels, data_bytes: bytes }),
            _ => Err(WavTooLarge { data_bytes }),
        }
    }

    /// Length of the file in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        HEADER_BYTES as u64 + u64::from(self.data_bytes)
    }

    fn block_align(&self) -> u16 {
        self.channels.saturating_mul(BYTES_PER_SAMPLE as u16)
    }

    pub(crate) fn header(&self) -> [u8; HEADER_BYTES] {
        let mut header = [0; HEADER_BYTES];
        let bytes_per_second = self.rate_hz.saturating_mul(u32::from(self.block_align()));
        let fields: [&[u8]; 13] = [
            b"RIFF",
            &self.data_bytes.saturating_add(HEADER_BYTES as u32 - 8).to_le_bytes(),
            b"WAVE",
            b"fmt ",
            &16_u32.to_le_bytes(),
            &1_u16.to_le_bytes(),
            &self.channels.to_le_bytes(),
            &self.rate_hz.to_le_bytes(),
            &bytes_per_second.to_le_bytes(),
            &self.block_align().to_le_bytes(),
            &16_u16.to_le_bytes(),
            b"data",
            &self.data_bytes.to_le_bytes(),
        ];
        header.iter_mut().zip(fields.into_iter().flatten()).for_each(|(place, &byte)| *place = byte);
        header
    }

    /// Appends the bytes of the file in `range`. `render` appends the interleaved samples of a range of frames.
    pub(crate) fn read<E>(
        &self,
        range: Range<u64>,
        mut render: impl FnMut(Range<u64>, &mut Vec<i16>) -> Result<(), E>,
        file: &mut Vec<u8>,
    ) -> Result<(), E> {
        let end = range.end.min(self.bytes());
        let header_bytes = HEADER_BYTES as u64;
        if range.start < header_bytes.min(end) {
            let part = range.start as usize..end.min(header_bytes) as usize;
            file.extend_from_slice(self.header().get(part).unwrap_or_default());
        }
        let align = u64::from(self.block_align()).max(1);
        let mut position = range.start.max(header_bytes) - header_bytes;
        let end = end.saturating_sub(header_bytes);
        let mut samples = Vec::new();
        while position < end {
            let frame = position / align;
            let block = frame..end.div_ceil(align).min(frame + BLOCK_FRAMES);
            let until = end.min(block.end * align);
            samples.clear();
            render(block, &mut samples)?;
            let bytes = samples.iter().flat_map(|sample| sample.to_le_bytes());
            file.extend(bytes.skip((position % align) as usize).take((until - position) as usize));
            position = until;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;
    use std::io::Cursor;

    fn ramp(channels: u16) -> impl FnMut(Range<u64>, &mut Vec<i16>) -> Result<(), Infallible> {
        move |frames, samples| {
            let channels = u64::from(channels);
            samples.extend((frames.start * channels..frames.end * channels).map(|n| n as i16));
            Ok(())
        }
    }

    fn whole(wav: &WavFile) -> Vec<u8> {
        let mut file = Vec::new();
        wav.read(0..u64::MAX, ramp(wav.channels), &mut file).unwrap();
        file
    }

    #[test]
    fn hound_reads_what_was_written() {
        for (channels, frames) in [(1, 0), (1, 7), (2, 7), (2, 40_000)] {
            let wav = WavFile::new(16_000, channels, frames).unwrap();
            let file = whole(&wav);
            assert_eq!(file.len() as u64, wav.bytes());
            let reader = hound::WavReader::new(Cursor::new(file)).unwrap();
            let expected = hound::WavSpec {
                channels,
                sample_rate: 16_000,
                bits_per_sample: 16,
                sample_format: hound::SampleFormat::Int,
            };
            assert_eq!((reader.spec(), u64::from(reader.duration())), (expected, frames));
            let samples: Vec<i16> = reader.into_samples().map(Result::unwrap).collect();
            let count = frames * u64::from(channels);
            assert_eq!(samples, (0..count).map(|n| n as i16).collect::<Vec<_>>());
        }
    }

    #[test]
    fn hound_writes_the_same_bytes() {
        let spec = hound::WavSpec {
            channels: 2,
            sample_rate: 8000,
            bits_per_sample: 16,
            sample_format: hound::SampleFormat::Int,
        };
        let mut expected = Cursor::new(Vec::new());
        let mut writer = hound::WavWriter::new(&mut expected, spec).unwrap();
        (0..200).for_each(|sample| writer.write_sample(sample as i16).unwrap());
        writer.finalize().unwrap();
        assert_eq!(whole(&WavFile::new(8000, 2, 100).unwrap()), expected.into_inner());
    }

    #[test]
    fn every_byte_range_is_a_part_of_the_whole() {
        let wav = WavFile::new(8000, 2, 12).unwrap();
        let file = whole(&wav);
        for start in 0..=file.len() + 2 {
            for end in start..=file.len() + 2 {
                let mut part = Vec::new();
                wav.read(start as u64..end as u64, ramp(2), &mut part).unwrap();
                assert_eq!(part, file[start.min(file.len())..end.min(file.len())], "{start} {end}");
            }
        }
    }

    #[test]
    fn ranges_across_blocks_are_right() {
        let wav = WavFile::new(8000, 2, 50_000).unwrap();
        let file = whole(&wav);
        for (start, end) in [(43, 70_001), (65_579, 65_583), (1, 200_044), (100_003, 200_044)] {
            let mut part = Vec::new();
            wav.read(start..end, ramp(2), &mut part).unwrap();
            assert!(part == file[start as usize..end as usize], "{start} {end}");
        }
    }

    #[test]
    fn audio_beyond_four_gigabytes_is_refused() {
        let frames_max = DATA_BYTES_MAX / 4;
        assert!(WavFile::new(8000, 2, frames_max).is_ok());
        let error = WavFile::new(8000, 2, frames_max + 1).unwrap_err();
        assert_eq!(
            error.to_string(),
            "4294967260 bytes of samples do not fit into a WAV file (at most 4294967259)"
        );
        assert!(WavFile::new(8000, 1, DATA_BYTES_MAX / 2).is_ok());
        assert!(WavFile::new(8000, 1, DATA_BYTES_MAX / 2 + 1).is_err());
        assert!(WavFile::new(8000, 2, u64::MAX).is_err());
    }
}
