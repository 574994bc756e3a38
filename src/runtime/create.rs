//! Creates directories, and explains why a file or directory cannot be created and what to do about it.
//!
//! Everything that lea creates at a path given by the user goes through [`create_dirs`] or [`create_error`]: the output
//! directory and `.lea`, the event store, the spool, the outputs of `decode`, `merge`, `man`, `completions` and
//! `configure`, and temporary files.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

pub(crate) use rustix::fs::Mode;
use rustix::fs::{CWD, mkdirat};
use rustix::io::Errno;

use crate::{Error, Result};

/// Creates a directory and its missing parents with `mode`, reduced by the umask. Calls `set_up` for each one created.
///
/// Each directory is tried once, so a file system that accepts no new entries (such as `/proc`) is an error.
pub(crate) fn create_dirs(
    path: &Path,
    mode: Mode,
    mut set_up: impl FnMut(&Path) -> io::Result<()>,
) -> Result<()> {
    let mut missing = Vec::new();
    for dir in path.ancestors().filter(|dir| !dir.as_os_str().is_empty()) {
        match fs::metadata(dir) {
            Ok(found) if found.is_dir() => break,
            Ok(_) => return Err(create_error("create the directory", path)(not_a_directory(dir))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => missing.push(dir),
            Err(error) => return Err(create_error("create the directory", path)(error)),
        }
    }
    for dir in missing.into_iter().rev() {
        match mkdirat(CWD, dir, mode) {
            Ok(()) => set_up(dir).map_err(Error::path("set the permissions of", dir))?,
            // Another process created it meanwhile, or a symbolic link leads nowhere.
            Err(Errno::EXIST) if fs::metadata(dir).is_ok_and(|found| found.is_dir()) => {}
            Err(Errno::EXIST) => {
                return Err(create_error("create the directory", path)(not_a_directory(dir)));
            }
            Err(error) => return Err(create_error("create the directory", dir)(error.into())),
        }
    }
    Ok(())
}

fn not_a_directory(path: &Path) -> io::Error {
    io::Error::new(
        io::ErrorKind::NotADirectory,
        format!("{} exists and is not a directory; choose another path or remove it", path.display()),
    )
}

/// Permissions of a directory that the umask alone decides on.
pub(crate) const BY_UMASK: Mode = Mode::from_bits_retain(0o777);

/// Wraps an error of creating `path`, and adds what to do about it.
pub(crate) fn create_error(act: &'static str, path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Error {
    let path = path.as_ref().to_owned();
    move |error| {
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let explained = explain(error, parent);
        Error::path(act, path)(explained)
    }
}

/// Wraps an error of creating a temporary file in `dir`, and adds what to do about it.
pub(crate) fn create_in_error(dir: &Path) -> impl FnOnce(io::Error) -> Error {
    let dir = dir.to_owned();
    move |error| {
        let explained = explain(error, &dir);
        Error::path("create a temporary file in", dir)(explained)
    }
}

fn explain(error: io::Error, parent: &Path) -> io::Error {
    match advice(&error, parent) {
        Some(advice) => io::Error::new(error.kind(), format!("{error}: {advice}")),
        None => error,
    }
}

/// Returns what the user can do about an error of creating something in `parent`.
fn advice(error: &io::Error, parent: &Path) -> Option<String> {
    let shown = parent.display();
    match Errno::from_io_error(error)? {
        Errno::NOENT if parent.is_dir() => {
            Some(format!("nothing can be created in {shown}; choose another path"))
        }
        Errno::NOENT => {
            Some(format!("the directory {shown} does not exist; create it or choose another path"))
        }
        Errno::NOTDIR => Some(format!("{shown} is not a directory; choose another path")),
        Errno::ISDIR => Some("it is a directory; choose another path".to_owned()),
        Errno::EXIST => {
            Some("it already exists and is of another kind; choose another path or remove it".to_owned())
        }
        Errno::ACCESS | Errno::PERM => Some(permission_advice(parent)),
        Errno::ROFS => {
            Some("the file system is read-only; choose another path or remount it read-write".to_owned())
        }
        Errno::NOSPC | Errno::DQUOT => Some("free some space or choose another path".to_owned()),
        Errno::NAMETOOLONG => Some("choose a shorter name".to_owned()),
        Errno::LOOP => {
            Some("a symbolic link is not followed here; use the path that it points to".to_owned())
        }
        _ => None,
    }
}

/// Names the user of this process, and the owner and mode of the nearest existing directory.
fn permission_advice(parent: &Path) -> String {
    let user = user_name(rustix::process::geteuid().as_raw());
    match parent.ancestors().find_map(|dir| Some((dir, fs::metadata(dir).ok()?))) {
        Some((dir, found)) => format!(
            "{user} needs write and search permission in {} (owner {}, mode {:04o})",
            dir.display(),
            user_name(found.uid()),
            found.mode() & 0o7777
        ),
        None => format!("{user} needs write and search permission in {}", parent.display()),
    }
}

/// Returns `user NAME`, or `user ID` if /etc/passwd does not list the id.
fn user_name(uid: u32) -> String {
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == uid.to_string()).then(|| name.to_owned())
    });
    format!("user {}", name.unwrap_or_else(|| uid.to_string()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;
    use crate::error::chain;

    fn create(path: &Path) -> std::result::Result<Vec<String>, String> {
        let mut created = Vec::new();
        create_dirs(path, Mode::RWXU, |dir| {
            created.push(dir.file_name().unwrap().to_string_lossy().into_owned());
            Ok(())
        })
        .map_err(|error| chain(&error))?;
        Ok(created)
    }

    #[test]
    fn missing_parents_are_created_from_the_top() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(create(&dir.path().join("a/b/c")).unwrap(), ["a", "b", "c"]);
        assert_eq!(create(&dir.path().join("a/b/d")).unwrap(), ["d"]);
        assert!(create(&dir.path().join("a/b/d")).unwrap().is_empty());
        let mode = fs::metadata(dir.path().join("a/b")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }

    #[test]
    fn the_error_names_the_path_the_reason_and_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let (file, link) = (dir.path().join("file"), dir.path().join("link"));
        fs::write(&file, "").unwrap();
        symlink(dir.path().join("nowhere"), &link).unwrap();
        let (file, link) = (file.display(), link.display());
        let not_a_directory = |path: &str, what: &dyn std::fmt::Display| {
            format!(
                "cannot create the directory {path}: {what} exists and is not a directory; \
                     choose another path or remove it"
            )
        };
        for (path, expected) in [
            (
                "/proc/nope".to_owned(),
                "cannot create the directory /proc/nope: No such file or directory (os error 2): \
                 nothing can be created in /proc; choose another path"
                    .to_owned(),
            ),
            (
                "/proc/nope/deeper".to_owned(),
                "cannot create the directory /proc/nope: No such file or directory (os error 2): \
                 nothing can be created in /proc; choose another path"
                    .to_owned(),
            ),
            (file.to_string(), not_a_directory(&file.to_string(), &file)),
            (link.to_string(), not_a_directory(&link.to_string(), &link)),
        ] {
            assert_eq!(create(Path::new(&path)).unwrap_err(), expected);
        }
        // A file among the parents.
        let error = create(Path::new(&format!("{file}/a"))).unwrap_err();
        assert!(error.starts_with(&format!("cannot create the directory {file}/a: ")), "{error}");
    }

    #[test]
    fn advice_fits_the_error() {
        for (errno, expected) in [
            (Errno::ROFS, "the file system is read-only"),
            (Errno::NOSPC, "free some space"),
            (Errno::ACCESS, "needs write and search permission in /"),
            (Errno::NAMETOOLONG, "choose a shorter name"),
        ] {
            let error = chain(&create_error("create", "/some/path")(errno.into()));
            assert!(error.starts_with("cannot create /some/path: ") && error.contains(expected), "{error}");
        }
        let error = chain(&create_error("create", "/some/path")(Errno::IO.into()));
        assert_eq!(error, "cannot create /some/path: Input/output error (os error 5)");
    }
}
