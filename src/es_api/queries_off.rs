//! `--queries off`: a receiver that stores and answers no query. Pure.

use crate::http::Method;

/// Last segments of the paths that read events. All of them start with an underscore, and so does no index.
const QUERIES: [&str; 20] = [
    "_search",
    "_msearch",
    "_count",
    "_mget",
    "_source",
    "_explain",
    "_termvectors",
    "_mtermvectors",
    "_validate",
    "_field_caps",
    "_pit",
    "_async_search",
    "_sql",
    "_eql",
    "_rank_eval",
    "_graph",
    "_terms_enum",
    "_knn_search",
    "_search_shards",
    "_render",
];

/// Tells whether a request reads events. Writing, mappings, templates and the state of the server do not.
pub(super) fn is_query(method: Method, path: &str) -> bool {
    let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
    let is_query = |segment: &&str| QUERIES.contains(segment) || segment.ends_with("_by_query");
    if segments.iter().any(is_query) {
        return true;
    }
    let reads = matches!(method, Method::Get | Method::Head);
    // `/INDEX/_doc/ID`, or with a type. The paths of the server itself start with an underscore.
    reads
        && segments.len() == 3
        && !segments[0].starts_with('_')
        && (segments[1] == "_doc" || !segments[1].starts_with('_'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_reads_events_is_a_query() {
        let queries = [
            (Method::Get, "/_search"),
            (Method::Post, "/a/_search"),
            (Method::Post, "/_search/scroll"),
            (Method::Get, "/a/t/_count"),
            (Method::Post, "/_msearch"),
            (Method::Post, "/a/_delete_by_query"),
            (Method::Get, "/a/_doc/1"),
            (Method::Head, "/a/t/1"),
            (Method::Get, "/a/_source/1"),
            (Method::Get, "//a//_search//"),
        ];
        for (method, path) in queries {
            assert!(is_query(method, path), "{path}");
        }
        let others = [
            (Method::Get, "/"),
            (Method::Post, "/_bulk"),
            (Method::Post, "/a/_doc"),
            (Method::Put, "/a/_doc/1"),
            (Method::Put, "/a/t/1"),
            (Method::Get, "/a"),
            (Method::Get, "/a/_mapping"),
            (Method::Get, "/_cat/indices"),
            (Method::Get, "/_cluster/health/a"),
            (Method::Get, "/_license"),
            (Method::Post, "/a/_refresh"),
        ];
        for (method, path) in others {
            assert!(!is_query(method, path), "{path}");
        }
    }
}
