//! Pure: the values and ends of a question as numbers, texts and bytes.

use crate::iri::query::{Bound, Value};

/// One end of a range of bytes: from it on, or up to below it.
pub fn edge(bound: &Bound, is_upper: bool, read: impl Fn(&Value) -> Option<Vec<u8>>) -> Option<Vec<u8>> {
    // What follows a value directly is the value and a zero byte.
    let (value, behind) = match bound {
        Bound::Open => return None,
        Bound::Included(value) => (value, is_upper),
        Bound::Excluded(value) => (value, !is_upper),
    };
    let mut bytes = read(value)?;
    if behind {
        bytes.push(0);
    }
    Some(bytes)
}

/// Both ends.
type Edges = (Option<Vec<u8>>, Option<Vec<u8>>);

/// Both ends, where values may not fit the type.
pub fn numbers(from: &Bound, to: &Bound, read: impl Fn(&Value) -> Option<Vec<u8>>) -> Result<Edges, String> {
    for bound in [from, to] {
        if let Bound::Included(value) | Bound::Excluded(value) = bound
            && read(value).is_none()
        {
            return Err(format!("For input string: \"{}\"", plain(value)));
        }
    }
    Ok((edge(from, false, &read), edge(to, true, &read)))
}

/// A value as text.
pub fn plain(value: &Value) -> String {
    match value {
        Value::Text(text) => text.clone(),
        Value::Long(number) => number.to_string(),
        Value::Double(number) => number.to_string(),
        Value::Bool(value) => value.to_string(),
    }
}

/// A value as a number.
pub fn number_of(value: &Value) -> Option<f64> {
    let number = match value {
        Value::Text(text) => text.trim().parse().ok()?,
        Value::Long(number) => *number as f64,
        Value::Double(number) => *number,
        Value::Bool(_) => return None,
    };
    number.is_finite().then_some(number)
}

/// A value as an integer, where it is one.
pub fn integer_of(value: &Value) -> Option<i64> {
    match value {
        Value::Text(text) => {
            text.trim().parse().ok().or_else(|| integer_of(&Value::Double(text.trim().parse().ok()?)))
        }
        Value::Long(number) => Some(*number),
        Value::Double(number) if number.fract() == 0.0 && number.abs() < 9.2e18 => Some(*number as i64),
        _ => None,
    }
}
