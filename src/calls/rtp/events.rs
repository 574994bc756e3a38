//! Digits of telephone-event packets (RFC 4733).
//!
//! A sender sends an event every 20 or 50 ms with the same timestamp, that of its start, and a growing duration; the end
//! comes three times. So an event is a timestamp, not a packet, and it exists even if all its end packets are lost.

use serde::{Deserialize, Serialize};

/// Digits of a stream. Dialling into a conference takes 20; 1,024 are 5 minutes without a pause.
const DIGITS_MAX: usize = 1_024;

/// Clock of telephone-event if SDP does not tell (RFC 4733 section 7.1.1 allows any; telephony has 8,000).
const DEFAULT_CLOCK_HZ: u32 = 8_000;

/// After such a pause nothing is a late packet of the event before.
const EVENT_PAUSE_NS: i64 = 2_000_000_000;

/// Longest duration that the 16 bits of a packet hold. A longer event goes on in a new segment (section 2.5.1.3).
const SEGMENT_TICKS: u32 = 0xffff;

/// Digit of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct EventDigit {
    /// Arrival of the first packet of the event. Nanoseconds since 1970.
    pub time_ns: i64,
    /// Length in ticks of `clock_hz`.
    pub ticks: u32,
    pub clock_hz: u32,
    /// 0 to 9, `*`, `#`, A to D; F is the flash of the hook.
    pub digit: char,
}

impl EventDigit {
    pub(crate) fn duration_ms(&self) -> u32 {
        u32::try_from(u64::from(self.ticks) * 1_000 / u64::from(self.clock_hz.max(1))).unwrap_or(u32::MAX)
    }
}

/// Payload of a telephone-event packet (section 2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct EventPayload {
    code: u8,
    is_end: bool,
    /// Ticks since the timestamp.
    duration: u16,
}

impl EventPayload {
    fn parse(payload: &[u8]) -> Option<EventPayload> {
        let &[code, flags, high, low] = payload.first_chunk()?;
        Some(EventPayload { code, is_end: flags & 0x80 != 0, duration: u16::from_be_bytes([high, low]) })
    }

    /// Digit of RFC 4733 table 7 (DTMF), or the flash of RFC 4734. Tones of modems and fax are no digits.
    fn digit(self) -> Option<char> {
        Some(match self.code {
            0..=9 => char::from(b'0' + self.code),
            10 => '*',
            11 => '#',
            12..=15 => char::from(b'A' + (self.code - 12)),
            16 => 'F',
            _ => return None,
        })
    }
}

/// Whether the payload of a dynamic type looks like an event: exactly 4 bytes, a digit, the reserved bit 0.
pub(crate) fn looks_like_event(payload: &[u8]) -> bool {
    matches!(*payload, [0..=16, flags, ..] if payload.len() == 4 && flags & 0x40 == 0)
}

/// Segment of an event, as far as it was received.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Segment {
    last_ns: i64,
    timestamp: u32,
    ticks: u32,
    /// Ticks of the segments of the event before this one.
    ticks_before: u32,
    code: u8,
    payload_type: u8,
    is_ended: bool,
}

/// Header fields of an event packet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EventPacket<'a> {
    pub time_ns: i64,
    pub timestamp: u32,
    pub payload_type: u8,
    pub is_marker: bool,
    pub payload: &'a [u8],
    /// 0 if unknown.
    pub clock_hz: u32,
}

/// How a packet continues the event before.
enum Continuation {
    Same,
    /// Another segment of a long event.
    Segment,
    /// An old packet, after the next event began.
    Late,
    New,
}

/// Digits of a stream.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Events {
    digits: Vec<EventDigit>,
    segment: Option<Segment>,
    /// Whether the last event is the last digit: false if it is not a digit, or over the limit.
    is_last_listed: bool,
    /// Digits over the limit, and events that are no digits.
    omitted: u32,
    others: u32,
}

impl Events {
    pub(crate) fn add(&mut self, packet: &EventPacket<'_>) {
        let Some(payload) = EventPayload::parse(packet.payload) else { return };
        let continuation = self.segment.map_or(Continuation::New, |s| s.continuation(packet, payload));
        match continuation {
            Continuation::Late => return,
            Continuation::New => self.start(packet, payload),
            Continuation::Same | Continuation::Segment => {}
        }
        let Some(segment) = &mut self.segment else { return };
        if matches!(continuation, Continuation::Segment) {
            segment.ticks_before = segment.ticks_before.saturating_add(segment.ticks);
            segment.timestamp = packet.timestamp;
            segment.ticks = 0;
        }
        // A sender that moves the timestamp within an event counts its duration from there.
        let offset = packet.timestamp.wrapping_sub(segment.timestamp);
        segment.ticks = segment.ticks.max(offset.saturating_add(payload.duration.into()));
        segment.is_ended |= payload.is_end;
        segment.last_ns = packet.time_ns;
        if self.is_last_listed
            && let Some(digit) = self.digits.last_mut()
        {
            digit.ticks = segment.ticks_before.saturating_add(segment.ticks);
        }
    }

    fn start(&mut self, packet: &EventPacket<'_>, payload: EventPayload) {
        self.segment = Some(Segment {
            last_ns: packet.time_ns,
            timestamp: packet.timestamp,
            ticks: 0,
            ticks_before: 0,
            code: payload.code,
            payload_type: packet.payload_type,
            is_ended: false,
        });
        self.is_last_listed = false;
        let clock_hz = if packet.clock_hz == 0 { DEFAULT_CLOCK_HZ } else { packet.clock_hz };
        match payload.digit() {
            None => self.others = self.others.saturating_add(1),
            Some(_) if self.digits.len() >= DIGITS_MAX => self.omitted = self.omitted.saturating_add(1),
            Some(digit) => {
                self.digits.push(EventDigit { time_ns: packet.time_ns, ticks: 0, clock_hz, digit });
                self.is_last_listed = true;
            }
        }
    }

    /// Forgets the timestamps: the sender started anew.
    pub(crate) fn restart(&mut self) {
        self.segment = None;
    }

    pub(crate) fn digits(&self) -> &[EventDigit] {
        &self.digits
    }

    /// Digits over the limit.
    pub(crate) fn omitted(&self) -> u32 {
        self.omitted
    }

    /// Events that are no digits, such as the tones of a fax.
    #[cfg(test)]
    pub(crate) fn others(&self) -> u32 {
        self.others
    }
}

impl Segment {
    fn continuation(&self, packet: &EventPacket<'_>, payload: EventPayload) -> Continuation {
        let ticks = packet.timestamp.wrapping_sub(self.timestamp);
        let is_alike = self.code == payload.code && self.payload_type == packet.payload_type;
        let pause_ns = packet.time_ns.saturating_sub(self.last_ns);
        if is_alike && ticks == 0 {
            return Continuation::Same;
        }
        if pause_ns > EVENT_PAUSE_NS {
            return Continuation::New;
        }
        if (ticks as i32) < 0 {
            return Continuation::Late;
        }
        // A new event starts after the one before, and with the marker (section 2.5.1.1).
        let is_next_segment = !self.is_ended && (ticks == self.ticks || ticks == SEGMENT_TICKS);
        match ticks {
            _ if !is_alike || packet.is_marker => Continuation::New,
            _ if is_next_segment => Continuation::Segment,
            _ if ticks < self.ticks => Continuation::Same,
            _ => Continuation::New,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: i64 = 1_000_000;

    /// Packet of an event: time in ms, timestamp, code, end, duration.
    type Sample = (i64, u32, u8, bool, u16);

    fn events_of(samples: &[Sample]) -> Events {
        let mut events = Events::default();
        for &sample in samples {
            add(&mut events, sample, 101);
        }
        events
    }

    fn add(events: &mut Events, (ms, timestamp, code, is_end, duration): Sample, payload_type: u8) {
        let [high, low] = duration.to_be_bytes();
        let payload = [code, if is_end { 0x8a } else { 0x0a }, high, low];
        let packet = EventPacket {
            time_ns: ms * MS,
            timestamp,
            payload_type,
            is_marker: false,
            payload: &payload,
            clock_hz: 0,
        };
        events.add(&packet);
    }

    /// Digit, start and duration in ms.
    fn list(events: &Events) -> Vec<(char, i64, u32)> {
        events.digits().iter().map(|d| (d.digit, d.time_ns / MS, d.duration_ms())).collect()
    }

    /// The example of RFC 4733 section 5 (table 4): "911", with timestamps and durations as printed there.
    const DIAL_911: [Sample; 17] = [
        (0, 0, 9, false, 400),
        (50, 0, 9, false, 800),
        (100, 0, 9, false, 1_200),
        (150, 0, 9, false, 1_600),
        (200, 0, 9, true, 1_600),
        (250, 0, 9, true, 1_600),
        (890, 6_800, 1, false, 400),
        (940, 6_800, 1, false, 800),
        (990, 6_800, 1, false, 1_200),
        (1_040, 6_800, 1, false, 1_600),
        (1_090, 6_800, 1, false, 2_000),
        (1_140, 6_800, 1, true, 2_000),
        (1_190, 6_800, 1, true, 2_000),
        (1_400, 11_200, 1, false, 400),
        (1_450, 11_200, 1, false, 800),
        (1_500, 11_200, 1, true, 1_120),
        (1_550, 11_200, 1, true, 1_120),
    ];

    #[test]
    fn an_event_is_one_digit_however_often_it_is_sent() {
        let events = events_of(&DIAL_911);
        assert_eq!(list(&events), [('9', 0, 200), ('1', 890, 250), ('1', 1_400, 140)]);
        assert_eq!((events.omitted(), events.others()), (0, 0));
    }

    #[test]
    fn lost_end_packets_do_not_join_or_lose_digits() {
        let kept: Vec<Sample> = DIAL_911.into_iter().filter(|sample| !sample.3).collect();
        assert_eq!(list(&events_of(&kept)), [('9', 0, 200), ('1', 890, 250), ('1', 1_400, 100)]);
        let ends: Vec<Sample> = DIAL_911.into_iter().filter(|sample| sample.3).collect();
        assert_eq!(list(&events_of(&ends)), [('9', 200, 200), ('1', 1_140, 250), ('1', 1_500, 140)]);
    }

    #[test]
    fn late_packets_of_the_event_before_are_no_new_digit() {
        let mut samples = DIAL_911;
        samples.swap(5, 6);
        assert_eq!(list(&events_of(&samples)), [('9', 0, 200), ('1', 250 + 640, 250), ('1', 1_400, 140)]);
    }

    #[test]
    fn each_code_has_its_digit() {
        let samples: Vec<Sample> =
            (0..=17).map(|code| (i64::from(code) * 200, u32::from(code) * 1_600, code, true, 800)).collect();
        let events = events_of(&samples);
        let digits: String = events.digits().iter().map(|digit| digit.digit).collect();
        assert_eq!(digits, "0123456789*#ABCDF");
        assert_eq!(events.others(), 1);
    }

    #[test]
    fn a_long_event_in_segments_is_one_digit() {
        let samples = [
            (0, 100, 5, false, 400),
            (8_000, 100, 5, false, 0xffff),
            (8_050, 100 + 0xffff, 5, false, 400),
            (9_000, 100 + 0xffff, 5, true, 8_000),
            (9_000, 100 + 0xffff, 5, true, 8_000),
        ];
        // Between its first two packets are more than 2 s, but the timestamp is the same.
        assert_eq!(list(&events_of(&samples)), [('5', 0, (0xffff + 8_000) / 8)]);
    }

    #[test]
    fn a_sender_that_moves_the_timestamp_within_the_event_is_understood() {
        let samples: Vec<Sample> = (0..6).map(|i| (i * 20, 8_000 + i as u32 * 160, 7, i > 3, 320)).collect();
        assert_eq!(list(&events_of(&samples)), [('7', 0, 140)]);
    }

    #[test]
    fn two_payload_types_are_two_series() {
        let mut events = Events::default();
        add(&mut events, (0, 100, 1, true, 800), 101);
        add(&mut events, (300, 2_500, 2, true, 800), 97);
        add(&mut events, (302, 2_500, 2, true, 800), 97);
        add(&mut events, (600, 4_900, 1, true, 800), 101);
        assert_eq!(list(&events), [('1', 0, 100), ('2', 300, 100), ('1', 600, 100)]);
    }

    #[test]
    fn the_timestamp_may_wrap() {
        let samples = [
            (0, u32::MAX - 100, 1, false, 400),
            (50, u32::MAX - 100, 1, true, 800),
            (300, 2_299, 1, true, 800),
        ];
        assert_eq!(list(&events_of(&samples)), [('1', 0, 100), ('1', 300, 100)]);
    }

    #[test]
    fn digits_over_the_limit_are_counted() {
        let digit = |n: u32| (i64::from(n) * 200, n * 1_600, 5, true, 800);
        let mut samples: Vec<Sample> = (0..1_024).map(digit).collect();
        assert_eq!((events_of(&samples).digits().len(), events_of(&samples).omitted()), (1_024, 0));
        samples.extend([digit(1_024), digit(1_024)]);
        let events = events_of(&samples);
        assert_eq!((events.digits().len(), events.omitted()), (1_024, 1));
        assert_eq!(
            events.digits()[1_023].ticks,
            800,
            "the digit over the limit does not change the last one"
        );
    }

    #[test]
    fn short_payloads_are_ignored() {
        let mut events = Events::default();
        for length in 0..4 {
            let payload = &[1, 0x80, 3, 0x20][..length];
            assert!(!looks_like_event(payload));
            let packet = EventPacket {
                time_ns: 0,
                timestamp: 0,
                payload_type: 101,
                is_marker: true,
                payload,
                clock_hz: 8_000,
            };
            events.add(&packet);
        }
        assert!(events.digits().is_empty());
        assert!(looks_like_event(&[1, 0x80, 3, 0x20]));
        assert!(!looks_like_event(&[17, 0x80, 3, 0x20]) && !looks_like_event(&[1, 0xc0, 3, 0x20]));
    }
}
