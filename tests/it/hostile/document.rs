//! Writes or compares the tables and figures of docs/hostile-input.md.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use crate::support::long;

/// Tests run in parallel and write into one file.
static WRITING: Mutex<()> = Mutex::new(());

/// A table of the document: input, reaction of `lea`, counters that grew.
pub(super) struct Table {
    section: &'static str,
    rows: Vec<[String; 3]>,
}

impl Table {
    /// Creates an empty table for a section.
    pub(super) fn new(section: &'static str) -> Table {
        Table { section, rows: Vec::new() }
    }

    /// Adds a row.
    pub(super) fn row(
        &mut self,
        input: impl Into<String>,
        did: impl Into<String>,
        counters: impl Into<String>,
    ) {
        let row = [input.into(), did.into(), counters.into()];
        eprintln!("{}: {}", self.section, row.join(" | "));
        self.rows.push(row.map(|cell| cell.replace('|', "\\|")));
    }

    /// Writes the table into the document, or fails if the document differs.
    pub(super) fn check(self) {
        let mut text = "| input | what `lea` did | counters |\n|---|---|---|\n".to_owned();
        for row in &self.rows {
            writeln!(text, "| {} |", row.join(" | ")).unwrap();
        }
        let update = updates();
        if let Some(stands) = section(self.section, &text, update) {
            let differs = text.lines().zip(stands.lines()).find(|(is, stands)| is != stands);
            panic!(
                "docs/hostile-input.md, section {}, differs (LEA_UPDATE=1 rewrites it); first: {differs:#?}",
                self.section
            );
        }
    }
}

/// Records measured figures, one list item per line. Only the long form writes them.
pub(super) fn figures(name: &'static str, lines: &[String]) {
    let text: String = lines.iter().map(|line| format!("- {}\n", line.replace(". ", ".\n  "))).collect();
    eprintln!("{name}:\n{text}");
    if updates() && long() {
        section(name, &text, true);
    }
}

fn updates() -> bool {
    std::env::var_os("LEA_UPDATE").is_some_and(|value| value == "1")
}

fn path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/hostile-input.md")
}

/// Compares a section with `text`. Returns the section if it differs. `update` writes it.
fn section(name: &str, text: &str, update: bool) -> Option<String> {
    let _writing = WRITING.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let document = fs::read_to_string(path()).unwrap();
    let (begin, end) =
        (format!("<!-- {name}: written by the test -->\n\n"), format!("\n<!-- end of {name} -->"));
    let from =
        document.find(&begin).unwrap_or_else(|| panic!("the document has no section {name}")) + begin.len();
    let to = from + document[from..].find(&end).expect("each section has an end");
    if document[from..to] == *text {
        return None;
    }
    if update {
        fs::write(path(), format!("{}{text}{}", &document[..from], &document[to..])).unwrap();
        return None;
    }
    Some(document[from..to].to_owned())
}
