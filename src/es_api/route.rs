//! Finds the endpoint of a request by its path. Pure.
//!
//! A path that is not listed here is an error, even if Elasticsearch has such an endpoint. So no document is stored only
//! because the path of an unsupported endpoint looks like `/INDEX/TYPE`.

use std::borrow::Cow;

use super::error::ApiError;
use crate::http::Method::{self, Get, Head, Post, Put};
use crate::search::store::AdminApi;

/// An endpoint of the API. The path alone determines it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    /// `/`
    Info,
    Search,
    Count,
    Bulk,
    /// A document whose ID the store chooses.
    New,
    /// A document with an ID.
    Document,
    /// A document with an ID that must not exist.
    Create,
    /// The source of a document without its metadata.
    Source,
    Refresh,
    Mapping,
    Health,
    CatIndices,
    CatHealth,
    /// An index with its settings and mapping.
    Index,
}

impl Endpoint {
    /// The allowed methods, in the order in which Elasticsearch lists them in an error.
    pub(super) fn methods(self) -> &'static [Method] {
        match self {
            Endpoint::Info | Endpoint::Source => &[Head, Get],
            Endpoint::Search | Endpoint::Count | Endpoint::Refresh => &[Post, Get],
            Endpoint::Bulk | Endpoint::Create => &[Post, Put],
            Endpoint::New => &[Post],
            Endpoint::Document => &[Head, Post, Put, Get],
            Endpoint::Mapping => &[Post, Put, Get],
            Endpoint::Health | Endpoint::CatIndices | Endpoint::CatHealth => &[Head, Get],
            Endpoint::Index => &[Head, Put, Get],
        }
    }
}

impl Endpoint {
    /// The admin API of a cluster to which a GET of this endpoint is forwarded.
    pub(super) fn admin_api(self) -> Option<AdminApi> {
        Some(match self {
            Endpoint::Index => AdminApi::Index,
            Endpoint::Mapping => AdminApi::Mapping,
            Endpoint::Health => AdminApi::Health,
            Endpoint::CatHealth => AdminApi::CatHealth,
            Endpoint::CatIndices => AdminApi::CatIndices,
            _ => return None,
        })
    }
}

/// A parsed path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Route<'a> {
    pub endpoint: Endpoint,
    /// The index, or a list of names and patterns.
    pub index: Option<Cow<'a, str>>,
    /// The mapping type, unless it is `_doc`.
    pub doc_type: Option<Cow<'a, str>>,
    pub id: Option<Cow<'a, str>>,
}

/// Parts of the longest path that has an endpoint.
const PARTS_MAX: usize = 5;

/// Parses a path.
pub(super) fn route(path: &str) -> Result<Route<'_>, ApiError> {
    let inner = path.strip_prefix('/').unwrap_or(path);
    let inner = inner.strip_suffix('/').unwrap_or(inner);
    let mut parts: [Cow<'_, str>; PARTS_MAX] = Default::default();
    let mut count = 0;
    for part in inner.split('/').filter(|_| !inner.is_empty()) {
        if count == PARTS_MAX || part.is_empty() {
            return Err(unsupported_path(path));
        }
        parts[count] = percent_decode(part)
            .ok_or_else(|| ApiError::illegal_argument("the path has a malformed escape"))?;
        count += 1;
    }
    let mut names = [""; PARTS_MAX];
    for (name, part) in names.iter_mut().zip(&parts) {
        *name = part;
    }
    let (action, index, doc_type, id) = match_path(&names[..count]).ok_or_else(|| unsupported_path(path))?;
    let mut take = |at: Option<usize>| at.map(|at| std::mem::take(&mut parts[at]));
    Ok(Route {
        endpoint: action,
        index: take(index),
        doc_type: take(doc_type).filter(|doc_type| doc_type != "_doc"),
        id: take(id),
    })
}

/// The endpoint, and the positions of index, type and ID among the parts of the path.
type RoutePositions = (Endpoint, Option<usize>, Option<usize>, Option<usize>);

fn match_path(parts: &[&str]) -> Option<RoutePositions> {
    let places = match parts {
        [] => (Endpoint::Info, None, None, None),
        ["_cat", "indices"] => (Endpoint::CatIndices, None, None, None),
        ["_cat", "indices", _] => (Endpoint::CatIndices, Some(2), None, None),
        ["_cat", "health"] => (Endpoint::CatHealth, None, None, None),
        ["_cluster", "health"] => (Endpoint::Health, None, None, None),
        ["_cluster", "health", _] => (Endpoint::Health, Some(2), None, None),
        [verb] if verb.starts_with('_') && *verb != "_all" => (multi_index_endpoint(verb)?, None, None, None),
        [index, ..] if index.starts_with('_') && *index != "_all" => return None,
        [_] => (Endpoint::Index, Some(0), None, None),
        [_, "_doc"] => (Endpoint::New, Some(0), None, None),
        [_, "_create" | "_doc" | "_source", _] if parts[2].starts_with("_search") => return None,
        [_, "_create", _] => (Endpoint::Create, Some(0), None, Some(2)),
        [_, "_source", _] => (Endpoint::Source, Some(0), None, Some(2)),
        [_, "_mapping" | "_mappings", _] => (Endpoint::Mapping, Some(0), Some(2), None),
        [_, verb] if verb.starts_with('_') => (multi_index_endpoint(verb)?, Some(0), None, None),
        [_, doc_type, ..] if doc_type.starts_with('_') && *doc_type != "_doc" => return None,
        [_, _] => (Endpoint::New, Some(0), Some(1), None),
        [_, _, verb] if multi_index_endpoint(verb).is_some_and(|action| action != Endpoint::Refresh) => {
            (multi_index_endpoint(verb)?, Some(0), Some(1), None)
        }
        [_, _, _] => (Endpoint::Document, Some(0), Some(1), Some(2)),
        [_, _, _, "_create"] => (Endpoint::Create, Some(0), Some(1), Some(2)),
        [_, _, _, "_source"] => (Endpoint::Source, Some(0), Some(1), Some(2)),
        _ => return None,
    };
    Some(places)
}

/// Limit on the names and patterns in one request.
const NAMES_MAX: usize = 256;

/// Parses the index part of a path. An empty list means all indices.
pub(super) fn parse_index_names(part: Option<&str>) -> Result<Vec<String>, ApiError> {
    let Some(part) = part.filter(|part| !matches!(*part, "_all" | "*" | "")) else { return Ok(Vec::new()) };
    let mut names = Vec::new();
    for name in part.split(',').filter(|name| !name.is_empty()) {
        if name.starts_with('_') {
            return Err(ApiError::invalid_index_name(name, "must not start with '_'."));
        }
        if name.starts_with(['<', '-']) {
            return Err(ApiError::illegal_argument(format!(
                "[{name}]: neither date math nor exclusions are supported"
            )));
        }
        names.push(name.to_owned());
    }
    match names.len() <= NAMES_MAX {
        true => Ok(names),
        false => Err(ApiError::illegal_argument(format!("more than {NAMES_MAX} names of indices"))),
    }
}

/// Returns the endpoint of a verb that works on many indices.
fn multi_index_endpoint(verb: &str) -> Option<Endpoint> {
    Some(match verb {
        "_search" => Endpoint::Search,
        "_count" => Endpoint::Count,
        "_bulk" => Endpoint::Bulk,
        "_refresh" => Endpoint::Refresh,
        "_mapping" | "_mappings" => Endpoint::Mapping,
        _ => return None,
    })
}

fn unsupported_path(path: &str) -> ApiError {
    ApiError::illegal_argument(format!("[{path}] is not supported here"))
}

/// Percent-decodes a part of a path, in which a `+` is not a space.
fn percent_decode(part: &str) -> Option<Cow<'_, str>> {
    if !part.contains('%') {
        return Some(Cow::Borrowed(part));
    }
    let mut bytes = Vec::with_capacity(part.len());
    let mut rest = part.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => hex_digit(rest.next()?)? << 4 | hex_digit(rest.next()?)?,
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok().map(Cow::Owned)
}

fn hex_digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(path: &str, expected: &str) {
        let description = match route(path) {
            Ok(route) => {
                let part = |part: &Option<Cow<'_, str>>| part.as_deref().unwrap_or("-").to_owned();
                format!(
                    "{:?} {} {} {}",
                    route.endpoint,
                    part(&route.index),
                    part(&route.doc_type),
                    part(&route.id)
                )
            }
            Err(error) => error.reason().to_owned(),
        };
        assert_eq!(description, expected, "{path}");
    }

    #[test]
    fn each_path_has_its_endpoint_index_type_and_id() {
        check("/", "Info - - -");
        check("", "Info - - -");
        check("/_search", "Search - - -");
        check("/a,b*/_search/", "Search a,b* - -");
        check("/a/t/_search", "Search a t -");
        check("/_all/_count", "Count _all - -");
        check("/_bulk", "Bulk - - -");
        check("/a/_bulk", "Bulk a - -");
        check("/a/t/_bulk", "Bulk a t -");
        check("/a/_doc", "New a - -");
        check("/a/_doc/1", "Document a - 1");
        check("/a/_doc/a%2Fb", "Document a - a/b");
        check("/a/_doc/_id", "Document a - _id");
        check("/opensips/1", "New opensips 1 -");
        check("/a/t/1", "Document a t 1");
        check("/a/t/1/_create", "Create a t 1");
        check("/a/_create/1", "Create a - 1");
        check("/a/_source/1", "Source a - 1");
        check("/a/_refresh", "Refresh a - -");
        check("/a/_mapping", "Mapping a - -");
        check("/a/_mapping/t", "Mapping a t -");
        check("/a/t/_mapping", "Mapping a t -");
        check("/_cat/indices/a*", "CatIndices a* - -");
        check("/_cluster/health", "Health - - -");
        check("/%78", "Index x - -");
        check("/a+b", "Index a+b - -");
    }

    #[test]
    fn unsupported_paths_are_never_documents() {
        for path in [
            "/_license",
            "/_foo/bar",
            "/a/_delete_by_query",
            "/a/_update/1",
            "/a/_search/template",
            "/a/_search/scroll",
            "/_search/scroll",
            "/a/t/1/_update",
            "/a/b/c/d/e",
            "/a/b/c/d/e/f",
            "//a/_count",
            "/a//_count",
            "/_cat",
            "/_cat/shards",
        ] {
            check(path, &format!("[{path}] is not supported here"));
        }
        for path in ["/a/%zz", "/%", "/a/%f", "/%ff"] {
            check(path, "the path has a malformed escape");
        }
    }
}
