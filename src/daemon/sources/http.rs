//! The Elasticsearch-compatible HTTP API, on one address or several.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;

use super::{IngestSource, SourceContext, SourceKind, SourceOption, parse_address, print_listening};
use crate::config::check;
use crate::daemon::settings::EventSettings;
use crate::es_api::{EsApi, Rights};
use crate::http::basic_auth::{User, Users};
use crate::http::{HttpServer, HttpServerConfig, RequestGuard, machine_names};
use crate::runtime::net;
use crate::{Error, Result};

pub(super) static HTTP: SourceKind = SourceKind {
    key: "http",
    options: &[SourceOption {
        long: "http",
        key: "",
        value_name: "ADDR:PORT[,rights=RIGHTS][,user=NAME]...",
        env: None,
        help: "Serve the Elasticsearch-compatible HTTP API here; without users in the configuration only on a loopback \
               address. RIGHTS is read, write or all; with user=NAME only these users may connect; repeatable [usual port: \
               9200]",
    }],
    is_list: true,
    parse: |values| parse(values).map(|http| Arc::new(http) as Arc<dyn IngestSource>),
};

/// An address of the API.
#[derive(Debug, PartialEq)]
struct Http {
    addr: SocketAddr,
    rights: Rights,
    /// Names of the users that may connect; empty for all users of the configuration.
    users: Vec<String>,
}

/// What all addresses of the API share.
pub(crate) struct SharedApi {
    api: EsApi,
    config: HttpServerConfig,
}

fn parse(values: &[&str]) -> Result<Http, String> {
    let [text] = values else { return Err("expected one address".to_owned()) };
    let mut parts = text.split(',');
    let addr = parse_address(&[parts.next().unwrap_or_default()])?;
    let mut http = Http { addr, rights: Rights::All, users: Vec::new() };
    for part in parts {
        match part.split_once('=') {
            Some(("rights", name)) => {
                http.rights = Rights::parse(name).ok_or_else(|| unknown_rights(name))?
            }
            Some(("user", name)) if !name.is_empty() => http.users.push(name.to_owned()),
            _ => {
                return Err(format!(
                    "unknown setting {} (expected rights=RIGHTS or user=NAME)",
                    check::quote(part)
                ));
            }
        }
    }
    Ok(http)
}

/// What the log adds to an address with these rights.
fn label(rights: Rights) -> &'static str {
    match rights {
        Rights::All => "",
        Rights::Read => " rights=read",
        Rights::Write => " rights=write",
    }
}

fn unknown_rights(name: &str) -> String {
    format!(
        "unknown rights {} (expected {})",
        check::quote(name),
        Rights::NAMED.map(|(name, _)| name).join(", ")
    )
}

impl fmt::Display for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http {}{}", self.addr, label(self.rights))
    }
}

impl Http {
    /// The users that may connect here.
    fn users(&self, settings: &EventSettings) -> Result<Vec<User>, String> {
        if self.users.is_empty() {
            return Ok(settings.users.clone());
        }
        let find = |name: &String| {
            let user = settings.users.iter().find(|user| user.name == *name);
            let name = check::quote(name);
            user.cloned()
                .ok_or_else(|| format!("HTTP on {}: parameters.events.users has no user {name}", self.addr))
        };
        self.users.iter().map(find).collect()
    }

    /// The rights here, given that `--queries off` takes that to read from all addresses.
    fn rights(&self, settings: &EventSettings) -> Result<Rights, String> {
        match settings.queries_off {
            false => Ok(self.rights),
            true => self.rights.without_queries().ok_or_else(|| {
                format!("HTTP on {} with rights=read answers queries, which --queries off forbids", self.addr)
            }),
        }
    }
}

/// Without users, only names of this machine lead here. With users, a foreign page lacks the password.
fn guard(settings: &EventSettings) -> RequestGuard {
    let names = settings.http_names.iter().cloned().chain(machine_names()).collect();
    let guard = RequestGuard::new(names, settings.http_cors.clone());
    if settings.users.is_empty() { guard } else { guard.allow_any_host() }
}

impl SharedApi {
    pub(super) fn new(context: &SourceContext<'_>) -> Result<SharedApi> {
        let metrics = Arc::clone(context.sink.metrics());
        let normalizer = context.query_normalizer.clone();
        let api = EsApi::new(Arc::clone(&context.store), normalizer, Users::allow_all(), metrics)
            .with_dead_letters(Arc::clone(&context.sink))
            .with_metadata(&context.vault.path().join(".lea"))?;
        Ok(SharedApi { api, config: EsApi::server_config() })
    }
}

impl IngestSource for Http {
    /// Without users, only the machine itself may connect.
    fn check(&self, settings: &EventSettings) -> Result<(), String> {
        self.rights(settings)?;
        let users = self.users(settings)?;
        if self.addr.ip().is_loopback() || !users.is_empty() {
            return Ok(());
        }
        Err(format!(
            "HTTP on {} needs users: set parameters.events.users in the configuration (lea events hash-password makes \
             the hashes), or listen on 127.0.0.1",
            self.addr
        ))
    }

    fn start(&self, context: &SourceContext<'_>) -> Result<Vec<JoinHandle<Result<()>>>> {
        let shared = context.shared_api()?;
        let users = self.users(context.settings).map_err(Error::Usage)?;
        let users = Users::new(users).map_err(|error| Error::Usage(error.to_string()))?;
        let rights = self.rights(context.settings).map_err(Error::Usage)?;
        let handler = shared.api.for_address(users, rights, guard(context.settings));
        let listener = net::bind(self.addr)?;
        let (shutdown, metrics) = (context.listeners.shutdown.clone(), Arc::clone(context.sink.metrics()));
        let server =
            HttpServer::spawn(listener, shared.config.clone(), Arc::new(handler), shutdown, metrics)?;
        print_listening(server.local_addr(), &format!("http{}", label(self.rights)));
        Ok(vec![server.into_thread()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(queries_off: bool) -> EventSettings {
        let password_hash = crate::http::basic_auth::hash_password(b"secret").unwrap();
        let users = ["proxy", "analyst"]
            .map(|name| User { name: name.to_owned(), password_hash: password_hash.clone() });
        EventSettings { users: users.into(), queries_off, ..EventSettings::default() }
    }

    #[test]
    fn an_address_has_rights_and_users() {
        let http = parse(&["0.0.0.0:9200,rights=write,user=proxy"]).unwrap();
        assert_eq!(
            (http.addr.port(), http.rights, &http.users[..]),
            (9200, Rights::Write, &["proxy".to_owned()][..])
        );
        assert_eq!(http.to_string(), "http 0.0.0.0:9200 rights=write");
        let names: Vec<String> =
            http.users(&settings(false)).unwrap().into_iter().map(|user| user.name).collect();
        assert_eq!(names, ["proxy"]);
        let plain = parse(&["5500"]).unwrap();
        assert_eq!((plain.rights, plain.users(&settings(false)).unwrap().len()), (Rights::All, 2));
    }

    #[test]
    fn wrong_settings_say_what_is_expected() {
        let check = |text: &str, expected: &str| {
            let error = parse(&[text]).unwrap_err();
            assert!(error.contains(expected), "{error}");
        };
        check("9200,rights=query", "unknown rights \"query\" (expected all, read, write)");
        check("9200,user=", "unknown setting \"user=\" (expected rights=RIGHTS or user=NAME)");
        check("9200,proxy", "unknown setting \"proxy\"");
        check("9200,", "unknown setting \"\"");
        check("nowhere:1,rights=read", "not an address to listen on");
    }

    #[test]
    fn an_address_is_checked_against_the_other_settings() {
        let check = |text: &str, settings: &EventSettings| parse(&[text]).unwrap().check(settings);
        assert_eq!(check("0.0.0.0:9200,user=proxy", &settings(false)), Ok(()));
        assert!(check("9200,user=nobody", &settings(false)).unwrap_err().contains("has no user \"nobody\""));
        assert!(check("0.0.0.0:9200", &EventSettings::default()).unwrap_err().contains("needs users"));
        assert!(check("9200,rights=read", &settings(true)).unwrap_err().contains("--queries off"));
        assert_eq!(check("9200,rights=write", &settings(true)), Ok(()));
    }
}
