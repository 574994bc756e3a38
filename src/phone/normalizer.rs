//! Normalizer of phone numbers: finds the canonical number that a dialled text stands for. Pure.
//!
//! It tries several interpretations of the digits in a fixed order and takes the first that gives a possible number:
//!
//! 1. an international number after `+`,
//! 2. a national number of the default region that has the length of a fixed or mobile line,
//! 3. an international number without a prefix that has the length of a line of its country,
//! 4. an international number after an international prefix, the longest prefix first,
//! 5. interpretations 3 and 2 again, with any possible length.
//!
//! docs/numbers.md explains this order. [`PhoneNumberNormalizer::normalize`] stops at the first success and allocates
//! nothing. [`PhoneNumberNormalizer::explain`] tries all interpretations.

use std::ops::ControlFlow;

use super::dialled::{DialledDigits, ParseNumberError};
use super::plan::{self, NumberingPlan};
use super::settings::{NumberSettings, NumberSettingsError};

/// Minimum number of digits of a number without a prefix that is read as an international number.
const BARE_NUMBER_DIGITS_MIN: usize = 11;

/// Settings in a form that many threads can use at once.
#[derive(Clone, Debug)]
pub struct PhoneNumberNormalizer {
    settings: NumberSettings,
    accepts_plus: bool,
    /// Sorted by length, the longest first.
    prefixes: Vec<Box<[u8]>>,
    home_plan: Option<&'static NumberingPlan>,
}

/// Kind of number that the digits are read as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interpretation {
    /// An international number after `+`.
    Plus,
    /// An international number after the prefix of this index, see [`PhoneNumberNormalizer::international_prefix`].
    InternationalPrefix(u8),
    /// An international number without a prefix.
    Bare,
    /// A national number of the default region after its trunk prefix.
    NationalWithTrunk,
    /// A national number of the default region without a trunk prefix.
    National,
}

/// Reason why an interpretation does not give a possible number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InterpretationError {
    #[error("no assigned country code")]
    NoCountryCode,
    #[error("{0} digits: international numbers have 7 to 15")]
    DigitCount(usize),
    #[error("{0} digits: a number without a prefix needs 11 to 15")]
    BareDigitCount(usize),
    #[error("no number of country code {code} has {digits} digits")]
    NationalLength {
        code: u16,
        /// Number of digits of the national number.
        digits: usize,
    },
    #[error("no number of country code {0} starts with these digits")]
    LeadingDigits(u16),
}

/// Canonical number: the one E.164 form of all dialled forms of a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CanonicalNumber {
    /// A `+` and up to 15 digits.
    text: [u8; 1 + plan::DIGITS_MAX],
    len: u8,
    interpretation: Interpretation,
    plan: &'static NumberingPlan,
}

impl CanonicalNumber {
    /// Returns the E.164 form: `+972598294121`.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.text[..usize::from(self.len)]).expect("a plus sign and digits are ASCII")
    }

    /// Returns the digits after the country code.
    pub fn national(&self) -> &str {
        &self.as_str()[1 + plan::country_code_digits(self.plan.code)..]
    }

    pub fn interpretation(&self) -> Interpretation {
        self.interpretation
    }

    /// Returns the numbering plan of the country code.
    pub fn plan(&self) -> &'static NumberingPlan {
        self.plan
    }
}

/// An interpretation and its result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    pub interpretation: Interpretation,
    /// The number, or the reason why there is none. The first number among the candidates is the result.
    pub outcome: Result<CanonicalNumber, InterpretationError>,
}

/// Everything that is known about a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    pub canonical: Option<CanonicalNumber>,
    /// All interpretations in the order of trial.
    pub candidates: Vec<Candidate>,
}

impl PhoneNumberNormalizer {
    /// Checks the settings and creates a normalizer.
    pub fn new(settings: NumberSettings) -> Result<PhoneNumberNormalizer, NumberSettingsError> {
        settings.check()?;
        let mut prefixes: Vec<Box<[u8]>> = settings
            .international_prefixes
            .iter()
            .filter(|text| *text != "+")
            .map(|text| text.as_bytes().into())
            .collect();
        prefixes.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        prefixes.dedup();
        let accepts_plus = settings.international_prefixes.iter().any(|text| text == "+");
        Ok(PhoneNumberNormalizer { accepts_plus, prefixes, home_plan: settings.plan()?, settings })
    }

    pub fn settings(&self) -> &NumberSettings {
        &self.settings
    }

    /// Tells whether a field holds phone numbers.
    pub fn is_number_field(&self, name: &str) -> bool {
        self.settings.fields.iter().any(|field| field == name)
    }

    /// Returns the international prefix of an [`Interpretation::InternationalPrefix`].
    pub fn international_prefix(&self, nth: u8) -> &str {
        let prefix = self.prefixes.get(usize::from(nth)).map_or(&[][..], |prefix| prefix);
        std::str::from_utf8(prefix).expect("prefixes were checked to be digits")
    }

    /// Returns the canonical number of a text, or `None` if the text is not a number or is ambiguous.
    pub fn normalize(&self, text: &str) -> Option<CanonicalNumber> {
        let dialled = DialledDigits::parse(text).ok()?;
        let result = self.try_interpretations(&dialled, |candidate| match candidate.outcome {
            Ok(canonical) => ControlFlow::Break(canonical),
            Err(_) => ControlFlow::Continue(()),
        });
        result.break_value()
    }

    /// Returns all interpretations of a text with their results.
    pub fn explain(&self, text: &str) -> Result<Explanation, ParseNumberError> {
        let dialled = DialledDigits::parse(text)?;
        let mut candidates: Vec<Candidate> = Vec::new();
        let _: ControlFlow<()> = self.try_interpretations(&dialled, |next| {
            // An interpretation that is tried twice (usual lengths, then all lengths) keeps the better result.
            let earlier = candidates.iter().position(|earlier| earlier.interpretation == next.interpretation);
            match earlier.map(|at| (at, candidates[at].outcome)) {
                Some((_, Ok(_))) => {}
                Some((at, Err(_))) => {
                    candidates.remove(at);
                    candidates.push(next);
                }
                None => candidates.push(next),
            }
            ControlFlow::Continue(())
        });
        let canonical = candidates.iter().find_map(|candidate| candidate.outcome.ok());
        Ok(Explanation { canonical, candidates })
    }

    /// Returns the dialled forms that are read as this number: after `+`, bare, after each prefix, and national.
    pub fn dialled_forms(&self, canonical: &CanonicalNumber) -> Vec<String> {
        let digits = &canonical.as_str()[1..];
        let plus = self.accepts_plus.then(|| canonical.as_str().to_owned());
        let with_prefix = (0..self.prefixes.len() as u8)
            .rev()
            .map(|nth| format!("{}{digits}", self.international_prefix(nth)));
        let home_plan = self.home_plan.filter(|home_plan| home_plan.code == canonical.plan.code);
        let national =
            home_plan.map(|home_plan| format!("{}{}", home_plan.trunk_prefix, canonical.national()));
        let forms = plus.into_iter().chain([digits.to_owned()]).chain(with_prefix).chain(national);
        let has_this_number =
            |text: &String| self.normalize(text).is_some_and(|number| number.text == canonical.text);
        forms.filter(has_this_number).collect()
    }

    /// Calls `visit` for each interpretation, in the order given at the head of this file.
    #[inline]
    fn try_interpretations<T>(
        &self,
        dialled: &DialledDigits,
        mut visit: impl FnMut(Candidate) -> ControlFlow<T>,
    ) -> ControlFlow<T> {
        let digits = dialled.digits();
        let mut try_one = |interpretation, outcome| visit(Candidate { interpretation, outcome });
        if dialled.has_plus && !self.accepts_plus {
            return ControlFlow::Continue(());
        }
        if dialled.has_plus {
            try_one(Interpretation::Plus, read_international(Interpretation::Plus, digits))?;
            // In `+00972...` the `+` is superfluous, because no country code starts with 0.
            let starts_with_zero = digits.starts_with(b"0");
            return if starts_with_zero {
                self.try_prefixes(digits, &mut try_one)
            } else {
                ControlFlow::Continue(())
            };
        }
        if let Some(home_plan) = self.home_plan {
            // A text that could also be a bare international number is national only with its trunk prefix.
            let allows_bare = digits.len() < BARE_NUMBER_DIGITS_MIN || digits.starts_with(b"0");
            try_national(home_plan, digits, home_plan.usual_lengths, allows_bare, &mut try_one)?;
        }
        let bare = (!digits.starts_with(b"0")).then_some(digits);
        if let Some(digits) = bare {
            try_one(Interpretation::Bare, read_bare(digits, |plan| plan.usual_lengths))?;
        }
        self.try_prefixes(digits, &mut try_one)?;
        if let Some(digits) = bare {
            try_one(Interpretation::Bare, read_bare(digits, |plan| plan.possible_lengths))?;
        }
        match self.home_plan {
            Some(home_plan) => {
                try_national(home_plan, digits, home_plan.possible_lengths, true, &mut try_one)
            }
            None => ControlFlow::Continue(()),
        }
    }

    /// Tries the international prefixes, the longest first.
    fn try_prefixes<T>(
        &self,
        digits: &[u8],
        try_one: &mut impl FnMut(Interpretation, Result<CanonicalNumber, InterpretationError>) -> ControlFlow<T>,
    ) -> ControlFlow<T> {
        for (nth, prefix) in self.prefixes.iter().enumerate() {
            if let Some(rest) = digits.strip_prefix(&**prefix) {
                let interpretation = Interpretation::InternationalPrefix(nth as u8);
                try_one(interpretation, read_international(interpretation, rest))?;
            }
        }
        ControlFlow::Continue(())
    }
}

/// Tries national numbers of the default region: after the trunk prefix, then without it if `allows_bare`.
fn try_national<T>(
    home_plan: &'static NumberingPlan,
    digits: &[u8],
    lengths: u16,
    allows_bare: bool,
    try_one: &mut impl FnMut(Interpretation, Result<CanonicalNumber, InterpretationError>) -> ControlFlow<T>,
) -> ControlFlow<T> {
    let after_trunk =
        digits.strip_prefix(home_plan.trunk_prefix.as_bytes()).filter(|_| !home_plan.trunk_prefix.is_empty());
    if let Some(national) = after_trunk {
        try_one(
            Interpretation::NationalWithTrunk,
            check_national(Interpretation::NationalWithTrunk, home_plan, national, lengths),
        )?;
    }
    if allows_bare {
        try_one(
            Interpretation::National,
            check_national(Interpretation::National, home_plan, digits, lengths),
        )?;
    }
    ControlFlow::Continue(())
}

/// Reads the digits after `+` or an international prefix: any possible length, a trunk zero that was left in is
/// dropped.
fn read_international(
    interpretation: Interpretation,
    digits: &[u8],
) -> Result<CanonicalNumber, InterpretationError> {
    let (plan, national) = plan::split_country_code(digits).ok_or(InterpretationError::NoCountryCode)?;
    check_national(interpretation, plan, plan.strip_trunk_zero(national), plan.possible_lengths)
}

/// Reads digits without a prefix. A trunk prefix inside such a number is an error.
fn read_bare(
    digits: &[u8],
    lengths: impl Fn(&NumberingPlan) -> u16,
) -> Result<CanonicalNumber, InterpretationError> {
    if !(BARE_NUMBER_DIGITS_MIN..=plan::DIGITS_MAX).contains(&digits.len()) {
        return Err(InterpretationError::BareDigitCount(digits.len()));
    }
    let (plan, national) = plan::split_country_code(digits).ok_or(InterpretationError::NoCountryCode)?;
    check_national(Interpretation::Bare, plan, national, lengths(plan))
}

/// Checks a national number against its numbering plan.
fn check_national(
    interpretation: Interpretation,
    plan: &'static NumberingPlan,
    national: &[u8],
    lengths: u16,
) -> Result<CanonicalNumber, InterpretationError> {
    let code_digits = plan::country_code_digits(plan.code);
    let digits = code_digits + national.len();
    if !(plan::DIGITS_MIN..=plan::DIGITS_MAX).contains(&digits) {
        return Err(InterpretationError::DigitCount(digits));
    }
    if !plan::contains_length(lengths, national.len()) {
        return Err(InterpretationError::NationalLength { code: plan.code, digits: national.len() });
    }
    if !plan.is_valid_start(national) {
        return Err(InterpretationError::LeadingDigits(plan.code));
    }
    let mut text = [0; 1 + plan::DIGITS_MAX];
    text[0] = b'+';
    let mut code = plan.code;
    for digit in text[1..=code_digits].iter_mut().rev() {
        *digit = b'0' + (code % 10) as u8;
        code /= 10;
    }
    text[1 + code_digits..=digits].copy_from_slice(national);
    Ok(CanonicalNumber { text, len: 1 + digits as u8, interpretation, plan })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normalizer(region: Option<&str>) -> PhoneNumberNormalizer {
        PhoneNumberNormalizer::new(NumberSettings {
            default_region: region.map(str::to_owned),
            ..NumberSettings::default()
        })
        .unwrap()
    }

    fn check(normalizer: &PhoneNumberNormalizer, rows: &[(&str, &str)]) {
        for (text, number) in rows {
            let canonical = normalizer.normalize(text);
            let read = canonical.as_ref().map_or("-", CanonicalNumber::as_str);
            assert_eq!(read, *number, "{text}: {:#?}", normalizer.explain(text));
            assert_eq!(
                normalizer.explain(text).ok().and_then(|explanation| explanation.canonical),
                canonical,
                "{text}"
            );
        }
    }

    #[test]
    fn all_dialled_forms_have_the_same_canonical_number() {
        let forms = [
            "+972598294121",
            "00972598294121",
            "000972598294121",
            "0000972598294121",
            "0011972598294121",
            "011972598294121",
            "9011972598294121",
            "90972598294121",
            "900972598294121",
            "9000972598294121",
            "810972598294121",
            "9810972598294121",
            "901511972598294121",
            "972598294121",
            "+00972598294121",
            "sip:9011972598294121@198.51.100.7",
            "+972 (0)59-829-4121",
            "00972 0598294121",
        ];
        for region in
            [None, Some("IL"), Some("GB"), Some("US"), Some("DE"), Some("BR"), Some("RU"), Some("IT")]
        {
            let normalizer = normalizer(region);
            check(&normalizer, &forms.map(|text| (text, "+972598294121")));
            let swede = ["0046500729221", "90046500729221", "81046500729221", "+46500729221"];
            check(&normalizer, &swede.map(|text| (text, "+46500729221")));
        }
        let canonical = normalizer(None).normalize("9011972598294121").unwrap();
        assert_eq!((canonical.national(), canonical.plan().code), ("598294121", 972));
    }

    #[test]
    fn a_number_that_starts_like_a_prefix() {
        check(
            &normalizer(None),
            &[
                // Turkish, Japanese and Iranian numbers without a prefix.
                ("905321234567", "+905321234567"),
                ("819012345678", "+819012345678"),
                ("989121234567", "+989121234567"),
                // The digits after 9, 00 and 9, 011 do not make a Turkish number.
                ("90012025550100", "+12025550100"),
                ("901112025550100", "+12025550100"),
                ("901146500729221", "+46500729221"),
                ("90447700900123", "+447700900123"),
                ("+0012025550100", "+12025550100"),
                // The longest prefix that leaves a possible number.
                ("00012025550100", "+12025550100"),
                ("001112025550100", "+12025550100"),
                ("0012025550100", "+12025550100"),
            ],
        );
    }

    #[test]
    fn texts_without_a_canonical_number() {
        let texts = [
            "100",
            "7700900123",
            "2025550100",
            "07700900123",
            "02012345678",
            "+4477009001",
            "+4477009001234",
            "+210123456789",
            "00",
            "+",
            "123456",
            "12025550",
            "1234567890123456",
            "00999598294121",
            "120255501001",
            "11234567890",
            "asterisk",
            "198.51.100.7",
            "972598294121x7",
            "++972598294121",
        ];
        check(&normalizer(None), &texts.map(|text| (text, "-")));
    }

    #[test]
    fn national_numbers_need_a_default_region() {
        check(
            &normalizer(Some("gb")),
            &[
                ("07700900123", "+447700900123"),
                ("7700900123", "+447700900123"),
                ("0114 960 0123", "+441149600123"),
                ("0044 7700 900123", "+447700900123"),
                ("447700900123", "+447700900123"),
                ("00447700900123", "+447700900123"),
                ("01149600123", "+441149600123"),
                ("100", "-"),
            ],
        );
        check(&normalizer(Some("IL")), &[("059-829-4121", "+972598294121"), ("0598294121", "+972598294121")]);
        check(
            &normalizer(Some("US")),
            &[
                ("2025550100", "+12025550100"),
                ("12025550100", "+12025550100"),
                ("9043123456", "+19043123456"),
                ("5550100", "-"),
            ],
        );
        check(&normalizer(Some("RU")), &[("89121234567", "+79121234567"), ("9121234567", "+79121234567")]);
        check(&normalizer(Some("IT")), &[("0111234567", "+390111234567"), ("3331234567", "+393331234567")]);
        check(&normalizer(Some("BR")), &[("011987654321", "+5511987654321")]);
        assert_eq!(normalizer(None).normalize("0111234567"), None);
    }

    #[test]
    fn an_explanation_lists_all_candidates() {
        let normalizer = normalizer(None);
        let explanation = normalizer.explain("905321234567").unwrap();
        let outcomes: Vec<_> = explanation
            .candidates
            .iter()
            .map(|candidate| {
                (candidate.interpretation, candidate.outcome.map(|number| number.as_str().to_owned()))
            })
            .collect();
        let prefix_index = (0..13).find(|nth| normalizer.international_prefix(*nth) == "90").unwrap();
        assert_eq!(
            outcomes,
            [
                (Interpretation::Bare, Ok("+905321234567".to_owned())),
                (Interpretation::InternationalPrefix(prefix_index), Ok("+5321234567".to_owned())),
            ]
        );
        assert_eq!(normalizer.explain("1x"), Err(ParseNumberError::InvalidCharacter('x')));
        let rejected = normalizer.explain("+210123456789").unwrap().candidates;
        assert_eq!(
            rejected,
            [Candidate {
                interpretation: Interpretation::Plus,
                outcome: Err(InterpretationError::NoCountryCode)
            }]
        );
    }

    #[test]
    fn dialled_forms_normalize_to_their_number() {
        let normalizer = normalizer(Some("IL"));
        let canonical = normalizer.normalize("972598294121").unwrap();
        let forms = normalizer.dialled_forms(&canonical);
        for expected in
            ["+972598294121", "972598294121", "9011972598294121", "901511972598294121", "0598294121"]
        {
            assert!(forms.iter().any(|form| form == expected), "{expected}: {forms:?}");
        }
        // `90` and ten digits are read as a Turkish number.
        let danish = normalizer.normalize("+4532123456").unwrap();
        assert!(!normalizer.dialled_forms(&danish).contains(&"904532123456".to_owned()));
    }

    #[test]
    fn only_the_configured_prefixes_count() {
        let international_prefixes = vec!["119".to_owned()];
        let normalizer = PhoneNumberNormalizer::new(NumberSettings {
            international_prefixes,
            ..NumberSettings::default()
        })
        .unwrap();
        check(
            &normalizer,
            &[
                ("119972598294121", "+972598294121"),
                ("972598294121", "+972598294121"),
                ("00972598294121", "-"),
                ("+972598294121", "-"),
                ("+119972598294121", "-"),
            ],
        );
    }
}
