//! Readers of the members that several aggregations share. Pure code.

use super::super::json::OrderedJson;
use super::super::{QueryError, QueryValue};
use super::{BucketOrder, BucketOrderKey, ValueSource};
use crate::search::date::TimeZone;

pub(super) type Members<'a> = &'a [(String, OrderedJson)];

/// The position and type of an aggregation in the request, for error messages.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    pub name: &'a str,
    pub type_name: &'static str,
}

impl Place<'_> {
    pub(super) fn unknown(self, key: &str) -> QueryError {
        QueryError::content(format!("[{}] unknown field [{key}]", self.type_name))
    }

    /// The value of a member is wrong.
    pub(super) fn failed(self, key: &str, cause: impl Into<String>) -> QueryError {
        let error = QueryError::content(format!("[{}] failed to parse field [{key}]", self.type_name));
        QueryError { cause: Some(cause.into()), ..error }
    }

    pub(super) fn wrong_type(self, key: &str, json: &OrderedJson) -> QueryError {
        let token = json.token_name();
        QueryError::content(format!("[{}] {key} doesn't support values of type: {token}", self.type_name))
    }

    pub(super) fn number(self, key: &str, json: &OrderedJson) -> Result<f64, QueryError> {
        match json {
            OrderedJson::Long(number) => Ok(*number as f64),
            OrderedJson::Double(number) => Ok(*number),
            OrderedJson::Text(text) => {
                text.trim().parse().map_err(|_| self.failed(key, format!("For input string: \"{text}\"")))
            }
            json => Err(self.wrong_type(key, json)),
        }
    }

    pub(super) fn long(self, key: &str, json: &OrderedJson) -> Result<i64, QueryError> {
        match json {
            OrderedJson::Long(number) => Ok(*number),
            OrderedJson::Double(number) if number.fract() == 0.0 && number.abs() < 9e15 => Ok(*number as i64),
            OrderedJson::Text(text) => {
                text.trim().parse().map_err(|_| self.failed(key, format!("For input string: \"{text}\"")))
            }
            json => Err(self.wrong_type(key, json)),
        }
    }

    pub(super) fn text(self, key: &str, json: &OrderedJson) -> Result<String, QueryError> {
        json.to_text().ok_or_else(|| self.wrong_type(key, json))
    }

    pub(super) fn boolean(self, key: &str, json: &OrderedJson) -> Result<bool, QueryError> {
        match json.to_text().as_deref() {
            Some("true") => Ok(true),
            Some("false") => Ok(false),
            Some(text) => Err(self.failed(
                key,
                format!("Failed to parse value [{text}] as only [true] or [false] are allowed."),
            )),
            None => Err(self.wrong_type(key, json)),
        }
    }

    pub(super) fn min_doc_count(self, json: &OrderedJson) -> Result<u64, QueryError> {
        let count = self.long("min_doc_count", json)?;
        let cause = || {
            format!("[min_doc_count] must be greater than or equal to 0. Found [{count}] in [{}]", self.name)
        };
        u64::try_from(count).map_err(|_| self.failed("min_doc_count", cause()))
    }

    /// Reads `order`: `{"_count": "desc"}` or a list of these.
    pub(super) fn order(self, json: &OrderedJson) -> Result<Vec<BucketOrder>, QueryError> {
        let list = match json {
            OrderedJson::List(list) => list.as_slice(),
            one => std::slice::from_ref(one),
        };
        let mut order = Vec::new();
        for json in list {
            let OrderedJson::Object(members) = json else { return Err(self.wrong_type("order", json)) };
            let [(path, direction)] = members.as_slice() else {
                return Err(QueryError::parsing("Must specify at least one field for [order]"));
            };
            let word = direction.to_text().unwrap_or_default();
            let ascending = match word.to_ascii_lowercase().as_str() {
                "asc" => true,
                "desc" => false,
                _ => return Err(QueryError::parsing(format!("Unknown order direction [{word}]"))),
            };
            order.push(BucketOrder { key: order_key(path), ascending });
        }
        if order.len() > ORDERS_MAX {
            let reason = format!("[order] has more than {ORDERS_MAX} criteria");
            return Err(QueryError::argument(reason));
        }
        Ok(order)
    }
}

/// Maximum number of criteria of an order.
const ORDERS_MAX: usize = 8;

fn order_key(path: &str) -> BucketOrderKey {
    match path {
        "_key" | "_term" | "_time" => BucketOrderKey::Key,
        "_count" => BucketOrderKey::Count,
        path => {
            let (path, bracket) = match path.strip_suffix(']').and_then(|path| path.rsplit_once('[')) {
                Some((path, value)) => (path, Some(value)),
                None => (path, None),
            };
            let mut names: Vec<String> = path.split('>').map(str::to_owned).collect();
            let mut value = bracket.map(str::to_owned);
            if value.is_none()
                && let Some((name, last)) = names.last().and_then(|last| last.split_once('.'))
            {
                value = Some(last.to_owned());
                let name = name.to_owned();
                names.pop();
                names.push(name);
            }
            BucketOrderKey::Metric { path: names, value }
        }
    }
}

/// Reader of the members that define a [`ValueSource`].
#[derive(Debug, Default)]
pub(super) struct SourceReader {
    field: Option<String>,
    missing: Option<QueryValue>,
    format: Option<String>,
    zone: Option<TimeZone>,
}

impl SourceReader {
    /// Reads a member. Returns false if it does not belong to the source.
    pub(super) fn read(
        &mut self,
        place: Place<'_>,
        key: &str,
        json: &OrderedJson,
    ) -> Result<bool, QueryError> {
        match key {
            "field" => self.field = Some(place.text(key, json)?),
            "missing" => self.missing = Some(json.to_value().ok_or_else(|| place.wrong_type(key, json))?),
            "format" => self.format = Some(place.text(key, json)?),
            "time_zone" => {
                let text = place.text(key, json)?;
                let zone = TimeZone::parse(&text)
                    .map_err(|_| place.failed(key, format!("Unknown time-zone ID: {text}")))?;
                self.zone = Some(zone);
            }
            // A hint for fields that no index has.
            "value_type" | "valueType" => {}
            "script" => return Err(QueryError::argument("[script] in aggregations is not supported")),
            _ => return Ok(false),
        }
        Ok(true)
    }

    pub(super) fn finish(self) -> Result<ValueSource, QueryError> {
        let none = || {
            QueryError::argument(
                "Required one of fields [field, script], but none were specified. ".to_owned(),
            )
        };
        Ok(ValueSource {
            field: self.field.ok_or_else(none)?,
            missing: self.missing,
            format: self.format,
            zone: self.zone.unwrap_or_default(),
        })
    }
}
