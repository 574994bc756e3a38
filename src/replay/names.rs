//! Names for the copies of a stream. Pure.
//!
//! The first copy has the original name. Copy 2 of a name of the usual form gets its number after the service
//! id, so that the name keeps its fields and its subscriber: `+447700900123-2-3.2_21_11_2026_20:59:41.pcap`.
//! Any other name gets it before the extension: `call-2.pcap`.

use std::collections::HashMap;

use crate::{Error, Result};

/// Names of one lane: one copy of a file, sent `--loop` times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LaneNames {
    base: Vec<u8>,
    first: u64,
    step: u64,
}

impl LaneNames {
    /// Name for round `round`, from 0.
    pub(crate) fn name_of_round(&self, round: u64) -> Vec<u8> {
        numbered(&self.base, self.first + round * self.step)
    }
}

/// Assigns names to lanes: for each base name in order, `streams` lanes of `rounds` rounds. The error names a
/// clash if not all names differ.
pub(crate) fn assign_names(bases: &[Vec<u8>], streams: u64, rounds: u64) -> Result<Vec<Vec<LaneNames>>> {
    let mut files_of: HashMap<&[u8], u64> = HashMap::new();
    bases.iter().for_each(|base| *files_of.entry(base).or_default() += 1);
    check_distinct(&files_of, streams.saturating_mul(rounds))?;
    let mut given: HashMap<&[u8], u64> = HashMap::new();
    let mut lanes = Vec::new();
    for base in bases {
        let next = given.entry(base).or_insert(1);
        let (first, step) = (*next, files_of[base.as_slice()] * streams);
        *next += streams;
        lanes.push((first..*next).map(|first| LaneNames { base: base.clone(), first, step }).collect());
    }
    Ok(lanes)
}

/// Rejects a file whose name equals that of another file's copy: the receiver would see one stream.
fn check_distinct(files_of: &HashMap<&[u8], u64>, copies: u64) -> Result<()> {
    if copies == 1 && files_of.values().all(|files| *files == 1) {
        return Ok(());
    }
    for (base, files) in files_of {
        let copies = files.saturating_mul(copies);
        for other in files_of.keys() {
            if copy_number(other, base).is_some_and(|number| number <= copies) {
                return Err(Error::Usage(format!(
                    "two streams would have the name {}: rename one of the files, or send them in separate runs",
                    String::from_utf8_lossy(other).escape_debug()
                )));
            }
        }
    }
    Ok(())
}

/// Formats the name of copy `number` of `base`.
pub(crate) fn numbered(base: &[u8], number: u64) -> Vec<u8> {
    if number == 1 {
        return base.to_owned();
    }
    let (at, mark) = number_position(base);
    let number = format!("{}{number}", mark as char);
    [&base[..at], number.as_bytes(), &base[at..]].concat()
}

/// Parses the copy number of `base` out of a name. `None` for the base name itself and for unrelated names.
fn copy_number(name: &[u8], base: &[u8]) -> Option<u64> {
    let (at, _) = number_position(base);
    let digits = name.strip_prefix(&base[..at])?.strip_suffix(&base[at..])?.get(1..)?;
    let number = std::str::from_utf8(digits).ok()?.parse().ok()?;
    (number > 1 && numbered(base, number) == name).then_some(number)
}

/// Position of a copy's number, and the separator before it.
fn number_position(base: &[u8]) -> (usize, u8) {
    let stem = match base.iter().rposition(|byte| *byte == b'.') {
        Some(dot) if dot > 0 => dot,
        _ => base.len(),
    };
    let start = stem.saturating_sub(START_PATTERN.len());
    if start > 0 && is_start(&base[start..stem]) { (start, b'.') } else { (stem, b'-') }
}

/// Shape of `_DD_MM_YYYY_HH:MM:SS`, the last field of a usual name (docs/protocol.md, section 1).
const START_PATTERN: &[u8] = b"_00_00_0000_00:00:00";

fn is_start(bytes: &[u8]) -> bool {
    let fits = |(byte, form): (&u8, &u8)| if *form == b'0' { byte.is_ascii_digit() } else { byte == form };
    bytes.len() == START_PATTERN.len() && bytes.iter().zip(START_PATTERN).all(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_copy(base: &str, expected: &str) {
        assert_eq!(String::from_utf8(numbered(base.as_bytes(), 12)).unwrap(), expected);
        assert_eq!(copy_number(expected.as_bytes(), base.as_bytes()), Some(12));
        assert_eq!(numbered(base.as_bytes(), 1), base.as_bytes());
        assert_eq!(copy_number(base.as_bytes(), base.as_bytes()), None);
    }

    #[test]
    fn copies_are_numbered() {
        check_copy(
            "+447700900123-2-3_21_11_2026_20:59:41.pcap",
            "+447700900123-2-3.12_21_11_2026_20:59:41.pcap",
        );
        check_copy("+447700900123-2-3_21_11_2026_20:59:41", "+447700900123-2-3.12_21_11_2026_20:59:41");
        check_copy("_21_11_2026_20:59:41.pcap", "_21_11_2026_20:59:41-12.pcap");
        check_copy("call.pcap", "call-12.pcap");
        check_copy("a.b.pcapng", "a.b-12.pcapng");
        check_copy(".hidden", ".hidden-12");
        check_copy("call", "call-12");
        check_copy("", "-12");
    }

    #[track_caller]
    fn check_all(bases: &[&str], streams: u64, rounds: u64, expected: &[&str]) {
        let bases: Vec<Vec<u8>> = bases.iter().map(|base| base.as_bytes().to_owned()).collect();
        let lanes = assign_names(&bases, streams, rounds).unwrap();
        let mut names: Vec<String> = lanes
            .iter()
            .flatten()
            .flat_map(|lane| (0..rounds).map(|round| String::from_utf8(lane.name_of_round(round)).unwrap()))
            .collect();
        names.sort();
        assert_eq!(names, expected);
    }

    #[test]
    fn all_names_of_a_run_differ() {
        check_all(&["a"], 1, 1, &["a"]);
        check_all(&["a", "b"], 2, 2, &["a", "a-2", "a-3", "a-4", "b", "b-2", "b-3", "b-4"]);
        check_all(&["a", "a"], 2, 2, &["a", "a-2", "a-3", "a-4", "a-5", "a-6", "a-7", "a-8"]);
        check_all(&["a", "a-2"], 1, 1, &["a", "a-2"]);
        check_all(&["a", "a-3"], 2, 1, &["a", "a-2", "a-3", "a-3-2"]);
    }

    #[test]
    fn a_file_named_like_a_copy_is_rejected() {
        let bases = [b"a-2".to_vec(), b"a".to_vec()];
        let error = assign_names(&bases, 2, 1).unwrap_err();
        assert!(error.to_string().contains("a-2"), "{error}");
    }
}
