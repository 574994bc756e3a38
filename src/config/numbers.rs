//! Section `parameters.numbers`: how telephone numbers are normalized. It exists only in the file, because it has lists:
//! no variable, no flag, no placeholder. Pure. An invalid value becomes a finding, and the default stays in effect.

use super::check;
use super::json::{JsonNode, JsonSyntaxError};
use crate::phone::NumberSettings;

/// Path of the section.
pub(super) const PATH: &str = "parameters.numbers";

/// An error or a warning at a byte of the document.
pub(crate) struct SectionFinding {
    pub offset: usize,
    pub text: String,
    /// True for a warning, false for an error.
    pub is_warning: bool,
}

/// Reads the section into `settings`.
pub(super) fn read(
    node: JsonNode<'_>,
    settings: &mut NumberSettings,
) -> Result<Vec<SectionFinding>, JsonSyntaxError> {
    let mut wrongs = Vec::new();
    let Some(members) = node.members() else {
        let text = format!("{PATH}: expected an object, found {}", node.kind());
        return Ok(vec![SectionFinding { offset: node.offset(), text, is_warning: false }]);
    };
    for member in members? {
        let mut changed = settings.clone();
        let wrong = match &*member.key {
            "internationalPrefixes" => {
                read_text_list(member.value)?.map(|list| changed.international_prefixes = list)
            }
            "fields" => read_text_list(member.value)?.map(|list| changed.fields = list),
            "defaultRegion" => read_text(member.value)?
                .map(|region| changed.default_region = Some(region).filter(|region| !region.is_empty())),
            unknown => {
                let text = format!("unknown key {} in {PATH}", check::quote(unknown));
                wrongs.push(SectionFinding { offset: member.key_offset, text, is_warning: true });
                continue;
            }
        };
        match wrong.and_then(|()| changed.check().map_err(|invalid| invalid.to_string())) {
            Ok(()) => *settings = changed,
            Err(wrong) => {
                let text = format!("{PATH}.{}: {wrong}", member.key);
                wrongs.push(SectionFinding { offset: member.value.offset(), text, is_warning: false });
            }
        }
    }
    Ok(wrongs)
}

pub(super) fn read_text(node: JsonNode<'_>) -> Result<Result<String, String>, JsonSyntaxError> {
    match node.scalar() {
        Some(text) if node.kind() == "a string" => text.map(Ok),
        _ => Ok(Err(format!("expected a string, found {}", node.kind()))),
    }
}

pub(super) fn read_text_list(node: JsonNode<'_>) -> Result<Result<Vec<String>, String>, JsonSyntaxError> {
    let Some(elements) = node.elements() else {
        return Ok(Err(format!("expected a list of strings, found {}", node.kind())));
    };
    elements?.into_iter().map(read_text).collect()
}
