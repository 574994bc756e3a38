//! A request's parameters: those that any request may have, and the rest. Pure.

use std::borrow::Cow;

use super::failure::Failure;
use super::sieve::Sieve;
use crate::http::Request;

/// Parameters of one request.
const PARAMETERS_MAX: usize = 64;

/// The parameters of a request, decoded.
#[derive(Debug, Default)]
pub struct Parameters<'a> {
    pairs: Vec<(Cow<'a, str>, Cow<'a, str>)>,
}

impl<'a> Parameters<'a> {
    /// Decodes them.
    pub fn of(request: &'a Request) -> Result<Parameters<'a>, Failure> {
        let pairs: Vec<_> = request.query_pairs().take(PARAMETERS_MAX + 1).collect();
        match pairs.len() <= PARAMETERS_MAX {
            true => Ok(Parameters { pairs }),
            false => Err(Failure::argument(format!("more than {PARAMETERS_MAX} parameters"))),
        }
    }

    /// All of them.
    pub fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.pairs.iter().map(|(key, value)| (&**key, &**value))
    }

    /// The last value of a parameter.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.pairs().filter(|(key, _)| *key == name).map(|(_, value)| value).last()
    }

    /// A switch: there without a value is on.
    pub fn is_on(&self, name: &str) -> Result<bool, Failure> {
        match self.get(name) {
            None | Some("false") => Ok(false),
            Some("" | "true") => Ok(true),
            Some(value) => Err(Failure::argument(format!(
                "Failed to parse value [{value}] as only [true] or [false] are allowed."
            ))),
        }
    }

    /// Refuses what is neither in the list nor good for any request.
    pub fn only(&self, path: &str, known: &[&str]) -> Result<(), Failure> {
        match self.pairs().find(|(key, value)| !is_common(key, value) && !known.contains(key)) {
            None => Ok(()),
            Some((key, _)) => {
                Err(Failure::argument(format!("request [{path}] contains unrecognized parameter: [{key}]")))
            }
        }
    }

    /// How the answer is to look.
    pub fn look(&self) -> Result<Look, Failure> {
        let sieve = self.get("filter_path").map(Sieve::of_path).transpose()?.unwrap_or_default();
        Ok(Look { pretty: self.is_on("pretty")?, sieve })
    }
}

/// What changes nothing, or only how the answer looks.
fn is_common(key: &str, value: &str) -> bool {
    match key {
        "pretty" | "human" | "error_trace" | "filter_path" => true,
        "format" => value == "json",
        _ => false,
    }
}

/// How an answer is to look.
#[derive(Clone, Debug, Default)]
pub struct Look {
    /// Laid out for people.
    pub pretty: bool,
    /// Which parts of it.
    pub sieve: Sieve,
}
