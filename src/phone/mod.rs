//! Phone numbers: maps the many dialled forms of a number to its canonical number. Pure.
//!
//! [`PhoneNumberNormalizer::normalize`] takes the value of a field and returns the number in E.164 form, such as
//! `+972598294121`. `dialled` extracts the digits from the text. `normalizer` tries interpretations of the digits in
//! a fixed order. `plan` knows the country codes and the lengths of national numbers. docs/numbers.md has the rules and
//! their error rates.

mod dialled;
mod normalizer;
mod plan;
mod plans;
mod settings;

pub use dialled::{DIGITS_MAX, ParseNumberError, TEXT_BYTES_MAX};
pub use normalizer::{
    Candidate, CanonicalNumber, Explanation, Interpretation, InterpretationError, PhoneNumberNormalizer,
};
pub use plan::{NumberingPlan, numbering_plans};
pub use settings::{
    DEFAULT_INTERNATIONAL_PREFIXES, DEFAULT_NUMBER_FIELDS, NumberSettings, NumberSettingsError,
};
