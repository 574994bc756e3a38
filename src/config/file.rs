//! The file as a layer of the configuration: extracts the values of known keys with their positions.
//!
//! Parsing is pure and cannot fail: errors become findings. Repeated keys are warnings. Unknown keys are errors, unless the
//! caller is lenient; outside `parameters` they are warnings, because they may belong to other programs.

use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::json::{self, JsonMember, JsonNode, JsonSyntaxError};
use super::section::SectionFinding;
use super::{ConfigKey, FILE_BYTES_MAX, Finding, KEYS, OPEN_SECTIONS, ValueOrigin, check, numbers};
use crate::phone::NumberSettings;
use crate::{Error, Result};

/// Maximum findings of one kind per file. The rest are counted.
const FINDINGS_MAX: usize = 100;

/// The content of a configuration file.
#[derive(Debug)]
pub struct FileLayer {
    pub path: PathBuf,
    /// Errors in syntax and types. Values are checked when the layers are combined.
    pub errors: Vec<Finding>,
    /// Findings that do not prevent the start.
    pub warnings: Vec<Finding>,
    /// Keys that lea does not know: errors, unless the caller is lenient.
    pub unknown_keys: Vec<Finding>,
    pub numbers: NumberSettings,
    document: String,
    /// Sections of [`OPEN_SECTIONS`] and their ranges in the document.
    open_sections: Vec<(&'static str, Range<usize>)>,
    values: Vec<(&'static ConfigKey, ValueOrigin, String)>,
}

impl FileLayer {
    /// Reads a file that must exist. Fails with [`Error::Config`] if it cannot be read.
    pub fn read(path: &Path) -> Result<FileLayer> {
        let bytes = read_bounded(path).map_err(|error| unreadable_error(path, &error))?;
        Ok(FileLayer::parse(path, &bytes))
    }

    /// Reads a file that may be missing.
    pub fn read_if_exists(path: &Path) -> Result<Option<FileLayer>> {
        match read_bounded(path) {
            Ok(bytes) => Ok(Some(FileLayer::parse(path, &bytes))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(unreadable_error(path, &error)),
        }
    }

    /// Parses the content of a file. `path` is only used in findings.
    pub fn parse(path: &Path, bytes: &[u8]) -> FileLayer {
        // Editors on Windows add a byte order mark. JSON does not allow it (RFC 8259, section 8.1).
        let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        let first = text.utf8_chunks().next();
        let mut walk = DocumentReader::new(first.as_ref().map_or("", |chunk| chunk.valid()));
        if bytes.len() as u64 > FILE_BYTES_MAX {
            walk.error(0, format!("larger than {FILE_BYTES_MAX} bytes, so this is not a configuration file"));
        } else if first.is_some_and(|chunk| !chunk.invalid().is_empty()) {
            walk.error(walk.document.len(), "not valid UTF-8".to_owned());
        } else if walk.document.trim().is_empty() {
            walk.error(0, "the file is empty".to_owned());
        } else {
            match json::parse(walk.document) {
                Ok(root) => walk.read_object("", root),
                Err(error) => walk.syntax_error(error),
            }
        }
        walk.finish(path)
    }

    /// Returns a section of [`OPEN_SECTIONS`]. Of repeated sections the last one counts.
    pub(crate) fn section(&self, path: &str) -> Option<JsonNode<'_>> {
        let (_, range) = self.open_sections.iter().rfind(|(found, _)| *found == path)?;
        Some(JsonNode::at(&self.document, range.clone()))
    }

    /// Returns true if a section that other modules read exists and is not empty.
    pub(crate) fn has_values(&self, path: &str) -> bool {
        let members = self.section(path).and_then(|node| node.members());
        members.is_some_and(|members| members.is_ok_and(|members| !members.is_empty()))
    }

    /// Adds what the reader of a section found.
    pub(crate) fn add_section_findings(&mut self, read: Result<Vec<SectionFinding>, JsonSyntaxError>) {
        let (mut errors, mut unknown_keys) = (Findings::default(), Findings::default());
        match read {
            Ok(findings) => {
                for SectionFinding { offset, text, is_unknown_key } in findings {
                    let list = if is_unknown_key { &mut unknown_keys } else { &mut errors };
                    list.push(&self.document, offset, text);
                }
            }
            Err(error) => errors.push(&self.document, error.offset, syntax_error_text(&error)),
        }
        self.errors.extend(errors.into_list());
        self.unknown_keys.extend(unknown_keys.into_list());
    }

    /// Returns the position of a value, by its path from the top.
    pub fn origin_of(&self, path: &str) -> Option<ValueOrigin> {
        let mut node = json::parse(&self.document).ok()?;
        for name in path.split('.') {
            node = node.members()?.ok()?.into_iter().rfind(|member| member.key == name)?.value;
        }
        Some(origin(&self.document, node.offset()))
    }

    /// Returns the text of a key's value and its position.
    pub(super) fn value(&self, key: &ConfigKey) -> Option<(ValueOrigin, &str)> {
        let (_, origin, text) = self.values.iter().find(|(of, ..)| *of == key)?;
        Some((*origin, text))
    }
}

/// Reads the text of a configuration file that must exist.
pub fn read_config_text(path: &Path) -> Result<String> {
    let bytes = read_bounded(path).map_err(|error| unreadable_error(path, &error))?;
    String::from_utf8(bytes)
        .map_err(|_| Error::Config { path: path.to_owned(), reason: "not valid UTF-8 text".to_owned() })
}

/// Reads at most one byte more than the limit, by which [`FileLayer::parse`] detects a file that is too large.
pub(super) fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// An unreadable configuration is wrong usage (exit status 2), like an invalid one.
pub(super) fn unreadable_error(path: &Path, error: &io::Error) -> Error {
    Error::Config { path: path.to_owned(), reason: format!("cannot read the configuration: {error}") }
}

/// State of reading one document.
struct DocumentReader<'a> {
    document: &'a str,
    errors: Findings,
    warnings: Findings,
    unknown_keys: Findings,
    leaves: Vec<(&'static ConfigKey, JsonNode<'a>)>,
    sections: Vec<String>,
    numbers: NumberSettings,
    open_sections: Vec<(&'static str, Range<usize>)>,
}

impl<'a> DocumentReader<'a> {
    fn new(document: &'a str) -> DocumentReader<'a> {
        let (errors, warnings, unknown_keys) = Default::default();
        let (leaves, sections, numbers, open_sections) = Default::default();
        DocumentReader { document, errors, warnings, unknown_keys, leaves, sections, numbers, open_sections }
    }

    /// Reads an object. `path` is its path with a dot at the end, or empty for the document. Recursion is bounded by the longest
    /// known path.
    fn read_object(&mut self, path: &str, node: JsonNode<'a>) {
        let members = match node.members() {
            Some(Ok(members)) => members,
            Some(Err(error)) => return self.syntax_error(error),
            None => {
                let name = path.strip_suffix('.').unwrap_or("the configuration");
                let text = format!("{name}: expected an object, found {}", node.kind());
                return self.error(node.offset(), text);
            }
        };
        for member in members {
            let name = format!("{path}{}", member.key);
            let section = format!("{name}.");
            if let Some(key) = KEYS.iter().find(|key| key.path == name) {
                self.add_leaf(key, member.key_offset, member.value);
            } else if KEYS.iter().any(|key| key.path.starts_with(&section)) {
                self.read_section(section, member.key_offset, member.value);
            } else if name == numbers::PATH {
                let read = numbers::read(member.value, &mut self.numbers);
                self.add_section_findings(read);
            } else if let Some(path) = OPEN_SECTIONS.iter().find(|path| **path == name) {
                self.open_sections.push((path, member.value.range()));
            } else {
                self.add_unknown_key(path, &member);
            }
        }
    }

    fn read_section(&mut self, section: String, key_offset: usize, node: JsonNode<'a>) {
        if self.sections.contains(&section) {
            self.warn(key_offset, format!("{} is given more than once", &section[..section.len() - 1]));
        } else {
            self.sections.push(section.clone());
        }
        self.read_object(&section, node);
    }

    fn add_section_findings(&mut self, read: Result<Vec<SectionFinding>, JsonSyntaxError>) {
        match read {
            Ok(wrongs) => wrongs.into_iter().for_each(|wrong| match wrong.is_unknown_key {
                true => self.unknown_keys.push(self.document, wrong.offset, wrong.text),
                false => self.error(wrong.offset, wrong.text),
            }),
            Err(error) => self.syntax_error(error),
        }
    }

    /// Adds a value. JSON does not define the meaning of a repeated key (RFC 8259, section 4); most parsers use the last one.
    fn add_leaf(&mut self, key: &'static ConfigKey, key_offset: usize, node: JsonNode<'a>) {
        match self.leaves.iter_mut().find(|(of, _)| *of == key) {
            Some(leaf) => {
                leaf.1 = node;
                self.warn(
                    key_offset,
                    format!("{} is given more than once; the last value is used", key.path),
                );
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
                    let text = format!("{}: expected a string or a number, found {}", key.path, node.kind());
                    self.error(node.offset(), text);
                }
            }
        }
        FileLayer {
            path: path.to_owned(),
            errors: self.errors.into_list(),
            warnings: self.warnings.into_list(),
            unknown_keys: self.unknown_keys.into_list(),
            numbers: self.numbers,
            document: self.document.to_owned(),
            open_sections: self.open_sections,
            values,
        }
    }

    fn syntax_error(&mut self, error: JsonSyntaxError) {
        self.error(error.offset, syntax_error_text(&error));
    }

    fn error(&mut self, offset: usize, text: String) {
        self.errors.push(self.document, offset, text);
    }

    /// Adds a finding for an unknown key. Keys outside `parameters` may belong to other programs, so they are warnings.
    fn add_unknown_key(&mut self, path: &str, member: &JsonMember<'_>) {
        let sections = [numbers::PATH].into_iter().chain(OPEN_SECTIONS);
        let names =
            KEYS.iter().map(|key| key.path).chain(sections).filter_map(|name| name.strip_prefix(path));
        let known: Vec<&str> = names.filter_map(|name| name.split('.').next()).collect();
        let hint = check::did_you_mean(&member.key, &known);
        let scope = path.strip_suffix('.').map_or_else(String::new, |scope| format!(" in {scope}"));
        let text = format!("unknown key {}{scope}{hint}", check::quote(&member.key));
        if path.is_empty() && hint.is_empty() {
            self.warn(member.key_offset, text);
        } else {
            self.unknown_keys.push(self.document, member.key_offset, text);
        }
    }

    fn warn(&mut self, offset: usize, text: String) {
        self.warnings.push(self.document, offset, text);
    }
}

fn syntax_error_text(error: &JsonSyntaxError) -> String {
    format!("not valid JSON: {}", error.text)
}

/// Findings up to [`FINDINGS_MAX`], so that a file full of unknown keys does not flood the log.
#[derive(Default)]
struct Findings {
    list: Vec<Finding>,
    omitted: usize,
}

impl Findings {
    fn push(&mut self, document: &str, offset: usize, text: String) {
        if self.list.len() < FINDINGS_MAX {
            self.list.push(Finding { origin: origin(document, offset), text });
        } else {
            self.omitted += 1;
        }
    }

    fn into_list(mut self) -> Vec<Finding> {
        if let (Some(last), 1..) = (self.list.last(), self.omitted) {
            let text = format!("and {} more like this", self.omitted);
            self.list.push(Finding { origin: last.origin, text });
        }
        self.list
    }
}

fn origin(document: &str, offset: usize) -> ValueOrigin {
    let (line, column) = json::line_and_column(document, offset);
    ValueOrigin::File { line, column }
}
