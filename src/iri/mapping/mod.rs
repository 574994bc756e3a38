//! Which type each field of an index has, and so how its values are kept and compared. Pure.
//!
//! The types and the rules by which a new field gets one are Elasticsearch's.

pub mod dynamic;
mod parse;

use std::collections::BTreeMap;

pub use parse::MappingError;

/// Fields of one index: more, and a sender makes them up (Elasticsearch's own bound).
pub const FIELDS_MAX: usize = 1000;

/// The type of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldType {
    /// Words, found one by one and as phrases.
    Text,
    /// One word as it is.
    Keyword,
    /// 64-bit integers; `integer`, `short` and `byte` are kept so too.
    Long,
    /// 64-bit floats; `float`, `half_float` and `scaled_float` are kept so too.
    Double,
    /// `true` and `false`.
    Boolean,
    /// Milliseconds since 1970, UTC.
    Date,
    /// IPv4 and IPv6 addresses.
    Ip,
    /// Latitude and longitude; kept in the source, found by `_exists_` alone.
    GeoPoint,
}

/// A field of an index. Sub-fields (`name.keyword`) stand in the mapping under their full name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// Its type.
    pub kind: FieldType,
    /// The type as it was put, where that is another word (`integer`).
    pub declared: Option<String>,
    /// The field whose values it repeats: `name` for `name.keyword`.
    pub parent: Option<String>,
    /// `ignore_above` of a keyword: longer values are not found by it, in characters.
    pub ignore_above: Option<usize>,
    /// `format` of a date, as it was put.
    pub format: Option<String>,
    /// A value that does not fit is left out, and does not refuse its document.
    pub ignore_malformed: bool,
}

impl Field {
    /// A field of that type and nothing else.
    pub fn of(kind: FieldType) -> Field {
        Field {
            kind,
            declared: None,
            parent: None,
            ignore_above: None,
            format: None,
            ignore_malformed: false,
        }
    }

    /// The type's name, as it was put.
    pub fn type_name(&self) -> &str {
        self.declared.as_deref().unwrap_or(self.kind.name())
    }
}

impl FieldType {
    /// The type that a mapping's name for one means.
    pub fn of_name(name: &str) -> Option<FieldType> {
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

/// What becomes of a field that is not in the mapping.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dynamic {
    /// It gets the type of its first value.
    #[default]
    True,
    /// It is kept in the source and not found.
    False,
    /// The document is refused.
    Strict,
}

/// The fields of an index by full name, `a.b` for b in a.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mapping {
    /// What becomes of fields that are not here.
    pub dynamic: Dynamic,
    /// The fields.
    pub fields: BTreeMap<String, Field>,
}

impl Mapping {
    /// No fields yet.
    pub const fn new() -> Mapping {
        Mapping { dynamic: Dynamic::True, fields: BTreeMap::new() }
    }
}
