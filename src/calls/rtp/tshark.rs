//! Comparison with what `tshark -q -z rtp,streams` 4.0.17 prints for the captures of testdata.

use std::collections::HashMap;

use super::*;
use crate::calls::endpoint::Flow;
use crate::calls::samples::{SampleDatagram, datagrams};

/// Row of the table: frame of the first packet's source port, destination port, packets, lost; min, mean and max delta;
/// mean and max jitter.
type Row = (u16, u16, u64, u64, &'static str, &'static str, &'static str, &'static str, &'static str);

const ANSWERED_CALL: [Row; 2] = [
    (2, 1, 250, 0, "0.019", "19.920", "37.472", "0.550", "3.737"),
    (1, 2, 250, 0, "0.009", "19.920", "37.478", "0.436", "3.731"),
];

/// The ports of the calls are 6000, 6004 and 6008; the first number of a row is the source port of the stream.
const THREE_CALLS: [Row; 6] = [
    (6000, 6008, 250, 0, "0.004", "19.920", "40.425", "0.625", "3.682"),
    (6008, 6000, 250, 0, "0.007", "19.920", "41.142", "0.567", "3.632"),
    (6000, 6004, 250, 0, "0.064", "19.920", "37.609", "0.587", "3.710"),
    (6004, 6000, 250, 0, "0.026", "19.920", "37.491", "0.565", "3.698"),
    (6000, 6000, 250, 0, "0.010", "19.921", "37.759", "0.681", "3.749"),
    (6000, 6000, 250, 0, "0.024", "19.920", "37.721", "0.665", "3.731"),
];

/// Streams by their flow. In these captures each flow has one.
fn streams_of(name: &str) -> HashMap<Flow, StreamState> {
    let mut streams: HashMap<Flow, StreamState> = HashMap::new();
    for SampleDatagram { place, flow, ip_id, payload } in datagrams(&format!("pcap/{name}")) {
        if classify(&payload) != Kind::Rtp || flow.destination.port == 5060 {
            continue;
        }
        let header = RtpHeader::parse(&payload, payload.len()).unwrap();
        let packet = RtpPacket { time_ns: place.time_ns, ip_id, header, payload: header.payload(&payload) };
        let stream = streams.entry(flow).or_insert_with(|| StreamState::new(header.ssrc));
        stream.add(&packet, Format::default());
    }
    streams
}

/// A row of the stream as tshark prints it.
fn row(stream: &StreamState) -> String {
    let (sequence, timing) = (stream.sequence_totals(), stream.timing_totals());
    format!(
        "{} {} {:.3} {:.3} {:.3} {:.3} {:.3}",
        stream.packets(),
        sequence.lost,
        timing.delta_min_ms,
        timing.delta_mean_ms,
        timing.delta_max_ms,
        timing.jitter_mean_ms,
        timing.jitter_max_ms,
    )
}

fn check(name: &str, expected: &[Row]) {
    let streams = streams_of(name);
    assert_eq!(streams.len(), expected.len());
    let mut rows: Vec<String> = streams.values().map(row).collect();
    let mut expected: Vec<String> = expected
        .iter()
        .map(|(_, _, packets, lost, min, mean, max, jitter, jitter_max)| {
            format!("{packets} {lost} {min} {mean} {max} {jitter} {jitter_max}")
        })
        .collect();
    rows.sort();
    expected.sort();
    assert_eq!(rows, expected);
    for stream in streams.values() {
        assert_eq!((stream.ssrc(), stream.codec_type()), (0x1ea0_0001, Some(8)));
    }
}

#[test]
fn the_answered_call_has_the_numbers_of_tshark() {
    check("answered-call.pcap", &ANSWERED_CALL);
}

#[test]
fn the_three_calls_have_the_numbers_of_tshark() {
    check("three-calls.pcapng", &THREE_CALLS);
}

/// PCMA packets of 20 ms whose times are uneven by 0, 1 and 2 ms, with the values of (time in ms, sequence, timestamp,
/// payload type, marker) that `change` makes of the index.
fn made(change: impl Fn(i64, &mut (i64, u16, u32, u8, bool))) -> StreamState {
    let mut stream = StreamState::new(0x1234);
    for index in 0..50_i64 {
        let mut values = (index * 20 + index % 3, 100 + index as u16, 1_000 + 160 * index as u32, 8, false);
        change(index, &mut values);
        let (ms, sequence, timestamp, payload_type, is_marker) = values;
        let mut data = vec![0x80, payload_type | u8::from(is_marker) << 7];
        data.extend(sequence.to_be_bytes());
        data.extend(timestamp.to_be_bytes());
        data.extend([0, 0, 0x12, 0x34]);
        data.resize(172, 0xd5);
        let header = RtpHeader::parse(&data, data.len()).unwrap();
        let packet = RtpPacket { time_ns: ms * 1_000_000, ip_id: 1, header, payload: header.payload(&data) };
        stream.add(&packet, Format::default());
    }
    stream
}

// The same packets as files, read by tshark 4.0.17, gave the numbers below.

#[test]
fn an_uneven_stream_has_the_numbers_of_tshark() {
    assert_eq!(row(&made(|_, _| {})), "50 0 18.000 20.020 21.000 0.936 1.294");
}

#[test]
fn a_reordered_packet_has_the_numbers_of_tshark() {
    let stream = made(|index, values| {
        (values.0, values.1, values.2) = match index {
            20 => (400, 121, 1_000 + 160 * 21),
            21 => (403, 120, 1_000 + 160 * 20),
            _ => (values.0, values.1, values.2),
        };
    });
    assert_eq!(row(&stream), "50 0 3.000 20.020 38.000 1.665 3.490");
}

#[test]
fn a_pause_with_a_marker_has_the_numbers_of_tshark() {
    let stream = made(|index, values| {
        if index >= 20 {
            values.0 += 1_000;
            values.2 += 8_000;
        }
        values.4 = index == 20;
    });
    assert_eq!(row(&stream), "50 0 18.000 20.001 21.000 0.929 1.294");
}

#[test]
fn comfort_noise_has_the_numbers_of_tshark() {
    let stream = made(|index, values| values.3 = if index == 25 { 13 } else { 8 });
    assert_eq!(row(&stream), "50 0 18.000 19.980 21.000 0.920 1.294");
    assert_eq!(stream.codec_type(), Some(8));
}

#[test]
fn the_clock_of_44_1_khz_is_not_rounded_as_in_tshark() {
    // tshark prints a maximum of 1.281 here, because it computes with 44 kHz.
    let stream = made(|index, values| (values.2, values.3) = (1_000 + 882 * index as u32, 10));
    assert_eq!(row(&stream), "50 0 18.000 20.020 21.000 0.936 1.294");
}
