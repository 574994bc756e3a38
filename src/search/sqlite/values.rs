//! Encoding of values as the bytes of a key, such that the order of the bytes is the order of the values. Pure.

use std::net::{IpAddr, Ipv6Addr};

pub(crate) const HOUR_MS: i64 = 3_600_000;

/// Encodes an integer: 8 bytes, big endian, sign bit inverted.
pub(crate) fn encode_long(number: i64) -> [u8; 8] {
    (number as u64 ^ 1 << 63).to_be_bytes()
}

pub(crate) fn decode_long(bytes: &[u8]) -> Option<i64> {
    Some((u64::from_be_bytes(bytes.try_into().ok()?) ^ 1 << 63) as i64)
}

/// Encodes a float: 8 bytes, big endian, all bits of a negative number and the sign bit of others inverted. -0
/// becomes 0.
pub(crate) fn encode_double(number: f64) -> [u8; 8] {
    let bits = (number + 0.0).to_bits();
    let ordered = if bits >> 63 == 1 { !bits } else { bits ^ 1 << 63 };
    ordered.to_be_bytes()
}

pub(crate) fn decode_double(bytes: &[u8]) -> Option<f64> {
    let ordered = u64::from_be_bytes(bytes.try_into().ok()?);
    Some(f64::from_bits(if ordered >> 63 == 1 { ordered ^ 1 << 63 } else { !ordered }))
}

/// Encodes an address: 16 bytes. IPv4 is mapped to `::ffff:0:0/96`.
pub(crate) fn encode_ip(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

pub(crate) fn decode_ip(bytes: &[u8]) -> Option<IpAddr> {
    let v6 = Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?);
    Some(v6.to_ipv4_mapped().map_or(IpAddr::V6(v6), IpAddr::V4))
}

pub(crate) fn encode_boolean(value: bool) -> [u8; 1] {
    [u8::from(value)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encoded_values_keep_their_order() {
        let longs = [i64::MIN, -1_000, -1, 0, 1, 255, 256, i64::MAX];
        assert!(longs.windows(2).all(|pair| encode_long(pair[0]) < encode_long(pair[1])));
        assert!(longs.iter().all(|&number| decode_long(&encode_long(number)) == Some(number)));
        let doubles = [f64::NEG_INFINITY, -1.5, -1e-300, 0.0, 1e-300, 1.5, f64::INFINITY];
        assert!(doubles.windows(2).all(|pair| encode_double(pair[0]) < encode_double(pair[1])));
        assert!(doubles.iter().all(|&number| decode_double(&encode_double(number)) == Some(number)));
        assert_eq!(encode_double(-0.0), encode_double(0.0));
        for address in ["192.0.2.1", "2001:db8::1"] {
            let address: IpAddr = address.parse().unwrap();
            assert_eq!(decode_ip(&encode_ip(address)), Some(address));
        }
    }
}
