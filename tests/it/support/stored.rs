//! Checks of an output directory: the expected stream files and manifests, and nothing else.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use lea::cc::vault::manifest::{EndReason, Manifest, ManifestState, SUFFIX};
use lea::runtime::hex;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{DEADLINE, assert_same, manifest, wait_for};

/// Waits until a stream file is closed after its connection number `connections`. Returns its manifest.
#[track_caller]
pub(crate) fn wait_connections(output: &Path, file: &str, connections: usize) -> Manifest {
    wait_for(DEADLINE, &format!("connection {connections} of {file}"), || {
        manifest(output, file).filter(|manifest| {
            manifest.state != ManifestState::Open && manifest.connections.len() == connections
        })
    })
}

/// Checks that a stream file equals `sent`, and that its manifest agrees: closed, length, hash, no loss.
#[track_caller]
pub(crate) fn assert_whole(output: &Path, file: &str, sent: &[u8]) {
    assert_same(&output.join(file), sent);
    let manifest = manifest(output, file).unwrap_or_else(|| panic!("{file} has no manifest"));
    assert_eq!(manifest.state, ManifestState::Closed, "{file}");
    assert_vouched(output, file);
    assert_eq!((manifest.lost_bytes, manifest.file.as_str()), (0, file));
}

/// Checks that the manifest of a closed stream file has its length and hash.
#[track_caller]
pub(crate) fn assert_vouched(output: &Path, file: &str) {
    let stored = fs::read(output.join(file)).unwrap();
    let manifest = manifest(output, file).unwrap_or_else(|| panic!("{file} has no manifest"));
    assert_ne!(manifest.state, ManifestState::Open, "{file}");
    assert_eq!(manifest.bytes, stored.len() as u64, "the length of {file}");
    let sha256 = hex::encode(&Sha256::digest(&stored));
    assert_eq!(manifest.sha256.as_deref(), Some(&*sha256), "the hash of {file}");
}

/// Checks that the directory holds these stream files, their manifests and `.lea`, and that `.lea` has no
/// temporary files.
#[track_caller]
pub(crate) fn assert_only<'a>(output: &Path, files: impl IntoIterator<Item = &'a str>) {
    let mut expected = BTreeSet::from([".lea".to_owned()]);
    for file in files {
        expected.extend([file.to_owned(), format!("{file}{SUFFIX}")]);
    }
    let found = names_in(output);
    let stray: Vec<_> = found.difference(&expected).collect();
    let missing: Vec<_> = expected.difference(&found).collect();
    assert!(stray.is_empty() && missing.is_empty(), "stray: {stray:?}, missing: {missing:?}");
    let own: BTreeSet<_> = ["lock", "open.jsonl", "tmp"].map(str::to_owned).into();
    assert_eq!(names_in(&output.join(".lea")), own);
    assert_eq!(names_in(&output.join(".lea/tmp")), BTreeSet::new(), "manifests left over");
    assert_eq!(open_in_journal(output), BTreeSet::new(), "the journal names files as open");
}

/// Returns the files that the journal lists as open.
pub(crate) fn open_in_journal(output: &Path) -> BTreeSet<String> {
    let mut open = BTreeSet::new();
    for line in fs::read_to_string(output.join(".lea/open.jsonl")).unwrap().lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        if line == "clean" {
            continue;
        }
        match (line["open"]["file"].as_str(), line["closed"].as_str()) {
            (Some(file), None) => drop(open.insert(file.to_owned())),
            (None, Some(file)) => drop(open.remove(file)),
            _ => panic!("a line of the journal is neither open nor closed: {line}"),
        }
    }
    open
}

/// Returns the names in a directory.
pub(crate) fn names_in(dir: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(dir).unwrap_or_else(|error| panic!("cannot list {}: {error}", dir.display()));
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// Returns what changes when a file is written or replaced: inode, length, and modification time in
/// nanoseconds.
pub(crate) fn identity(file: &Path) -> (u64, u64, i64, i64) {
    let metadata = fs::symlink_metadata(file).unwrap();
    (metadata.ino(), metadata.len(), metadata.mtime(), metadata.mtime_nsec())
}

/// Returns how the last connection of a stream file ended.
pub(crate) fn end_reason(output: &Path, file: &str) -> Option<EndReason> {
    manifest(output, file).and_then(|manifest| manifest.end_reason)
}
