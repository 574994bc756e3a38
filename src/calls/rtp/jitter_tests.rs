use super::*;

const MS: i64 = 1_000_000;

fn packet(time_ns: i64, timestamp: u32) -> MediaPacket {
    MediaPacket { time_ns, timestamp, is_marker: false, is_comfort_noise: false }
}

/// `count` packets of 20 ms at the clock, each third 6 ms late.
fn uneven(count: u32, clock_hz: u32) -> impl Iterator<Item = MediaPacket> {
    (0..count).map(move |index| {
        let late_ms = if index % 3 == 2 { 6 } else { 0 };
        packet((i64::from(index) * 20 + late_ms) * MS, (index * clock_hz / 50).wrapping_sub(1_000))
    })
}

fn jitter_of(packets: impl IntoIterator<Item = MediaPacket>, clock_hz: u32) -> Jitter {
    let mut jitter = Jitter::default();
    for packet in packets {
        jitter.add(&packet, clock_hz);
    }
    jitter
}

fn check(value: f64, expected: f64) {
    assert!((value - expected).abs() < 0.000_5, "{value} is not {expected}");
}

#[test]
fn jitter_is_that_of_rfc_3550() {
    // D is 0, 6, -6, 0, 6, -6 ms: J = 0, 6/16, (15 * 6/16 + 6) / 16, ...
    let totals = jitter_of(uneven(4, 8_000), 8_000).totals();
    let (second, third) = (6.0 / 16.0, (15.0 * 6.0 / 16.0 + 6.0) / 16.0);
    check(totals.jitter_max_ms, third);
    check(totals.jitter_mean_ms, (0.0 + second + third) / 3.0);
    check(totals.delta_mean_ms, 20.0);
    check(totals.delta_max_ms, 26.0);
    check(totals.delta_min_ms, 14.0);
}

#[test]
fn timestamps_wrap_and_go_back_without_jitter_of_days() {
    let mut packets: Vec<MediaPacket> = uneven(50, 8_000).collect();
    packets.swap(10, 11);
    let (early, late) = (packets[10].time_ns, packets[11].time_ns);
    (packets[10].time_ns, packets[11].time_ns) = (late, early);
    let totals = jitter_of(packets, 8_000).totals();
    assert!(totals.jitter_max_ms < 10.0 && totals.timestamp_jumps == 0, "{totals:?}");
}

#[test]
fn a_new_course_of_timestamps_is_no_jitter() {
    let first = uneven(50, 8_000);
    let second =
        uneven(50, 8_000).map(|p| packet(p.time_ns + 1_000 * MS, p.timestamp.wrapping_add(0x7000_0000)));
    let both = jitter_of(first.chain(second), 8_000).totals();
    assert!(both.jitter_max_ms < 6.0, "{both:?}");
    assert_eq!(both.timestamp_jumps, 1);
    // 5 s and no more are jitter.
    for (gap_ms, jumps) in [(5_000, 0), (5_001, 1)] {
        let totals = jitter_of([packet(0, 0), packet((20 + gap_ms) * MS, 160)], 8_000).totals();
        assert_eq!(totals.timestamp_jumps, jumps);
    }
}

#[test]
fn silence_is_neither_jitter_nor_late() {
    let speech = (0..50).map(|i| packet(i * 20 * MS, i as u32 * 160));
    let more = (0..50).map(|i| MediaPacket {
        is_marker: i == 0,
        ..packet((i * 20 + 31_000) * MS, 31_000 * 8 + i as u32 * 160)
    });
    let totals = jitter_of(speech.chain(more), 8_000).totals();
    check(totals.jitter_max_ms, 0.0);
    check(totals.delta_max_ms, 20.0);
    assert_eq!((totals.late, totals.timestamp_jumps), (0, 0));
}

/// Number of late packets if packet 100 and those after it come `late_ms` late, for `count` packets.
fn late_of(late_ms: i64, count: i64) -> u64 {
    let packets = (0..1_000).map(|i| {
        let is_late = (100..100 + count).contains(&i);
        packet((i * 20 + if is_late { late_ms } else { 0 }) * MS, i as u32 * 160)
    });
    let mut packets: Vec<MediaPacket> = packets.collect();
    packets.sort_by_key(|packet| packet.time_ns);
    jitter_of(packets, 8_000).totals().late
}

#[test]
fn packets_that_miss_a_buffer_of_200_ms_are_late() {
    assert_eq!((late_of(199, 1), late_of(201, 1), late_of(240, 7)), (0, 1, 7));
    // The first packet being late makes those after it early, not late.
    let packets = (0..100).map(|i| packet(if i == 0 { 300 } else { i * 20 + 100 } * MS, i as u32 * 160));
    assert_eq!(jitter_of(packets, 8_000).totals().late, 0);
}

#[test]
fn the_playout_clock_starts_anew_after_a_second_of_late_packets() {
    assert_eq!((late_of(300, 49), late_of(300, 900)), (49, 50));
}

#[test]
fn clocks_that_drift_apart_make_no_packet_late() {
    // An hour at 200 ppm is 720 ms.
    let packets = (0..180_000).map(|i| packet(i * 20_004_000, i as u32 * 160));
    assert_eq!(jitter_of(packets, 8_000).totals().late, 0);
}

#[test]
fn an_unknown_clock_is_estimated() {
    for clock_hz in CANDIDATES_HZ {
        let totals = jitter_of(uneven(150, clock_hz), 0).totals();
        assert_eq!((totals.clock_hz, totals.is_clock_estimated), (clock_hz, true));
        let known = jitter_of(uneven(150, clock_hz), clock_hz).totals();
        assert_eq!(TimingTotals { is_clock_estimated: false, ..totals }, known);
    }
    assert_eq!(jitter_of(uneven(10, 48_000), 0).totals().clock_hz, 8_000, "too short to tell");
}

#[test]
fn a_clock_that_becomes_known_late_gives_the_same_statistics() {
    for clock_hz in CANDIDATES_HZ {
        let early = jitter_of(uneven(300, clock_hz), clock_hz).totals();
        let mut late = Jitter::default();
        for (index, packet) in uneven(300, clock_hz).enumerate() {
            late.add(&packet, if index < 200 { 0 } else { clock_hz });
        }
        assert_eq!(late.totals(), early);
        let mut last = jitter_of(uneven(300, clock_hz), 0);
        last.bind(clock_hz);
        assert_eq!(last.totals(), early);
    }
}

#[test]
fn after_an_hour_without_sdp_the_estimate_stays() {
    let mut jitter = jitter_of(uneven(150, 16_000), 0);
    for _ in 1..CANDIDATE_WINDOWS_MAX {
        jitter.end_window();
    }
    assert!(jitter.candidates.is_some());
    jitter.end_window();
    assert!(jitter.candidates.is_none());
    assert_eq!((jitter.totals().clock_hz, jitter.totals().is_clock_estimated), (16_000, true));
    jitter.add(&packet(3_000 * MS, 47_000), 16_000);
    assert!(!jitter.totals().is_clock_estimated);
}

#[test]
fn another_clock_within_the_stream_is_no_jitter() {
    let first = uneven(99, 8_000);
    let mut jitter = jitter_of(first, 8_000);
    let before = jitter.totals();
    for index in 0..100_i64 {
        jitter.add(&packet((2_000 + index * 20) * MS, 5_000 + index as u32 * 960), 48_000);
    }
    assert_eq!(jitter.totals().jitter_max_ms, before.jitter_max_ms);
    assert_eq!(jitter.totals().timestamp_jumps, 0);
}

#[test]
fn extreme_times_are_harmless() {
    for clock_hz in [0, 1, u32::MAX] {
        let times = [i64::MIN, i64::MAX, 0, i64::MAX, i64::MIN, -1];
        let packets =
            times.iter().enumerate().map(|(i, &time)| packet(time, (i as u32).wrapping_mul(0x5555_5555)));
        let totals = jitter_of(packets, clock_hz).totals();
        assert!(totals.jitter_max_ms.is_finite() && totals.jitter_mean_ms.is_finite());
    }
}
