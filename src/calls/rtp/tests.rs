//! Tests of a stream as a whole.

use std::net::Ipv4Addr;

use super::generator::Random;
use super::*;
use crate::calls::endpoint::{Endpoint, Flow};
use crate::calls::view::{Binding, MediaStream, Side};

const MS: i64 = 1_000_000;

/// Datagram of a packet.
fn datagram(sequence: u16, timestamp: u32, payload_type: u8, payload: &[u8]) -> Vec<u8> {
    let mut data = vec![0x80, payload_type];
    data.extend(sequence.to_be_bytes());
    data.extend(timestamp.to_be_bytes());
    data.extend(7_u32.to_be_bytes());
    data.extend(payload);
    data
}

fn add(state: &mut StreamState, data: &[u8], time_ns: i64, ip_id: u16, format: Format) -> Outcome {
    let header = RtpHeader::parse(data, data.len()).unwrap();
    state.add(&RtpPacket { time_ns, ip_id, header, payload: header.payload(data) }, format)
}

/// A second of voice: 50 packets with the payload type, from the sequence number.
fn add_voice(state: &mut StreamState, first: u16, payload_type: u8, format: Format) {
    for sequence in first..first + 50 {
        let data = datagram(sequence, u32::from(sequence) * 160, payload_type, &[0x55; 160]);
        add(state, &data, i64::from(sequence) * 20 * MS, sequence, format);
    }
}

fn view(state: &StreamState) -> MediaStream {
    let endpoint = |last| Endpoint::new(Ipv4Addr::new(192, 0, 2, last), 6000);
    state.to_view(&StreamContext {
        first_offset: 0,
        last_offset: 0,
        formats: &[],
        flow: Flow { source: endpoint(1), destination: endpoint(2) },
        side: Some(Side::Caller),
        binding: Binding::Sdp,
        codec: None,
        is_encrypted: false,
        lost_by_capture: 0,
        reports: None,
        delay_ms: None,
    })
}

#[test]
fn copies_of_the_capture_are_no_duplicates() {
    let mut state = StreamState::new(7);
    let data = datagram(1, 160, 8, &[0x55; 160]);
    assert_eq!(add(&mut state, &data, 0, 9, Format::default()), Outcome::Next);
    assert_eq!(add(&mut state, &data, 20 * MS, 9, Format::default()), Outcome::Copy);
    assert_eq!(add(&mut state, &data, 21 * MS, 9, Format::default()), Outcome::Duplicate, "after 20 ms");
    assert_eq!(add(&mut state, &data, 22 * MS, 10, Format::default()), Outcome::Duplicate, "sent again");
    assert_eq!((state.packets(), state.copies(), state.sequence_totals().duplicates), (3, 1, 2));
}

#[test]
fn without_an_ip_identification_the_payload_tells_copies() {
    let mut state = StreamState::new(7);
    let data = datagram(1, 160, 8, &[0x55; 160]);
    let other = datagram(1, 160, 8, &[0x56; 160]);
    add(&mut state, &data, 0, 0, Format::default());
    assert_eq!(add(&mut state, &data, MS, 0, Format::default()), Outcome::Copy);
    assert_eq!(add(&mut state, &other, MS, 0, Format::default()), Outcome::Duplicate);
}

#[test]
fn a_stream_of_which_each_packet_is_there_twice_is_clean() {
    let mut state = StreamState::new(7);
    for sequence in 0..500_u16 {
        let data = datagram(sequence, u32::from(sequence) * 160, 8, &[0x55; 160]);
        for copy in 0..2 {
            add(
                &mut state,
                &data,
                i64::from(sequence) * 20 * MS + copy * 50_000,
                sequence,
                Format::default(),
            );
        }
    }
    let view = view(&state);
    assert_eq!((view.packets, view.copies, view.duplicates, view.lost), (500, 500, 0, 0));
    assert_eq!((view.jitter_max_ms, view.delta_max_ms), (0.0, 20.0));
}

#[test]
fn ssrc_0_and_sequence_0_are_allowed() {
    let mut state = StreamState::new(0);
    assert_eq!(add(&mut state, &datagram(0, 0, 0, &[]), 0, 0, Format::default()), Outcome::Next);
    assert_eq!((state.packets(), view(&state).ssrc), (1, 0));
}

#[test]
fn digits_are_read_and_do_not_touch_jitter_and_delta() {
    for format in [Format::event(8_000), Format::default()] {
        let mut state = StreamState::new(7);
        add_voice(&mut state, 0, 0, Format::default());
        for (index, duration) in [160_u16, 320, 480, 480, 480].into_iter().enumerate() {
            let [high, low] = duration.to_be_bytes();
            let payload = [5, if index > 2 { 0x80 } else { 0 }, high, low];
            let data = datagram(50 + index as u16, 50 * 160, 101, &payload);
            add(&mut state, &data, (1_000 + index as i64 * 37) * MS, 1_000, format);
        }
        for sequence in 55..100_u16 {
            let data = datagram(sequence, u32::from(sequence) * 160, 0, &[0x55; 160]);
            add(&mut state, &data, i64::from(sequence) * 20 * MS, sequence, Format::default());
        }
        let view = view(&state);
        assert_eq!((view.packets, view.lost, view.codec.as_str()), (100, 0, "PCMU"));
        assert_eq!((view.jitter_max_ms, view.delta_max_ms), (0.0, 20.0));
        let digits: Vec<_> =
            view.digits.iter().map(|d| (d.digit, d.time_ns, d.duration_ms, d.side)).collect();
        assert_eq!(digits, [('5', 1_000 * MS, 60, Some(Side::Caller))]);
    }
}

#[test]
fn the_codec_is_the_dominant_one() {
    let mut state = StreamState::new(7);
    add_voice(&mut state, 0, 0, Format::default());
    add_voice(&mut state, 50, 8, Format::default());
    add_voice(&mut state, 100, 8, Format::default());
    assert_eq!((view(&state).codec.as_str(), state.codec_type()), ("PCMA", Some(8)));
    let mut state = StreamState::new(7);
    add_voice(&mut state, 0, 97, Format::default());
    let view = view(&state);
    assert_eq!((view.codec.as_str(), view.clock_hz, view.is_clock_estimated), ("PT 97", 8_000, true));
    assert_eq!(view.mos, None);
}

#[test]
fn the_score_leaves_out_what_the_recorder_lost() {
    let mut state = StreamState::new(7);
    let mut gaps = Vec::new();
    for sequence in (0..1_000_u16).filter(|n| n % 100 != 99) {
        let data = datagram(sequence, u32::from(sequence) * 160, 8, &[0x55; 160]);
        let time_ns = i64::from(sequence) * 20 * MS;
        if let Outcome::Gap { start_ns, missing } =
            add(&mut state, &data, time_ns, sequence, Format::default())
        {
            gaps.push((start_ns / MS, time_ns / MS, missing));
        }
    }
    assert_eq!((gaps.len(), gaps[0]), (9, (98 * 20, 100 * 20, 1)));
    let lossy = view(&state).mos.unwrap();
    let clean = {
        let mut context_view = StreamContext {
            first_offset: 0,
            last_offset: 0,
            formats: &[],
            flow: Flow { source: Endpoint::UNSPECIFIED, destination: Endpoint::UNSPECIFIED },
            side: None,
            binding: Binding::None,
            codec: Some("PCMA"),
            is_encrypted: false,
            lost_by_capture: 50,
            reports: None,
            delay_ms: None,
        };
        let clean = state.to_view(&context_view);
        assert_eq!((clean.lost, clean.lost_by_capture), (9, 9), "not more than was lost");
        context_view.is_encrypted = true;
        assert_eq!(state.to_view(&context_view).mos, None);
        clean.mos.unwrap()
    };
    assert!((clean - 4.41).abs() < 0.005 && lossy < 4.40 && lossy > 4.2, "{lossy} {clean}");
}

#[test]
fn windows_get_the_jitter_of_the_clock_that_becomes_known_later() {
    let feed = |known_from: i64, is_told_last: bool| {
        let mut state = StreamState::new(7);
        for index in 0..2_000_i64 {
            let data = datagram(index as u16, index as u32 * 960, 111, &[0x55; 60]);
            let format = if index >= known_from { Format::media(48_000) } else { Format::default() };
            add(&mut state, &data, (index * 20 + index % 4) * MS, 1 + index as u16, format);
        }
        if is_told_last {
            state.set_clock(48_000);
        }
        let view = view(&state);
        (state.windows(), view.jitter_mean_ms, view.jitter_max_ms, view.late, view.is_clock_estimated)
    };
    let early = feed(0, false);
    // The windows of candidates are kept in steps of 0.1 ms.
    let rounded = |(windows, length): &(Vec<Window>, i64)| {
        let jitter: Vec<u32> = windows.iter().map(|window| window.jitter_us / 100).collect();
        (jitter, *length)
    };
    for (late, is_estimated) in
        [(feed(1_500, false), false), (feed(2_000, true), false), (feed(2_000, false), true)]
    {
        assert_eq!(rounded(&late.0), rounded(&early.0));
        assert_eq!((late.1, late.2, late.3, late.4), (early.1, early.2, early.3, is_estimated));
    }
    assert_eq!(early.0.0.len(), 8);
}

#[test]
fn the_state_survives_postcard_in_the_middle_of_a_stream() {
    let mut random = Random(11);
    let packets: Vec<Vec<u8>> = (0..2_000_u32)
        .filter(|_| !random.is_one_in(20))
        .map(|n| datagram(n as u16, n * 160, if n % 50 == 0 { 13 } else { 97 }, &[n as u8; 40]))
        .collect();
    let mut whole = StreamState::new(7);
    let mut parts = StreamState::new(7);
    for (index, data) in packets.iter().enumerate() {
        add(&mut whole, data, index as i64 * 20 * MS, 0, Format::default());
        add(&mut parts, data, index as i64 * 20 * MS, 0, Format::default());
        if index % 100 == 0 {
            parts = postcard::from_bytes(&postcard::to_allocvec(&parts).unwrap()).unwrap();
        }
    }
    assert_eq!(view(&parts), view(&whole));
    assert_eq!(parts.windows(), whole.windows());
}

#[test]
fn the_state_is_small() {
    assert!(size_of::<StreamState>() <= 700, "{} bytes in memory", size_of::<StreamState>());
    let mut state = StreamState::new(7);
    for second in 0..100 {
        add_voice(&mut state, second * 50, 8, Format::default());
    }
    let stored = postcard::to_allocvec(&state).unwrap().len();
    let windows = 20 * 12;
    assert!(stored - windows <= 700, "{stored} bytes in the index");
}

#[test]
fn random_packets_are_harmless() {
    let mut random = Random(0xbad_5eed);
    for _ in 0..300 {
        let mut state = StreamState::new(7);
        for _ in 0..1_000 {
            let length = 12 + random.below(40) as usize;
            let mut data: Vec<u8> = (0..length).map(|_| random.next() as u8).collect();
            data[0] = data[0] & 0x3f | 0x80;
            let Some(header) = RtpHeader::parse(&data, length + random.below(3) as usize) else { continue };
            let packet = RtpPacket {
                time_ns: random.next() as i64,
                ip_id: random.below(3) as u16,
                header,
                payload: header.payload(&data),
            };
            let clocks = [0, 1, 8_000, u32::MAX];
            let roles = [None, Some(Role::Media), Some(Role::Event), Some(Role::ComfortNoise)];
            let format =
                Format { clock_hz: clocks[random.below(4) as usize], role: roles[random.below(4) as usize] };
            state.add(&packet, format);
        }
        let view = view(&state);
        assert!(view.jitter_mean_ms.is_finite() && view.lost <= state.sequence_totals().expected);
        state.windows();
    }
}

#[test]
fn random_bytes_are_harmless() {
    let mut random = Random(3);
    for _ in 0..200_000 {
        let length = random.below(64) as usize;
        let data: Vec<u8> = (0..length).map(|_| random.next() as u8).collect();
        classify(&data);
        if let Some(header) = RtpHeader::parse(&data, length) {
            assert!(header.payload(&data).len() == header.payload_bytes() as usize);
        }
    }
}
