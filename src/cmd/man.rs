//! `lea man`: writes the manual pages, which are generated from the clap tree and the manuals of the commands. The command
//! is hidden; packagers and the test that keeps man/ up to date use it. Runs in the main thread.
//!
//! lea.conf(5) is a text with the lists of keys of the configuration.

use std::fs;
use std::io;
use std::path::PathBuf;

use clap_mangen::Man;
use clap_mangen::roff::{Inline, Roff, bold, italic, roman};

use crate::cmd::args::globals::Globals;
use crate::cmd::{self, Command};
use crate::config::{KEYS, numbers};
use crate::daemon::settings::described_event_keys;
use crate::manual::{self, Example, Manual};
use crate::phone::NumberSettings;
use crate::runtime::create::{self, create_dirs, create_error};
use crate::{Error, Exit, Result};

const CONF_PAGE: &str = include_str!("man/lea.conf.5.in");

/// Write the manual pages into a directory
#[derive(clap::Args, Debug)]
#[command(hide = true)]
pub(crate) struct Args {
    /// Directory to write to; created if it does not exist
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}

impl Command for Args {
    const MANUAL: Manual =
        Manual { examples: &[Example { text: "Write all pages", command: "lea man man" }], ..manual::EMPTY };

    fn run(self, _globals: &Globals) -> Result<Exit> {
        create_dirs(&self.dir, create::BY_UMASK, |_| Ok(()))?;
        for (name, page) in pages().map_err(Error::system("render the manual pages"))? {
            let path = self.dir.join(name);
            fs::write(&path, page).map_err(create_error("write", &path))?;
        }
        Ok(Exit::Done)
    }
}

/// Renders all pages; returns file names and texts.
fn pages() -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut tree = cmd::tree().disable_help_subcommand(true);
    tree.build();
    let mut pages = vec![("lea.conf.5".to_owned(), conf_page().into_bytes())];
    add_pages(&tree, &cmd::MANUAL, &mut pages)?;
    Ok(pages)
}

/// Renders lea.conf(5) with the lists of keys.
fn conf_page() -> String {
    let default = |text: &str| if text.is_empty() { "empty".to_owned() } else { text.to_owned() };
    let keys = KEYS.iter().map(|key| {
        let name = key.path.trim_start_matches("parameters.");
        let names =
            format!("\\fB{name}\\fR, variable \\fB{}\\fR, default {}", key.variable, default(key.default));
        (names, key.text.to_owned())
    });
    let defaults = NumberSettings::default();
    let number_defaults =
        [defaults.international_prefixes.join(", "), defaults.fields.join(", "), String::new()];
    let numbers =
        numbers::KEYS.iter().zip(numbers::TEXTS).zip(number_defaults).map(|((key, text), value)| {
            (format!("\\fBnumbers.{key}\\fR, default {}", default(&value)), text.to_owned())
        });
    let events = described_event_keys().into_iter().map(|(key, text)| (format!("\\fB{key}\\fR"), text));
    let placeholders: Vec<String> = KEYS.iter().map(|key| format!(".BR @{}", key.variable)).collect();
    CONF_PAGE
        .replace("@KEYS@\n", &paragraphs(keys))
        .replace("@NUMBERS@\n", &paragraphs(numbers))
        .replace("@EVENTS@\n", &paragraphs(events))
        .replace("@PLACEHOLDERS@", &placeholders.join(" ,\n"))
}

/// Renders tagged paragraphs. The tag may contain font escapes, the text is escaped.
fn paragraphs(entries: impl Iterator<Item = (String, String)>) -> String {
    entries
        .map(|(tag, text)| format!(".TP\n{tag}\n{}\n", text.replace('\\', "\\e").replace('-', "\\-")))
        .collect()
}

/// Adds the page of a command and those of its visible subcommands.
fn add_pages(
    command: &clap::Command,
    manual: &'static Manual,
    pages: &mut Vec<(String, Vec<u8>)>,
) -> io::Result<()> {
    pages.push((format!("{}.1", page_name(command)), page(command, manual)?));
    for subcommand in command.get_subcommands().filter(|subcommand| !subcommand.is_hide_set()) {
        let manual = manual.subcommand(subcommand.get_name());
        add_pages(subcommand, manual.unwrap_or(&manual::EMPTY), pages)?;
    }
    Ok(())
}

fn page_name(command: &clap::Command) -> String {
    command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned()
}

fn page(command: &clap::Command, manual: &'static Manual) -> io::Result<Vec<u8>> {
    let source = concat!("lea ", env!("CARGO_PKG_VERSION"));
    let man = Man::new(command.clone()).source(source).manual("lea manual");
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut page)?;
    }
    let mut roff = Roff::new();
    let codes = manual.exit_codes().into_iter().map(|(code, text)| (bold(code.to_string()), text.to_owned()));
    add_section(&mut roff, "EXIT STATUS", codes);
    let variables = manual.all_variables(command).into_iter().map(|(name, text)| (bold(name), text));
    add_section(&mut roff, "ENVIRONMENT", variables);
    let files = manual.all_files().into_iter().map(|(name, text)| (italic(name), text.to_owned()));
    add_section(&mut roff, "FILES", files);
    add_examples(&mut roff, manual.examples);
    add_related_pages(&mut roff, &page_name(command), manual.see_also);
    roff.to_writer(&mut page)?;
    Ok(page)
}

/// Adds a section with one paragraph per entry, if there is one.
fn add_section(roff: &mut Roff, heading: &str, entries: impl Iterator<Item = (Inline, String)>) {
    for (nth, (name, text)) in entries.enumerate() {
        if nth == 0 {
            roff.control("SH", [heading]);
        }
        roff.control("TP", []);
        roff.text([name]);
        roff.text([roman(text)]);
    }
}

fn add_examples(roff: &mut Roff, examples: &[Example]) {
    if !examples.is_empty() {
        roff.control("SH", ["EXAMPLES"]);
    }
    for Example { text, command } in examples {
        roff.control("TP", []);
        roff.text([roman(format!("{text}:"))]);
        roff.text([bold(*command)]);
    }
}

fn add_related_pages(roff: &mut Roff, own: &str, pages: &[&str]) {
    let root = (own != "lea").then_some("lea(1)");
    let mut line = Vec::new();
    for page in root.into_iter().chain(pages.iter().copied()) {
        let (name, section) = page.split_once('(').unwrap_or((page, "1)"));
        let separator = if line.is_empty() { "" } else { ", " };
        line.extend([roman(separator), bold(name), roman(format!("({section}"))]);
    }
    roff.control("SH", ["SEE ALSO"]);
    roff.text(line);
}
