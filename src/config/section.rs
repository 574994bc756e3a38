//! Values of a section of the file, and findings about them. Pure.
//!
//! Each reader has two kinds of errors: a syntax error of the document, and a text that says which value is expected.

use super::check;
use super::json::{JsonNode, JsonSyntaxError};

/// An error at a byte of the document, or an unknown key.
pub(crate) struct SectionFinding {
    pub offset: usize,
    pub text: String,
    /// True for an unknown key, which is a warning. False for an error.
    pub is_unknown_key: bool,
}

/// Returns the finding that a section is not an object.
pub(crate) fn not_an_object(path: &str, node: JsonNode<'_>) -> SectionFinding {
    let text = format!("{path}: expected an object, found {}", node.kind());
    SectionFinding { offset: node.offset(), text, is_unknown_key: false }
}

pub(crate) fn read_text(node: JsonNode<'_>) -> Result<Result<String, String>, JsonSyntaxError> {
    match node.scalar() {
        Some(text) if node.kind() == "a string" => text.map(Ok),
        _ => Ok(Err(format!("expected a string, found {}", node.kind()))),
    }
}

pub(crate) fn read_text_list(node: JsonNode<'_>) -> Result<Result<Vec<String>, String>, JsonSyntaxError> {
    let Some(elements) = node.elements() else {
        return Ok(Err(format!("expected a list of strings, found {}", node.kind())));
    };
    elements?.into_iter().map(read_text).collect()
}

/// Checks the length of a list.
pub(crate) fn bounded<T>(max: usize) -> impl Fn(Vec<T>) -> Result<Vec<T>, String> {
    move |list| if list.len() > max { Err(format!("more than {max} entries")) } else { Ok(list) }
}

/// Reads an object whose values are strings, in its order.
pub(crate) fn read_pairs(
    node: JsonNode<'_>,
    max: usize,
) -> Result<Result<Vec<(String, String)>, String>, JsonSyntaxError> {
    let Some(members) = node.members() else {
        return Ok(Err(format!("expected an object of strings, found {}", node.kind())));
    };
    let mut pairs = Vec::new();
    for member in members? {
        match read_text(member.value)? {
            Ok(text) => pairs.push((member.key.into_owned(), text)),
            Err(wrong) => return Ok(Err(format!("{}: {wrong}", check::quote(&member.key)))),
        }
    }
    Ok(bounded(max)(pairs))
}
