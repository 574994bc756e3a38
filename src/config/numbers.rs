//! `parameters.numbers`: how telephone numbers are read. It stands in the file alone, for it has lists: no variable, no
//! flag, no placeholder. Pure; what is wrong becomes a finding at its place, and the default stays in effect.

use super::check;
use super::json::{Node, SyntaxError};
use crate::iri::number::Settings;

/// The section's path.
pub const PATH: &str = "parameters.numbers";

/// What is wrong at a byte of the document.
pub struct Wrong {
    pub offset: usize,
    pub text: String,
    /// It does not matter.
    pub warning: bool,
}

/// Reads the section into `settings`.
pub fn read(node: Node<'_>, settings: &mut Settings) -> Result<Vec<Wrong>, SyntaxError> {
    let mut wrongs = Vec::new();
    let Some(members) = node.members() else {
        let text = format!("{PATH}: {} where an object has to be", node.kind());
        return Ok(vec![Wrong { offset: node.offset(), text, warning: false }]);
    };
    for member in members? {
        let mut changed = settings.clone();
        let wrong = match &*member.key {
            "exitPrefixes" => list(member.value)?.map(|list| changed.exit_prefixes = list),
            "fields" => list(member.value)?.map(|list| changed.fields = list),
            "defaultRegion" => text(member.value)?
                .map(|region| changed.default_region = Some(region).filter(|region| !region.is_empty())),
            unknown => {
                let text = format!("unknown key {} in {PATH}", check::shown(unknown));
                wrongs.push(Wrong { offset: member.key_offset, text, warning: true });
                continue;
            }
        };
        match wrong.and_then(|()| changed.check().map_err(|invalid| invalid.to_string())) {
            Ok(()) => *settings = changed,
            Err(wrong) => {
                let text = format!("{PATH}.{}: {wrong}", member.key);
                wrongs.push(Wrong { offset: member.value.offset(), text, warning: false });
            }
        }
    }
    Ok(wrongs)
}

pub(super) fn text(node: Node<'_>) -> Result<Result<String, String>, SyntaxError> {
    match node.scalar() {
        Some(text) if node.kind() == "a text" => text.map(Ok),
        _ => Ok(Err(format!("{} where a text has to be", node.kind()))),
    }
}

pub(super) fn list(node: Node<'_>) -> Result<Result<Vec<String>, String>, SyntaxError> {
    let Some(elements) = node.elements() else {
        return Ok(Err(format!("{} where a list of texts has to be", node.kind())));
    };
    elements?.into_iter().map(text).collect()
}
