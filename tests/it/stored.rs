//! Creates output directories as a receiver leaves them, for the tests of `ls` and `verify`.

#![allow(clippy::unwrap_used)] // A helper that fails fails its test.

use std::fs;
use std::path::{Path, PathBuf};

use assert_cmd::Command;
use lea::cc::vault::manifest::{
    EndReason, FORMAT_VERSION, Manifest, ManifestState, SUFFIX, StreamConnection, StreamSource,
};
use lea::cc::vault::scan::FileScan;
use lea::cc::wire::name::{file_name, parse_fields, part_file_name};

pub(crate) const NAME: &str = "+447700900123-2-3_21_11_2026_20:59:41.pcap";

/// Reads a recording from testdata/pcap.
pub(crate) fn recording(name: &str) -> Vec<u8> {
    fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/pcap").join(name)).unwrap()
}

/// Returns a command that runs the binary.
pub(crate) fn lea(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lea"));
    command.args(args);
    command
}

/// An output directory with streams.
pub(crate) struct OutputDir(tempfile::TempDir);

impl OutputDir {
    pub(crate) fn new() -> OutputDir {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join(".lea")).unwrap();
        OutputDir(dir)
    }

    pub(crate) fn path(&self) -> &str {
        self.0.path().to_str().unwrap()
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.file(name), content).unwrap();
    }

    /// Stores a stream as if it had been received over one connection.
    pub(crate) fn store(&self, name: &str, part: u32, content: &[u8], state: ManifestState) -> Manifest {
        let manifest = manifest(name, part, content, state);
        self.write(&manifest.file, content);
        self.write_manifest(&manifest);
        manifest
    }

    pub(crate) fn write_manifest(&self, manifest: &Manifest) {
        let text = serde_json::to_vec_pretty(manifest).unwrap();
        self.write(&format!("{}{SUFFIX}", manifest.file), text);
    }
}

fn manifest(name: &str, part: u32, content: &[u8], state: ManifestState) -> Manifest {
    let mut scan = FileScan::new(true);
    scan.feed(content);
    let ended = state != ManifestState::Open;
    let connection = StreamConnection {
        raw_name_hex: None,
        peer: "192.0.2.7:40000".to_owned(),
        connected_at: "2026-11-21T20:59:40.000Z".to_owned(),
        first_byte_at: Some("2026-11-21T20:59:41.000Z".to_owned()),
        last_byte_at: Some("2026-11-21T21:00:43.250Z".to_owned()),
        ended_at: ended.then(|| "2026-11-21T21:00:44.500Z".to_owned()),
        end_reason: ended.then_some(EndReason::Reset),
        offset: 0,
        bytes: content.len() as u64,
        compared_bytes: 0,
    };
    Manifest {
        format_version: FORMAT_VERSION,
        name: name.to_owned(),
        name_hex: None,
        fields: parse_fields(name.as_bytes()),
        source: StreamSource::Tcp,
        file: part_file_name(&file_name(name.as_bytes()), part),
        part,
        state,
        end_reason: connection.end_reason,
        bytes: if ended { content.len() as u64 } else { 0 },
        sha256: scan.sha256().filter(|_| ended),
        capture: if ended { scan.tracker.summary() } else { Default::default() },
        lost_bytes: 0,
        unsynced_bytes: 0,
        continues: None,
        rotation: None,
        repeats: None,
        connections: vec![connection],
        connections_omitted: 0,
        segments: Vec::new(),
        segments_omitted: 0,
        gaps: Vec::new(),
        gaps_omitted: 0,
        insertions: Vec::new(),
        order_uncertain: false,
        resume_state: None,
        lea_version: "0.1.0".to_owned(),
    }
}
