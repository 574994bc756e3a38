//! Tests with real captures: the tones of an answered call, and calls of baresip, compared with its recordings.

use std::convert::Infallible;
use std::f64::consts::PI;

use super::codec::AudioCodec;
use super::plan::Plan;
use super::render::{Output, Renderer};
use super::timeline::{AudioPacket, PlanBuilder};
use crate::calls::view::Side;

/// Adds the RTP packets of a pcap file (Ethernet, IPv4, no options). `side` decides by the source address and port.
fn plan_of(pcap: &[u8], side: impl Fn([u8; 4], u16) -> Option<Side>, codec: AudioCodec) -> Plan {
    let mut builder = PlanBuilder::new();
    let number = |at: usize| u32::from_le_bytes(pcap[at..at + 4].try_into().unwrap());
    let mut at = 24;
    while at < pcap.len() {
        let (seconds, micros, length) = (number(at), number(at + 4), number(at + 8) as usize);
        let packet = &pcap[at + 16..at + 16 + length];
        let source_port = u16::from_be_bytes([packet[34], packet[35]]);
        let source = packet[26..30].try_into().unwrap();
        // IPv4, UDP, RTP version 2 with a payload type that is not RTCP.
        let is_rtp = packet[12..14] == [8, 0] && packet[23] == 17 && packet.len() > 54 && packet[42] == 0x80;
        if let Some(side) =
            side(source, source_port).filter(|_| is_rtp && !(64..96).contains(&(packet[43] & 0x7f)))
        {
            builder.add(&AudioPacket {
                side,
                time_ns: i64::from(seconds) * 1_000_000_000 + i64::from(micros) * 1000,
                timestamp: u32::from_be_bytes(packet[46..50].try_into().unwrap()),
                sequence: u16::from_be_bytes([packet[44], packet[45]]),
                stream: u32::from_be_bytes(packet[50..54].try_into().unwrap()),
                codec: Some(codec),
                place: (at + 16 + 54) as u64,
                bytes: (length - 54) as u16,
            });
        }
        at += 16 + length;
    }
    builder.finish()
}

fn render(plan: &Plan, pcap: &[u8], output: Output) -> Vec<i16> {
    let read = |place: u64, bytes: u16, buffer: &mut Vec<u8>| -> Result<(), Infallible> {
        buffer.extend_from_slice(&pcap[place as usize..][..usize::from(bytes)]);
        Ok(())
    };
    let mut samples = Vec::new();
    Renderer::new(plan, output, false).render(0..plan.frames(), read, &mut samples).unwrap();
    samples
}

/// Part of the energy that a tone has, from 0 to 1 (Goertzel's algorithm).
fn tone_part(samples: &[i16], tone_hz: f64, rate_hz: u32) -> f64 {
    let coefficient = 2.0 * (2.0 * PI * tone_hz / f64::from(rate_hz)).cos();
    let (mut last, mut before, mut energy) = (0.0, 0.0, 0.0);
    for &sample in samples {
        let sample = f64::from(sample);
        (last, before) = (sample + coefficient * last - before, last);
        energy += sample * sample;
    }
    let power = last * last + before * before - coefficient * last * before;
    if energy == 0.0 { 0.0 } else { power * 2.0 / energy / samples.len() as f64 }
}

/// The caller sends 440 Hz for 2.5 s, then 880 Hz for 2.5 s; the callee sends back what it receives (SIPp's echo).
#[test]
fn tones_of_the_sample_call_are_at_their_times() {
    let pcap = include_bytes!("../../../testdata/pcap/answered-call.pcap");
    let side = |source: [u8; 4], port: u16| match (source, port) {
        ([10, 77, 0, 1], 6000) => Some(Side::Caller),
        ([10, 77, 0, 2], 6000) => Some(Side::Callee),
        _ => None,
    };
    let plan = plan_of(pcap, side, AudioCodec::Pcma);
    let seconds = plan.frames() as f64 / 8000.0;
    assert!((4.96..5.02).contains(&seconds), "{seconds}");
    for side in [Side::Caller, Side::Callee] {
        let samples = render(&plan, pcap, Output::One(side));
        for (number, frame) in samples.chunks_exact(800).enumerate() {
            let expected = match number {
                // The tone changes at 2.5 s, up to a packet more or less.
                0 | 24 | 25 | 49.. => continue,
                1..24 => 440.0,
                _ => 880.0,
            };
            let part = tone_part(frame, expected, 8000);
            assert!(part > 0.98, "{side:?} {number} {part}");
        }
    }
    let both = render(&plan, pcap, Output::Both);
    let callee: Vec<i16> = both.iter().skip(1).step_by(2).copied().collect();
    assert_eq!(callee, render(&plan, pcap, Output::One(Side::Callee)));
}

fn wav_samples(wav: &[u8]) -> Vec<i16> {
    hound::WavReader::new(wav).unwrap().into_samples().map(Result::unwrap).collect()
}

/// Compares a call of two instances of baresip with what its module sndfile recorded of the decoded audio: the caller
/// heard the callee and the other way round. A recording begins before or after the first packet by what the jitter
/// buffer held, and ends before the last one.
fn check_baresip(pcap: &[u8], heard_by_caller: &[u8], heard_by_callee: &[u8], codec: AudioCodec) {
    let side = |_, port: u16| match port {
        40_000..40_011 => Some(Side::Caller),
        40_020..40_031 => Some(Side::Callee),
        _ => None,
    };
    let plan = plan_of(pcap, side, codec);
    for (side, recording) in [(Side::Callee, heard_by_caller), (Side::Caller, heard_by_callee)] {
        let samples = render(&plan, pcap, Output::One(side));
        let recording = wav_samples(recording);
        let first = recording.iter().position(|sample| sample.unsigned_abs() > 100).unwrap();
        let recording = &recording[first..];
        let at = samples.windows(100).position(|window| window == &recording[..100]);
        let Some(at) = at else { panic!("{codec:?} {side:?}: the recording is not in the audio") };
        assert!(at < 800, "{codec:?} {side:?} {at}");
        let mut pairs = samples[at..].iter().zip(recording);
        assert!(pairs.len() > 4000);
        // The mu-law decoder of baresip gives 2 and -2 for codes 0xff and 0x7f, which are 0 in G.711.
        let is_equal = |a: i16, b: i16| a == b || (codec == AudioCodec::Pcmu && a == 0 && b.abs() == 2);
        assert_eq!(pairs.position(|(&a, &b)| !is_equal(a, b)), None, "{codec:?} {side:?}");
    }
}

#[test]
fn audio_is_what_baresip_heard() {
    check_baresip(
        include_bytes!("../../../testdata/audio/baresip-pcma.pcap"),
        include_bytes!("../../../testdata/audio/baresip-pcma-caller.wav"),
        include_bytes!("../../../testdata/audio/baresip-pcma-callee.wav"),
        AudioCodec::Pcma,
    );
    check_baresip(
        include_bytes!("../../../testdata/audio/baresip-g722.pcap"),
        include_bytes!("../../../testdata/audio/baresip-g722-caller.wav"),
        include_bytes!("../../../testdata/audio/baresip-g722-callee.wav"),
        AudioCodec::G722,
    );
}
