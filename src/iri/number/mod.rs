//! Number families: the many spellings of one telephone number, and the one that stands for all. Pure.
//!
//! [`Families::canonical`] takes a value of a field and gives the number as E.164 writes it, `+972598294121`, where
//! that can be told: `dialled` takes the digits out of the text, `families` tries what they may mean in a fixed order,
//! `plan` knows the country codes and the lengths of numbers behind them. [`expand()`] puts the family of each number in
//! a question beside the number. The rules, and how often they are wrong, stand in docs/numbers.md.

mod dialled;
mod expand;
mod families;
mod plan;
mod plans;
mod settings;

pub use dialled::{DIGITS_MAX, TEXT_BYTES_MAX, Unreadable};
pub use expand::{FAMILY_ALL, expand, family_field};
pub use families::{Canonical, Considered, Explanation, Families, Reading, Refusal};
pub use plan::{Plan, plans};
pub use settings::{EXIT_PREFIXES, FIELDS, Invalid, Settings};
