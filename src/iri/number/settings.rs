//! What a site can say about numbers, checked when the families are made. Pure.

use super::plan::Plan;

/// Exit prefixes where a site names none: `+`, exit codes, and exit codes behind what gets an outside line.
pub const EXIT_PREFIXES: [&str; 13] =
    ["+", "00", "000", "0000", "0011", "011", "9011", "90", "900", "9000", "810", "9810", "901511"];

/// Fields that hold numbers, where a site names none (protocol, sections 5 to 8).
pub const FIELDS: [&str; 8] =
    ["destNum", "dnis", "called_number", "from_user", "to_user", "caller_id", "callee_id", "userid"];

/// Entries of each list.
const ENTRIES_MAX: usize = 64;

/// An exit prefix's digits.
pub(super) const PREFIX_DIGITS_MAX: usize = 8;

/// A field name's bytes.
const FIELD_BYTES_MAX: usize = 255;

/// How numbers are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// What may stand before an international number: `+`, or digits.
    pub exit_prefixes: Vec<String>,
    /// The fields that hold numbers, by their full names.
    pub fields: Vec<String>,
    /// The country whose national numbers are read too (ISO 3166-1, two letters); none: no national number is.
    pub default_region: Option<String>,
}

impl Default for Settings {
    fn default() -> Settings {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        Settings { exit_prefixes: owned(&EXIT_PREFIXES), fields: owned(&FIELDS), default_region: None }
    }
}

/// What is wrong with the settings.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// No exit prefix.
    #[error("{0:?} is no exit prefix: + or 1 to 8 digits")]
    Prefix(String),
    /// No field name.
    #[error("{0:?} is no field that can hold numbers: 1 to 255 bytes, no *, and not beginning with _")]
    Field(String),
    /// A list that is too long.
    #[error("more than {ENTRIES_MAX} {0}")]
    TooMany(&'static str),
    /// No region that has a country code.
    #[error("{0:?} is no region with a country code: two letters of ISO 3166-1, like IL or GB")]
    Region(String),
}

impl Settings {
    /// Checks the whole of it.
    pub fn check(&self) -> Result<(), Invalid> {
        for (list, what) in [(&self.exit_prefixes, "exit prefixes"), (&self.fields, "fields")] {
            if list.len() > ENTRIES_MAX {
                return Err(Invalid::TooMany(what));
            }
        }
        if let Some(prefix) = self.exit_prefixes.iter().find(|prefix| !is_prefix(prefix)) {
            return Err(Invalid::Prefix(prefix.clone()));
        }
        if let Some(field) = self.fields.iter().find(|field| !is_field(field)) {
            return Err(Invalid::Field(field.clone()));
        }
        self.plan().map(|_| ())
    }

    /// The numbering plan of the default region.
    pub(super) fn plan(&self) -> Result<Option<&'static Plan>, Invalid> {
        let Some(region) = &self.default_region else { return Ok(None) };
        match Plan::of_region(&region.to_ascii_uppercase()) {
            Some(plan) => Ok(Some(plan)),
            None => Err(Invalid::Region(region.clone())),
        }
    }
}

fn is_prefix(text: &str) -> bool {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text == "+" || (digits && (1..=PREFIX_DIGITS_MAX).contains(&text.len()))
}

/// Names that begin with `_` are the store's own.
fn is_field(name: &str) -> bool {
    (1..=FIELD_BYTES_MAX).contains(&name.len()) && !name.contains('*') && !name.starts_with('_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(prefixes: &[&str], fields: &[&str], region: Option<&str>) -> Result<(), Invalid> {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        let default_region = region.map(str::to_owned);
        Settings { exit_prefixes: owned(prefixes), fields: owned(fields), default_region }.check()
    }

    #[test]
    fn both_sides_of_each_limit() {
        assert_eq!(Settings::default().check(), Ok(()));
        assert_eq!(check(&[], &[], None), Ok(()));
        assert_eq!(check(&["+", "0", "12345678"], &["a", "a.b", &"f".repeat(255)], Some("il")), Ok(()));
        for wrong in ["", "123456789", "++", "+00", "0 0", "a", "٣"] {
            assert_eq!(check(&["00", wrong], &[], None), Err(Invalid::Prefix(wrong.to_owned())));
        }
        for wrong in ["", "_number", "a*", &"f".repeat(256)] {
            assert_eq!(check(&[], &["a", wrong], None), Err(Invalid::Field(wrong.to_owned())));
        }
        for wrong in ["", "I", "XX", "001", "ISR"] {
            assert_eq!(check(&[], &[], Some(wrong)), Err(Invalid::Region(wrong.to_owned())));
        }
        assert_eq!(check(&["0"; 64], &["a"; 64], None), Ok(()));
        assert_eq!(check(&["0"; 65], &[], None), Err(Invalid::TooMany("exit prefixes")));
        assert_eq!(check(&[], &["a"; 65], None), Err(Invalid::TooMany("fields")));
    }
}
