//! Finds the endpoint of a request by its path. Pure.
//!
//! A path that is not listed here is an error, even if Elasticsearch has such an endpoint. So no document is stored only
//! because the path of an unsupported endpoint looks like `/INDEX/TYPE`.

use std::borrow::Cow;

use super::endpoint::Endpoint;
use super::error::ApiError;

/// A parsed path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Route<'a> {
    pub endpoint: Endpoint,
    /// The index, or a list of names and patterns.
    pub index: Option<Cow<'a, str>>,
    /// The mapping type, unless it is `_doc`.
    pub doc_type: Option<Cow<'a, str>>,
    /// The ID of a document, or the name of what the path is about: an alias, a template, a field.
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

/// The endpoint, and the positions of index, type and ID (or name) among the parts of the path.
type RoutePositions = (Endpoint, Option<usize>, Option<usize>, Option<usize>);

fn match_path(parts: &[&str]) -> Option<RoutePositions> {
    match parts {
        [] => Some((Endpoint::Info, None, None, None)),
        [root, ..] if root.starts_with('_') && *root != "_all" => match_service_path(parts),
        _ => match_index_path(parts),
    }
}

/// Matches a path that starts with an underscore, not with an index.
fn match_service_path(parts: &[&str]) -> Option<RoutePositions> {
    let (endpoint, index, name) = match parts {
        ["_cat", ..] => return match_cat_path(parts),
        ["_license"] => (Endpoint::License, None, None),
        ["_license", "basic_status" | "trial_status"] => (Endpoint::LicenseStatus, None, Some(1)),
        ["_xpack"] => (Endpoint::XpackInfo, None, None),
        ["_nodes", "stats", ..] | ["_nodes", _, "stats", ..] => (Endpoint::NodesStats, None, None),
        ["_nodes"] => (Endpoint::Nodes, None, None),
        ["_nodes", _] | ["_nodes", _, _] => (Endpoint::Nodes, None, Some(1)),
        ["_cluster", "settings"] => (Endpoint::ClusterSettings, None, None),
        ["_cluster", "pending_tasks"] => (Endpoint::PendingTasks, None, None),
        ["_cluster", "health"] => (Endpoint::Health, None, None),
        ["_cluster", "health", _] => (Endpoint::Health, Some(2), None),
        ["_search", "scroll"] => (Endpoint::Scroll, None, None),
        ["_search", "scroll", _] => (Endpoint::Scroll, None, Some(2)),
        ["_pit"] => (Endpoint::ClosePointInTime, None, None),
        ["_mapping" | "_mappings"] => (Endpoint::AllMappings, None, None),
        ["_mapping" | "_mappings", "field", _] => (Endpoint::FieldMapping, None, Some(2)),
        ["_settings", _] => (Endpoint::Settings, None, Some(1)),
        ["_stats", _] => (Endpoint::Stats, None, Some(1)),
        ["_alias"] => (Endpoint::AliasList, None, None),
        ["_alias", _] => (Endpoint::AliasOfAll, None, Some(1)),
        ["_aliases"] => (Endpoint::AliasActions, None, None),
        ["_template"] => (Endpoint::TemplateList, None, None),
        ["_template", _] => (Endpoint::Template, None, Some(1)),
        ["_index_template"] => (Endpoint::IndexTemplateList, None, None),
        ["_index_template", _] => (Endpoint::IndexTemplate, None, Some(1)),
        ["_component_template"] => (Endpoint::ComponentTemplateList, None, None),
        ["_component_template", _] => (Endpoint::ComponentTemplate, None, Some(1)),
        ["_ilm", "policy"] => (Endpoint::LifecyclePolicy, None, None),
        ["_ilm", "policy", _] => (Endpoint::LifecyclePolicy, None, Some(2)),
        ["_ingest", "pipeline"] => (Endpoint::PipelineList, None, None),
        ["_ingest", "pipeline", _] => (Endpoint::Pipeline, None, Some(2)),
        ["_flush", "synced"] => (Endpoint::Flush, None, None),
        ["_cache", "clear"] => (Endpoint::CacheClear, None, None),
        ["_validate", "query"] => (Endpoint::ValidateQuery, None, None),
        [verb] => (multi_index_endpoint(verb)?, None, None),
        _ => return None,
    };
    Some((endpoint, index, None, name))
}

fn match_cat_path(parts: &[&str]) -> Option<RoutePositions> {
    let (endpoint, index, name) = match parts {
        [_, "indices"] => (Endpoint::CatIndices, None, None),
        [_, "indices", _] => (Endpoint::CatIndices, Some(2), None),
        [_, "count"] => (Endpoint::CatCount, None, None),
        [_, "count", _] => (Endpoint::CatCount, Some(2), None),
        [_, "health"] => (Endpoint::CatHealth, None, None),
        [_, "nodes"] => (Endpoint::CatNodes, None, None),
        [_, "master"] => (Endpoint::CatMaster, None, None),
        [_, "plugins"] => (Endpoint::CatPlugins, None, None),
        [_, "aliases"] => (Endpoint::CatAliases, None, None),
        [_, "aliases", _] => (Endpoint::CatAliases, None, Some(2)),
        [_, "templates"] => (Endpoint::CatTemplates, None, None),
        [_, "templates", _] => (Endpoint::CatTemplates, None, Some(2)),
        _ => return None,
    };
    Some((endpoint, index, None, name))
}

/// Matches a path that starts with an index.
fn match_index_path(parts: &[&str]) -> Option<RoutePositions> {
    let index = Some(0);
    Some(match parts {
        [_] => (Endpoint::Index, index, None, None),
        [_, "_doc"] => (Endpoint::New, index, None, None),
        [_, "_create" | "_source", id] | [_, "_doc", id, ..] if is_search_verb(id) => {
            if parts[1] != "_doc" || parts.len() > 3 {
                return None;
            }
            // The type `_doc` has all documents.
            (multi_index_endpoint(id)?, index, None, None)
        }
        [_, "_create", _] => (Endpoint::Create, index, None, Some(2)),
        [_, "_source", _] => (Endpoint::Source, index, None, Some(2)),
        [_, "_update", _] => (Endpoint::Update, index, None, Some(2)),
        [_, "_mapping" | "_mappings", "field", _] => (Endpoint::FieldMapping, index, None, Some(3)),
        [_, "_mapping" | "_mappings", _] => (Endpoint::Mapping, index, Some(2), None),
        [_, "_settings", _] => (Endpoint::Settings, index, None, Some(2)),
        [_, "_stats", _] => (Endpoint::Stats, index, None, Some(2)),
        [_, "_alias" | "_aliases", _] => (Endpoint::Alias, index, None, Some(2)),
        [_, "_alias"] => (Endpoint::AliasList, index, None, None),
        [_, "_pit"] => (Endpoint::OpenPointInTime, index, None, None),
        [_, "_flush", "synced"] => (Endpoint::Flush, index, None, None),
        [_, "_cache", "clear"] => (Endpoint::CacheClear, index, None, None),
        [_, "_validate", "query"] => (Endpoint::ValidateQuery, index, None, None),
        [_, verb] if verb.starts_with('_') => (multi_index_endpoint(verb)?, index, None, None),
        [_, doc_type, ..] if doc_type.starts_with('_') && *doc_type != "_doc" => return None,
        [_, _] => (Endpoint::New, index, Some(1), None),
        [_, _, verb] if is_typed_verb(verb) => (multi_index_endpoint(verb)?, index, Some(1), None),
        [_, _, _] => (Endpoint::Document, index, Some(1), Some(2)),
        [_, _, _, "_create"] => (Endpoint::Create, index, Some(1), Some(2)),
        [_, _, _, "_source"] => (Endpoint::Source, index, Some(1), Some(2)),
        [_, _, _, "_update"] => (Endpoint::Update, index, Some(1), Some(2)),
        _ => return None,
    })
}

/// Returns true for verbs that cannot be the ID of a document, because clients of 6.x send them after a type.
fn is_search_verb(verb: &str) -> bool {
    verb.starts_with("_search") || matches!(verb, "_count" | "_msearch" | "_mget")
}

fn is_typed_verb(verb: &str) -> bool {
    matches!(verb, "_search" | "_count" | "_bulk" | "_mapping" | "_mappings" | "_msearch" | "_mget")
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
        "_msearch" => Endpoint::MultiSearch,
        "_count" => Endpoint::Count,
        "_bulk" => Endpoint::Bulk,
        "_mget" => Endpoint::MultiGet,
        "_refresh" => Endpoint::Refresh,
        "_flush" => Endpoint::Flush,
        "_forcemerge" => Endpoint::ForceMerge,
        "_mapping" | "_mappings" => Endpoint::Mapping,
        "_field_caps" => Endpoint::FieldCaps,
        "_settings" => Endpoint::Settings,
        "_stats" => Endpoint::Stats,
        "_analyze" => Endpoint::Analyze,
        "_delete_by_query" => Endpoint::DeleteByQuery,
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
        check("/_license", "License - - -");
        check("/_nodes/_all/http", "Nodes - - _all");
        check("/_search/scroll/x", "Scroll - - x");
        check("/a/_doc/_search", "Search a - -");
        check("/a/t/_msearch", "MultiSearch a t -");
        check("/_template/t", "Template - - t");
        check("/a/_alias/b", "Alias a - b");
        check("/a/_mapping/field/f", "FieldMapping a - f");
        check("/a/_settings/s", "Settings a - s");
        check("/a/_update/1", "Update a - 1");
        check("/a/t/1/_update", "Update a t 1");
        check("/a/_delete_by_query", "DeleteByQuery a - -");
        check("/%78", "Index x - -");
        check("/a+b", "Index a+b - -");
    }

    #[test]
    fn unsupported_paths_are_never_documents() {
        for path in [
            "/_foo/bar",
            "/a/_search/template",
            "/a/_search/scroll",
            "/a/b/c/d/e",
            "/a/b/c/d/e/f",
            "//a/_count",
            "/a//_count",
            "/_cat",
            "/_cat/shards",
            "/a/_source/_search",
            "/a/_doc/_search/x",
            "/_snapshot/a",
        ] {
            check(path, &format!("[{path}] is not supported here"));
        }
        for path in ["/a/%zz", "/%", "/a/%f", "/%ff"] {
            check(path, "the path has a malformed escape");
        }
    }
}
