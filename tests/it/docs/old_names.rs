//! The old names in the tables of the CHANGELOG occur nowhere else.
//!
//! A row counts unless its first cell says where the name was changed (`--store` *of* ...): such a name still exists
//! elsewhere.

use super::{assert_none, files_below, first_cells, read, root};

/// Directories whose files are searched, and single files.
const DIRS: [&str; 9] = ["src", "tests", "benches", "fuzz", "docs", "scripts", "man", "config", ".ci"];
const FILES: [&str; 4] = ["README.md", "ARCHITECTURE.md", "Cargo.toml", "clippy.toml"];

/// The old names of the tables.
fn old_names(changelog: &str) -> Vec<String> {
    let mut names = Vec::new();
    for cell in first_cells(changelog) {
        if cell.contains(" of ") {
            continue;
        }
        // The first word of a code span: the second one is the value of an option.
        let spans = super::code_spans(&cell);
        names.extend(spans.into_iter().filter_map(|span| span.split(' ').next()).map(str::to_owned));
    }
    names
}

/// Byte offsets at which `name` stands as a word of its own.
fn occurrences(text: &str, name: &str) -> Vec<usize> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_' || c == '-';
    let is_free = |at: usize| {
        let before = text[..at].chars().next_back();
        let after = text[at + name.len()..].chars().next();
        !before.is_some_and(|c| is_word(c) || c == '.') && !after.is_some_and(is_word)
    };
    text.match_indices(name).map(|(at, _)| at).filter(|at| is_free(*at)).collect()
}

fn searched_files() -> Vec<String> {
    let mut files: Vec<String> = DIRS.iter().flat_map(|dir| files_below(dir, "")).collect();
    files.extend(FILES.map(str::to_owned));
    // Corpora and locks have no names of ours.
    files.retain(|file| {
        !file.starts_with("fuzz/corpus") && !file.starts_with("fuzz/target") && !file.ends_with(".lock")
    });
    files
}

#[test]
fn old_names_occur_only_in_the_changelog() {
    let names = old_names(&read("CHANGELOG.md"));
    assert!(names.len() > 100, "the tables of the CHANGELOG have {} old names", names.len());
    let mut found = Vec::new();
    for file in searched_files() {
        let Ok(text) = std::fs::read_to_string(root().join(&file)) else { continue };
        for name in &names {
            for at in occurrences(&text, name) {
                let line = text[..at].matches('\n').count() + 1;
                found.push(format!("{file}:{line}: {name}"));
            }
        }
    }
    assert_none("old names", &found);
}

#[test]
fn old_names_are_found() {
    let changelog =
        "| old | new |\n|---|---|\n| `--old MS`, `OLD` | `--new` |\n| `--kept` of `lea x` | `--other` |\n";
    assert_eq!(old_names(changelog), ["--old", "OLD"]);
    assert_eq!(occurrences("a --old b --older, --old=1", "--old"), [2, 19]);
    assert_eq!(occurrences("OLDER, lea.OLD, OLD_X, (OLD)", "OLD"), [24]);
}
