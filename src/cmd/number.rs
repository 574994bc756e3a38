//! `lea number`: prints the canonical form of phone numbers and how it was found. Runs in the main thread.

use std::io;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::args::listing::{self, escape};
use crate::cli::Globals;
use crate::config;
use crate::phone::{
    CanonicalNumber, Explanation, Interpretation, InterpretationError, PhoneNumberNormalizer,
};
use crate::runtime::logging::{self, LevelFilter};
use crate::{Error, Exit, Result};

/// Explain telephone numbers: which family each belongs to, and why
///
/// A family is all the ways to write one number: behind a plus sign, an exit prefix or nothing. FAMILY is the number
/// that stands for all of them; two numbers with the same FAMILY are found together. Below the table stand, for each
/// number, the readings that were considered in their order, and the spellings that are read as the same number.
///
/// Exit prefixes and the default region are those of the configuration (parameters.numbers).
///
/// The exit code is 3 if a number has no family.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// A number as it stands in an event: digits, with separators, or a SIP or tel URI
    #[arg(value_name = "NUMBER", required = true)]
    numbers: Vec<String>,
    /// Read national numbers too, as those of this country (two letters, like GB); before the configuration
    #[arg(long, value_name = "REGION")]
    default_region: Option<String>,
    /// Configuration file [default: config/configurationFile.conf]
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print a JSON object a line, one for each number
    #[arg(long)]
    json: bool,
}

impl Args {
    pub(crate) fn run(self, globals: &Globals) -> Result<Exit> {
        let configured = config::load(self.config.as_deref(), &config::environment)?;
        logging::start(globals.level(LevelFilter::Warn));
        configured.log_warnings();
        let mut settings = configured.numbers;
        if self.default_region.is_some() {
            settings.default_region = self.default_region;
        }
        let families = PhoneNumberNormalizer::new(settings)
            .map_err(|invalid| Error::Usage(format!("--default-region: {invalid}")))?;
        let told: Vec<NumberReport> =
            self.numbers.iter().map(|number| NumberReport::new(number, &families)).collect();
        listing::ignore_broken_pipe(if self.json { print_json(&told) } else { print_table(&told) })?;
        let all = told.iter().all(|told| told.canonical().is_some());
        Ok(if all { Exit::Done } else { Exit::Incomplete })
    }
}

/// A number and its explanation.
struct NumberReport<'a> {
    number: &'a str,
    normalizer: &'a PhoneNumberNormalizer,
    explanation: Result<Explanation, String>,
}

impl<'a> NumberReport<'a> {
    fn new(number: &'a str, families: &'a PhoneNumberNormalizer) -> NumberReport<'a> {
        NumberReport {
            number,
            normalizer: families,
            explanation: families.explain(number).map_err(|why| why.to_string()),
        }
    }

    fn canonical(&self) -> Option<CanonicalNumber> {
        self.explanation.as_ref().ok()?.canonical
    }

    fn dialled_forms(&self) -> Vec<String> {
        self.canonical().map_or_else(Vec::new, |family| self.normalizer.dialled_forms(&family))
    }

    /// Returns a description of an interpretation.
    fn describe_interpretation(&self, reading: Interpretation) -> String {
        match reading {
            Interpretation::Plus => "behind +".to_owned(),
            Interpretation::InternationalPrefix(nth) => {
                format!("behind {}", self.normalizer.international_prefix(nth))
            }
            Interpretation::Bare => "as it stands".to_owned(),
            Interpretation::NationalWithTrunk => "national, with its trunk prefix".to_owned(),
            Interpretation::National => "national".to_owned(),
        }
    }

    /// Returns the prefix that was removed.
    fn removed_prefix(&self, family: &CanonicalNumber) -> Option<&str> {
        match family.interpretation() {
            Interpretation::Plus => Some("+"),
            Interpretation::InternationalPrefix(nth) => Some(self.normalizer.international_prefix(nth)),
            Interpretation::NationalWithTrunk => Some(family.plan().trunk_prefix),
            Interpretation::Bare | Interpretation::National => None,
        }
    }

    fn table_row(&self) -> [String; 5] {
        let number = escape(self.number);
        match self.canonical() {
            Some(family) => [
                number,
                family.as_str().to_owned(),
                self.describe_interpretation(family.interpretation()),
                describe_country(&family),
                family.national().to_owned(),
            ],
            None => [number, "-".to_owned(), "-".to_owned(), "-".to_owned(), "-".to_owned()],
        }
    }

    fn print_details(&self) -> io::Result<()> {
        logging::print_line(format_args!("\n{}", escape(self.number)))?;
        match &self.explanation {
            Err(why) => logging::print_line(format_args!("  no number: {why}"))?,
            Ok(explained) => self.print_candidates(explained)?,
        }
        match self.dialled_forms() {
            spellings if spellings.is_empty() => Ok(()),
            spellings => logging::print_line(format_args!("  spellings: {}", spellings.join(" "))),
        }
    }

    fn print_candidates(&self, explained: &Explanation) -> io::Result<()> {
        if explained.candidates.is_empty() {
            logging::print_line(format_args!("  it begins with no exit prefix, and with no country code"))?;
        }
        let mut counted = false;
        for considered in &explained.candidates {
            let reading = self.describe_interpretation(considered.interpretation);
            match considered.outcome {
                Ok(number) if !counted => {
                    logging::print_line(format_args!("  {reading}: {}", number.as_str()))?
                }
                Ok(number) => {
                    logging::print_line(format_args!(
                        "  {reading}: {}, if nothing above held",
                        number.as_str()
                    ))?;
                }
                Err(why) => logging::print_line(format_args!("  {reading}: no, {why}"))?,
            }
            counted |= considered.outcome.is_ok();
        }
        Ok(())
    }

    fn to_json(&self) -> Value {
        let family = self.canonical();
        let considered = self.explanation.as_ref().map_or(&[][..], |explained| &explained.candidates);
        let considered: Vec<Value> = considered
            .iter()
            .map(|considered| {
                let reading = self.describe_interpretation(considered.interpretation);
                match considered.outcome {
                    Ok(number) => json!({ "reading": reading, "number": number.as_str() }),
                    Err(why) => {
                        json!({ "reading": reading, "refused": InterpretationError::to_string(&why) })
                    }
                }
            })
            .collect();
        json!({
            "number": self.number,
            "family": family.as_ref().map(CanonicalNumber::as_str),
            "reading": family.map(|family| self.describe_interpretation(family.interpretation())),
            "prefix": family.as_ref().and_then(|family| self.removed_prefix(family)),
            "country_code": family.map(|family| family.plan().code),
            "regions": family.map(|family| family.plan().regions),
            "national": family.as_ref().map(CanonicalNumber::national),
            "reason": self.explanation.as_ref().err(),
            "considered": considered,
            "spellings": self.dialled_forms(),
        })
    }
}

/// Returns the country code and the first of the regions that share it.
fn describe_country(family: &CanonicalNumber) -> String {
    let plan = family.plan();
    match plan.regions {
        [] => plan.code.to_string(),
        [only] => format!("{} {only}", plan.code),
        [main, others @ ..] => format!("{} {main} and {} more", plan.code, others.len()),
    }
}

fn print_json(told: &[NumberReport<'_>]) -> io::Result<()> {
    told.iter().try_for_each(|told| logging::print_line(format_args!("{}", told.to_json())))
}

/// Prints a table with columns as wide as their widest cell, and the details of each number.
fn print_table(told: &[NumberReport<'_>]) -> io::Result<()> {
    let head = ["NUMBER", "FAMILY", "READ", "COUNTRY", "NATIONAL"].map(str::to_owned);
    let lines: Vec<[String; 5]> =
        std::iter::once(head).chain(told.iter().map(NumberReport::table_row)).collect();
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let [number, family, read, country] = [0, 1, 2, 3].map(width);
    lines.iter().try_for_each(|[a, b, c, d, e]| {
        logging::print_line(format_args!("{a:<number$}  {b:<family$}  {c:<read$}  {d:<country$}  {e}"))
    })?;
    told.iter().try_for_each(NumberReport::print_details)
}
