//! Links between Markdown files lead to files and headings that exist, and the paths in ARCHITECTURE.md exist.

use std::collections::BTreeSet;
use std::path::Path;

use super::{MarkdownKind, assert_none, code_spans, markdown_files, markdown_lines, read, root};

/// The targets of the links in a Markdown text, with their line numbers.
fn links(text: &str) -> Vec<(usize, String)> {
    let mut links = Vec::new();
    for line in markdown_lines(text).into_iter().filter(|line| line.kind != MarkdownKind::Code) {
        for part in line.text.split("](").skip(1) {
            let target = part.split(')').next().expect("a split has a first part");
            links.push((line.number, target.to_owned()));
        }
    }
    links
}

/// The anchors of the headings in a Markdown text, as GitHub makes them.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = markdown_lines(text).into_iter().filter(|line| line.kind == MarkdownKind::Heading);
    headings
        .map(|line| {
            let title = line.text.trim_start_matches('#').trim().to_lowercase();
            let kept = title.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
            kept.map(|c| if c == ' ' { '-' } else { c }).collect()
        })
        .collect()
}

fn broken_links(file: &str) -> Vec<String> {
    let dir = Path::new(file).parent().expect("a file is in a directory");
    let mut broken = Vec::new();
    for (line, target) in links(&read(file)) {
        if target.contains("://") {
            continue;
        }
        let (path, anchor) = target.split_once('#').unwrap_or((&target, ""));
        let path = if path.is_empty() { file.into() } else { dir.join(path) };
        let is_broken = !root().join(&path).exists()
            || (!anchor.is_empty() && !anchors(&read(&path.display().to_string())).contains(anchor));
        broken.extend(is_broken.then(|| format!("{file}:{line}: {target}")));
    }
    broken
}

#[test]
fn links_lead_somewhere() {
    let broken: Vec<String> = markdown_files().iter().flat_map(|file| broken_links(file)).collect();
    assert_none("broken links", &broken);
}

#[test]
fn each_page_is_in_the_index() {
    let linked: BTreeSet<String> =
        links(&read("docs/README.md")).into_iter().map(|(_, target)| target).collect();
    let is_linked = |page: &str| linked.iter().any(|target| target.split('#').next() == Some(page));
    let missing: Vec<String> = markdown_files()
        .into_iter()
        .filter_map(|file| file.strip_prefix("docs/").map(str::to_owned))
        .filter(|page| page != "README.md" && !is_linked(page))
        .collect();
    assert_none("pages that docs/README.md does not list", &missing);
}

#[test]
fn paths_in_the_architecture_exist() {
    let mut missing = Vec::new();
    for line in
        markdown_lines(&read("ARCHITECTURE.md")).into_iter().filter(|line| line.kind != MarkdownKind::Code)
    {
        for span in code_spans(&line.text) {
            let is_path = span.contains('/')
                && !span.starts_with(['.', '/'])
                && span.chars().all(|c| c.is_ascii_lowercase() || "/_.".contains(c));
            let exists = |base: &str, end: &str| root().join(format!("{base}{span}{end}")).exists();
            if is_path && !exists("", "") && !exists("src/", "") && !exists("src/", ".rs") {
                missing.push(format!("ARCHITECTURE.md:{}: {span}", line.number));
            }
        }
    }
    assert_none("paths that do not exist", &missing);
}

#[test]
fn directories_in_the_architecture_are_those_of_src() {
    let text = read("ARCHITECTURE.md");
    let map = text.split("```text\nsrc/\n").nth(1).expect("the map of src/").split("\ntests/").next();
    let names = map.expect("a split has a first part").lines().filter_map(|line| {
        let name = line.strip_prefix("  ")?;
        let words = name.split_whitespace().take_while(|word| word.ends_with('/') || word.ends_with(".rs"));
        (!name.starts_with(' ')).then(|| words.map(str::to_owned).collect::<Vec<_>>())
    });
    let described: BTreeSet<String> = names.flatten().collect();
    let entries = std::fs::read_dir(root().join("src")).unwrap().map(Result::unwrap);
    let existing: BTreeSet<String> = entries
        .map(|entry| {
            let end = if entry.file_type().unwrap().is_dir() { "/" } else { "" };
            format!("{}{end}", entry.file_name().into_string().unwrap())
        })
        .filter(|name| name != "lib.rs")
        .collect();
    super::assert_documented("entries of src/", "ARCHITECTURE.md", &existing, &described);
}

#[test]
fn broken_links_are_found() {
    assert_eq!(
        links("See [a](b.md#c) and [d](e).\n```\n[x](y)\n```\n"),
        [(1, "b.md#c".to_owned()), (1, "e".to_owned())]
    );
    let expected = ["2-streams-over-tcp", "several-consumers-and-lea-merge", "a_b"].map(str::to_owned);
    let headings = "## 2. Streams over TCP\n# Several consumers, and lea merge\n### `a_b`\n";
    assert_eq!(anchors(headings), BTreeSet::from(expected));
}
