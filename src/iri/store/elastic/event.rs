//! A document on its way into the cluster: what is added to it, and how it stands in the queue. Pure.
//!
//! Invariant: all that says where an event goes is in its record, so it goes there again however often it is sent.

use std::collections::HashSet;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, NaiveDate};
use serde_json::Value;

use super::ADDED;
use super::queue::PAYLOAD_BYTES_MAX;
use crate::iri::billing;
use crate::iri::document::{Document, ID_BYTES_MAX, INDEX_BYTES_MAX, Mode, SOURCE_BYTES_MAX};
use crate::iri::event::{Members, rfc3339};
use crate::iri::number::Families;
use crate::iri::store::Refused;
use crate::iri::store::sqlite::values;

/// `-2026.11.22`.
const DATE_BYTES: usize = 11;

/// Days between 0001-01-01, from where chrono counts, and 1970.
const DAYS_TO_1970: i32 = 719_163;

const DAY_MS: i64 = 86_400_000;

/// An event as it stands in the queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// When it came, in milliseconds since 1970.
    pub arrived_ms: i64,
    /// The name that its sender gave, without a date.
    pub name: String,
    /// The day of its index, from 1970.
    pub day: i32,
    /// The id that its sender gave.
    pub id: Option<String>,
    /// What happens where that id is there.
    pub mode: Mode,
    /// The source, with what is added.
    pub source: Vec<u8>,
    /// How much of it the sender wrote, without the last brace.
    pub own_bytes: usize,
}

impl Event {
    /// Reads a document that came at `arrived_ms`. Its index is that of its own day, unless that is more than `days_back`
    /// before or one day after it came.
    pub fn read(
        document: &Document,
        arrived_ms: i64,
        days_back: u32,
        families: Option<&Families>,
    ) -> Result<Event, Refused> {
        let unfit = |reason: String| Err(Refused::Unfit(reason));
        let text = document.source.trim_ascii();
        if text.len() > SOURCE_BYTES_MAX {
            return unfit(format!("the document is larger than {SOURCE_BYTES_MAX} bytes"));
        }
        if document.id.as_ref().is_some_and(|id| id.len() > ID_BYTES_MAX) {
            return unfit(format!("id is too long, must be no longer than {ID_BYTES_MAX} bytes"));
        }
        let members: Members<'_> = match serde_json::from_slice(text) {
            Ok(members) => members,
            Err(error) => return unfit(format!("failed to parse: {error}")),
        };
        let time_ms = time_ms(&members);
        let (name, own_day) = split(&document.index);
        if name.len() + DATE_BYTES > INDEX_BYTES_MAX {
            let most = INDEX_BYTES_MAX - DATE_BYTES;
            return unfit(format!(
                "the index's name is longer than {most} bytes, and a date comes behind it"
            ));
        }
        let day = own_day.unwrap_or_else(|| day(time_ms, arrived_ms, days_back));
        let mut source = own(text, &members);
        let own_bytes = source.len();
        add(&mut source, time_ms.unwrap_or(arrived_ms), numbers(&members, families));
        Ok(Event {
            arrived_ms,
            name: name.to_owned(),
            day,
            id: document.id.clone(),
            mode: document.mode,
            source,
            own_bytes,
        })
    }

    /// The id, that of record `number` in log `log` where the sender gave none.
    pub fn id(&self, log: u64, number: u64) -> String {
        self.id.clone().unwrap_or_else(|| made_id(log, number))
    }

    /// True if its being there already means that it was sent before.
    pub fn is_created(&self) -> bool {
        self.id.is_none() || self.mode == Mode::Create
    }

    /// The source as it came.
    pub fn own_source(&self) -> Vec<u8> {
        let mut own = self.source[..self.own_bytes].to_vec();
        own.push(b'}');
        own
    }

    /// Appends it as it stands in the queue.
    pub fn write(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&self.arrived_ms.to_le_bytes());
        bytes.extend_from_slice(&self.day.to_le_bytes());
        bytes.push(u8::from(self.mode == Mode::Create));
        for text in [self.name.as_str(), self.id.as_deref().unwrap_or_default()] {
            // Both are bounded well below that.
            bytes.extend_from_slice(&(text.len() as u16).to_le_bytes());
            bytes.extend_from_slice(text.as_bytes());
        }
        bytes.extend_from_slice(&(self.own_bytes as u32).to_le_bytes());
        bytes.extend_from_slice(&self.source);
    }

    /// Reads what [`Event::write`] wrote.
    pub fn from_queue(bytes: &[u8]) -> Option<Event> {
        let mut rest = bytes;
        let mut take = |count: usize| {
            let (taken, behind) = rest.split_at_checked(count)?;
            rest = behind;
            Some(taken)
        };
        let arrived_ms = i64::from_le_bytes(take(8)?.try_into().ok()?);
        let day = i32::from_le_bytes(take(4)?.try_into().ok()?);
        let mode = if take(1)? == [1] { Mode::Create } else { Mode::Index };
        let mut text = || {
            let length = u16::from_le_bytes(take(2)?.try_into().ok()?);
            String::from_utf8(take(length.into())?.to_vec()).ok()
        };
        let (name, id) = (text()?, text()?);
        let own_bytes = u32::from_le_bytes(take(4)?.try_into().ok()?) as usize;
        let source = rest.to_vec();
        let id = (!id.is_empty()).then_some(id);
        (own_bytes <= source.len()).then_some(Event { arrived_ms, name, day, id, mode, source, own_bytes })
    }
}

// What is added is some 40 bytes and 20 for each number; names are bounded.
const _: () = assert!(PAYLOAD_BYTES_MAX > SOURCE_BYTES_MAX + (64 << 10));

/// The id of a record: the log's, a `-`, and the number.
///
/// A cluster looks each id up before it takes it. Those of one log grow as texts too, so that it passes over all parts of
/// an index that end before; and 24 letters of Base64's alphabet are kept as 18 bytes.
pub fn made_id(log: u64, number: u64) -> String {
    format!("{}-{number:012}", URL_SAFE_NO_PAD.encode(log.to_be_bytes()))
}

/// The index of a name and a day.
pub fn index(name: &str, day: i32) -> String {
    // Years beyond those of four digits cannot come: days are near the one of arrival, or were read from such a date.
    let date = NaiveDate::from_num_days_from_ce_opt(day.saturating_add(DAYS_TO_1970)).unwrap_or_default();
    format!("{name}-{}", date.format("%Y.%m.%d"))
}

/// The name and the day of an index: senders may make daily indices themselves.
pub fn split(index: &str) -> (&str, Option<i32>) {
    let day = index.len().checked_sub(DATE_BYTES).filter(|at| *at > 0 && index.is_char_boundary(*at));
    let Some((name, date)) = day.map(|at| index.split_at(at)) else { return (index, None) };
    let is_date = date.bytes().enumerate().all(|(nth, byte)| match nth {
        0 => byte == b'-',
        5 | 8 => byte == b'.',
        _ => byte.is_ascii_digit(),
    });
    let date = is_date.then(|| NaiveDate::parse_from_str(&date[1..], "%Y.%m.%d").ok()).flatten();
    match date {
        Some(date) => (name, Some(days(date))),
        None => (index, None),
    }
}

/// Days from 1970 to a date.
fn days(date: NaiveDate) -> i32 {
    use chrono::Datelike;
    date.num_days_from_ce() - DAYS_TO_1970
}

/// The day that a time is in, from 1970.
pub fn day_of(ms: i64) -> i32 {
    // Any time of four-digit years fits.
    ms.div_euclid(DAY_MS).clamp(-719_162, 2_932_896) as i32
}

fn day(time_ms: Option<i64>, arrived_ms: i64, days_back: u32) -> i32 {
    let near = |ms: &i64| {
        *ms >= arrived_ms.saturating_sub(i64::from(days_back) * DAY_MS)
            && *ms <= arrived_ms.saturating_add(DAY_MS)
    };
    day_of(time_ms.filter(near).unwrap_or(arrived_ms))
}

/// The time that an event says it is of.
fn time_ms(members: &Members<'_>) -> Option<i64> {
    ["@timestamp", "time", "timestamp"]
        .iter()
        .find_map(|name| values::date(&members.text(name)?))
        .or_else(|| billing::time_ms(|name| members.scalar(name)))
}

/// What the sender wrote, on one line, without the last brace. Of members of one name the last stays, as JSON readers
/// have it and clusters refuse; one of the name that is ours makes way.
fn own(text: &[u8], members: &Members<'_>) -> Vec<u8> {
    let mut seen = HashSet::with_capacity(members.0.len());
    let is_odd = members.0.iter().any(|(name, _)| name == ADDED || !seen.insert(name.as_ref()));
    let mut own = if is_odd { rebuilt(members) } else { text[..text.len() - 1].to_vec() };
    for byte in &mut own {
        // Line ends stand only between the values of a JSON object.
        if matches!(byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
    own
}

fn rebuilt(members: &Members<'_>) -> Vec<u8> {
    let mut own = vec![b'{'];
    for (nth, (name, raw)) in members.0.iter().enumerate() {
        let is_repeated = members.0[nth + 1..].iter().any(|(other, _)| other == name);
        if name == ADDED || is_repeated {
            continue;
        }
        if own.len() > 1 {
            own.push(b',');
        }
        serde_json::to_writer(&mut own, name).expect("a Vec takes all, and a string is JSON");
        own.push(b':');
        own.extend_from_slice(raw.get().as_bytes());
    }
    own
}

/// Appends what is ours, and the last brace.
fn add(source: &mut Vec<u8>, time_ms: i64, numbers: Vec<(String, Vec<String>)>) {
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
    source.extend_from_slice(format!("\"{ADDED}\":").as_bytes());
    serde_json::to_writer(&mut *source, &added).expect("a Vec takes all, and names are strings");
    source.push(b'}');
}

/// The name under which a field's number stands: a dot would make an object of it.
pub fn number_field(field: &str) -> String {
    field.replace('.', "_")
}

/// The numbers that texts of an event mean, by field.
fn numbers(members: &Members<'_>, families: Option<&Families>) -> Vec<(String, Vec<String>)> {
    let (mut found, mut path) = (Vec::new(), String::new());
    let Some(families) = families else { return found };
    for (name, raw) in &members.0 {
        let leads_there = |field: &String| {
            field.strip_prefix(name.as_ref()).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        if !families.settings().fields.iter().any(leads_there) {
            continue;
        }
        // What nests too deep to be read has no numbers; the cluster refuses it.
        if let Ok(value) = serde_json::from_str(raw.get()) {
            path.clear();
            path.push_str(name);
            walk(&mut path, &value, families, &mut found);
        }
    }
    found
}

fn walk(path: &mut String, value: &Value, families: &Families, found: &mut Vec<(String, Vec<String>)>) {
    let text = match value {
        Value::Object(object) => {
            for (name, value) in object {
                let before = path.len();
                path.push('.');
                path.push_str(name);
                walk(path, value, families, found);
                path.truncate(before);
            }
            return;
        }
        Value::Array(array) => return array.iter().for_each(|value| walk(path, value, families, found)),
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::Null | Value::Bool(_) => return,
    };
    let canonical = families.is_number_field(path).then(|| families.canonical(&text)).flatten();
    let Some(number) = canonical.map(|canonical| canonical.number().to_owned()) else { return };
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
    use crate::iri::number::Settings;

    /// 2026-11-22T10:11:12.345Z
    const NOW_MS: i64 = 1_795_342_272_345;

    fn document(index: &str, source: &str) -> Document {
        let source = source.as_bytes().into();
        Document { index: index.to_owned(), kind: None, id: None, mode: Mode::Index, source }
    }

    fn read(index: &str, source: &str) -> Result<Event, Refused> {
        let families = Families::new(Settings::default()).unwrap();
        Event::read(&document(index, source), NOW_MS, 30, Some(&families))
    }

    fn index_of(event: &Event) -> String {
        index(&event.name, event.day)
    }

    #[track_caller]
    fn check(source: &str, index: &str, expected: &str) {
        let event = read("opensips", source).unwrap();
        assert_eq!((index_of(&event).as_str(), str::from_utf8(&event.source).unwrap()), (index, expected));
        let mut bytes = Vec::new();
        event.write(&mut bytes);
        assert_eq!(Event::from_queue(&bytes), Some(event));
        for cut in 0..bytes.len().min(40) {
            Event::from_queue(&bytes[..cut]);
        }
    }

    #[test]
    fn numbers_and_the_time_are_added_behind_what_came() {
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
    fn what_would_be_refused_for_its_form_is_put_right() {
        let time = r#""lea":{"time":"2026-11-22T10:11:12.345Z"}}"#;
        check("{\"a\":\r\n [1,\n2]}", "opensips-2026.11.22", &format!("{{\"a\":   [1, 2],{time}"));
        check(r#"{"a":"","b":1,"a":"x"}"#, "opensips-2026.11.22", &format!(r#"{{"b":1,"a":"x",{time}"#));
        check(r#"{"lea":{"x":1},"b":1}"#, "opensips-2026.11.22", &format!(r#"{{"b":1,{time}"#));
        check(r#"{"lea":1}"#, "opensips-2026.11.22", &format!("{{{time}"));
    }

    #[test]
    fn the_source_comes_back_as_it_was() {
        let event = read("a", "{\"destNum\":\"00972598294121\"}\n").unwrap();
        assert_eq!(event.own_source(), br#"{"destNum":"00972598294121"}"#);
    }

    #[test]
    fn a_day_near_the_arrival_is_the_events_own() {
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
    fn daily_indices_of_senders_stay_what_they_are() {
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
    fn what_cannot_be_stored_says_why() {
        let why = |index: &str, source: &str| read(index, source).unwrap_err().to_string();
        assert!(why("a", "[1]").contains("expected an object"));
        assert!(why("a", "{\"a\":").starts_with("failed to parse"));
        assert!(why("a", "").starts_with("failed to parse"));
        let fits = format!(r#"{{"a":"{}"}}"#, "x".repeat(SOURCE_BYTES_MAX - 8));
        let mut bytes = Vec::new();
        read("a", &fits).unwrap().write(&mut bytes);
        assert!(bytes.len() <= PAYLOAD_BYTES_MAX);
        assert!(why("a", &fits.replacen('x', "xx", 1)).contains("larger"));
        assert!(read(&"a".repeat(244), "{}").is_ok());
        assert!(why(&"a".repeat(245), "{}").contains("longer than 244 bytes"));
        let mut long = document("a", "{}");
        long.id = Some("x".repeat(ID_BYTES_MAX));
        assert!(Event::read(&long, NOW_MS, 30, None).is_ok());
        long.id = Some("x".repeat(ID_BYTES_MAX + 1));
        assert!(Event::read(&long, NOW_MS, 30, None).is_err());
    }
}
