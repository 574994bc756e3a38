//! Points on the earth, and shapes that contain them. Pure.

use serde_json::Value;

/// Mean radius of the earth in metres, as Lucene has it.
const EARTH_RADIUS_M: f64 = 6_371_008.771_415_059;

/// A point in degrees.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GeoPoint {
    pub lat: f64,
    pub lon: f64,
}

/// An area.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum GeoShape {
    Circle {
        center: GeoPoint,
        radius_m: f64,
    },
    /// If `left` is east of `right`, the box crosses the date line.
    Box {
        top: f64,
        left: f64,
        bottom: f64,
        right: f64,
    },
}

impl GeoPoint {
    /// Encodes a point as bytes.
    pub(crate) fn encode(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.lat.to_be_bytes());
        bytes[8..].copy_from_slice(&self.lon.to_be_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<GeoPoint> {
        let (lat, lon) = bytes.split_at_checked(8)?;
        Some(GeoPoint {
            lat: f64::from_be_bytes(lat.try_into().ok()?),
            lon: f64::from_be_bytes(lon.try_into().ok()?),
        })
    }

    fn checked(lat: f64, lon: f64) -> Result<GeoPoint, String> {
        if !(-90.0..=90.0).contains(&lat) {
            return Err(format!("illegal latitude value [{lat:?}]"));
        }
        if !(-180.0..=180.0).contains(&lon) {
            return Err(format!("illegal longitude value [{lon:?}]"));
        }
        Ok(GeoPoint { lat, lon })
    }

    /// Parses `"LAT,LON"`, `"POINT (LON LAT)"` or a geohash.
    pub(crate) fn parse_text(text: &str) -> Result<GeoPoint, String> {
        let number = |text: &str, name: &str| {
            text.trim().parse::<f64>().map_err(|_| format!("{name} must be a number"))
        };
        if let Some((lat, lon)) = text.split_once(',') {
            return GeoPoint::checked(number(lat, "latitude")?, number(lon, "longitude")?);
        }
        let upper = text.trim().to_ascii_uppercase();
        if let Some(rest) = upper.strip_prefix("POINT") {
            let inner = rest.trim().strip_prefix('(').and_then(|rest| rest.strip_suffix(')'));
            let mut numbers = inner.unwrap_or_default().split_ascii_whitespace();
            return match (numbers.next(), numbers.next()) {
                (Some(lon), Some(lat)) => {
                    GeoPoint::checked(number(lat, "latitude")?, number(lon, "longitude")?)
                }
                _ => Err("failed to parse WKT point".to_owned()),
            };
        }
        parse_geohash(text)
    }

    /// Parses any form of a point, or a list of points.
    pub(crate) fn parse_all(value: &Value) -> Result<Vec<GeoPoint>, String> {
        match value {
            Value::Array(list) if list.first().is_some_and(Value::is_number) => {
                let numbers: Vec<f64> = list.iter().filter_map(Value::as_f64).collect();
                match numbers.as_slice() {
                    [lon, lat] | [lon, lat, _] => GeoPoint::checked(*lat, *lon).map(|point| vec![point]),
                    _ => Err("[geo_point] field type does not accept more than 3 dimensions".to_owned()),
                }
            }
            Value::Array(list) => {
                let points = list.iter().map(GeoPoint::parse_all).collect::<Result<Vec<_>, _>>()?;
                Ok(points.into_iter().flatten().collect())
            }
            value => GeoPoint::parse(value).map(|point| vec![point]),
        }
    }

    fn parse(value: &Value) -> Result<GeoPoint, String> {
        match value {
            Value::String(text) => GeoPoint::parse_text(text),
            Value::Object(members) => {
                let number = |name: &str| match members.get(name) {
                    Some(Value::Number(number)) => {
                        number.as_f64().ok_or_else(|| format!("[{name}] must be a valid double value"))
                    }
                    Some(Value::String(text)) => {
                        text.trim().parse().map_err(|_| format!("[{name}] must be a valid double value"))
                    }
                    Some(_) => Err(format!("{name} must be a number")),
                    None => Err(format!("field [{name}] missing")),
                };
                match members.get("geohash").and_then(Value::as_str) {
                    Some(hash) => parse_geohash(hash),
                    None => GeoPoint::checked(number("lat")?, number("lon")?),
                }
            }
            _ => Err("geo_point expected".to_owned()),
        }
    }

    /// Returns the distance to another point in metres (haversine).
    pub(crate) fn distance_m(self, other: GeoPoint) -> f64 {
        let (lat, other_lat) = (self.lat.to_radians(), other.lat.to_radians());
        let half = |a: f64, b: f64| ((b - a) / 2.0).sin().powi(2);
        let lon = half(self.lon.to_radians(), other.lon.to_radians());
        let part = half(lat, other_lat) + lat.cos() * other_lat.cos() * lon;
        2.0 * EARTH_RADIUS_M * part.sqrt().min(1.0).asin()
    }
}

fn parse_geohash(text: &str) -> Result<GeoPoint, String> {
    const DIGITS: &str = "0123456789bcdefghjkmnpqrstuvwxyz";
    if text.is_empty() || text.len() > 12 {
        return Err(format!("failed to parse [{text}], expected 2 or 3 coordinates or a geohash"));
    }
    let (mut lat, mut lon) = ((-90.0, 90.0), (-180.0, 180.0));
    let mut is_lon = true;
    for c in text.chars() {
        let digit = DIGITS
            .find(c.to_ascii_lowercase())
            .ok_or_else(|| format!("unsupported symbol [{c}] in geohash [{text}]"))?;
        for bit in (0..5).rev() {
            let range: &mut (f64, f64) = if is_lon { &mut lon } else { &mut lat };
            let middle = (range.0 + range.1) / 2.0;
            if digit >> bit & 1 == 1 {
                range.0 = middle
            } else {
                range.1 = middle
            }
            is_lon = !is_lon;
        }
    }
    GeoPoint::checked(lat.0, lon.0)
}

impl GeoShape {
    pub(crate) fn contains(&self, point: GeoPoint) -> bool {
        match *self {
            GeoShape::Circle { center, radius_m } => center.distance_m(point) <= radius_m,
            GeoShape::Box { top, left, bottom, right } => {
                let in_width = match left <= right {
                    true => (left..=right).contains(&point.lon),
                    false => point.lon >= left || point.lon <= right,
                };
                in_width && (bottom..=top).contains(&point.lat)
            }
        }
    }
}

/// Parses `12km`, `5mi`, `200` (metres).
pub(crate) fn parse_distance_m(text: &str) -> Option<f64> {
    let text = text.trim();
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" | "m" | "meters" => 1.0,
        "km" | "kilometers" => 1_000.0,
        "mi" | "miles" => 1_609.344,
        "yd" | "yards" => 0.914_4,
        "ft" | "feet" => 0.304_8,
        "in" | "inch" => 0.025_4,
        "cm" | "centimeters" => 0.01,
        "mm" | "millimeters" => 0.001,
        "nm" | "nmi" | "nauticalmiles" => 1_852.0,
        _ => return None,
    };
    let number: f64 = digits.trim().parse().ok()?;
    (number.is_finite() && number >= 0.0).then_some(number * factor)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn all_forms_of_points_are_parsed() {
        let point = GeoPoint { lat: -23.5, lon: -46.5 };
        for value in [
            json!("-23.5,-46.5"),
            json!({"lat": -23.5, "lon": "-46.5"}),
            json!([-46.5, -23.5]),
            json!("POINT (-46.5 -23.5)"),
            json!(["-23.5, -46.5"]),
        ] {
            assert_eq!(GeoPoint::parse_all(&value), Ok(vec![point]), "{value}");
        }
        assert_eq!(GeoPoint::parse_all(&json!([[1, 2], "3,4"])).unwrap().len(), 2);
        let hash = GeoPoint::parse_text("drm3btev3e86").unwrap();
        assert!((hash.lat - 41.12).abs() < 0.001 && (hash.lon + 71.34).abs() < 0.001, "{hash:?}");
        for wrong in [json!("91,0"), json!("0,181"), json!("foo"), json!({"lat": 1}), json!(5), json!([1])] {
            assert!(GeoPoint::parse_all(&wrong).is_err(), "{wrong}");
        }
        assert_eq!(GeoPoint::decode(&point.encode()), Some(point));
    }

    #[test]
    fn shapes_contain_points() {
        let berlin = GeoPoint { lat: 52.52, lon: 13.405 };
        let paris = GeoPoint { lat: 48.8566, lon: 2.3522 };
        let distance = berlin.distance_m(paris);
        assert!((distance - 877_500.0).abs() < 1_000.0, "{distance}");
        let circle = |radius_m| GeoShape::Circle { center: berlin, radius_m };
        assert!(circle(880_000.0).contains(paris) && !circle(870_000.0).contains(paris));
        let bounds = GeoShape::Box { top: 60.0, left: 170.0, bottom: 50.0, right: -170.0 };
        assert!(bounds.contains(GeoPoint { lat: 55.0, lon: 179.0 }) && !bounds.contains(berlin));
        assert_eq!(parse_distance_m("1.5km"), Some(1500.0));
        assert_eq!(parse_distance_m("5 parsec"), None);
    }
}
