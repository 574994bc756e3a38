//! Error rates of canonical numbers: normalizes random numbers and compares the figures with docs/numbers.md.
//! `LEA_UPDATE=1 cargo test --test it number_merges` rewrites the figures.

use std::collections::HashMap;
use std::fmt::Write;
use std::fs;

use lea::phone::{
    DEFAULT_INTERNATIONAL_PREFIXES, NumberSettings, NumberingPlan, PhoneNumberNormalizer, numbering_plans,
};
use rlibphonenumber::{PHONE_NUMBER_UTIL, PhoneNumber, PhoneNumberFormat, PhoneNumberType};

use crate::support::Random;

const DOCS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/numbers.md");

/// Countries of the first table.
const REGIONS: [&str; 10] = ["GB", "US", "DE", "IL", "SE", "FR", "BR", "RU", "TR", "IT"];

const NUMBERS: usize = 10_000;

fn normalizer(region: Option<&str>) -> PhoneNumberNormalizer {
    PhoneNumberNormalizer::new(NumberSettings {
        default_region: region.map(str::to_owned),
        ..NumberSettings::default()
    })
    .unwrap()
}

/// Returns the national number of a random fixed or mobile line, without its trunk prefix.
fn random_national(random: &mut Random, plan: &NumberingPlan) -> String {
    loop {
        let digits = (1..=11).filter(|digits| plan.usual_lengths & (1 << digits) != 0).collect::<Vec<u32>>();
        let digits = digits[random.below(digits.len() as u64) as usize];
        let text: String = (0..digits).map(|_| char::from(b'0' + random.below(10) as u8)).collect();
        if is_line(plan, &text) {
            return text;
        }
    }
}

/// Tells whether the library knows a fixed or mobile line with this number. The library repairs what it parses, so it
/// parses only numbers that start with zero: only parsing keeps the zeros of countries without a trunk prefix.
fn is_line(plan: &NumberingPlan, national: &str) -> bool {
    let number = if national.starts_with('0') {
        let Ok(parsed) = PHONE_NUMBER_UTIL.parse(format!("+{}{national}", plan.code), None) else {
            return false;
        };
        parsed
    } else {
        let (country_code, national_number) = (i32::from(plan.code), national.parse().unwrap());
        PhoneNumber { country_code, national_number, ..PhoneNumber::default() }
    };
    let kind = PHONE_NUMBER_UTIL.get_number_type(&number);
    let line = [PhoneNumberType::FixedLine, PhoneNumberType::Mobile, PhoneNumberType::FixedLineOrMobile];
    line.contains(&kind) && e164(&number) == format!("+{}{national}", plan.code)
}

fn e164(number: &PhoneNumber) -> String {
    PHONE_NUMBER_UTIL.format(number, PhoneNumberFormat::E164).into_owned()
}

/// Counts the results: right, without a canonical number, wrong.
fn tally(forms: &[(String, String)], normalizer: &PhoneNumberNormalizer) -> [usize; 3] {
    let mut tally = [0; 3];
    for (text, number) in forms {
        match normalizer.normalize(text) {
            Some(number_read) if number_read.as_str() == number => tally[0] += 1,
            None => tally[1] += 1,
            Some(_) => tally[2] += 1,
        }
    }
    tally
}

fn national_table() -> String {
    let mut table = "| country | trunk prefix | no region: wrong | none | right region: wrong | none | bare, no region: wrong | bare, right region: wrong |\n|---|---|---|---|---|---|---|---|\n".to_owned();
    for region in REGIONS {
        let plan = numbering_plans().iter().find(|plan| plan.regions.contains(&region)).unwrap();
        let mut random = Random::with_seed(u64::from(plan.code));
        let drawn: Vec<String> = (0..NUMBERS).map(|_| random_national(&mut random, plan)).collect();
        let forms = |trunk: &str| {
            let numbers = drawn
                .iter()
                .map(|national| (format!("{trunk}{national}"), format!("+{}{national}", plan.code)));
            numbers.collect::<Vec<_>>()
        };
        let (with, without) = (forms(plan.trunk_prefix), forms(""));
        let (no_region, home) = (normalizer(None), normalizer(Some(region)));
        let [_, none, wrong] = tally(&with, &no_region);
        let [_, none_home, wrong_home] = tally(&with, &home);
        let ([.., bare], [.., bare_home]) = (tally(&without, &no_region), tally(&without, &home));
        let trunk = if plan.trunk_prefix.is_empty() { "-" } else { plan.trunk_prefix };
        writeln!(
            table,
            "| {region} | {trunk} | {wrong} | {none} | {wrong_home} | {none_home} | {bare} | {bare_home} |"
        )
        .unwrap();
    }
    table
}

/// Normalizes random numbers of all countries in all dialled forms. Counts the wrong results per prefix, and the numbers
/// that got the canonical number of another one.
fn international_table() -> String {
    let mut random = Random::with_seed(5);
    let lines: Vec<&NumberingPlan> =
        numbering_plans().iter().filter(|plan| plan.usual_lengths != 0).collect();
    let numbers: Vec<String> = (0..NUMBERS)
        .map(|_| {
            let plan = lines[random.below(lines.len() as u64) as usize];
            format!("{}{}", plan.code, random_national(&mut random, plan))
        })
        .collect();
    let normalizer = normalizer(None);
    let mut table = "| prefix | right | no number | wrong |\n|---|---|---|---|\n".to_owned();
    let mut by_canonical: HashMap<String, &str> = HashMap::new();
    let mut merged = 0;
    for prefix in DEFAULT_INTERNATIONAL_PREFIXES.into_iter().chain([""]) {
        let forms: Vec<_> =
            numbers.iter().map(|number| (format!("{prefix}{number}"), format!("+{number}"))).collect();
        let [right, none, wrong] = tally(&forms, &normalizer);
        let name = if prefix.is_empty() { "none" } else { prefix };
        writeln!(table, "| {name} | {right} | {none} | {wrong} |").unwrap();
        for ((text, _), number) in forms.iter().zip(&numbers) {
            let Some(canonical) = normalizer.normalize(text) else { continue };
            let first = *by_canonical.entry(canonical.as_str().to_owned()).or_insert(number);
            merged += usize::from(first != number);
        }
    }
    writeln!(
        table,
        "\nOf these {} dialled forms, {merged} have the canonical number of another of the {NUMBERS} numbers.",
        NUMBERS * (DEFAULT_INTERNATIONAL_PREFIXES.len() + 1)
    )
    .unwrap();
    table
}

#[test]
fn the_docs_have_the_current_figures() {
    let docs = fs::read_to_string(DOCS).unwrap();
    let mut fresh = docs.clone();
    for (name, table) in [("national", national_table()), ("international", international_table())] {
        let (begin, end) = (format!("<!-- {name}: begin -->\n"), format!("<!-- {name}: end -->"));
        let (from, to) = (fresh.find(&begin).unwrap() + begin.len(), fresh.find(&end).unwrap());
        fresh.replace_range(from..to, &table);
    }
    if std::env::var_os("LEA_UPDATE").is_some() {
        fs::write(DOCS, &fresh).unwrap();
    } else {
        assert!(
            docs == fresh,
            "docs/numbers.md is stale: LEA_UPDATE=1 cargo test --test it number_merges\n{fresh}"
        );
    }
}

/// Normalizes each example number of the library after `+` and after each international prefix that starts with 0.
#[test]
fn example_numbers_are_their_own_canonical_numbers() {
    let normalizer = normalizer(None);
    let mut examples = 0;
    for region in PHONE_NUMBER_UTIL.get_supported_regions() {
        for kind in [PhoneNumberType::FixedLine, PhoneNumberType::Mobile] {
            let Ok(example) = PHONE_NUMBER_UTIL.get_example_number_for_type_and_region(region, kind) else {
                continue;
            };
            let number = e164(&example);
            for prefix in DEFAULT_INTERNATIONAL_PREFIXES
                .into_iter()
                .filter(|prefix| prefix.starts_with('0'))
                .chain(["+"])
            {
                let text = format!("{prefix}{}", &number[1..]);
                let number_read = normalizer.normalize(&text);
                assert_eq!(
                    number_read.as_ref().map(|number_read| number_read.as_str()),
                    Some(number.as_str()),
                    "{text}"
                );
            }
            examples += 1;
        }
    }
    assert!(examples > 400, "{examples} examples");
}

/// Compares each row of the table of examples in the docs with the code.
#[test]
fn the_examples_in_the_docs_are_right() {
    let docs = fs::read_to_string(DOCS).unwrap();
    let (_, table) =
        docs.split_once("| dialled form | default region | canonical number | reason |\n").unwrap();
    let rows = table
        .lines()
        .take_while(|line| line.starts_with('|'))
        .filter_map(|line| line.strip_prefix("| `"))
        .map(|line| line.split(" | ").collect::<Vec<_>>());
    let mut checked = 0;
    for row in rows {
        let [text, region, canonical, ..] = row[..] else { panic!("{row:?}") };
        let normalizer = normalizer((region != "-").then_some(region));
        let text = text.trim_end_matches('`');
        let number_read = normalizer.normalize(text).map(|number_read| number_read.as_str().to_owned());
        assert_eq!(number_read.as_deref().unwrap_or("none"), canonical, "{text}");
        checked += 1;
    }
    assert!(checked >= 30, "{checked} rows");
}
