//! Plans of ranges: integers, times, addresses and other values. Pure.

use std::net::IpAddr;

use super::{Operand, PlanResult, Planner, QueryPlan, at_least, prefix_end, query_error, term_key};
use crate::search::mapping::FieldType;
use crate::search::query::{Bound, QueryValue};
use crate::search::sqlite::bounds::{bound_key, bound_keys, to_integer, to_number, value_text};
use crate::search::sqlite::catalog::{FieldEntry, field_ids};
use crate::search::sqlite::{text, values};
use crate::search::store::StoreError;

impl Planner<'_> {
    pub(super) fn plan_addresses(&self, field: u16, from: IpAddr, to: IpAddr) -> QueryPlan {
        let from = term_key(self.index.id, field, &values::encode_ip(from));
        QueryPlan::Range(from, prefix_end(term_key(self.index.id, field, &values::encode_ip(to))))
    }

    pub(super) fn plan_range(
        &self,
        operand: Operand<'_>,
        from: &Bound,
        to: &Bound,
        dates: &text::QueryDates,
        lenient: bool,
    ) -> PlanResult {
        let Operand::Field(entry) = operand else {
            let name = match operand {
                Operand::Id => "_id",
                Operand::Index => "_index",
                _ => "_type",
            };
            return Err(query_error(format!(
                "Field [{name}] of type [{name}] does not support range queries"
            )));
        };
        self.check_indexed(entry)?;
        let bounds = match entry.field.field_type {
            FieldType::Text | FieldType::Keyword => Ok((
                bound_key(from, false, |value| Some(value_text(value).into_bytes())),
                bound_key(to, true, |value| Some(value_text(value).into_bytes())),
            )),
            FieldType::Long => return self.plan_integers(entry, from, to, lenient),
            FieldType::Double => bound_keys(from, to, |value| {
                to_number(value).map(|number| values::encode_double(number).to_vec())
            }),
            FieldType::Boolean => bound_keys(from, to, |value| match value_text(value).as_str() {
                "true" => Some(vec![1]),
                "false" => Some(vec![0]),
                _ => None,
            }),
            FieldType::Ip => bound_keys(from, to, |value| {
                value_text(value).parse().ok().map(|address| values::encode_ip(address).to_vec())
            }),
            FieldType::Date => return self.plan_dates(entry, from, to, dates, lenient),
            FieldType::GeoPoint => Err("ranges of geo points are not supported".to_owned()),
        };
        match bounds {
            Ok((from, to)) => {
                let prefix = term_key(self.index.id, entry.id, &[]);
                let from =
                    from.map_or_else(|| prefix.clone(), |value| term_key(self.index.id, entry.id, &value));
                let to =
                    to.map_or_else(|| prefix_end(prefix), |value| term_key(self.index.id, entry.id, &value));
                Ok(key_range(from, to))
            }
            Err(_) if lenient => Ok(QueryPlan::None),
            Err(why) => Err(query_error(why)),
        }
    }

    fn plan_integers(&self, entry: &FieldEntry, from: &Bound, to: &Bound, lenient: bool) -> PlanResult {
        let read = |value: &QueryValue, down: bool| match to_integer(value) {
            Some(number) => Some((number, true)),
            None => to_number(value).map(|number| {
                let whole = if down { number.floor() } else { number.ceil() };
                (whole as i64, whole == number)
            }),
        };
        let invalid = |value: &QueryValue| format!("For input string: \"{}\"", value_text(value));
        let low = match from {
            Bound::Open => Ok(Some(i64::MIN)),
            Bound::Included(value) => {
                read(value, false).map(|(number, _)| Some(number)).ok_or_else(|| invalid(value))
            }
            Bound::Excluded(value) => read(value, false)
                .map(|(number, exact)| if exact { number.checked_add(1) } else { Some(number) })
                .ok_or_else(|| invalid(value)),
        };
        let high = match to {
            Bound::Open => Ok(Some(i64::MAX)),
            Bound::Included(value) => {
                read(value, true).map(|(number, _)| Some(number)).ok_or_else(|| invalid(value))
            }
            Bound::Excluded(value) => read(value, true)
                .map(|(number, exact)| if exact { number.checked_sub(1) } else { Some(number) })
                .ok_or_else(|| invalid(value)),
        };
        match (low, high) {
            (Ok(Some(low)), Ok(Some(high))) => Ok(self.plan_between(entry.id, low, high)),
            (Ok(_), Ok(_)) => Ok(QueryPlan::None),
            _ if lenient => Ok(QueryPlan::None),
            (Err(why), _) | (_, Err(why)) => Err(query_error(why)),
        }
    }

    /// Plans a range of integers, both bounds included.
    pub(super) fn plan_between(&self, field: u16, low: i64, high: i64) -> QueryPlan {
        if low > high {
            return QueryPlan::None;
        }
        let from = term_key(self.index.id, field, &values::encode_long(low));
        key_range(from, prefix_end(term_key(self.index.id, field, &values::encode_long(high))))
    }

    fn plan_dates(
        &self,
        entry: &FieldEntry,
        from: &Bound,
        to: &Bound,
        dates: &text::QueryDates,
        lenient: bool,
    ) -> PlanResult {
        match dates.read_range(from, to, entry.date_format.as_deref().unwrap_or(&text::DEFAULT_DATE_FORMAT)) {
            Ok((low, high)) => Ok(self.plan_times(entry.id, low, high)),
            Err(_) if lenient => Ok(QueryPlan::None),
            Err(why) if why.starts_with("failed to parse date field") => {
                Err(StoreError::Invalid(format!("{why}: [{why}]")))
            }
            Err(why) => Err(query_error(why)),
        }
    }

    /// Plans a range of times: keys of hours for complete hours, keys of times for the rest.
    fn plan_times(&self, field: u16, low: i64, high: i64) -> QueryPlan {
        let hour = values::HOUR_MS;
        let first = low.div_euclid(hour) + i64::from(low.rem_euclid(hour) > 0);
        // The last hour that ends at or before `high`.
        let last = high.div_euclid(hour) - i64::from(high.rem_euclid(hour) < hour - 1);
        if first > last {
            return self.plan_between(field, low, high);
        }
        let mut parts = vec![self.plan_between(field | field_ids::HOURS, first, last)];
        if let Some(start) = first.checked_mul(hour) {
            parts.push(self.plan_between(field, low, start.saturating_sub(1)));
        }
        if let Some(end) = (last + 1).checked_mul(hour) {
            parts.push(self.plan_between(field, end, high));
        }
        at_least(1, parts)
    }
}

pub(super) fn key_range(from: Vec<u8>, to: Vec<u8>) -> QueryPlan {
    if from < to { QueryPlan::Range(from, to) } else { QueryPlan::None }
}
