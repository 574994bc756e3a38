//! Template of a configuration file: text with a placeholder for each value.
//!
//! Filling a template is pure. Other keys in a site's template are kept.

use std::path::{Path, PathBuf};

use super::file::{read_bounded, unreadable_error};
use super::{ConfigKey, ConfigValue, KEYS};
use crate::{Error, Result};

/// Template that is read without `--template`, relative to the current directory.
const TEMPLATE_DEFAULT: &str = "config/base.conf";

/// Template that is used if that file does not exist.
const BUILT_IN: &str = include_str!("../../config/base.conf");

/// A template that is not filled in.
#[derive(Debug)]
pub struct Template {
    /// File that it was read from, for messages.
    pub path: PathBuf,
    text: String,
}

impl Template {
    /// Reads the template `path`, which must exist; otherwise `config/base.conf`; otherwise the built-in one.
    pub fn load(path: Option<&Path>) -> Result<Template> {
        let place = path.unwrap_or(Path::new(TEMPLATE_DEFAULT));
        let bytes = match read_bounded(place) {
            Ok(bytes) => bytes,
            Err(error) if path.is_none() && error.kind() == std::io::ErrorKind::NotFound => {
                BUILT_IN.as_bytes().to_vec()
            }
            Err(error) => return Err(unreadable_error(place, &error)),
        };
        let not_text = |_| Error::Config { path: place.to_owned(), reason: "not valid UTF-8".to_owned() };
        Ok(Template { path: place.to_owned(), text: String::from_utf8(bytes).map_err(not_text)? })
    }

    /// Returns true if the template has a placeholder for the key.
    pub fn has_placeholder(&self, key: &ConfigKey) -> bool {
        self.text.match_indices('@').any(|(at, _)| placeholder_at(&self.text[at + 1..]) == Some(key))
    }

    /// Replaces each placeholder with its value, escaped for a JSON string.
    pub fn fill(&self, values: &[ConfigValue]) -> String {
        let mut filled = String::with_capacity(self.text.len());
        let mut rest = self.text.as_str();
        while let Some((before, after)) = rest.split_once('@') {
            filled.push_str(before);
            let value = placeholder_at(after).and_then(|key| values.iter().find(|value| value.key == key));
            match value {
                Some(value) => {
                    filled.push_str(&json_escape(&value.text));
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

/// Returns the key whose placeholder starts the text, which follows an `@`. The longest name wins, so that a name may be a
/// prefix of another.
fn placeholder_at(text: &str) -> Option<&'static ConfigKey> {
    let named = KEYS.iter().filter(|key| text.starts_with(key.variable));
    named.max_by_key(|key| key.variable.len()).copied()
}

/// Escapes a text for a JSON string, without the quotes.
fn json_escape(text: &str) -> String {
    let quoted = serde_json::Value::from(text).to_string();
    quoted[1..quoted.len() - 1].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{KAFKA_TOPIC, TCP_PORT, ValueOrigin};

    fn check_fill(template: &str, filled: &str) {
        let text = |key: &ConfigKey| if *key == TCP_PORT { "6004" } else { "a\"@TCPSERVERPORT\\" };
        let value = |key: &&'static ConfigKey| ConfigValue {
            key,
            text: text(key).to_owned(),
            origin: ValueOrigin::Default,
        };
        let values: Vec<_> = KEYS.iter().map(value).collect();
        let template = Template { path: PathBuf::new(), text: template.to_owned() };
        assert_eq!(template.fill(&values), filled);
    }

    #[test]
    fn each_placeholder_is_replaced_once() {
        check_fill("", "");
        check_fill("no place\r\n", "no place\r\n");
        check_fill("@TCPSERVERPORT", "6004");
        check_fill("{\"p\": @TCPSERVERPORT,\"q\":\"@TCPSERVERPORT\"}", "{\"p\": 6004,\"q\":\"6004\"}");
        check_fill("@KAFKATOPIC", r#"a\"@TCPSERVERPORT\\"#);
        check_fill("@@TCPSERVERPORT@TCP @OTHER é@", "@6004@TCP @OTHER é@");
        check_fill("TCPSERVERPORT", "TCPSERVERPORT");
    }

    #[test]
    fn the_built_in_template_has_all_placeholders() {
        let template = Template { path: PathBuf::new(), text: BUILT_IN.to_owned() };
        assert!(KEYS.iter().all(|key| template.has_placeholder(key)));
        assert!(
            !Template { path: PathBuf::new(), text: "@TCPSERVERPORT".to_owned() }
                .has_placeholder(&KAFKA_TOPIC)
        );
    }
}
