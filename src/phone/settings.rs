//! Settings for phone numbers, checked when a normalizer is created. Pure.

use super::plan::NumberingPlan;

/// Default international prefixes: `+`, exit codes, and exit codes after the digit for an outside line.
pub const DEFAULT_INTERNATIONAL_PREFIXES: [&str; 13] =
    ["+", "00", "000", "0000", "0011", "011", "9011", "90", "900", "9000", "810", "9810", "901511"];

/// Default fields with phone numbers (docs/protocol.md, sections 5 to 8).
pub const DEFAULT_NUMBER_FIELDS: [&str; 8] =
    ["destNum", "dnis", "called_number", "from_user", "to_user", "caller_id", "callee_id", "userid"];

/// Maximum number of entries of a list.
const ENTRIES_MAX: usize = 64;

/// Maximum number of digits of an international prefix.
pub(super) const PREFIX_DIGITS_MAX: usize = 8;

/// Longest name of a field, in bytes.
const FIELD_BYTES_MAX: usize = 255;

/// Rules for reading phone numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NumberSettings {
    /// Prefixes of international numbers: `+`, or digits.
    pub international_prefixes: Vec<String>,
    /// Full names of the fields that hold phone numbers.
    pub fields: Vec<String>,
    /// Country whose national numbers are read as well (ISO 3166-1, two letters).
    pub default_region: Option<String>,
}

impl Default for NumberSettings {
    fn default() -> NumberSettings {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        NumberSettings {
            international_prefixes: owned(&DEFAULT_INTERNATIONAL_PREFIXES),
            fields: owned(&DEFAULT_NUMBER_FIELDS),
            default_region: None,
        }
    }
}

/// Reason why the settings are invalid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NumberSettingsError {
    #[error("{0:?} is not an international prefix (expected + or 1 to 8 digits)")]
    InvalidPrefix(String),
    #[error("{0:?} is not a valid field name (expected 1 to 255 bytes without *, not starting with _)")]
    InvalidField(String),
    #[error("more than {ENTRIES_MAX} {0}")]
    TooMany(&'static str),
    #[error("{0:?} is not a region with a country code (expected two letters of ISO 3166-1, such as GB)")]
    UnknownRegion(String),
}

impl NumberSettings {
    /// Checks all settings.
    pub fn check(&self) -> Result<(), NumberSettingsError> {
        for (list, what) in
            [(&self.international_prefixes, "international prefixes"), (&self.fields, "fields")]
        {
            if list.len() > ENTRIES_MAX {
                return Err(NumberSettingsError::TooMany(what));
            }
        }
        if let Some(prefix) = self.international_prefixes.iter().find(|prefix| !is_prefix(prefix)) {
            return Err(NumberSettingsError::InvalidPrefix(prefix.clone()));
        }
        if let Some(field) = self.fields.iter().find(|field| !is_field(field)) {
            return Err(NumberSettingsError::InvalidField(field.clone()));
        }
        self.plan().map(|_| ())
    }

    /// Returns the numbering plan of the default region.
    pub(super) fn plan(&self) -> Result<Option<&'static NumberingPlan>, NumberSettingsError> {
        let Some(region) = &self.default_region else { return Ok(None) };
        match NumberingPlan::of_region(&region.to_ascii_uppercase()) {
            Some(plan) => Ok(Some(plan)),
            None => Err(NumberSettingsError::UnknownRegion(region.clone())),
        }
    }
}

fn is_prefix(text: &str) -> bool {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text == "+" || (digits && (1..=PREFIX_DIGITS_MAX).contains(&text.len()))
}

/// Names that start with `_` are reserved for the store.
fn is_field(name: &str) -> bool {
    (1..=FIELD_BYTES_MAX).contains(&name.len()) && !name.contains('*') && !name.starts_with('_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(prefixes: &[&str], fields: &[&str], region: Option<&str>) -> Result<(), NumberSettingsError> {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        let default_region = region.map(str::to_owned);
        NumberSettings { international_prefixes: owned(prefixes), fields: owned(fields), default_region }
            .check()
    }

    #[test]
    fn both_sides_of_each_limit() {
        assert_eq!(NumberSettings::default().check(), Ok(()));
        assert_eq!(check(&[], &[], None), Ok(()));
        assert_eq!(check(&["+", "0", "12345678"], &["a", "a.b", &"f".repeat(255)], Some("il")), Ok(()));
        for wrong in ["", "123456789", "++", "+00", "0 0", "a", "٣"] {
            assert_eq!(
                check(&["00", wrong], &[], None),
                Err(NumberSettingsError::InvalidPrefix(wrong.to_owned()))
            );
        }
        for wrong in ["", "_number", "a*", &"f".repeat(256)] {
            assert_eq!(
                check(&[], &["a", wrong], None),
                Err(NumberSettingsError::InvalidField(wrong.to_owned()))
            );
        }
        for wrong in ["", "I", "XX", "001", "ISR"] {
            assert_eq!(
                check(&[], &[], Some(wrong)),
                Err(NumberSettingsError::UnknownRegion(wrong.to_owned()))
            );
        }
        assert_eq!(check(&["0"; 64], &["a"; 64], None), Ok(()));
        assert_eq!(check(&["0"; 65], &[], None), Err(NumberSettingsError::TooMany("international prefixes")));
        assert_eq!(check(&[], &["a"; 65], None), Err(NumberSettingsError::TooMany("fields")));
    }
}
