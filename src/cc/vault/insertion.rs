//! Inserts late records into closed files of Kafka streams, at the places that their offsets give them.
//!
//! A file with insertions is written anew beside the old one. The list of new files is the commit point: once it is
//! durable, the new files replace the old ones, and the next start completes that after a crash. Before it, a crash
//! leaves the old files.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;

use serde::{Deserialize, Serialize};

use super::checkpoint::{Checkpoint, ReadRange};
use super::dir::VaultDir;
use super::manifest::{Insertion, Manifest, RecordSegment};
use super::pool::BufferSize;
use super::scan::FileScan;
use super::segments::SegmentList;
use super::{VaultInner, resume_state};
use crate::capture::formats::starts_capture;
use crate::runtime::time::rfc3339_now;

/// Name of the list in `.lea`.
const FILE: &str = "insertions.json";

/// Start of the names of new files in `.lea`.
const TEMP_PREFIX: &str = "insertion.";

/// A record whose place is before stored ones.
#[derive(Clone, Debug)]
pub(super) struct LateRecord {
    /// The record as a segment. Its place in the file is not set.
    pub segment: RecordSegment,
    pub content: Vec<u8>,
}

/// Files with insertions that replace stored ones, and the offsets that they add to the directory.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Insertions {
    files: Vec<NewFile>,
    pub ranges: Vec<ReadRange>,
}

#[derive(Debug, Serialize, Deserialize)]
struct NewFile {
    temp: String,
    manifest: Manifest,
}

/// Returns the index of the segment before which a record belongs. `None` if there is no later record.
fn insertion_index(segments: &[RecordSegment], record: &RecordSegment) -> Option<usize> {
    let is_later = |segment: &RecordSegment| {
        segment.partition == record.partition
            && segment.topic == record.topic
            && segment.first_offset > record.first_offset
    };
    segments.iter().position(is_later)
}

/// Returns whether a record can be inserted into a file that consists of `segments` and starts with `head`. A re-send from
/// the start of a capture goes into another file, so nothing can be inserted around it.
pub(super) fn is_possible(segments: &[RecordSegment], bytes: u64, head: &[u8], record: &LateRecord) -> bool {
    let mut end = 0;
    let is_whole = segments.iter().all(|segment| {
        let follows = segment.at == end && !segment.compared && !segment.begins_capture;
        end += segment.bytes;
        follows
    });
    let Some(index) = insertion_index(segments, &record.segment) else { return false };
    let of_record = starts_capture(&record.content) == Some(true);
    let of_file = starts_capture(head) == Some(true);
    is_whole && end == bytes && if index == 0 { !of_file } else { !of_record }
}

impl Insertions {
    /// Writes a file anew with records inserted. `is_gap` tells whether offsets of a partition are missing.
    pub(super) fn add_file(
        &mut self,
        shared: &VaultInner,
        mut manifest: Manifest,
        mut records: Vec<LateRecord>,
        is_gap: &dyn Fn(&RecordSegment, &RecordSegment) -> bool,
    ) -> io::Result<&mut Manifest> {
        let file = manifest.file.clone();
        let temp = format!("{TEMP_PREFIX}{}", self.files.len());
        let source = shared.dir.open_to_read(&file)?;
        let target = shared.disk_retry.retry("create", &temp, || shared.dir.create_meta(&temp))?;
        let mut output = Output { shared, target, temp: &temp, scan: FileScan::new(shared.hash) };
        records.sort_by_key(|record| (record.segment.partition, record.segment.first_offset));
        let (count, inserted) =
            (records.len() as u64, records.iter().map(|record| record.segment.bytes).sum());
        let mut list = SegmentList::default();
        let mut last_of: BTreeMap<(String, i32), RecordSegment> = BTreeMap::new();
        let mut place = |segment: RecordSegment, at: u64, list: &mut SegmentList| {
            let key = (segment.topic.clone(), segment.partition);
            let before = last_of.get(&key);
            let after_gap = before.is_some_and(|before| is_gap(before, &segment));
            let segment = RecordSegment { at, after_gap, ..segment };
            last_of.insert(key, segment.clone());
            list.append_record(segment);
        };
        for (index, segment) in manifest.segments.iter().enumerate() {
            let here =
                |record: &&LateRecord| insertion_index(&manifest.segments, &record.segment) == Some(index);
            for record in records.iter().filter(here) {
                place(record.segment.clone(), output.scan.bytes(), &mut list);
                output.write(&record.content)?;
            }
            place(segment.clone(), output.scan.bytes(), &mut list);
            output.copy(&source, segment.at, segment.bytes)?;
        }
        let Output { scan, .. } = output;
        let (previous_bytes, previous_sha256) = (manifest.bytes, manifest.sha256.take());
        let at = rfc3339_now();
        manifest.add_insertion(Insertion {
            at,
            records: count,
            bytes: inserted,
            previous_bytes,
            previous_sha256,
        });
        manifest.bytes = scan.bytes();
        manifest.sha256 = scan.sha256();
        manifest.capture = scan.tracker.summary();
        manifest.resume_state = Some(resume_state::encode(&scan));
        manifest.segments = list.list;
        manifest.segments_omitted += list.omitted;
        log::info!("records_inserted file={file} records={count} bytes={inserted}");
        self.files.push(NewFile { temp, manifest });
        Ok(&mut self.files.last_mut().expect("it was added above").manifest)
    }

    /// Makes the new files and their list durable. From here on the insertion happens, whatever fails.
    pub(super) fn commit(&self, shared: &VaultInner) -> io::Result<()> {
        shared.dir.sync_all()?;
        let text = serde_json::to_vec(self)?;
        shared.disk_retry.retry("write", FILE, || shared.dir.meta_replace(FILE, &text).map(drop))
    }

    /// Replaces the files and their manifests. Can be interrupted at any point and repeated. [`remove`] completes it, after
    /// the offsets are in a checkpoint.
    pub(super) fn apply(&self, dir: &VaultDir) -> io::Result<()> {
        for NewFile { temp, manifest } in &self.files {
            dir.publish_meta(temp, &manifest.file)?;
            dir.write_manifest(manifest)?;
        }
        dir.sync_all()
    }

    /// Completes insertions that a crash interrupted, and removes those that were not committed. The checkpoint then has their
    /// offsets. Returns whether there were any.
    pub(super) fn complete(shared: &VaultInner, checkpoint: &mut Checkpoint) -> io::Result<bool> {
        let dir = &shared.dir;
        let Some(text) = dir.meta_read(FILE)? else {
            dir.remove_meta_files(TEMP_PREFIX)?;
            return Ok(false);
        };
        let insertions: Insertions = serde_json::from_slice(&text)?;
        // Names have no slash, so a forged list cannot point outside the directory.
        let is_name = |name: &str| !name.contains('/') && !name.starts_with('.');
        if !insertions
            .files
            .iter()
            .all(|new| is_name(&new.manifest.file) && new.temp.starts_with(TEMP_PREFIX))
        {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the list of insertions names other files",
            ));
        }
        insertions.apply(dir)?;
        for new in &insertions.files {
            // The length of the file before the insertion.
            checkpoint.files.remove(&new.manifest.file);
        }
        checkpoint.reads.extend(insertions.ranges);
        Ok(true)
    }
}

/// Removes the list, after a checkpoint has the offsets.
pub(super) fn remove(dir: &VaultDir) -> io::Result<()> {
    dir.meta_remove(FILE)
}

/// A new file.
struct Output<'a> {
    shared: &'a VaultInner,
    target: File,
    temp: &'a str,
    scan: FileScan,
}

impl Output<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let at = self.scan.bytes();
        let target = &mut self.target;
        self.shared.disk_retry.retry("write", self.temp, || {
            // After a full disk, what was written of these bytes is written again.
            target.set_len(at)?;
            io::Seek::seek(target, io::SeekFrom::Start(at))?;
            target.write_all(bytes)
        })?;
        self.scan.feed(bytes);
        Ok(())
    }

    fn copy(&mut self, source: &File, mut at: u64, bytes: u64) -> io::Result<()> {
        let end = at + bytes;
        let mut buffer = self.shared.pool.take(BufferSize::Scratch);
        while at < end {
            let some = buffer.len().min(usize::try_from(end - at).unwrap_or(usize::MAX));
            source.read_exact_at(&mut buffer[..some], at)?;
            self.write(&buffer[..some])?;
            at += some as u64;
        }
        Ok(())
    }
}
