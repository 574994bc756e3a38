//! Selects packets of a capture by their time. Reads headers only.
//!
//! What is not a packet stays, because readers need it: the file header, and in pcapng the descriptions of interfaces.
//! The result is therefore a capture.

use std::ops::Range;
use std::time::Duration;

use crate::replay::source::ReplayFile;
use crate::runtime::time::rfc3339_ns;
use crate::{Error, Result};

/// Limit on the parts of the content that are sent: 16 MiB. Packets in order of time are one part.
const RANGES_MAX: usize = 1 << 20;

/// Size of the pieces in which headers are read.
const PIECE_BYTES: usize = 256 << 10;

/// Packets to send: those from `from` until before `to`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Selection {
    pub from: Option<TimeBound>,
    pub to: Option<TimeBound>,
}

/// A time in a capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TimeBound {
    /// Nanoseconds since 1970.
    At(i64),
    /// Time since the first packet.
    AfterStart(Duration),
}

/// Times of the packets seen.
#[derive(Debug, Default)]
struct SeenTimes {
    first_ns: Option<i64>,
    min_ns: Option<i64>,
    max_ns: Option<i64>,
    packets: u64,
    selected: u64,
    without_time: u64,
}

impl SeenTimes {
    fn add(&mut self, time_ns: Option<i64>) {
        self.packets += 1;
        let Some(time_ns) = time_ns else {
            self.without_time += 1;
            return;
        };
        self.first_ns.get_or_insert(time_ns);
        self.min_ns = Some(self.min_ns.map_or(time_ns, |min| min.min(time_ns)));
        self.max_ns = Some(self.max_ns.map_or(time_ns, |max| max.max(time_ns)));
    }
}

impl Selection {
    pub(crate) fn is_everything(&self) -> bool {
        *self == Selection::default()
    }

    /// Returns the parts of the content to send, in order.
    pub(crate) fn ranges(&self, source: &ReplayFile) -> Result<Vec<Range<u64>>> {
        let path = source.path();
        let Some(mut packets) = source.packets() else {
            return Err(Error::Usage(format!(
                "--from and --to need a capture, and {} is not one",
                path.display()
            )));
        };
        let mut cursor = source.cursor(PIECE_BYTES);
        let (mut kept, mut seen, mut at, mut keeps) =
            (Vec::new(), SeenTimes::default(), 0, self.from.is_none());
        while let Some(packet) = packets.next(&mut cursor).map_err(Error::path("read", path))? {
            seen.add(packet.time_ns);
            // A packet without a time stays with the packet before it.
            keeps = packet.time_ns.map_or(keeps, |time_ns| self.contains(time_ns, seen.first_ns));
            // Before the packet there may be a file header or blocks.
            keep(&mut kept, at..packet.start);
            if keeps {
                seen.selected += 1;
                keep(&mut kept, packet.start..packet.end);
            }
            at = packet.end;
            if kept.len() > RANGES_MAX {
                return Err(Error::Usage(format!(
                    "the packets of {} are too far out of order for --from and --to: sort them with `lea mend`",
                    path.display()
                )));
            }
        }
        self.report(source, &seen, at)?;
        Ok(kept)
    }

    fn contains(&self, time_ns: i64, first_ns: Option<i64>) -> bool {
        let ns = |bound: TimeBound| match bound {
            TimeBound::At(ns) => i128::from(ns),
            TimeBound::AfterStart(after) => {
                i128::from(first_ns.unwrap_or(time_ns))
                    + i128::try_from(after.as_nanos()).unwrap_or(i128::MAX / 2)
            }
        };
        self.from.is_none_or(|from| ns(from) <= time_ns.into())
            && self.to.is_none_or(|to| i128::from(time_ns) < ns(to))
    }

    /// Reports what was selected. Fails if that is nothing.
    fn report(&self, source: &ReplayFile, seen: &SeenTimes, packets_end: u64) -> Result<()> {
        let path = source.path();
        if seen.selected == 0 {
            let times = match (seen.min_ns, seen.max_ns) {
                (Some(min), Some(max)) => {
                    format!("its packets are from {} to {}", rfc3339_ns(min), rfc3339_ns(max))
                }
                _ => "its packets have no times".to_owned(),
            };
            return Err(Error::Usage(format!("{} has no packet in that time: {times}", path.display())));
        }
        log::info!(
            "packets_selected file={path:?} packets={} of={} without_time={} bytes_left_out_at_end={}",
            seen.selected,
            seen.packets,
            seen.without_time,
            source.bytes() - packets_end
        );
        Ok(())
    }
}

/// Adds a part, which may continue the last one.
fn keep(kept: &mut Vec<Range<u64>>, part: Range<u64>) {
    match kept.last_mut() {
        _ if part.is_empty() => {}
        Some(last) if last.end == part.start => last.end = part.end,
        _ => kept.push(part),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    const S: i64 = 1_000_000_000;

    fn words(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    /// A capture with packets at these seconds. The content of each packet is its number.
    fn pcap(seconds: &[u32]) -> Vec<u8> {
        let mut bytes = words(&[0xa1b2_c3d4, 0x0004_0002, 0, 0, 65_535, 1]);
        for (number, time) in seconds.iter().enumerate() {
            bytes.extend(words(&[*time, 0, 4, 4, number as u32]));
        }
        bytes
    }

    fn select(capture: &[u8], from: Option<TimeBound>, to: Option<TimeBound>) -> Result<Vec<u8>, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, capture).unwrap();
        let selection = Selection { from, to };
        let found = ReplayFile::open_all(&[PathBuf::from(file.path())], &selection);
        let found = found.map_err(|error| error.to_string())?.remove(0);
        Ok(found.cursor(7).slice(0, found.bytes()).unwrap().to_vec())
    }

    /// Checks which packets are kept, by their numbers.
    #[track_caller]
    fn check(seconds: &[u32], from: Option<TimeBound>, to: Option<TimeBound>, expected: &[usize]) {
        let capture = pcap(seconds);
        let found = select(&capture, from, to).unwrap();
        let packets: Vec<u8> =
            expected.iter().flat_map(|number| capture[24 + 20 * number..][..20].to_vec()).collect();
        assert_eq!(found, [&capture[..24], &packets].concat());
    }

    #[test]
    fn packets_are_selected_by_time() {
        let at = |seconds: i64| Some(TimeBound::At(seconds * S));
        let after = |seconds| Some(TimeBound::AfterStart(Duration::from_secs(seconds)));
        let times = [10, 11, 12, 20];
        check(&times, at(11), None, &[1, 2, 3]);
        check(&times, None, at(12), &[0, 1]);
        check(&times, at(11), at(20), &[1, 2]);
        check(&times, after(1), after(3), &[1, 2]);
        check(&times, after(0), None, &[0, 1, 2, 3]);
        check(&times, Some(TimeBound::At(10 * S + 1)), None, &[1, 2, 3]);
        // Out of order: each packet by itself.
        check(&[10, 20, 11, 21], at(11), at(21), &[1, 2]);
        check(&[10, 20, 11, 21], None, Some(TimeBound::AfterStart(Duration::MAX)), &[0, 1, 2, 3]);
    }

    #[test]
    fn what_is_not_a_packet_stays() {
        let section = words(&[0x0a0d_0d0a, 28, 0x1a2b_3c4d, 1, u32::MAX, u32::MAX, 28]);
        let interface = words(&[1, 20, 1, 65_535, 20]);
        let packet =
            |interface: u32, seconds: u32| words(&[6, 36, interface, 0, seconds * 1_000_000, 4, 4, 0, 36]);
        let simple = words(&[3, 20, 4, 0, 20]);
        let capture = [
            &section[..],
            &interface,
            &packet(0, 10),
            &simple,
            &interface,
            &packet(1, 20),
            &simple,
            &packet(0, 30),
            &words(&[5, 24, 0, 0, 0, 24]),
        ]
        .concat();
        let found = select(&capture, Some(TimeBound::At(20 * S)), Some(TimeBound::At(30 * S))).unwrap();
        // The packet without a time belongs to the one before it. The statistics come after the last packet.
        assert_eq!(found, [&section[..], &interface, &interface, &packet(1, 20), &simple].concat());
    }

    #[test]
    fn a_selection_of_nothing_is_an_error() {
        let from = Some(TimeBound::At(21 * S));
        let error = select(&pcap(&[10, 20]), from, None).unwrap_err();
        assert!(
            error.ends_with("from 1970-01-01T00:00:10.000000000Z to 1970-01-01T00:00:20.000000000Z"),
            "{error}"
        );
        assert!(select(b"no capture", from, None).unwrap_err().contains("need a capture"));
        assert!(select(&pcap(&[]), from, None).unwrap_err().contains("have no times"));
    }

    #[test]
    fn incomplete_packets_at_the_end_are_not_selected() {
        let capture = pcap(&[10, 20, 30]);
        let found = select(&capture[..capture.len() - 1], Some(TimeBound::At(20 * S)), None).unwrap();
        assert_eq!(found, [&capture[..24], &capture[44..64]].concat());
    }
}
