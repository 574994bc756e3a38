//! Where events are loaded into: a folder's store, or a server's `_bulk`. Main thread.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::super::asked::client::Client;
use crate::iri::document::Document;
use crate::iri::store::sqlite::SqliteStore;
use crate::iri::store::{Refused, Store};
use crate::{Error, Result};

/// How long a server that is full is asked again.
const FULL_MAX: Duration = Duration::from_secs(60);

/// Before it is asked again.
const FULL_PAUSE: Duration = Duration::from_millis(250);

/// Where events go.
pub enum Target {
    /// A store, and its folder.
    Folder(Box<SqliteStore>, String),
    /// A server.
    Url(Client),
}

/// What became of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is stored now.
    Stored,
    /// Its id was there.
    There,
    /// It cannot be stored, because.
    Refused(String),
}

impl Target {
    /// Writes events; an outcome each, in their order, durable.
    pub fn write(&self, documents: Vec<Document>) -> Result<Vec<Outcome>> {
        if documents.is_empty() {
            return Ok(Vec::new());
        }
        match self {
            Target::Folder(store, dir) => {
                let answers = store.write(documents);
                let answers =
                    answers.map_err(|error| Error::Asked { store: dir.clone(), cause: error.to_string() })?;
                let outcome = |answer| match answer {
                    Ok(_) => Outcome::Stored,
                    Err(Refused::Exists { .. }) => Outcome::There,
                    Err(Refused::Unfit(reason)) => Outcome::Refused(reason),
                };
                Ok(answers.into_iter().map(outcome).collect())
            }
            Target::Url(client) => bulk(client, &documents),
        }
    }
}

/// Writes over HTTP. A server that is full is asked again with the same events: those that it has are there by their ids.
fn bulk(client: &Client, documents: &[Document]) -> Result<Vec<Outcome>> {
    let mut body = Vec::new();
    for document in documents {
        let action = json!({"create": {"_index": document.index, "_id": document.id}});
        body.extend_from_slice(action.to_string().as_bytes());
        body.push(b'\n');
        // Line ends stand only between the values of a JSON object.
        body.extend(
            document.source.iter().map(|&byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { byte }),
        );
        body.push(b'\n');
    }
    let since = Instant::now();
    let mut outcomes: Vec<Option<Outcome>> = vec![None; documents.len()];
    loop {
        let answer = client.send("POST", "/_bulk", Some(&body))?;
        if !matches!(answer.status, 429 | 503) {
            take(client, &client.good(answer)?.body, &mut outcomes)?;
            if outcomes.iter().all(Option::is_some) {
                return Ok(outcomes.into_iter().flatten().collect());
            }
        }
        if since.elapsed() > FULL_MAX {
            return Err(client.failed(&format!("it has been full for {} s", FULL_MAX.as_secs())));
        }
        std::thread::sleep(FULL_PAUSE);
    }
}

/// Reads a bulk's answer into the outcomes that are not known yet; one that is to be sent again stays unknown.
fn take(client: &Client, body: &[u8], outcomes: &mut [Option<Outcome>]) -> Result<()> {
    let answer: Value =
        serde_json::from_slice(body).map_err(|error| client.failed(&format!("its answer: {error}")))?;
    let items = answer["items"].as_array().filter(|items| items.len() == outcomes.len());
    let items = items.ok_or_else(|| client.failed("its answer to a bulk has not an item for each event"))?;
    for (item, outcome) in items.iter().zip(outcomes).filter(|(_, outcome)| outcome.is_none()) {
        let item = &item["create"];
        *outcome = match item["status"].as_u64() {
            Some(200..=299) => Some(Outcome::Stored),
            Some(409) => Some(Outcome::There),
            Some(429 | 503) => None,
            _ => Some(Outcome::Refused(reason(&item["error"]))),
        };
    }
    Ok(())
}

fn reason(error: &Value) -> String {
    let texts = [&error["reason"], &error["caused_by"]["reason"]];
    let texts: Vec<&str> = texts.iter().filter_map(|text| text.as_str()).collect();
    if texts.is_empty() { "the server gave no reason".to_owned() } else { texts.join(": ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bulk_is_read_item_by_item() {
        let client = Client::new("http://127.0.0.1:1", None, None).unwrap();
        let mut outcomes = vec![None; 4];
        let item = |status: u16| json!({"create": {"status": status, "error": {"reason": "a", "caused_by": {"reason": "b"}}}});
        let body = |statuses: &[u16]| {
            json!({"items": statuses.iter().map(|&status| item(status)).collect::<Vec<_>>()}).to_string()
        };
        take(&client, body(&[201, 409, 429, 400]).as_bytes(), &mut outcomes).unwrap();
        let refused = Some(Outcome::Refused("a: b".to_owned()));
        assert_eq!(outcomes, [Some(Outcome::Stored), Some(Outcome::There), None, refused.clone()]);
        // Sent again: what was stored then was so the first time.
        take(&client, body(&[409, 409, 201, 400]).as_bytes(), &mut outcomes).unwrap();
        assert_eq!(outcomes, [Some(Outcome::Stored), Some(Outcome::There), Some(Outcome::Stored), refused]);
        for wrong in ["{}", "[]", "no", r#"{"items":[]}"#] {
            assert!(take(&client, wrong.as_bytes(), &mut [None]).is_err(), "{wrong}");
        }
    }
}
