//! `--help` of each command, as in tests/it/snapshots/help. `LEA_UPDATE=1 cargo test` rewrites the files; read the
//! difference before you commit it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const LEA: &str = env!("CARGO_BIN_EXE_lea");
const SNAPSHOTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/snapshots/help");

fn help(command: &[String]) -> String {
    let mut lea = Command::new(LEA);
    // The variables of options occur in help with their values.
    for variable in ["LEA_STORE", "LEA_CLUSTER", "LEA_AMQP"] {
        lea.env_remove(variable);
    }
    let output = lea.env("COLUMNS", "100").args(command).arg("--help").output().unwrap();
    assert!(output.status.success(), "{command:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Returns the subcommands that a help text lists.
fn subcommands(help: &str) -> Vec<String> {
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let names = listed.take_while(|line| !line.is_empty()).filter(|line| line.starts_with("  "));
    let names =
        names.filter(|line| !line.starts_with("   ")).filter_map(|line| line.split_whitespace().next());
    names.filter(|name| *name != "help").map(str::to_owned).collect()
}

/// Adds the help of a command and of its subcommands, by file name.
fn add_help(command: &[String], texts: &mut BTreeMap<String, String>) {
    let text = help(command);
    for name in subcommands(&text) {
        add_help(&[command, &[name]].concat(), texts);
    }
    let name = std::iter::once("lea").chain(command.iter().map(String::as_str)).collect::<Vec<_>>().join("-");
    texts.insert(format!("{name}.txt"), text);
}

fn all_help() -> BTreeMap<String, String> {
    let mut texts = BTreeMap::new();
    add_help(&[], &mut texts);
    texts
}

fn kept(dir: &Path) -> BTreeMap<String, String> {
    let paths = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let read = |path: PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        (name, fs::read_to_string(path).unwrap())
    };
    paths.map(read).collect()
}

#[test]
fn help_of_each_command_equals_its_snapshot() {
    let (texts, dir) = (all_help(), Path::new(SNAPSHOTS));
    if std::env::var_os("LEA_UPDATE").is_some() {
        for name in kept(dir).keys().filter(|name| !texts.contains_key(*name)) {
            fs::remove_file(dir.join(name)).unwrap();
        }
        texts.iter().for_each(|(name, text)| fs::write(dir.join(name), text).unwrap());
    }
    let kept = kept(dir);
    assert_eq!(
        kept.keys().collect::<Vec<_>>(),
        texts.keys().collect::<Vec<_>>(),
        "LEA_UPDATE=1 rewrites them"
    );
    for (name, text) in &texts {
        assert!(kept[name] == *text, "{name} differs; LEA_UPDATE=1 rewrites it. The text is now:\n{text}");
    }
}

#[test]
fn help_starts_with_one_line_and_ends_with_examples() {
    for (name, text) in all_help() {
        let mut lines = text.lines();
        let first = lines.next().unwrap();
        assert!(!first.ends_with('.') && first.len() <= 80, "{name}: {first}");
        assert_eq!(lines.next(), Some(""), "{name}: one line comes first");
        let has_subcommands = !subcommands(&text).is_empty();
        assert!(has_subcommands || text.contains("\nExamples:\n"), "{name} has no examples");
        assert!(text.contains("\nExit status:\n"), "{name} has no exit status");
        let widest = text.lines().map(|line| line.chars().count()).max();
        assert!(widest <= Some(140), "{name}: a line of {widest:?} characters");
    }
}
