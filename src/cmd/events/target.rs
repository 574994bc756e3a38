//! Destination of `lea events load`: a directory's store, or the `_bulk` API of a server. Main thread.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::search::document::Document;
use crate::search::remote::RemoteClient;
use crate::search::sqlite::SqliteStore;
use crate::search::store::{Store, WriteRejected};
use crate::{Error, Result};

/// How long to retry while a server is overloaded.
const FULL_MAX: Duration = Duration::from_secs(60);

/// Pause between retries.
const FULL_PAUSE: Duration = Duration::from_millis(250);

pub(super) enum LoadTarget {
    /// The store and its directory.
    Directory(Box<SqliteStore>, String),
    Url(RemoteClient),
}

/// The result of writing one event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum LoadOutcome {
    Stored,
    AlreadyExists,
    Rejected(String),
}

impl LoadTarget {
    /// Writes events durably and returns one result for each, in order.
    pub(super) fn write(&self, documents: Vec<Document>) -> Result<Vec<LoadOutcome>> {
        if documents.is_empty() {
            return Ok(Vec::new());
        }
        match self {
            LoadTarget::Directory(store, dir) => {
                let answers = store.write(documents);
                let answers =
                    answers.map_err(|error| Error::Query { store: dir.clone(), cause: error.to_string() })?;
                let outcome = |answer| match answer {
                    Ok(_) => LoadOutcome::Stored,
                    Err(WriteRejected::AlreadyExists { .. }) => LoadOutcome::AlreadyExists,
                    Err(WriteRejected::Invalid(reason)) => LoadOutcome::Rejected(reason),
                };
                Ok(answers.into_iter().map(outcome).collect())
            }
            LoadTarget::Url(client) => write_bulk(client, &documents),
        }
    }
}

/// Writes over HTTP. While the server is overloaded, the same events are sent again; those already stored
/// report that their id exists.
fn write_bulk(client: &RemoteClient, documents: &[Document]) -> Result<Vec<LoadOutcome>> {
    let mut body = Vec::new();
    for document in documents {
        let action = json!({"create": {"_index": document.index, "_id": document.id}});
        body.extend_from_slice(action.to_string().as_bytes());
        body.push(b'\n');
        // In a JSON object, line breaks occur only between values.
        body.extend(
            document.source.iter().map(|&byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { byte }),
        );
        body.push(b'\n');
    }
    let since = Instant::now();
    let mut outcomes: Vec<Option<LoadOutcome>> = vec![None; documents.len()];
    loop {
        let answer = client.send("POST", "/_bulk", Some(&body))?;
        if !matches!(answer.status, 429 | 503) {
            apply_response(client, &client.expect_success(answer)?.body, &mut outcomes)?;
            if outcomes.iter().all(Option::is_some) {
                return Ok(outcomes.into_iter().flatten().collect());
            }
        }
        if since.elapsed() > FULL_MAX {
            return Err(client.error(&format!("still overloaded after {} s", FULL_MAX.as_secs())));
        }
        std::thread::sleep(FULL_PAUSE);
    }
}

/// Fills in the results that are still unknown; an item to be sent again stays unknown.
fn apply_response(client: &RemoteClient, body: &[u8], outcomes: &mut [Option<LoadOutcome>]) -> Result<()> {
    let answer: Value = serde_json::from_slice(body)
        .map_err(|error| client.error(&format!("malformed response: {error}")))?;
    let items = answer["items"].as_array().filter(|items| items.len() == outcomes.len());
    let items = items
        .ok_or_else(|| client.error("the response to a bulk request does not have one item per event"))?;
    for (item, outcome) in items.iter().zip(outcomes).filter(|(_, outcome)| outcome.is_none()) {
        let item = &item["create"];
        *outcome = match item["status"].as_u64() {
            Some(200..=299) => Some(LoadOutcome::Stored),
            Some(409) => Some(LoadOutcome::AlreadyExists),
            Some(429 | 503) => None,
            _ => Some(LoadOutcome::Rejected(error_text(&item["error"]))),
        };
    }
    Ok(())
}

fn error_text(error: &Value) -> String {
    let texts = [&error["reason"], &error["caused_by"]["reason"]];
    let texts: Vec<&str> = texts.iter().filter_map(|text| text.as_str()).collect();
    if texts.is_empty() { "no reason given".to_owned() } else { texts.join(": ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bulk_response_is_evaluated_per_item() {
        let client = RemoteClient::new("http://127.0.0.1:1", None, None).unwrap();
        let mut outcomes = vec![None; 4];
        let item = |status: u16| json!({"create": {"status": status, "error": {"reason": "a", "caused_by": {"reason": "b"}}}});
        let body = |statuses: &[u16]| {
            json!({"items": statuses.iter().map(|&status| item(status)).collect::<Vec<_>>()}).to_string()
        };
        apply_response(&client, body(&[201, 409, 429, 400]).as_bytes(), &mut outcomes).unwrap();
        let refused = Some(LoadOutcome::Rejected("a: b".to_owned()));
        assert_eq!(
            outcomes,
            [Some(LoadOutcome::Stored), Some(LoadOutcome::AlreadyExists), None, refused.clone()]
        );
        // An event stored by the first request keeps its result.
        apply_response(&client, body(&[409, 409, 201, 400]).as_bytes(), &mut outcomes).unwrap();
        assert_eq!(
            outcomes,
            [Some(LoadOutcome::Stored), Some(LoadOutcome::AlreadyExists), Some(LoadOutcome::Stored), refused]
        );
        for wrong in ["{}", "[]", "no", r#"{"items":[]}"#] {
            assert!(apply_response(&client, wrong.as_bytes(), &mut [None]).is_err(), "{wrong}");
        }
    }
}
