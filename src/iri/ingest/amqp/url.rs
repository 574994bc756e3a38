//! Parser for `amqp://USER:PASSWORD@HOST:PORT/VHOST` (RabbitMQ URI specification, percent-encoding of RFC 3986). Pure.

use std::fmt;

use percent_encoding::percent_decode_str;

const PORT_DEFAULT: u16 = 5_672;

/// Maximum size of a short string in AMQP.
pub(crate) const NAME_BYTES_MAX: usize = 255;

const PASSWORD_BYTES_MAX: usize = 1_024;

/// Address and login of a broker.
#[derive(Clone, PartialEq, Eq)]
pub struct AmqpUrl {
    /// Name or address; IPv6 without brackets.
    pub host: String,
    pub port: u16,
    /// `guest` if the URL has no user.
    pub user: String,
    /// `guest` if the URL has no user.
    pub password: String,
    /// `/` if the URL has no virtual host.
    pub vhost: String,
}

impl AmqpUrl {
    pub fn parse(url: &str) -> Result<AmqpUrl, String> {
        let wrong = |why: &str| format!("{why} (expected amqp://USER:PASSWORD@HOST:PORT/VHOST)");
        let rest = match url.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("amqp") => rest,
            Some((scheme, _)) if scheme.eq_ignore_ascii_case("amqps") => {
                return Err(wrong("TLS is not supported"));
            }
            _ => return Err(wrong("not an amqp:// URL")),
        };
        if rest.contains(['?', '#']) {
            return Err(wrong("parameters are not supported"));
        }
        let (authority, vhost) = match rest.split_once('/') {
            None => (rest, None),
            Some((_, vhost)) if vhost.contains('/') => return Err(wrong("write a / in VHOST as %2F")),
            Some((authority, vhost)) => (authority, Some(vhost)),
        };
        let (login, address) = match authority.rsplit_once('@') {
            Some((login, address)) => (Some(login), address),
            None => (None, authority),
        };
        let (user, password) = match login.map(|login| login.split_once(':').unwrap_or((login, ""))) {
            Some((user, password)) => (percent_decode(user)?, percent_decode(password)?),
            None => ("guest".to_owned(), "guest".to_owned()),
        };
        let (host, port) = match address.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, port)) => (host.to_owned(), port),
            None => {
                let at = address.find(':').unwrap_or(address.len());
                (percent_decode(&address[..at])?, &address[at..])
            }
        };
        let port = match port {
            "" | ":" => PORT_DEFAULT,
            port => port
                .strip_prefix(':')
                .and_then(|port| port.parse().ok())
                .filter(|port| *port != 0)
                .ok_or_else(|| wrong("invalid port"))?,
        };
        if host.is_empty() {
            return Err(wrong("the host is missing"));
        }
        let vhost = vhost.map_or(Ok("/".to_owned()), percent_decode)?;
        let is_long = vhost.len() > NAME_BYTES_MAX || user.len() > NAME_BYTES_MAX;
        if is_long || password.len() > PASSWORD_BYTES_MAX || user.contains('\0') || password.contains('\0') {
            return Err(wrong("user, password or vhost is too long or contains a NUL"));
        }
        Ok(AmqpUrl { host, port, user, password, vhost })
    }
}

fn percent_decode(text: &str) -> Result<String, String> {
    let decoded = percent_decode_str(text).decode_utf8();
    decoded.map(Into::into).map_err(|_| "a part of the URL is not valid UTF-8".to_owned())
}

/// Displays host and port. The password must not reach the log.
impl fmt::Display for AmqpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let AmqpUrl { host, port, .. } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

impl fmt::Debug for AmqpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Url({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Compares `host port user password vhost`.
    #[track_caller]
    fn check(url: &str, expected: &str) {
        let AmqpUrl { host, port, user, password, vhost } = AmqpUrl::parse(url).unwrap();
        assert_eq!(format!("{host} {port} {user} {password} {vhost}"), expected, "{url}");
    }

    /// The specification's examples, except those without a host.
    #[test]
    fn examples_of_the_specification() {
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
    fn invalid_urls_are_rejected() {
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
            assert!(AmqpUrl::parse(wrong).is_err(), "{wrong}");
        }
        for (length, is_good) in [(NAME_BYTES_MAX, true), (NAME_BYTES_MAX + 1, false)] {
            assert_eq!(AmqpUrl::parse(&format!("amqp://host/{}", "v".repeat(length))).is_ok(), is_good);
        }
    }

    #[test]
    fn the_password_is_not_displayed() {
        let url = AmqpUrl::parse("amqp://user:secret@[::1]/v").unwrap();
        assert_eq!(format!("{url} {url:?}"), "[::1]:5672 Url([::1]:5672)");
    }
}
