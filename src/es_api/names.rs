//! Resolves the index part of a path: aliases, exclusions, date math, `expand_wildcards`. Runs on the threads of the HTTP
//! connections.
//!
//! The store knows indices and patterns. Names without these forms go to it unchanged and at no cost.

use chrono::{DateTime, Utc};

use super::api::{EsApi, RoutedRequest};
use super::error::ApiError;
use super::metadata::Metadata;
use super::route::parse_index_names;
use crate::search::date::write::DateWriter;
use crate::search::date::{DateFormat, Rounding, TimeZone, parse_instant};
use crate::search::glob::glob_matches;

/// A pattern that fits no index: an empty list would mean all.
const NO_INDEX: &str = ",*";

impl EsApi {
    /// Returns the names and patterns of the indices that a request concerns. An empty list means all indices.
    pub(super) fn indices(&self, routed: &RoutedRequest<'_>) -> Result<Vec<String>, ApiError> {
        let names = parse_index_names(routed.route.index.as_deref())?;
        self.resolve_names(names, routed.parameters.get("expand_wildcards"))
    }

    /// Resolves names that the store does not know.
    pub(super) fn resolve_names(
        &self,
        names: Vec<String>,
        expand_wildcards: Option<&str>,
    ) -> Result<Vec<String>, ApiError> {
        let expands = expands_wildcards(expand_wildcards)?;
        let names = names
            .into_iter()
            .map(|name| resolve_date_math(name, crate::runtime::time::now()))
            .collect::<Result<Vec<_>, _>>()?;
        // A cluster knows its aliases and exclusions itself.
        if self.store.cluster_backend().is_some() {
            return Ok(names);
        }
        if !expands && (names.is_empty() || names.iter().any(|name| name.contains('*'))) {
            let named: Vec<String> = names.into_iter().filter(|name| !name.contains('*')).collect();
            return Ok(or_none(self.with_aliases(named)));
        }
        let has_exclusion = names.iter().skip(1).any(|name| name.starts_with('-'));
        match has_exclusion {
            true => self.exclude(names),
            false => Ok(self.with_aliases(names)),
        }
    }

    /// Replaces aliases by their indices.
    fn with_aliases(&self, names: Vec<String>) -> Vec<String> {
        let metadata = self.metadata.read();
        if metadata.aliases.is_empty() || names.is_empty() {
            return names;
        }
        let mut found = Vec::new();
        for name in names {
            let of_alias = indices_of_alias(&metadata, &name);
            // A pattern can also fit indices.
            if of_alias.is_empty() || name.contains('*') {
                found.push(name);
            }
            found.extend(of_alias);
        }
        found
    }

    /// Applies exclusions such as `-x*`, each to the names before it. As in Elasticsearch, they follow a pattern.
    fn exclude(&self, names: Vec<String>) -> Result<Vec<String>, ApiError> {
        let all: Vec<String> = self.store.indices(&[])?.into_iter().map(|index| index.name).collect();
        let metadata = self.metadata.read();
        let (mut found, mut has_pattern) = (Vec::<String>::new(), false);
        for name in names {
            if let Some(excluded) = name.strip_prefix('-').filter(|_| has_pattern) {
                let of_alias = indices_of_alias(&metadata, excluded);
                found.retain(|index| !glob_matches(excluded, index) && !of_alias.contains(index));
                continue;
            }
            has_pattern |= name.contains('*');
            let of_alias = indices_of_alias(&metadata, &name);
            if name.contains('*') {
                found.extend(all.iter().filter(|index| glob_matches(&name, index)).cloned());
            } else if of_alias.is_empty() {
                found.push(name);
            }
            found.extend(of_alias);
        }
        Ok(or_none(found))
    }

    /// Returns the index to which a write to this name goes: the name itself, or the write index of an alias.
    pub(super) fn write_index(&self, name: &str) -> Result<String, ApiError> {
        let name = resolve_date_math(name.to_owned(), crate::runtime::time::now())?;
        let metadata = self.metadata.read();
        if metadata.aliases.is_empty() {
            return Ok(name);
        }
        let is_write_index = |index: &String| {
            let options = metadata.aliases.get(index).and_then(|aliases| aliases.get(&name));
            options.and_then(|options| options.get("is_write_index")).and_then(serde_json::Value::as_bool)
        };
        let indices = indices_of_alias(&metadata, &name);
        let chosen = match indices.as_slice() {
            [] => return Ok(name),
            [only] => is_write_index(only).unwrap_or(true).then_some(only),
            several => several.iter().find(|index| is_write_index(index) == Some(true)),
        };
        chosen.cloned().ok_or_else(|| {
            ApiError::illegal_argument(format!(
                "no write index is defined for alias [{name}]. The write index may be explicitly disabled using \
                 is_write_index=false or the alias points to multiple indices without one being designated as a write index"
            ))
        })
    }

    pub(super) fn is_alias(&self, name: &str) -> bool {
        self.metadata.read().aliases.values().any(|aliases| aliases.contains_key(name))
    }
}

/// Returns the indices that have an alias of this name or pattern.
fn indices_of_alias(metadata: &Metadata, name: &str) -> Vec<String> {
    let has = |aliases: &std::collections::BTreeMap<String, _>| {
        aliases.keys().any(|alias| glob_matches(name, alias))
    };
    metadata.aliases.iter().filter(|(_, aliases)| has(aliases)).map(|(index, _)| index.clone()).collect()
}

fn or_none(names: Vec<String>) -> Vec<String> {
    if names.is_empty() { vec![NO_INDEX.to_owned()] } else { names }
}

/// Returns whether patterns are expanded to indices. All indices are open, and none is hidden.
fn expands_wildcards(value: Option<&str>) -> Result<bool, ApiError> {
    let mut expands = value.is_none();
    for word in value.into_iter().flat_map(|value| value.split(',')) {
        match word {
            "open" | "all" => expands = true,
            "closed" | "hidden" => {}
            "none" => expands = false,
            other => {
                return Err(ApiError::illegal_argument(format!("No valid expand wildcard value [{other}]")));
            }
        }
    }
    Ok(expands)
}

/// Resolves date math such as `<calls-{now/d}>` or `<calls-{now-1d/d{yyyy.MM}}>`.
fn resolve_date_math(name: String, now: DateTime<Utc>) -> Result<String, ApiError> {
    let Some(inner) = name.strip_prefix('<').and_then(|name| name.strip_suffix('>')) else { return Ok(name) };
    let malformed =
        || ApiError::new(400, "parse_exception", format!("invalid dynamic name expression [{inner}]"));
    let mut out = String::new();
    let mut rest = inner;
    while let Some((before, after)) = rest.split_once('{') {
        out.push_str(before);
        let mut depth = 1;
        let end = after.find(|c| {
            depth += match c {
                '{' => 1,
                '}' => -1,
                _ => 0,
            };
            depth == 0
        });
        let (expression, after) =
            (&after[..end.ok_or_else(malformed)?], &after[end.unwrap_or_default() + 1..]);
        out.push_str(&render_date_math(expression, now).ok_or_else(malformed)?);
        rest = after;
    }
    out.push_str(rest);
    Ok(out)
}

fn render_date_math(expression: &str, now: DateTime<Utc>) -> Option<String> {
    let (math, format) = match expression.split_once('{') {
        Some((math, format)) => (math, format.strip_suffix('}')?),
        None => (expression, "yyyy.MM.dd"),
    };
    // A time zone follows the format.
    let format = format.split_once('|').map_or(format, |(format, _)| format);
    let ms =
        parse_instant(math, &DateFormat::default(), now.timestamp_millis(), TimeZone::UTC, Rounding::Down)
            .ok()?;
    Some(DateWriter::new(Some(format), TimeZone::UTC).write(ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn date_math_in_names_is_resolved() {
        let now = DateTime::from_timestamp_millis(1_796_050_000_000).unwrap();
        let check = |name: &str, expected: &str| {
            assert_eq!(
                resolve_date_math(name.to_owned(), now).map_err(|error| error.status()),
                Ok(expected.to_owned()),
                "{name}"
            );
        };
        check("calls", "calls");
        check("<calls>", "calls");
        check("<calls-{now/d}>", "calls-2026.11.30");
        check("<calls-{now-1d/d}-x>", "calls-2026.11.29-x");
        check("<calls-{now/M{yyyy.MM}}>", "calls-2026.11");
        check("<{now/d{yyyy|+01:00}}>", "2026");
        for bad in ["<a{now>", "<a{now/d{yyyy}>", "<a{soon}>"] {
            assert!(resolve_date_math(bad.to_owned(), now).is_err(), "{bad}");
        }
    }
}
