//! A document: a JSON object with an index and an id. Pure code.
//!
//! The terms are Elasticsearch's, which senders use too: index, type, id, source.

/// Maximum length of an index name (Elasticsearch's limit).
pub const INDEX_BYTES_MAX: usize = 255;

/// Maximum length of an id (Elasticsearch's limit).
pub const ID_BYTES_MAX: usize = 512;

/// Maximum size of a source. Call events have about 400 bytes.
pub const SOURCE_BYTES_MAX: usize = 1 << 20;

/// Index of call events in the reference deployment (docs/protocol.md, "Call events").
pub const INDEX_CALLS: &str = "interception";

/// A document to be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// A valid index name ([`check_index_name`]).
    pub index: String,
    /// Mapping type of the 2.x dialect. `None` reads as `_doc`.
    pub doc_type: Option<String>,
    /// `None`: the store generates an id.
    pub id: Option<String>,
    pub mode: WriteMode,
    /// The JSON object, byte for byte as received and as it will be returned.
    pub source: Box<[u8]>,
}

/// What happens if the id already exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteMode {
    /// The new document replaces the old one and increments its version.
    Index,
    /// The new document is rejected ([`crate::search::store::WriteRejected::AlreadyExists`]).
    Create,
}

/// Checks an index name by Elasticsearch's rules and returns the reason if it is invalid.
///
/// A name is lowercase, has at most 255 bytes, contains none of `\ / * ? " < > | , # :` and no blanks, does
/// not start with `-`, `_` or `+`, and is not `.` or `..`.
pub fn check_index_name(name: &str) -> Result<(), &'static str> {
    let forbidden = |c: char| c.is_whitespace() || c.is_control() || "\\/*?\"<>|,#:".contains(c);
    match name {
        "" => Err("must not be empty"),
        "." | ".." => Err("must not be '.' or '..'"),
        _ if name.len() > INDEX_BYTES_MAX => Err("must not be longer than 255 bytes"),
        _ if name.starts_with(['-', '_', '+']) => Err("must not start with '_', '-', or '+'"),
        _ if name.chars().any(forbidden) => Err("contains a character that is not allowed"),
        _ if name.chars().any(char::is_uppercase) => Err("must be lowercase"),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn index_names_are_valid_or_rejected_by_each_rule() {
        for good in ["a", "opensips", "calls-2026.11.22", "é", &"a".repeat(255)] {
            assert_eq!(check_index_name(good), Ok(()), "{good:?}");
        }
        let bad = ["", ".", "..", "-a", "_a", "+a", "A", "a b", "a*", "a,b", "a#", "a:b", "a/b", "a\0"];
        for bad in bad.into_iter().chain([&*"a".repeat(256)]) {
            assert!(check_index_name(bad).is_err(), "{bad:?}");
        }
    }
}
