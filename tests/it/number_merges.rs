//! How often families are wrong: random numbers, with the figures that stand in docs/numbers.md.
//! `LEA_UPDATE=1 cargo test --test it number_merges` rewrites them there.

use std::collections::HashMap;
use std::fmt::Write;
use std::fs;

use lea::iri::number::{EXIT_PREFIXES, Families, Plan, Settings, plans};
use rlibphonenumber::{PHONE_NUMBER_UTIL, PhoneNumber, PhoneNumberFormat, PhoneNumberType};

use crate::support::Random;

const DOCS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/numbers.md");

/// The countries of the table.
const REGIONS: [&str; 10] = ["GB", "US", "DE", "IL", "SE", "FR", "BR", "RU", "TR", "IT"];

const NUMBERS: usize = 10_000;

fn families(region: Option<&str>) -> Families {
    Families::new(Settings { default_region: region.map(str::to_owned), ..Settings::default() }).unwrap()
}

/// A national number that its plan has assigned to a fixed or mobile line, without its trunk prefix.
fn random_national(random: &mut Random, plan: &Plan) -> String {
    loop {
        let digits = (1..=11).filter(|digits| plan.usual & (1 << digits) != 0).collect::<Vec<u32>>();
        let digits = digits[random.below(digits.len() as u64) as usize];
        let text: String = (0..digits).map(|_| char::from(b'0' + random.below(10) as u8)).collect();
        if is_line(plan, &text) {
            return text;
        }
    }
}

/// True if the library knows a fixed or mobile line of that number. It is not asked to parse, for it repairs what it
/// parses; zeros in front, which only parsing keeps, are drawn where there is no trunk prefix.
fn is_line(plan: &Plan, national: &str) -> bool {
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

/// What becomes of one country's numbers: right, without a family, taken for another number.
fn tally(spelled: &[(String, String)], families: &Families) -> [usize; 3] {
    let mut tally = [0; 3];
    for (text, number) in spelled {
        match families.canonical(text) {
            Some(read) if read.number() == number => tally[0] += 1,
            None => tally[1] += 1,
            Some(_) => tally[2] += 1,
        }
    }
    tally
}

fn national_table() -> String {
    let mut table = "| numbers of | trunk prefix | no region: wrong | none | right region: wrong | none | without the trunk prefix, no region: wrong | right region: wrong |\n|---|---|---|---|---|---|---|---|\n".to_owned();
    for region in REGIONS {
        let plan = plans().iter().find(|plan| plan.regions.contains(&region)).unwrap();
        let mut random = Random::with_seed(u64::from(plan.code));
        let drawn: Vec<String> = (0..NUMBERS).map(|_| random_national(&mut random, plan)).collect();
        let spelled = |trunk: &str| {
            let numbers = drawn
                .iter()
                .map(|national| (format!("{trunk}{national}"), format!("+{}{national}", plan.code)));
            numbers.collect::<Vec<_>>()
        };
        let (with, without) = (spelled(plan.trunk), spelled(""));
        let (nowhere, home) = (families(None), families(Some(region)));
        let [_, none, wrong] = tally(&with, &nowhere);
        let [_, none_home, wrong_home] = tally(&with, &home);
        let ([.., bare], [.., bare_home]) = (tally(&without, &nowhere), tally(&without, &home));
        let trunk = if plan.trunk.is_empty() { "-" } else { plan.trunk };
        writeln!(
            table,
            "| {region} | {trunk} | {wrong} | {none} | {wrong_home} | {none_home} | {bare} | {bare_home} |"
        )
        .unwrap();
    }
    table
}

/// Random international numbers of all countries, in all spellings: the ones that are read as another number, a prefix
/// at a time, and the different numbers that became one family.
fn international_table() -> String {
    let mut random = Random::with_seed(5);
    let lines: Vec<&Plan> = plans().iter().filter(|plan| plan.usual != 0).collect();
    let numbers: Vec<String> = (0..NUMBERS)
        .map(|_| {
            let plan = lines[random.below(lines.len() as u64) as usize];
            format!("{}{}", plan.code, random_national(&mut random, plan))
        })
        .collect();
    let families = families(None);
    let mut table = "| written | right | none | wrong |\n|---|---|---|---|\n".to_owned();
    let mut by_family: HashMap<String, &str> = HashMap::new();
    let mut merged = 0;
    for prefix in EXIT_PREFIXES.into_iter().chain([""]) {
        let spelled: Vec<_> =
            numbers.iter().map(|number| (format!("{prefix}{number}"), format!("+{number}"))).collect();
        let [right, none, wrong] = tally(&spelled, &families);
        let name = if prefix.is_empty() { "bare" } else { prefix };
        writeln!(table, "| {name} | {right} | {none} | {wrong} |").unwrap();
        for ((text, _), number) in spelled.iter().zip(&numbers) {
            let Some(family) = families.canonical(text) else { continue };
            let first = *by_family.entry(family.number().to_owned()).or_insert(number);
            merged += usize::from(first != number);
        }
    }
    writeln!(
        table,
        "\nOf these {} spellings {merged} are in the family of another of the {NUMBERS} numbers.",
        NUMBERS * (EXIT_PREFIXES.len() + 1)
    )
    .unwrap();
    table
}

#[test]
fn the_figures_are_those_of_the_docs() {
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

/// Each example number that the library has is its own family, and every exit prefix that begins with 0 leads to it.
#[test]
fn example_numbers_are_their_own_families() {
    let families = families(None);
    let mut examples = 0;
    for region in PHONE_NUMBER_UTIL.get_supported_regions() {
        for kind in [PhoneNumberType::FixedLine, PhoneNumberType::Mobile] {
            let Ok(example) = PHONE_NUMBER_UTIL.get_example_number_for_type_and_region(region, kind) else {
                continue;
            };
            let number = e164(&example);
            for prefix in EXIT_PREFIXES.into_iter().filter(|prefix| prefix.starts_with('0')).chain(["+"]) {
                let text = format!("{prefix}{}", &number[1..]);
                let read = families.canonical(&text);
                assert_eq!(read.as_ref().map(|read| read.number()), Some(number.as_str()), "{text}");
            }
            examples += 1;
        }
    }
    assert!(examples > 400, "{examples} examples");
}

/// The table of examples in the docs: each row is what the code says.
#[test]
fn the_examples_are_right() {
    let docs = fs::read_to_string(DOCS).unwrap();
    let rows = docs
        .lines()
        .filter_map(|line| line.strip_prefix("| `"))
        .map(|line| line.split(" | ").collect::<Vec<_>>());
    let mut checked = 0;
    for row in rows {
        let [text, region, family, ..] = row[..] else { panic!("{row:?}") };
        let families = families((region != "-").then_some(region));
        let text = text.trim_end_matches('`');
        let read = families.canonical(text).map(|read| read.number().to_owned());
        assert_eq!(read.as_deref().unwrap_or("none"), family, "{text}");
        checked += 1;
    }
    assert!(checked >= 30, "{checked} rows");
}
