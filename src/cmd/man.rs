//! `lea man`: writes the manual pages generated from the clap tree. The command is hidden; packagers and the test that keeps
//! man/ up to date use it. Runs in the main thread.
//!
//! Exit codes, files, environment variables and cross-references are added here. lea.conf(5) is written by hand and copied.

use std::fs;
use std::io;
use std::path::PathBuf;

use clap_mangen::Man;
use clap_mangen::roff::{Inline, Roff, bold, italic, roman};

use crate::cli::{self, Globals};
use crate::config::KEYS;
use crate::runtime::create::{self, create_dirs, create_error};
use crate::{Error, Exit, Result};

const CONF_PAGE: &str = include_str!("../../man/lea.conf.5");

/// Write the manual pages into a directory
#[derive(clap::Args, Debug)]
#[command(hide = true)]
pub(crate) struct Args {
    /// Directory to write to; created if it does not exist
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}

impl Args {
    pub(crate) fn run(self, _globals: &Globals) -> Result<Exit> {
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
    let mut tree = cli::command().disable_help_subcommand(true);
    tree.build();
    let shown = visible_subcommands(&tree);
    let mut names: Vec<_> = shown.iter().map(page_name).collect();
    names.insert(0, page_name(&tree));
    let mut pages = vec![("lea.conf.5".to_owned(), CONF_PAGE.as_bytes().to_vec())];
    for command in std::iter::once(&tree).chain(&shown) {
        pages.push((format!("{}.1", page_name(command)), page(command, &names)?));
    }
    Ok(pages)
}

/// Returns all visible subcommands, depth first.
fn visible_subcommands(command: &clap::Command) -> Vec<clap::Command> {
    let below = command.get_subcommands().filter(|command| !command.is_hide_set());
    below.flat_map(|command| std::iter::once(command.clone()).chain(visible_subcommands(command))).collect()
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

/// Returns true if the command reads the configuration.
fn reads_configuration(command: &str) -> bool {
    matches!(command, "run" | "serve-tcp" | "serve-events" | "configure")
}

fn exit_status(roff: &mut Roff, command: &str) {
    let batches =
        ["lea", "ls", "verify", "replay", "merge", "number", "load", "test-pattern", "build", "compare"];
    let checks_input = batches.contains(&command);
    let drains =
        matches!(command, "lea" | "run" | "serve-tcp" | "serve-events" | "verify" | "replay" | "tail");
    let done = match command {
        "run" | "serve-tcp" => "Success: shut down by a signal; everything received is stored.",
        "serve-events" => "Success: shut down by a signal; everything received is stored.",
        _ => "Success.",
    };
    roff.control("SH", ["EXIT STATUS"]);
    add_item(roff, bold("0"), done);
    add_item(roff, bold("1"), "Failure; the reason is on stderr.");
    add_item(roff, bold("2"), "Wrong usage or configuration; nothing was started or changed.");
    if checks_input {
        add_item(roff, bold("3"), "Finished, but some input was rejected, differs or is missing.");
    }
    if drains {
        add_item(roff, bold("130"), "Interrupted by a second signal.");
    }
}

fn files(roff: &mut Roff, command: &str) {
    let mut files = Vec::new();
    if reads_configuration(command) {
        files.push(("config/configurationFile.conf", "Configuration; see lea.conf(5)."));
    }
    if command == "configure" {
        files.push(("config/base.conf", "Template; if it does not exist, a built-in one is used."));
    }
    if matches!(command, "run" | "serve-tcp" | "serve-events" | "ls" | "verify") {
        files.push(("DIR/NAME", "Content of the stream NAME, byte for byte as received."));
        files.push((
            "DIR/NAME.N",
            "Part N of the stream NAME: a later stream of the same name with different content.",
        ));
        files.push(("DIR/NAME.lea.json", "Manifest of the stream: sender, times, size and SHA-256."));
        files
            .push(("DIR/.lea/", "lea's own data: lock, journal of open streams, checkpoints, dead letters."));
    }
    if matches!(command, "run" | "serve-events") {
        files.push(("DIR/.lea/events.db", "Event store."));
        files.push(("DIR/.lea/event-dead-letters.jsonl", "Rejected events with the reason."));
    }
    if !files.is_empty() {
        roff.control("SH", ["FILES"]);
    }
    for (file, what) in files {
        add_item(roff, italic(file), what);
    }
}

fn environment(roff: &mut Roff, command: &str) {
    if !reads_configuration(command) {
        return;
    }
    roff.control("SH", ["ENVIRONMENT"]);
    roff.text([roman("An environment variable overrides the configuration file; a flag overrides both.")]);
    for key in KEYS {
        let default = if key.default.is_empty() { "empty" } else { key.default };
        add_item(roff, bold(key.variable), &format!("{} (default: {default})", key.path));
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

fn add_item(roff: &mut Roff, tag: Inline, text: &str) {
    roff.control("TP", []);
    roff.text([tag]);
    roff.text([roman(text)]);
}
