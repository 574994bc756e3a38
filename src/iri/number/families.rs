//! Which number a text means: its readings in a fixed order, the first that holds. Pure.
//!
//! The order: `+`; a national number of the default region, as long as lines there are; digits that are an
//! international number as they stand, as long as lines of that country are; an exit prefix, the longest that leaves an
//! assigned country code and a possible length; then the second and third again, with any possible length. Why it is
//! this one, stands in docs/numbers.md. [`Families::canonical`] stops at the first that holds and allocates nothing;
//! [`Families::explain`] goes on to the end.

use std::ops::ControlFlow;

use super::dialled::{Dialled, Unreadable};
use super::plan::{self, Plan};
use super::settings::{Invalid, Settings};

/// Digits of a bare number that is taken as international.
const BARE_DIGITS_MIN: usize = 11;

/// How numbers are read, ready for use by many threads.
#[derive(Clone, Debug)]
pub struct Families {
    settings: Settings,
    plus: bool,
    /// The longest first.
    prefixes: Vec<Box<[u8]>>,
    home: Option<&'static Plan>,
}

/// What the digits are taken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// An international number behind `+`.
    Plus,
    /// An international number behind an exit prefix: [`Families::prefix`] of this.
    Exit(u8),
    /// An international number without anything before it.
    AsItStands,
    /// A number of the default region, behind its trunk prefix.
    NationalTrunk,
    /// A number of the default region without a trunk prefix.
    National,
}

/// Why a reading does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It does not begin with a country code.
    #[error("no assigned country code")]
    Code,
    /// Too short, or too long, for an international number.
    #[error("{0} digits; international numbers have 7 to 15")]
    Digits(usize),
    /// Too short, or too long, to be taken for one where nothing stands before it.
    #[error("{0} digits; without a prefix 11 to 15 are taken for an international number")]
    Bare(usize),
    /// No number of the country has that length.
    #[error("country code {code} has no numbers of {digits} digits")]
    Length {
        /// The country code.
        code: u16,
        /// Of the national number.
        digits: usize,
    },
    /// The national number begins with a trunk prefix.
    #[error("behind country code {0} no number begins so")]
    Begin(u16),
}

/// The number that stands for a family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Canonical {
    /// `+` and up to 15 digits.
    text: [u8; 1 + plan::DIGITS_MAX],
    len: u8,
    reading: Reading,
    plan: &'static Plan,
}

impl Canonical {
    /// As E.164 writes it: `+972598294121`.
    pub fn number(&self) -> &str {
        std::str::from_utf8(&self.text[..usize::from(self.len)]).expect("a plus sign and digits are ASCII")
    }

    /// The number behind the country code.
    pub fn national(&self) -> &str {
        &self.number()[1 + plan::digits_of(self.plan.code)..]
    }

    /// What the text was taken for.
    pub fn reading(&self) -> Reading {
        self.reading
    }

    /// The country code, and what is known of numbers behind it.
    pub fn plan(&self) -> &'static Plan {
        self.plan
    }
}

/// A reading, and what came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Considered {
    /// What the digits were taken for.
    pub reading: Reading,
    /// The number, or why it is none. Of several numbers the first counts.
    pub outcome: Result<Canonical, Refusal>,
}

/// All that can be said about a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// Its family.
    pub canonical: Option<Canonical>,
    /// All readings, in their order; the first that holds is the family.
    pub considered: Vec<Considered>,
}

impl Families {
    /// Checks the settings.
    pub fn new(settings: Settings) -> Result<Families, Invalid> {
        settings.check()?;
        let mut prefixes: Vec<Box<[u8]>> = settings
            .exit_prefixes
            .iter()
            .filter(|text| *text != "+")
            .map(|text| text.as_bytes().into())
            .collect();
        prefixes.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        prefixes.dedup();
        let plus = settings.exit_prefixes.iter().any(|text| text == "+");
        Ok(Families { plus, prefixes, home: settings.plan()?, settings })
    }

    /// What they were made of.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// True for a field that holds numbers.
    pub fn is_number_field(&self, name: &str) -> bool {
        self.settings.fields.iter().any(|field| field == name)
    }

    /// The exit prefix of a reading.
    pub fn prefix(&self, nth: u8) -> &str {
        let prefix = self.prefixes.get(usize::from(nth)).map_or(&[][..], |prefix| prefix);
        std::str::from_utf8(prefix).expect("prefixes were checked to be digits")
    }

    /// The number that a text means; none where it is no number, or nothing tells which.
    pub fn canonical(&self, text: &str) -> Option<Canonical> {
        let dialled = Dialled::read(text).ok()?;
        let found = self.readings(&dialled, |considered| match considered.outcome {
            Ok(canonical) => ControlFlow::Break(canonical),
            Err(_) => ControlFlow::Continue(()),
        });
        found.break_value()
    }

    /// Why a text means what it means.
    pub fn explain(&self, text: &str) -> Result<Explanation, Unreadable> {
        let dialled = Dialled::read(text)?;
        let mut considered: Vec<Considered> = Vec::new();
        let _: ControlFlow<()> = self.readings(&dialled, |next| {
            // Of a reading that is tried twice, with the usual lengths and with all, the better answer stays.
            let before = considered.iter().position(|before| before.reading == next.reading);
            match before.map(|at| (at, considered[at].outcome)) {
                Some((_, Ok(_))) => {}
                Some((at, Err(_))) => {
                    considered.remove(at);
                    considered.push(next);
                }
                None => considered.push(next),
            }
            ControlFlow::Continue(())
        });
        let canonical = considered.iter().find_map(|considered| considered.outcome.ok());
        Ok(Explanation { canonical, considered })
    }

    /// The ways to write a number that are read as this one: bare, and behind each prefix.
    pub fn spellings(&self, canonical: &Canonical) -> Vec<String> {
        let digits = &canonical.number()[1..];
        let plus = self.plus.then(|| canonical.number().to_owned());
        let behind = (0..self.prefixes.len() as u8).rev().map(|nth| format!("{}{digits}", self.prefix(nth)));
        let home = self.home.filter(|home| home.code == canonical.plan.code);
        let national = home.map(|home| format!("{}{}", home.trunk, canonical.national()));
        let written = plus.into_iter().chain([digits.to_owned()]).chain(behind).chain(national);
        let is_read_so = |text: &String| self.canonical(text).is_some_and(|read| read.text == canonical.text);
        written.filter(is_read_so).collect()
    }

    /// Goes through the readings, in the order of the head of this file.
    #[inline]
    fn readings<T>(
        &self,
        dialled: &Dialled,
        mut see: impl FnMut(Considered) -> ControlFlow<T>,
    ) -> ControlFlow<T> {
        let digits = dialled.digits();
        let mut try_one = |reading, outcome| see(Considered { reading, outcome });
        if dialled.plus && !self.plus {
            return ControlFlow::Continue(());
        }
        if dialled.plus {
            try_one(Reading::Plus, international(Reading::Plus, digits))?;
            // `+00972...`: no country code begins with 0, so the plus sign is one too many.
            let exit = digits.starts_with(b"0");
            return if exit { self.exits(digits, &mut try_one) } else { ControlFlow::Continue(()) };
        }
        if let Some(home) = self.home {
            // What could be an international number as it stands needs its trunk prefix to be a national one.
            let alone = digits.len() < BARE_DIGITS_MIN || digits.starts_with(b"0");
            nationals(home, digits, home.usual, alone, &mut try_one)?;
        }
        let bare = (!digits.starts_with(b"0")).then_some(digits);
        if let Some(digits) = bare {
            try_one(Reading::AsItStands, as_it_stands(digits, |plan| plan.usual))?;
        }
        self.exits(digits, &mut try_one)?;
        if let Some(digits) = bare {
            try_one(Reading::AsItStands, as_it_stands(digits, |plan| plan.possible))?;
        }
        match self.home {
            Some(home) => nationals(home, digits, home.possible, true, &mut try_one),
            None => ControlFlow::Continue(()),
        }
    }

    /// The longest prefix first.
    fn exits<T>(
        &self,
        digits: &[u8],
        try_one: &mut impl FnMut(Reading, Result<Canonical, Refusal>) -> ControlFlow<T>,
    ) -> ControlFlow<T> {
        for (nth, prefix) in self.prefixes.iter().enumerate() {
            if let Some(behind) = digits.strip_prefix(&**prefix) {
                let reading = Reading::Exit(nth as u8);
                try_one(reading, international(reading, behind))?;
            }
        }
        ControlFlow::Continue(())
    }
}

/// National numbers of the default region: with the trunk prefix, then without, where they may stand alone.
fn nationals<T>(
    home: &'static Plan,
    digits: &[u8],
    lengths: u16,
    alone: bool,
    try_one: &mut impl FnMut(Reading, Result<Canonical, Refusal>) -> ControlFlow<T>,
) -> ControlFlow<T> {
    let behind_trunk = digits.strip_prefix(home.trunk.as_bytes()).filter(|_| !home.trunk.is_empty());
    if let Some(national) = behind_trunk {
        try_one(Reading::NationalTrunk, number(Reading::NationalTrunk, home, national, lengths))?;
    }
    if alone {
        try_one(Reading::National, number(Reading::National, home, digits, lengths))?;
    }
    ControlFlow::Continue(())
}

/// Behind `+` or an exit prefix any possible length will do, and a trunk prefix that was left in is dropped.
fn international(reading: Reading, digits: &[u8]) -> Result<Canonical, Refusal> {
    let (plan, national) = plan::split(digits).ok_or(Refusal::Code)?;
    number(reading, plan, plan.without_trunk(national), plan.possible)
}

/// A bare number is not repaired: with a trunk prefix in it, it is none.
fn as_it_stands(digits: &[u8], lengths: impl Fn(&Plan) -> u16) -> Result<Canonical, Refusal> {
    if !(BARE_DIGITS_MIN..=plan::DIGITS_MAX).contains(&digits.len()) {
        return Err(Refusal::Bare(digits.len()));
    }
    let (plan, national) = plan::split(digits).ok_or(Refusal::Code)?;
    number(Reading::AsItStands, plan, national, lengths(plan))
}

/// Checks a national number against its plan.
fn number(
    reading: Reading,
    plan: &'static Plan,
    national: &[u8],
    lengths: u16,
) -> Result<Canonical, Refusal> {
    let code_digits = plan::digits_of(plan.code);
    let digits = code_digits + national.len();
    if !(plan::DIGITS_MIN..=plan::DIGITS_MAX).contains(&digits) {
        return Err(Refusal::Digits(digits));
    }
    if !plan::has_length(lengths, national.len()) {
        return Err(Refusal::Length { code: plan.code, digits: national.len() });
    }
    if !plan.may_begin(national) {
        return Err(Refusal::Begin(plan.code));
    }
    let mut text = [0; 1 + plan::DIGITS_MAX];
    text[0] = b'+';
    let mut code = plan.code;
    for place in text[1..=code_digits].iter_mut().rev() {
        *place = b'0' + (code % 10) as u8;
        code /= 10;
    }
    text[1 + code_digits..=digits].copy_from_slice(national);
    Ok(Canonical { text, len: 1 + digits as u8, reading, plan })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn families(region: Option<&str>) -> Families {
        Families::new(Settings { default_region: region.map(str::to_owned), ..Settings::default() }).unwrap()
    }

    fn check(families: &Families, rows: &[(&str, &str)]) {
        for (text, number) in rows {
            let canonical = families.canonical(text);
            let read = canonical.as_ref().map_or("-", Canonical::number);
            assert_eq!(read, *number, "{text}: {:#?}", families.explain(text));
            assert_eq!(
                families.explain(text).ok().and_then(|explained| explained.canonical),
                canonical,
                "{text}"
            );
        }
    }

    #[test]
    fn all_spellings_of_a_number_are_one_family() {
        let spellings = [
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
            let families = families(region);
            check(&families, &spellings.map(|text| (text, "+972598294121")));
            let swede = ["0046500729221", "90046500729221", "81046500729221", "+46500729221"];
            check(&families, &swede.map(|text| (text, "+46500729221")));
        }
        let canonical = families(None).canonical("9011972598294121").unwrap();
        assert_eq!((canonical.national(), canonical.plan().code), ("598294121", 972));
    }

    #[test]
    fn what_begins_like_a_prefix() {
        check(
            &families(None),
            &[
                // Turkish and Japanese numbers without anything before them.
                ("905321234567", "+905321234567"),
                ("819012345678", "+819012345678"),
                ("989121234567", "+989121234567"),
                // 9, 00 and 9, 011 before what is no Turkish number.
                ("90012025550100", "+12025550100"),
                ("901112025550100", "+12025550100"),
                ("901146500729221", "+46500729221"),
                ("90447700900123", "+447700900123"),
                ("+0012025550100", "+12025550100"),
                // The longest prefix that leaves a number.
                ("00012025550100", "+12025550100"),
                ("001112025550100", "+12025550100"),
                ("0012025550100", "+12025550100"),
            ],
        );
    }

    #[test]
    fn what_has_no_family() {
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
        check(&families(None), &texts.map(|text| (text, "-")));
    }

    #[test]
    fn national_numbers_need_a_default_region() {
        check(
            &families(Some("gb")),
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
        check(&families(Some("IL")), &[("059-829-4121", "+972598294121"), ("0598294121", "+972598294121")]);
        check(
            &families(Some("US")),
            &[
                ("2025550100", "+12025550100"),
                ("12025550100", "+12025550100"),
                ("9043123456", "+19043123456"),
                ("5550100", "-"),
            ],
        );
        check(&families(Some("RU")), &[("89121234567", "+79121234567"), ("9121234567", "+79121234567")]);
        check(&families(Some("IT")), &[("0111234567", "+390111234567"), ("3331234567", "+393331234567")]);
        check(&families(Some("BR")), &[("011987654321", "+5511987654321")]);
        assert_eq!(families(None).canonical("0111234567"), None);
    }

    #[test]
    fn what_was_considered_is_told() {
        let families = families(None);
        let explained = families.explain("905321234567").unwrap();
        let told: Vec<_> = explained
            .considered
            .iter()
            .map(|considered| {
                (considered.reading, considered.outcome.map(|number| number.number().to_owned()))
            })
            .collect();
        let exit = (0..13).find(|nth| families.prefix(*nth) == "90").unwrap();
        assert_eq!(
            told,
            [
                (Reading::AsItStands, Ok("+905321234567".to_owned())),
                (Reading::Exit(exit), Ok("+5321234567".to_owned())),
            ]
        );
        assert_eq!(families.explain("1x"), Err(Unreadable::Character('x')));
        let refused = families.explain("+210123456789").unwrap().considered;
        assert_eq!(refused, [Considered { reading: Reading::Plus, outcome: Err(Refusal::Code) }]);
    }

    #[test]
    fn spellings_lead_back() {
        let families = families(Some("IL"));
        let canonical = families.canonical("972598294121").unwrap();
        let spellings = families.spellings(&canonical);
        for expected in
            ["+972598294121", "972598294121", "9011972598294121", "901511972598294121", "0598294121"]
        {
            assert!(spellings.iter().any(|spelling| spelling == expected), "{expected}: {spellings:?}");
        }
        // 90 and ten digits are rather Turkish.
        let danish = families.canonical("+4532123456").unwrap();
        assert!(!families.spellings(&danish).contains(&"904532123456".to_owned()));
    }

    #[test]
    fn a_site_s_prefixes_count_and_no_others() {
        let exit_prefixes = vec!["119".to_owned()];
        let families = Families::new(Settings { exit_prefixes, ..Settings::default() }).unwrap();
        check(
            &families,
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
