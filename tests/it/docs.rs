//! The documentation stays true: it is checked against the code, its examples are executed, and its sentences are short.
//!
//! - `drift`: exit codes, options, variables, keys, metrics and log events are documented, and what is documented exists
//! - `examples`: `console` blocks of Markdown, and the examples of `--help`, are executed
//! - `links`: links and paths lead to files and headings that exist
//! - `old_names`: the old names in the CHANGELOG occur nowhere else
//! - `phrases`: banned phrases in comments and documents
//! - `sentences`: lengths of sentences and lines in Markdown

mod console;
mod drift;
mod examples;
mod links;
mod log_events;
mod old_names;
mod phrases;
mod sentences;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The root of the repository.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Reads a file of the repository.
fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("cannot read {path}: {error}"))
}

/// Paths of all files below `dir` whose name ends with `suffix`, relative to the root, in order.
fn files_below(dir: &str, suffix: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut dirs = vec![PathBuf::from(dir)];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(root().join(&dir)).unwrap().map(Result::unwrap) {
            let path = dir.join(entry.file_name());
            let kind = entry.file_type().unwrap();
            match path.to_str() {
                Some(_) if kind.is_dir() => dirs.push(path),
                Some(path) if kind.is_file() && path.ends_with(suffix) => found.push(path.to_owned()),
                _ => {}
            }
        }
    }
    found.sort();
    found
}

/// All Markdown files of the repository.
fn markdown_files() -> Vec<String> {
    let mut files = files_below("docs", ".md");
    files.extend(["README.md", "ARCHITECTURE.md", "CHANGELOG.md"].map(str::to_owned));
    files
}

/// All Rust files of the repository.
fn rust_files() -> Vec<String> {
    let dirs = ["src", "tests", "benches", "fuzz/fuzz_targets"];
    let mut files: Vec<String> = dirs.iter().flat_map(|dir| files_below(dir, ".rs")).collect();
    files.push("fuzz/checks.rs".to_owned());
    files
}

/// All scripts of the repository.
fn script_files() -> Vec<String> {
    files_below("scripts", "")
}

/// A line of a Markdown file, and what it is part of.
struct MarkdownLine {
    number: usize,
    text: String,
    kind: MarkdownKind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum MarkdownKind {
    /// A line of a fenced code block, or its fence.
    Code,
    /// A row of a table.
    Table,
    /// A heading.
    Heading,
    /// An item of a list, or a continuation of it.
    Item,
    /// Anything else.
    Paragraph,
}

/// The lines of a Markdown text.
fn markdown_lines(text: &str) -> Vec<MarkdownLine> {
    let (mut is_code, mut is_item) = (false, false);
    let classify = |line: &str| {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        let start = line.trim_start();
        let is_start = ["- ", "* "].iter().any(|bullet| start.starts_with(bullet)) || is_numbered(start);
        is_item = is_start || (is_item && line.starts_with(' '));
        match () {
            () if is_fence || is_code => MarkdownKind::Code,
            () if line.starts_with('|') => MarkdownKind::Table,
            () if line.starts_with('#') => MarkdownKind::Heading,
            () if is_item => MarkdownKind::Item,
            () => MarkdownKind::Paragraph,
        }
    };
    let kinds: Vec<MarkdownKind> = text.lines().map(classify).collect();
    text.lines()
        .zip(kinds)
        .enumerate()
        .map(|(at, (text, kind))| MarkdownLine { number: at + 1, text: text.to_owned(), kind })
        .collect()
}

fn is_numbered(line: &str) -> bool {
    line.split_once(". ").is_some_and(|(number, _)| number.parse::<u32>().is_ok())
}

/// The texts between backticks in a line.
fn code_spans(line: &str) -> Vec<&str> {
    line.split('`').skip(1).step_by(2).collect()
}

/// The first cells of all table rows of a Markdown file, without header rows.
fn first_cells(text: &str) -> Vec<String> {
    let mut cells = Vec::new();
    let lines: Vec<MarkdownLine> = markdown_lines(text);
    for (at, line) in lines.iter().enumerate() {
        let next = lines.get(at + 1).map_or("", |next| next.text.as_str());
        let is_rule = |text: &str| text.starts_with("|--") || text.starts_with("|:-");
        if line.kind == MarkdownKind::Table && !is_rule(&line.text) && !is_rule(next) {
            cells.extend(table_cells(&line.text).into_iter().next());
        }
    }
    cells
}

/// The cells of a table row; `\|` is part of a cell.
fn table_cells(row: &str) -> Vec<String> {
    let row = row.replace("\\|", "\u{1}");
    let row = row.trim().trim_start_matches('|').trim_end_matches('|');
    row.split('|').map(|cell| cell.trim().replace('\u{1}', "|")).collect()
}

/// The code spans of the first cells of all tables in a Markdown file.
fn documented_names(text: &str) -> BTreeSet<String> {
    let cells = first_cells(text);
    cells.iter().flat_map(|cell| code_spans(cell)).map(str::to_owned).collect()
}

/// Fails if the code has a name that is not documented, or if a documented name does not exist.
#[track_caller]
fn assert_documented(what: &str, page: &str, existing: &BTreeSet<String>, documented: &BTreeSet<String>) {
    let undocumented: Vec<&String> = existing.difference(documented).collect();
    let unknown: Vec<&String> = documented.difference(existing).collect();
    assert!(
        undocumented.is_empty() && unknown.is_empty(),
        "{page}: {what} that are not documented: {undocumented:?}; documented ones that do not exist: {unknown:?}"
    );
}

/// Fails with the list of all problems, if there are any.
#[track_caller]
fn assert_none(what: &str, problems: &[String]) {
    assert!(problems.is_empty(), "{} {what}:\n{}", problems.len(), problems.join("\n"));
}
