//! The order of several dumps: a partition's records by offset, as far as the dumps' first records tell.

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;
use std::sync::Arc;

use super::input::{Input, Origin};
use super::reader_of;
use crate::Result;
use crate::cc::frame::dump::{Position, What};

/// So many records of a dump show each of its partitions, unless some are very quiet.
const RECORDS_MAX: usize = 10_000;

/// The first offset of each partition in a dump.
type Firsts = HashMap<(String, i32), i64>;

/// Puts the dumps into their order. Those that say nothing of offsets, and standard input, stay where they are between
/// the others.
pub fn in_order(origins: Vec<Origin>) -> Result<Vec<Origin>> {
    if origins.len() < 2 {
        return Ok(origins);
    }
    let firsts: Vec<Firsts> = origins.iter().map(firsts).collect::<Result<_>>()?;
    let mut origins: Vec<Option<Origin>> = origins.into_iter().map(Some).collect();
    Ok(order(&firsts).into_iter().filter_map(|nth| origins[nth].take()).collect())
}

/// As given, but each dump behind those that begin before it in a partition that both have, and behind what comes before
/// those. Dumps that contradict each other are in some order.
fn order(dumps: &[Firsts]) -> Vec<usize> {
    let before = before(dumps);
    let mut ordered = Vec::with_capacity(dumps.len());
    let mut is_met = vec![false; dumps.len()];
    for nth in 0..dumps.len() {
        // A dump goes in when all before it are in; so many may be before each other that recursion would not do.
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

/// For each dump those that begin right before it in one of its partitions.
fn before(dumps: &[Firsts]) -> Vec<Vec<usize>> {
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

fn firsts(origin: &Origin) -> Result<Firsts> {
    let mut firsts = Firsts::new();
    let regular = matches!(origin, Origin::File(path) if path.is_file());
    if !regular {
        return Ok(firsts);
    }
    let mut left = RECORDS_MAX;
    each_record(origin, &mut |position, _| {
        if let Some(position) = position {
            firsts.entry((position.topic.to_owned(), position.partition)).or_insert(position.offset);
        }
        left -= 1;
        if left > 0 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    Ok(firsts)
}

/// Told of a record: its position, if that is known, and its value, if it has one.
pub type Found<'a> = dyn FnMut(Option<&Position<'_>>, Option<&[u8]>) -> ControlFlow<()> + 'a;

/// Gives the records of a dump, until `found` breaks off. Damage is passed over.
pub fn each_record(origin: &Origin, found: &mut Found<'_>) -> Result<()> {
    let mut input = Input::open(origin, Arc::default())?;
    let mut reader = reader_of(origin, &mut input).1;
    loop {
        let step = reader.step(input.bytes(), input.has_ended());
        let consumed = step.consumed;
        match step.what {
            What::More(bytes) => {
                input.fill(bytes);
                continue;
            }
            What::End { .. } => return Ok(()),
            What::Record { position, value, .. } => {
                if found(position.as_ref(), value).is_break() {
                    return Ok(());
                }
            }
            What::Nothing | What::Damaged { .. } | What::Aborted { .. } => {}
        }
        input.consume(consumed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_order(dumps: &[&str], expected: &[usize]) {
        let dir = tempfile::tempdir().unwrap();
        let origins: Vec<Origin> = dumps
            .iter()
            .enumerate()
            .map(|(nth, dump)| {
                let path = dir.path().join(nth.to_string());
                std::fs::write(&path, dump).unwrap();
                Origin::File(path)
            })
            .collect();
        let ordered = in_order(origins.clone()).unwrap();
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
        // The first has partition 1 before partition 0; both have the second one's begin.
        check_order(&[&(line(1, 3) + a0), &(line(0, 5) + &line(1, 9))], &[0, 1]);
        check_order(&[&(line(0, 5) + &line(1, 9)), &(line(1, 3) + a0)], &[1, 0]);
        check_order(&["", a0], &[0, 1]);
        // The last one has to stand between the other two, which share nothing.
        check_order(&[&line(1, 5), a9, &(line(1, 0) + &line(0, 20))], &[1, 2, 0]);
        // Two that begin at the same offset, and one behind both.
        check_order(&[a5, &(line(0, 0) + &line(1, 9)), a0, &line(1, 2)], &[3, 1, 2, 0]);
        // Two that contradict each other.
        check_order(&[&(line(0, 5) + &line(1, 0)), &(line(0, 0) + &line(1, 5))], &[1, 0]);
    }

    #[test]
    fn very_many_dumps_are_ordered() {
        let many: Vec<Firsts> =
            (0..100_000).rev().map(|first| Firsts::from([(("t".to_owned(), 0), first)])).collect();
        assert!(order(&many).into_iter().rev().eq(0..many.len()));
    }
}
