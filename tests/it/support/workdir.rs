//! A folder for one test, and what lies in an output folder.

use std::fs;
use std::path::{Path, PathBuf};

use lea::cc::vault::manifest::{Manifest, ManifestState, SUFFIX};

use super::{DEADLINE, wait_for};

/// A folder that goes with the test; after a failure it stays, and its path is printed.
pub(crate) struct Workdir {
    dir: Option<tempfile::TempDir>,
    path: PathBuf,
}

impl Workdir {
    /// A fresh folder.
    pub(crate) fn new() -> Workdir {
        let dir = tempfile::Builder::new().prefix("lea-test-").tempdir().unwrap();
        Workdir { path: dir.path().to_owned(), dir: Some(dir) }
    }

    /// The folder.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// A path in it.
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

/// The content of a file in testdata/: `testdata("pcap/answered-call.pcap")`.
pub(crate) fn testdata(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(name);
    fs::read(&path).unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()))
}

/// The manifest of a stream file in an output folder; none if there is none.
pub(crate) fn manifest(output: &Path, file_name: &str) -> Option<Manifest> {
    let path = output.join(format!("{file_name}{SUFFIX}"));
    let text = match fs::read(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
        read => read.unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display())),
    };
    // It is renamed into its place, so it is never seen half written.
    Some(serde_json::from_slice(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display())))
}

/// Waits until a stream file is closed, and gives its manifest.
#[track_caller]
pub(crate) fn wait_closed(output: &Path, file_name: &str) -> Manifest {
    wait_for(DEADLINE, &format!("the end of {file_name}"), || {
        manifest(output, file_name).filter(|manifest| manifest.state == ManifestState::Closed)
    })
}

/// Fails if the file is not `sent` byte for byte; says where it differs first, and never prints its content.
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
