//! `parameters.events`: where events are received, who may ask, how syslog lines are taken apart. Like `numbers` it stands
//! in the file alone. Pure; what is wrong becomes a finding at its place.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use super::check;
use super::json::{Node, SyntaxError};
use super::numbers::{Wrong, list, text};
use crate::http;
use crate::iri::document::index_name;
use crate::iri::elastic::{User, Users};
use crate::iri::event::Indices;
use crate::iri::source::grok::{DEFINITIONS_MAX, PATTERNS_MAX, Patterns};
use crate::iri::store::elastic::Client;

/// The section's path.
pub const PATH: &str = "parameters.events";

/// Users, a line each in the file.
const USERS_MAX: usize = 64;

/// Listeners for syslog.
const SYSLOG_MAX: usize = 16;

/// A hundred years: more is a mistake.
pub const KEEP_DAYS_MAX: i64 = 36_500;

/// Where syslog is received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyslogListen {
    /// A datagram is a message.
    Udp(SocketAddr),
    /// Messages in a stream (RFC 6587).
    Tcp(SocketAddr),
}

impl SyslogListen {
    /// Reads `udp:ADDR:PORT` or `tcp:ADDR:PORT`.
    pub fn parse(text: &str) -> Result<SyslogListen, String> {
        let (make, addr): (fn(SocketAddr) -> SyslogListen, _) = match text.split_once(':') {
            Some(("udp", addr)) => (SyslogListen::Udp, addr),
            Some(("tcp", addr)) => (SyslogListen::Tcp, addr),
            _ => return Err(format!("{} is neither udp:ADDR:PORT nor tcp:ADDR:PORT", check::shown(text))),
        };
        http::listen_address(addr).map(make).map_err(|error| error.to_string())
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

/// What the file says about events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Events {
    /// JSON lines; none: off.
    pub lines: Option<SocketAddr>,
    /// JSON lines with content of streams alone.
    pub data_lines: Option<SocketAddr>,
    /// Syslog.
    pub syslog: Vec<SyslogListen>,
    /// What speaks Elasticsearch's dialect.
    pub http: Option<SocketAddr>,
    /// Users of it.
    pub users: Vec<User>,
    /// Patterns of syslog lines, in their order; empty: the built-in ones.
    pub patterns: Vec<String>,
    /// Names that patterns may use: name and pattern.
    pub definitions: Vec<(String, String)>,
    /// Where events go.
    pub indices: Indices,
    /// The URL of a cluster as the store.
    pub store: Option<String>,
    /// Certificates that are trusted there.
    pub store_ca: Option<PathBuf>,
    /// Days after which the cluster's events are deleted.
    pub keep_days: Option<u32>,
}

impl Events {
    /// True if nothing is to be received.
    pub fn is_off(&self) -> bool {
        self.lines.is_none() && self.data_lines.is_none() && self.syslog.is_empty() && self.http.is_none()
    }
}

/// Reads the section into `events`.
pub fn read(node: Node<'_>, events: &mut Events) -> Result<Vec<Wrong>, SyntaxError> {
    let Some(members) = node.members() else {
        let text = format!("{PATH}: {} where an object has to be", node.kind());
        return Ok(vec![Wrong { offset: node.offset(), text, warning: false }]);
    };
    let mut wrongs = Vec::new();
    for member in members? {
        let value = member.value;
        let read = match &*member.key {
            "lines" => address(value)?.map(|addr| events.lines = addr),
            "dataLines" => address(value)?.map(|addr| events.data_lines = addr),
            "http" => address(value)?.map(|addr| events.http = addr),
            "syslog" => syslog(value)?.map(|list| events.syslog = list),
            "patterns" => list(value)?.and_then(bounded(PATTERNS_MAX)).map(|list| events.patterns = list),
            "definitions" => pairs(value, DEFINITIONS_MAX)?.map(|pairs| events.definitions = pairs),
            "users" => pairs(value, USERS_MAX)?.and_then(users).map(|users| events.users = users),
            "indices" => indices(value, &mut events.indices)?,
            "store" => text(value)?.and_then(store).map(|store| events.store = store),
            "storeCa" => text(value)?.map(|path| events.store_ca = Some(path.into())),
            "keepDays" => keep_days(value)?.map(|days| events.keep_days = Some(days)),
            unknown => {
                let text = format!("unknown key {} in {PATH}", check::shown(unknown));
                wrongs.push(Wrong { offset: member.key_offset, text, warning: true });
                continue;
            }
        };
        if let Err(wrong) = read {
            let text = format!("{PATH}.{}: {wrong}", member.key);
            wrongs.push(Wrong { offset: value.offset(), text, warning: false });
        }
    }
    // Only now: a pattern may use a definition that stands behind it.
    if let Err(error) = Patterns::compile(&events.patterns, &events.definitions) {
        let text = format!("{PATH}.patterns: {error}");
        wrongs.push(Wrong { offset: node.offset(), text, warning: false });
    }
    Ok(wrongs)
}

fn bounded<T>(max: usize) -> impl Fn(Vec<T>) -> Result<Vec<T>, String> {
    move |list| if list.len() > max { Err(format!("more than {max} of them")) } else { Ok(list) }
}

/// An address to listen on; empty is off.
fn address(node: Node<'_>) -> Result<Result<Option<SocketAddr>, String>, SyntaxError> {
    Ok(text(node)?.and_then(|text| match text.as_str() {
        "" => Ok(None),
        text => http::listen_address(text).map(Some).map_err(|error| error.to_string()),
    }))
}

fn syslog(node: Node<'_>) -> Result<Result<Vec<SyslogListen>, String>, SyntaxError> {
    let texts = list(node)?.and_then(bounded(SYSLOG_MAX));
    Ok(texts.and_then(|texts| texts.iter().map(|text| SyslogListen::parse(text)).collect()))
}

/// The URL of a cluster; empty is none.
fn store(url: String) -> Result<Option<String>, String> {
    if url.is_empty() {
        return Ok(None);
    }
    // What is wrong with it is said of the option, which it stands for; the URL itself may have a password.
    Client::new(&url, None, None).map_err(|error| error.to_string())?;
    Ok(Some(url))
}

fn keep_days(node: Node<'_>) -> Result<Result<u32, String>, SyntaxError> {
    let Some(scalar) = node.scalar() else {
        return Ok(Err(format!("{} where a number has to be", node.kind())));
    };
    let days = scalar?.parse().ok().filter(|days| (1..=KEEP_DAYS_MAX).contains(days));
    Ok(days
        .and_then(|days| u32::try_from(days).ok())
        .ok_or(format!("a number of days, 1 to {KEEP_DAYS_MAX}")))
}

/// An object of texts, in its order.
fn pairs(node: Node<'_>, max: usize) -> Result<Result<Vec<(String, String)>, String>, SyntaxError> {
    let Some(members) = node.members() else {
        return Ok(Err(format!("{} where an object of texts has to be", node.kind())));
    };
    let mut pairs = Vec::new();
    for member in members? {
        match text(member.value)? {
            Ok(text) => pairs.push((member.key.into_owned(), text)),
            Err(wrong) => return Ok(Err(format!("{}: {wrong}", check::shown(&member.key)))),
        }
    }
    Ok(bounded(max)(pairs))
}

fn users(pairs: Vec<(String, String)>) -> Result<Vec<User>, String> {
    let users = pairs.into_iter().map(|(name, password_hash)| User { name, password_hash });
    let users: Vec<User> = users.collect();
    Users::new(users.clone()).map_err(|error| error.to_string())?;
    Ok(users)
}

fn indices(node: Node<'_>, indices: &mut Indices) -> Result<Result<(), String>, SyntaxError> {
    Ok(pairs(node, 3)?.and_then(|pairs| {
        for (which, index) in pairs {
            index_name(&index).map_err(|wrong| format!("{}: {wrong}", check::shown(&index)))?;
            *match which.as_str() {
                "calls" => &mut indices.calls,
                "sentrypeer" => &mut indices.sentrypeer,
                "syslog" => &mut indices.syslog,
                _ => return Err(format!("{} is none of calls, sentrypeer, syslog", check::shown(&which))),
            } = index;
        }
        Ok(())
    }))
}

#[cfg(test)]
mod tests {
    use super::super::json;
    use super::*;

    fn check(text: &str) -> (Events, Vec<(String, bool)>) {
        let mut events = Events::default();
        let wrongs = read(json::parse(text).unwrap(), &mut events).unwrap();
        (events, wrongs.into_iter().map(|wrong| (wrong.text, wrong.warning)).collect())
    }

    #[test]
    fn a_whole_section() {
        let hash = crate::iri::elastic::hash_password(b"secret").unwrap();
        let (events, wrongs) = check(
            &r#"{"lines": "0.0.0.0:5959", "dataLines": ":5960", "syslog": ["udp:514", "tcp:[::]:601"],
                "http": "", "users": {"proxy": "HASH"}, "patterns": ["%{CALL:call}"],
                "definitions": {"CALL": "[0-9]+"}, "indices": {"syslog": "honeypot"}}"#
                .replace("HASH", &hash),
        );
        assert_eq!(wrongs, []);
        assert_eq!(events.lines.unwrap().to_string(), "0.0.0.0:5959");
        assert_eq!(events.data_lines.unwrap().to_string(), "127.0.0.1:5960");
        let syslog: Vec<String> = events.syslog.iter().map(SyslogListen::to_string).collect();
        assert_eq!(syslog, ["udp:127.0.0.1:514", "tcp:[::]:601"]);
        assert_eq!((events.http, events.is_off()), (None, false));
        assert_eq!(events.users, [User { name: "proxy".to_owned(), password_hash: hash }]);
        assert_eq!(
            (events.indices.syslog.as_str(), events.indices.calls.as_str()),
            ("honeypot", "interception")
        );
        assert!(check("{}").0.is_off());
        let (events, wrongs) =
            check(r#"{"store": "https://lea@search:9200", "storeCa": "ca.pem", "keepDays": 36500}"#);
        assert_eq!(wrongs, []);
        assert_eq!(events.store.as_deref(), Some("https://lea@search:9200"));
        assert_eq!((events.store_ca, events.keep_days), (Some("ca.pem".into()), Some(36_500)));
    }

    fn check_wrong(text: &str, expected: &str) {
        let (_, wrongs) = check(text);
        assert_eq!(wrongs.len(), 1, "{wrongs:?}");
        assert!(!wrongs[0].1 && wrongs[0].0.contains(expected), "{wrongs:?}");
    }

    #[test]
    fn what_is_wrong_says_where() {
        check_wrong("[]", "parameters.events: a list where an object has to be");
        check_wrong(r#"{"lines": 5959}"#, "parameters.events.lines: a number where a text has to be");
        check_wrong(r#"{"lines": "localhost:1"}"#, "not an address to listen on");
        check_wrong(r#"{"syslog": ["514"]}"#, r#""514" is neither udp:ADDR:PORT nor tcp:ADDR:PORT"#);
        check_wrong(r#"{"syslog": "udp:514"}"#, "where a list of texts has to be");
        check_wrong(r#"{"users": {"a": 1}}"#, r#"parameters.events.users: "a": a number where a text"#);
        check_wrong(r#"{"users": {"a": "secret"}}"#, "is no argon2 hash");
        check_wrong(r#"{"patterns": ["%{NOPE:x}"]}"#, "parameters.events.patterns: pattern 1");
        check_wrong(r#"{"indices": {"syslog": "A"}}"#, "must be lowercase");
        check_wrong(r#"{"indices": {"x": "a"}}"#, "none of calls, sentrypeer, syslog");
        check_wrong(r#"{"store": "ftp://a"}"#, "no URL that can be asked");
        for days in ["0", "36501", "1.5", "-1", "[]", "true", r#""x""#] {
            check_wrong(&format!(r#"{{"keepDays": {days}}}"#), "number");
        }
        let many = vec![r#""x""#; PATTERNS_MAX + 1].join(",");
        check_wrong(&format!(r#"{{"patterns": [{many}]}}"#), "more than");
        let (_, wrongs) = check(r#"{"lins": ""}"#);
        assert!(wrongs[0].1, "an unknown key is a warning");
    }
}
