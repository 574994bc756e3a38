//! The mapping of an index: the type of each field, which decides how its values are stored and compared.
//! Pure code.
//!
//! The types and the rules for detecting them are Elasticsearch's.

pub(crate) mod dynamic;
mod parse;
mod rules;

use std::collections::BTreeMap;

pub(crate) use rules::MappingRules;
pub(crate) use rules::{JsonType, number_type};

/// Maximum number of fields of an index (Elasticsearch's limit); more would mean that a sender uses data as
/// field names.
pub(crate) const FIELDS_MAX: usize = 1000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldType {
    /// Analyzed text: matched by token and by phrase.
    Text,
    /// Matched as a whole.
    Keyword,
    /// 64-bit integer; also stores `integer`, `short` and `byte`.
    Long,
    /// 64-bit float; also stores `float`, `half_float` and `scaled_float`.
    Double,
    Boolean,
    /// Milliseconds since 1970, UTC.
    Date,
    /// IPv4 or IPv6 address.
    Ip,
    /// Latitude and longitude; not indexed except for `_exists_`.
    GeoPoint,
}

/// A field of an index. Sub-fields (`name.keyword`) are separate entries under their full name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    pub field_type: FieldType,
    /// The type as declared, if its name differs (`integer`).
    pub declared_type: Option<String>,
    /// The field whose values this one indexes again: `name` for `name.keyword`.
    pub parent: Option<String>,
    /// `ignore_above` of a keyword, in characters: longer values are not indexed.
    pub ignore_above: Option<usize>,
    /// `format` of a date, as declared.
    pub format: Option<String>,
    /// True: a value of the wrong type is not indexed. False: it causes the document to be rejected.
    pub ignore_malformed: bool,
    /// False for `"index": false`: the field can be aggregated and sorted, and queries of it are errors.
    pub is_searchable: bool,
}

impl Field {
    /// A field of this type with default parameters.
    pub fn of_type(kind: FieldType) -> Field {
        Field {
            field_type: kind,
            declared_type: None,
            parent: None,
            ignore_above: None,
            format: None,
            ignore_malformed: false,
            is_searchable: true,
        }
    }

    /// The type name as declared.
    pub fn type_name(&self) -> &str {
        self.declared_type.as_deref().unwrap_or(self.field_type.name())
    }
}

/// Names of a type. The first one is Elasticsearch's own name for what lea stores.
struct TypeNames {
    field_type: FieldType,
    /// Names that a sender's mapping can use.
    mapping: &'static [&'static str],
    /// Further names that only clusters have.
    cluster: &'static [&'static str],
}

/// The names of all types.
const TYPE_NAMES: [TypeNames; 8] = {
    const fn names(
        field_type: FieldType,
        mapping: &'static [&'static str],
        cluster: &'static [&'static str],
    ) -> TypeNames {
        TypeNames { field_type, mapping, cluster }
    }
    [
        names(FieldType::Text, &["text"], &["match_only_text"]),
        names(FieldType::Keyword, &["keyword"], &["constant_keyword", "wildcard"]),
        names(FieldType::Long, &["long", "integer", "short", "byte"], &[]),
        names(FieldType::Double, &["double", "float", "half_float", "scaled_float"], &[]),
        names(FieldType::Boolean, &["boolean"], &[]),
        names(FieldType::Date, &["date"], &[]),
        names(FieldType::Ip, &["ip"], &[]),
        names(FieldType::GeoPoint, &["geo_point"], &[]),
    ]
};

impl FieldType {
    /// Returns the type for its name in a sender's mapping.
    pub fn from_name(name: &str) -> Option<FieldType> {
        TYPE_NAMES.iter().find(|names| names.mapping.contains(&name)).map(|names| names.field_type)
    }

    /// Returns the type for its name in a cluster's mapping, which has more types.
    pub(crate) fn from_cluster_name(name: &str) -> Option<FieldType> {
        let names = TYPE_NAMES.iter().find(|names| names.cluster.contains(&name));
        names.map(|names| names.field_type).or_else(|| FieldType::from_name(name))
    }

    /// Elasticsearch's name of the type.
    pub fn name(self) -> &'static str {
        let names = TYPE_NAMES.iter().find(|names| names.field_type == self);
        names.and_then(|names| names.mapping.first()).copied().unwrap_or_default()
    }
}

/// What happens to a field that the mapping does not contain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dynamic {
    /// It is added with the type of its first value.
    #[default]
    True,
    /// It is stored but not indexed.
    False,
    /// The document is rejected.
    Strict,
}

/// The fields of an index by full name: `a.b` for field b of object a.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mapping {
    pub dynamic: Dynamic,
    pub fields: BTreeMap<String, Field>,
    pub rules: MappingRules,
}

impl Mapping {
    pub const fn new() -> Mapping {
        Mapping { dynamic: Dynamic::True, fields: BTreeMap::new(), rules: MappingRules::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_type_has_one_name_of_its_own() {
        for names in &TYPE_NAMES {
            let name = names.field_type.name();
            assert_eq!(FieldType::from_name(name), Some(names.field_type), "{name}");
            assert_eq!(FieldType::from_cluster_name(name), Some(names.field_type), "{name}");
        }
        assert_eq!(FieldType::from_name("short"), Some(FieldType::Long));
        assert_eq!(FieldType::from_name("wildcard"), None);
        assert_eq!(FieldType::from_cluster_name("wildcard"), Some(FieldType::Keyword));
        assert_eq!(FieldType::from_cluster_name("dense_vector"), None);
    }
}
