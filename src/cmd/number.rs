//! `lea number`: prints the canonical form of phone numbers and how it was found. Runs in the main thread.

use serde_json::{Value, json};

use super::output::table::{self, Column};
use crate::cmd::args::config::ConfigArgs;
use crate::cmd::args::globals::Globals;
use crate::cmd::{Command, output};
use crate::manual::{self, Example, Manual};
use crate::phone::{
    Candidate, CanonicalNumber, Explanation, Interpretation, NumberingPlan, PhoneNumberNormalizer,
};
use crate::runtime::logging::{self, LevelFilter};
use crate::runtime::terminal::escape;
use crate::{Error, Exit, Result};

/// Width of the lines with dialled forms if stdout is not a terminal.
const WIDTH_DEFAULT: usize = 80;

/// Explain phone numbers: the canonical number, and how it was found
///
/// Callers write one number in many forms: after a plus sign, after an international prefix such as 00, or without a
/// prefix. All forms have the same canonical number (E.164), and a query for one form finds all of them.
///
/// For each number, the command prints the interpretations of the digits in the order in which lea tries them, and the
/// dialled forms that have the same canonical number. International prefixes and the default region come from
/// parameters.numbers of the configuration.
///
/// The exit status is 3 if a number has no canonical form.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// A number as in an event: digits, with or without separators, or a SIP or tel URI
    #[arg(value_name = "NUMBER", required = true)]
    numbers: Vec<String>,
    /// Also read national numbers of this country (two letters, such as GB); overrides the configuration
    #[arg(long, value_name = "REGION")]
    default_region: Option<String>,
    #[command(flatten)]
    config: ConfigArgs,
    /// Print one JSON object per number
    #[arg(long)]
    json: bool,
}

impl Command for Args {
    const MANUAL: Manual = Manual {
        exits: &[(Exit::Incomplete, "A number has no canonical form.")],
        reads_configuration: true,
        examples: &[
            Example { text: "Explain a number as it was dialled", command: "lea number 9011972598294121" },
            Example {
                text: "Explain a national number of the United Kingdom",
                command: "lea number --default-region GB '0114 960 0123'",
            },
            Example {
                text: "Print JSON for a SIP URI",
                command: "lea number --json 'sip:00447700900123@198.51.100.7'",
            },
        ],
        see_also: &["lea-search(1)", "lea.conf(5)"],
        ..manual::EMPTY
    };

    fn run(self, globals: &Globals) -> Result<Exit> {
        let configured = self.config.load()?.config;
        logging::start(globals.level(LevelFilter::Warn));
        configured.log_warnings();
        let mut settings = configured.numbers;
        if self.default_region.is_some() {
            settings.default_region = self.default_region;
        }
        let normalizer = PhoneNumberNormalizer::new(settings)
            .map_err(|invalid| Error::Usage(format!("--default-region: {invalid}")))?;
        let reports: Vec<NumberReport> =
            self.numbers.iter().map(|number| NumberReport::new(number, &normalizer)).collect();
        if self.json {
            output::print_lines(reports.iter().map(|report| report.to_json().to_string()))?;
        } else {
            print_reports(&reports)?;
        }
        let is_complete = reports.iter().all(|report| report.canonical().is_some());
        Ok(if is_complete { Exit::Done } else { Exit::Incomplete })
    }
}

/// A number and its explanation.
struct NumberReport<'a> {
    number: &'a str,
    normalizer: &'a PhoneNumberNormalizer,
    explanation: Result<Explanation, String>,
}

impl<'a> NumberReport<'a> {
    fn new(number: &'a str, normalizer: &'a PhoneNumberNormalizer) -> NumberReport<'a> {
        let explanation = normalizer.explain(number).map_err(|error| error.to_string());
        NumberReport { number, normalizer, explanation }
    }

    fn canonical(&self) -> Option<CanonicalNumber> {
        self.explanation.as_ref().ok()?.canonical
    }

    fn dialled_forms(&self) -> Vec<String> {
        self.canonical().map_or_else(Vec::new, |number| self.normalizer.dialled_forms(&number))
    }

    fn describe(&self, interpretation: Interpretation) -> String {
        match interpretation {
            Interpretation::Plus => "after +".to_owned(),
            Interpretation::InternationalPrefix(nth) => {
                format!("after {}", self.normalizer.international_prefix(nth))
            }
            Interpretation::Bare => "without a prefix".to_owned(),
            Interpretation::NationalWithTrunk => "national, after the trunk prefix".to_owned(),
            Interpretation::National => "national".to_owned(),
        }
    }

    /// Returns the prefix in front of the canonical number's digits.
    fn removed_prefix(&self, number: &CanonicalNumber) -> Option<&str> {
        match number.interpretation() {
            Interpretation::Plus => Some("+"),
            Interpretation::InternationalPrefix(nth) => Some(self.normalizer.international_prefix(nth)),
            Interpretation::NationalWithTrunk => Some(number.plan().trunk_prefix),
            Interpretation::Bare | Interpretation::National => None,
        }
    }

    fn table_row(&self) -> Vec<String> {
        let cells = match self.canonical() {
            Some(number) => [
                number.as_str().to_owned(),
                self.describe(number.interpretation()),
                describe_country(number.plan()),
                number.national().to_owned(),
            ],
            None => ["-"; 4].map(str::to_owned),
        };
        [vec![self.number.to_owned()], cells.to_vec()].concat()
    }

    /// Returns the lines after the table. `width` is that of the terminal.
    fn details(&self, width: usize) -> Vec<String> {
        let mut lines = vec![String::new(), escape(self.number)];
        match &self.explanation {
            Err(error) => lines.push(format!("  not a phone number: {error}")),
            Ok(explanation) if explanation.candidates.is_empty() => {
                lines.push("  no international prefix and no country code".to_owned());
            }
            Ok(explanation) => lines.extend(self.describe_candidates(&explanation.candidates)),
        }
        let forms = self.dialled_forms();
        if !forms.is_empty() {
            lines.push("  dialled forms:".to_owned());
            lines.extend(wrap(&forms, "    ", width));
        }
        lines
    }

    fn describe_candidates(&self, candidates: &[Candidate]) -> Vec<String> {
        let mut has_result = false;
        let describe = |candidate: &Candidate| {
            let interpretation = self.describe(candidate.interpretation);
            let is_result = candidate.outcome.is_ok() && !has_result;
            has_result |= is_result;
            match candidate.outcome {
                Ok(number) if is_result => format!("  {interpretation}: {}", number.as_str()),
                Ok(number) => format!("  {interpretation}: {}, not used", number.as_str()),
                Err(error) => format!("  {interpretation}: rejected, {error}"),
            }
        };
        candidates.iter().map(describe).collect()
    }

    fn to_json(&self) -> Value {
        let number = self.canonical();
        let candidates = self.explanation.as_ref().map_or(&[][..], |explanation| &explanation.candidates);
        let candidate = |candidate: &Candidate| {
            let interpretation = self.describe(candidate.interpretation);
            match candidate.outcome {
                Ok(number) => json!({ "interpretation": interpretation, "number": number.as_str() }),
                Err(error) => json!({ "interpretation": interpretation, "rejected": error.to_string() }),
            }
        };
        json!({
            "number": self.number,
            "canonical": number.as_ref().map(CanonicalNumber::as_str),
            "interpretation": number.map(|number| self.describe(number.interpretation())),
            "prefix": number.as_ref().and_then(|number| self.removed_prefix(number)),
            "country_code": number.map(|number| number.plan().code),
            "regions": number.map(|number| number.plan().regions),
            "national": number.as_ref().map(CanonicalNumber::national),
            "reason": self.explanation.as_ref().err(),
            "candidates": candidates.iter().map(candidate).collect::<Vec<_>>(),
            "dialled_forms": self.dialled_forms(),
        })
    }
}

/// Returns the country code and the first of the regions that share it.
fn describe_country(plan: &NumberingPlan) -> String {
    match plan.regions {
        [] => plan.code.to_string(),
        [only] => format!("{} {only}", plan.code),
        [main, others @ ..] => format!("{} {main} and {} more", plan.code, others.len()),
    }
}

/// Prints a table of the numbers, and the details of each number.
fn print_reports(reports: &[NumberReport<'_>]) -> Result<()> {
    let rows: Vec<Vec<String>> = reports.iter().map(NumberReport::table_row).collect();
    let columns = [
        Column::new("NUMBER").whole(),
        Column::new("CANONICAL").whole(),
        Column::new("READ").dropped(2),
        Column::new("COUNTRY"),
        Column::new("NATIONAL").dropped(1),
    ];
    table::print(&columns, &rows)?;
    let width = table::terminal_width().unwrap_or(WIDTH_DEFAULT);
    output::print_lines(reports.iter().flat_map(|report| report.details(width)))
}

/// Joins words into indented lines of at most `width` characters.
fn wrap(words: &[String], indent: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in words {
        match lines.last_mut() {
            Some(line) if line.len() + 1 + word.len() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(format!("{indent}{word}")),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_wrapped_at_the_width() {
        let words = ["+1234", "1234", "001234"].map(str::to_owned);
        assert_eq!(wrap(&words, "  ", 12), ["  +1234 1234", "  001234"]);
        assert_eq!(wrap(&words, "  ", 11), ["  +1234", "  1234", "  001234"]);
        assert_eq!(wrap(&words, "  ", 1).len(), 3);
    }
}
