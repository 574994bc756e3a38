//! The mapping of an index: the type of each field, which decides how its values are stored and compared.
//! Pure code.
//!
//! The types and the rules for detecting them are Elasticsearch's.

pub(crate) mod dynamic;
mod parse;

use std::collections::BTreeMap;

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
        }
    }

    /// The type name as declared.
    pub fn type_name(&self) -> &str {
        self.declared_type.as_deref().unwrap_or(self.field_type.name())
    }
}

impl FieldType {
    /// Returns the type for its name in a mapping, including types that only clusters have.
    pub fn from_name(name: &str) -> Option<FieldType> {
        Some(match name {
            "text" => FieldType::Text,
            "keyword" => FieldType::Keyword,
            "long" | "integer" | "short" | "byte" => FieldType::Long,
            "double" | "float" | "half_float" | "scaled_float" => FieldType::Double,
            "boolean" => FieldType::Boolean,
            "date" => FieldType::Date,
            "ip" => FieldType::Ip,
            "geo_point" => FieldType::GeoPoint,
            _ => return None,
        })
    }

    /// Elasticsearch's name of the type.
    pub fn name(self) -> &'static str {
        match self {
            FieldType::Text => "text",
            FieldType::Keyword => "keyword",
            FieldType::Long => "long",
            FieldType::Double => "double",
            FieldType::Boolean => "boolean",
            FieldType::Date => "date",
            FieldType::Ip => "ip",
            FieldType::GeoPoint => "geo_point",
        }
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
}

impl Mapping {
    pub const fn new() -> Mapping {
        Mapping { dynamic: Dynamic::True, fields: BTreeMap::new() }
    }
}
