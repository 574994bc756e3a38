//! The template of a configuration file: text with a placeholder for each value, filled in byte for byte as it is.
//!
//! Filling in is pure. A site's template may have more keys than ours; they stay.

use std::path::{Path, PathBuf};

use super::file::{read_bounded, unreadable};
use super::{KEYS, Key, Value};
use crate::{Error, Result};

/// The template where `--template` names none, from the current directory.
const TEMPLATE_DEFAULT: &str = "config/base.conf";

/// The template where there is no file.
const BUILT_IN: &str = include_str!("../../config/base.conf");

/// A template, not yet filled in.
#[derive(Debug)]
pub struct Template {
    /// The file that it came from, for messages.
    pub path: PathBuf,
    text: String,
}

impl Template {
    /// Reads the template that `path` names, which must be readable; else `config/base.conf`, else the built-in one.
    pub fn load(path: Option<&Path>) -> Result<Template> {
        let place = path.unwrap_or(Path::new(TEMPLATE_DEFAULT));
        let bytes = match read_bounded(place) {
            Ok(bytes) => bytes,
            Err(error) if path.is_none() && error.kind() == std::io::ErrorKind::NotFound => {
                BUILT_IN.as_bytes().to_vec()
            }
            Err(error) => return Err(unreadable(place, &error)),
        };
        let not_text =
            |_| Error::Config { path: place.to_owned(), reason: "this is no UTF-8 text".to_owned() };
        Ok(Template { path: place.to_owned(), text: String::from_utf8(bytes).map_err(not_text)? })
    }

    /// True if the template has a place for the key's value.
    pub fn has(&self, key: &Key) -> bool {
        self.text.match_indices('@').any(|(at, _)| placeholder_at(&self.text[at + 1..]) == Some(key))
    }

    /// The text with each placeholder replaced by its value, as JSON writes it inside quotes.
    pub fn fill(&self, values: &[Value]) -> String {
        let mut filled = String::with_capacity(self.text.len());
        let mut rest = self.text.as_str();
        while let Some((before, after)) = rest.split_once('@') {
            filled.push_str(before);
            let value = placeholder_at(after).and_then(|key| values.iter().find(|value| value.key == key));
            match value {
                Some(value) => {
                    filled.push_str(&in_quotes(&value.text));
                    rest = &after[value.key.variable.len()..];
                }
                None => {
                    filled.push('@');
                    rest = after;
                }
            }
        }
        filled + rest
    }
}

/// The key whose placeholder a text begins with, the `@` before it left out. The longest name wins, so that one
/// name may begin with another.
fn placeholder_at(text: &str) -> Option<&'static Key> {
    let named = KEYS.iter().filter(|key| text.starts_with(key.variable));
    named.max_by_key(|key| key.variable.len()).copied()
}

/// The text with JSON's escapes and without its quotes.
fn in_quotes(text: &str) -> String {
    let quoted = serde_json::Value::from(text).to_string();
    quoted[1..quoted.len() - 1].to_owned()
}

#[cfg(test)]
mod tests {
    use super::super::{KAFKA_TOPIC, Origin, TCP_PORT};
    use super::*;

    fn check_fill(template: &str, filled: &str) {
        let text = |key: &Key| if *key == TCP_PORT { "6004" } else { "a\"@TCPSERVERPORT\\" };
        let value = |key: &&'static Key| Value { key, text: text(key).to_owned(), origin: Origin::Default };
        let values: Vec<_> = KEYS.iter().map(value).collect();
        let template = Template { path: PathBuf::new(), text: template.to_owned() };
        assert_eq!(template.fill(&values), filled);
    }

    #[test]
    fn placeholders_are_replaced_once_and_the_rest_stays() {
        check_fill("", "");
        check_fill("no place\r\n", "no place\r\n");
        check_fill("@TCPSERVERPORT", "6004");
        check_fill("{\"p\": @TCPSERVERPORT,\"q\":\"@TCPSERVERPORT\"}", "{\"p\": 6004,\"q\":\"6004\"}");
        check_fill("@KAFKATOPIC", r#"a\"@TCPSERVERPORT\\"#);
        check_fill("@@TCPSERVERPORT@TCP @OTHER é@", "@6004@TCP @OTHER é@");
        check_fill("TCPSERVERPORT", "TCPSERVERPORT");
    }

    #[test]
    fn the_built_in_template_has_a_place_for_each_value() {
        let template = Template { path: PathBuf::new(), text: BUILT_IN.to_owned() };
        assert!(KEYS.iter().all(|key| template.has(key)));
        assert!(!Template { path: PathBuf::new(), text: "@TCPSERVERPORT".to_owned() }.has(&KAFKA_TOPIC));
    }
}
