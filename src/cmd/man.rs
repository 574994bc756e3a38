//! `lea man`: the manual pages, from the clap tree; hidden, for packagers and for the test that keeps man/ fresh.
//!
//! What clap does not know (exit codes, files, environment, cross-references) is added here, for each page from one
//! table. lea.conf(5) is written by hand and copied.

use std::fs;
use std::io;
use std::path::PathBuf;

use clap_mangen::Man;
use clap_mangen::roff::{Inline, Roff, bold, italic, roman};

use crate::cli::{self, Globals};
use crate::config::KEYS;
use crate::{Error, Exit, Result};

const CONF_PAGE: &str = include_str!("../../man/lea.conf.5");

/// Write the manual pages into a folder
#[derive(clap::Args, Debug)]
#[command(hide = true)]
pub struct Args {
    /// The folder; it is made if it does not exist
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}

impl Args {
    /// Runs the command.
    pub fn run(self, _globals: &Globals) -> Result<Exit> {
        fs::create_dir_all(&self.dir).map_err(Error::path("make the folder", &self.dir))?;
        for (name, page) in pages().map_err(Error::system("render the manual pages"))? {
            let path = self.dir.join(name);
            fs::write(&path, page).map_err(Error::path("write", &path))?;
        }
        Ok(Exit::Done)
    }
}

/// All pages: file name and text.
fn pages() -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut tree = cli::command().disable_help_subcommand(true);
    tree.build();
    let shown = shown(&tree);
    let mut names: Vec<_> = shown.iter().map(page_name).collect();
    names.insert(0, page_name(&tree));
    let mut pages = vec![("lea.conf.5".to_owned(), CONF_PAGE.as_bytes().to_vec())];
    for command in std::iter::once(&tree).chain(&shown) {
        pages.push((format!("{}.1", page_name(command)), page(command, &names)?));
    }
    Ok(pages)
}

/// The commands below one, with those below each, that are not hidden.
fn shown(command: &clap::Command) -> Vec<clap::Command> {
    let below = command.get_subcommands().filter(|command| !command.is_hide_set());
    below.flat_map(|command| std::iter::once(command.clone()).chain(shown(command))).collect()
}

fn page_name(command: &clap::Command) -> String {
    command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned()
}

fn page(command: &clap::Command, names: &[String]) -> io::Result<Vec<u8>> {
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
    if command.get_after_long_help().or(command.get_after_help()).is_some() {
        man.render_extra_section(&mut page)?;
    }
    let mut roff = Roff::new();
    exit_status(&mut roff, command.get_name());
    files(&mut roff, command.get_name());
    environment(&mut roff, command.get_name());
    see_also(&mut roff, &page_name(command), names);
    roff.to_writer(&mut page)?;
    Ok(page)
}

/// True for the commands that read the configuration.
fn is_configured(command: &str) -> bool {
    matches!(command, "run" | "serve-tcp" | "serve-events" | "configure")
}

fn exit_status(roff: &mut Roff, command: &str) {
    let batches =
        ["lea", "ls", "verify", "replay", "merge", "number", "load", "test-pattern", "build", "compare"];
    let checks_input = batches.contains(&command);
    let drains =
        matches!(command, "lea" | "run" | "serve-tcp" | "serve-events" | "verify" | "replay" | "tail");
    let done = match command {
        "run" | "serve-tcp" => "Done: a signal came and what had arrived is in the files.",
        "serve-events" => "Done: a signal came and what had arrived is stored.",
        _ => "Done.",
    };
    roff.control("SH", ["EXIT STATUS"]);
    item(roff, bold("0"), done);
    item(roff, bold("1"), "Failed; the reason is on stderr.");
    item(roff, bold("2"), "Wrong usage or configuration; nothing was started, nothing was changed.");
    if checks_input {
        item(roff, bold("3"), "A batch command finished, but some input was refused, differs or is missing.");
    }
    if drains {
        item(roff, bold("130"), "Cut off by a second signal.");
    }
}

fn files(roff: &mut Roff, command: &str) {
    let mut files = Vec::new();
    if is_configured(command) {
        files.push(("config/configurationFile.conf", "The configuration, see lea.conf(5)."));
    }
    if command == "configure" {
        files.push(("config/base.conf", "The template; without it a built-in one counts."));
    }
    if matches!(command, "run" | "serve-tcp" | "serve-events" | "ls" | "verify") {
        files.push(("DIR/NAME", "The stream NAME, byte for byte as it was received."));
        files.push((
            "DIR/NAME.N",
            "A further part of it, where a stream of that name came again and differs.",
        ));
        files.push(("DIR/NAME.lea.json", "Its manifest: whence, when, how many bytes, their SHA-256."));
        files.push(("DIR/.lea/", "Which process writes to DIR and which streams are open."));
    }
    if matches!(command, "run" | "serve-events") {
        files.push(("DIR/.lea/events.db", "The events."));
        files.push(("DIR/.lea/event-dead-letters.jsonl", "What could not be stored, with the reason."));
    }
    if !files.is_empty() {
        roff.control("SH", ["FILES"]);
    }
    for (file, what) in files {
        item(roff, italic(file), what);
    }
}

fn environment(roff: &mut Roff, command: &str) {
    if !is_configured(command) {
        return;
    }
    roff.control("SH", ["ENVIRONMENT"]);
    roff.text([roman(
        "A variable goes before the same value in the configuration file, and a flag before both.",
    )]);
    for key in KEYS {
        let default = if key.default.is_empty() { "empty" } else { key.default };
        item(roff, bold(key.variable), &format!("{} (default: {default})", key.path));
    }
}

fn see_also(roff: &mut Roff, own: &str, names: &[String]) {
    roff.control("SH", ["SEE ALSO"]);
    let mut line = Vec::new();
    for name in names.iter().filter(|name| *name != own) {
        line.extend([bold(name.as_str()), roman("(1), ")]);
    }
    line.extend([bold("lea.conf"), roman("(5)")]);
    roff.text(line);
}

fn item(roff: &mut Roff, tag: Inline, text: &str) {
    roff.control("TP", []);
    roff.text([tag]);
    roff.text([roman(text)]);
}
