//! What lies in an output folder, for the commands that look at it from outside: `ls` and `verify`. Reads only; a
//! receiver may write to the folder meanwhile.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::cc::frame::name::part_of;
use crate::cc::vault::manifest::{self, Manifest, SUFFIX};
use crate::{Error, Result, error};

/// A stream file and its manifest, or one of them without the other.
#[derive(Debug)]
pub struct Stored {
    /// The stream file, whether it is there or not.
    pub path: PathBuf,
    /// Its length; none if it is not there, or is no regular file.
    pub bytes: Option<u64>,
    /// What its manifest says.
    pub manifest: Found,
}

/// A manifest, if there is one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// It is there.
    Manifest(Box<Manifest>),
    /// It is there and cannot be used, because.
    Unusable(String),
    /// There is none.
    Nothing,
}

impl Stored {
    /// What is there for one stream file.
    pub fn at(path: &Path) -> Stored {
        // A link is not followed: the receiver makes none, so it leads to something else.
        let bytes = fs::symlink_metadata(path).ok().filter(fs::Metadata::is_file).map(|file| file.len());
        Stored { path: path.to_owned(), bytes, manifest: read_manifest(path) }
    }

    /// The file's name, harmless to print.
    pub fn name(&self) -> String {
        harmless(&self.path.file_name().unwrap_or_default().to_string_lossy())
    }
}

/// The manifest of a stream file as it is now.
pub fn read_manifest(stream_file: &Path) -> Found {
    let path = manifest_path(stream_file);
    match fs::symlink_metadata(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Found::Nothing,
        Err(error) => return Found::Unusable(error.to_string()),
        Ok(found) if !found.is_file() => {
            return Found::Unusable("its manifest is no regular file".to_owned());
        }
        Ok(_) => {}
    }
    match manifest::read(&path) {
        Ok(manifest) if stream_file.file_name().is_some_and(|name| name == manifest.file.as_str()) => {
            Found::Manifest(Box::new(manifest))
        }
        Ok(manifest) => Found::Unusable(format!("its manifest is of the file {}", harmless(&manifest.file))),
        Err(error) => Found::Unusable(harmless(&error::chain(&error))),
    }
}

/// All streams of a folder, by name, the parts of one name in their order. Hidden files and folders are not
/// looked at: no stream has such a name.
pub fn list(dir: &Path) -> Result<Vec<Stored>> {
    let unreadable = || Error::path("read the folder", dir);
    let mut paths = Vec::new();
    for entry in fs::read_dir(dir).map_err(unreadable())? {
        let entry = entry.map_err(unreadable())?;
        let name = entry.file_name();
        if !name.as_bytes().starts_with(b".") && entry.file_type().is_ok_and(|kind| !kind.is_dir()) {
            paths.push(stream_path(&entry.path()));
        }
    }
    paths.sort_by_cached_key(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        part_of(&name).map_or((name.clone(), 0), |(file, part)| (file.to_owned(), part))
    });
    paths.dedup();
    Ok(paths.iter().map(|path| Stored::at(path)).collect())
}

/// The stream file that a path means: itself, or the one that it is the manifest of.
pub fn stream_path(path: &Path) -> PathBuf {
    let stem = path.to_str().and_then(|path| path.strip_suffix(SUFFIX));
    stem.map_or_else(|| path.to_owned(), PathBuf::from)
}

fn manifest_path(stream_file: &Path) -> PathBuf {
    let mut path = stream_file.as_os_str().to_owned();
    path.push(SUFFIX);
    PathBuf::from(path)
}

/// The outcome of a write to stdout: a reader that went away (`| head`) has seen enough.
pub fn printed(outcome: io::Result<()>) -> Result<()> {
    match outcome {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        outcome => outcome.map_err(Error::system("write to stdout")),
    }
}

/// Text as a terminal may have it: control characters, and what could hide or turn the text around it, stand as
/// escapes.
pub fn harmless(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if is_harmful(c) {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    shown
}

/// True for what a terminal must not have: it controls it, or hides or turns the text around it.
pub fn is_harmful(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_reach_the_terminal() {
        for (text, expected) in [
            ("+447700900123-2-3.pcap", "+447700900123-2-3.pcap"),
            ("a\x1b[31mb\n\t\0\u{7f}", "a\\u{1b}[31mb\\n\\t\\u{0}\\u{7f}"),
            ("\u{9b}31m \u{202e}gpj", "\\u{9b}31m \\u{202e}gpj"),
            ("käse", "käse"),
        ] {
            assert_eq!(harmless(text), expected);
        }
    }

    #[test]
    fn a_folder_is_listed_by_name_and_part() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["b.pcap", "a.pcap.10", "a.pcap.2", "a.pcap", "a.pcap.lea.json", "gone.lea.json", ".x"] {
            fs::write(dir.path().join(name), "1234").unwrap();
        }
        fs::create_dir(dir.path().join(".lea")).unwrap();
        fs::create_dir(dir.path().join("folder")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("link")).unwrap();
        let found: Vec<_> =
            list(dir.path()).unwrap().iter().map(|stored| (stored.name(), stored.bytes)).collect();
        let expected = ["a.pcap", "a.pcap.2", "a.pcap.10", "b.pcap", "gone", "link"];
        assert_eq!(found.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), expected);
        assert_eq!(
            found.iter().map(|(_, bytes)| bytes.is_some()).collect::<Vec<_>>(),
            [true, true, true, true, false, false]
        );
    }
}
