//! A directory for one test, and helpers for output directories.

use std::fs;
use std::path::{Path, PathBuf};

use lea::cc::vault::manifest::{Manifest, ManifestState, SUFFIX};

use super::{DEADLINE, wait_for};

/// A directory that is removed after the test. After a failure it is kept, and its path is printed.
pub(crate) struct Workdir {
    dir: Option<tempfile::TempDir>,
    path: PathBuf,
}

impl Workdir {
    /// Creates a new directory.
    pub(crate) fn new() -> Workdir {
        let dir = tempfile::Builder::new().prefix("lea-test-").tempdir().unwrap();
        Workdir { path: dir.path().to_owned(), dir: Some(dir) }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns a path in it.
    pub(crate) fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path.join(name)
    }

    /// Writes a file into it.
    pub(crate) fn write(&self, name: impl AsRef<Path>, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.join(name);
        fs::write(&path, content).unwrap();
        path
    }
}

impl Drop for Workdir {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Some(dir) = self.dir.take()
        {
            eprintln!("the test's folder stays: {}", dir.keep().display());
        }
    }
}

/// Returns the content of a file in testdata/: `testdata("pcap/answered-call.pcap")`.
pub(crate) fn testdata(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(name);
    fs::read(&path).unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()))
}

/// Returns the manifest of a stream file in an output directory, or `None` if it does not exist.
pub(crate) fn manifest(output: &Path, file_name: &str) -> Option<Manifest> {
    let path = output.join(format!("{file_name}{SUFFIX}"));
    let text = match fs::read(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
        read => read.unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display())),
    };
    // The manifest is renamed into place, so a reader never sees a partial one.
    Some(serde_json::from_slice(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display())))
}

/// Waits until a stream file is closed. Returns its manifest.
#[track_caller]
pub(crate) fn wait_closed(output: &Path, file_name: &str) -> Manifest {
    wait_for(DEADLINE, &format!("the end of {file_name}"), || {
        manifest(output, file_name).filter(|manifest| manifest.state == ManifestState::Closed)
    })
}

/// Checks that the file equals `sent`. Reports the first difference without printing content.
#[track_caller]
pub(crate) fn assert_same(file: &Path, sent: &[u8]) {
    let stored = fs::read(file).unwrap_or_else(|error| panic!("cannot read {}: {error}", file.display()));
    if stored == sent {
        return;
    }
    let at = stored.iter().zip(sent).position(|(a, b)| a != b).unwrap_or(stored.len().min(sent.len()));
    panic!(
        "{} ({} bytes) differs from what was sent ({} bytes) at offset {at}",
        file.display(),
        stored.len(),
        sent.len()
    );
}
