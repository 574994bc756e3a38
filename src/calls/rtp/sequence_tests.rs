use super::*;

const FRAME_NS: i64 = 20_000_000;

/// Adds packets at 50 per second with timestamps that agree with their numbers, counted from the first one.
fn sequence_of(numbers: impl IntoIterator<Item = u32>) -> Sequence {
    let mut sequence = Sequence::default();
    for (index, number) in numbers.into_iter().enumerate() {
        sequence.add(number as u16, number * 160, index as i64 * FRAME_NS);
    }
    sequence
}

fn runs(short: &[u64]) -> [u64; 11] {
    let mut runs = [0; 11];
    runs[..short.len()].copy_from_slice(short);
    runs
}

#[test]
fn a_late_packet_over_the_wrap_is_reordered_and_nothing_is_lost() {
    let totals =
        sequence_of([65_533, 65_534, 65_536, 65_537, 65_535, 65_538].into_iter().chain(65_539..66_000))
            .totals();
    assert_eq!((totals.expected, totals.lost, totals.reordered, totals.restarts), (467, 0, 1, 0));
    assert_eq!(totals.runs, [0; 11]);
}

#[test]
fn many_wraps_are_counted() {
    let totals = sequence_of(60_000..60_000 + 5 * 65_536).totals();
    assert_eq!((totals.expected, totals.lost, totals.restarts), (5 * 65_536, 0, 0));
}

#[test]
fn the_first_packet_may_be_late() {
    let totals = sequence_of([3, 1, 0, 2].into_iter().chain(4..40)).totals();
    assert_eq!((totals.expected, totals.lost, totals.reordered), (40, 0, 3));
}

#[test]
fn the_base_is_the_lowest_of_the_first_sixteen_packets() {
    // 1 is the sixteenth packet: it counts, and 2 is lost.
    let totals = sequence_of((3..18).chain([1]).chain(18..60)).totals();
    assert_eq!((totals.expected, totals.lost, totals.strays), (59, 1, 0));
    // 1 is the seventeenth packet: it is out of any sequence.
    let totals = sequence_of((3..19).chain([1]).chain(19..60)).totals();
    assert_eq!((totals.expected, totals.lost, totals.strays), (57, 0, 1));
}

#[test]
fn duplicates_do_not_hide_loss() {
    let numbers = (0..100).filter(|n| !(20..25).contains(n)).flat_map(|n| match n {
        30 | 40 => vec![n, n],
        _ => vec![n],
    });
    let totals = sequence_of(numbers).totals();
    assert_eq!((totals.expected, totals.lost, totals.duplicates), (100, 5, 2));
    assert_eq!(totals.runs, runs(&[0, 0, 0, 0, 1]));
}

#[test]
fn a_run_of_lost_packets_shrinks_when_late_ones_fill_it() {
    let kept = |n: &u32| !(20..25).contains(n) && !(60..72).contains(n);
    let totals = sequence_of((0..30).filter(kept).chain([22]).chain((30..2_000).filter(kept))).totals();
    assert_eq!((totals.lost, totals.reordered, totals.run_count), (16, 1, 3));
    assert_eq!(totals.runs, runs(&[0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 1]));
}

#[test]
fn gaps_around_the_length_of_the_window_are_lost() {
    for gap in [1, 10, 11, 510, 511, 512, 513, 1_024, 2_999] {
        let mut sequence = Sequence::default();
        for number in (0..600).chain(600 + gap..1_300 + gap) {
            sequence.add(number as u16, number * 160, i64::from(number) * FRAME_NS);
        }
        let totals = sequence.totals();
        assert_eq!((totals.lost, totals.run_count, totals.restarts), (gap.into(), 1, 0), "gap {gap}");
        assert_eq!(totals.runs[gap.clamp(1, 11) as usize - 1], 1);
    }
}

/// 600 packets, then a jump by `jump` numbers and `ticks` ticks after `ns`, and 100 packets.
fn jumped(jump: u32, ticks: u32, ns: i64) -> SequenceTotals {
    let mut sequence = sequence_of(1_000..1_600);
    for index in 0..100 {
        let number = 1_599 + jump + index;
        let timestamp = (1_599 * 160_u32).wrapping_add(ticks).wrapping_add(index * 160);
        sequence.add(number as u16, timestamp, 599 * FRAME_NS + ns + i64::from(index) * FRAME_NS);
    }
    sequence.totals()
}

#[test]
fn a_long_outage_with_timestamps_that_agree_is_loss() {
    let totals = jumped(5_000, 5_000 * 160, 5_000 * FRAME_NS);
    assert_eq!((totals.lost, totals.restarts), (4_999, 0));
}

#[test]
fn a_jump_forward_with_a_jump_of_the_timestamp_is_a_restart() {
    for jump in [3_001, 20_000, 32_767, 40_000, 65_000] {
        let totals = jumped(jump, 0x7654_3210, FRAME_NS);
        assert_eq!((totals.lost, totals.restarts, totals.expected), (0, 1, 700), "jump {jump}");
    }
    let totals = jumped(3_001, 160, FRAME_NS);
    assert_eq!((totals.lost, totals.restarts), (0, 1), "numbers jump, media go on");
}

#[test]
fn a_restart_with_numbers_next_to_the_highest_is_a_restart() {
    for jump in [65_534, 65_535, 0, 2, 3] {
        let totals = jumped(jump, 0x7654_3210, FRAME_NS);
        assert_eq!((totals.lost, totals.restarts, totals.strays), (0, 1, 0), "jump {jump}");
        assert_eq!((totals.expected, totals.duplicates), (700, 0), "jump {jump}");
    }
    // By the numbers alone nothing restarted; the jitter notes the new course of the timestamps.
    assert_eq!(jumped(1, 0x7654_3210, FRAME_NS).restarts, 0);
}

#[test]
fn timestamps_that_agree_by_chance_do_not_make_a_restart_an_outage() {
    let totals = jumped(30_000, 30_000 * 160, FRAME_NS);
    assert_eq!((totals.lost, totals.restarts), (0, 1));
}

#[test]
fn both_sides_of_the_longest_dropout() {
    let totals = jumped(3_000, 160, FRAME_NS);
    assert_eq!((totals.lost, totals.restarts), (2_999, 0));
    let totals = jumped(3_001, 160, FRAME_NS);
    assert_eq!((totals.lost, totals.restarts), (0, 1));
}

#[test]
fn a_short_jump_with_another_timestamp_is_a_restart() {
    let totals = jumped(200, 0x8765_4321, FRAME_NS);
    assert_eq!((totals.lost, totals.restarts), (0, 1));
    let totals = jumped(65_536 - 200, 0x1234_5678, FRAME_NS);
    assert_eq!((totals.lost, totals.duplicates, totals.restarts), (0, 0, 1));
}

#[test]
fn the_same_file_played_again_is_a_restart() {
    let totals = sequence_of((0..250).chain(0..250).chain(0..250)).totals();
    assert_eq!((totals.expected, totals.lost, totals.duplicates, totals.restarts), (750, 0, 0, 2));
}

#[test]
fn a_single_stray_packet_is_no_restart() {
    let mut sequence = sequence_of(1_000..1_100);
    assert_eq!(sequence.add(40_000, 77, 100 * FRAME_NS), Arrival::Held);
    for number in 1_100..1_200 {
        let arrival = sequence.add(number as u16, number * 160, i64::from(number - 1_000) * FRAME_NS);
        assert_eq!(arrival, Arrival::Next { missing: 0 });
    }
    let totals = sequence.totals();
    assert_eq!((totals.expected, totals.lost, totals.strays, totals.restarts), (200, 0, 1, 0));
}

#[test]
fn a_very_late_packet_still_fills_its_gap() {
    let kept = |n: &u32| *n != 1_010;
    let totals = sequence_of((1_000..1_300).filter(kept).chain([1_010]).chain(1_300..1_400)).totals();
    assert_eq!((totals.lost, totals.reordered, totals.restarts, totals.strays), (0, 1, 0, 0));
}

#[test]
fn a_keep_alive_that_repeats_the_last_packet_is_a_duplicate() {
    let mut sequence = sequence_of(1_000..1_100);
    for second in [10, 25, 40] {
        sequence.add(1_099, 1_099 * 160, second * 1_000_000_000);
    }
    let totals = sequence.totals();
    assert_eq!((totals.expected, totals.lost, totals.duplicates, totals.restarts), (100, 0, 3, 0));
}

#[test]
fn two_sources_with_one_ssrc_do_not_restart_each_other() {
    let mut sequence = Sequence::default();
    for index in 0..200 {
        sequence.add(1_000 + index, u32::from(index) * 160, i64::from(index) * FRAME_NS);
        sequence.add(40_000 + index * 40, 0x5000_0000 + u32::from(index) * 160, i64::from(index) * FRAME_NS);
    }
    let totals = sequence.totals();
    assert_eq!((totals.expected, totals.lost, totals.restarts, totals.strays), (200, 0, 0, 200));
}

#[test]
fn silence_is_not_loss() {
    let mut sequence = sequence_of(0..100);
    for index in 0..100_u32 {
        let timestamp = 100 * 160 + 60 * 8_000 + index * 160;
        sequence.add(100 + index as u16, timestamp, 62_000_000_000 + i64::from(index) * FRAME_NS);
    }
    let totals = sequence.totals();
    assert_eq!((totals.expected, totals.lost, totals.restarts), (200, 0, 0));
}

#[test]
fn a_clock_that_steps_back_is_harmless() {
    let mut sequence = sequence_of(0..100);
    sequence.add(101, 101 * 160, i64::MIN);
    sequence.add(100, 100 * 160, i64::MAX);
    sequence.add(102, 102 * 160, 0);
    assert_eq!((sequence.totals().lost, sequence.totals().restarts), (0, 0));
}
