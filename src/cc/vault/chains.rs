//! Joins the files of rotated streams: finds which part goes on where another one ends. Pure.
//!
//! A part belongs to the part before it only if everything fits: the name of the file, its length, and the offset in the
//! stream. A part without a byte after its repeated header has nothing of the stream: a crash left it, and it is ignored.

use std::collections::HashMap;

use super::manifest::{Manifest, Rotation};

/// What decides how a part is joined.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ChainLink<'a> {
    pub manifest: &'a Manifest,
    /// Length of the file.
    pub bytes: u64,
}

impl ChainLink<'_> {
    /// Offset in the stream of the end of the file.
    fn stream_end(&self) -> u64 {
        let rotation = self.manifest.rotation.unwrap_or(Rotation { header_bytes: 0, stream_offset: 0 });
        rotation.stream_offset.saturating_add(self.bytes.saturating_sub(rotation.header_bytes))
    }

    /// Reports whether the file has a repeated header at most.
    fn is_stub(&self) -> bool {
        self.manifest.rotation.is_some_and(|rotation| self.bytes <= rotation.header_bytes)
    }
}

/// Returns the streams that these parts of one name form: for each, the numbers of its parts in order. A stream whose first
/// part has a `rotation` is not complete: the part before it is missing or has another length.
pub(crate) fn chains(parts: &[ChainLink<'_>]) -> Vec<Vec<usize>> {
    let by_file: HashMap<&str, usize> =
        parts.iter().enumerate().map(|(at, part)| (part.manifest.file.as_str(), at)).collect();
    let before: Vec<Option<usize>> = parts.iter().map(|part| part_before(parts, &by_file, part)).collect();
    let mut goes_on = vec![false; parts.len()];
    for (at, before) in before.iter().enumerate() {
        if let Some(before) = before.filter(|_| !parts[at].is_stub()) {
            goes_on[before] = true;
        }
    }
    let ends = (0..parts.len()).filter(|at| !goes_on[*at] && !parts[*at].is_stub());
    let chain = |end: usize| {
        // Stream offsets decrease from part to part, so this ends.
        let mut chain: Vec<usize> = std::iter::successors(Some(end), |at| before[*at]).collect();
        chain.reverse();
        chain
    };
    let mut chains: Vec<Vec<usize>> = ends.map(chain).collect();
    chains.sort();
    chains
}

/// Finds the part that a rotated part continues.
fn part_before(
    parts: &[ChainLink<'_>],
    by_file: &HashMap<&str, usize>,
    part: &ChainLink<'_>,
) -> Option<usize> {
    let (rotation, continues) = (part.manifest.rotation?, part.manifest.continues.as_ref()?);
    let at = *by_file.get(continues.file.as_str())?;
    let before = &parts[at];
    let starts_before =
        before.manifest.rotation.map_or(0, |before| before.stream_offset) < rotation.stream_offset;
    let fits = before.bytes == continues.at && before.stream_end() == rotation.stream_offset;
    (fits && starts_before && !before.is_stub()).then_some(at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cc::vault::manifest::{PartPosition, StreamSource};

    /// A part: its length; and for a rotated one the part and length that it continues, and its stream offset.
    type Part = (u64, Option<(u32, u64, u64)>);

    #[track_caller]
    fn check(parts: &[Part], expected: &[&[usize]]) {
        let file = |part: u32| format!("file.{part}");
        let manifests: Vec<Manifest> = (0..)
            .zip(parts)
            .map(|(part, (_, rotated))| {
                let mut manifest = Manifest::new(b"file", file(part), part, StreamSource::Tcp);
                if let Some((before, at, stream_offset)) = *rotated {
                    manifest.continues = Some(PartPosition { file: file(before), at });
                    manifest.rotation = Some(Rotation { header_bytes: 24, stream_offset });
                }
                manifest
            })
            .collect();
        let links: Vec<ChainLink<'_>> = manifests
            .iter()
            .zip(parts)
            .map(|(manifest, (bytes, _))| ChainLink { manifest, bytes: *bytes })
            .collect();
        assert_eq!(chains(&links), expected);
    }

    #[test]
    fn parts_are_joined_in_the_order_of_the_stream() {
        check(&[], &[]);
        check(&[(100, None), (70, None)], &[&[0], &[1]]);
        check(&[(100, None), (74, Some((0, 100, 100))), (64, Some((1, 74, 150)))], &[&[0, 1, 2]]);
        // Two streams of one name.
        let two = [
            (100, None),
            (74, Some((0, 100, 100))),
            (90, None),
            (34, Some((2, 90, 90))),
            (64, Some((1, 74, 150))),
        ];
        check(&two, &[&[0, 1, 4], &[2, 3]]);
    }

    #[test]
    fn a_part_without_content_is_ignored() {
        check(&[(100, None), (24, Some((0, 100, 100)))], &[&[0]]);
        check(&[(100, None), (3, Some((0, 100, 100))), (74, Some((0, 100, 100)))], &[&[0, 2]]);
        check(&[(100, None), (24, Some((0, 100, 100))), (74, Some((1, 24, 100)))], &[&[0], &[2]]);
    }

    #[test]
    fn a_part_that_does_not_fit_is_alone() {
        check(&[(99, None), (74, Some((0, 100, 100)))], &[&[0], &[1]]);
        check(&[(100, None), (74, Some((0, 100, 101)))], &[&[0], &[1]]);
        check(&[(100, None), (74, Some((7, 100, 100)))], &[&[0], &[1]]);
        // Two parts that name each other, and one that names itself.
        check(&[(100, Some((1, 100, 76))), (100, Some((0, 100, 152)))], &[&[0, 1]]);
        check(&[(100, Some((0, 100, 100)))], &[&[0]]);
        // After a power failure a stream went on twice.
        check(&[(100, None), (74, Some((0, 100, 100))), (60, Some((0, 100, 100)))], &[&[0, 1], &[0, 2]]);
    }
}
