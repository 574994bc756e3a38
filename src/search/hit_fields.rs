//! The values of fields that a search returns with each hit: `fields` from the source, `docvalue_fields` as a column would
//! store them. The forms are those of Elasticsearch 7.17. Pure code.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::date::write::DateWriter;
use super::date::{DateFormat, TimeZone};
use super::geo::GeoPoint;
use super::glob::glob_matches;
use super::mapping::{Field, FieldType, Mapping};
use super::query::{HitOptions, WantedField};
use super::sqlite::field_values::{
    LeafValue, parse_boolean, parse_float, parse_integer, parse_ip, parse_keyword,
};
use super::sqlite::text;
use crate::runtime::json::{self, JsonObject, parse_value};

/// Deepest nesting of the values that are read.
const DEPTH_MAX: usize = 64;

/// Fields that every document has, and that are not in its source.
const METADATA: [&str; 9] =
    ["_id", "_index", "_type", "_source", "_seq_no", "_primary_term", "_version", "_ignored", "_routing"];

/// Which fields of an index a search returns.
pub(crate) struct FieldPlan {
    fields: BTreeMap<String, PlannedField>,
    /// Patterns of fields that need no mapping, and the names that the mapping has.
    unmapped: Vec<String>,
    mapped: Vec<String>,
}

struct PlannedField {
    /// The member of the source with the values.
    path: String,
    field: Field,
    /// How a date is read and written.
    date: Option<(DateFormat, DateWriter)>,
    is_column: bool,
    is_text: bool,
}

impl FieldPlan {
    /// Plans the fields of one index. The error is that of a shard.
    pub(crate) fn new(mapping: &Mapping, options: &HitOptions) -> Result<FieldPlan, String> {
        let mut plan = FieldPlan { fields: BTreeMap::new(), unmapped: Vec::new(), mapped: Vec::new() };
        let columns = options.docvalue_fields.iter().map(|wanted| (wanted, true));
        for (wanted, is_column) in columns.chain(options.fields.iter().map(|wanted| (wanted, false))) {
            let WantedField { pattern, .. } = wanted;
            if METADATA.contains(&pattern.as_str()) {
                return Err(format!("[{pattern}] is a metadata field, whose values are not supported here"));
            }
            for (name, field) in mapping.fields.iter().filter(|(name, _)| glob_matches(pattern, name)) {
                // The last request for a field counts.
                plan.fields.insert(name.clone(), PlannedField::new(name, field, wanted, is_column)?);
            }
            if wanted.includes_unmapped {
                plan.unmapped.push(pattern.clone());
            }
        }
        if !plan.unmapped.is_empty() {
            plan.mapped = mapping.fields.keys().cloned().collect();
        }
        Ok(plan)
    }

    /// Returns the values of a document, by field. A field without a value is missing.
    pub(crate) fn values(&self, source: &[u8]) -> Map<String, Value> {
        let source = source.strip_prefix(b"\xef\xbb\xbf").unwrap_or(source);
        let repaired = json::repaired(source);
        let source = repaired.as_deref().unwrap_or(source);
        let Ok(object) = serde_json::from_slice::<JsonObject<'_>>(source) else { return Map::new() };
        let mut found = Map::new();
        for (name, planned) in &self.fields {
            let mut leaves = Vec::new();
            let is_point = planned.field.field_type == FieldType::GeoPoint;
            collect_members(&object, &planned.path, is_point, 0, &mut leaves);
            let values = planned.values(&leaves);
            if !values.is_empty() {
                found.insert(name.clone(), values.into());
            }
        }
        if !self.unmapped.is_empty() {
            object.0.iter().for_each(|(name, value)| self.add_unmapped(value, name, 0, &mut found));
        }
        found
    }

    /// Adds the values that no field of the mapping has.
    fn add_unmapped(&self, raw: &RawValue, path: &str, depth: usize, found: &mut Map<String, Value>) {
        let is_mapped = self.mapped.binary_search_by(|name| name.as_str().cmp(path)).is_ok();
        if depth > DEPTH_MAX || is_mapped {
            return;
        }
        match raw.get().as_bytes().first() {
            Some(b'{') => {
                let object = serde_json::from_str::<JsonObject<'_>>(raw.get());
                for (name, value) in object.iter().flat_map(|object| &object.0) {
                    self.add_unmapped(value, &format!("{path}.{name}"), depth + 1, found);
                }
            }
            Some(b'[') => {
                let list = serde_json::from_str::<Vec<&RawValue>>(raw.get()).unwrap_or_default();
                list.iter().for_each(|value| self.add_unmapped(value, path, depth + 1, found));
            }
            Some(b'n') | None => {}
            Some(_) if !self.unmapped.iter().any(|pattern| glob_matches(pattern, path)) => {}
            Some(_) => {
                let Ok(value) = parse_value(raw.get().as_bytes()) else { return };
                let values = found.entry(path).or_insert_with(|| json!([]));
                values.as_array_mut().into_iter().for_each(|values| values.push(value.clone()));
            }
        }
    }
}

/// Collects the single values of a path.
fn collect<'a>(raw: &'a RawValue, path: &str, is_point: bool, depth: usize, leaves: &mut Vec<&'a RawValue>) {
    let first = raw.get().as_bytes().first();
    if depth > DEPTH_MAX || first == Some(&b'n') {
        return;
    }
    match first {
        _ if path.is_empty() && is_point => leaves.push(raw),
        Some(b'[') => {
            let list = serde_json::from_str::<Vec<&RawValue>>(raw.get()).unwrap_or_default();
            list.into_iter().for_each(|value| collect(value, path, is_point, depth + 1, leaves));
        }
        Some(b'{') if !path.is_empty() => {
            let Ok(object) = serde_json::from_str::<JsonObject<'_>>(raw.get()) else { return };
            collect_members(&object, path, is_point, depth, leaves);
        }
        Some(b'{') => {}
        _ if path.is_empty() => leaves.push(raw),
        _ => {}
    }
}

/// Collects the single values of a path below an object. The name of a member can contain dots.
fn collect_members<'a>(
    object: &JsonObject<'a>,
    path: &str,
    is_point: bool,
    depth: usize,
    leaves: &mut Vec<&'a RawValue>,
) {
    for &(ref name, value) in &object.0 {
        let Some(rest) = path.strip_prefix(name.as_ref()) else { continue };
        match rest.strip_prefix('.') {
            Some(rest) => collect(value, rest, is_point, depth + 1, leaves),
            None if rest.is_empty() => collect(value, "", is_point, depth + 1, leaves),
            None => {}
        }
    }
}

impl PlannedField {
    fn new(name: &str, field: &Field, wanted: &WantedField, is_column: bool) -> Result<PlannedField, String> {
        let kind = field.field_type;
        if is_column && kind == FieldType::Text {
            return Err(super::sqlite::text_field_error(name));
        }
        let format = wanted.format.as_deref().filter(|format| !(is_column && *format == "use_field_mapping"));
        let mut is_text = false;
        match (kind, format) {
            (_, None) | (FieldType::Date, _) => {}
            (FieldType::GeoPoint, Some("geojson")) if !is_column => {}
            (FieldType::GeoPoint, Some("wkt")) if !is_column => is_text = true,
            (_, Some(_)) if is_column => {
                let kind = field.type_name();
                return Err(format!("Field [{name}] of type [{kind}] does not support custom formats"));
            }
            (_, Some(_)) => {
                let kind = field.type_name();
                return Err(format!(
                    "error fetching [{name}]: Field [{name}] of type [{kind}] doesn't support formats."
                ));
            }
        }
        let date = match (kind, field.format.as_deref()) {
            (FieldType::Date, own) => {
                let read = own.map_or_else(|| Ok(DateFormat::default()), DateFormat::parse);
                let written = format.map_or(Ok(()), |format| DateFormat::parse(format).map(drop));
                let fail = |why: super::date::DateError| format!("error fetching [{name}]: {why}");
                written.map_err(fail)?;
                Some((read.map_err(fail)?, DateWriter::new(format.or(own), TimeZone::Offset(0))))
            }
            _ => None,
        };
        let path = field.parent.as_deref().unwrap_or(name).to_owned();
        Ok(PlannedField { path, field: field.clone(), date, is_column, is_text })
    }

    /// Returns the values in the form of the field. Those that do not fit it are left out, as they are in the index.
    fn values(&self, leaves: &[&RawValue]) -> Vec<Value> {
        let parsed: Vec<(Value, &RawValue)> =
            leaves.iter().filter_map(|raw| Some((parse_value(raw.get().as_bytes()).ok()?, *raw))).collect();
        let leaf = |(value, raw): &'_ (Value, &RawValue)| match self.field.field_type {
            FieldType::Text | FieldType::Keyword => self.keyword(value, raw.get()),
            FieldType::Boolean => parse_boolean(value).ok().map(Value::from),
            _ => None,
        };
        match self.field.field_type {
            FieldType::Long => {
                let read = |(value, _): &(Value, &RawValue)| {
                    parse_integer(value, self.field.type_name()).ok().flatten()
                };
                self.ordered(parsed.iter().filter_map(read).collect(), i64::cmp, Value::from)
            }
            FieldType::Double => {
                let read = |(value, _): &(Value, &RawValue)| parse_float(value).ok().flatten();
                let numbers = parsed.iter().filter_map(read).collect();
                self.ordered(numbers, f64::total_cmp, |number| self.float(number))
            }
            FieldType::Date => {
                let Some((format, writer)) = &self.date else { return Vec::new() };
                let dates = parsed.iter().filter_map(|(value, _)| text::read_date(value, format)).collect();
                self.ordered(dates, i64::cmp, |ms| writer.write(ms).into())
            }
            FieldType::Ip => {
                let mut found: Vec<IpAddr> =
                    parsed.iter().filter_map(|(value, _)| parse_ip(value).ok()).collect();
                if self.is_column {
                    found.sort_by_key(|address| super::sqlite::values::encode_ip(*address));
                    found.dedup();
                }
                found.into_iter().map(|address| address.to_string().into()).collect()
            }
            FieldType::GeoPoint => {
                let points = parsed.iter().filter_map(|(value, _)| GeoPoint::parse_all(value).ok()).flatten();
                points.map(|point| self.point(point)).collect()
            }
            FieldType::Boolean | FieldType::Text | FieldType::Keyword => {
                let mut found: Vec<Value> = parsed.iter().filter_map(leaf).collect();
                if self.is_column && self.field.field_type == FieldType::Boolean {
                    found.sort_by_key(Value::as_bool);
                } else if self.is_column {
                    found.sort_by(|one, other| one.as_str().cmp(&other.as_str()));
                    found.dedup();
                }
                found
            }
        }
    }

    /// Writes values, which are sorted in a column.
    fn ordered<T>(
        &self,
        mut found: Vec<T>,
        compare: impl Fn(&T, &T) -> std::cmp::Ordering,
        write: impl Fn(T) -> Value,
    ) -> Vec<Value> {
        if self.is_column {
            found.sort_by(compare);
        }
        found.into_iter().map(write).collect()
    }

    fn keyword(&self, value: &Value, written: &str) -> Option<Value> {
        let leaf = LeafValue { value, written };
        let text = match self.field.field_type {
            FieldType::Keyword => parse_keyword(leaf, self.field.ignore_above).ok()??,
            _ => leaf.text(),
        };
        Some(Value::from(text.into_owned()))
    }

    /// Returns a float as its type stores it.
    fn float(&self, number: f64) -> Value {
        match (self.field.declared_type.as_deref(), self.is_column) {
            (Some("float"), true) => f64::from(number as f32).into(),
            // The shortest digits of the narrower type.
            (Some("float"), false) => (number as f32).to_string().parse::<f64>().unwrap_or(number).into(),
            _ => number.into(),
        }
    }

    fn point(&self, point: GeoPoint) -> Value {
        let GeoPoint { lat, lon } = point;
        match (self.is_column, self.is_text) {
            (true, _) => {
                // A column has 32 bits for each number.
                let stored = |degrees: f64, range: f64| {
                    let step = range / 4_294_967_296.0;
                    (degrees / step).floor() * step
                };
                format!("{}, {}", stored(lat, 180.0), stored(lon, 360.0)).into()
            }
            (false, true) => format!("POINT ({} {})", json!(lon), json!(lat)).into(),
            (false, false) => json!({"type": "Point", "coordinates": [lon, lat]}),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping() -> Mapping {
        Mapping::parse(&json!({"properties": {
            "t": {"type": "text", "fields": {"keyword": {"type": "keyword", "ignore_above": 5}}},
            "k": {"type": "keyword"}, "n": {"type": "integer"}, "f": {"type": "float"}, "b": {"type": "boolean"},
            "at": {"type": "date", "format": "yyyy-MM-dd||epoch_millis"}, "ip": {"type": "ip"},
            "o": {"properties": {"k": {"type": "keyword"}}}, "p": {"type": "geo_point"},
        }}))
        .unwrap()
    }

    fn wanted(pattern: &str, format: Option<&str>) -> WantedField {
        WantedField {
            pattern: pattern.to_owned(),
            format: format.map(str::to_owned),
            includes_unmapped: false,
        }
    }

    #[track_caller]
    fn check(pattern: &str, format: Option<&str>, source: Value, from_source: Value, column: Value) {
        let of = |options: HitOptions| {
            let plan = FieldPlan::new(&mapping(), &options).unwrap();
            Value::Object(plan.values(source.to_string().as_bytes()))
        };
        let one = || vec![wanted(pattern, format)];
        assert_eq!(of(HitOptions { fields: one(), ..HitOptions::default() }), from_source, "{source}");
        if !column.is_null() {
            assert_eq!(
                of(HitOptions { docvalue_fields: one(), ..HitOptions::default() }),
                column,
                "{source}"
            );
        }
    }

    #[test]
    fn values_have_the_form_of_their_field() {
        check(
            "k",
            None,
            json!({"k": ["b", 5, "a", "b"]}),
            json!({"k": ["b", "5", "a", "b"]}),
            json!({"k": ["5", "a", "b"]}),
        );
        check(
            "t*",
            None,
            json!({"t": ["long text", "short"]}),
            json!({"t": ["long text", "short"], "t.keyword": ["short"]}),
            Value::Null,
        );
        check(
            "n",
            None,
            json!({"n": ["15", 2.7, null, "x", -1]}),
            json!({"n": [15, 2, -1]}),
            json!({"n": [-1, 2, 15]}),
        );
        check("f", None, json!({"f": 1.1}), json!({"f": [1.1]}), json!({"f": [1.100000023841858]}));
        check(
            "b",
            None,
            json!({"b": ["true", false]}),
            json!({"b": [true, false]}),
            json!({"b": [false, true]}),
        );
        check(
            "at",
            None,
            json!({"at": "2026-11-30"}),
            json!({"at": ["2026-11-30"]}),
            json!({"at": ["2026-11-30"]}),
        );
        let millis = json!({"at": ["1795996800000"]});
        check("at", Some("epoch_millis"), json!({"at": "2026-11-30"}), millis.clone(), millis);
        check(
            "ip",
            None,
            json!({"ip": "2001:DB8::0:7"}),
            json!({"ip": ["2001:db8::7"]}),
            json!({"ip": ["2001:db8::7"]}),
        );
        check(
            "o.*",
            None,
            json!({"o": [{"k": "a"}, {"k": "b"}], "o.k": "c"}),
            json!({"o.k": ["a", "b", "c"]}),
            json!({"o.k": ["a", "b", "c"]}),
        );
        check(
            "p",
            None,
            json!({"p": "-23.54,-46.63"}),
            json!({"p": [{"type": "Point", "coordinates": [-46.63, -23.54]}]}),
            json!({"p": ["-23.54000001680106, -46.6300000436604"]}),
        );
        check("x", None, json!({"x": 1, "n": null}), json!({}), json!({}));
    }

    #[test]
    fn what_no_field_has_is_returned_on_request() {
        let all = WantedField { includes_unmapped: true, ..wanted("*", None) };
        let plan =
            FieldPlan::new(&mapping(), &HitOptions { fields: vec![all], ..HitOptions::default() }).unwrap();
        let source = json!({"k": "a", "new": {"x": [1, 2], "y": [{"z": "b"}, {"z": "c"}], "none": null}});
        let expected = json!({"k": ["a"], "new.x": [1, 2], "new.y.z": ["b", "c"]});
        assert_eq!(Value::Object(plan.values(source.to_string().as_bytes())), expected);
    }

    #[test]
    fn impossible_fields_are_refused() {
        let refused = |fields: Vec<WantedField>, docvalue_fields: Vec<WantedField>| {
            let options = HitOptions { fields, docvalue_fields, ..HitOptions::default() };
            FieldPlan::new(&mapping(), &options).err().unwrap()
        };
        assert!(refused(vec![], vec![wanted("t", None)]).starts_with("Text fields are not optimised"));
        assert_eq!(
            refused(vec![wanted("n", Some("date_time"))], vec![]),
            "error fetching [n]: Field [n] of type [integer] doesn't support formats."
        );
        assert_eq!(
            refused(vec![], vec![wanted("k", Some("date_time"))]),
            "Field [k] of type [keyword] does not support custom formats"
        );
        assert!(refused(vec![wanted("_id", None)], vec![]).contains("metadata field"));
        assert!(refused(vec![wanted("at", Some("qqqq"))], vec![]).contains("error fetching [at]"));
    }
}
