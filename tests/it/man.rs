//! The man pages in man/ match the clap definitions, and `lea completions` writes a script for each shell.
//! `LEA_UPDATE=1 cargo test` rewrites the pages.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use assert_cmd::Command;

const LEA: &str = env!("CARGO_BIN_EXE_lea");
const MAN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/man");

fn pages_in(dir: &Path) -> BTreeMap<String, String> {
    let entries = fs::read_dir(dir).unwrap().map(Result::unwrap);
    entries
        .map(|entry| {
            let text = fs::read_to_string(entry.path()).unwrap();
            (entry.file_name().into_string().unwrap(), text)
        })
        .collect()
}

/// Renders the pages with the binary.
fn fresh_pages() -> BTreeMap<String, String> {
    let dir = tempfile::tempdir().unwrap();
    Command::new(LEA).arg("man").arg(dir.path()).assert().code(0);
    pages_in(dir.path())
}

#[test]
fn pages_in_the_repository_match_the_binary() {
    let fresh = fresh_pages();
    if std::env::var_os("LEA_UPDATE").is_some() {
        for name in pages_in(Path::new(MAN)).keys().filter(|name| !fresh.contains_key(*name)) {
            fs::remove_file(Path::new(MAN).join(name)).unwrap();
        }
        for (name, text) in &fresh {
            fs::write(Path::new(MAN).join(name), text).unwrap();
        }
    }
    let kept = pages_in(Path::new(MAN));
    let names = |pages: &BTreeMap<String, String>| pages.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&kept), names(&fresh), "man/ is stale: LEA_UPDATE=1 cargo test");
    for (name, text) in &fresh {
        assert!(kept[name] == *text, "man/{name} is stale: LEA_UPDATE=1 cargo test");
    }
}

#[test]
fn each_page_has_its_sections() {
    for (name, text) in fresh_pages() {
        let mut sections = vec![".SH NAME", ".SH SYNOPSIS", ".SH DESCRIPTION", ".SH \"SEE ALSO\""];
        match name.as_str() {
            "lea.conf.5" => {
                sections.pop();
                sections.extend([".SH KEYS", ".SH FILES", ".SH SEE ALSO"]);
            }
            "lea-run.1" | "lea-serve-tcp.1" | "lea-serve-events.1" | "lea-configure.1" => {
                sections.extend([".SH \"EXIT STATUS\"", ".SH FILES", ".SH ENVIRONMENT"]);
            }
            _ => sections.push(".SH \"EXIT STATUS\""),
        }
        for section in sections {
            assert!(text.lines().any(|line| line == section), "{name} has no {section}");
        }
    }
}

#[test]
fn lea_conf_documents_each_key() {
    let page = &fresh_pages()["lea.conf.5"];
    for key in lea::config::KEYS {
        let name = key.path.strip_prefix("parameters.").unwrap();
        let default = if key.default.is_empty() { "empty" } else { key.default };
        let entry = format!("\\fB{name}\\fR, variable \\fB{}\\fR, default {default}\n", key.variable);
        assert!(page.contains(&entry), "lea.conf.5 lacks: {entry}");
        assert!(page.contains(&format!(".BR @{}", key.variable)), "lea.conf.5 lacks @{}", key.variable);
    }
}

#[test]
fn each_shell_has_a_completion_script() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = Command::new(LEA).args(["completions", shell]).assert().code(0).get_output().clone();
        let script = String::from_utf8(output.stdout).unwrap();
        for word in ["serve-tcp", "kafka-topic"] {
            assert!(script.contains(word), "{shell}: {word}");
        }
    }
    Command::new(LEA).args(["completions", "tcsh"]).assert().code(2);
}
