//! Exit codes, options, environment variables, configuration keys, metrics and log events: what the code has is
//! documented, and what is documented exists.

use std::collections::{BTreeMap, BTreeSet};

use clap::Command;

use super::{
    MarkdownKind, assert_documented, assert_none, code_spans, documented_names, log_events, markdown_files,
    markdown_lines, read, table_cells,
};
use crate::support::process::Process;
use crate::support::server::listening;
use crate::support::status::get;
use crate::support::{Workdir, lea};

/// All subcommands that do something, by their full names: `events load`.
pub(super) fn commands() -> BTreeMap<String, Command> {
    let mut found = BTreeMap::new();
    collect(&lea::cli::command(), "", &mut found);
    found
}

fn collect(command: &Command, name: &str, found: &mut BTreeMap<String, Command>) {
    let visible: Vec<&Command> =
        command.get_subcommands().filter(|sub| !sub.is_hide_set() && sub.get_name() != "help").collect();
    if visible.is_empty() {
        found.insert(name.to_owned(), command.clone());
    }
    for sub in visible {
        collect(sub, format!("{name} {}", sub.get_name()).trim_start(), found);
    }
}

/// The long options of a command, hidden ones included, with the dashes.
fn options(command: &Command) -> BTreeSet<String> {
    let mut options: BTreeSet<String> = ["--help", "--version"].map(str::to_owned).into();
    for arg in lea::cli::command().get_arguments().chain(command.get_arguments()) {
        options.extend(arg.get_long().map(|long| format!("--{long}")));
        options.extend(arg.get_all_aliases().unwrap_or_default().iter().map(|alias| format!("--{alias}")));
    }
    options
}

/// The long options that a text mentions, with where they start.
fn mentioned_options(text: &str) -> Vec<String> {
    let is_option = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let mut found = Vec::new();
    for (at, _) in text.match_indices("--") {
        let is_start = !text[..at].ends_with(|c: char| is_option(c) || c.is_alphanumeric());
        let name: String = text[at + 2..].chars().take_while(|c| is_option(*c)).collect();
        if is_start && name.starts_with(|c: char| c.is_ascii_lowercase()) {
            found.push(format!("--{}", name.trim_end_matches('-')));
        }
    }
    found
}

/// Programs in examples whose options are not ours.
const FOREIGN: [&str; 14] = [
    "cargo",
    "curl",
    "git",
    "scripts/bench.sh",
    "scripts/test.sh",
    "scripts/install.sh",
    "scripts/bench-events.sh",
    "socat",
    "ncat",
    "kafka-",
    "openssl",
    "sipp",
    "jq",
    "rabbitmqadmin",
];

/// A line of a code block, or a code span, that runs another program.
fn is_foreign(code: &str) -> bool {
    let code = code.trim_start().trim_start_matches("$ ");
    FOREIGN.iter().any(|program| code.starts_with(program))
        || code.contains("| curl")
        || code.starts_with("-H ")
}

/// The options that Markdown mentions, with their places.
fn documented_options() -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for file in markdown_files().into_iter().filter(|file| file != "CHANGELOG.md") {
        let text = read(&file);
        let mut is_continued_foreign = false;
        for line in markdown_lines(&text) {
            let texts = match line.kind {
                MarkdownKind::Code => vec![line.text.as_str()],
                _ => code_spans(&line.text),
            };
            for code in texts {
                let foreign = is_continued_foreign || is_foreign(code);
                is_continued_foreign = line.kind == MarkdownKind::Code && foreign && code.ends_with('\\');
                if !foreign {
                    let place = format!("{file}:{}", line.number);
                    found.extend(mentioned_options(code).into_iter().map(|option| (option, place.clone())));
                }
            }
        }
    }
    found
}

#[test]
fn options_are_documented_and_documented_options_exist() {
    let documented = documented_options();
    let existing: BTreeSet<String> = commands().values().flat_map(options).collect();
    let hidden: BTreeSet<String> = commands().values().flat_map(hidden_options).collect();
    let mut problems: Vec<String> = documented
        .iter()
        .filter(|(option, _)| !existing.contains(*option))
        .map(|(option, place)| format!("{place}: {option} does not exist"))
        .collect();
    let missing =
        existing.iter().filter(|option| !documented.contains_key(*option) && !hidden.contains(*option));
    problems.extend(missing.map(|option| format!("{option} is in no page of docs/")));
    assert_none("options", &problems);
}

fn hidden_options(command: &Command) -> BTreeSet<String> {
    let hidden = command.get_arguments().filter(|arg| arg.is_hide_set());
    let mut names: BTreeSet<String> =
        hidden.filter_map(|arg| Some(format!("--{}", arg.get_long()?))).collect();
    // A hidden alias is for old command lines.
    for arg in command.get_arguments() {
        let visible = arg.get_visible_aliases().unwrap_or_default();
        let aliases = arg.get_all_aliases().unwrap_or_default();
        names.extend(
            aliases.iter().filter(|alias| !visible.contains(alias)).map(|alias| format!("--{alias}")),
        );
    }
    names
}

#[test]
fn examples_use_options_of_their_command() {
    let commands = commands();
    let mut problems = Vec::new();
    for file in markdown_files() {
        for line in markdown_lines(&read(&file)) {
            let codes = match line.kind {
                MarkdownKind::Code => vec![line.text.as_str()],
                _ => code_spans(&line.text),
            };
            for code in codes {
                let Some((name, arguments)) = command_line(code, &commands) else { continue };
                for option in mentioned_options(arguments) {
                    if !options(&commands[name]).contains(&option) {
                        problems.push(format!("{file}:{}: lea {name} has no option {option}", line.number));
                    }
                }
            }
        }
    }
    assert_none("examples with options of other commands", &problems);
}

/// The command that a line of an example runs, and its arguments up to a pipe or comment.
fn command_line<'a, 'b>(
    code: &'a str,
    commands: &'b BTreeMap<String, Command>,
) -> Option<(&'b str, &'a str)> {
    let (before, arguments) = code.split_once("lea ")?;
    let is_start = before.is_empty() || before.ends_with(['/', ' ']);
    let named = |name: &&String| {
        arguments.strip_prefix(name.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
    };
    let name = commands.keys().filter(named).max_by_key(|name| name.len()).filter(|_| is_start)?;
    let end = arguments.find([';', '|', '#', '`']).unwrap_or(arguments.len());
    Some((name, &arguments[name.len()..end.max(name.len())]))
}

/// The table of a page whose header row starts with these cells: first cell and second cell of each row.
fn table(text: &str, header: &str) -> Vec<Vec<String>> {
    let lines = markdown_lines(text);
    let start = lines
        .iter()
        .position(|line| line.text.starts_with(header))
        .unwrap_or_else(|| panic!("no table {header}"));
    let rows = lines[start + 2..].iter().take_while(|line| line.kind == MarkdownKind::Table);
    rows.map(|line| table_cells(&line.text)).collect()
}

#[test]
fn exit_codes_of_each_command_are_documented() {
    let page = read("docs/commands.md");
    let mut documented: BTreeMap<String, BTreeSet<u8>> = BTreeMap::new();
    for cells in table(&page, "| command |") {
        let name = cells[0]
            .trim_matches('`')
            .strip_prefix("lea ")
            .unwrap_or_else(|| panic!("{}", cells[0]))
            .to_owned();
        let mut codes = BTreeSet::from([0, 1, 2]);
        codes.extend((cells[1] != "-").then_some(3));
        codes.extend((cells[2] != "-").then_some(130));
        documented.insert(name, codes);
    }
    let mut existing = BTreeMap::new();
    for name in commands().into_keys() {
        let man = read(&format!("man/lea-{}.1", name.replace(' ', "-")));
        existing.insert(name, exit_codes_of_page(&man));
    }
    for (name, codes) in &existing {
        assert_eq!(
            documented.get(name),
            Some(codes),
            "docs/commands.md and the man page of lea {name} differ"
        );
    }
    assert_eq!(documented.len(), existing.len(), "docs/commands.md has a command that does not exist");
}

/// The codes in the section EXIT STATUS of a man page.
fn exit_codes_of_page(man: &str) -> BTreeSet<u8> {
    let section = man.split(".SH \"EXIT STATUS\"").nth(1).expect("each page has exit codes");
    let section = section.split("\n.SH").next().expect("a split has a first part");
    section.lines().filter_map(|line| line.strip_prefix("\\fB")?.strip_suffix("\\fR")?.parse().ok()).collect()
}

#[test]
fn environment_variables_are_documented() {
    let mut existing: BTreeSet<String> =
        lea::config::KEYS.iter().map(|key| key.variable.to_owned()).collect();
    for command in commands().values() {
        existing.extend(command.get_arguments().filter_map(|arg| Some(arg.get_env()?.to_str()?.to_owned())));
    }
    for name in commands().keys() {
        existing.extend(variables_of_page(&read(&format!("man/lea-{}.1", name.replace(' ', "-")))));
    }
    existing.extend(variables_in_source());
    let page = read("docs/configuration.md");
    let rows = table(&page, "| variable | meaning |");
    let documented = rows.iter().flat_map(|cells| code_spans(&cells[0])).map(str::to_owned).collect();
    assert_documented("environment variables", "docs/configuration.md", &existing, &documented);
}

/// The variables in the section ENVIRONMENT of a man page.
fn variables_of_page(man: &str) -> BTreeSet<String> {
    let section =
        man.split(".SH ENVIRONMENT").nth(1).unwrap_or_default().split("\n.SH").next().unwrap_or_default();
    section
        .lines()
        .filter_map(|line| Some(line.strip_prefix("\\fB")?.strip_suffix("\\fR")?.replace('\\', "")))
        .collect()
}

/// Variables that the code or a library of ours reads from the environment: `var_os("TMPDIR")`.
fn variables_in_source() -> BTreeSet<String> {
    let mut found = BTreeSet::from([
        // The time zone, read by chrono.
        "TZ".to_owned(),
        // The directory of temporary files, read by std::env::temp_dir.
        "TMPDIR".to_owned(),
    ]);
    for file in super::files_below("src", ".rs").into_iter().filter(|file| !file.contains("/tests")) {
        let text = read(&file);
        let text = text.split("#[cfg(test)]\nmod tests {").next().expect("a split has a first part");
        for call in ["var(\"", "var_os(\"", "PASSWORD_VARIABLE: &str = \""] {
            for (at, _) in text.match_indices(call) {
                let name = text[at + call.len()..].split('"').next().unwrap_or_default();
                let is_variable =
                    name.chars().all(|c| c.is_ascii_uppercase() || c == '_') && !name.is_empty();
                found.extend(is_variable.then(|| name.to_owned()));
            }
        }
    }
    found
}

#[test]
fn configuration_keys_are_documented() {
    let mut existing: BTreeSet<String> =
        lea::config::KEYS.iter().map(|key| key.path.trim_start_matches("parameters.").to_owned()).collect();
    existing.extend(keys_in_source("src/config/numbers.rs").into_iter().map(|key| format!("numbers.{key}")));
    existing.insert("events".to_owned());
    let mut events = keys_in_source("src/daemon/settings/events.rs");
    events.extend(keys_of_sources());
    let page = read("docs/configuration.md");
    let man = read("man/lea.conf.5");
    let documented = |header: &str| -> BTreeSet<String> {
        table(&page, header).iter().flat_map(|cells| code_spans(&cells[0])).map(str::to_owned).collect()
    };
    assert_documented("keys", "docs/configuration.md", &existing, &documented("| key | variable |"));
    assert_documented(
        "keys of events",
        "docs/configuration.md",
        &events,
        &documented("| key of `parameters.events` | meaning |"),
    );
    let in_man = |key: &&String| man.contains(&format!("\\fB{key}\\fR"));
    let missing: Vec<&String> =
        existing.iter().filter(|key| *key != "events").chain(&events).filter(|key| !in_man(key)).collect();
    assert!(missing.is_empty(), "man/lea.conf.5 lacks the keys {missing:?}");
}

/// The configuration keys of the event sources.
fn keys_of_sources() -> BTreeSet<String> {
    let key = |line: &str| Some(line.strip_prefix("    key: \"")?.strip_suffix("\",")?.to_owned());
    let files = super::files_below("src/daemon/sources", ".rs");
    let keys: BTreeSet<String> =
        files.iter().flat_map(|file| read(file).lines().filter_map(key).collect::<Vec<_>>()).collect();
    assert!(!keys.is_empty(), "src/daemon/sources has no key");
    keys
}

/// The keys that the function `read` of a source file knows: the arms of its match.
fn keys_in_source(file: &str) -> BTreeSet<String> {
    let text = read(file);
    let function = text.split("fn read(").nth(1).unwrap_or_else(|| panic!("{file} has no function read"));
    let function = function.split("\n}\n").next().expect("a split has a first part");
    let arm = |line: &str| Some(line.trim().strip_prefix('"')?.split_once("\" =>")?.0.to_owned());
    let keys: BTreeSet<String> = function.lines().filter_map(arm).collect();
    assert!(!keys.is_empty(), "{file}: the function read has no arm with a key");
    keys
}

/// /metrics of a server that has all kinds of listeners, a cluster and a queue.
fn metrics_of_a_server() -> String {
    let work = Workdir::new();
    let mut command = std::process::Command::new(lea());
    command.args(["serve-events", "--admin-listen", "127.0.0.1:0", "--lines", "127.0.0.1:0"]);
    command.args(["--syslog", "udp:127.0.0.1:0", "--output"]);
    command.arg(work.join("out"));
    // There is no cluster and no broker, but their metrics are shown.
    command.args([
        "--cluster",
        "http://127.0.0.1:1",
        "--amqp",
        "amqp://127.0.0.1:1/",
        "--amqp-queue",
        "rows",
    ]);
    command.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::null());
    let mut server = Process::start(&mut command);
    let admin = listening(&mut server, "admin");
    // The sources are started later; each one registers its labels.
    listening(&mut server, "syslog");
    let text = get(admin, "/metrics");
    server.kill();
    text
}

/// The names in a text of /metrics, and the labels of each.
fn labels_of_metrics(text: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut metrics: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split(' ').next()) {
            metrics.entry(name.to_owned()).or_default();
        } else if let Some((name, labels)) = line.split_once('{').filter(|_| !line.starts_with('#')) {
            let labels = labels.split('}').next().expect("a split has a first part");
            let names = labels.split("\",").filter_map(|label| Some(label.split_once('=')?.0.to_owned()));
            metrics.entry(name.to_owned()).or_default().extend(names);
        }
    }
    metrics
}

#[test]
fn metrics_are_documented() {
    let page = read("docs/metrics.md");
    let text = metrics_of_a_server();
    let existing = labels_of_metrics(&text);
    let mut documented: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in markdown_lines(&page).into_iter().filter(|line| line.kind == MarkdownKind::Table) {
        let cells = table_cells(&line.text);
        if let [name, labels, _] = &cells[..]
            && name.starts_with('`')
        {
            let labels = code_spans(labels).into_iter().map(str::to_owned).collect();
            documented.insert(name.trim_matches('`').to_owned(), labels);
        }
    }
    let names = |metrics: &BTreeMap<String, BTreeSet<String>>| metrics.keys().cloned().collect();
    assert_documented("metrics", "docs/metrics.md", &names(&existing), &names(&documented));
    // Metrics of partitions have no samples without partitions.
    for (name, labels) in existing.iter().filter(|(name, _)| !name.starts_with("lea_kafka_partition_")) {
        assert_eq!(documented.get(name), Some(labels), "docs/metrics.md: the labels of {name}");
    }
    let rejected = text.lines().filter(|line| line.starts_with("lea_connections_rejected_total{"));
    let reason = |line: &str| Some(line.split("reason=\"").nth(1)?.split('"').next()?.to_owned());
    let reasons = table(&page, "| `reason` | meaning |")
        .iter()
        .map(|cells| cells[0].trim_matches('`').to_owned())
        .collect();
    assert_documented("reasons", "docs/metrics.md", &rejected.filter_map(reason).collect(), &reasons);
    let mentioned: Vec<String> = markdown_files()
        .into_iter()
        .filter(|file| file != "CHANGELOG.md")
        .flat_map(|file| unknown_metrics(&file, &read(&file), &existing))
        .collect();
    assert_none("metrics that do not exist", &mentioned);
}

/// Names like `lea_..._total` in a text that are not metrics.
fn unknown_metrics(file: &str, text: &str, existing: &BTreeMap<String, BTreeSet<String>>) -> Vec<String> {
    let is_name = |c: char| c.is_ascii_lowercase() || c == '_';
    let mut unknown = Vec::new();
    for (at, _) in text.match_indices("`lea_") {
        let name: String = text[at + 1..].chars().take_while(|c| is_name(*c)).collect();
        let is_pattern = text[at + 1 + name.len()..].starts_with('*');
        // A dead letter has the key `lea_dead_letter`, a manifest `lea_version`.
        let is_key = ["lea_dead_letter", "lea_version"].contains(&name.as_str());
        if !existing.contains_key(&name) && !is_pattern && !is_key {
            unknown.push(format!("{file}: {name}"));
        }
    }
    unknown
}

#[test]
fn log_events_are_documented() {
    let documented: BTreeSet<String> = documented_names(&read("docs/log.md"))
        .into_iter()
        .filter(|name| !["error", "warn", "info", "debug"].contains(&name.as_str()))
        .collect();
    assert_documented("log events", "docs/log.md", &log_events::all(), &documented);
}

#[test]
fn options_and_commands_are_found_in_texts() {
    assert_eq!(mentioned_options("`lea x --a-b C --d=e`, --- and a--b"), ["--a-b", "--d"]);
    let commands = commands();
    let check = |code: &str, expected: Option<(&str, &str)>| {
        assert_eq!(command_line(code, &commands), expected, "{code}")
    };
    check("$ lea events load FILE --index x | cat", Some(("events load", " FILE --index x ")));
    check("target/release/lea ls interceptions", Some(("ls", " interceptions")));
    check("release ls", None);
    assert!(commands.contains_key("billing compare") && !commands.contains_key("billing"));
}
