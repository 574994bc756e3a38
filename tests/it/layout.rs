//! Imports go one way: which directory of src/ may use which, read from `use crate::` lines and `crate::` paths.
//!
//! [`LAYERS`] lists the directories from the bottom to the top. A directory may use those below it, unless [`ALSO`]
//! names an exception. Within a layer, directories do not use each other.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The directories, bottom layer first. A name is a directory or a file of src/, without `.rs`; `cc/wire` is a directory
/// of its own, and `cc` means all others below it.
const LAYERS: [&[&str]; 18] = [
    &["exit"],
    &["error", "limits"],
    &["runtime"],
    &["capture", "phone"],
    &["http", "calls"],
    &["search"],
    &["cc/wire"],
    &["cc"],
    &["billing"],
    &["config"],
    &["iri"],
    &["es_api"],
    &["replay"],
    &["daemon"],
    &["manual"],
    &["cmd"],
    &["cli"],
    &["main"],
];

/// Exceptions: the first may use the second, although it is not below it. Each needs a reason.
const ALSO: [(&str, &str, &str); 0] = [];

/// A use of another directory.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Arrow {
    from: String,
    to: String,
    place: String,
}

fn src() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// All Rust files below a directory.
fn rust_files(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            rust_files(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// The directory that a module path belongs to: the longest name in [`LAYERS`] that it starts with.
fn directory(module: &str) -> Option<&'static str> {
    let names = LAYERS.iter().flat_map(|layer| layer.iter().copied());
    names
        .filter(|name| module == *name || module.starts_with(&format!("{name}/")))
        .max_by_key(|name| name.len())
}

/// The source without comments and without the tests in it, line by line.
fn code_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines: Vec<&str> = text.lines().collect();
    let is_tests = |pair: &[&str]| pair[0] == "#[cfg(test)]" && pair[1].starts_with("mod tests");
    let tests = lines.windows(2).position(is_tests).unwrap_or(usize::MAX);
    let is_code = |line: &str| !line.trim_start().starts_with("//");
    text.lines().enumerate().take_while(move |(at, _)| *at < tests).filter(move |(_, line)| is_code(line))
}

/// Module paths in the code of a module, from the root of the crate: `runtime/net/bind` for `crate::runtime::net::bind`,
/// and `http/Server` for `super::Server` in the module `http/status`. Groups in braces are expanded.
fn uses(module: &str, text: &str) -> Vec<(usize, String)> {
    let mut starts = Vec::new();
    let mut code = String::new();
    for (at, line) in code_lines(text) {
        starts.push((code.len(), at + 1));
        code.push_str(line);
        code.push('\n');
    }
    let mut found = Vec::new();
    for (at, _) in code.match_indices("crate::").chain(code.match_indices("super::")) {
        if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':' || c == '$') {
            continue;
        }
        let mut rest = &code[at..];
        let mut base: Vec<&str> = module.split('/').collect();
        if let Some(path) = rest.strip_prefix("crate::") {
            (rest, base) = (path, Vec::new());
        }
        while let Some(path) = rest.strip_prefix("super::") {
            rest = path;
            base.pop();
        }
        let line = starts.iter().rev().find(|(start, _)| *start <= at).map_or(0, |(_, line)| *line);
        let mut paths = Vec::new();
        expand(rest, &base.join("/"), &mut paths);
        found.extend(paths.into_iter().map(|path| (line, path)));
    }
    found
}

/// Reads one path, with its groups, from the start of `text`; gives how much of it was read.
fn expand(text: &str, prefix: &str, paths: &mut Vec<String>) -> usize {
    let is_name = |c: char| c.is_alphanumeric() || c == '_' || c == '*';
    let skipped = text.len() - text.trim_start().len();
    let rest = &text[skipped..];
    if let Some(group) = rest.strip_prefix('{') {
        let mut at = 0;
        while let Some(next) = group[at..].chars().next() {
            at += match next {
                '}' => return skipped + 1 + at + 1,
                next if next == ',' || next.is_whitespace() => next.len_utf8(),
                // Anything that is not a path ends the group.
                _ => expand(&group[at..], prefix, paths).max(1),
            };
        }
        return text.len();
    }
    let end = rest.find(|c| !is_name(c)).unwrap_or(rest.len());
    let name = &rest[..end];
    let path = if prefix.is_empty() { name.to_owned() } else { format!("{prefix}/{name}") };
    match rest[end..].strip_prefix("::") {
        Some(next) => skipped + end + 2 + expand(next, &path, paths),
        None => {
            let alias = rest[end..]
                .strip_prefix(" as ")
                .map_or(0, |alias| 4 + alias.find(|c| !is_name(c)).unwrap_or(alias.len()));
            paths.push(path);
            skipped + end + alias
        }
    }
}

/// All uses of other directories in src/.
fn arrows() -> Vec<Arrow> {
    let mut files = Vec::new();
    rust_files(&src(), &mut files);
    let mut arrows = Vec::new();
    for file in files {
        let relative = file.strip_prefix(src()).unwrap().to_str().unwrap().to_owned();
        if is_test(&relative) {
            continue;
        }
        let module = relative.trim_end_matches(".rs").trim_end_matches("/mod");
        let Some(from) = directory(module) else {
            assert!(module == "lib", "src/{relative} belongs to no layer: add its directory to LAYERS");
            continue;
        };
        for (line, path) in uses(module, &fs::read_to_string(&file).unwrap()) {
            // What lib.rs exports again belongs to `error` and `exit`.
            let path = match path.as_str() {
                "Error" | "Result" => "error".to_owned(),
                "Exit" => "exit".to_owned(),
                _ => path,
            };
            let to = directory(&path)
                .unwrap_or_else(|| panic!("src/{relative}:{line}: crate::{path} is in no layer"));
            if from != to {
                let place = format!("src/{relative}:{line}");
                arrows.push(Arrow { from: from.to_owned(), to: to.to_owned(), place });
            }
        }
    }
    arrows.sort();
    arrows
}

/// Modules that exist only in tests.
fn is_test(file: &str) -> bool {
    let name = file.rsplit('/').next().unwrap_or(file);
    name == "tests.rs" || name.starts_with("tests_") || file.contains("/tests/") || name == "fake.rs"
}

fn layer(directory: &str) -> usize {
    LAYERS.iter().position(|layer| layer.contains(&directory)).expect("each directory has a layer")
}

fn is_allowed(from: &str, to: &str) -> bool {
    layer(to) < layer(from) || ALSO.iter().any(|(of, other, _)| (*of, *other) == (from, to))
}

#[test]
fn imports_go_down() {
    let up: Vec<String> = arrows()
        .into_iter()
        .filter(|arrow| !is_allowed(&arrow.from, &arrow.to))
        .map(|arrow| format!("{}: {} may not use {}", arrow.place, arrow.from, arrow.to))
        .collect();
    assert!(up.is_empty(), "{} imports go up:\n{}", up.len(), up.join("\n"));
}

#[test]
fn directories_have_no_cycle() {
    let mut used: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for Arrow { from, to, .. } in arrows() {
        used.entry(from).or_default().insert(to);
    }
    // Directories that use only directories without a cycle are taken away until none is left.
    loop {
        let free: Vec<String> = used
            .iter()
            .filter(|(_, to)| to.iter().all(|to| !used.contains_key(to)))
            .map(|(from, _)| from.clone())
            .collect();
        if free.is_empty() {
            break;
        }
        used.retain(|from, _| !free.contains(from));
    }
    assert!(used.is_empty(), "these directories use each other in a cycle: {used:?}");
}

#[test]
fn each_exception_is_needed() {
    let arrows = arrows();
    for (from, to, _) in ALSO {
        let is_used = arrows.iter().any(|arrow| (arrow.from.as_str(), arrow.to.as_str()) == (from, to));
        assert!(is_used, "{from} no longer uses {to}: delete the exception");
    }
}

#[test]
fn arrows_that_go_up_are_found() {
    let check = |text: &str, expected: &[&str]| {
        let found: Vec<String> = uses("http/status", text).into_iter().map(|(_, path)| path).collect();
        assert_eq!(found, expected, "{text}");
    };
    check("use crate::cc::wire::name;\n", &["cc/wire/name"]);
    check("use crate::cc::{wire::{self, name}, vault};\n", &["cc/wire/self", "cc/wire/name", "cc/vault"]);
    check("use crate::{\n    Error, Result,\n    http,\n};\n", &["Error", "Result", "http"]);
    check("let x = crate::http::Server::new(crate::limits::MAX);\n", &["http/Server/new", "limits/MAX"]);
    check(
        "use super::{Server, Handler};\nuse super::super::limits::MAX;\n",
        &["http/Server", "http/Handler", "limits/MAX"],
    );
    check("// use crate::http;\n#[cfg(test)]\nmod tests { use crate::http; }\n", &[]);
    assert!(is_allowed("cmd", "search") && is_allowed("cc", "cc/wire"));
    assert!(
        !is_allowed("search", "es_api")
            && !is_allowed("cc/wire", "cc")
            && !is_allowed("iri", "es_api")
            && !is_allowed("capture", "phone")
    );
}
