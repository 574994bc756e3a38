//! What clients of an address of the API may do: `rights=` of `--http`, `--queries off`. Pure.

use super::endpoint::{Endpoint, Purpose};
use crate::http::Method;

/// What the clients of an address may do. Everybody may ask for the state of the server, mappings and templates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rights {
    #[default]
    All,
    /// Read events.
    Read,
    /// Store events, and change mappings, templates and settings.
    Write,
}

impl Rights {
    /// All rights with their names.
    pub const NAMED: [(&str, Rights); 3] =
        [("all", Rights::All), ("read", Rights::Read), ("write", Rights::Write)];

    /// Parses a name.
    pub fn parse(name: &str) -> Option<Rights> {
        Rights::NAMED.into_iter().find(|(known, _)| *known == name).map(|(_, rights)| rights)
    }

    /// Returns these rights without that to read. `None`: nothing is left.
    pub fn without_queries(self) -> Option<Rights> {
        match self {
            Rights::All | Rights::Write => Some(Rights::Write),
            Rights::Read => None,
        }
    }

    /// Returns why these rights do not allow a request.
    pub(super) fn refuse(self, endpoint: Endpoint, method: Method) -> Option<&'static str> {
        match (self, endpoint.purpose(method)) {
            (Rights::Read, Purpose::Write) => Some("this address answers queries and stores nothing"),
            (Rights::Write, Purpose::Query) => Some("this address stores events and answers no queries"),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::es_api::route::route;

    /// Returns which of the rights to read and to write allow a request.
    fn allowed(method: Method, path: &str) -> (bool, bool) {
        let endpoint = route(path).unwrap().endpoint;
        let allows = |rights: Rights| rights.refuse(endpoint, method).is_none();
        assert!(allows(Rights::All));
        (allows(Rights::Read), allows(Rights::Write))
    }

    #[test]
    fn queries_need_the_right_to_read() {
        let queries = [
            (Method::Get, "/_search"),
            (Method::Post, "/a/_search"),
            (Method::Post, "/_search/scroll"),
            (Method::Delete, "/_search/scroll"),
            (Method::Post, "/a/_pit"),
            (Method::Delete, "/_pit"),
            (Method::Get, "/a/t/_count"),
            (Method::Post, "/_msearch"),
            (Method::Post, "/_mget"),
            (Method::Get, "/a/_doc/1"),
            (Method::Head, "/a/t/1"),
            (Method::Get, "/a/_source/1"),
            (Method::Get, "/a/_field_caps"),
            // The same path in another spelling.
            (Method::Get, "/%5Fsearch"),
            (Method::Get, "/a/_doc/%5Fcount"),
        ];
        for (method, path) in queries {
            assert_eq!(allowed(method, path), (true, false), "{path}");
        }
    }

    #[test]
    fn changes_need_the_right_to_write() {
        let changes = [
            (Method::Post, "/_bulk"),
            (Method::Post, "/a/%5Fbulk"),
            (Method::Post, "/a/_doc"),
            (Method::Put, "/a/_doc/1"),
            (Method::Delete, "/a/_doc/1"),
            (Method::Put, "/a/t/1"),
            (Method::Put, "/a/_create/1"),
            (Method::Post, "/a/_update/1"),
            (Method::Post, "/a/_delete_by_query"),
            (Method::Put, "/a"),
            (Method::Delete, "/a"),
            (Method::Put, "/a/_mapping"),
            (Method::Put, "/_template/t"),
            (Method::Post, "/_aliases"),
            (Method::Put, "/a/_settings"),
            (Method::Post, "/a/_forcemerge"),
        ];
        for (method, path) in changes {
            assert_eq!(allowed(method, path), (false, true), "{path}");
        }
    }

    #[test]
    fn everybody_may_ask_for_the_state() {
        let others = [
            (Method::Get, "/"),
            (Method::Get, "/a"),
            (Method::Head, "/a"),
            (Method::Get, "/a/_mapping"),
            (Method::Get, "/_cat/indices"),
            (Method::Get, "/_cluster/health/a"),
            (Method::Get, "/_license"),
            (Method::Get, "/_template/t"),
            (Method::Post, "/a/_refresh"),
            (Method::Options, "/_bulk"),
        ];
        for (method, path) in others {
            assert_eq!(allowed(method, path), (true, true), "{path}");
        }
    }

    #[test]
    fn names_are_parsed() {
        for (name, rights) in [("all", Rights::All), ("read", Rights::Read), ("write", Rights::Write)] {
            assert_eq!(Rights::parse(name), Some(rights));
        }
        assert_eq!(Rights::parse("queries"), None);
    }
}
