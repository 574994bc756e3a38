//! Section `parameters.numbers`: how telephone numbers are normalized. It exists only in the file, because it has lists:
//! no variable, no flag, no placeholder. Pure. An invalid value becomes a finding, and the default stays in effect.

use super::check;
use super::json::{JsonNode, JsonSyntaxError};
use super::section::{SectionFinding, not_an_object, read_text, read_text_list};
use crate::phone::NumberSettings;

/// Path of the section.
pub(crate) const PATH: &str = "parameters.numbers";

/// Keys of the section.
pub(crate) const KEYS: [&str; 3] = ["internationalPrefixes", "fields", "defaultRegion"];

/// Meaning and accepted values of each key, for lea.conf(5).
pub(crate) const TEXTS: [&str; 3] = [
    "List of strings: prefixes of international numbers as callers dial them, + or 1 to 8 digits; at most 64.",
    "List of strings: full names of the event fields that hold phone numbers; at most 64.",
    "Country whose national phone numbers are also read: two letters (ISO 3166-1). Empty: none.",
];

/// Reads the section into `settings`.
pub(super) fn read(
    node: JsonNode<'_>,
    settings: &mut NumberSettings,
) -> Result<Vec<SectionFinding>, JsonSyntaxError> {
    let mut wrongs = Vec::new();
    let Some(members) = node.members() else {
        return Ok(vec![not_an_object(PATH, node)]);
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
                let hint = check::did_you_mean(unknown, &KEYS);
                let text = format!("unknown key {} in {PATH}{hint}", check::quote(unknown));
                wrongs.push(SectionFinding { offset: member.key_offset, text, is_unknown_key: true });
                continue;
            }
        };
        match wrong.and_then(|()| changed.check().map_err(|invalid| invalid.to_string())) {
            Ok(()) => *settings = changed,
            Err(wrong) => {
                let text = format!("{PATH}.{}: {wrong}", member.key);
                wrongs.push(SectionFinding { offset: member.value.offset(), text, is_unknown_key: false });
            }
        }
    }
    Ok(wrongs)
}
