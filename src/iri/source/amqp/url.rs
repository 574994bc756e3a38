//! `amqp://USER:PASSWORD@HOST:PORT/VHOST` (RabbitMQ's AMQP URI specification; percent-encoding of RFC 3986). Pure.

use std::fmt;

use percent_encoding::percent_decode_str;

const PORT_DEFAULT: u16 = 5_672;

/// Names' bytes in the protocol.
pub const NAME_BYTES_MAX: usize = 255;

/// A password's bytes.
const PASSWORD_BYTES_MAX: usize = 1_024;

/// A broker, and how to log in.
#[derive(Clone, PartialEq, Eq)]
pub struct Url {
    /// Name or address; IPv6 without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
    /// `guest`, where the URL names none.
    pub user: String,
    /// `guest`, where the URL names no user.
    pub password: String,
    /// `/`, where the URL names none.
    pub vhost: String,
}

impl Url {
    /// Reads a URL.
    pub fn parse(url: &str) -> Result<Url, String> {
        let wrong = |why: &str| format!("{why}; write amqp://USER:PASSWORD@HOST:PORT/VHOST");
        let rest = match url.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("amqp") => rest,
            Some((scheme, _)) if scheme.eq_ignore_ascii_case("amqps") => {
                return Err(wrong("TLS is not supported"));
            }
            _ => return Err(wrong("no amqp:// URL")),
        };
        if rest.contains(['?', '#']) {
            return Err(wrong("parameters are not supported"));
        }
        let (authority, vhost) = match rest.split_once('/') {
            None => (rest, None),
            Some((_, vhost)) if vhost.contains('/') => return Err(wrong("a / in VHOST is written %2F")),
            Some((authority, vhost)) => (authority, Some(vhost)),
        };
        let (login, address) = match authority.rsplit_once('@') {
            Some((login, address)) => (Some(login), address),
            None => (None, authority),
        };
        let (user, password) = match login.map(|login| login.split_once(':').unwrap_or((login, ""))) {
            Some((user, password)) => (decoded(user)?, decoded(password)?),
            None => ("guest".to_owned(), "guest".to_owned()),
        };
        let (host, port) = match address.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, port)) => (host.to_owned(), port),
            None => {
                let at = address.find(':').unwrap_or(address.len());
                (decoded(&address[..at])?, &address[at..])
            }
        };
        let port = match port {
            "" | ":" => PORT_DEFAULT,
            port => port
                .strip_prefix(':')
                .and_then(|port| port.parse().ok())
                .filter(|port| *port != 0)
                .ok_or_else(|| wrong("no port"))?,
        };
        if host.is_empty() {
            return Err(wrong("no host"));
        }
        let vhost = vhost.map_or(Ok("/".to_owned()), decoded)?;
        let is_long = vhost.len() > NAME_BYTES_MAX || user.len() > NAME_BYTES_MAX;
        if is_long || password.len() > PASSWORD_BYTES_MAX || user.contains('\0') || password.contains('\0') {
            return Err(wrong("user, password or vhost is too long, or has a NUL"));
        }
        Ok(Url { host, port, user, password, vhost })
    }
}

fn decoded(text: &str) -> Result<String, String> {
    let decoded = percent_decode_str(text).decode_utf8();
    decoded.map(Into::into).map_err(|_| "a part of the URL is not UTF-8".to_owned())
}

/// Without the password: the log has it.
impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Url { host, port, .. } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Url({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `host port user password vhost`
    #[track_caller]
    fn check(url: &str, expected: &str) {
        let Url { host, port, user, password, vhost } = Url::parse(url).unwrap();
        assert_eq!(format!("{host} {port} {user} {password} {vhost}"), expected, "{url}");
    }

    /// The examples of the specification, but for those without a host.
    #[test]
    fn the_specifications_examples() {
        check("amqp://user:pass@host:10000/vhost", "host 10000 user pass vhost");
        check("amqp://user%61:%61pass@ho%61st:10000/v%2fhost", "hoast 10000 usera apass v/host");
        check("amqp://host", "host 5672 guest guest /");
        check("amqp://host/", "host 5672 guest guest ");
        check("amqp://host/%2f", "host 5672 guest guest /");
        check("amqp://[::1]", "::1 5672 guest guest /");
        check("amqp://user@host", "host 5672 user  /");
        check("AMQP://[::1]:1/x", "::1 1 guest guest x");
        check("amqp://a:p%40ss@host:", "host 5672 a p@ss /");
    }

    #[test]
    fn what_is_wrong() {
        for wrong in [
            "",
            "host",
            "http://host",
            "amqps://host",
            "amqp://",
            "amqp://:5672",
            "amqp://host:0",
            "amqp://host:x",
            "amqp://host:65536",
            "amqp://host/a/b",
            "amqp://host?heartbeat=1",
            "amqp://host/%ff",
            "amqp://a%00b@host",
        ] {
            assert!(Url::parse(wrong).is_err(), "{wrong}");
        }
        for (length, is_good) in [(NAME_BYTES_MAX, true), (NAME_BYTES_MAX + 1, false)] {
            assert_eq!(Url::parse(&format!("amqp://host/{}", "v".repeat(length))).is_ok(), is_good);
        }
    }

    #[test]
    fn a_password_is_not_shown() {
        let url = Url::parse("amqp://user:secret@[::1]/v").unwrap();
        assert_eq!(format!("{url} {url:?}"), "[::1]:5672 Url([::1]:5672)");
    }
}
