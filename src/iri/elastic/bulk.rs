//! `_bulk`: many documents in one request, an answer each. Runs on the connections' threads.
//!
//! All documents of a request go to the store in one call, so they are durable together, and a full store takes none.

use std::collections::BTreeSet;
use std::time::Instant;

use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};
use serde_json::Value;

use super::documents::{Stored, WRITE, no_alias, refresh};
use super::failure::{Cause, Failure};
use super::sieve::members;
use super::{Asked, Elastic, Reply, uuid};
use crate::iri::document::{Document, Mode, index_name};
use crate::iri::store::{Refused, Written};

/// Actions of one request; the answer has 200 bytes for each.
pub const ACTIONS_MAX: usize = 100_000;

/// What an action line asks for.
struct Action {
    verb: &'static str,
    index: String,
    kind: Option<String>,
    id: Option<String>,
}

/// What became of an action before the store saw it.
enum Fate {
    /// The next of the documents that the store got.
    Sent,
    Refused(Failure),
}

#[derive(Serialize)]
struct Answer<'a> {
    took: u64,
    errors: bool,
    items: &'a [Item<'a>],
}

struct Item<'a> {
    action: &'a Action,
    outcome: Result<&'a Written, Failure>,
    refresh: bool,
}

#[derive(Serialize)]
struct Failed<'a> {
    #[serde(rename = "_index")]
    index: &'a str,
    #[serde(rename = "_type")]
    kind: &'a str,
    #[serde(rename = "_id")]
    id: Option<&'a str>,
    status: u16,
    error: &'a Cause,
}

impl Serialize for Item<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Item { action, outcome, refresh } = self;
        let mut map = serializer.serialize_map(Some(1))?;
        match outcome {
            Ok(written) => {
                let stored = Stored::new(&action.index, action.kind.as_deref(), written, *refresh);
                map.serialize_entry(action.verb, &stored.into_item())?;
            }
            Err(failure) => {
                let kind = action.kind.as_deref().unwrap_or("_doc");
                let (id, status, error) = (action.id.as_deref(), failure.status(), failure.cause());
                map.serialize_entry(action.verb, &Failed { index: &action.index, kind, id, status, error })?;
            }
        }
        map.end()
    }
}

impl Elastic {
    /// Stores what a bulk brings.
    pub(super) fn bulk(&self, asked: &Asked<'_>) -> Result<Reply, Failure> {
        let Asked { request, route, parameters } = asked;
        let started = Instant::now();
        parameters.only(request.path(), &[&WRITE[..3], &["_source", "require_alias"]].concat())?;
        let refresh = refresh(parameters)?;
        no_alias(parameters)?;
        let body = self.inflating.body(request)?;
        if body.bytes().is_empty() {
            return Err(Failure::no_body());
        }
        let defaults = (route.index.as_deref(), route.kind.as_deref());
        let (actions, documents) = self.read(body.bytes(), defaults)?;
        drop(body);
        let written = if documents.is_empty() { Vec::new() } else { self.store.write(documents)? };
        let (actions, fates): (Vec<Action>, Vec<Fate>) = actions.into_iter().unzip();
        let indices: BTreeSet<&String> = actions.iter().map(|action| &action.index).collect();
        self.await_found(parameters, &indices.into_iter().cloned().collect::<Vec<_>>());
        let items = items(&actions, fates, &written, refresh)?;
        let errors = items.iter().any(|item| item.outcome.is_err());
        let took = started.elapsed().as_millis().try_into().unwrap_or(u64::MAX);
        Ok(Reply::json(200, &Answer { took, errors, items: &items }))
    }

    /// The actions, and the documents of those that go to the store.
    #[allow(clippy::type_complexity)]
    fn read(
        &self,
        body: &[u8],
        defaults: (Option<&str>, Option<&str>),
    ) -> Result<(Vec<(Action, Fate)>, Vec<Document>), Failure> {
        let Some(body) = body.strip_suffix(b"\n") else {
            return Err(Failure::argument("The bulk request must be terminated by a newline [\\n]"));
        };
        let (mut actions, mut documents, mut nameless) = (Vec::new(), Vec::new(), 0);
        let mut lines = body.split(|byte| *byte == b'\n').enumerate();
        while let Some((nth, line)) = lines.next() {
            if line.trim_ascii().is_empty() {
                continue;
            }
            if actions.len() == ACTIONS_MAX {
                let reason = format!("a bulk has {ACTIONS_MAX} actions at most");
                return Err(Failure::new(413, "content_too_long_exception", reason));
            }
            let action = action(line, nth + 1, defaults)?;
            let source = if action.verb == "delete" { None } else { lines.next().map(|(_, line)| line) };
            nameless += usize::from(action.index.is_empty());
            match (action.verb, source) {
                // An action without its document does not count, as in the real one.
                ("index" | "create" | "update", None) => {}
                ("index" | "create", Some(source)) => match self.document(&action, source) {
                    Ok(document) => {
                        documents.push(document);
                        actions.push((action, Fate::Sent));
                    }
                    Err(failure) => actions.push((action, Fate::Refused(failure))),
                },
                (verb, _) => {
                    let failure =
                        Failure::argument(format!("[{verb}] is not supported: events do not change"));
                    actions.push((action, Fate::Refused(failure)));
                }
            }
        }
        match (actions.is_empty(), nameless) {
            (true, _) => Err(Failure::validation("no requests added")),
            (_, 0) => Ok((actions, documents)),
            _ => Err(Failure::validation("index is missing")),
        }
    }

    fn document(&self, action: &Action, source: &[u8]) -> Result<Document, Failure> {
        let Action { verb, index, kind, id } = action;
        let source = source.strip_suffix(b"\r").unwrap_or(source);
        // No name at all refuses the whole request.
        if !index.is_empty() {
            index_name(index).map_err(|why| Failure::index_name(index, why))?;
        }
        if source.is_empty() {
            return Err(Failure::unfit("failed to parse, document is empty"));
        }
        if id.as_deref() == Some("") {
            return Err(Failure::argument("if _id is specified it must not be empty"));
        }
        self.same_kind(index, kind.as_deref(), id.as_deref())?;
        Ok(Document {
            index: index.clone(),
            kind: kind.clone(),
            id: id.clone(),
            mode: if *verb == "create" { Mode::Create } else { Mode::Index },
            source: source.into(),
        })
    }
}

/// Puts the store's answers to the actions that they are for.
fn items<'a>(
    actions: &'a [Action],
    fates: Vec<Fate>,
    written: &'a [Result<Written, Refused>],
    refresh: bool,
) -> Result<Vec<Item<'a>>, Failure> {
    let mut written = written.iter();
    let mut items = Vec::with_capacity(actions.len());
    for (action, fate) in actions.iter().zip(fates) {
        let outcome = match fate {
            Fate::Refused(failure) => Err(failure),
            Fate::Sent => match written.next() {
                Some(Ok(written)) => Ok(written),
                Some(Err(refused)) => {
                    Err(Failure::of_document(refused, &action.index, || uuid(&action.index)))
                }
                None => return Err(Failure::new(500, "exception", "the store gave too few answers")),
            },
        };
        items.push(Item { action, outcome, refresh });
    }
    Ok(items)
}

/// Reads an action line: `{"index": {"_index": "a", "_id": "1"}}`.
fn action(line: &[u8], nth: usize, (index, kind): (Option<&str>, Option<&str>)) -> Result<Action, Failure> {
    let malformed = |why: &str| Failure::argument(format!("Malformed action/metadata line [{nth}], {why}"));
    let outer = members(line).ok_or_else(|| {
        Failure::new(
            400,
            "json_parse_exception",
            format!("Malformed action/metadata line [{nth}], no JSON object"),
        )
    })?;
    let [(verb, metadata)] = outer.as_slice() else {
        return Err(malformed("expected one action"));
    };
    let verb = ["index", "create", "delete", "update"].into_iter().find(|known| known == verb);
    let Some(verb) = verb else {
        return Err(malformed("expected field [create], [delete], [index] or [update]"));
    };
    let metadata = members(metadata.get().as_bytes()).ok_or_else(|| malformed("expected an object"))?;
    let mut action =
        Action { verb, index: index.unwrap_or_default().to_owned(), kind: kind.map(str::to_owned), id: None };
    for (key, value) in metadata {
        let text = match serde_json::from_str(value.get()) {
            Ok(Value::String(text)) => Some(text),
            Ok(Value::Number(number)) => Some(number.to_string()),
            Ok(Value::Null) => None,
            Ok(Value::Bool(false)) if key == "require_alias" => continue,
            _ => return Err(malformed(&format!("the value of [{key}] is no text"))),
        };
        match key.as_str() {
            "_index" => action.index = text.unwrap_or(action.index),
            // Shippers leave it empty for later versions, which have no types.
            "_type" => action.kind = text.filter(|kind| !kind.is_empty() && kind != "_doc"),
            "_id" => action.id = text,
            _ if text.is_none() => {}
            key => {
                let reason = format!("Action/metadata line [{nth}] contains an unknown parameter [{key}]");
                return Err(Failure::argument(reason));
            }
        }
    }
    Ok(action)
}
