//! Pure: a value as the bytes of a key, in an order that bytes keep; and back.

use std::net::{IpAddr, Ipv6Addr};

use chrono::{DateTime, NaiveDate, NaiveDateTime};

/// Milliseconds of an hour.
pub const HOUR_MS: i64 = 3_600_000;

/// The bytes of an integer.
pub fn long(number: i64) -> [u8; 8] {
    (number as u64 ^ 1 << 63).to_be_bytes()
}

/// The integer of those bytes.
pub fn to_long(bytes: &[u8]) -> Option<i64> {
    Some((u64::from_be_bytes(bytes.try_into().ok()?) ^ 1 << 63) as i64)
}

/// The bytes of a float; -0 is 0.
pub fn double(number: f64) -> [u8; 8] {
    let bits = (number + 0.0).to_bits();
    let ordered = if bits >> 63 == 1 { !bits } else { bits ^ 1 << 63 };
    ordered.to_be_bytes()
}

/// The float of those bytes.
pub fn to_double(bytes: &[u8]) -> Option<f64> {
    let ordered = u64::from_be_bytes(bytes.try_into().ok()?);
    Some(f64::from_bits(if ordered >> 63 == 1 { ordered ^ 1 << 63 } else { !ordered }))
}

/// The bytes of an address; IPv4 as IPv6 writes it.
pub fn ip(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// The address of those bytes.
pub fn to_ip(bytes: &[u8]) -> Option<IpAddr> {
    let v6 = Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?);
    Some(v6.to_ipv4_mapped().map_or(IpAddr::V6(v6), IpAddr::V4))
}

/// The bytes of a boolean.
pub fn boolean(value: bool) -> [u8; 1] {
    [u8::from(value)]
}

/// Milliseconds since 1970 of a date's text, by the formats that need no `format`.
pub fn date(text: &str) -> Option<i64> {
    if let Ok(at) = DateTime::parse_from_rfc3339(text) {
        return Some(at.timestamp_millis());
    }
    for format in ["%Y-%m-%d %H:%M:%S%z", "%Y/%m/%d %H:%M:%S %z"] {
        if let Ok(at) = DateTime::parse_from_str(text, format) {
            return Some(at.timestamp_millis());
        }
    }
    for format in ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%dT%H:%M"] {
        if let Ok(at) = NaiveDateTime::parse_from_str(text, format) {
            return Some(at.and_utc().timestamp_millis());
        }
    }
    let day =
        ["%Y-%m-%d", "%Y/%m/%d"].iter().find_map(|format| NaiveDate::parse_from_str(text, format).ok())?;
    Some(day.and_hms_opt(0, 0, 0)?.and_utc().timestamp_millis())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_keep_the_order() {
        let longs = [i64::MIN, -1_000, -1, 0, 1, 255, 256, i64::MAX];
        assert!(longs.windows(2).all(|pair| long(pair[0]) < long(pair[1])));
        assert!(longs.iter().all(|&number| to_long(&long(number)) == Some(number)));
        let doubles = [f64::NEG_INFINITY, -1.5, -1e-300, 0.0, 1e-300, 1.5, f64::INFINITY];
        assert!(doubles.windows(2).all(|pair| double(pair[0]) < double(pair[1])));
        assert!(doubles.iter().all(|&number| to_double(&double(number)) == Some(number)));
        assert_eq!(double(-0.0), double(0.0));
        for address in ["192.0.2.1", "2001:db8::1"] {
            let address: IpAddr = address.parse().unwrap();
            assert_eq!(to_ip(&ip(address)), Some(address));
        }
    }
}
