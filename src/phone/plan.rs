//! Numbering plans: the assigned country codes, and the possible lengths of national numbers. Pure.

use super::plans::PLANS;

/// Maximum number of digits of an international number, country code included (E.164, 6.2.1).
pub(super) const DIGITS_MAX: usize = 15;

/// Minimum number of digits of an international number. The shortest ones, of country codes 290 and 683, have 7.
pub(super) const DIGITS_MIN: usize = 7;

/// Country codes have at most three digits (E.164, 6.2.1).
const COUNTRY_CODES_MAX: usize = 1000;

/// Facts about the national numbers of a country code.
#[derive(Debug, PartialEq, Eq)]
pub struct NumberingPlan {
    pub code: u16,
    /// Digits dialled before a national number within the country: `0`, `8`, `06`. Empty: none.
    pub trunk_prefix: &'static str,
    /// Lengths that a national number can have: bit n stands for n digits.
    pub possible_lengths: u16,
    /// Lengths of fixed and mobile lines, a subset of the possible lengths.
    pub usual_lengths: u16,
    /// Regions that share the code, the main one first (ISO 3166-1; 001 stands for worldwide services).
    pub regions: &'static [&'static str],
}

impl NumberingPlan {
    /// Tells whether a national number can start with these digits: not with the trunk prefix, and never with `00`.
    pub(super) fn is_valid_start(&self, national: &[u8]) -> bool {
        match self.trunk_prefix {
            "" => !national.starts_with(b"00"),
            // `8` and `06` start real numbers too. `0` does not in a country that has a trunk prefix.
            trunk => !national.starts_with(b"0") && (trunk != "1" || !national.starts_with(b"1")),
        }
    }

    /// Removes a trunk zero that was left in, as in `+44 (0)7700 900123`.
    pub(super) fn strip_trunk_zero<'a>(&self, national: &'a [u8]) -> &'a [u8] {
        if self.trunk_prefix == "0" { national.strip_prefix(b"0").unwrap_or(national) } else { national }
    }

    /// Returns the plan of a region.
    pub(super) fn of_region(region: &str) -> Option<&'static NumberingPlan> {
        PLANS.iter().find(|plan| plan.regions.iter().any(|known| *known == region && *known != "001"))
    }
}

/// Returns all plans, sorted by country code.
pub fn numbering_plans() -> &'static [NumberingPlan] {
    PLANS
}

pub(super) fn country_code_digits(code: u16) -> usize {
    match code {
        0..10 => 1,
        10..100 => 2,
        _ => 3,
    }
}

/// Tells whether a set of lengths contains `digits`.
pub(super) fn contains_length(lengths: u16, digits: usize) -> bool {
    digits < 16 && lengths & (1 << digits) != 0
}

/// Splits digits into country code and national number. No code is a prefix of another, so there is at most one way.
pub(super) fn split_country_code(digits: &[u8]) -> Option<(&'static NumberingPlan, &[u8])> {
    let mut code = 0;
    for (nth, digit) in digits.iter().take(3).enumerate() {
        code = code * 10 + usize::from(digit - b'0');
        // No code starts with 0, so 044 is not read as 44.
        if code == 0 {
            return None;
        }
        if let Some(plan) = PLANS.get(usize::from(PLAN_BY_COUNTRY_CODE[code])) {
            return Some((plan, &digits[nth + 1..]));
        }
    }
    None
}

/// Index of each country code in [`PLANS`]. An index past the end means that the code is not assigned.
static PLAN_BY_COUNTRY_CODE: [u8; COUNTRY_CODES_MAX] = {
    assert!(PLANS.len() < 255);
    let mut by_code = [255; COUNTRY_CODES_MAX];
    let mut at = 0;
    while at < PLANS.len() {
        by_code[PLANS[at].code as usize] = at as u8;
        at += 1;
    }
    by_code
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn country_codes_of_one_to_three_digits_are_found() {
        let code = |digits: &str| {
            split_country_code(digits.as_bytes()).map(|(plan, national)| (plan.code, national.len()))
        };
        assert_eq!(code("12025550100"), Some((1, 10)));
        assert_eq!(code("447700900123"), Some((44, 10)));
        assert_eq!(code("972598294121"), Some((972, 9)));
        assert_eq!(code("9"), None);
        assert_eq!(code(""), None);
        assert_eq!(code("0447700900123"), None);
        assert_eq!(code("210"), None, "21 and 210 are not assigned");
    }

    #[test]
    fn no_country_code_is_a_prefix_of_another() {
        for plan in PLANS {
            let code = plan.code.to_string();
            let found = split_country_code(code.as_bytes()).unwrap();
            assert_eq!((found.0.code, found.1.len()), (plan.code, 0));
        }
    }

    #[test]
    fn trunk_prefixes_are_recognised() {
        let gb = NumberingPlan::of_region("GB").unwrap();
        assert_eq!(gb.strip_trunk_zero(b"07700900123"), b"7700900123");
        assert!(gb.is_valid_start(b"7700900123") && !gb.is_valid_start(b"07700900123"));
        let it = NumberingPlan::of_region("IT").unwrap();
        assert_eq!(it.strip_trunk_zero(b"0612345678"), b"0612345678");
        assert!(it.is_valid_start(b"0612345678") && !it.is_valid_start(b"0012345678"));
        let us = NumberingPlan::of_region("US").unwrap();
        assert!(us.is_valid_start(b"2025550100") && !us.is_valid_start(b"1202555010"));
        assert_eq!(NumberingPlan::of_region("001"), None);
        assert_eq!(NumberingPlan::of_region("XX"), None);
    }
}
