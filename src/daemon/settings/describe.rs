//! The settings as texts, for `lea configure --print` and `--check`. Passwords are left out. Pure.

use super::{Settings, events};
use crate::config::numbers;
use crate::daemon::sources::{SOURCES, SourceKind};

impl Settings {
    /// Returns path and text of each setting of `numbers` and `events`. The text is empty if the setting is off or not set.
    pub(crate) fn section_values(&self) -> Vec<(String, String)> {
        let numbers =
            numbers::KEYS.iter().map(|key| (format!("{}.{key}", numbers::PATH), self.number_value(key)));
        let events = events::keys();
        let events = events.iter().map(|key| (format!("{}.{key}", events::PATH), self.event_value(key)));
        numbers.chain(events).collect()
    }

    fn number_value(&self, key: &str) -> String {
        let numbers = &self.config.numbers;
        match key {
            "internationalPrefixes" => numbers.international_prefixes.join(","),
            "fields" => numbers.fields.join(","),
            _ => numbers.default_region.clone().unwrap_or_default(),
        }
    }

    fn event_value(&self, key: &str) -> String {
        let events = &self.events;
        let join = |texts: &mut dyn Iterator<Item = &String>| {
            texts.map(String::as_str).collect::<Vec<_>>().join(",")
        };
        match key {
            "users" => join(&mut events.users.iter().map(|user| &user.name)),
            "patterns" if events.patterns.is_empty() => "built-in".to_owned(),
            "patterns" => events.patterns.join(" | "),
            "definitions" => join(&mut events.definitions.iter().map(|(name, _)| name)),
            "indices" => {
                let indices = &events.indices;
                join(
                    &mut [&indices.calls, &indices.sentrypeer, &indices.syslog, &indices.billing].into_iter(),
                )
            }
            "queries" => if events.queries_off { "off" } else { "on" }.to_owned(),
            "httpNames" => join(&mut events.http_names.iter()),
            "httpCors" => join(&mut events.http_cors.iter()),
            "cluster" => events.cluster.as_deref().map(without_login).unwrap_or_default(),
            "clusterCa" => {
                events.cluster_ca.as_ref().map_or_else(String::new, |path| path.display().to_string())
            }
            "keepDays" => events.keep_days.map_or_else(String::new, |days| days.to_string()),
            source => {
                let kind = SOURCES.iter().find(|kind| kind.key == source);
                kind.map_or_else(String::new, |kind| self.sources_of(kind).join(","))
            }
        }
    }

    /// Returns the sources of a kind without its name.
    fn sources_of(&self, kind: &SourceKind) -> Vec<String> {
        let name = kind.options.first().map_or(kind.key, |option| option.long);
        let texts = self.events.sources.iter().map(ToString::to_string);
        texts.filter_map(|text| text.strip_prefix(&format!("{name} ")).map(str::to_owned)).collect()
    }

    /// Returns one line that says which receivers the configuration enables.
    pub(crate) fn summary(&self) -> String {
        let sources: Vec<String> = self.events.sources.iter().map(ToString::to_string).collect();
        let events = if sources.is_empty() { "off".to_owned() } else { format!("on {}", sources.join(", ")) };
        let tcp = self.config.tcp.as_ref().map_or_else(|| "off".to_owned(), |tcp| format!("on {tcp}"));
        let kafka = self
            .config
            .kafka
            .as_ref()
            .map_or_else(|| "off".to_owned(), |kafka| format!("topic {} of {}", kafka.topic, kafka.broker));
        format!("TCP {tcp}; Kafka {kafka}; events {events}")
    }
}

/// Removes user and password from a URL.
fn without_login(url: &str) -> String {
    match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://{host}"),
        _ => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_shown_without_its_password() {
        assert_eq!(without_login("https://lea:a@b@search:9200"), "https://search:9200");
        assert_eq!(without_login("http://search:9200"), "http://search:9200");
    }
}
