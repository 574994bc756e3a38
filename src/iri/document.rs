//! What a store keeps: a JSON object in an index, under an id. Pure.
//!
//! The words are Elasticsearch's, since that is what senders and people say: index, type, id, source.

/// An index name's bytes, Elasticsearch's own bound.
pub const INDEX_BYTES_MAX: usize = 255;

/// An id's bytes, Elasticsearch's own bound.
pub const ID_BYTES_MAX: usize = 512;

/// A document's source. Events have some 400 bytes; what is larger is no event.
pub const SOURCE_BYTES_MAX: usize = 1 << 20;

/// Where call events go: the index of the reference deployment (protocol, section 5).
pub const INDEX_CALLS: &str = "interception";

/// A document on its way into the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// The index; [`index_name`] has passed it.
    pub index: String,
    /// The type, as senders of the 2.x dialect give it. `None` reads as `_doc`.
    pub kind: Option<String>,
    /// The id; the store makes one where there is none.
    pub id: Option<String>,
    /// What happens where the id is there already.
    pub mode: Mode,
    /// The JSON object, byte by byte as it came: it is given back like that.
    pub source: Box<[u8]>,
}

/// What happens where a document of that id is there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The new one takes its place, and its version grows.
    Index,
    /// The new one is refused ([`crate::iri::store::Refused::Exists`]).
    Create,
}

/// Checks an index name by Elasticsearch's rules; the reason where it is none.
///
/// Lower case, none of `\ / * ? " < > | ,`, blanks, `#`, `:`; not `.` or `..`; not beginning with `-`, `_` or `+`;
/// 255 bytes at most.
pub fn index_name(name: &str) -> Result<(), &'static str> {
    let forbidden = |c: char| c.is_whitespace() || c.is_control() || "\\/*?\"<>|,#:".contains(c);
    match name {
        "" => Err("it is empty"),
        "." | ".." => Err("must not be '.' or '..'"),
        _ if name.len() > INDEX_BYTES_MAX => Err("it is longer than 255 bytes"),
        _ if name.starts_with(['-', '_', '+']) => Err("must not start with '_', '-', or '+'"),
        _ if name.chars().any(forbidden) => Err("it has a character that index names cannot have"),
        _ if name.chars().any(char::is_uppercase) => Err("must be lowercase"),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn index_names_are_checked_on_both_sides_of_each_rule() {
        for good in ["a", "opensips", "calls-2026.11.22", "é", &"a".repeat(255)] {
            assert_eq!(index_name(good), Ok(()), "{good:?}");
        }
        let bad = ["", ".", "..", "-a", "_a", "+a", "A", "a b", "a*", "a,b", "a#", "a:b", "a/b", "a\0"];
        for bad in bad.into_iter().chain([&*"a".repeat(256)]) {
            assert!(index_name(bad).is_err(), "{bad:?}");
        }
    }
}
