//! `lea number`: which family each number belongs to, and why. Runs in the main thread; pure but for its output.

use std::io;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::stored::{self, harmless};
use crate::cli::Globals;
use crate::config;
use crate::iri::number::{Canonical, Explanation, Families, Reading, Refusal};
use crate::logging::{self, LevelFilter};
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
pub struct Args {
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
    /// Runs the command.
    pub fn run(self, globals: &Globals) -> Result<Exit> {
        let configured = config::load(self.config.as_deref(), &config::environment)?;
        logging::start(globals.level(LevelFilter::Warn));
        configured.log_warnings();
        let mut settings = configured.numbers;
        if self.default_region.is_some() {
            settings.default_region = self.default_region;
        }
        let families = Families::new(settings)
            .map_err(|invalid| Error::Usage(format!("--default-region: {invalid}")))?;
        let told: Vec<Told> = self.numbers.iter().map(|number| Told::new(number, &families)).collect();
        stored::printed(if self.json { print_json(&told) } else { print_text(&told) })?;
        let all = told.iter().all(|told| told.family().is_some());
        Ok(if all { Exit::Done } else { Exit::Differs })
    }
}

/// A number and what is to be told of it.
struct Told<'a> {
    number: &'a str,
    families: &'a Families,
    explained: Result<Explanation, String>,
}

impl<'a> Told<'a> {
    fn new(number: &'a str, families: &'a Families) -> Told<'a> {
        Told { number, families, explained: families.explain(number).map_err(|why| why.to_string()) }
    }

    fn family(&self) -> Option<Canonical> {
        self.explained.as_ref().ok()?.canonical
    }

    fn spellings(&self) -> Vec<String> {
        self.family().map_or_else(Vec::new, |family| self.families.spellings(&family))
    }

    /// What the digits were taken for, as a reader would say it.
    fn reading(&self, reading: Reading) -> String {
        match reading {
            Reading::Plus => "behind +".to_owned(),
            Reading::Exit(nth) => format!("behind {}", self.families.prefix(nth)),
            Reading::AsItStands => "as it stands".to_owned(),
            Reading::NationalTrunk => "national, with its trunk prefix".to_owned(),
            Reading::National => "national".to_owned(),
        }
    }

    /// The prefix that was taken off.
    fn prefix(&self, family: &Canonical) -> Option<&str> {
        match family.reading() {
            Reading::Plus => Some("+"),
            Reading::Exit(nth) => Some(self.families.prefix(nth)),
            Reading::NationalTrunk => Some(family.plan().trunk),
            Reading::AsItStands | Reading::National => None,
        }
    }

    fn cells(&self) -> [String; 5] {
        let number = harmless(self.number);
        match self.family() {
            Some(family) => [
                number,
                family.number().to_owned(),
                self.reading(family.reading()),
                country(&family),
                family.national().to_owned(),
            ],
            None => [number, "-".to_owned(), "-".to_owned(), "-".to_owned(), "-".to_owned()],
        }
    }

    fn print_details(&self) -> io::Result<()> {
        logging::print(format_args!("\n{}", harmless(self.number)))?;
        match &self.explained {
            Err(why) => logging::print(format_args!("  no number: {why}"))?,
            Ok(explained) => self.print_considered(explained)?,
        }
        match self.spellings() {
            spellings if spellings.is_empty() => Ok(()),
            spellings => logging::print(format_args!("  spellings: {}", spellings.join(" "))),
        }
    }

    fn print_considered(&self, explained: &Explanation) -> io::Result<()> {
        if explained.considered.is_empty() {
            logging::print(format_args!("  it begins with no exit prefix, and with no country code"))?;
        }
        let mut counted = false;
        for considered in &explained.considered {
            let reading = self.reading(considered.reading);
            match considered.outcome {
                Ok(number) if !counted => logging::print(format_args!("  {reading}: {}", number.number()))?,
                Ok(number) => {
                    logging::print(format_args!("  {reading}: {}, if nothing above held", number.number()))?;
                }
                Err(why) => logging::print(format_args!("  {reading}: no, {why}"))?,
            }
            counted |= considered.outcome.is_ok();
        }
        Ok(())
    }

    fn json(&self) -> Value {
        let family = self.family();
        let considered = self.explained.as_ref().map_or(&[][..], |explained| &explained.considered);
        let considered: Vec<Value> = considered
            .iter()
            .map(|considered| {
                let reading = self.reading(considered.reading);
                match considered.outcome {
                    Ok(number) => json!({ "reading": reading, "number": number.number() }),
                    Err(why) => json!({ "reading": reading, "refused": Refusal::to_string(&why) }),
                }
            })
            .collect();
        json!({
            "number": self.number,
            "family": family.as_ref().map(Canonical::number),
            "reading": family.map(|family| self.reading(family.reading())),
            "prefix": family.as_ref().and_then(|family| self.prefix(family)),
            "country_code": family.map(|family| family.plan().code),
            "regions": family.map(|family| family.plan().regions),
            "national": family.as_ref().map(Canonical::national),
            "reason": self.explained.as_ref().err(),
            "considered": considered,
            "spellings": self.spellings(),
        })
    }
}

/// The country code and the first of the regions that share it.
fn country(family: &Canonical) -> String {
    let plan = family.plan();
    match plan.regions {
        [] => plan.code.to_string(),
        [only] => format!("{} {only}", plan.code),
        [main, others @ ..] => format!("{} {main} and {} more", plan.code, others.len()),
    }
}

fn print_json(told: &[Told<'_>]) -> io::Result<()> {
    told.iter().try_for_each(|told| logging::print(format_args!("{}", told.json())))
}

/// Columns as wide as their widest cell.
fn print_text(told: &[Told<'_>]) -> io::Result<()> {
    let head = ["NUMBER", "FAMILY", "READ", "COUNTRY", "NATIONAL"].map(str::to_owned);
    let lines: Vec<[String; 5]> = std::iter::once(head).chain(told.iter().map(Told::cells)).collect();
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let [number, family, read, country] = [0, 1, 2, 3].map(width);
    lines.iter().try_for_each(|[a, b, c, d, e]| {
        logging::print(format_args!("{a:<number$}  {b:<family$}  {c:<read$}  {d:<country$}  {e}"))
    })?;
    told.iter().try_for_each(Told::print_details)
}
