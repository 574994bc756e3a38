//! Ordering of several dumps, so that each partition's records are read by offset, as far as the first
//! records of the dumps reveal it.

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;
use std::sync::Arc;

use super::input::{DumpInput, DumpSource};
use super::{DumpOptions, open_reader};
use crate::Result;
use crate::cc::kafka_dump::format::{DumpItem, KafkaPosition};

/// Number of records that are examined per dump. They include all partitions, unless some are very quiet.
const RECORDS_MAX: usize = 10_000;

/// Lowest offset of each partition at the start of a dump.
type FirstOffsets = HashMap<(String, i32), i64>;

/// Sorts the dumps. Dumps without offsets and standard input keep their place among the others.
pub fn sort_by_offset(origins: Vec<DumpSource>, options: &DumpOptions<'_>) -> Result<Vec<DumpSource>> {
    if origins.len() < 2 {
        return Ok(origins);
    }
    let firsts: Vec<FirstOffsets> =
        origins.iter().map(|origin| first_offsets(origin, options)).collect::<Result<_>>()?;
    let mut origins: Vec<Option<DumpSource>> = origins.into_iter().map(Some).collect();
    Ok(dump_order(&firsts).into_iter().filter_map(|nth| origins[nth].take()).collect())
}

/// Keeps the given order, except that each dump comes after the dumps that start before it in a shared
/// partition, and after their predecessors. Contradicting dumps get an arbitrary order.
fn dump_order(dumps: &[FirstOffsets]) -> Vec<usize> {
    let before = predecessors(dumps);
    let mut ordered = Vec::with_capacity(dumps.len());
    let mut is_met = vec![false; dumps.len()];
    for nth in 0..dumps.len() {
        // A dump is emitted after all its predecessors. The chain may be too long for recursion.
        let mut path = vec![(nth, 0)];
        while let Some((dump, looked_at)) = path.pop() {
            if looked_at == 0 && std::mem::replace(&mut is_met[dump], true) {
                continue;
            }
            match before[dump].get(looked_at) {
                Some(other) => path.extend([(dump, looked_at + 1), (*other, 0)]),
                None => ordered.push(dump),
            }
        }
    }
    ordered
}

/// For each dump, lists the dumps that start immediately before it in one of its partitions.
fn predecessors(dumps: &[FirstOffsets]) -> Vec<Vec<usize>> {
    let mut of_partition: HashMap<&(String, i32), BTreeMap<i64, Vec<usize>>> = HashMap::new();
    for (nth, firsts) in dumps.iter().enumerate() {
        for (partition, first) in firsts {
            of_partition.entry(partition).or_default().entry(*first).or_default().push(nth);
        }
    }
    let mut before: Vec<Vec<usize>> = vec![Vec::new(); dumps.len()];
    for sharing in of_partition.values() {
        for (earlier, later) in sharing.values().zip(sharing.values().skip(1)) {
            later.iter().for_each(|dump| before[*dump].extend(earlier));
        }
    }
    before.iter_mut().for_each(|dumps| dumps.sort_unstable());
    before
}

fn first_offsets(origin: &DumpSource, options: &DumpOptions<'_>) -> Result<FirstOffsets> {
    let mut firsts = FirstOffsets::new();
    if origin.bytes().is_none() {
        return Ok(firsts);
    }
    let mut left = RECORDS_MAX;
    for_each_record(origin, options, &mut |position, _| {
        if let Some(position) = position {
            let first = firsts.entry((position.topic.to_owned(), position.partition));
            first.and_modify(|first| *first = position.offset.min(*first)).or_insert(position.offset);
        }
        left -= 1;
        if left > 0 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    if firsts.is_empty()
        && let Some((topic, partition, first)) = origin.object_name()
    {
        firsts.insert((topic, partition), first);
    }
    Ok(firsts)
}

/// Callback that gets a record's position, if known, and its value.
pub type RecordCallback<'a> = dyn FnMut(Option<&KafkaPosition<'_>>, Option<&[u8]>) -> ControlFlow<()> + 'a;

/// Calls `found` for each record of a dump until it breaks. Damage is skipped.
pub fn for_each_record(
    origin: &DumpSource,
    options: &DumpOptions<'_>,
    found: &mut RecordCallback<'_>,
) -> Result<()> {
    let mut input = DumpInput::open(origin, None, Arc::default())?;
    let mut reader = open_reader(origin, &mut input, options).1;
    loop {
        let step = reader.step(input.bytes(), input.has_ended());
        let consumed = step.consumed;
        match step.item {
            DumpItem::NeedBytes(bytes) => {
                input.fill(bytes);
                continue;
            }
            DumpItem::End { .. } => return Ok(()),
            DumpItem::Record { position, value, .. } => {
                if found(position.as_ref(), value).is_break() {
                    return Ok(());
                }
            }
            DumpItem::Skip | DumpItem::Damaged { .. } | DumpItem::TransactionEnd { .. } => {}
        }
        input.consume(consumed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_order(dumps: &[&str], expected: &[usize]) {
        let dir = tempfile::tempdir().unwrap();
        let origins: Vec<DumpSource> = dumps
            .iter()
            .enumerate()
            .map(|(nth, dump)| {
                let path = dir.path().join(nth.to_string());
                std::fs::write(&path, dump).unwrap();
                DumpSource::File(path)
            })
            .collect();
        let ordered = sort_by_offset(origins.clone(), &DumpOptions::default()).unwrap();
        let found: Vec<usize> =
            ordered.iter().map(|origin| origins.iter().position(|other| other == origin).unwrap()).collect();
        assert_eq!(found, expected, "{dumps:?}");
    }

    #[test]
    fn dumps_go_by_offset_where_they_share_a_partition() {
        let line = |partition, offset| format!("Partition:{partition}\tOffset:{offset}\t{{}}\n");
        let (a0, a5, a9) = (&line(0, 0)[..], &line(0, 5)[..], &line(0, 9)[..]);
        check_order(&[a9, a0, a5], &[1, 2, 0]);
        check_order(&[a5, "{\"data\":\"\"}\n", a0], &[2, 0, 1]);
        check_order(&[&line(1, 7), a0], &[0, 1]);
        // The first has partition 1 before partition 0. Both include the start of the second one.
        check_order(&[&(line(1, 3) + a0), &(line(0, 5) + &line(1, 9))], &[0, 1]);
        check_order(&[&(line(0, 5) + &line(1, 9)), &(line(1, 3) + a0)], &[1, 0]);
        check_order(&["", a0], &[0, 1]);
        // The last one belongs between the other two, which share no partition.
        check_order(&[&line(1, 5), a9, &(line(1, 0) + &line(0, 20))], &[1, 2, 0]);
        // Two that start at the same offset, and one after both.
        check_order(&[a5, &(line(0, 0) + &line(1, 9)), a0, &line(1, 2)], &[3, 1, 2, 0]);
        // Two contradicting dumps.
        check_order(&[&(line(0, 5) + &line(1, 0)), &(line(0, 0) + &line(1, 5))], &[1, 0]);
    }

    #[test]
    fn very_many_dumps_are_ordered() {
        let many: Vec<FirstOffsets> =
            (0..100_000).rev().map(|first| FirstOffsets::from([(("t".to_owned(), 0), first)])).collect();
        assert!(dump_order(&many).into_iter().rev().eq(0..many.len()));
    }
}
