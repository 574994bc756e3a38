//! Tests of renderers with synthetic calls: which samples come out.

use std::convert::Infallible;

use super::codec::AudioCodec;
use super::render::{Output, Renderer};
use super::test_calls::{Capture, MS, Random, START_NS, Sender, check_equal, decoded, silence};
use super::timeline::{AudioPacket, PlanBuilder};
use crate::calls::view::Side;

#[test]
fn a_clean_call_is_exact_on_both_sides_over_both_wraps() {
    let mut capture = Capture::default();
    let (mut caller, mut callee) = (Sender::new(Side::Caller, 7), Sender::new(Side::Callee, 7));
    callee.ms = 300;
    let left = decoded(AudioCodec::Pcma, &capture.send(&mut caller, 100));
    let right = decoded(AudioCodec::Pcma, &capture.send(&mut callee, 100));
    let capture = capture.sorted();
    let plan = capture.plan();
    assert_eq!((plan.rate_hz(), plan.frames(), plan.start_ns()), (8000, 18_400, START_NS));
    let samples = capture.render(&plan, Output::Both, 0..plan.frames());
    let (pairs, _) = samples.as_chunks::<2>();
    let channel = |number: usize| pairs.iter().map(|pair| pair[number]).collect::<Vec<_>>();
    check_equal(&channel(0), &[left, silence(2400)].concat());
    check_equal(&channel(1), &[silence(2400), right].concat());
    check_equal(&capture.side(Side::Callee), &channel(1));
}

#[test]
fn a_lost_packet_is_silence_or_the_packet_before() {
    let mut capture = Capture::default();
    let mut sender = Sender::new(Side::Caller, 1);
    let before = decoded(AudioCodec::Pcma, &capture.send(&mut sender, 10));
    sender.skip(3);
    let after = decoded(AudioCodec::Pcma, &capture.send(&mut sender, 10));
    check_equal(&capture.side(Side::Caller), &[&before[..], &silence(480), &after].concat());

    let plan = capture.plan();
    let mut samples = Vec::new();
    let mut renderer = Renderer::new(&plan, Output::One(Side::Caller), true);
    renderer.render(0..plan.frames(), capture.read(), &mut samples).unwrap();
    check_equal(&samples, &[&before[..], &before[9 * 160..], &silence(320), &after].concat());
}

#[test]
fn a_pause_of_the_sender_is_not_concealed() {
    let mut capture = Capture::default();
    let mut sender = Sender::new(Side::Caller, 1);
    let before = decoded(AudioCodec::Pcma, &capture.send(&mut sender, 10));
    let sequence = sender.sequence;
    sender.skip(3);
    sender.sequence = sequence;
    let after = decoded(AudioCodec::Pcma, &capture.send(&mut sender, 10));
    let plan = capture.plan();
    let mut samples = Vec::new();
    let mut renderer = Renderer::new(&plan, Output::One(Side::Caller), true);
    renderer.render(0..plan.frames(), capture.read(), &mut samples).unwrap();
    check_equal(&samples, &[&before[..], &silence(480), &after].concat());
}

#[test]
fn an_overlap_of_successive_sources_is_not_added() {
    let mut capture = Capture::default();
    let mut sender = Sender::new(Side::Caller, 1);
    let before = decoded(AudioCodec::Pcma, &capture.send(&mut sender, 50));
    (sender.stream, sender.ms) = (2, 49 * 20 + 5);
    let after = decoded(AudioCodec::Pcma, &capture.send(&mut sender, 50));
    check_equal(&capture.side(Side::Caller), &[&before[..49 * 160 + 40], &after].concat());
}

#[test]
fn sources_that_send_at_the_same_time_are_both_heard() {
    let mut capture = Capture::default();
    let first = decoded(AudioCodec::Pcma, &capture.send(&mut Sender::new(Side::Caller, 1), 50));
    let second = decoded(AudioCodec::Pcma, &capture.send(&mut Sender::new(Side::Caller, 2), 50));
    let sum: Vec<i16> = first.iter().zip(&second).map(|(&a, &b)| a.saturating_add(b)).collect();
    check_equal(&capture.sorted().side(Side::Caller), &sum);
}

#[test]
fn a_payload_that_is_longer_than_its_timestamps_say_is_cut() {
    let mut capture = Capture::default();
    let mut sender = Sender::new(Side::Caller, 1);
    let payload = capture.send(&mut sender, 20);
    for (number, packet) in capture.packets.iter_mut().enumerate() {
        packet.timestamp = packet.timestamp.wrapping_sub(number as u32 * 80);
        packet.time_ns -= number as i64 * 10 * MS;
    }
    let heard: Vec<u8> = payload.chunks(160).flat_map(|chunk| &chunk[..80]).copied().collect();
    let expected =
        [decoded(AudioCodec::Pcma, &heard), decoded(AudioCodec::Pcma, &payload[19 * 160 + 80..])].concat();
    check_equal(&capture.side(Side::Caller), &expected);
}

#[test]
fn sides_of_different_rates_have_the_higher_one() {
    let mut capture = Capture::default();
    let mut caller = Sender::new(Side::Caller, 1);
    let mut callee = Sender::new(Side::Callee, 2);
    callee.codec = AudioCodec::G722;
    let narrow = decoded(AudioCodec::Pcma, &capture.send(&mut caller, 100));
    let wide = decoded(AudioCodec::G722, &capture.send(&mut callee, 100));
    let capture = capture.sorted();
    let plan = capture.plan();
    assert_eq!((plan.rate_hz(), plan.frames()), (16_000, 32_000));
    check_equal(&capture.side(Side::Callee), &wide);
    let caller = capture.side(Side::Caller);
    let even: Vec<i16> = caller.iter().step_by(2).copied().collect();
    check_equal(&even, &narrow);
    assert!(caller.iter().skip(1).step_by(2).any(|&sample| sample != 0));
}

#[test]
fn a_codec_change_within_a_stream_keeps_the_time() {
    let mut capture = Capture::default();
    let mut sender = Sender::new(Side::Caller, 1);
    sender.codec = AudioCodec::G722;
    let wide = decoded(AudioCodec::G722, &capture.send(&mut sender, 20));
    sender.codec = AudioCodec::Pcmu;
    let narrow = decoded(AudioCodec::Pcmu, &capture.send(&mut sender, 20));
    sender.codec = AudioCodec::L16 { rate_hz: 16_000, channels: 1 };
    let linear = decoded(sender.codec, &capture.send(&mut sender, 20));
    let samples = capture.side(Side::Caller);
    // The filter reaches 48 samples beyond the narrow part.
    check_equal(&samples[..6400 - 50], &wide[..6400 - 50]);
    let even: Vec<i16> = samples[6400..12_800].iter().step_by(2).copied().collect();
    check_equal(&even, &narrow);
    check_equal(&samples[12_850..], &linear[50..]);
}

/// Call with holds, losses, restarts, three rates and two streams at once.
fn long_call() -> Capture {
    let mut capture = Capture::default();
    let mut random = Random(77);
    for side in [Side::Caller, Side::Callee] {
        let mut sender = Sender::new(side, 1);
        for part in 0..12 {
            sender.codec = [
                AudioCodec::Pcma,
                AudioCodec::L16 { rate_hz: 11_025, channels: 1 },
                AudioCodec::L16 { rate_hz: 16_000, channels: 2 },
            ][random.below(3) as usize];
            capture.send(&mut sender, 10 + random.below(60) as usize);
            match part % 4 {
                0 => sender.skip(1 + random.below(5) as u16),
                1 => sender.ms += random.below(3000) as i64,
                2 => (sender.timestamp, sender.sequence) = (random.next() as u32, random.next() as u16),
                _ => sender.stream += 1,
            }
        }
    }
    capture.sorted()
}

#[test]
fn any_range_is_a_part_of_the_whole() {
    let capture = long_call();
    let plan = capture.plan();
    assert_eq!(plan.rate_hz(), 16_000);
    let whole = capture.render(&plan, Output::Both, 0..plan.frames());
    let mut random = Random(5);
    let mut renderer = Renderer::new(&plan, Output::Both, false);
    let (mut position, mut rest) = (0, Vec::new());
    while position < plan.frames() {
        let end = position + 1 + random.below(9000);
        renderer.render(position..end, capture.read(), &mut rest).unwrap();
        position = end;
    }
    check_equal(&rest, &whole);
    for _ in 0..20 {
        let start = random.below(plan.frames());
        let end = (start + random.below(4000)).min(plan.frames());
        let part = capture.render(&plan, Output::Both, start..end);
        check_equal(&part, &whole[start as usize * 2..end as usize * 2]);
    }
}

#[test]
fn a_range_of_g722_is_exact_after_the_warm_up() {
    let speech = include_bytes!("../../../testdata/audio/speech.g722");
    let mut capture = Capture::default();
    let mut sender = Sender::new(Side::Caller, 1);
    sender.codec = AudioCodec::G722;
    capture.send(&mut sender, 600);
    for (payload, chunk) in capture.payloads.iter_mut().zip(speech.chunks_exact(160).cycle()) {
        payload.copy_from_slice(chunk);
    }
    let plan = capture.plan();
    let whole = capture.render(&plan, Output::One(Side::Caller), 0..plan.frames());
    check_equal(&whole, &decoded(AudioCodec::G722, &capture.payloads.concat()));
    for start in (0..plan.frames()).step_by(7001) {
        let end = (start + 3000).min(plan.frames());
        check_equal(
            &capture.render(&plan, Output::One(Side::Caller), start..end),
            &whole[start as usize..end as usize],
        );
    }
}

#[test]
fn a_failed_read_ends_the_range_and_the_next_one_is_right() {
    let capture = long_call();
    let plan = capture.plan();
    let whole = capture.render(&plan, Output::Both, 0..plan.frames());
    let mut renderer = Renderer::new(&plan, Output::Both, false);
    for fail_at in [0, 1, 20, 200] {
        let mut reads = 0;
        let result = renderer.render(
            0..plan.frames(),
            |place, bytes, buffer| {
                reads += 1;
                if reads > fail_at {
                    Err("gone")
                } else {
                    capture.read()(place, bytes, buffer).map_err(|_| "")
                }
            },
            &mut Vec::new(),
        );
        assert_eq!(result, Err("gone"));
        let mut samples = Vec::new();
        renderer.render(0..plan.frames(), capture.read(), &mut samples).unwrap();
        check_equal(&samples, &whole);
    }
}

#[test]
fn random_packets_do_not_panic_and_are_all_counted() {
    for seed in 1..10 {
        let mut random = Random(seed);
        let bytes_max = if seed == 1 { 65_536 } else { 1500 };
        let mut builder = PlanBuilder::new();
        let codecs = [
            Some(AudioCodec::Pcma),
            Some(AudioCodec::G722),
            Some(AudioCodec::L16 { rate_hz: 48_000, channels: 2 }),
            Some(AudioCodec::Opus),
            Some(AudioCodec::Other { clock_hz: u32::MAX }),
            None,
        ];
        for place in 0..2000 {
            let wild = random.below(4) == 0;
            builder.add(&AudioPacket {
                side: if random.below(2) == 0 { Side::Caller } else { Side::Callee },
                time_ns: if wild { random.next() as i64 } else { place as i64 * 20 * MS },
                timestamp: if wild { random.next() as u32 } else { place as u32 * 160 },
                sequence: if wild { random.next() as u16 } else { place as u16 },
                stream: random.below(3) as u32,
                codec: codecs[random.below(6) as usize],
                place,
                bytes: if wild { (random.next() % bytes_max) as u16 } else { 160 },
            });
        }
        let plan = builder.finish();
        assert_eq!(plan.counts().packets, 2000);
        for output in [Output::Both, Output::One(Side::Callee)] {
            let mut renderer = Renderer::new(&plan, output, true);
            for _ in 0..if seed == 1 { 1 } else { 4 } {
                let start = random.below(plan.frames().max(1));
                let mut samples = Vec::new();
                let read = |_: u64, bytes: u16, buffer: &mut Vec<u8>| -> Result<(), Infallible> {
                    buffer.resize(usize::from(bytes), 7);
                    Ok(())
                };
                renderer.render(start..start.saturating_add(2000), read, &mut samples).unwrap();
                assert_eq!(
                    samples.len() as u64,
                    2000.min(plan.frames() - start) * u64::from(output.channels())
                );
            }
        }
    }
}
