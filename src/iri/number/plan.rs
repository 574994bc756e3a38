//! Numbering plans: which country codes are assigned, and how long the numbers behind them can be. Pure.

use super::plans::PLANS;

/// Digits of an international number, country code included (E.164, 6.2.1).
pub const DIGITS_MAX: usize = 15;

/// Fewer digits are no international number: the shortest there are, behind 290 and 683, have 7.
pub const DIGITS_MIN: usize = 7;

/// Country codes have at most three digits (E.164, 6.2.1).
const CODES: usize = 1000;

/// What is known of the numbers behind a country code.
#[derive(Debug, PartialEq, Eq)]
pub struct Plan {
    /// The country code.
    pub code: u16,
    /// What is dialled before a number within the country: `0`, `8`, `06`; empty: nothing.
    pub trunk: &'static str,
    /// The lengths that a national number can have: bit n for n digits.
    pub possible: u16,
    /// The lengths of fixed and mobile lines among them.
    pub usual: u16,
    /// The regions that share the code, the main one first (ISO 3166-1; 001 for services of the whole world).
    pub regions: &'static [&'static str],
}

impl Plan {
    /// National numbers do not begin with the trunk prefix; `00` is nobody's area.
    pub(super) fn may_begin(&self, national: &[u8]) -> bool {
        match self.trunk {
            "" => !national.starts_with(b"00"),
            // `8` and `06` begin real numbers too; a zero does not, where there is a trunk prefix at all.
            trunk => !national.starts_with(b"0") && (trunk != "1" || !national.starts_with(b"1")),
        }
    }

    /// The national number without a trunk prefix that was left before it, as in `+44 (0)7700 900123`.
    pub(super) fn without_trunk<'a>(&self, national: &'a [u8]) -> &'a [u8] {
        if self.trunk == "0" { national.strip_prefix(b"0").unwrap_or(national) } else { national }
    }

    /// The plan of a region.
    pub(super) fn of_region(region: &str) -> Option<&'static Plan> {
        PLANS.iter().find(|plan| plan.regions.iter().any(|known| *known == region && *known != "001"))
    }
}

/// All plans, by country code.
pub fn plans() -> &'static [Plan] {
    PLANS
}

/// How many digits a country code has.
pub(super) fn digits_of(code: u16) -> usize {
    match code {
        0..10 => 1,
        10..100 => 2,
        _ => 3,
    }
}

/// True if a set of lengths has this one.
pub(super) fn has_length(lengths: u16, digits: usize) -> bool {
    digits < 16 && lengths & (1 << digits) != 0
}

/// Takes the country code off the digits. No code begins with another one, so there is at most one way.
pub(super) fn split(digits: &[u8]) -> Option<(&'static Plan, &[u8])> {
    let mut code = 0;
    for (nth, digit) in digits.iter().take(3).enumerate() {
        code = code * 10 + usize::from(digit - b'0');
        // A code does not begin with 0, so 044 is not taken for 44.
        if code == 0 {
            return None;
        }
        if let Some(plan) = PLANS.get(usize::from(BY_CODE[code])) {
            return Some((plan, &digits[nth + 1..]));
        }
    }
    None
}

/// Where in [`PLANS`] a code stands; past its end: nowhere.
static BY_CODE: [u8; CODES] = {
    assert!(PLANS.len() < 255);
    let mut by_code = [255; CODES];
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
    fn a_code_is_found_whatever_its_length() {
        let code =
            |digits: &str| split(digits.as_bytes()).map(|(plan, national)| (plan.code, national.len()));
        assert_eq!(code("12025550100"), Some((1, 10)));
        assert_eq!(code("447700900123"), Some((44, 10)));
        assert_eq!(code("972598294121"), Some((972, 9)));
        assert_eq!(code("9"), None);
        assert_eq!(code(""), None);
        assert_eq!(code("0447700900123"), None);
        assert_eq!(code("210"), None, "21 and 210 are not assigned");
    }

    #[test]
    fn no_code_begins_with_another() {
        for plan in PLANS {
            let code = plan.code.to_string();
            let found = split(code.as_bytes()).unwrap();
            assert_eq!((found.0.code, found.1.len()), (plan.code, 0));
        }
    }

    #[test]
    fn the_trunk_prefix_is_told_from_the_number() {
        let gb = Plan::of_region("GB").unwrap();
        assert_eq!(gb.without_trunk(b"07700900123"), b"7700900123");
        assert!(gb.may_begin(b"7700900123") && !gb.may_begin(b"07700900123"));
        let it = Plan::of_region("IT").unwrap();
        assert_eq!(it.without_trunk(b"0612345678"), b"0612345678");
        assert!(it.may_begin(b"0612345678") && !it.may_begin(b"0012345678"));
        let us = Plan::of_region("US").unwrap();
        assert!(us.may_begin(b"2025550100") && !us.may_begin(b"1202555010"));
        assert_eq!(Plan::of_region("001"), None);
        assert_eq!(Plan::of_region("XX"), None);
    }
}
