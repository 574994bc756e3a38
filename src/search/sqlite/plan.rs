//! Query planner: translates a query into lookups of keys of one index. Pure.

mod patterns;
mod ranges;

use std::net::IpAddr;

use super::bounds::{to_integer, to_number, value_text};
use super::catalog::{FieldEntry, IndexEntry, IndexFields, field_ids, is_hidden};
use super::pattern::WildcardPattern;
use super::term_pattern::TermPattern;
use super::{text, values};
use crate::search::date::{DateFormat, TimeZone};
use crate::search::glob::glob_matches;
use crate::search::mapping::FieldType;
use crate::search::query::{self, Bound, Operator, Query, QueryValue};
use crate::search::store::StoreError;

/// Plan of a query for one index.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum QueryPlan {
    /// Matches no document.
    None,
    /// Documents with this key.
    Term(Vec<u8>),
    /// Documents with a key from the first (included) to the second (excluded).
    Range(Vec<u8>, Vec<u8>),
    /// Documents with a key that starts with these bytes and whose value matches the pattern.
    Matching(Vec<u8>, TermPattern),
    /// Documents that contain these keys at these distances from the first. The keys can be moved by this number of
    /// places in total.
    Phrase(Vec<(Vec<u8>, u32)>, u32),
    /// The same, and the last key starts with the bytes.
    PhrasePrefix(Vec<(Vec<u8>, u32)>, (Vec<u8>, u32), u32),
    /// Documents with these ids.
    Ids(Vec<String>),
    /// Documents that match all plans.
    And(Vec<QueryPlan>),
    /// Documents that match at least this number of the plans.
    AtLeast(usize, Vec<QueryPlan>),
    /// Documents that match the first plan but not the second.
    Without(Box<QueryPlan>, Box<QueryPlan>),
}

/// Returns a key: index id, field id, value.
pub(super) fn term_key(index: u16, field: u16, value: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(4 + value.len());
    key.extend_from_slice(&index.to_be_bytes());
    key.extend_from_slice(&field.to_be_bytes());
    key.extend_from_slice(value);
    key
}

/// Returns the plan for documents that have a field.
pub(super) fn exists_plan(index: u16, field: u16) -> QueryPlan {
    match field {
        field_ids::EVENT_TIME => QueryPlan::Term(term_key(index, field_ids::ALL, &[])),
        field_ids::ALL_NUMBERS | field_ids::DOC_TYPE => {
            let prefix = term_key(index, field, &[]);
            QueryPlan::Range(prefix.clone(), prefix_end(prefix))
        }
        field => QueryPlan::Term(term_key(index, field_ids::EXISTS, &field.to_be_bytes())),
    }
}

/// Returns the first key after all keys that start with `prefix`.
pub(super) fn prefix_end(mut prefix: Vec<u8>) -> Vec<u8> {
    while let Some(last) = prefix.last_mut() {
        if *last < 0xff {
            *last += 1;
            return prefix;
        }
        prefix.pop();
    }
    vec![0xff; 5]
}

/// Kind of field that a leaf query addresses.
enum Operand<'a> {
    Field(&'a FieldEntry),
    Id,
    Index,
    /// A field of the store with these texts: `_type`, `_ignored`.
    Metadata(u16),
}

/// Planner of queries for one index.
pub(super) struct Planner<'a> {
    index: &'a IndexEntry,
    fields: &'a IndexFields,
    /// Value of `now` in dates.
    now_ms: i64,
    /// True if a value that does not have the type of its field matches nothing, instead of being an error.
    is_lenient: bool,
}

type PlanResult = Result<QueryPlan, StoreError>;

impl<'a> Planner<'a> {
    pub(super) fn new(index: &'a IndexEntry, fields: &'a IndexFields, now_ms: i64) -> Planner<'a> {
        Planner { index, fields, now_ms, is_lenient: false }
    }

    /// Returns the plan for all documents of the index.
    pub(super) fn all_docs(&self) -> QueryPlan {
        self.term(field_ids::ALL, &[])
    }

    fn term(&self, field: u16, value: &[u8]) -> QueryPlan {
        QueryPlan::Term(term_key(self.index.id, field, value))
    }

    /// Plans a query.
    pub(super) fn plan(&self, query: &Query) -> PlanResult {
        match query {
            Query::All => Ok(self.all_docs()),
            Query::None => Ok(QueryPlan::None),
            Query::Match { fields, text, operator } => self
                .plan_fields(fields, |operand, lenient| self.plan_match(operand, text, *operator, lenient)),
            Query::Phrase { fields, text } => self.plan_fields(fields, |operand, lenient| match operand {
                Operand::Field(entry) if entry.field.field_type == FieldType::Text => {
                    Ok(self.plan_phrase(entry, text, 0))
                }
                operand => self.plan_match(operand, text, Operator::And, lenient),
            }),
            Query::Term { field, value } => {
                let fields = query::FieldSelector::Named(vec![field.clone()]);
                self.plan_fields(&fields, |operand, lenient| self.plan_equal(operand, value, lenient))
            }
            Query::Range { fields, from, to, format, zone } => {
                let format = format.as_deref().map(DateFormat::parse).transpose();
                let format = format.map_err(|error| query_error(error.to_string()))?;
                let dates = text::QueryDates { format, zone: *zone, now_ms: self.now_ms };
                self.plan_fields(fields, |operand, lenient| {
                    self.plan_range(operand, from, to, &dates, lenient)
                })
            }
            Query::Prefix { fields, prefix } => self.plan_fields(fields, |operand, lenient| {
                self.plan_wildcard(operand, WildcardPattern::prefix(prefix), lenient)
            }),
            Query::Wildcard { fields, pattern } => self.plan_fields(fields, |operand, lenient| {
                self.plan_wildcard(operand, WildcardPattern::wildcard(pattern), lenient)
            }),
            Query::Exists { field } => self.plan_exists(field),
            Query::MatchAtLeast { fields, text, minimum } => self.plan_fields(fields, |operand, lenient| {
                self.plan_match_at_least(operand, text, minimum, lenient)
            }),
            Query::NearPhrase { fields, text, slop } => {
                self.plan_fields(fields, |operand, lenient| match operand {
                    Operand::Field(entry) if entry.field.field_type == FieldType::Text => {
                        Ok(self.plan_phrase(entry, text, *slop))
                    }
                    operand => self.plan_match(operand, text, Operator::And, lenient),
                })
            }
            Query::PhrasePrefix { fields, text, slop } => self.plan_fields(fields, |operand, lenient| {
                self.plan_phrase_prefix(operand, text, *slop, lenient)
            }),
            Query::Fuzzy { fields, text, operator, fuzziness } => self
                .plan_fields(fields, |operand, lenient| {
                    self.plan_fuzzy(operand, text, *operator, fuzziness, lenient)
                }),
            Query::Pattern { fields, pattern, ignores_case } => self
                .plan_fields(fields, |operand, lenient| {
                    self.plan_token_pattern(operand, pattern, *ignores_case, lenient)
                }),
            Query::Geo { field, shape, ignores_unmapped } => self.plan_geo(field, *shape, *ignores_unmapped),
            Query::Lenient(query) => Planner { is_lenient: true, ..*self }.plan(query),
            Query::Ids(ids) => Ok(QueryPlan::Ids(ids.clone())),
            Query::Bool { must, should, must_not, should_min } => {
                self.plan_bool(must, should, must_not, *should_min)
            }
        }
    }

    fn plan_bool(
        &self,
        must: &[Query],
        should: &[Query],
        must_not: &[Query],
        should_min: usize,
    ) -> PlanResult {
        let mut all = must.iter().map(|query| self.plan(query)).collect::<Result<Vec<_>, _>>()?;
        let some = should.iter().map(|query| self.plan(query)).collect::<Result<Vec<_>, _>>()?;
        if should_min > 0 {
            all.push(at_least(should_min, some));
        }
        let not = must_not.iter().map(|query| self.plan(query)).collect::<Result<Vec<_>, _>>()?;
        let matching = if all.is_empty() { self.all_docs() } else { all_of(all) };
        Ok(match at_least(1, not) {
            QueryPlan::None => matching,
            _ if matching == QueryPlan::None => QueryPlan::None,
            not => QueryPlan::Without(Box::new(matching), Box::new(not)),
        })
    }

    /// Plans a leaf query on any of several fields. Wildcard field names skip fields whose type does not fit the value.
    fn plan_fields(
        &self,
        fields: &query::FieldSelector,
        plan: impl Fn(Operand<'_>, bool) -> PlanResult,
    ) -> PlanResult {
        let all = [String::from("*")];
        let names = match fields {
            query::FieldSelector::All => &all[..],
            query::FieldSelector::Named(names) => names,
        };
        let mut plans = Vec::new();
        for name in names {
            if name.contains('*') {
                let fit =
                    self.fields.iter().filter(|(field, _)| !is_hidden(field) && glob_matches(name, field));
                for (_, entry) in fit.filter(|(_, entry)| entry.field.field_type != FieldType::GeoPoint) {
                    plans.push(plan(Operand::Field(entry), true)?);
                }
            } else if let Some(operand) = self.operand(name)? {
                plans.push(plan(operand, self.is_lenient)?);
            }
        }
        Ok(at_least(1, plans))
    }

    fn operand(&self, name: &str) -> Result<Option<Operand<'a>>, StoreError> {
        check_searchable(name)?;
        Ok(match name {
            "_id" => Some(Operand::Id),
            "_index" => Some(Operand::Index),
            _ => match metadata_field(name) {
                Some(field) => Some(Operand::Metadata(field)),
                None => self.fields.get(name).map(Operand::Field),
            },
        })
    }

    fn plan_match(
        &self,
        operand: Operand<'_>,
        text_value: &str,
        operator: Operator,
        lenient: bool,
    ) -> PlanResult {
        match operand {
            Operand::Field(entry) if entry.field.field_type == FieldType::Text => {
                self.check_indexed(entry)?;
                let mut terms = Vec::new();
                text::each_word(text_value, |word, _| terms.push(self.term(entry.id, word.as_bytes())));
                Ok(match operator {
                    Operator::Or => at_least(1, terms),
                    Operator::And => all_of(terms),
                })
            }
            operand => self.plan_equal(operand, &QueryValue::Text(text_value.to_owned()), lenient),
        }
    }

    fn plan_phrase(&self, entry: &FieldEntry, text_value: &str, slop: u32) -> QueryPlan {
        let mut words = Vec::new();
        text::each_word(text_value, |word, at| {
            words.push((term_key(self.index.id, entry.id, word.as_bytes()), at))
        });
        match words.len() {
            0 => QueryPlan::None,
            1 => QueryPlan::Term(words.swap_remove(0).0),
            _ => QueryPlan::Phrase(words, slop),
        }
    }

    /// Plans a search for a value, read by the type of the field.
    fn plan_equal(&self, operand: Operand<'_>, value: &QueryValue, lenient: bool) -> PlanResult {
        let entry = match operand {
            Operand::Field(entry) => entry,
            Operand::Id => return Ok(QueryPlan::Ids(vec![value_text(value)])),
            Operand::Index => {
                return Ok(if glob_matches(&value_text(value), &self.index.name) {
                    self.all_docs()
                } else {
                    QueryPlan::None
                });
            }
            Operand::Metadata(field) => {
                let text = value_text(value);
                let found = self.term(field, text.as_bytes());
                return Ok(self.with_default_type(field, text == DEFAULT_TYPE, found));
            }
        };
        self.check_indexed(entry)?;
        let invalid = |why: String| if lenient { Ok(QueryPlan::None) } else { Err(query_error(why)) };
        let text = value_text(value);
        let one = |bytes: &[u8]| Ok(self.term(entry.id, bytes));
        match entry.field.field_type {
            FieldType::Text | FieldType::Keyword => one(text.as_bytes()),
            FieldType::Long => match to_number(value) {
                Some(number) if number.fract() != 0.0 => Ok(QueryPlan::None),
                Some(_) => {
                    to_integer(value).map_or(Ok(QueryPlan::None), |number| one(&values::encode_long(number)))
                }
                None => invalid(format!("For input string: \"{text}\"")),
            },
            FieldType::Double => match to_number(value) {
                Some(number) => one(&values::encode_double(number)),
                None => invalid(format!("For input string: \"{text}\"")),
            },
            FieldType::Boolean => match text.as_str() {
                "true" => one(&values::encode_boolean(true)),
                "false" | "" => one(&values::encode_boolean(false)),
                _ => invalid(format!("Can't parse boolean value [{text}], expected [true] or [false]")),
            },
            FieldType::Date => {
                let (from, to) = (Bound::Included(value.clone()), Bound::Included(value.clone()));
                let dates = text::QueryDates { format: None, zone: TimeZone::UTC, now_ms: self.now_ms };
                self.plan_range(Operand::Field(entry), &from, &to, &dates, lenient)
            }
            FieldType::Ip => match text.parse::<ipnet::IpNet>() {
                Ok(network) => Ok(self.plan_addresses(entry.id, network.network(), network.broadcast())),
                Err(_) => match text.parse::<IpAddr>() {
                    Ok(address) => one(&values::encode_ip(address)),
                    Err(_) => invalid(format!("'{text}' is not an IP string literal.")),
                },
            },
            FieldType::GeoPoint => invalid(
                "Geometry fields do not support exact searching, use dedicated geometry queries instead"
                    .into(),
            ),
        }
    }

    fn plan_wildcard(&self, operand: Operand<'_>, pattern: WildcardPattern, lenient: bool) -> PlanResult {
        let entry = match operand {
            Operand::Field(entry) => entry,
            Operand::Index => {
                return Ok(if pattern.matches(self.index.name.as_bytes()) {
                    self.all_docs()
                } else {
                    QueryPlan::None
                });
            }
            Operand::Metadata(field) => {
                let is_default = pattern.matches(DEFAULT_TYPE.as_bytes());
                let found = self.plan_pattern(field, pattern);
                return Ok(self.with_default_type(field, is_default, found));
            }
            Operand::Id if lenient => return Ok(QueryPlan::None),
            Operand::Id => return Err(no_pattern("prefix", "_id", "_id")),
        };
        self.check_indexed(entry)?;
        match entry.field.field_type {
            // Words of a text are indexed in lower case.
            FieldType::Text => Ok(self.plan_pattern(entry.id, pattern.lowercase())),
            FieldType::Keyword => Ok(self.plan_pattern(entry.id, pattern)),
            _ if pattern.matches_all() => Ok(self.has(entry.id)),
            _ if lenient => Ok(QueryPlan::None),
            _ => Err(no_pattern("wildcard", &entry.name, entry.field.type_name())),
        }
    }

    fn plan_pattern(&self, field: u16, pattern: WildcardPattern) -> QueryPlan {
        if pattern.matches_all() {
            return self.has(field);
        }
        let from = term_key(self.index.id, field, pattern.literal_prefix());
        if pattern.is_prefix() {
            return ranges::key_range(from.clone(), prefix_end(from));
        }
        QueryPlan::Matching(from, TermPattern::Wildcard(pattern))
    }

    /// Adds the documents without a type to those of a type, if they have the default one.
    fn with_default_type(&self, field: u16, is_default: bool, found: QueryPlan) -> QueryPlan {
        if field != field_ids::DOC_TYPE || !is_default {
            return found;
        }
        let untyped = QueryPlan::Without(Box::new(self.all_docs()), Box::new(self.has(field)));
        at_least(1, vec![found, untyped])
    }

    /// Rejects a field with `"index": false`.
    fn check_indexed(&self, entry: &FieldEntry) -> Result<(), StoreError> {
        match entry.field.is_searchable {
            true => Ok(()),
            false => {
                let why = format!("Cannot search on field [{}] since it is not indexed.", entry.name);
                Err(query_error(why))
            }
        }
    }

    fn has(&self, field: u16) -> QueryPlan {
        exists_plan(self.index.id, field)
    }

    fn plan_exists(&self, name: &str) -> PlanResult {
        check_searchable(name)?;
        if matches!(name, "_id" | "_index" | "_type" | "*") {
            return Ok(self.all_docs());
        }
        if let Some(field) = metadata_field(name) {
            return Ok(self.has(field));
        }
        let below = format!("{name}.");
        let fit = |field: &str, entry: &FieldEntry| {
            field == name
                || !is_hidden(field)
                    && (glob_matches(name, field)
                        || field.starts_with(&below) && entry.field.parent.is_none())
        };
        let fields = self.fields.iter().filter(|(field, entry)| fit(field, entry));
        Ok(at_least(1, fields.map(|(_, entry)| self.has(entry.id)).collect()))
    }
}

/// Type of a document that was sent without one.
const DEFAULT_TYPE: &str = "_doc";

/// Rejects fields of Elasticsearch that the store does not have, instead of finding nothing in them.
fn check_searchable(name: &str) -> Result<(), StoreError> {
    match name {
        "_source" | "_version" | "_primary_term" => {
            Err(StoreError::Invalid(format!("The {name} field is not searchable")))
        }
        "_seq_no" | "_size" | "_tier" | "_nested_path" | "_doc_count" => {
            Err(query_error(format!("the field [{name}] is not supported in queries")))
        }
        _ => Ok(()),
    }
}

/// Returns the id of a field of the store that has texts and no mapping.
fn metadata_field(name: &str) -> Option<u16> {
    match name {
        "_type" => Some(field_ids::DOC_TYPE),
        "_ignored" => Some(field_ids::IGNORED),
        _ => None,
    }
}

/// Elasticsearch's message about a pattern for a field that has no texts.
fn no_pattern(query: &str, name: &str, type_name: &str) -> StoreError {
    let types = if query == "regexp" { "keyword and text" } else { "keyword, text and wildcard" };
    StoreError::Invalid(format!(
        "Can only use {query} queries on {types} fields - not on [{name}] which is of type [{type_name}]"
    ))
}

fn query_error(why: String) -> StoreError {
    StoreError::Invalid(format!("failed to create query: {why}"))
}

/// Combines plans that must all match.
fn all_of(mut plans: Vec<QueryPlan>) -> QueryPlan {
    if plans.contains(&QueryPlan::None) || plans.is_empty() {
        return QueryPlan::None;
    }
    if plans.len() == 1 { plans.swap_remove(0) } else { QueryPlan::And(plans) }
}

/// Combines plans of which at least `count` must match.
// The hash of an expression does not include the cache inside it.
#[allow(clippy::mutable_key_type)]
pub(super) fn at_least(count: usize, mut plans: Vec<QueryPlan>) -> QueryPlan {
    plans.retain(|plan| *plan != QueryPlan::None);
    if count == 1 {
        // Duplicates need to be searched only once.
        let mut seen = std::collections::HashSet::new();
        plans.retain(|plan| seen.insert(plan.clone()));
    }
    match plans.len() {
        left if left < count => QueryPlan::None,
        0 => QueryPlan::None,
        1 => plans.swap_remove(0),
        left if left == count => QueryPlan::And(plans),
        _ => QueryPlan::AtLeast(count, plans),
    }
}
