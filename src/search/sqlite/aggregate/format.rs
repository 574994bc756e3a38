//! Formats values for answers: keys of buckets, and the `*_as_string` texts of numbers. Pure.

use super::super::values;
use crate::search::date::TimeZone;
use crate::search::date::write::DateWriter;
use crate::search::mapping::FieldType;
use crate::search::query::OutputJson;

/// How the values of a field are formatted as texts.
#[derive(Clone, Debug)]
pub(in super::super) enum ValueFormat {
    /// Not at all.
    Raw,
    Boolean,
    Date(DateWriter),
    Decimal(DecimalPattern),
}

impl ValueFormat {
    /// `date_format`: the format of dates, of the request or else of the mapping. `requested`: that of the request.
    pub(in super::super) fn new(
        kind: FieldType,
        date_format: Option<&str>,
        requested: Option<&str>,
        zone: TimeZone,
    ) -> ValueFormat {
        match (kind, requested) {
            (FieldType::Date, _) => ValueFormat::Date(DateWriter::new(date_format, zone)),
            (FieldType::Boolean, _) => ValueFormat::Boolean,
            (FieldType::Long | FieldType::Double, Some(pattern)) => {
                ValueFormat::Decimal(DecimalPattern::parse(pattern))
            }
            _ => ValueFormat::Raw,
        }
    }

    /// Writes a number, if the format has a text for it.
    pub(in super::super) fn write(&self, number: f64) -> Option<String> {
        match self {
            ValueFormat::Raw => None,
            ValueFormat::Boolean => Some((number != 0.0).to_string()),
            ValueFormat::Date(writer) => Some(writer.write(number as i64)),
            ValueFormat::Decimal(pattern) => Some(pattern.write(number)),
        }
    }

    /// Returns `key`, and `key_as_string` if there is one, of a bucket with this value.
    pub(in super::super) fn key(
        &self,
        kind: FieldType,
        value: &[u8],
        number: f64,
    ) -> (OutputJson, Option<String>) {
        let key = match kind {
            FieldType::Long | FieldType::Date => {
                OutputJson::Long(values::decode_long(value).unwrap_or_default())
            }
            FieldType::Double => OutputJson::Double(number),
            FieldType::Boolean => OutputJson::Long(number as i64),
            FieldType::Ip => {
                OutputJson::Text(values::decode_ip(value).map(|ip| ip.to_string()).unwrap_or_default())
            }
            FieldType::Text | FieldType::Keyword | FieldType::GeoPoint => {
                OutputJson::Text(String::from_utf8_lossy(value).into_owned())
            }
        };
        (key, self.write(number))
    }
}

/// A pattern in the syntax of Java's `DecimalFormat`: `#,##0.00`, `0.0%`.
#[derive(Clone, Debug, Default)]
pub(in super::super) struct DecimalPattern {
    prefix: String,
    suffix: String,
    integer_min: usize,
    fraction_min: usize,
    fraction_max: usize,
    /// Digits between group separators; 0: none.
    group: usize,
    factor: f64,
}

impl DecimalPattern {
    fn parse(pattern: &str) -> DecimalPattern {
        let positive = pattern.split(';').next().unwrap_or_default();
        let is_digit = |c: char| matches!(c, '#' | '0' | ',' | '.');
        let start = positive.find(is_digit).unwrap_or(positive.len());
        let end = positive.rfind(is_digit).map_or(start, |end| end + 1);
        let (integer, fraction) = positive[start..end].split_once('.').unwrap_or((&positive[start..end], ""));
        let literal = |text: &str| text.replace('\'', "");
        let (prefix, suffix) = (literal(&positive[..start]), literal(&positive[end..]));
        DecimalPattern {
            integer_min: integer.matches('0').count(),
            fraction_min: fraction.matches('0').count(),
            fraction_max: fraction.matches(['0', '#']).count().min(17),
            group: integer.rfind(',').map_or(0, |at| integer.len() - at - 1),
            factor: if suffix.contains('%') || prefix.contains('%') { 100.0 } else { 1.0 },
            prefix,
            suffix,
        }
    }

    fn write(&self, number: f64) -> String {
        let number = number * self.factor;
        // Rounds half to even, as Java does.
        let mut digits = format!("{:.*}", self.fraction_max, number.abs());
        if self.fraction_max > 0 {
            let keep = digits.find('.').map_or(digits.len(), |at| at + 1 + self.fraction_min);
            while digits.len() > keep && digits.ends_with('0') {
                digits.pop();
            }
            if digits.ends_with('.') {
                digits.pop();
            }
        }
        let (integer, fraction) = digits.split_once('.').unwrap_or((&digits, ""));
        let mut integer = integer.trim_start_matches('0').to_owned();
        while integer.len() < self.integer_min {
            integer.insert(0, '0');
        }
        if self.group > 0 {
            let mut at = integer.len();
            while at > self.group {
                at -= self.group;
                integer.insert(at, ',');
            }
        }
        let sign = if number < 0.0 && digits.contains(|c: char| c != '0' && c != '.') { "-" } else { "" };
        let point = if fraction.is_empty() { "" } else { "." };
        format!("{sign}{}{integer}{point}{fraction}{}", self.prefix, self.suffix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimal_patterns_are_those_of_java() {
        for (pattern, number, expected) in [
            ("0.00", 12.888, "12.89"),
            ("0.00", 0.125, "0.12"),
            ("#.##", 0.5, ".5"),
            ("#,##0.0", 1_234_567.25, "1,234,567.2"),
            ("000", 7.0, "007"),
            ("0.#", 3.0, "3"),
            ("0%", 0.256, "26%"),
            ("0.0", -1.25, "-1.2"),
            ("$0", 3.7, "$4"),
        ] {
            assert_eq!(DecimalPattern::parse(pattern).write(number), expected, "{pattern} {number}");
        }
    }
}
