//! Synthetic calls for the tests of plans and renderers.

use std::convert::Infallible;
use std::ops::Range;

use super::codec::{AudioCodec, Decoder};
use super::plan::Plan;
use super::render::{Output, Renderer};
use super::timeline::{AudioPacket, PlanBuilder};
use crate::calls::view::Side;

pub(super) const MS: i64 = 1_000_000;
pub(super) const START_NS: i64 = 1_795_297_281_000_000_000;

/// Xorshift generator: the same numbers for the same seed.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

/// Sender of packets of 20 ms. Its time goes on with each packet.
#[derive(Clone)]
pub(super) struct Sender {
    pub(super) side: Side,
    pub(super) stream: u32,
    pub(super) sequence: u16,
    pub(super) timestamp: u32,
    pub(super) codec: AudioCodec,
    pub(super) ms: i64,
}

impl Sender {
    pub(super) fn new(side: Side, stream: u32) -> Sender {
        Sender { side, stream, sequence: 65_530, timestamp: u32::MAX - 1000, codec: AudioCodec::Pcma, ms: 0 }
    }

    pub(super) fn payload_bytes(&self) -> usize {
        match self.codec {
            AudioCodec::L16 { rate_hz, channels } => rate_hz as usize / 50 * usize::from(channels) * 2,
            _ => 160,
        }
    }

    /// Goes on without sending.
    pub(super) fn skip(&mut self, packets: u16) {
        self.sequence = self.sequence.wrapping_add(packets);
        self.timestamp = self.timestamp.wrapping_add(u32::from(packets) * self.codec.clock_hz() / 50);
        self.ms += 20 * i64::from(packets);
    }
}

/// Call whose packets are in memory. The place of a payload is its number.
#[derive(Default)]
pub(super) struct Capture {
    pub(super) packets: Vec<AudioPacket>,
    pub(super) payloads: Vec<Vec<u8>>,
}

impl Capture {
    /// Sends `count` packets of random samples. Returns the payloads.
    pub(super) fn send(&mut self, sender: &mut Sender, count: usize) -> Vec<u8> {
        let first = self.payloads.len();
        for _ in 0..count {
            let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ self.payloads.len() as u64);
            let payload: Vec<u8> = (0..sender.payload_bytes()).map(|_| random.next() as u8).collect();
            self.packets.push(AudioPacket {
                side: sender.side,
                time_ns: START_NS + sender.ms * MS,
                timestamp: sender.timestamp,
                sequence: sender.sequence,
                stream: sender.stream,
                codec: Some(sender.codec),
                place: self.payloads.len() as u64,
                bytes: payload.len() as u16,
            });
            self.payloads.push(payload);
            sender.skip(1);
        }
        self.payloads[first..].concat()
    }

    /// Packets in order of time, as a capture has them. `place` then grows in file order.
    pub(super) fn sorted(mut self) -> Capture {
        self.packets.sort_by_key(|packet| packet.time_ns);
        let payloads =
            self.packets.iter().map(|packet| self.payloads[packet.place as usize].clone()).collect();
        self.payloads = payloads;
        for (place, packet) in self.packets.iter_mut().enumerate() {
            packet.place = place as u64;
        }
        self
    }

    pub(super) fn plan(&self) -> Plan {
        let mut builder = PlanBuilder::new();
        self.packets.iter().for_each(|packet| builder.add(packet));
        builder.finish()
    }

    pub(super) fn read(&self) -> impl FnMut(u64, u16, &mut Vec<u8>) -> Result<(), Infallible> {
        |place, bytes, buffer| {
            buffer.extend_from_slice(&self.payloads[place as usize][..usize::from(bytes)]);
            Ok(())
        }
    }

    pub(super) fn render(&self, plan: &Plan, output: Output, range: Range<u64>) -> Vec<i16> {
        let mut samples = Vec::new();
        Renderer::new(plan, output, false).render(range, self.read(), &mut samples).unwrap();
        samples
    }

    pub(super) fn side(&self, side: Side) -> Vec<i16> {
        let plan = self.plan();
        self.render(&plan, Output::One(side), 0..plan.frames())
    }
}

pub(super) fn decoded(codec: AudioCodec, payload: &[u8]) -> Vec<i16> {
    let mut samples = Vec::new();
    Decoder::new(codec).decode(payload, &mut samples);
    samples
}

pub(super) fn silence(samples: usize) -> Vec<i16> {
    vec![0; samples]
}

pub(super) fn check_equal(actual: &[i16], expected: &[i16]) {
    let first = actual.iter().zip(expected).position(|(a, b)| a != b);
    assert_eq!((first, actual.len()), (None, expected.len()));
}
