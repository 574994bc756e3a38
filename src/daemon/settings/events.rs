//! Reads the section `parameters.events`: event sources, users of the HTTP API, syslog patterns, cluster. Pure; errors
//! become findings with a position.

use std::sync::Arc;

use super::EventSettings;
use crate::config::check;
use crate::config::json::{JsonNode, JsonSyntaxError};
use crate::config::section::{SectionFinding, bounded, not_an_object, read_pairs, read_text, read_text_list};
use crate::daemon::sources::{IngestSource, SOURCES, SourceKind};
use crate::http::basic_auth::{User, Users};
use crate::iri::event::EventIndices;
use crate::iri::ingest::grok::{DEFINITIONS_MAX, GrokPatterns, PATTERNS_MAX};
use crate::search::cluster::EsClient;
use crate::search::document::check_index_name;

/// Path of the section.
pub(super) const PATH: &str = "parameters.events";

/// Maximum number of users.
const USERS_MAX: usize = 64;

/// Maximum number of names and of origins.
const NAMES_MAX: usize = 64;

/// Maximum number of sources of one kind.
const SOURCES_PER_KIND_MAX: usize = 16;

/// Maximum of `keepDays`: a hundred years.
pub(crate) const KEEP_DAYS_MAX: i64 = 36_500;

/// Keys of the section that are not sources, with their meanings for lea.conf(5).
const OTHER_KEYS: [(&str, &str); 10] = [
    ("users", "Users of the HTTP API: an object of names and hashes that `lea events hash-password` makes."),
    (
        "patterns",
        "Grok patterns for syslog messages, a list that is tried in order. Default: built-in patterns. `lea events \
         test-pattern` tries them.",
    ),
    ("definitions", "Named grok patterns that patterns may refer to: an object of names and patterns."),
    (
        "indices",
        "Names of the indices calls, sentrypeer, syslog and billing: an object of old and new names.",
    ),
    ("queries", "`off`: the HTTP API stores events and answers no query. Default: `on`."),
    (
        "cluster",
        "URL of the cluster that stores events, http[s]://USER:PASSWORD@HOST:9200. Empty: the event store of the output \
         directory.",
    ),
    ("clusterCa", "File with the CA certificates (PEM) of an https cluster. Default: those of the system."),
    (
        "httpNames",
        "Names by which clients without a user may call the HTTP API, a list: names, or `.DOMAIN` for all names of a domain. \
         Addresses, names without a dot, this machine's name and its search domains always work.",
    ),
    (
        "httpCors",
        "Origins whose web pages may use the HTTP API (CORS), a list of values such as `http://grafana.example:3000`. \
         Default: none.",
    ),
    (
        "keepDays",
        "Days after which events are deleted (in a cluster, their daily indices), 1 to 36500. Default: never.",
    ),
];

/// Returns all keys of the section.
pub(super) fn keys() -> Vec<&'static str> {
    described_keys().into_iter().map(|(key, _)| key).collect()
}

/// Returns all keys of the section with their meanings.
pub(crate) fn described_keys() -> Vec<(&'static str, String)> {
    let source = |kind: &&SourceKind| {
        let texts: Vec<&str> = kind.options.iter().map(|option| option.help).collect();
        let members: Vec<&str> = kind.options.iter().map(|option| option.key).collect();
        let form = match kind.options {
            _ if kind.is_list => "A string or a list of strings. ".to_owned(),
            [_] => String::new(),
            _ => format!("Object of {}. ", members.join(" and ")),
        };
        (kind.key, format!("{form}{}.", texts.join(". ")))
    };
    let others = OTHER_KEYS.iter().map(|(key, text)| (*key, (*text).to_owned()));
    SOURCES.iter().map(source).chain(others).collect()
}

/// Reads the section into `events`.
pub(super) fn read(
    node: JsonNode<'_>,
    events: &mut EventSettings,
) -> Result<Vec<SectionFinding>, JsonSyntaxError> {
    let Some(members) = node.members() else {
        return Ok(vec![not_an_object(PATH, node)]);
    };
    let mut findings = Vec::new();
    for member in members? {
        let value = member.value;
        let read = match &*member.key {
            "patterns" => {
                read_text_list(value)?.and_then(bounded(PATTERNS_MAX)).map(|list| events.patterns = list)
            }
            "definitions" => read_pairs(value, DEFINITIONS_MAX)?.map(|pairs| events.definitions = pairs),
            "users" => read_pairs(value, USERS_MAX)?.and_then(check_users).map(|users| events.users = users),
            "indices" => read_indices(value, &mut events.indices)?,
            "queries" => read_text(value)?.and_then(check_switch).map(|is_on| events.queries_off = !is_on),
            "cluster" => read_text(value)?.and_then(check_cluster_url).map(|store| events.cluster = store),
            "clusterCa" => read_text(value)?.map(|path| events.cluster_ca = Some(path.into())),
            "httpNames" => {
                read_text_list(value)?.and_then(bounded(NAMES_MAX)).map(|names| events.http_names = names)
            }
            "httpCors" => {
                let list = read_text_list(value)?.and_then(bounded(NAMES_MAX)).and_then(check_origins);
                list.map(|origins| events.http_cors = origins)
            }
            "keepDays" => read_keep_days(value)?.map(|days| events.keep_days = Some(days)),
            key if let Some(kind) = SOURCES.iter().find(|kind| kind.key == key) => {
                read_sources(kind, value)?.map(|sources| events.sources.extend(sources))
            }
            unknown => {
                let hint = check::did_you_mean(unknown, &keys());
                let text = format!("unknown key {} in {PATH}{hint}", check::quote(unknown));
                findings.push(SectionFinding { offset: member.key_offset, text, is_unknown_key: true });
                continue;
            }
        };
        if let Err(wrong) = read {
            let text = format!("{PATH}.{}: {wrong}", member.key);
            findings.push(SectionFinding { offset: value.offset(), text, is_unknown_key: false });
        }
    }
    // Only now, because a pattern may use a definition that follows it.
    if let Err(error) = GrokPatterns::compile(&events.patterns, &events.definitions) {
        let text = format!("{PATH}.patterns: {error}");
        findings.push(SectionFinding { offset: node.offset(), text, is_unknown_key: false });
    }
    Ok(findings)
}

/// Reads the sources of one kind. An empty string switches the source off. A list with one entry may be a string.
fn read_sources(
    kind: &SourceKind,
    node: JsonNode<'_>,
) -> Result<Result<Vec<Arc<dyn IngestSource>>, String>, JsonSyntaxError> {
    let values = match kind.options {
        _ if kind.is_list && node.elements().is_some() => read_text_list(node)?
            .and_then(bounded(SOURCES_PER_KIND_MAX))
            .map(|texts| texts.into_iter().map(|text| vec![text]).collect()),
        [_] => read_text(node)?.map(|text| vec![vec![text]]),
        options => read_pairs(node, options.len())?.and_then(|pairs| {
            let mut values = vec![String::new(); options.len()];
            for (key, text) in pairs {
                let at = options.iter().position(|option| option.key == key);
                let Some(at) = at else {
                    let keys: Vec<&str> = options.iter().map(|option| option.key).collect();
                    let expected = keys.join(" or ");
                    return Err(format!("unknown key {} (expected {expected})", check::quote(&key)));
                };
                values[at] = text;
            }
            Ok(vec![values])
        }),
    };
    Ok(values.and_then(|sources: Vec<Vec<String>>| {
        let given = sources.iter().filter(|values| !values[0].is_empty());
        let parse =
            |values: &Vec<String>| (kind.parse)(&values.iter().map(String::as_str).collect::<Vec<_>>());
        given.map(parse).collect()
    }))
}

/// Checks the URL of a cluster; empty means no cluster.
fn check_cluster_url(url: String) -> Result<Option<String>, String> {
    if url.is_empty() {
        return Ok(None);
    }
    // The error does not contain the URL, which may have a password.
    EsClient::new("URL", &url, None, None).map_err(|error| error.to_string())?;
    Ok(Some(url))
}

/// Returns whether a switch is on.
fn check_switch(text: String) -> Result<bool, String> {
    match text.as_str() {
        "on" => Ok(true),
        "off" => Ok(false),
        other => Err(format!("expected on or off, found {}", check::quote(other))),
    }
}

fn read_keep_days(node: JsonNode<'_>) -> Result<Result<u32, String>, JsonSyntaxError> {
    let Some(scalar) = node.scalar() else {
        return Ok(Err(format!("expected a number, found {}", node.kind())));
    };
    let days = scalar?.parse().ok().filter(|days| (1..=KEEP_DAYS_MAX).contains(days));
    Ok(days
        .and_then(|days| u32::try_from(days).ok())
        .ok_or(format!("expected a number of days from 1 to {KEEP_DAYS_MAX}")))
}

fn check_origins(origins: Vec<String>) -> Result<Vec<String>, String> {
    origins.into_iter().map(|origin| check_origin(&origin)).collect()
}

/// Checks an origin: scheme, host and port of a web page, or `*`.
pub(crate) fn check_origin(text: &str) -> Result<String, String> {
    let host = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    match text == "*" || host.is_some_and(|host| !host.is_empty() && !host.contains(['/', ' ', '?', '#'])) {
        true => Ok(text.to_owned()),
        false => {
            Err(format!("{} is not an origin (expected http[s]://HOST[:PORT] or *)", check::quote(text)))
        }
    }
}

fn check_users(pairs: Vec<(String, String)>) -> Result<Vec<User>, String> {
    let users = pairs.into_iter().map(|(name, password_hash)| User { name, password_hash });
    let users: Vec<User> = users.collect();
    Users::new(users.clone()).map_err(|error| error.to_string())?;
    Ok(users)
}

fn read_indices(
    node: JsonNode<'_>,
    indices: &mut EventIndices,
) -> Result<Result<(), String>, JsonSyntaxError> {
    Ok(read_pairs(node, 4)?.and_then(|pairs| {
        for (which, index) in pairs {
            check_index_name(&index).map_err(|wrong| format!("{}: {wrong}", check::quote(&index)))?;
            *match which.as_str() {
                "calls" => &mut indices.calls,
                "sentrypeer" => &mut indices.sentrypeer,
                "syslog" => &mut indices.syslog,
                "billing" => &mut indices.billing,
                _ => {
                    return Err(format!(
                        "unknown key {} (expected calls, sentrypeer, syslog or billing)",
                        check::quote(&which)
                    ));
                }
            } = index;
        }
        Ok(())
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::json;

    fn check(text: &str) -> (EventSettings, Vec<(String, bool)>) {
        let mut events = EventSettings::default();
        let wrongs = read(json::parse(text).unwrap(), &mut events).unwrap();
        (events, wrongs.into_iter().map(|wrong| (wrong.text, wrong.is_unknown_key)).collect())
    }

    fn names(events: &EventSettings) -> Vec<String> {
        events.sources.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn all_keys_of_the_section_are_read() {
        let hash = crate::http::basic_auth::hash_password(b"secret").unwrap();
        let (events, wrongs) = check(
            &r#"{"lines": "0.0.0.0:5959", "contentLines": ":5960", "syslog": ["udp:514", "tcp:[::]:601"],
                "http": "", "users": {"proxy": "HASH"}, "patterns": ["%{CALL:call}"],
                "definitions": {"CALL": "[0-9]+"}, "indices": {"syslog": "honeypot", "billing": "bills"}}"#
                .replace("HASH", &hash),
        );
        assert_eq!(wrongs, []);
        let sources = [
            "lines 0.0.0.0:5959",
            "content-lines 127.0.0.1:5960",
            "syslog udp 127.0.0.1:514",
            "syslog tcp [::]:601",
        ];
        assert_eq!(names(&events), sources);
        assert_eq!(events.users, [User { name: "proxy".to_owned(), password_hash: hash }]);
        assert_eq!(
            (events.indices.syslog.as_str(), events.indices.billing.as_str(), events.indices.calls.as_str()),
            ("honeypot", "bills", "interception")
        );
        let (events, wrongs) =
            check(r#"{"cluster": "https://lea@search:9200", "clusterCa": "ca.pem", "keepDays": 36500}"#);
        assert_eq!(wrongs, []);
        assert_eq!(events.cluster.as_deref(), Some("https://lea@search:9200"));
        assert_eq!((events.cluster_ca, events.keep_days), (Some("ca.pem".into()), Some(36_500)));
        assert!(check(r#"{"queries": "off"}"#).0.queries_off && !check(r#"{"queries": "on"}"#).0.queries_off);
        let (events, wrongs) =
            check(r#"{"http": ["9200,rights=write", "5500,rights=read"], "syslog": "udp:514"}"#);
        let three = [
            "http 127.0.0.1:9200 rights=write",
            "http 127.0.0.1:5500 rights=read",
            "syslog udp 127.0.0.1:514",
        ];
        assert_eq!((wrongs.len(), names(&events)), (0, three.map(str::to_owned).to_vec()));
        for off in ["{}", r#"{"amqp": {"url": "", "queue": "q"}}"#, r#"{"http": "", "syslog": []}"#] {
            assert_eq!(names(&check(off).0), [""; 0], "{off}");
        }
        let (events, wrongs) = check(r#"{"amqp": {"url": "amqp://user:secret@[::1]/v", "queue": "rows"}}"#);
        assert_eq!((wrongs.len(), names(&events)), (0, vec!["amqp [::1]:5672 queue \"rows\"".to_owned()]));
    }

    fn check_wrong(text: &str, expected: &str) {
        let (_, wrongs) = check(text);
        assert_eq!(wrongs.len(), 1, "{wrongs:?}");
        assert!(!wrongs[0].1 && wrongs[0].0.contains(expected), "{wrongs:?}");
    }

    #[test]
    fn errors_name_the_key() {
        check_wrong("[]", "parameters.events: expected an object, found a list");
        check_wrong(r#"{"lines": 5959}"#, "parameters.events.lines: expected a string, found a number");
        check_wrong(r#"{"lines": "localhost:1"}"#, "not an address to listen on");
        check_wrong(
            r#"{"syslog": ["514"]}"#,
            r#""514" is not a syslog listener (expected udp:ADDR:PORT or tcp:ADDR:PORT)"#,
        );
        check_wrong(r#"{"syslog": 514}"#, "expected a string");
        check_wrong(r#"{"http": "9200,rights=none"}"#, "parameters.events.http: unknown rights \"none\"");
        check_wrong(r#"{"users": {"a": 1}}"#, r#"parameters.events.users: "a": expected a string"#);
        check_wrong(r#"{"users": {"a": "secret"}}"#, "not an argon2 PHC string");
        check_wrong(r#"{"patterns": ["%{NOPE:x}"]}"#, "parameters.events.patterns: pattern 1");
        check_wrong(r#"{"indices": {"syslog": "A"}}"#, "must be lowercase");
        check_wrong(
            r#"{"amqp": {"url": "http://a", "queue": "q"}}"#,
            "parameters.events.amqp: not an amqp:// URL",
        );
        check_wrong(r#"{"amqp": {"url": "amqp://a"}}"#, "the name of the queue must have 1 to 255 bytes");
        check_wrong(r#"{"queries": "no"}"#, r#"parameters.events.queries: expected on or off, found "no""#);
        check_wrong(r#"{"amqp": {"x": "q"}}"#, "(expected url or queue)");
        check_wrong(r#"{"indices": {"x": "a"}}"#, "(expected calls, sentrypeer, syslog or billing)");
        check_wrong(r#"{"cluster": "ftp://a"}"#, "not an http or https URL");
        for days in ["0", "36501", "1.5", "-1", "[]", "true", r#""x""#] {
            check_wrong(&format!(r#"{{"keepDays": {days}}}"#), "number");
        }
        let many = vec![r#""x""#; PATTERNS_MAX + 1].join(",");
        check_wrong(&format!(r#"{{"patterns": [{many}]}}"#), "more than");
        let (_, wrongs) = check(r#"{"lins": ""}"#);
        assert!(wrongs[0].1, "an unknown key is a warning");
    }
}
