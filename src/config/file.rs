//! The file as a layer of the configuration: bytes into texts for the known keys, with their places.
//!
//! Parsing is pure and cannot fail: what is wrong becomes a finding. Unknown keys, and keys given twice, are
//! warnings, for sites' files carry keys of other programs.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::events::{self, Events};
use super::json::{self, Node, SyntaxError};
use super::{FILE_BYTES_MAX, Finding, KEYS, Key, Origin, check, numbers};
use crate::iri::number::Settings;
use crate::{Error, Result};

/// Findings of one kind that are kept from one file; the rest are counted.
const FINDINGS_MAX: usize = 100;

/// What a configuration file says.
#[derive(Debug)]
pub struct FileLayer {
    /// The file's name.
    pub path: PathBuf,
    /// What is wrong in its syntax and types. Values get checked when the layers are put together.
    pub errors: Vec<Finding>,
    /// What is odd, and does not matter.
    pub warnings: Vec<Finding>,
    /// How telephone numbers are read; what the file does not say is the default.
    pub numbers: Settings,
    /// What is received as events.
    pub events: Events,
    values: Vec<(&'static Key, Origin, String)>,
}

impl FileLayer {
    /// Reads a file that must be there. Fails with [`Error::Config`] where it cannot be read.
    pub fn read(path: &Path) -> Result<FileLayer> {
        let bytes = read_bounded(path).map_err(|error| unreadable(path, &error))?;
        Ok(FileLayer::parse(path, &bytes))
    }

    /// Reads a file that need not be there.
    pub fn read_if_there(path: &Path) -> Result<Option<FileLayer>> {
        match read_bounded(path) {
            Ok(bytes) => Ok(Some(FileLayer::parse(path, &bytes))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(unreadable(path, &error)),
        }
    }

    /// Takes a file's bytes apart; `path` is what findings are reported under.
    pub fn parse(path: &Path, bytes: &[u8]) -> FileLayer {
        // Editors on Windows put a byte order mark before the text; JSON itself has none (RFC 8259, 8.1).
        let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        let first = text.utf8_chunks().next();
        let mut walk = Walk::new(first.as_ref().map_or("", |chunk| chunk.valid()));
        if bytes.len() as u64 > FILE_BYTES_MAX {
            walk.error(0, format!("more than {FILE_BYTES_MAX} bytes: this is no configuration"));
        } else if first.is_some_and(|chunk| !chunk.invalid().is_empty()) {
            walk.error(walk.document.len(), "this is no UTF-8 text".to_owned());
        } else if walk.document.trim().is_empty() {
            walk.error(0, "the file is empty".to_owned());
        } else {
            match json::parse(walk.document) {
                Ok(root) => walk.object("", root),
                Err(error) => walk.syntax_error(error),
            }
        }
        walk.finish(path)
    }

    /// The text that the file gives for a key, and where.
    pub(super) fn value(&self, key: &Key) -> Option<(Origin, &str)> {
        let (_, origin, text) = self.values.iter().find(|(of, ..)| *of == key)?;
        Some((*origin, text))
    }
}

/// Reads a file, up to one byte more than the limit, by which [`FileLayer::parse`] knows that it is too large.
pub(super) fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A configuration that cannot be read is wrong usage (exit code 2), like one that says something wrong.
pub(super) fn unreadable(path: &Path, error: &io::Error) -> Error {
    Error::Config { path: path.to_owned(), reason: format!("cannot read the configuration: {error}") }
}

/// The way through one document.
struct Walk<'a> {
    document: &'a str,
    errors: Findings,
    warnings: Findings,
    leaves: Vec<(&'static Key, Node<'a>)>,
    sections: Vec<String>,
    numbers: Settings,
    events: Events,
}

impl<'a> Walk<'a> {
    fn new(document: &'a str) -> Walk<'a> {
        let (errors, warnings) = Default::default();
        let (numbers, events) = Default::default();
        Walk { document, errors, warnings, leaves: Vec::new(), sections: Vec::new(), numbers, events }
    }

    /// Goes through an object; `path` is its own with a dot after it, empty for the whole document. The depth is
    /// bounded by the longest known path.
    fn object(&mut self, path: &str, node: Node<'a>) {
        let members = match node.members() {
            Some(Ok(members)) => members,
            Some(Err(error)) => return self.syntax_error(error),
            None => {
                let name = path.strip_suffix('.').unwrap_or("the configuration");
                let text = format!("{name}: {} where an object has to be", node.kind());
                return self.error(node.offset(), text);
            }
        };
        for member in members {
            let name = format!("{path}{}", member.key);
            let section = format!("{name}.");
            if let Some(key) = KEYS.iter().find(|key| key.path == name) {
                self.leaf(key, member.key_offset, member.value);
            } else if KEYS.iter().any(|key| key.path.starts_with(&section)) {
                self.section(section, member.key_offset, member.value);
            } else if name == numbers::PATH {
                let read = numbers::read(member.value, &mut self.numbers);
                self.wrongs(read);
            } else if name == events::PATH {
                let read = events::read(member.value, &mut self.events);
                self.wrongs(read);
            } else {
                self.warn(member.key_offset, unknown(path, &member.key));
            }
        }
    }

    fn section(&mut self, section: String, key_offset: usize, node: Node<'a>) {
        if self.sections.contains(&section) {
            self.warn(key_offset, format!("{} is given twice", &section[..section.len() - 1]));
        } else {
            self.sections.push(section.clone());
        }
        self.object(&section, node);
    }

    fn wrongs(&mut self, read: Result<Vec<numbers::Wrong>, SyntaxError>) {
        match read {
            Ok(wrongs) => wrongs.into_iter().for_each(|wrong| match wrong.warning {
                true => self.warn(wrong.offset, wrong.text),
                false => self.error(wrong.offset, wrong.text),
            }),
            Err(error) => self.syntax_error(error),
        }
    }

    /// JSON leaves open what a repeated key means (RFC 8259, 4); most parsers take the last one.
    fn leaf(&mut self, key: &'static Key, key_offset: usize, node: Node<'a>) {
        match self.leaves.iter_mut().find(|(of, _)| *of == key) {
            Some(leaf) => {
                leaf.1 = node;
                self.warn(key_offset, format!("{} is given twice; the last one counts", key.path));
            }
            None => self.leaves.push((key, node)),
        }
    }

    fn finish(mut self, path: &Path) -> FileLayer {
        let mut values = Vec::new();
        for (key, node) in std::mem::take(&mut self.leaves) {
            match node.scalar() {
                Some(Ok(text)) => values.push((key, origin(self.document, node.offset()), text)),
                Some(Err(error)) => self.syntax_error(error),
                None => {
                    let text = format!("{}: {} where a text or a number has to be", key.path, node.kind());
                    self.error(node.offset(), text);
                }
            }
        }
        FileLayer {
            path: path.to_owned(),
            errors: self.errors.into_list(),
            warnings: self.warnings.into_list(),
            numbers: self.numbers,
            events: self.events,
            values,
        }
    }

    fn syntax_error(&mut self, error: SyntaxError) {
        self.error(error.offset, format!("this is no JSON: {}", error.text));
    }

    fn error(&mut self, offset: usize, text: String) {
        self.errors.push(self.document, offset, text);
    }

    fn warn(&mut self, offset: usize, text: String) {
        self.warnings.push(self.document, offset, text);
    }
}

/// Findings up to [`FINDINGS_MAX`]: a megabyte of unknown keys shall not become a megabyte of log.
#[derive(Default)]
struct Findings {
    list: Vec<Finding>,
    left_out: usize,
}

impl Findings {
    fn push(&mut self, document: &str, offset: usize, text: String) {
        if self.list.len() < FINDINGS_MAX {
            self.list.push(Finding { origin: origin(document, offset), text });
        } else {
            self.left_out += 1;
        }
    }

    fn into_list(mut self) -> Vec<Finding> {
        if let (Some(last), 1..) = (self.list.last(), self.left_out) {
            let text = format!("and {} more like this", self.left_out);
            self.list.push(Finding { origin: last.origin, text });
        }
        self.list
    }
}

fn origin(document: &str, offset: usize) -> Origin {
    let (line, column) = json::line_and_column(document, offset);
    Origin::File { line, column }
}

/// The warning for an unknown key, with the known one that differs only in case: sites write from memory.
fn unknown(path: &str, key: &str) -> String {
    let mut known = KEYS.iter().filter_map(|key| key.path.strip_prefix(path)?.split('.').next());
    let meant = known.find(|name| name.eq_ignore_ascii_case(key));
    let meant = meant.map_or_else(String::new, |name| format!("; {name:?} is meant?"));
    let scope = path.strip_suffix('.').map_or_else(String::new, |scope| format!(" in {scope}"));
    format!("unknown key {}{scope}{meant}", check::shown(key))
}
