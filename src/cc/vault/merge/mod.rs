//! Folders of the members of a group into one: each record once, in one exact file a stream. Runs in the thread of
//! whoever asks; the files are written by a vault of its own.
//!
//! Invariants: what is read is never changed, and no process writes to it meanwhile. The output appears whole or not at
//! all: it is made beside its place, under a name of its own, and put there at the end. What was killed in the middle
//! is thrown away by the next one.

mod folder;
mod plan;
mod weave;

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::checkpoint::{self, Checkpoint, PartitionState, ReadRange};
use super::dir::{OWN_DIR, VaultDir};
use super::ledger::{DEAD_LETTERS, HEAD_BYTES, is_same_head};
use super::manifest::{EndReason, Manifest, Segment, Source, State};
use super::pool::Size;
use super::scan::Scan;
use super::segments::Segments;
use super::time::{now_ms, now_rfc3339};
use super::{Access, Head, Intake, Origin, Probe, Vault, VaultConfig};
use crate::cc::frame::name::{file_name, part_file_name};
use crate::counters::Counters;
use crate::{Error, Result};
use folder::{Folder, StoredFile};
use plan::{Key, Plan, Share};
use weave::Piece;

/// Stands behind the output's name while it is made.
const UNFINISHED: &str = ".lea-merge";

/// Marks a folder as one that a merge makes.
const MARK: &str = "merging";

/// What to put together.
#[derive(Clone, Debug)]
pub struct MergeConfig {
    /// The folders.
    pub dirs: Vec<PathBuf>,
    /// The folder to make.
    pub output: PathBuf,
    /// Who may read what is stored.
    pub access: Access,
    /// Whether files are hashed.
    pub hash: bool,
    /// Descriptors that may be used for files.
    pub descriptors: usize,
}

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The folder that was read.
    pub folder: PathBuf,
    /// The file in it; empty where it is none.
    pub file: String,
    /// What is wrong.
    pub what: String,
}

/// Offsets that no folder has read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissingRange {
    /// The topic.
    pub topic: String,
    /// Its id, where the broker told it.
    pub topic_id: Option<String>,
    /// The partition.
    pub partition: i32,
    /// The first; none where it is only known that some were read before.
    pub first_offset: Option<i64>,
    /// The offset after the last one.
    pub next_offset: i64,
}

/// A stream of the output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stream {
    /// Its files, the parts in order.
    pub files: Vec<String>,
    /// Bytes of them.
    pub bytes: u64,
    /// In how many folders it was.
    pub folders: usize,
    /// True if it was put together anew; else its files are copies.
    pub joined: bool,
    /// Bytes that were left out because another folder's count.
    pub cut_bytes: u64,
}

/// What became of it all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Merged {
    /// By name.
    pub streams: Vec<Stream>,
    /// What nobody has.
    pub missing: Vec<MissingRange>,
    /// What else is wrong.
    pub problems: Vec<Problem>,
    /// Dead letters put together.
    pub dead_letters: u64,
}

/// Puts folders together. `progress` is told bytes read and bytes in all.
pub fn merge(config: &MergeConfig, progress: &mut dyn FnMut(u64, u64)) -> Result<Merged> {
    check_dirs(config)?;
    let mut merged = Merged::default();
    let folders = config.dirs.iter().map(|dir| Folder::open(dir, &mut merged.problems));
    let folders: Vec<Folder> = folders.collect::<Result<_>>()?;
    let ranges: Vec<&ReadRange> = folders.iter().flat_map(|folder| &folder.reads).collect();
    let generations = plan::generations(&ranges);
    let plans = plans(&folders);
    report(&folders, &plans, &mut merged);
    let unfinished = begin_output(&config.output, config.access)?;
    let vault_config = VaultConfig {
        dir: unfinished.clone(),
        access: config.access,
        hash: config.hash,
        pending_bytes_max: 64 << 20,
        descriptors: config.descriptors,
        free_bytes_min: 0,
        sync_interval: Duration::from_secs(1),
    };
    let (vault, threads) = Vault::spawn(&vault_config, Arc::new(Counters::default()))?;
    // A batch does not wait for a full disk: it ends, and can be done again.
    vault.give_up_at(Instant::now());
    let dir = Arc::clone(&vault.shared.dir);
    let all_bytes = folders.iter().flat_map(|folder| &folder.files).map(StoredFile::len).sum();
    let mut merging = Merging {
        folders: &folders,
        plans: &plans,
        generations: &generations,
        dir: &dir,
        vault: &vault,
        hash: config.hash,
        problems: Vec::new(),
        progress: &mut |bytes| progress(bytes, all_bytes),
        read_bytes: 0,
    };
    let streams = merging.streams()?;
    merged.dead_letters = merging.dead_letters()?;
    merged.problems.append(&mut merging.problems);
    let failed = || Error::path("write to", &unfinished);
    let checkpoint = checkpoint_of(&plans, &generations, &folders);
    checkpoint::replace(&dir, &checkpoint).map_err(failed())?;
    drop(vault);
    let losses = threads.join()?;
    if !losses.is_none() {
        let full = io::Error::other("some of it could not be written; the log says why");
        return Err(failed()(full));
    }
    merged.list(&dir, streams).map_err(failed())?;
    finish_output(&dir, &unfinished, &config.output)?;
    Ok(merged)
}

/// Each folder once.
fn check_dirs(config: &MergeConfig) -> Result<()> {
    let mut seen = HashSet::new();
    for dir in &config.dirs {
        let is = fs::canonicalize(dir).map_err(Error::path("open the folder", dir))?;
        if !seen.insert(is) {
            return Err(Error::Usage(format!("{} is named twice", dir.display())));
        }
    }
    Ok(())
}

/// Makes the folder that becomes the output.
fn begin_output(output: &Path, access: Access) -> Result<PathBuf> {
    let entries = match fs::read_dir(output) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        entries => Some(entries.map_err(Error::path("look into", output))?),
    };
    if entries.is_some_and(|mut entries| entries.next().is_some()) {
        let reason = format!("{} is not empty; choose another --output", output.display());
        return Err(Error::Usage(reason));
    }
    let Some(name) = output.file_name() else {
        return Err(Error::Usage(format!("{} is no name for a new folder", output.display())));
    };
    let mut name = name.to_owned();
    name.push(UNFINISHED);
    let unfinished = output.with_file_name(name);
    match fs::symlink_metadata(&unfinished) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(Error::path("look at", &unfinished)(error)),
        Ok(found) if found.is_dir() && is_unfinished(&unfinished) => {
            // Held by a merge that runs: this fails.
            drop(VaultDir::open(&unfinished, Access::PRIVATE)?);
            log::warn!("unfinished_merge_removed dir={unfinished:?}");
            fs::remove_dir_all(&unfinished).map_err(Error::path("remove", &unfinished))?;
        }
        Ok(_) => {
            let reason = format!("{} is in the way, and no merge made it", unfinished.display());
            return Err(Error::Usage(reason));
        }
    }
    let made = VaultDir::open(&unfinished, access)?;
    made.own_append(MARK).map_err(Error::path("write to", &unfinished))?;
    Ok(unfinished)
}

/// True for what a merge made, and also for what it had only begun to make.
fn is_unfinished(dir: &Path) -> bool {
    let is_own = |entry: io::Result<fs::DirEntry>| entry.is_ok_and(|entry| entry.file_name() == OWN_DIR);
    let is_marked = dir.join(OWN_DIR).join(MARK).symlink_metadata().is_ok_and(|mark| mark.is_file());
    is_marked || fs::read_dir(dir).is_ok_and(|mut entries| entries.all(is_own))
}

/// All is written: puts the output into its place.
fn finish_output(dir: &VaultDir, unfinished: &Path, output: &Path) -> Result<()> {
    let failed = || Error::path("put in its place", output);
    dir.own_remove(MARK).and_then(|()| dir.sync_all()).map_err(Error::path("sync", unfinished))?;
    fs::rename(unfinished, output).map_err(failed())?;
    let above = output.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::File::open(above).and_then(|above| above.sync_all()).map_err(failed())
}

fn plans(folders: &[Folder]) -> BTreeMap<Key, Plan> {
    let mut shares: BTreeMap<Key, BTreeMap<usize, Share>> = BTreeMap::new();
    for (number, folder) in folders.iter().enumerate() {
        for range in &folder.reads {
            let share = shares.entry(Key::of_range(range)).or_default().entry(number).or_default();
            share.reads.push((range.first_offset, range.next_offset, range.taken_over));
        }
        for segment in folder.files.iter().flat_map(|file| &file.manifest.segments) {
            let share = shares.entry(Key::of(segment)).or_default().entry(number).or_default();
            share.segments.push((segment.first_offset, segment.next_offset));
        }
    }
    shares.into_iter().map(|(key, shares)| (key, plan::plan(&shares))).collect()
}

fn report(folders: &[Folder], plans: &BTreeMap<Key, Plan>, merged: &mut Merged) {
    for (key, plan) in plans {
        merged.missing.extend(plan.missing.iter().map(|missing| MissingRange {
            topic: key.topic.clone(),
            topic_id: key.topic_id.clone(),
            partition: key.partition,
            first_offset: missing.first,
            next_offset: missing.next,
        }));
        merged.problems.extend(plan.uncut.iter().map(|uncut| Problem {
            folder: folders[uncut.folder].dir.path().to_owned(),
            file: String::new(),
            what: format!(
                "{}-{}: it had no checkpoint at offset {}, where another one went on: records may be in twice",
                key.topic, key.partition, uncut.offset
            ),
        }));
    }
}

/// What the output has read, so that it can be merged with others, and a consumer can go on with it.
fn checkpoint_of(
    plans: &BTreeMap<Key, Plan>,
    generations: &BTreeMap<(String, Option<String>), usize>,
    folders: &[Folder],
) -> Checkpoint {
    let generation = |key: &Key| generations.get(&(key.topic.clone(), key.topic_id.clone()));
    let mut last: BTreeMap<(&str, i32), (Option<&usize>, ReadRange)> = BTreeMap::new();
    let mut checkpoint = Checkpoint::default();
    for (key, plan) in plans {
        let mut ranges: Vec<ReadRange> = Vec::new();
        for owned in &plan.owned {
            if let Some(before) = ranges.last_mut().filter(|before| before.next_offset == owned.first) {
                before.next_offset = owned.next;
                continue;
            }
            let told = folders.iter().flat_map(|folder| &folder.reads);
            let mut told = told.filter(|range| Key::of_range(range) == *key);
            let begin = told.find(|range| range.first_offset == owned.first);
            ranges.push(ReadRange {
                topic: key.topic.clone(),
                topic_id: key.topic_id.clone(),
                partition: key.partition,
                first_offset: owned.first,
                next_offset: owned.next,
                taken_over: begin.is_some_and(|begin| begin.taken_over),
                since: begin.map(|begin| begin.since.clone()).unwrap_or_default(),
            });
        }
        let newest = ranges.pop();
        checkpoint.reads.append(&mut ranges);
        let Some(newest) = newest else { continue };
        let of = (generation(key), newest);
        match last.remove(&(key.topic.as_str(), key.partition)) {
            Some(other) if other.0 > of.0 => {
                checkpoint.reads.push(of.1);
                last.insert((&key.topic, key.partition), other);
            }
            other => {
                checkpoint.reads.extend(other.map(|other| other.1));
                last.insert((&key.topic, key.partition), of);
            }
        }
    }
    checkpoint.partitions = last.into_values().map(|(_, range)| PartitionState::from(range)).collect();
    checkpoint
}

struct Merging<'a> {
    folders: &'a [Folder],
    plans: &'a BTreeMap<Key, Plan>,
    generations: &'a BTreeMap<(String, Option<String>), usize>,
    dir: &'a VaultDir,
    vault: &'a Vault,
    hash: bool,
    problems: Vec<Problem>,
    progress: &'a mut dyn FnMut(u64),
    read_bytes: u64,
}

/// A file and the folder that it is in.
type Of<'a> = (usize, &'a StoredFile);

/// Nobody waits for the end of a stream that is copied.
struct NoPeer;

impl Probe for NoPeer {
    fn probe(&self, _: bool) {}
}

impl<'a> Merging<'a> {
    /// Writes all streams; gives the names of their first files beside what is known of them.
    fn streams(&mut self) -> Result<Vec<(String, Stream)>> {
        let mut by_name: BTreeMap<&'a [u8], Vec<Of<'a>>> = BTreeMap::new();
        for (number, folder) in self.folders.iter().enumerate() {
            for file in &folder.files {
                by_name.entry(&file.name).or_default().push((number, file));
            }
        }
        let mut streams = Vec::with_capacity(by_name.len());
        for (name, files) in by_name {
            streams.push((file_name(name), self.stream(name, &files)?));
        }
        Ok(streams)
    }

    fn stream(&mut self, name: &[u8], files: &[Of<'a>]) -> Result<Stream> {
        let folders: HashSet<usize> = files.iter().map(|(folder, _)| *folder).collect();
        let is_out = |(folder, file): &Of<'_>| {
            let segments = file.segments();
            segments.iter().filter(|segment| !self.counts(*folder, segment)).map(|out| out.bytes).sum::<u64>()
        };
        let cut_bytes: u64 = files.iter().map(is_out).sum();
        let joined = folders.len() > 1 || cut_bytes > 0;
        if joined {
            self.join(name, files)?;
        } else {
            for (folder, file) in files.iter().filter(|(_, file)| !file.compared) {
                self.copy(*folder, file)?;
            }
        }
        Ok(Stream { files: Vec::new(), bytes: 0, folders: folders.len(), joined, cut_bytes })
    }

    fn counts(&self, folder: usize, segment: &Segment) -> bool {
        let plan = self.plans.get(&Key::of(segment));
        plan.is_none_or(|plan| plan.counts(folder, segment.first_offset, segment.next_offset))
    }

    /// Copies a file that no other folder has, and its manifest.
    fn copy(&mut self, folder: usize, file: &StoredFile) -> Result<()> {
        let from = &self.folders[folder].dir;
        let target = &file.manifest.file;
        let cannot = || Error::path("copy", from.path().join(target));
        let opened = from.open_to_read(target).map_err(cannot())?;
        let made = self.dir.create(target).map_err(Error::path("make", self.dir.path().join(target)))?;
        let mut made = fs::File::from(made);
        let mut scan = Scan::new(self.hash);
        let mut buffer = self.vault.pool().take(Size::Scratch);
        while scan.bytes() < file.len() {
            let some = file.read_at(&opened, &mut buffer, scan.bytes()).map_err(cannot())?;
            scan.feed(&buffer[..some]);
            made.write_all(&buffer[..some]).map_err(Error::path("write", self.dir.path().join(target)))?;
            self.step(some as u64);
        }
        let mut manifest = file.manifest.clone();
        let differs = matches!((&manifest.sha256, scan.sha256()), (Some(was), Some(is)) if *was != is);
        if file.closed && differs {
            self.problem(folder, target, "its bytes are not those that its manifest has the SHA-256 of");
        }
        if !file.closed || differs {
            manifest.state = State::Recovered;
        }
        manifest.bytes = scan.bytes();
        manifest.capture = scan.follower.summary();
        manifest.sha256 = scan.sha256();
        let written = self.dir.write_manifest(&manifest);
        written.map_err(Error::path("write the manifest of", self.dir.path().join(target)))
    }

    /// Puts a stream together anew: what came over TCP as the vault takes a re-send, records one after the other.
    fn join(&mut self, name: &[u8], files: &[Of<'a>]) -> Result<()> {
        let of = |source| move |(_, file): &&Of<'a>| file.manifest.source == source;
        for (folder, file) in files.iter().filter(of(Source::Tcp)) {
            let mut sending = Sending::begin(self.vault, name, &file.manifest, Some(Head::Capture))?;
            self.feed(&mut sending, *folder, file, 0..file.len())?;
            sending.finish();
        }
        let files: Vec<Of<'a>> = files.iter().filter(of(Source::Kafka)).copied().collect();
        let mut sending: Option<Sending> = None;
        let mut head = Vec::new();
        let segments: Vec<Vec<Segment>> = files.iter().map(|(_, file)| file.segments()).collect();
        for piece in self.pieces(&files, &segments) {
            let (folder, file) = files[piece.file];
            let segment = &segments[piece.file][piece.segment];
            let begin = self.begin_of(folder, file, segment)?;
            if head.len() < HEAD_BYTES {
                head.extend_from_slice(&begin[..begin.len().min(HEAD_BYTES - head.len())]);
            } else if is_same_head(&head, &begin)
                && let Some(done) = sending.take()
            {
                // Sent again from its start, as the ledger sees it.
                done.finish();
                sending = Some(Sending::begin(self.vault, name, &file.manifest, Some(Head::Capture))?);
            }
            let mut current = match sending.take() {
                Some(current) => current,
                None => Sending::begin(self.vault, name, &file.manifest, None)?,
            };
            let at = current.intake.received();
            self.feed(&mut current, folder, file, segment.at..segment.at + segment.bytes)?;
            current.note(Segment { at, compared: false, begins_capture: false, ..segment.clone() });
            sending = Some(current);
        }
        match sending {
            Some(sending) => sending.finish(),
            // Its file was made, and no record counts: an empty one.
            None => {
                if let Some((_, file)) = files.first() {
                    Sending::begin(self.vault, name, &file.manifest, None)?.finish();
                }
            }
        }
        Ok(())
    }

    /// What counts of the files, in order.
    fn pieces(&self, files: &[Of<'a>], segments: &[Vec<Segment>]) -> Vec<Piece> {
        let mut topics: Vec<&String> = self.generations.keys().map(|(topic, _)| topic).collect();
        topics.dedup();
        let piece = |file: usize, at: usize, segment: &Segment| {
            let life = (segment.topic.clone(), segment.topic_id.clone());
            Piece {
                file,
                segment: at,
                generation: self.generations.get(&life).copied().unwrap_or(0),
                topic: topics.binary_search(&&segment.topic).unwrap_or(topics.len()),
                partition: segment.partition,
                first_offset: segment.first_offset,
            }
        };
        let of_file = |file: usize| -> Vec<Piece> {
            let counted = segments[file].iter().enumerate();
            let counted = counted.filter(|(_, segment)| self.counts(files[file].0, segment));
            counted.map(|(at, segment)| piece(file, at, segment)).collect()
        };
        weave::weave((0..files.len()).map(of_file).collect())
    }

    /// The first bytes of a segment.
    fn begin_of(&self, folder: usize, file: &StoredFile, segment: &Segment) -> Result<Vec<u8>> {
        let from = &self.folders[folder].dir;
        let mut begin = vec![0; HEAD_BYTES.min(usize::try_from(segment.bytes).unwrap_or(HEAD_BYTES))];
        let mut filled = 0;
        let mut read = || -> io::Result<usize> {
            let opened = from.open_to_read(&file.manifest.file)?;
            while filled < begin.len() {
                match file.read_at(&opened, &mut begin[filled..], segment.at + filled as u64)? {
                    0 => break,
                    some => filled += some,
                }
            }
            Ok(filled)
        };
        let filled = read().map_err(Error::path("read", from.path().join(&file.manifest.file)))?;
        begin.truncate(filled);
        Ok(begin)
    }

    fn feed(
        &mut self,
        sending: &mut Sending,
        folder: usize,
        file: &StoredFile,
        range: std::ops::Range<u64>,
    ) -> Result<()> {
        let from = &self.folders[folder].dir;
        let cannot = || Error::path("copy", from.path().join(&file.manifest.file));
        let opened = from.open_to_read(&file.manifest.file).map_err(cannot())?;
        let mut at = range.start;
        while at < range.end {
            let left = usize::try_from(range.end - at).unwrap_or(usize::MAX);
            let size = if left > Size::Small.bytes() { Size::Large } else { Size::Small };
            let mut buffer = self.vault.pool().take(size);
            let most = left.min(buffer.len());
            let some = file.read_at(&opened, &mut buffer[..most], at).map_err(cannot())?;
            if some == 0 {
                self.problem(
                    folder,
                    &file.manifest.file,
                    "it is shorter than the records that it is made of",
                );
                return Ok(());
            }
            sending.intake.feed(buffer, some).map_err(cannot())?;
            at += some as u64;
            self.step(some as u64);
        }
        Ok(())
    }

    /// Puts the dead letters together; what stands in several folders, once.
    fn dead_letters(&mut self) -> Result<u64> {
        #[derive(Deserialize)]
        struct Known {
            offset: Option<i64>,
        }
        let mut seen = HashSet::new();
        let (mut letters, mut kept) = (None, 0);
        for folder in self.folders {
            let cannot = || Error::path("put together the dead letters of", folder.dir.path());
            let Some(found) = folder.dir.own(DEAD_LETTERS).map_err(cannot())? else { continue };
            let mut found = BufReader::new(found.take(folder.dead_letter_bytes.unwrap_or(u64::MAX)));
            let mut line = Vec::new();
            while found.read_until(b'\n', &mut line).map_err(cannot())? > 0 {
                // The same offset of another life of the topic is another record, so the whole line tells.
                let known = serde_json::from_slice(&line).ok().and_then(|known: Known| known.offset);
                if known.is_none() || seen.insert(<[u8; 32]>::from(Sha256::digest(&line))) {
                    let file = match letters.take() {
                        Some(file) => Ok(file),
                        None => self.dir.own_append(DEAD_LETTERS),
                    };
                    let mut file: fs::File = file.map_err(cannot())?;
                    file.write_all(&line).map_err(cannot())?;
                    letters = Some(file);
                    kept += 1;
                }
                line.clear();
            }
        }
        Ok(kept)
    }

    fn step(&mut self, bytes: u64) {
        self.read_bytes += bytes;
        (self.progress)(self.read_bytes);
    }

    fn problem(&mut self, folder: usize, file: &str, what: &str) {
        let folder = self.folders[folder].dir.path().to_owned();
        self.problems.push(Problem { folder, file: file.to_owned(), what: what.to_owned() });
    }
}

/// A stream on its way into the output.
struct Sending {
    intake: Intake,
    segments: Segments,
    was_comparing: bool,
}

impl Sending {
    /// `head` says whether it is sent again from its start; else it goes on with what is there.
    fn begin(vault: &Vault, name: &[u8], from: &Manifest, head: Option<Head>) -> Result<Sending> {
        let failed = || Error::system("store a stream");
        let first = from.connections.first();
        let origin = Origin {
            source: from.source,
            peer: first.map_or_else(|| "merge".to_owned(), |first| first.peer.clone()),
            connected_ms: now_ms(),
        };
        let entry = vault.enter(name, origin, Arc::new(NoPeer), || false).map_err(failed())?;
        let intake = entry.begin(head.unwrap_or(Head::Other)).map_err(failed())?;
        let segments = Segments::new(intake.segments());
        let was_comparing = intake.comparing().is_some();
        Ok(Sending { intake, segments, was_comparing })
    }

    /// Notes the records of what was fed last.
    fn note(&mut self, segment: Segment) {
        self.segments.append(vec![segment]);
        if self.was_comparing && self.intake.comparing().is_none() {
            self.was_comparing = false;
            self.segments.depart(self.intake.segments());
        }
    }

    fn finish(self) {
        let Sending { mut intake, segments, .. } = self;
        if !segments.list.is_empty() {
            intake.note_segments(segments);
        }
        intake.finish(EndReason::Eof);
    }
}

impl Merged {
    /// Looks at what was made of each name.
    fn list(&mut self, dir: &VaultDir, streams: Vec<(String, Stream)>) -> io::Result<()> {
        for (base, mut stream) in streams {
            for part in 1.. {
                let file = part_file_name(&base, part);
                let Some(manifest) = dir.manifest(&file)? else { break };
                stream.bytes += manifest.bytes;
                stream.files.push(file);
            }
            self.streams.push(stream);
        }
        Ok(())
    }
}

impl From<ReadRange> for PartitionState {
    fn from(range: ReadRange) -> PartitionState {
        PartitionState {
            topic: range.topic,
            topic_id: range.topic_id,
            partition: range.partition,
            next_offset: range.next_offset,
            first_offset: Some(range.first_offset),
            taken_over: range.taken_over,
            since: if range.since.is_empty() { now_rfc3339() } else { range.since },
            acknowledged: 0,
        }
    }
}
