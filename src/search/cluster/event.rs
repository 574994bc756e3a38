//! The spooled form of a document: what lea adds to its source, and its encoding in the spool. Pure code.
//!
//! Invariant: the record contains everything that determines the event's index and id, so a re-send goes to
//! the same place.

use std::collections::HashSet;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, NaiveDate};
use serde_json::Value;

use super::LEA_OBJECT;
use super::spool::PAYLOAD_BYTES_MAX;
use crate::phone::PhoneNumberNormalizer;
use crate::runtime::json::JsonObject;
use crate::runtime::time::rfc3339;
use crate::search::document::{Document, ID_BYTES_MAX, INDEX_BYTES_MAX, SOURCE_BYTES_MAX, WriteMode};
use crate::search::index_templates::IndexTemplates;
use crate::search::store::WriteRejected;

/// Length of `-2026.11.22`.
const DATE_BYTES: usize = 11;

/// Days from 0001-01-01, where chrono counts from, to 1970.
const DAYS_TO_1970: i32 = 719_163;

const DAY_MS: i64 = 86_400_000;

/// A document as it is stored in the spool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SpooledEvent {
    /// Time of arrival in milliseconds since 1970.
    pub arrived_ms: i64,
    /// Index name from the sender, without a date.
    pub name: String,
    /// Day of the index, in days since 1970.
    pub day: i32,
    /// Id from the sender.
    pub id: Option<String>,
    pub mode: WriteMode,
    /// Source including the `lea` object.
    pub source: Vec<u8>,
    /// Length of the sender's part of the source, without the closing brace.
    pub sender_bytes: usize,
}

impl SpooledEvent {
    /// Converts a document that arrived at `arrived_ms`. The day of its index is that of the event, unless
    /// that is more than `days_back` days before or one day after the arrival.
    pub(super) fn from_document(
        document: &Document,
        arrived_ms: i64,
        days_back: u32,
        normalizer: Option<&PhoneNumberNormalizer>,
        templates: &IndexTemplates,
    ) -> Result<SpooledEvent, WriteRejected> {
        let reject = |reason: String| Err(WriteRejected::Invalid(reason));
        let text = document.source.trim_ascii();
        if text.len() > SOURCE_BYTES_MAX {
            return reject(format!("the document is larger than {SOURCE_BYTES_MAX} bytes"));
        }
        if document.id.as_ref().is_some_and(|id| id.len() > ID_BYTES_MAX) {
            return reject(format!("id is too long, must be no longer than {ID_BYTES_MAX} bytes"));
        }
        let members: JsonObject<'_> = match serde_json::from_slice(text) {
            Ok(members) => members,
            Err(error) => return reject(format!("failed to parse: {error}")),
        };
        let time_ms =
            templates.event_time_ms(|name| members.non_empty_string(name), &|name| members.scalar(name));
        let (name, own_day) = split_daily_index(&document.index);
        if name.len() + DATE_BYTES > INDEX_BYTES_MAX {
            let most = INDEX_BYTES_MAX - DATE_BYTES;
            return reject(format!("the index name is longer than {most} bytes, and lea appends a date"));
        }
        let day = own_day.unwrap_or_else(|| index_day(time_ms, arrived_ms, days_back));
        let mut source = sender_part(text, &members);
        let own_bytes = source.len();
        append_lea_object(
            &mut source,
            time_ms.unwrap_or(arrived_ms),
            canonical_numbers(&members, normalizer),
        );
        Ok(SpooledEvent {
            arrived_ms,
            name: name.to_owned(),
            day,
            id: document.id.clone(),
            mode: document.mode,
            source,
            sender_bytes: own_bytes,
        })
    }

    /// The sender's id, or the one generated for record `number` of log `log`.
    pub(super) fn document_id(&self, log: u64, number: u64) -> String {
        self.id.clone().unwrap_or_else(|| generated_id(log, number))
    }

    /// True if an existing id means that the event was sent before.
    pub(super) fn is_create(&self) -> bool {
        self.id.is_none() || self.mode == WriteMode::Create
    }

    /// The sender's source.
    pub(super) fn sender_source(&self) -> Vec<u8> {
        let mut own = self.source[..self.sender_bytes].to_vec();
        own.push(b'}');
        own
    }

    /// Appends the encoded event.
    pub(super) fn encode(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&self.arrived_ms.to_le_bytes());
        bytes.extend_from_slice(&self.day.to_le_bytes());
        bytes.push(u8::from(self.mode == WriteMode::Create));
        for text in [self.name.as_str(), self.id.as_deref().unwrap_or_default()] {
            // Both are limited to much less.
            bytes.extend_from_slice(&(text.len() as u16).to_le_bytes());
            bytes.extend_from_slice(text.as_bytes());
        }
        bytes.extend_from_slice(&(self.sender_bytes as u32).to_le_bytes());
        bytes.extend_from_slice(&self.source);
    }

    /// Decodes the output of [`SpooledEvent::encode`].
    pub(super) fn decode(bytes: &[u8]) -> Option<SpooledEvent> {
        let mut rest = bytes;
        let mut take = |count: usize| {
            let (part, after) = rest.split_at_checked(count)?;
            rest = after;
            Some(part)
        };
        let arrived_ms = i64::from_le_bytes(take(8)?.try_into().ok()?);
        let day = i32::from_le_bytes(take(4)?.try_into().ok()?);
        let mode = if take(1)? == [1] { WriteMode::Create } else { WriteMode::Index };
        let mut text = || {
            let length = u16::from_le_bytes(take(2)?.try_into().ok()?);
            String::from_utf8(take(length.into())?.to_vec()).ok()
        };
        let (name, id) = (text()?, text()?);
        let own_bytes = u32::from_le_bytes(take(4)?.try_into().ok()?) as usize;
        let source = rest.to_vec();
        let id = (!id.is_empty()).then_some(id);
        (own_bytes <= source.len()).then_some(SpooledEvent {
            arrived_ms,
            name,
            day,
            id,
            mode,
            source,
            sender_bytes: own_bytes,
        })
    }
}

// The `lea` object takes about 40 bytes, and 20 for each number; names are bounded.
const _: () = assert!(PAYLOAD_BYTES_MAX > SOURCE_BYTES_MAX + (64 << 10));

/// Generates an id: the log's id, `-`, and the record number.
///
/// A cluster looks up each id before it indexes a document. The ids of one log increase in lexical order, so
/// it can skip all segments of an index that end before. 24 characters of the Base64 alphabet are stored as
/// 18 bytes.
pub(super) fn generated_id(log: u64, number: u64) -> String {
    format!("{}-{number:012}", URL_SAFE_NO_PAD.encode(log.to_be_bytes()))
}

/// Returns the name of a daily index.
pub(super) fn daily_index(name: &str, day: i32) -> String {
    // Years have four digits here: days are close to the arrival, or were parsed from such a date.
    let date = NaiveDate::from_num_days_from_ce_opt(day.saturating_add(DAYS_TO_1970)).unwrap_or_default();
    format!("{name}-{}", date.format("%Y.%m.%d"))
}

/// Splits an index into name and day. Senders can write to daily indices themselves.
pub(super) fn split_daily_index(index: &str) -> (&str, Option<i32>) {
    let day = index.len().checked_sub(DATE_BYTES).filter(|at| *at > 0 && index.is_char_boundary(*at));
    let Some((name, date)) = day.map(|at| index.split_at(at)) else { return (index, None) };
    let is_date = date.bytes().enumerate().all(|(nth, byte)| match nth {
        0 => byte == b'-',
        5 | 8 => byte == b'.',
        _ => byte.is_ascii_digit(),
    });
    let date = is_date.then(|| NaiveDate::parse_from_str(&date[1..], "%Y.%m.%d").ok()).flatten();
    match date {
        Some(date) => (name, Some(days_since_epoch(date))),
        None => (index, None),
    }
}

/// Days from 1970 to a date.
fn days_since_epoch(date: NaiveDate) -> i32 {
    use chrono::Datelike;
    date.num_days_from_ce() - DAYS_TO_1970
}

/// Returns the day of a time, in days since 1970.
pub(super) fn day_of(ms: i64) -> i32 {
    // The range of four-digit years.
    ms.div_euclid(DAY_MS).clamp(-719_162, 2_932_896) as i32
}

fn index_day(time_ms: Option<i64>, arrived_ms: i64, days_back: u32) -> i32 {
    let near = |ms: &i64| {
        *ms >= arrived_ms.saturating_sub(i64::from(days_back) * DAY_MS)
            && *ms <= arrived_ms.saturating_add(DAY_MS)
    };
    day_of(time_ms.filter(near).unwrap_or(arrived_ms))
}

/// Returns the sender's part of the source on one line, without the closing brace. Of duplicate members the
/// last one is kept: JSON parsers do the same, and clusters reject duplicates. A sender's own `lea` member is
/// dropped.
fn sender_part(text: &[u8], members: &JsonObject<'_>) -> Vec<u8> {
    let mut seen = HashSet::with_capacity(members.0.len());
    let is_odd = members.0.iter().any(|(name, _)| name == LEA_OBJECT || !seen.insert(name.as_ref()));
    let mut own = if is_odd { rebuild_members(members) } else { text[..text.len() - 1].to_vec() };
    for byte in &mut own {
        // In a JSON object, line breaks occur only between values.
        if matches!(byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
    own
}

fn rebuild_members(members: &JsonObject<'_>) -> Vec<u8> {
    let mut own = vec![b'{'];
    for (nth, (name, raw)) in members.0.iter().enumerate() {
        let is_repeated = members.0[nth + 1..].iter().any(|(other, _)| other == name);
        if name == LEA_OBJECT || is_repeated {
            continue;
        }
        if own.len() > 1 {
            own.push(b',');
        }
        serde_json::to_writer(&mut own, name)
            .expect("writing to a Vec cannot fail, and a string is valid JSON");
        own.push(b':');
        own.extend_from_slice(raw.get().as_bytes());
    }
    own
}

/// Appends the `lea` object and the closing brace.
fn append_lea_object(source: &mut Vec<u8>, time_ms: i64, numbers: Vec<(String, Vec<String>)>) {
    let time = DateTime::from_timestamp_millis(time_ms).map(|time| rfc3339(&time));
    let mut added = serde_json::Map::new();
    added.insert("time".to_owned(), time.into());
    if !numbers.is_empty() {
        let number = |(field, mut all): (String, Vec<String>)| match (all.len(), all.pop()) {
            (1, Some(one)) => (field, Value::from(one)),
            (_, last) => (field, all.into_iter().chain(last).collect()),
        };
        added.insert(
            "number".to_owned(),
            numbers.into_iter().map(number).collect::<serde_json::Map<_, _>>().into(),
        );
    }
    if source.trim_ascii() != b"{" {
        source.push(b',');
    }
    source.extend_from_slice(format!("\"{LEA_OBJECT}\":").as_bytes());
    serde_json::to_writer(&mut *source, &added).expect("writing to a Vec cannot fail, and names are strings");
    source.push(b'}');
}

/// Name of a field's number in the `lea` object; a dot would create a nested object.
pub(super) fn number_field(field: &str) -> String {
    field.replace('.', "_")
}

/// Returns the canonical numbers of an event, by field.
fn canonical_numbers(
    members: &JsonObject<'_>,
    normalizer: Option<&PhoneNumberNormalizer>,
) -> Vec<(String, Vec<String>)> {
    let (mut found, mut path) = (Vec::new(), String::new());
    let Some(normalizer) = normalizer else { return found };
    for (name, raw) in &members.0 {
        let leads_there = |field: &String| {
            field.strip_prefix(name.as_ref()).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        if !normalizer.settings().fields.iter().any(leads_there) {
            continue;
        }
        // Values that are nested too deeply to parse have no numbers; the cluster rejects them.
        if let Ok(value) = serde_json::from_str(raw.get()) {
            path.clear();
            path.push_str(name);
            collect_numbers(&mut path, &value, normalizer, &mut found);
        }
    }
    found
}

fn collect_numbers(
    path: &mut String,
    value: &Value,
    normalizer: &PhoneNumberNormalizer,
    found: &mut Vec<(String, Vec<String>)>,
) {
    let text = match value {
        Value::Object(object) => {
            for (name, value) in object {
                let before = path.len();
                path.push('.');
                path.push_str(name);
                collect_numbers(path, value, normalizer, found);
                path.truncate(before);
            }
            return;
        }
        Value::Array(array) => {
            return array.iter().for_each(|value| collect_numbers(path, value, normalizer, found));
        }
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::Null | Value::Bool(_) => return,
    };
    let canonical = normalizer.is_number_field(path).then(|| normalizer.normalize(&text)).flatten();
    let Some(number) = canonical.map(|canonical| canonical.as_str().to_owned()) else { return };
    let field = number_field(path);
    match found.iter_mut().find(|(other, _)| *other == field) {
        Some((_, numbers)) if numbers.contains(&number) => {}
        Some((_, numbers)) => numbers.push(number),
        None => found.push((field, vec![number])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::phone::NumberSettings;

    /// 2026-11-22T10:11:12.345Z
    const NOW_MS: i64 = 1_795_342_272_345;

    fn document(index: &str, source: &str) -> Document {
        let source = source.as_bytes().into();
        Document { index: index.to_owned(), doc_type: None, id: None, mode: WriteMode::Index, source }
    }

    fn read(index: &str, source: &str) -> Result<SpooledEvent, WriteRejected> {
        let normalizer = PhoneNumberNormalizer::new(NumberSettings::default()).unwrap();
        let templates = crate::billing::index_templates("billing");
        SpooledEvent::from_document(&document(index, source), NOW_MS, 30, Some(&normalizer), &templates)
    }

    fn index_of(event: &SpooledEvent) -> String {
        daily_index(&event.name, event.day)
    }

    #[track_caller]
    fn check(source: &str, index: &str, expected: &str) {
        let event = read("opensips", source).unwrap();
        assert_eq!((index_of(&event).as_str(), str::from_utf8(&event.source).unwrap()), (index, expected));
        let mut bytes = Vec::new();
        event.encode(&mut bytes);
        assert_eq!(SpooledEvent::decode(&bytes), Some(event));
        for cut in 0..bytes.len().min(40) {
            SpooledEvent::decode(&bytes[..cut]);
        }
    }

    #[test]
    fn numbers_and_time_are_appended_to_the_source() {
        check(
            r#" {"destNum": "9011972598294121","time":"2026-11-21 23:59:59-0300" } "#,
            "opensips-2026.11.22",
            r#"{"destNum": "9011972598294121","time":"2026-11-21 23:59:59-0300" ,"lea":{"number":{"destNum":"+972598294121"},"time":"2026-11-22T02:59:59.000Z"}}"#,
        );
        check("{ }", "opensips-2026.11.22", r#"{ "lea":{"time":"2026-11-22T10:11:12.345Z"}}"#);
        check(
            r#"{"from_user":["00972598294121",972598294121,"+447700900123","x"],"n":1}"#,
            "opensips-2026.11.22",
            r#"{"from_user":["00972598294121",972598294121,"+447700900123","x"],"n":1,"lea":{"number":{"from_user":["+972598294121","+447700900123"]},"time":"2026-11-22T10:11:12.345Z"}}"#,
        );
    }

    #[test]
    fn sources_that_clusters_reject_are_normalized() {
        let time = r#""lea":{"time":"2026-11-22T10:11:12.345Z"}}"#;
        check("{\"a\":\r\n [1,\n2]}", "opensips-2026.11.22", &format!("{{\"a\":   [1, 2],{time}"));
        check(r#"{"a":"","b":1,"a":"x"}"#, "opensips-2026.11.22", &format!(r#"{{"b":1,"a":"x",{time}"#));
        check(r#"{"lea":{"x":1},"b":1}"#, "opensips-2026.11.22", &format!(r#"{{"b":1,{time}"#));
        check(r#"{"lea":1}"#, "opensips-2026.11.22", &format!("{{{time}"));
    }

    #[test]
    fn sender_source_is_unchanged() {
        let event = read("a", "{\"destNum\":\"00972598294121\"}\n").unwrap();
        assert_eq!(event.sender_source(), br#"{"destNum":"00972598294121"}"#);
    }

    #[test]
    fn index_day_is_the_events_own_if_near_its_arrival() {
        for (time, index) in [
            ("2026-11-23T10:11:12.345Z", "a-2026.11.23"),
            ("2026-11-23T10:11:12.346Z", "a-2026.11.22"),
            ("2026-10-23T10:11:12.345Z", "a-2026.10.23"),
            ("2026-10-23T10:11:12.344Z", "a-2026.11.22"),
            ("9999-01-01T00:00:00Z", "a-2026.11.22"),
            ("soon", "a-2026.11.22"),
        ] {
            let event = read("a", &format!(r#"{{"@timestamp":"{time}"}}"#)).unwrap();
            assert_eq!(index_of(&event), index, "{time}");
        }
        let row = r#"{"call_id":"a","request_time":1795219200}"#;
        assert_eq!(index_of(&read("billing", row).unwrap()), "billing-2026.11.21");
    }

    #[test]
    fn daily_indices_of_senders_are_kept() {
        for (index, name, there) in [
            ("logstash-2025.01.02", "logstash", "logstash-2025.01.02"),
            ("a-2025.1.02", "a-2025.1.02", "a-2025.1.02-2026.11.22"),
            ("a-2025.02.30", "a-2025.02.30", "a-2025.02.30-2026.11.22"),
            ("2025.01.02", "2025.01.02", "2025.01.02-2026.11.22"),
            ("ééééé", "ééééé", "ééééé-2026.11.22"),
        ] {
            let event = read(index, r#"{"time":"2026-11-22T00:00:00Z"}"#).unwrap();
            assert_eq!((event.name.as_str(), index_of(&event).as_str()), (name, there));
        }
    }

    #[test]
    fn rejected_documents_have_a_reason() {
        let why = |index: &str, source: &str| read(index, source).unwrap_err().to_string();
        assert!(why("a", "[1]").contains("expected an object"));
        assert!(why("a", "{\"a\":").starts_with("failed to parse"));
        assert!(why("a", "").starts_with("failed to parse"));
        let fits = format!(r#"{{"a":"{}"}}"#, "x".repeat(SOURCE_BYTES_MAX - 8));
        let mut bytes = Vec::new();
        read("a", &fits).unwrap().encode(&mut bytes);
        assert!(bytes.len() <= PAYLOAD_BYTES_MAX);
        assert!(why("a", &fits.replacen('x', "xx", 1)).contains("larger"));
        assert!(read(&"a".repeat(244), "{}").is_ok());
        assert!(why(&"a".repeat(245), "{}").contains("longer than 244 bytes"));
        let mut long = document("a", "{}");
        long.id = Some("x".repeat(ID_BYTES_MAX));
        assert!(SpooledEvent::from_document(&long, NOW_MS, 30, None, &IndexTemplates::default()).is_ok());
        long.id = Some("x".repeat(ID_BYTES_MAX + 1));
        assert!(SpooledEvent::from_document(&long, NOW_MS, 30, None, &IndexTemplates::default()).is_err());
    }
}
