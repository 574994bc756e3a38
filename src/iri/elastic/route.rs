//! Which request this is: its path taken apart. Pure.
//!
//! A path that is none of these is unknown here, whatever Elasticsearch would do with it: nothing is stored because a
//! path merely looks like `/INDEX/TYPE`.

use std::borrow::Cow;

use super::failure::Failure;
use crate::http::Method::{self, Get, Head, Post, Put};
use crate::iri::store::About;

/// What is asked for, by the path alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// `/`: who answers here.
    Info,
    /// A search.
    Search,
    /// A count.
    Count,
    /// Many documents.
    Bulk,
    /// A document whose id is to be made.
    New,
    /// A document by its id.
    Document,
    /// A document by its id, which must not be there.
    Create,
    /// A document's source alone.
    Source,
    /// Nothing to do: what was acknowledged is found.
    Refresh,
    /// The mappings of indices.
    Mapping,
    /// The state of the whole.
    Health,
    /// The list of indices, for people.
    CatIndices,
    /// The state of the whole, for people.
    CatHealth,
    /// An index as such.
    Index,
}

impl Action {
    /// The methods that go with it, in the order in which an error lists them.
    pub fn methods(self) -> &'static [Method] {
        match self {
            Action::Info | Action::Source => &[Head, Get],
            Action::Search | Action::Count | Action::Refresh => &[Post, Get],
            Action::Bulk | Action::Create => &[Post, Put],
            Action::New => &[Post],
            Action::Document => &[Head, Post, Put, Get],
            Action::Mapping => &[Post, Put, Get],
            Action::Health | Action::CatIndices | Action::CatHealth => &[Head, Get],
            Action::Index => &[Head, Put, Get],
        }
    }
}

impl Action {
    /// What of a cluster it asks for.
    pub fn about(self) -> Option<About> {
        Some(match self {
            Action::Index => About::Index,
            Action::Mapping => About::Mapping,
            Action::Health => About::Health,
            Action::CatHealth => About::CatHealth,
            Action::CatIndices => About::CatIndices,
            _ => return None,
        })
    }
}

/// A path taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route<'a> {
    /// What is asked for.
    pub action: Action,
    /// The index, or a list of names and patterns.
    pub index: Option<Cow<'a, str>>,
    /// The type, where it is not `_doc`.
    pub kind: Option<Cow<'a, str>>,
    /// The id.
    pub id: Option<Cow<'a, str>>,
}

/// Parts of a path. What is longer is no path of ours.
const PARTS_MAX: usize = 5;

/// Takes a path apart.
pub fn route(path: &str) -> Result<Route<'_>, Failure> {
    let inner = path.strip_prefix('/').unwrap_or(path);
    let inner = inner.strip_suffix('/').unwrap_or(inner);
    let mut parts: [Cow<'_, str>; PARTS_MAX] = Default::default();
    let mut count = 0;
    for part in inner.split('/').filter(|_| !inner.is_empty()) {
        if count == PARTS_MAX || part.is_empty() {
            return Err(unknown(path));
        }
        parts[count] = decoded(part).ok_or_else(|| Failure::argument("the path has a malformed escape"))?;
        count += 1;
    }
    let mut names = [""; PARTS_MAX];
    for (name, part) in names.iter_mut().zip(&parts) {
        *name = part;
    }
    let (action, index, kind, id) = places(&names[..count]).ok_or_else(|| unknown(path))?;
    let mut take = |at: Option<usize>| at.map(|at| std::mem::take(&mut parts[at]));
    Ok(Route { action, index: take(index), kind: take(kind).filter(|kind| kind != "_doc"), id: take(id) })
}

/// The action, and where index, type and id stand.
type Places = (Action, Option<usize>, Option<usize>, Option<usize>);

fn places(parts: &[&str]) -> Option<Places> {
    let places = match parts {
        [] => (Action::Info, None, None, None),
        ["_cat", "indices"] => (Action::CatIndices, None, None, None),
        ["_cat", "indices", _] => (Action::CatIndices, Some(2), None, None),
        ["_cat", "health"] => (Action::CatHealth, None, None, None),
        ["_cluster", "health"] => (Action::Health, None, None, None),
        ["_cluster", "health", _] => (Action::Health, Some(2), None, None),
        [verb] if verb.starts_with('_') && *verb != "_all" => (many(verb)?, None, None, None),
        [index, ..] if index.starts_with('_') && *index != "_all" => return None,
        [_] => (Action::Index, Some(0), None, None),
        [_, "_doc"] => (Action::New, Some(0), None, None),
        [_, "_create" | "_doc" | "_source", _] if parts[2].starts_with("_search") => return None,
        [_, "_create", _] => (Action::Create, Some(0), None, Some(2)),
        [_, "_source", _] => (Action::Source, Some(0), None, Some(2)),
        [_, "_mapping" | "_mappings", _] => (Action::Mapping, Some(0), Some(2), None),
        [_, verb] if verb.starts_with('_') => (many(verb)?, Some(0), None, None),
        [_, kind, ..] if kind.starts_with('_') && *kind != "_doc" => return None,
        [_, _] => (Action::New, Some(0), Some(1), None),
        [_, _, verb] if many(verb).is_some_and(|action| action != Action::Refresh) => {
            (many(verb)?, Some(0), Some(1), None)
        }
        [_, _, _] => (Action::Document, Some(0), Some(1), Some(2)),
        [_, _, _, "_create"] => (Action::Create, Some(0), Some(1), Some(2)),
        [_, _, _, "_source"] => (Action::Source, Some(0), Some(1), Some(2)),
        _ => return None,
    };
    Some(places)
}

/// What is asked of many indices.
fn many(verb: &str) -> Option<Action> {
    Some(match verb {
        "_search" => Action::Search,
        "_count" => Action::Count,
        "_bulk" => Action::Bulk,
        "_refresh" => Action::Refresh,
        "_mapping" | "_mappings" => Action::Mapping,
        _ => return None,
    })
}

fn unknown(path: &str) -> Failure {
    Failure::argument(format!("[{path}] is not supported here"))
}

/// Percent-decodes a part of a path. A `+` is itself there.
fn decoded(part: &str) -> Option<Cow<'_, str>> {
    if !part.contains('%') {
        return Some(Cow::Borrowed(part));
    }
    let mut bytes = Vec::with_capacity(part.len());
    let mut rest = part.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => digit(rest.next()?)? << 4 | digit(rest.next()?)?,
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok().map(Cow::Owned)
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(path: &str, expected: &str) {
        let shown = match route(path) {
            Ok(route) => {
                let part = |part: &Option<Cow<'_, str>>| part.as_deref().unwrap_or("-").to_owned();
                format!("{:?} {} {} {}", route.action, part(&route.index), part(&route.kind), part(&route.id))
            }
            Err(failure) => failure.reason().to_owned(),
        };
        assert_eq!(shown, expected, "{path}");
    }

    #[test]
    fn paths_are_taken_apart() {
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
    fn what_is_not_known_is_never_taken_for_a_document() {
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
