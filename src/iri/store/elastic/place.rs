//! Where events go in the cluster, made before the first of them: templates and daily indices. Also what is asked of them
//! by age. Called by the shipper; templates by whoever puts a mapping too.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use ureq::http::Method;

use super::client::{Answer, Body, Client, ClientError, Server, part};
use super::template::Given;
use super::{bulk, event, template};
use crate::iri::mapping::Mapping;

/// What anything but a bulk may take.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Daily indices that are remembered as made.
const MADE_MAX: usize = 10_000;

/// Why nothing can be sent now.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// Nobody answers.
    #[error(transparent)]
    Away(#[from] ClientError),
    /// An answer that says so.
    #[error("status {status}: {cause}")]
    Answered {
        /// Its status.
        status: u16,
        /// The server's words.
        cause: String,
    },
    /// All events of a bulk are for later.
    #[error("{0}")]
    Later(String),
    /// Something that only a person changes.
    #[error("{0}")]
    Person(String),
}

impl Trouble {
    fn answered(answer: &Answer) -> Trouble {
        Trouble::Answered { status: answer.status, cause: answer.cause() }
    }

    /// True if less at once may do better: it took too long, or broke off, as what is too large may.
    pub fn may_be_of_size(&self) -> bool {
        use std::io::ErrorKind::{ConnectionRefused, HostUnreachable, NetworkUnreachable, NotFound};
        match self {
            Trouble::Away(ClientError::TimedOut { .. }) => true,
            Trouble::Away(ClientError::Unreachable { cause, .. }) => {
                !matches!(cause.kind(), ConnectionRefused | HostUnreachable | NetworkUnreachable | NotFound)
            }
            _ => false,
        }
    }

    /// A word for the log.
    pub fn word(&self) -> &'static str {
        match self {
            Trouble::Away(_) => "away",
            Trouble::Answered { status: 401 | 403, .. } => "not_allowed",
            Trouble::Answered { .. } => "refused",
            Trouble::Later(_) => "not_now",
            Trouble::Person(_) => "not_usable",
        }
    }

    /// True if nothing but a person's doing ends it.
    pub fn is_for_a_person(&self) -> bool {
        matches!(self, Trouble::Person(_) | Trouble::Answered { status: 400..=407, .. })
    }
}

/// Where events go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Into this index.
    Index(Arc<str>),
    /// Nowhere: the cluster does not take the name, because.
    Refused(String),
}

/// How a name's events are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    /// In an index a day.
    Daily,
    /// In the index of that name, which was there before lea.
    Direct,
}

/// The places that are known to be there.
#[derive(Debug)]
pub struct Places {
    client: Client,
    given: Given,
    server: Option<Server>,
    names: HashMap<String, Rule>,
    made: HashSet<Arc<str>>,
    /// The name and the day that were asked for last: those of the next event, nearly always.
    last: Option<(String, i32, Place)>,
}

impl Places {
    /// None is known yet.
    pub fn new(client: Client, given: Given) -> Places {
        Places { client, given, server: None, names: HashMap::new(), made: HashSet::new(), last: None }
    }

    /// Makes sure that the place of events of a name and day is there.
    pub fn ensure(&mut self, name: &str, day: i32) -> Result<Place, Trouble> {
        if let Some((last_name, last_day, place)) = &self.last
            && (last_name.as_str(), *last_day) == (name, day)
        {
            return Ok(place.clone());
        }
        let place = self.find(name, day)?;
        self.last = Some((name.to_owned(), day, place.clone()));
        Ok(place)
    }

    fn find(&mut self, name: &str, day: i32) -> Result<Place, Trouble> {
        if self.server.is_none() {
            self.server = Some(server(&self.client)?);
        }
        let rule = match self.names.get(name) {
            Some(rule) => *rule,
            None => {
                let rule = self.rule(name)?;
                self.names.insert(name.to_owned(), rule);
                rule
            }
        };
        if rule == Rule::Direct {
            return Ok(Place::Index(name.into()));
        }
        let index: Arc<str> = event::index(name, day).into();
        if !self.made.contains(&index) {
            if let Some(refused) = make_index(&self.client, &index)? {
                return Ok(Place::Refused(refused));
            }
            if self.made.len() == MADE_MAX {
                self.made.clear();
            }
            self.made.insert(Arc::clone(&index));
        }
        Ok(Place::Index(index))
    }

    /// The place is not there any more.
    pub fn forget(&mut self, name: &str) {
        self.names.remove(name);
        self.made.clear();
        self.last = None;
    }

    /// The server may be another one now.
    pub fn forget_all(&mut self) {
        self.server = None;
        self.names.clear();
        self.made.clear();
        self.last = None;
    }

    /// How a name's events are to be kept; its template is there then.
    fn rule(&self, name: &str) -> Result<Rule, Trouble> {
        match standing(&self.client, name)? {
            Standing::Index => {
                let mapping = template::added_mapping(&self.given.numbers).to_string();
                let path = format!("/{}/_mapping", part(name));
                good(self.client.send_within(
                    &Method::PUT,
                    &path,
                    Body::Json(mapping.as_bytes()),
                    TIMEOUT,
                )?)?;
                let note = "its events go into it, without days and retention";
                log::warn!("index_stands index={name} note=\"{note}\"");
                Ok(Rule::Direct)
            }
            Standing::Stream => {
                let why =
                    format!("{name} is a data stream in the cluster: let its events go into another index");
                Err(Trouble::Person(why))
            }
            Standing::Nothing => {
                put_template(&self.client, name, &self.given, &Mapping::default())?;
                Ok(Rule::Daily)
            }
        }
    }
}

/// Asks who the server is; a server that cannot be the store is trouble.
pub fn server(client: &Client) -> Result<Server, Trouble> {
    match client.server(TIMEOUT)? {
        Ok(server) if server.is_supported() => Ok(server),
        Ok(server) => Err(Trouble::Person(format!(
            "{} is {server}; the store can be Elasticsearch 7.17 to 9, or OpenSearch 2 and 3",
            client.address()
        ))),
        Err(answer) => Err(Trouble::answered(&answer)),
    }
}

/// What stands under a name, beside indices that have it as an alias.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Nothing, or an alias.
    Nothing,
    /// An index.
    Index,
    /// A data stream.
    Stream,
}

/// Asks what stands under a name.
pub fn standing(client: &Client, name: &str) -> Result<Standing, Trouble> {
    let path = format!("/_resolve/index/{}", part(name));
    let answer = client.send_within(&Method::GET, &path, Body::Empty, TIMEOUT)?;
    if answer.status == 404 {
        return Ok(Standing::Nothing);
    }
    let found = json(&good(answer)?);
    let has =
        |what: &str| found[what].as_array().is_some_and(|all| all.iter().any(|one| one["name"] == name));
    Ok(match (has("indices"), has("data_streams")) {
        (true, _) => Standing::Index,
        (_, true) => Standing::Stream,
        _ => Standing::Nothing,
    })
}

/// Puts the template of a name, or adds to it what it lacks. False: it was there.
pub fn put_template(client: &Client, name: &str, given: &Given, sent: &Mapping) -> Result<bool, Trouble> {
    let path = template::path(name);
    let there = client.send_within(&Method::GET, &path, Body::Empty, TIMEOUT)?;
    let (made, wanted) = if there.status == 404 {
        (true, Some(template::new(name, given, sent)))
    } else {
        let there = json(&good(there)?);
        let Some(there) = template::of_answer(&there) else {
            return Err(Trouble::Person(format!("the template lea-{name} cannot be read")));
        };
        (false, template::completed(there, name, given, sent))
    };
    if let Some(wanted) = wanted {
        let body = wanted.to_string();
        good(client.send_within(&Method::PUT, &path, Body::Json(body.as_bytes()), TIMEOUT)?)?;
    }
    Ok(made)
}

/// Makes an index, if it is not there; the reason if it cannot be, whenever it is asked for.
pub fn make_index(client: &Client, index: &str) -> Result<Option<String>, Trouble> {
    let path = format!("/{}", part(index));
    let answer = client.send_within(&Method::PUT, &path, Body::Json(b"{}"), TIMEOUT)?;
    let error = &json(&answer)["error"];
    match error["type"].as_str() {
        Some("resource_already_exists_exception") => Ok(None),
        Some("invalid_index_name_exception") => Ok(Some(bulk::reason(error))),
        _ => good(answer).map(|_| None),
    }
}

/// Adds fields to the indices behind a name, or to that index.
pub fn add_mapping(client: &Client, index: &str, mapping: &Mapping) -> Result<(), Trouble> {
    let path = format!("/{}/_mapping", part(index));
    let body = mapping.to_json().to_string();
    good(client.send_within(&Method::PUT, &path, Body::Json(body.as_bytes()), TIMEOUT)?).map(drop)
}

/// Deletes the daily indices of all names of ours from before `first_day`; how many there were.
///
/// Only what has the name of a template of ours and a date, and is behind the name's alias, as the template makes it.
pub fn delete_before(client: &Client, first_day: i32) -> Result<u64, Trouble> {
    let answer = client.send_within(&Method::GET, &template::all(), Body::Empty, TIMEOUT)?;
    let mut deleted = 0;
    for name in template::names(&json(&good(answer)?)) {
        let path = format!("/_alias/{}", part(&name));
        let answer = client.send_within(&Method::GET, &path, Body::Empty, TIMEOUT)?;
        if answer.status == 404 {
            continue;
        }
        let behind = json(&good(answer)?);
        for index in behind.as_object().into_iter().flat_map(serde_json::Map::keys) {
            if !is_old(index, &name, first_day) {
                continue;
            }
            let answer =
                client.send_within(&Method::DELETE, &format!("/{}", part(index)), Body::Empty, TIMEOUT)?;
            if answer.status != 404 {
                good(answer)?;
                log::info!("index_deleted index={index} reason=keep_days");
                deleted += 1;
            }
        }
    }
    Ok(deleted)
}

fn is_old(index: &str, name: &str, first_day: i32) -> bool {
    let (of, day) = event::split(index);
    of == name && day.is_some_and(|day| day < first_day)
}

fn good(answer: Answer) -> Result<Answer, Trouble> {
    if answer.is_good() { Ok(answer) } else { Err(Trouble::answered(&answer)) }
}

/// An answer's JSON; null where it is none.
fn json(answer: &Answer) -> Value {
    serde_json::from_slice(&answer.body).unwrap_or(Value::Null)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_is_a_date_before_and_nothing_else() {
        let day = event::split("a-2026.11.22").1.unwrap();
        for (index, old) in [
            ("a-2026.11.21", true),
            ("a-2026.11.22", false),
            ("a-2026.11.23", false),
            ("a-2026.11", false),
            ("a", false),
            ("b-2026.11.21", false),
            ("a-b-2026.11.21", false),
            ("a-2026.11.21-x", false),
        ] {
            assert_eq!(is_old(index, "a", day), old, "{index}");
        }
    }
}
