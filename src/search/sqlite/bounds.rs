//! Conversion of the values and bounds of a query to numbers, texts and key bytes. Pure.

use crate::search::query::{Bound, QueryValue};

/// Returns one bound of a key range: inclusive if it is the lower one, exclusive if it is the upper one.
pub(super) fn bound_key(
    bound: &Bound,
    is_upper: bool,
    read: impl Fn(&QueryValue) -> Option<Vec<u8>>,
) -> Option<Vec<u8>> {
    // The smallest key above a value is the value followed by a zero byte.
    let (value, appends_zero) = match bound {
        Bound::Open => return None,
        Bound::Included(value) => (value, is_upper),
        Bound::Excluded(value) => (value, !is_upper),
    };
    let mut bytes = read(value)?;
    if appends_zero {
        bytes.push(0);
    }
    Some(bytes)
}

/// Lower and upper bound.
type KeyBounds = (Option<Vec<u8>>, Option<Vec<u8>>);

/// Returns both bounds, or an error if a value does not have the type of the field.
pub(super) fn bound_keys(
    from: &Bound,
    to: &Bound,
    read: impl Fn(&QueryValue) -> Option<Vec<u8>>,
) -> Result<KeyBounds, String> {
    for bound in [from, to] {
        if let Bound::Included(value) | Bound::Excluded(value) = bound
            && read(value).is_none()
        {
            return Err(format!("For input string: \"{}\"", value_text(value)));
        }
    }
    Ok((bound_key(from, false, &read), bound_key(to, true, &read)))
}

/// Returns a value as text.
pub(super) fn value_text(value: &QueryValue) -> String {
    match value {
        QueryValue::Text(text) => text.clone(),
        QueryValue::Long(number) => number.to_string(),
        QueryValue::Double(number) => number.to_string(),
        QueryValue::Bool(value) => value.to_string(),
    }
}

/// Returns a value as a number.
pub(super) fn to_number(value: &QueryValue) -> Option<f64> {
    let number = match value {
        QueryValue::Text(text) => text.trim().parse().ok()?,
        QueryValue::Long(number) => *number as f64,
        QueryValue::Double(number) => *number,
        QueryValue::Bool(_) => return None,
    };
    number.is_finite().then_some(number)
}

/// Returns a value as an integer, if it is one.
pub(super) fn to_integer(value: &QueryValue) -> Option<i64> {
    match value {
        QueryValue::Text(text) => {
            text.trim().parse().ok().or_else(|| to_integer(&QueryValue::Double(text.trim().parse().ok()?)))
        }
        QueryValue::Long(number) => Some(*number),
        QueryValue::Double(number) if number.fract() == 0.0 && number.abs() < 9.2e18 => Some(*number as i64),
        _ => None,
    }
}
