//! The events that the code logs, read from its source.

use std::collections::BTreeSet;

use super::{files_below, read};

/// What the name of an event in the source stands for, if it is put together from parts.
const COMPOSED: [(&str, &[&str]); 2] = [
    ("{what}_failed", &["sync_failed", "manifest_failed"]),
    (
        "cluster_{word}",
        &[
            "cluster_unreachable",
            "cluster_access_denied",
            "cluster_request_rejected",
            "cluster_busy",
            "cluster_needs_operator",
        ],
    ),
];

/// Status lines whose text is put together before the call that prints it.
const PREPARED: [&str; 2] = ["replayed", "verified"];

/// Calls whose first literal is a line of the log.
const CALLS: [&str; 6] = ["error!(", "warn!(", "info!(", "debug!(", "log!(", "format_args!("];

/// The first word of a line, if it is the name of an event: `stream_ended peer={} ...`.
fn event_name(line: &str) -> Option<&str> {
    let name = line.split(' ').next()?;
    let is_name = (name.starts_with(|c: char| c.is_ascii_lowercase()) || name.contains("}_"))
        && name.chars().all(|c| c.is_ascii_lowercase() || "_{}".contains(c));
    // A name is alone, or keys follow.
    let next = line[name.len()..].split_whitespace().next();
    let has_keys = next.is_none_or(|word| word.contains('=') || word.starts_with('{'));
    (is_name && has_keys).then_some(name)
}

/// The first literals in the calls of `call` in the source.
fn literals<'a>(text: &'a str, call: &str) -> Vec<&'a str> {
    let mut found = Vec::new();
    for (at, _) in text.match_indices(call) {
        // A line on stdout is data and not part of the log.
        let is_data = text[..at].ends_with("print_line(");
        let is_whole = !is_data && !text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let rest = &text[at + call.len()..];
        // Before the literal there is at most a level.
        let is_argument = |c: char| c.is_alphanumeric() || c.is_whitespace() || ":,_".contains(c);
        let literal = rest.trim_start_matches(is_argument).strip_prefix('"');
        if let Some(literal) = literal.filter(|_| is_whole) {
            found.extend(literal_end(literal).map(|end| &literal[..end]));
        }
    }
    found
}

/// Where a literal ends: at the first quote that is not escaped.
fn literal_end(text: &str) -> Option<usize> {
    let mut is_escaped = false;
    text.char_indices().find_map(|(at, c)| {
        let ends = c == '"' && !is_escaped;
        is_escaped = c == '\\' && !is_escaped;
        ends.then_some(at)
    })
}

/// The names of all events in a source text.
fn events_in(text: &str) -> BTreeSet<String> {
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or(text);
    let lines = CALLS.iter().flat_map(|call| literals(code, call));
    let mut names = BTreeSet::new();
    for name in lines.filter_map(event_name) {
        match COMPOSED.iter().find(|(composed, _)| *composed == name) {
            Some((_, parts)) => names.extend(parts.iter().map(|part| (*part).to_owned())),
            None if name.contains('{') => {
                panic!("the event {name} is put together from parts: add it to COMPOSED")
            }
            None => drop(names.insert(name.to_owned())),
        }
    }
    names
}

/// The names of all events that the code logs.
pub(super) fn all() -> BTreeSet<String> {
    let files = files_below("src", ".rs");
    let sources = files.iter().filter(|file| !file.contains("/tests"));
    let prepared = PREPARED.iter().map(|name| (*name).to_owned());
    sources.flat_map(|file| events_in(&read(file))).chain(prepared).collect()
}

#[test]
fn events_are_found_in_a_source() {
    let check = |text: &str, expected: &[&str]| {
        assert_eq!(events_in(text).iter().collect::<Vec<_>>(), expected, "{text}")
    };
    check("log::info!(\"stream_ended peer={} reason={reason}\");", &["stream_ended"]);
    check("log::warn!(\n    \"offset_gap partition={partition}\"\n);", &["offset_gap"]);
    check("throttle.warn(\"full\", format_args!(\"spool_full reason={full}\"));", &["spool_full"]);
    check("logging::status_line(format_args!(\"verified files={files}\"));", &["verified"]);
    check("log::error!(\"thread_failed\");", &["thread_failed"]);
    check("logging::print_line(format_args!(\"missing file={file}\"));", &[]);
    check("format_args!(\"{} of {total} events\")", &[]);
    check("// info!(\n#[cfg(test)]\nlog::info!(\"x_y z=1\");", &["x_y"]);
    check("#[cfg(test)]\nmod tests {\n    log::info!(\"x_y z=1\");", &[]);
    check(
        "log::log!(\n    level,\n    \"{what}_failed file={file}\"\n)",
        &["manifest_failed", "sync_failed"],
    );
}
