//! Pure: a question as one index understands it: which keys, and how what they find is put together.

use std::net::IpAddr;

use super::bounds::{edge, integer_of, number_of, numbers, plain};
use super::catalogue::{Entry, Fields, IndexEntry, is_hidden, number};
use super::pattern::{self, Pattern};
use super::{text, values};
use crate::iri::date::Format;
use crate::iri::mapping::FieldType;
use crate::iri::query::{self, Bound, Operator, Query, Value};
use crate::iri::store::StoreError;

/// A question about one index.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Plan {
    /// No document.
    None,
    /// Documents with this key.
    Term(Vec<u8>),
    /// Documents with a key from the first on and below the second.
    Range(Vec<u8>, Vec<u8>),
    /// Documents with a key that begins so, and whose value fits.
    Like(Vec<u8>, Pattern),
    /// Documents in which these keys stand so far behind the first.
    Phrase(Vec<(Vec<u8>, u32)>),
    /// Documents with these ids.
    Ids(Vec<String>),
    /// All of these.
    And(Vec<Plan>),
    /// So many of these.
    AtLeast(usize, Vec<Plan>),
    /// The first, and not the second.
    Without(Box<Plan>, Box<Plan>),
}

/// A key: the index, the field, the value.
pub fn key(index: u16, field: u16, value: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(4 + value.len());
    key.extend_from_slice(&index.to_be_bytes());
    key.extend_from_slice(&field.to_be_bytes());
    key.extend_from_slice(value);
    key
}

/// Documents that have a field.
pub fn has(index: u16, field: u16) -> Plan {
    match field {
        number::EVENT_TIME => Plan::Term(key(index, number::ALL, &[])),
        number::NUMBER | number::KIND => {
            let prefix = key(index, field, &[]);
            Plan::Range(prefix.clone(), behind(prefix))
        }
        field => Plan::Term(key(index, number::EXISTS, &field.to_be_bytes())),
    }
}

/// The key behind all keys that begin so.
pub fn behind(mut prefix: Vec<u8>) -> Vec<u8> {
    while let Some(last) = prefix.last_mut() {
        if *last < 0xff {
            *last += 1;
            return prefix;
        }
        prefix.pop();
    }
    vec![0xff; 5]
}

/// What a field that was asked is.
enum Asked<'a> {
    Field(&'a Entry),
    Id,
    Index,
    Kind,
}

/// Plans questions about one index.
pub struct Planner<'a> {
    index: &'a IndexEntry,
    fields: &'a Fields,
    /// What `now` is in dates.
    now_ms: i64,
    /// What does not fit a field's type is no error.
    lenient: bool,
}

type Planned = Result<Plan, StoreError>;

impl<'a> Planner<'a> {
    /// A planner.
    pub fn new(index: &'a IndexEntry, fields: &'a Fields, now_ms: i64) -> Planner<'a> {
        Planner { index, fields, now_ms, lenient: false }
    }

    /// All documents of the index.
    pub fn all(&self) -> Plan {
        self.term(number::ALL, &[])
    }

    fn term(&self, field: u16, value: &[u8]) -> Plan {
        Plan::Term(key(self.index.no, field, value))
    }

    /// Plans a question.
    pub fn plan(&self, query: &Query) -> Planned {
        match query {
            Query::All => Ok(self.all()),
            Query::None => Ok(Plan::None),
            Query::Match { fields, text, operator } => {
                self.each(fields, |asked, lenient| self.matching(asked, text, *operator, lenient))
            }
            Query::Phrase { fields, text } => self.each(fields, |asked, lenient| match asked {
                Asked::Field(entry) if entry.field.kind == FieldType::Text => Ok(self.phrase(entry, text)),
                asked => self.matching(asked, text, Operator::And, lenient),
            }),
            Query::Term { field, value } => {
                let fields = query::Fields::Named(vec![field.clone()]);
                self.each(&fields, |asked, lenient| self.exactly(asked, value, lenient))
            }
            Query::Range { fields, from, to, format, zone_minutes } => {
                let format = format.as_deref().map(Format::parse).transpose();
                let format = format.map_err(|error| failed(error.to_string()))?;
                let dates = text::Dates { format, zone_minutes: *zone_minutes, now_ms: self.now_ms };
                self.each(fields, |asked, lenient| self.range(asked, from, to, &dates, lenient))
            }
            Query::Prefix { fields, prefix } => {
                self.each(fields, |asked, lenient| self.like(asked, Pattern::prefix(prefix), lenient))
            }
            Query::Wildcard { fields, pattern } => {
                self.each(fields, |asked, lenient| self.like(asked, Pattern::wildcard(pattern), lenient))
            }
            Query::Exists { field } => Ok(self.exists(field)),
            Query::Lenient(query) => Planner { lenient: true, ..*self }.plan(query),
            Query::Ids(ids) => Ok(Plan::Ids(ids.clone())),
            Query::Bool { must, should, must_not, should_min } => {
                self.bool(must, should, must_not, *should_min)
            }
        }
    }

    fn bool(&self, must: &[Query], should: &[Query], must_not: &[Query], should_min: usize) -> Planned {
        let mut all = must.iter().map(|query| self.plan(query)).collect::<Result<Vec<_>, _>>()?;
        let some = should.iter().map(|query| self.plan(query)).collect::<Result<Vec<_>, _>>()?;
        if should_min > 0 {
            all.push(at_least(should_min, some));
        }
        let not = must_not.iter().map(|query| self.plan(query)).collect::<Result<Vec<_>, _>>()?;
        let kept = if all.is_empty() { self.all() } else { and(all) };
        Ok(match at_least(1, not) {
            Plan::None => kept,
            _ if kept == Plan::None => Plan::None,
            not => Plan::Without(Box::new(kept), Box::new(not)),
        })
    }

    /// One of the fields. What does not fit a field's type is an error only where the field was named.
    fn each(&self, fields: &query::Fields, plan: impl Fn(Asked<'_>, bool) -> Planned) -> Planned {
        let all = [String::from("*")];
        let names = match fields {
            query::Fields::All => &all[..],
            query::Fields::Named(names) => names,
        };
        let mut plans = Vec::new();
        for name in names {
            if name.contains('*') {
                let fit =
                    self.fields.iter().filter(|(field, _)| !is_hidden(field) && pattern::fits(name, field));
                for (_, entry) in fit.filter(|(_, entry)| entry.field.kind != FieldType::GeoPoint) {
                    plans.push(plan(Asked::Field(entry), true)?);
                }
            } else if let Some(asked) = self.asked(name) {
                plans.push(plan(asked, self.lenient)?);
            }
        }
        Ok(at_least(1, plans))
    }

    fn asked(&self, name: &str) -> Option<Asked<'a>> {
        match name {
            "_id" => Some(Asked::Id),
            "_index" => Some(Asked::Index),
            "_type" => Some(Asked::Kind),
            _ => self.fields.get(name).map(Asked::Field),
        }
    }

    fn matching(&self, asked: Asked<'_>, asked_text: &str, operator: Operator, lenient: bool) -> Planned {
        match asked {
            Asked::Field(entry) if entry.field.kind == FieldType::Text => {
                let mut terms = Vec::new();
                text::words(asked_text, |word, _| terms.push(self.term(entry.no, word.as_bytes())));
                Ok(match operator {
                    Operator::Or => at_least(1, terms),
                    Operator::And => and(terms),
                })
            }
            asked => self.exactly(asked, &Value::Text(asked_text.to_owned()), lenient),
        }
    }

    fn phrase(&self, entry: &Entry, asked_text: &str) -> Plan {
        let mut words = Vec::new();
        text::words(asked_text, |word, at| words.push((key(self.index.no, entry.no, word.as_bytes()), at)));
        match words.len() {
            0 => Plan::None,
            1 => Plan::Term(words.swap_remove(0).0),
            _ => Plan::Phrase(words),
        }
    }

    /// Documents with this value, as the field's type reads it.
    fn exactly(&self, asked: Asked<'_>, value: &Value, lenient: bool) -> Planned {
        let entry = match asked {
            Asked::Field(entry) => entry,
            Asked::Id => return Ok(Plan::Ids(vec![plain(value)])),
            Asked::Index => return Ok(if self.index.name == plain(value) { self.all() } else { Plan::None }),
            Asked::Kind => return Ok(self.term(number::KIND, plain(value).as_bytes())),
        };
        let unfit = |why: String| if lenient { Ok(Plan::None) } else { Err(failed(why)) };
        let text = plain(value);
        let one = |bytes: &[u8]| Ok(self.term(entry.no, bytes));
        match entry.field.kind {
            FieldType::Text | FieldType::Keyword => one(text.as_bytes()),
            FieldType::Long => match number_of(value) {
                Some(number) if number.fract() != 0.0 => Ok(Plan::None),
                Some(_) => integer_of(value).map_or(Ok(Plan::None), |number| one(&values::long(number))),
                None => unfit(format!("For input string: \"{text}\"")),
            },
            FieldType::Double => match number_of(value) {
                Some(number) => one(&values::double(number)),
                None => unfit(format!("For input string: \"{text}\"")),
            },
            FieldType::Boolean => match text.as_str() {
                "true" => one(&values::boolean(true)),
                "false" | "" => one(&values::boolean(false)),
                _ => unfit(format!("Can't parse boolean value [{text}], expected [true] or [false]")),
            },
            FieldType::Date => {
                let (from, to) = (Bound::Included(value.clone()), Bound::Included(value.clone()));
                let dates = text::Dates { format: None, zone_minutes: 0, now_ms: self.now_ms };
                self.range(Asked::Field(entry), &from, &to, &dates, lenient)
            }
            FieldType::Ip => match text.parse::<ipnet::IpNet>() {
                Ok(network) => Ok(self.addresses(entry.no, network.network(), network.broadcast())),
                Err(_) => match text.parse::<IpAddr>() {
                    Ok(address) => one(&values::ip(address)),
                    Err(_) => unfit(format!("'{text}' is not an IP string literal.")),
                },
            },
            FieldType::GeoPoint => unfit(
                "Geometry fields do not support exact searching, use dedicated geometry queries instead"
                    .into(),
            ),
        }
    }

    fn addresses(&self, field: u16, from: IpAddr, to: IpAddr) -> Plan {
        let from = key(self.index.no, field, &values::ip(from));
        Plan::Range(from, behind(key(self.index.no, field, &values::ip(to))))
    }

    fn range(
        &self,
        asked: Asked<'_>,
        from: &Bound,
        to: &Bound,
        dates: &text::Dates,
        lenient: bool,
    ) -> Planned {
        let Asked::Field(entry) = asked else {
            return Err(failed("ranges of _id, _index and _type are not supported".into()));
        };
        let bounds = match entry.field.kind {
            FieldType::Text | FieldType::Keyword => Ok((
                edge(from, false, |value| Some(plain(value).into_bytes())),
                edge(to, true, |value| Some(plain(value).into_bytes())),
            )),
            FieldType::Long => return self.integers(entry, from, to, lenient),
            FieldType::Double => {
                numbers(from, to, |value| number_of(value).map(|number| values::double(number).to_vec()))
            }
            FieldType::Boolean => numbers(from, to, |value| match plain(value).as_str() {
                "true" => Some(vec![1]),
                "false" => Some(vec![0]),
                _ => None,
            }),
            FieldType::Ip => numbers(from, to, |value| {
                plain(value).parse().ok().map(|address| values::ip(address).to_vec())
            }),
            FieldType::Date => return self.dates(entry, from, to, dates, lenient),
            FieldType::GeoPoint => Err("ranges of geo points are not supported".to_owned()),
        };
        match bounds {
            Ok((from, to)) => {
                let prefix = key(self.index.no, entry.no, &[]);
                let from = from.map_or_else(|| prefix.clone(), |value| key(self.index.no, entry.no, &value));
                let to = to.map_or_else(|| behind(prefix), |value| key(self.index.no, entry.no, &value));
                Ok(range(from, to))
            }
            Err(_) if lenient => Ok(Plan::None),
            Err(why) => Err(failed(why)),
        }
    }

    fn integers(&self, entry: &Entry, from: &Bound, to: &Bound, lenient: bool) -> Planned {
        let read = |value: &Value, down: bool| match integer_of(value) {
            Some(number) => Some((number, true)),
            None => number_of(value).map(|number| {
                let whole = if down { number.floor() } else { number.ceil() };
                (whole as i64, whole == number)
            }),
        };
        let unfit = |value: &Value| format!("For input string: \"{}\"", plain(value));
        let low = match from {
            Bound::Open => Ok(Some(i64::MIN)),
            Bound::Included(value) => {
                read(value, false).map(|(number, _)| Some(number)).ok_or_else(|| unfit(value))
            }
            Bound::Excluded(value) => read(value, false)
                .map(|(number, exact)| if exact { number.checked_add(1) } else { Some(number) })
                .ok_or_else(|| unfit(value)),
        };
        let high = match to {
            Bound::Open => Ok(Some(i64::MAX)),
            Bound::Included(value) => {
                read(value, true).map(|(number, _)| Some(number)).ok_or_else(|| unfit(value))
            }
            Bound::Excluded(value) => read(value, true)
                .map(|(number, exact)| if exact { number.checked_sub(1) } else { Some(number) })
                .ok_or_else(|| unfit(value)),
        };
        match (low, high) {
            (Ok(Some(low)), Ok(Some(high))) => Ok(self.between(entry.no, low, high)),
            (Ok(_), Ok(_)) => Ok(Plan::None),
            _ if lenient => Ok(Plan::None),
            (Err(why), _) | (_, Err(why)) => Err(failed(why)),
        }
    }

    /// Integers from `low` to `high`, both included.
    fn between(&self, field: u16, low: i64, high: i64) -> Plan {
        if low > high {
            return Plan::None;
        }
        let from = key(self.index.no, field, &values::long(low));
        range(from, behind(key(self.index.no, field, &values::long(high))))
    }

    fn dates(&self, entry: &Entry, from: &Bound, to: &Bound, dates: &text::Dates, lenient: bool) -> Planned {
        match dates.range(from, to, entry.dates.as_deref().unwrap_or(&text::DATES)) {
            Ok((low, high)) => Ok(self.times(entry.no, low, high)),
            Err(_) if lenient => Ok(Plan::None),
            Err(why) => Err(failed(why)),
        }
    }

    /// Times from `low` to `high`: whole hours by the hours' keys, the rest by the times themselves.
    pub fn times(&self, field: u16, low: i64, high: i64) -> Plan {
        let hour = values::HOUR_MS;
        let first = low.div_euclid(hour) + i64::from(low.rem_euclid(hour) > 0);
        // The last hour that ends at or before `high`.
        let last = high.div_euclid(hour) - i64::from(high.rem_euclid(hour) < hour - 1);
        if first > last {
            return self.between(field, low, high);
        }
        let mut parts = vec![self.between(field | number::HOURS, first, last)];
        if let Some(begin) = first.checked_mul(hour) {
            parts.push(self.between(field, low, begin.saturating_sub(1)));
        }
        if let Some(end) = (last + 1).checked_mul(hour) {
            parts.push(self.between(field, end, high));
        }
        at_least(1, parts)
    }

    fn like(&self, asked: Asked<'_>, pattern: Pattern, lenient: bool) -> Planned {
        let entry = match asked {
            Asked::Field(entry) => entry,
            Asked::Index => {
                return Ok(if pattern.fits(self.index.name.as_bytes()) { self.all() } else { Plan::None });
            }
            Asked::Kind => return Ok(self.pattern(number::KIND, pattern)),
            Asked::Id => return Err(failed("patterns of _id are not supported".into())),
        };
        match entry.field.kind {
            // Words of a text are kept in lower case.
            FieldType::Text => Ok(self.pattern(entry.no, pattern.lowercase())),
            FieldType::Keyword => Ok(self.pattern(entry.no, pattern)),
            _ if pattern.fits_all() => Ok(self.has(entry.no)),
            _ if lenient => Ok(Plan::None),
            _ => Err(failed(format!(
                "Can only use prefix and wildcard queries on keyword and text fields - not on a field of type [{}]",
                entry.field.type_name()
            ))),
        }
    }

    fn pattern(&self, field: u16, pattern: Pattern) -> Plan {
        if pattern.fits_all() {
            return self.has(field);
        }
        let from = key(self.index.no, field, pattern.head());
        if pattern.is_prefix() {
            return range(from.clone(), behind(from));
        }
        Plan::Like(from, pattern)
    }

    fn has(&self, field: u16) -> Plan {
        has(self.index.no, field)
    }

    fn exists(&self, name: &str) -> Plan {
        if matches!(name, "_id" | "_index" | "*") {
            return self.all();
        }
        if name == "_type" {
            return self.has(number::KIND);
        }
        let below = format!("{name}.");
        let fit = |field: &str, entry: &Entry| {
            field == name
                || !is_hidden(field)
                    && (pattern::fits(name, field)
                        || field.starts_with(&below) && entry.field.parent.is_none())
        };
        let fields = self.fields.iter().filter(|(field, entry)| fit(field, entry));
        at_least(1, fields.map(|(_, entry)| self.has(entry.no)).collect())
    }
}

fn failed(why: String) -> StoreError {
    StoreError::Invalid(format!("failed to create query: {why}"))
}

fn range(from: Vec<u8>, to: Vec<u8>) -> Plan {
    if from < to { Plan::Range(from, to) } else { Plan::None }
}

/// All of these.
fn and(mut plans: Vec<Plan>) -> Plan {
    if plans.contains(&Plan::None) || plans.is_empty() {
        return Plan::None;
    }
    if plans.len() == 1 { plans.swap_remove(0) } else { Plan::And(plans) }
}

/// So many of these.
pub fn at_least(count: usize, mut plans: Vec<Plan>) -> Plan {
    plans.retain(|plan| *plan != Plan::None);
    if count == 1 {
        // The same asked twice is asked once.
        let mut seen = std::collections::HashSet::new();
        plans.retain(|plan| seen.insert(plan.clone()));
    }
    match plans.len() {
        found if found < count => Plan::None,
        0 => Plan::None,
        1 => plans.swap_remove(0),
        found if found == count => Plan::And(plans),
        _ => Plan::AtLeast(count, plans),
    }
}
