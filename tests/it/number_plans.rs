//! Generates src/phone/plans.rs from the phone number library. `LEA_UPDATE=1 cargo test` rewrites the file.

use std::fmt::Write;
use std::fs;

use rlibphonenumber::{
    NumberLengthType, PHONE_NUMBER_UTIL, PhoneNumber, PhoneNumberType, Region,
    get_national_significant_number_owned,
};

const PLANS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/phone/plans.rs");

const HEAD: &str = "\
//! Country codes, lengths and regions. Made by tests/it/number_plans.rs from the data of rlibphonenumber (Google's
//! libphonenumber): `LEA_UPDATE=1 cargo test --test it number_plans`. Not to be changed by hand.

use super::plan::NumberingPlan;

/// All assigned country codes, in order. The lengths are bits: 1 << 9 is a national number of nine digits.
#[rustfmt::skip]
pub(super) const PLANS: &[NumberingPlan] = &[
";

/// Longer national numbers are those of extensions of a line.
const USUAL_DIGITS_MAX: u32 = 11;

/// Returns the lengths that are possible according to the library, except those of numbers within an area.
fn lengths(code: i32, kinds: &[PhoneNumberType], digits_max: u32) -> u16 {
    let is_possible = |digits: &u32| {
        let national_number = 2 * 10_u64.pow(digits - 1);
        let number = PhoneNumber { country_code: code, national_number, ..PhoneNumber::default() };
        kinds.iter().any(|kind| {
            let length = PHONE_NUMBER_UTIL.is_possible_number_for_type_with_reason(&number, *kind);
            matches!(length, Ok(NumberLengthType::IsPossible))
        })
    };
    (1..=digits_max).filter(is_possible).fold(0, |lengths, digits| lengths | 1 << digits)
}

/// Returns the trunk prefix that the library removes from an example number of the country. `1` is a trunk prefix in
/// North America only. Elsewhere the library removes prefixes of former plans.
fn trunk(code: i32, region: Region) -> &'static str {
    let Ok(example) = PHONE_NUMBER_UTIL.get_example_number(region) else { return "" };
    let national = get_national_significant_number_owned(&example);
    let is_taken_off = |trunk: &&str| {
        let parsed = PHONE_NUMBER_UTIL.parse(format!("{trunk}{national}"), Some(region));
        parsed.is_ok_and(|parsed| get_national_significant_number_owned(&parsed) == national)
    };
    let candidates: &[&str] = if code == 1 { &["1"] } else { &["0", "8", "06"] };
    candidates.iter().copied().find(is_taken_off).unwrap_or("")
}

fn fresh() -> String {
    let mut codes: Vec<i32> = PHONE_NUMBER_UTIL.get_supported_calling_codes().collect();
    codes.sort_unstable();
    let mut text = HEAD.to_owned();
    for code in codes {
        let regions: Vec<Region> =
            PHONE_NUMBER_UTIL.get_regions_for_country_calling_code(code).unwrap().collect();
        let trunk = trunk(code, regions[0]);
        let possible = lengths(code, &[PhoneNumberType::Unknown], 14);
        let usual = lengths(code, &[PhoneNumberType::FixedLine, PhoneNumberType::Mobile], USUAL_DIGITS_MAX);
        // ISO 3166 has no code for the whole world. 001 is the code of the United Nations (M.49).
        let name = |region: &Region| match region {
            Region::World => "001".to_owned(),
            region => format!("{region:?}"),
        };
        let names: Vec<String> = regions.iter().map(name).collect();
        writeln!(
            text,
            "    NumberingPlan {{ code: {code}, trunk_prefix: {trunk:?}, possible_lengths: {possible:#b}, \
             usual_lengths: {usual:#b}, regions: &{names:?} }},"
        )
        .unwrap();
    }
    text + "];\n"
}

#[test]
fn the_plans_are_up_to_date() {
    let fresh = fresh();
    if std::env::var_os("LEA_UPDATE").is_some() {
        fs::write(PLANS, &fresh).unwrap();
    }
    assert!(fs::read_to_string(PLANS).unwrap() == fresh, "the plans are stale: LEA_UPDATE=1 cargo test");
}
