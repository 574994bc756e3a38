//! Payload types of a stream: the static ones of RFC 3551, and how many packets had which.

use serde::{Deserialize, Serialize};

use crate::calls::sdp;

/// What a payload type carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Role {
    /// Audio or video: what the stream is there for.
    Media,
    /// telephone-event of RFC 4733.
    Event,
    /// Comfort noise of RFC 3389.
    ComfortNoise,
}

/// What is known of a packet's payload type, of SDP (`a=rtpmap`) for instance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Format {
    /// RTP clock in hertz. 0 if unknown.
    pub clock_hz: u32,
    /// `None` if unknown.
    pub role: Option<Role>,
}

impl Format {
    #[cfg(test)]
    pub(crate) fn media(clock_hz: u32) -> Format {
        Format { clock_hz, role: Some(Role::Media) }
    }

    #[cfg(test)]
    pub(crate) fn event(clock_hz: u32) -> Format {
        Format { clock_hz, role: Some(Role::Event) }
    }
}

/// Encoding name and RTP clock in hertz of a static payload type.
///
/// 19 was reserved for comfort noise by drafts of RFC 1890, and old gateways send it.
pub(crate) fn static_format(payload_type: u8) -> Option<(&'static str, u32)> {
    let known = if payload_type == 19 { 13 } else { payload_type };
    sdp::static_format(known).map(|(name, clock_hz, _)| (name, clock_hz))
}

/// Payload types that are counted apart in a stream. A stream with telephone-event at two clocks, comfort noise and three
/// codecs has 6; an attacker has 128.
const PAYLOAD_TYPES_MAX: usize = 16;

/// Number of packets of a payload type.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct TypeCount {
    packets: u32,
    number: u8,
    role: Role,
}

/// Number of packets per payload type.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct PayloadTypes {
    /// In the order of their first packets.
    list: Vec<TypeCount>,
    /// Type of the last packets, and how many of them are not in the list yet: one type follows itself nearly always.
    last: Option<TypeCount>,
    /// Packets of the types over the limit.
    omitted: u32,
}

impl PayloadTypes {
    /// Counts a packet. The role may become known later than the type; the last one is valid.
    #[inline]
    pub(crate) fn add(&mut self, number: u8, role: Role) {
        match &mut self.last {
            Some(last) if last.number == number && last.role == role && last.packets < u32::MAX => {
                last.packets += 1;
            }
            _ => self.change(TypeCount { packets: 1, number, role }),
        }
    }

    #[cold]
    fn change(&mut self, next: TypeCount) {
        if let Some(last) = self.last.replace(next) {
            self.omitted = self.omitted.saturating_add(add_to(&mut self.list, last));
        }
    }

    pub(crate) fn role(&self, number: u8) -> Option<Role> {
        let last = self.last.filter(|last| last.number == number);
        last.or_else(|| self.list.iter().copied().find(|known| known.number == number))
            .map(|known| known.role)
    }

    fn complete_list(&self) -> (Vec<TypeCount>, u32) {
        let mut list = self.list.clone();
        let omitted = self.last.map_or(0, |last| add_to(&mut list, last));
        (list, self.omitted.saturating_add(omitted))
    }

    /// Payload type and number of its packets, in the order of their first packets.
    pub(crate) fn counts(&self) -> impl Iterator<Item = (u8, u32)> {
        self.complete_list().0.into_iter().map(|known| (known.number, known.packets))
    }

    /// Media type with the most packets. Events and comfort noise are not the codec, however many they are.
    pub(crate) fn dominant(&self) -> Option<u8> {
        let list = self.complete_list().0.into_iter().rev();
        list.filter(|known| known.role == Role::Media)
            .max_by_key(|known| known.packets)
            .map(|known| known.number)
    }

    /// Packets whose type was over the limit.
    pub(crate) fn omitted(&self) -> u32 {
        self.complete_list().1
    }
}

/// Adds the packets to the list. Returns how many are omitted, because the list is full.
fn add_to(list: &mut Vec<TypeCount>, next: TypeCount) -> u32 {
    if let Some(known) = list.iter_mut().find(|known| known.number == next.number) {
        known.packets = known.packets.saturating_add(next.packets);
        known.role = next.role;
        return 0;
    }
    if list.len() >= PAYLOAD_TYPES_MAX {
        return next.packets;
    }
    list.push(next);
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_and_comfort_noise_are_never_the_codec() {
        let mut types = PayloadTypes::default();
        for _ in 0..10 {
            types.add(101, Role::Event);
            types.add(13, Role::ComfortNoise);
        }
        assert_eq!(types.dominant(), None);
        types.add(0, Role::Media);
        types.add(8, Role::Media);
        types.add(8, Role::Media);
        assert_eq!(types.dominant(), Some(8));
        types.add(0, Role::Media);
        assert_eq!(types.dominant(), Some(0), "the earlier one of two equals");
        assert_eq!(types.counts().collect::<Vec<_>>(), [(101, 10), (13, 10), (0, 2), (8, 2)]);
    }

    #[test]
    fn sixteen_types_are_counted_and_the_seventeenth_is_omitted() {
        let mut types = PayloadTypes::default();
        for number in 0..16 {
            types.add(number, Role::Media);
        }
        assert_eq!((types.counts().count(), types.omitted()), (16, 0));
        types.add(16, Role::Media);
        types.add(3, Role::Media);
        assert_eq!((types.counts().count(), types.omitted()), (16, 1));
        assert_eq!(types.dominant(), Some(3));
    }
}
