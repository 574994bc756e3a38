//! Section `parameters.events`: event sources, users of the HTTP API, syslog patterns, cluster. Like `numbers` it exists
//! only in the file. Pure; errors become findings with a position.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use super::check;
use super::json::{JsonNode, JsonSyntaxError};
use super::numbers::{SectionFinding, read_text, read_text_list};
use crate::http::basic_auth::{User, Users};
use crate::iri::event::EventIndices;
use crate::iri::ingest::amqp::AmqpConfig;
use crate::iri::ingest::grok::{DEFINITIONS_MAX, GrokPatterns, PATTERNS_MAX};
use crate::runtime::net;
use crate::search::cluster::EsClient;
use crate::search::document::check_index_name;

/// Path of the section.
pub(crate) const PATH: &str = "parameters.events";

/// Maximum number of users.
const USERS_MAX: usize = 64;

/// Maximum number of syslog listeners.
const SYSLOG_MAX: usize = 16;

/// Maximum of `keepDays`: a hundred years.
pub(crate) const KEEP_DAYS_MAX: i64 = 36_500;

/// Address and transport of a syslog listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyslogListen {
    /// Each datagram is a message.
    Udp(SocketAddr),
    /// Messages are framed in a byte stream (RFC 6587).
    Tcp(SocketAddr),
}

impl SyslogListen {
    /// Parses `udp:ADDR:PORT` or `tcp:ADDR:PORT`.
    pub fn parse(text: &str) -> Result<SyslogListen, String> {
        let (make, addr): (fn(SocketAddr) -> SyslogListen, _) = match text.split_once(':') {
            Some(("udp", addr)) => (SyslogListen::Udp, addr),
            Some(("tcp", addr)) => (SyslogListen::Tcp, addr),
            _ => {
                return Err(format!(
                    "{} is not a syslog listener (expected udp:ADDR:PORT or tcp:ADDR:PORT)",
                    check::quote(text)
                ));
            }
        };
        net::parse_listen_address(addr).map(make).map_err(|error| error.to_string())
    }
}

impl fmt::Display for SyslogListen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SyslogListen::Udp(addr) => write!(f, "udp:{addr}"),
            SyslogListen::Tcp(addr) => write!(f, "tcp:{addr}"),
        }
    }
}

/// The event settings of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventSettings {
    /// Listener for JSON lines.
    pub lines: Option<SocketAddr>,
    /// Listener for JSON lines that may hold only stream content.
    pub content_lines: Option<SocketAddr>,
    pub syslog: Vec<SyslogListen>,
    /// RabbitMQ queue to consume.
    pub amqp: Option<AmqpConfig>,
    /// Listener of the Elasticsearch-compatible HTTP API.
    pub http: Option<SocketAddr>,
    /// Users of the HTTP API.
    pub users: Vec<User>,
    /// Patterns for syslog messages in order; if empty, the built-in ones are used.
    pub patterns: Vec<String>,
    /// Name and pattern of named patterns.
    pub definitions: Vec<(String, String)>,
    pub indices: EventIndices,
    /// URL of the cluster that stores events.
    pub cluster: Option<String>,
    /// File with the CA certificates for the cluster.
    pub cluster_ca: Option<PathBuf>,
    /// Days after which the cluster's daily indices are deleted.
    pub keep_days: Option<u32>,
}

impl EventSettings {
    /// Returns true if no source is switched on.
    pub fn is_off(&self) -> bool {
        self.lines.is_none()
            && self.content_lines.is_none()
            && self.syslog.is_empty()
            && self.http.is_none()
            && self.amqp.is_none()
    }
}

/// Reads the section into `events`.
pub(crate) fn read(
    node: JsonNode<'_>,
    events: &mut EventSettings,
) -> Result<Vec<SectionFinding>, JsonSyntaxError> {
    let Some(members) = node.members() else {
        let text = format!("{PATH}: expected an object, found {}", node.kind());
        return Ok(vec![SectionFinding { offset: node.offset(), text, is_warning: false }]);
    };
    let mut wrongs = Vec::new();
    for member in members? {
        let value = member.value;
        let read = match &*member.key {
            "lines" => read_address(value)?.map(|addr| events.lines = addr),
            "contentLines" => read_address(value)?.map(|addr| events.content_lines = addr),
            "http" => read_address(value)?.map(|addr| events.http = addr),
            "amqp" => read_amqp(value)?.map(|amqp| events.amqp = amqp),
            "syslog" => read_syslog(value)?.map(|list| events.syslog = list),
            "patterns" => {
                read_text_list(value)?.and_then(bounded(PATTERNS_MAX)).map(|list| events.patterns = list)
            }
            "definitions" => read_pairs(value, DEFINITIONS_MAX)?.map(|pairs| events.definitions = pairs),
            "users" => read_pairs(value, USERS_MAX)?.and_then(check_users).map(|users| events.users = users),
            "indices" => read_indices(value, &mut events.indices)?,
            "cluster" => read_text(value)?.and_then(check_cluster_url).map(|store| events.cluster = store),
            "clusterCa" => read_text(value)?.map(|path| events.cluster_ca = Some(path.into())),
            "keepDays" => read_keep_days(value)?.map(|days| events.keep_days = Some(days)),
            unknown => {
                let text = format!("unknown key {} in {PATH}", check::quote(unknown));
                wrongs.push(SectionFinding { offset: member.key_offset, text, is_warning: true });
                continue;
            }
        };
        if let Err(wrong) = read {
            let text = format!("{PATH}.{}: {wrong}", member.key);
            wrongs.push(SectionFinding { offset: value.offset(), text, is_warning: false });
        }
    }
    // Only now, because a pattern may use a definition that follows it.
    if let Err(error) = GrokPatterns::compile(&events.patterns, &events.definitions) {
        let text = format!("{PATH}.patterns: {error}");
        wrongs.push(SectionFinding { offset: node.offset(), text, is_warning: false });
    }
    Ok(wrongs)
}

fn bounded<T>(max: usize) -> impl Fn(Vec<T>) -> Result<Vec<T>, String> {
    move |list| if list.len() > max { Err(format!("more than {max} entries")) } else { Ok(list) }
}

/// Reads a listen address; empty switches the listener off.
fn read_address(node: JsonNode<'_>) -> Result<Result<Option<SocketAddr>, String>, JsonSyntaxError> {
    Ok(read_text(node)?.and_then(|text| match text.as_str() {
        "" => Ok(None),
        text => net::parse_listen_address(text).map(Some).map_err(|error| error.to_string()),
    }))
}

/// Reads the broker and its queue; an empty URL switches the source off.
fn read_amqp(node: JsonNode<'_>) -> Result<Result<Option<AmqpConfig>, String>, JsonSyntaxError> {
    Ok(read_pairs(node, 2)?.and_then(|pairs| {
        let (mut url, mut queue) = (String::new(), String::new());
        for (which, text) in pairs {
            *match which.as_str() {
                "url" => &mut url,
                "queue" => &mut queue,
                _ => return Err(format!("unknown key {} (expected url or queue)", check::quote(&which))),
            } = text;
        }
        if url.is_empty() { Ok(None) } else { AmqpConfig::parse(&url, &queue).map(Some) }
    }))
}

fn read_syslog(node: JsonNode<'_>) -> Result<Result<Vec<SyslogListen>, String>, JsonSyntaxError> {
    let texts = read_text_list(node)?.and_then(bounded(SYSLOG_MAX));
    Ok(texts.and_then(|texts| texts.iter().map(|text| SyslogListen::parse(text)).collect()))
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

fn read_keep_days(node: JsonNode<'_>) -> Result<Result<u32, String>, JsonSyntaxError> {
    let Some(scalar) = node.scalar() else {
        return Ok(Err(format!("expected a number, found {}", node.kind())));
    };
    let days = scalar?.parse().ok().filter(|days| (1..=KEEP_DAYS_MAX).contains(days));
    Ok(days
        .and_then(|days| u32::try_from(days).ok())
        .ok_or(format!("expected a number of days from 1 to {KEEP_DAYS_MAX}")))
}

/// Reads an object whose values are texts, in its order.
fn read_pairs(
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
        (events, wrongs.into_iter().map(|wrong| (wrong.text, wrong.is_warning)).collect())
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
        assert_eq!(events.lines.unwrap().to_string(), "0.0.0.0:5959");
        assert_eq!(events.content_lines.unwrap().to_string(), "127.0.0.1:5960");
        let syslog: Vec<String> = events.syslog.iter().map(SyslogListen::to_string).collect();
        assert_eq!(syslog, ["udp:127.0.0.1:514", "tcp:[::]:601"]);
        assert_eq!((events.http, events.is_off()), (None, false));
        assert_eq!(events.users, [User { name: "proxy".to_owned(), password_hash: hash }]);
        assert_eq!(
            (events.indices.syslog.as_str(), events.indices.billing.as_str(), events.indices.calls.as_str()),
            ("honeypot", "bills", "interception")
        );
        assert!(check("{}").0.is_off());
        let (events, wrongs) =
            check(r#"{"cluster": "https://lea@search:9200", "clusterCa": "ca.pem", "keepDays": 36500}"#);
        assert_eq!(wrongs, []);
        assert_eq!(events.cluster.as_deref(), Some("https://lea@search:9200"));
        assert_eq!((events.cluster_ca, events.keep_days), (Some("ca.pem".into()), Some(36_500)));
        assert!(check("{}").0.is_off() && check(r#"{"amqp": {"url": "", "queue": "q"}}"#).0.is_off());
        let (events, wrongs) = check(r#"{"amqp": {"url": "amqp://user:secret@[::1]/v", "queue": "rows"}}"#);
        assert_eq!((wrongs.len(), events.is_off(), events.amqp.unwrap().queue.as_str()), (0, false, "rows"));
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
        check_wrong(r#"{"syslog": "udp:514"}"#, "expected a list of strings");
        check_wrong(r#"{"users": {"a": 1}}"#, r#"parameters.events.users: "a": expected a string"#);
        check_wrong(r#"{"users": {"a": "secret"}}"#, "not an argon2 PHC string");
        check_wrong(r#"{"patterns": ["%{NOPE:x}"]}"#, "parameters.events.patterns: pattern 1");
        check_wrong(r#"{"indices": {"syslog": "A"}}"#, "must be lowercase");
        check_wrong(
            r#"{"amqp": {"url": "http://a", "queue": "q"}}"#,
            "parameters.events.amqp: not an amqp:// URL",
        );
        check_wrong(r#"{"amqp": {"url": "amqp://a"}}"#, "the name of the queue must have 1 to 255 bytes");
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
