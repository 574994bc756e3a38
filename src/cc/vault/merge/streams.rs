//! Writes the streams of all members to the output. A stream that only one member has is copied. Other
//! streams are rebuilt by the same rules by which a vault accepts records and re-sends.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::sync::Arc;

use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::member_dir::{MemberDir, StoredFile};
use super::merge_order::{self, SegmentRef};
use super::plan::{MergePlan, PartitionKey};
use super::{MergeProblem, MergedStream};
use crate::capture::formats::{HEADER_BYTES_MAX, is_same_capture};
use crate::cc::vault::chains::{self, ChainLink};
use crate::cc::vault::dir::VaultDir;
use crate::cc::vault::ledger::DEAD_LETTERS_FILE;
use crate::cc::vault::manifest::{EndReason, Manifest, ManifestState, RecordSegment};
use crate::cc::vault::pool::BufferSize;
use crate::cc::vault::scan::FileScan;
use crate::cc::vault::segments::SegmentList;
use crate::cc::vault::stream_table::NoPeer;
use crate::cc::vault::{StreamOrigin, StreamStart, StreamWriter, Vault};
use crate::cc::wire::name::file_name;
use crate::runtime::time::now_ms;
use crate::{Error, Result};

/// State of a merge.
pub(super) struct Merger<'a> {
    pub dirs: &'a [MemberDir],
    /// Whose records are used.
    pub plans: &'a BTreeMap<PartitionKey, MergePlan>,
    /// Incarnations of topics, in order.
    pub generations: &'a BTreeMap<(String, Option<String>), usize>,
    /// Output directory.
    pub dir: &'a VaultDir,
    /// Vault that writes the output.
    pub vault: &'a Vault,
    /// Whether files are hashed.
    pub hash: bool,
    pub problems: Vec<MergeProblem>,
    /// Called with the number of bytes read so far.
    pub progress: &'a mut dyn FnMut(u64),
    /// Bytes read so far.
    pub read_bytes: u64,
}

/// Index of a member's directory and a file in it.
type DirFile<'a> = (usize, &'a StoredFile);

impl<'a> Merger<'a> {
    /// Writes all streams. Returns each one with the name of its first file.
    pub(super) fn merge_streams(&mut self) -> Result<Vec<(String, MergedStream)>> {
        let mut by_name: BTreeMap<&'a [u8], Vec<DirFile<'a>>> = BTreeMap::new();
        for (number, member) in self.dirs.iter().enumerate() {
            for file in &member.files {
                by_name.entry(&file.name).or_default().push((number, file));
            }
        }
        let mut streams = Vec::with_capacity(by_name.len());
        for (name, files) in by_name {
            streams.push((file_name(name), self.merge_stream(name, &files)?));
        }
        Ok(streams)
    }

    fn merge_stream(&mut self, name: &[u8], files: &[DirFile<'a>]) -> Result<MergedStream> {
        let members: HashSet<usize> = files.iter().map(|(member, _)| *member).collect();
        let is_out = |(member, file): &DirFile<'_>| {
            let segments = file.segments();
            segments
                .iter()
                .filter(|segment| !self.is_owned(*member, segment))
                .map(|out| out.bytes)
                .sum::<u64>()
        };
        let omitted_bytes: u64 = files.iter().map(is_out).sum();
        let is_joined = members.len() > 1 || omitted_bytes > 0;
        if is_joined {
            self.join_files(name, files)?;
        } else {
            for (member, file) in files.iter().filter(|(_, file)| !file.is_compared) {
                self.copy_file(*member, file)?;
            }
        }
        Ok(MergedStream { files: Vec::new(), bytes: 0, dirs: members.len(), is_joined, omitted_bytes })
    }

    fn is_owned(&self, member: usize, segment: &RecordSegment) -> bool {
        let plan = self.plans.get(&PartitionKey::of_segment(segment));
        plan.is_none_or(|plan| plan.owns(member, segment.first_offset, segment.next_offset))
    }

    /// Copies a file that no other member has, and its manifest.
    fn copy_file(&mut self, member: usize, file: &StoredFile) -> Result<()> {
        let from = &self.dirs[member].dir;
        let target = &file.manifest.file;
        let cannot = || Error::path("copy", from.path().join(target));
        let source_file = from.open_to_read(target).map_err(cannot())?;
        let copy = self.dir.create(target).map_err(Error::path("create", self.dir.path().join(target)))?;
        let mut copy = fs::File::from(copy);
        let mut scan = FileScan::new(self.hash);
        let mut buffer = self.vault.pool().take(BufferSize::Scratch);
        while scan.bytes() < file.len() {
            let bytes = file.read_at(&source_file, &mut buffer, scan.bytes()).map_err(cannot())?;
            scan.feed(&buffer[..bytes]);
            copy.write_all(&buffer[..bytes]).map_err(Error::path("write", self.dir.path().join(target)))?;
            self.report_progress(bytes as u64);
        }
        let mut manifest = file.manifest.clone();
        let differs = matches!((&manifest.sha256, scan.sha256()), (Some(was), Some(is)) if *was != is);
        if file.is_closed && differs {
            self.add_problem(member, target, "its SHA-256 differs from its manifest");
        }
        if !file.is_closed || differs {
            manifest.state = ManifestState::Recovered;
        }
        manifest.bytes = scan.bytes();
        manifest.capture = scan.tracker.summary();
        manifest.sha256 = scan.sha256();
        let written = self.dir.write_manifest(&manifest);
        written.map_err(Error::path("write the manifest of", self.dir.path().join(target)))
    }

    /// Rebuilds a stream: Kafka records in merge order, files from other sources as re-sends.
    fn join_files(&mut self, name: &[u8], files: &[DirFile<'a>]) -> Result<()> {
        let is_kafka = |(_, file): &&DirFile<'a>| file.manifest.source.is_kafka();
        let others: Vec<DirFile<'a>> = files.iter().filter(|file| !is_kafka(file)).copied().collect();
        for of_member in others.chunk_by(|(one, _), (other, _)| one == other) {
            self.join_rotated(name, of_member)?;
        }
        let files: Vec<DirFile<'a>> = files.iter().filter(is_kafka).copied().collect();
        let mut output: Option<OutputStream> = None;
        let mut head = Vec::new();
        let segments: Vec<Vec<RecordSegment>> = files.iter().map(|(_, file)| file.segments()).collect();
        for segment_ref in self.ordered_segments(&files, &segments) {
            let (member, file) = files[segment_ref.file];
            let segment = &segments[segment_ref.file][segment_ref.segment];
            let start = self.read_start(member, file, segment)?;
            if head.len() < HEADER_BYTES_MAX {
                head.extend_from_slice(&start[..start.len().min(HEADER_BYTES_MAX - head.len())]);
            } else if is_same_capture(&head, &start)
                && let Some(previous) = output.take()
            {
                // A re-send, by the same rule as in the ledger.
                previous.finish();
                output = Some(OutputStream::open(
                    self.vault,
                    name,
                    &file.manifest,
                    Some(StreamStart::NewCapture),
                )?);
            }
            let mut current = match output.take() {
                Some(current) => current,
                None => OutputStream::open(self.vault, name, &file.manifest, None)?,
            };
            let at = current.writer.received_bytes();
            self.feed(&mut current, member, file, segment.at..segment.at + segment.bytes)?;
            current.add_segment(RecordSegment {
                at,
                compared: false,
                begins_capture: false,
                ..segment.clone()
            });
            output = Some(current);
        }
        match output {
            Some(output) => output.finish(),
            // A file exists but none of its records is used: the output is an empty file.
            None => {
                if let Some((_, file)) = files.first() {
                    OutputStream::open(self.vault, name, &file.manifest, None)?.finish();
                }
            }
        }
        Ok(())
    }

    /// Sends the streams of one directory again, each as one file, also if rotations had cut it.
    fn join_rotated(&mut self, name: &[u8], files: &[DirFile<'a>]) -> Result<()> {
        let links: Vec<ChainLink<'_>> =
            files.iter().map(|(_, file)| ChainLink { manifest: &file.manifest, bytes: file.len() }).collect();
        for chain in chains::chains(&links) {
            let (member, first) = files[chain[0]];
            if first.manifest.rotation.is_some() {
                self.add_problem(
                    member,
                    &first.manifest.file,
                    "the part that it continues is missing or has changed",
                );
            }
            let start = Some(StreamStart::NewCapture);
            let mut output = OutputStream::open(self.vault, name, &first.manifest, start)?;
            self.feed(&mut output, member, first, 0..first.len())?;
            for (member, file) in chain[1..].iter().map(|at| files[*at]) {
                self.feed(&mut output, member, file, file.manifest.header_bytes()..file.len())?;
            }
            output.finish();
        }
        Ok(())
    }

    /// Returns the segments to use, in merge order.
    fn ordered_segments(&self, files: &[DirFile<'a>], segments: &[Vec<RecordSegment>]) -> Vec<SegmentRef> {
        let mut topics: Vec<&String> = self.generations.keys().map(|(topic, _)| topic).collect();
        topics.dedup();
        let segment_ref = |file: usize, at: usize, segment: &RecordSegment| {
            let incarnation = (segment.topic.clone(), segment.topic_id.clone());
            SegmentRef {
                file,
                segment: at,
                generation: self.generations.get(&incarnation).copied().unwrap_or(0),
                topic: topics.binary_search(&&segment.topic).unwrap_or(topics.len()),
                partition: segment.partition,
                first_offset: segment.first_offset,
            }
        };
        let of_file = |file: usize| -> Vec<SegmentRef> {
            let owned = segments[file].iter().enumerate();
            let owned = owned.filter(|(_, segment)| self.is_owned(files[file].0, segment));
            owned.map(|(at, segment)| segment_ref(file, at, segment)).collect()
        };
        merge_order::interleave((0..files.len()).map(of_file).collect())
    }

    /// Reads the first bytes of a segment.
    fn read_start(&self, member: usize, file: &StoredFile, segment: &RecordSegment) -> Result<Vec<u8>> {
        let from = &self.dirs[member].dir;
        let mut start =
            vec![0; HEADER_BYTES_MAX.min(usize::try_from(segment.bytes).unwrap_or(HEADER_BYTES_MAX))];
        let mut filled = 0;
        let mut read = || -> io::Result<usize> {
            let source_file = from.open_to_read(&file.manifest.file)?;
            while filled < start.len() {
                match file.read_at(&source_file, &mut start[filled..], segment.at + filled as u64)? {
                    0 => break,
                    bytes => filled += bytes,
                }
            }
            Ok(filled)
        };
        let filled = read().map_err(Error::path("read", from.path().join(&file.manifest.file)))?;
        start.truncate(filled);
        Ok(start)
    }

    fn feed(
        &mut self,
        output: &mut OutputStream,
        member: usize,
        file: &StoredFile,
        range: std::ops::Range<u64>,
    ) -> Result<()> {
        let from = &self.dirs[member].dir;
        let cannot = || Error::path("copy", from.path().join(&file.manifest.file));
        let source_file = from.open_to_read(&file.manifest.file).map_err(cannot())?;
        let mut at = range.start;
        while at < range.end {
            let left = usize::try_from(range.end - at).unwrap_or(usize::MAX);
            let size = if left > BufferSize::Small.bytes() { BufferSize::Large } else { BufferSize::Small };
            let mut buffer = self.vault.pool().take(size);
            let most = left.min(buffer.len());
            let bytes = file.read_at(&source_file, &mut buffer[..most], at).map_err(cannot())?;
            if bytes == 0 {
                self.add_problem(member, &file.manifest.file, "it is shorter than its records");
                return Ok(());
            }
            output.writer.feed(buffer, bytes).map_err(cannot())?;
            at += bytes as u64;
            self.report_progress(bytes as u64);
        }
        Ok(())
    }

    /// Merges the dead letters. A line that several members have is written once.
    pub(super) fn merge_dead_letters(&mut self) -> Result<u64> {
        #[derive(Deserialize)]
        struct Known {
            offset: Option<i64>,
        }
        let mut seen = HashSet::new();
        let (mut dead_letters, mut line_count) = (None, 0);
        for member in self.dirs {
            let cannot = || Error::path("merge the dead letters of", member.dir.path());
            let Some(found) = member.dir.open_meta(DEAD_LETTERS_FILE).map_err(cannot())? else { continue };
            let mut found = BufReader::new(found.take(member.dead_letter_bytes.unwrap_or(u64::MAX)));
            let mut line = Vec::new();
            while found.read_until(b'\n', &mut line).map_err(cannot())? > 0 {
                // Compares whole lines: the same offset of another incarnation of the topic is another
                // record.
                let known = serde_json::from_slice(&line).ok().and_then(|known: Known| known.offset);
                if known.is_none() || seen.insert(<[u8; 32]>::from(Sha256::digest(&line))) {
                    let file = match dead_letters.take() {
                        Some(file) => Ok(file),
                        None => self.dir.meta_append(DEAD_LETTERS_FILE),
                    };
                    let mut file: fs::File = file.map_err(cannot())?;
                    file.write_all(&line).map_err(cannot())?;
                    dead_letters = Some(file);
                    line_count += 1;
                }
                line.clear();
            }
        }
        Ok(line_count)
    }

    fn report_progress(&mut self, bytes: u64) {
        self.read_bytes += bytes;
        (self.progress)(self.read_bytes);
    }

    fn add_problem(&mut self, member: usize, file: &str, reason: &str) {
        let member = self.dirs[member].dir.path().to_owned();
        self.problems.push(MergeProblem { dir: member, file: file.to_owned(), reason: reason.to_owned() });
    }
}

/// A stream that is written to the output.
struct OutputStream {
    writer: StreamWriter,
    segments: SegmentList,
    was_comparing: bool,
}

impl OutputStream {
    /// Opens a stream. With `head` it is a re-send; otherwise it continues what is stored.
    fn open(vault: &Vault, name: &[u8], from: &Manifest, head: Option<StreamStart>) -> Result<OutputStream> {
        let failed = || Error::system("store a stream");
        let first = from.connections.first();
        let origin = StreamOrigin {
            source: from.source,
            peer: first.map_or_else(|| "merge".to_owned(), |first| first.peer.clone()),
            raw_name: None,
            connected_ms: now_ms(),
        };
        let pending = vault.open_stream(name, origin, Arc::new(NoPeer), || false).map_err(failed())?;
        let writer = pending.start(head.unwrap_or(StreamStart::Continuation)).map_err(failed())?;
        let segments = SegmentList::new(writer.segments());
        let was_comparing = writer.compared_bytes().is_some();
        Ok(OutputStream { writer, segments, was_comparing })
    }

    /// Adds the segment whose bytes were fed last.
    fn add_segment(&mut self, segment: RecordSegment) {
        self.segments.append(vec![segment]);
        if self.was_comparing && self.writer.compared_bytes().is_none() {
            self.was_comparing = false;
            self.segments.continue_stored(self.writer.segments());
        }
    }

    fn finish(self) {
        let OutputStream { mut writer, segments, .. } = self;
        if !segments.list.is_empty() {
            writer.set_segments(segments);
        }
        writer.finish(EndReason::Eof);
    }
}
