//! Questions to the cluster, and its answers. Runs on the threads of whoever asks, as many at once as there are.
//!
//! Invariants: an answer is whole, or it is an error; it is there within the time that a question may take, or that is the
//! error; the bytes of answers that are being read are bounded, a single one's and those of all together. A request that a
//! connection lost is sent once more, since a question changes nothing.

use std::io::Read as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use ureq::http::{Method, Response, header};

use super::client::{Answer, Body, ClientError, part};
use super::{Cluster, dsl};
use crate::iri::mapping::{Dynamic, Field, FieldType, Mapping};
use crate::iri::query::{Found, Hit, Query, Search};
use crate::iri::store::{About, Index, StoreError, Told};

/// Bytes of one answer: the edge's bound of sources, and what stands around them.
const ANSWER_BYTES_MAX: usize = 32 << 20;

/// Bytes of all answers that are being read.
const ANSWERS_BYTES_MAX: usize = 96 << 20;

/// What every answer may have beside that: so that few large ones do not refuse the many that have a count.
const FREE_BYTES: usize = 64 << 10;

/// Bytes that are taken from the bound at once.
const STEP_BYTES: usize = 1 << 20;

/// The part of a question's time after which the cluster gives it up by itself, in tenths.
const CLUSTER_TENTHS: u32 = 9;

/// Objects within objects of a mapping.
const DEPTH_MAX: usize = 20;

/// Bytes of large answers, of the whole process.
static HELD: AtomicUsize = AtomicUsize::new(0);

/// A share of them; given back when it is dropped.
#[derive(Default)]
struct Share(usize);

impl Share {
    /// False: there is no room.
    fn grow(&mut self) -> bool {
        let more = |held: usize| held.checked_add(STEP_BYTES).filter(|held| *held <= ANSWERS_BYTES_MAX);
        let grown = HELD.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok();
        self.0 += if grown { STEP_BYTES } else { 0 };
        grown
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        HELD.fetch_sub(self.0, Ordering::Relaxed);
    }
}

/// An answer, with its share of the memory.
struct Held {
    answer: Answer,
    is_json: bool,
    _share: Share,
}

#[derive(Deserialize)]
struct Searched<'a> {
    #[serde(borrow)]
    hits: Hits<'a>,
    aggregations: Option<Value>,
    #[serde(default)]
    timed_out: bool,
    #[serde(rename = "_shards")]
    shards: Shards,
}

#[derive(Deserialize)]
struct Shards {
    failed: u64,
    #[serde(default)]
    failures: Vec<Value>,
}

#[derive(Deserialize)]
struct Hits<'a> {
    total: Total,
    max_score: Option<f64>,
    #[serde(borrow)]
    hits: Vec<HitRead<'a>>,
}

#[derive(Deserialize)]
struct Total {
    value: u64,
}

#[derive(Deserialize)]
struct HitRead<'a> {
    #[serde(rename = "_index")]
    index: String,
    #[serde(rename = "_id")]
    id: String,
    #[serde(rename = "_version")]
    version: Option<u64>,
    #[serde(rename = "_seq_no")]
    sequence: Option<u64>,
    #[serde(rename = "_score")]
    score: Option<f64>,
    #[serde(rename = "_source", borrow)]
    source: Option<&'a RawValue>,
    #[serde(default)]
    sort: Vec<Value>,
}

#[derive(Deserialize)]
struct Listed {
    index: String,
    #[serde(rename = "docs.count")]
    documents: Option<String>,
    #[serde(rename = "store.size")]
    bytes: Option<String>,
}

impl Cluster {
    /// The document of that id: of the last day, where several have it.
    pub(super) fn get(&self, index: &str, id: &str) -> Result<Option<Hit>, StoreError> {
        let body = json!({
            "query": {"ids": {"values": [id]}}, "size": 1, "sort": [{"_index": "desc"}], "version": true,
            "seq_no_primary_term": true, "timeout": self.timeout(),
        });
        let mut found = self.find(&[index.to_owned()], false, false, &body)?;
        Ok(found.hits.pop().map(|hit| Hit { sort: Vec::new(), ..hit }))
    }

    /// How many documents answer a question.
    pub(super) fn count(
        &self,
        indices: &[String],
        ignore_unavailable: bool,
        query: &Query,
    ) -> Result<u64, StoreError> {
        let body = json!({
            "query": dsl::query(query), "size": 0, "track_total_hits": true, "timeout": self.timeout(),
        });
        Ok(self.find(indices, ignore_unavailable, false, &body)?.total)
    }

    /// Searches.
    pub(super) fn search(&self, search: &Search) -> Result<Found, StoreError> {
        let body = dsl::search(search, &self.timeout());
        self.find(&search.indices, search.ignore_unavailable, search.typed_keys, &body)
    }

    /// The indices whose names these are, or fit, or which an alias of that name has.
    pub(super) fn indices(&self, indices: &[String]) -> Result<Vec<Index>, StoreError> {
        let mappings =
            self.good(self.ask(&Method::GET, &self.client.path(indices, "_mapping"), Body::Empty)?)?;
        let mappings: Map<String, Value> = read(&mappings.body)?;
        let list =
            format!("{}?format=json&bytes=b&h=index,docs.count,store.size", cat_path("indices", indices));
        let listed = self.good(self.ask(&Method::GET, &list, Body::Empty)?)?;
        let listed: Vec<Listed> = read(&listed.body)?;
        let number = |text: Option<&String>| text.and_then(|text| text.parse().ok()).unwrap_or(0);
        let index = |(name, mapping): (String, Value)| {
            let listed = listed.iter().find(|listed| listed.index == name);
            Index {
                documents: number(listed.and_then(|listed| listed.documents.as_ref())),
                bytes: number(listed.and_then(|listed| listed.bytes.as_ref())),
                mapping: mapping_of(&mapping["mappings"]),
                name,
            }
        };
        Ok(mappings.into_iter().map(index).collect())
    }

    /// What is in the cluster is found.
    pub(super) fn refresh(&self, indices: &[String], ignore_unavailable: bool) -> Result<(), StoreError> {
        let path =
            format!("{}?ignore_unavailable={ignore_unavailable}", self.client.path(indices, "_refresh"));
        let answer = self.good(self.ask(&Method::POST, &path, Body::Empty)?)?;
        let refreshed: Value = read(&answer.body)?;
        Shards::deserialize(&refreshed["_shards"]).map_err(unreadable)?.whole()
    }

    /// What the cluster says of itself.
    pub(super) fn tell(
        &self,
        about: About,
        indices: &[String],
        parameters: &[(&str, &str)],
    ) -> Result<Told, StoreError> {
        let names: Vec<String> = indices.iter().map(|name| part(name).to_string()).collect();
        let path = match about {
            About::Index if indices.is_empty() => "/_all".to_owned(),
            About::Index => format!("/{}", names.join(",")),
            About::Mapping => self.client.path(indices, "_mapping"),
            About::Health if indices.is_empty() => "/_cluster/health".to_owned(),
            About::Health => format!("/_cluster/health/{}", names.join(",")),
            About::CatHealth => cat_path("health", &[]),
            About::CatIndices => cat_path("indices", indices),
        };
        let query: String = form_urlencoded::Serializer::new(String::new()).extend_pairs(parameters).finish();
        let held = self.ask(&Method::GET, &format!("{path}?{query}"), Body::Empty)?;
        let held = self.known(held)?;
        Ok(Told { status: held.answer.status, is_json: held.is_json, body: held.answer.body })
    }

    /// When the cluster is to give a question up.
    fn timeout(&self) -> String {
        format!("{}ms", (self.search_timeout * CLUSTER_TENTHS / 10).as_millis().max(1))
    }

    fn find(
        &self,
        indices: &[String],
        ignore_unavailable: bool,
        typed_keys: bool,
        body: &Value,
    ) -> Result<Found, StoreError> {
        let path = format!(
            "{}?ignore_unavailable={ignore_unavailable}&typed_keys={typed_keys}&allow_partial_search_results=false",
            self.client.path(indices, "_search")
        );
        let held = self.ask(&Method::POST, &path, Body::Json(body.to_string().as_bytes()))?;
        // Its share is given back when what was found is taken out of it.
        let (answer, _share) = self.good_held(held)?;
        let searched: Searched<'_> = read(&answer.body)?;
        if searched.timed_out {
            return Err(self.timed_out());
        }
        searched.shards.whole()?;
        Ok(Found {
            total: searched.hits.total.value,
            hits: searched.hits.hits.into_iter().map(hit).collect(),
            aggregations: Vec::new(),
            told: searched.aggregations,
            score_max: searched.hits.max_score,
        })
    }

    /// Sends a request, once more where the connection was lost: one that was kept may have been closed meanwhile.
    fn ask(&self, method: &Method, path: &str, body: Body<'_>) -> Result<Held, StoreError> {
        let deadline = Instant::now() + self.search_timeout;
        let mut again = true;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(self.timed_out());
            }
            match self.client.exchange(method, path, body, left, take) {
                Ok(taken) => return taken,
                Err(ClientError::TimedOut { .. }) => return Err(self.timed_out()),
                Err(ClientError::Unreachable { .. }) if std::mem::take(&mut again) => {}
                Err(error @ ClientError::Unreachable { .. }) => {
                    return Err(StoreError::Away(error.to_string()));
                }
            }
        }
    }

    /// It took longer than a question may.
    fn timed_out(&self) -> StoreError {
        StoreError::TimedOut(self.search_timeout.as_millis().try_into().unwrap_or(u64::MAX))
    }

    fn good(&self, held: Held) -> Result<Answer, StoreError> {
        self.good_held(held).map(|(answer, _share)| answer)
    }

    /// An answer that says that it went well; else the error that it tells.
    fn good_held(&self, held: Held) -> Result<(Answer, Share), StoreError> {
        let Held { answer, _share, .. } = self.known(held)?;
        if answer.is_good() {
            return Ok((answer, _share));
        }
        let cause = answer.cause();
        // Its own words for a question that it gave up.
        if answer.status >= 429 && String::from_utf8_lossy(&answer.body).contains("Time exceeded") {
            return Err(self.timed_out());
        }
        let Answer { status, body } = answer;
        Err(StoreError::Answered { status, cause, body })
    }

    /// An answer that whoever asked can read. One about our user, or from something before the cluster, is not for them.
    fn known(&self, held: Held) -> Result<Held, StoreError> {
        let (status, cause) = (held.answer.status, || held.answer.cause());
        match status {
            401 | 403 => Err(StoreError::Failed {
                act: "ask the cluster",
                cause: format!(
                    "its user or password is wrong, or may not do this: {} (status {status})",
                    cause()
                ),
            }),
            300.. if !is_error(&held) => {
                Err(StoreError::Away(format!("it answers with status {status}: {}", cause())))
            }
            _ => Ok(held),
        }
    }
}

/// Reads an answer within the bounds.
fn take(mut response: Response<ureq::Body>) -> Result<Result<Held, StoreError>, ureq::Error> {
    let status = response.status().as_u16();
    let kind = response.headers().get(header::CONTENT_TYPE).map_or(&b""[..], |kind| kind.as_bytes());
    let is_json = kind.starts_with(b"application/json");
    let mut reader = response.body_mut().as_reader();
    let (mut body, mut share) = (Vec::new(), Share::default());
    loop {
        let room = FREE_BYTES + share.0;
        let read = reader.by_ref().take((room - body.len()) as u64).read_to_end(&mut body)?;
        if read == 0 || body.len() < room {
            break;
        }
        if body.len() > ANSWER_BYTES_MAX {
            break;
        }
        if !share.grow() {
            return Ok(Err(StoreError::Busy));
        }
    }
    if body.len() > ANSWER_BYTES_MAX {
        return Ok(Err(StoreError::TooLarge(ANSWER_BYTES_MAX)));
    }
    Ok(Ok(Held { answer: Answer { status, body }, is_json, _share: share }))
}

/// True for Elasticsearch's form of an error, or of something that is not there (`{"found": false}`).
fn is_error(held: &Held) -> bool {
    held.is_json && held.answer.body.trim_ascii_start().starts_with(b"{")
}

impl Shards {
    /// An answer that lacks a part would be a wrong one.
    fn whole(&self) -> Result<(), StoreError> {
        if self.failed == 0 {
            return Ok(());
        }
        let why = self.failures.first().and_then(|failure| failure["reason"]["reason"].as_str());
        let why = why.unwrap_or("no reason given");
        Err(StoreError::Away(format!("{} of its shards failed: {why}", self.failed)))
    }
}

fn hit(read: HitRead<'_>) -> Hit {
    Hit {
        index: read.index,
        kind: None,
        id: read.id,
        version: read.version.unwrap_or(1),
        sequence: read.sequence.unwrap_or(0),
        source: dsl::without_added(read.source.map_or("{}", RawValue::get).as_bytes()),
        sort: read.sort,
        score: read.score,
    }
}

fn read<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, StoreError> {
    serde_json::from_slice(body).map_err(unreadable)
}

fn unreadable(error: serde_json::Error) -> StoreError {
    StoreError::Failed { act: "read the cluster's answer", cause: error.to_string() }
}

fn cat_path(what: &str, indices: &[String]) -> String {
    let names: Vec<String> = indices.iter().map(|name| part(name).to_string()).collect();
    if names.is_empty() { format!("/_cat/{what}") } else { format!("/_cat/{what}/{}", names.join(",")) }
}

/// The fields of an index whose types we know; of the others nothing is told.
fn mapping_of(mappings: &Value) -> Mapping {
    let dynamic = match mappings["dynamic"].as_str() {
        Some("false") => Dynamic::False,
        Some("strict") => Dynamic::Strict,
        _ => Dynamic::True,
    };
    let mut mapping = Mapping { dynamic, ..Mapping::default() };
    fields_of(&mut mapping, "", &mappings["properties"], None, DEPTH_MAX);
    mapping
}

fn fields_of(mapping: &mut Mapping, path: &str, properties: &Value, parent: Option<&str>, depth: usize) {
    let Some(properties) = properties.as_object().filter(|_| depth > 0) else { return };
    for (name, property) in properties {
        let name = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        fields_of(mapping, &name, &property["properties"], None, depth - 1);
        fields_of(mapping, &name, &property["fields"], Some(&name), depth - 1);
        let text = |key: &str| property[key].as_str().map(str::to_owned);
        let Some((declared, kind)) = text("type").and_then(|name| kind_of(&name).map(|kind| (name, kind)))
        else {
            continue;
        };
        let field = Field {
            declared: (declared != kind.name()).then_some(declared),
            parent: parent.map(str::to_owned),
            ignore_above: property["ignore_above"].as_u64().and_then(|chars| chars.try_into().ok()),
            format: text("format"),
            ignore_malformed: property["ignore_malformed"].as_bool().unwrap_or_default(),
            kind,
        };
        mapping.fields.insert(name, field);
    }
}

/// The types of mappings, and those that clusters have besides.
fn kind_of(name: &str) -> Option<FieldType> {
    match name {
        "match_only_text" => Some(FieldType::Text),
        "constant_keyword" | "wildcard" => Some(FieldType::Keyword),
        name => FieldType::of_name(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(bytes: usize) -> Result<Held, StoreError> {
        let body = ureq::Body::builder().data(vec![b' '; bytes]);
        let response = Response::builder().header(header::CONTENT_TYPE, "application/json; charset=UTF-8");
        take(response.body(body).unwrap()).unwrap()
    }

    #[test]
    fn answers_are_bounded_one_by_one_and_together() {
        for bytes in
            [0, 1, FREE_BYTES - 1, FREE_BYTES, FREE_BYTES + 1, FREE_BYTES + STEP_BYTES, ANSWER_BYTES_MAX]
        {
            let held = taken(bytes).unwrap();
            assert_eq!((held.answer.body.len(), held.is_json), (bytes, true));
        }
        assert!(matches!(taken(ANSWER_BYTES_MAX + 1), Err(StoreError::TooLarge(_))));
        assert!(matches!(taken(2 * ANSWER_BYTES_MAX), Err(StoreError::TooLarge(_))));

        assert_eq!(HELD.load(Ordering::Relaxed), 0);
        let mut all = Share::default();
        let steps = std::iter::repeat_with(|| all.grow()).take_while(|grown| *grown).count();
        assert_eq!(steps, ANSWERS_BYTES_MAX / STEP_BYTES);
        assert!(matches!(taken(FREE_BYTES + 1), Err(StoreError::Busy)));
        // A count finds room all the same.
        assert!(taken(FREE_BYTES - 1).is_ok());
        drop(all);
        assert!(taken(FREE_BYTES + 1).is_ok());
    }

    #[test]
    fn fields_of_types_that_we_know() {
        let mapping = mapping_of(&json!({"dynamic": "strict", "properties": {
            "n": {"type": "integer"}, "v": {"type": "dense_vector"}, "d": {"type": "date", "format": "yyyy"},
            "o": {"properties": {"t": {"type": "text", "fields": {"keyword": {"type": "keyword", "ignore_above": 5}}}}},
        }}));
        assert_eq!(mapping.dynamic, Dynamic::Strict);
        let names: Vec<_> =
            mapping.fields.iter().map(|(name, field)| (name.as_str(), field.type_name())).collect();
        assert_eq!(names, [("d", "date"), ("n", "integer"), ("o.t", "text"), ("o.t.keyword", "keyword")]);
        assert_eq!(mapping.fields["o.t.keyword"].parent.as_deref(), Some("o.t"));
        assert_eq!(mapping.fields["o.t.keyword"].ignore_above, Some(5));
        assert_eq!(mapping_of(&json!(null)), Mapping { dynamic: Dynamic::True, ..Mapping::default() });
    }
}
