//! The streams of all folders into the output: what one folder alone has is copied, the rest is put together anew by the
//! rules by which a vault takes records and re-sends.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::sync::Arc;

use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::super::dir::VaultDir;
use super::super::ledger::{DEAD_LETTERS, HEAD_BYTES, is_same_head};
use super::super::manifest::{EndReason, Manifest, Segment, Source, State};
use super::super::pool::Size;
use super::super::scan::Scan;
use super::super::segments::Segments;
use super::super::time::now_ms;
use super::super::{Head, Intake, Origin, Probe, Vault};
use super::folder::{Folder, StoredFile};
use super::plan::{Key, Plan};
use super::weave::{self, Piece};
use super::{Problem, Stream};
use crate::cc::frame::name::file_name;
use crate::{Error, Result};

/// The streams of some folders on their way into the output.
pub struct Merging<'a> {
    /// The folders.
    pub folders: &'a [Folder],
    /// Whose records count.
    pub plans: &'a BTreeMap<Key, Plan>,
    /// The lives of topics, in their order.
    pub generations: &'a BTreeMap<(String, Option<String>), usize>,
    /// The output.
    pub dir: &'a VaultDir,
    /// Writes into it.
    pub vault: &'a Vault,
    /// Whether files are hashed.
    pub hash: bool,
    /// What is wrong.
    pub problems: Vec<Problem>,
    /// Told the bytes read so far.
    pub progress: &'a mut dyn FnMut(u64),
    /// Bytes read so far.
    pub read_bytes: u64,
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
    pub fn streams(&mut self) -> Result<Vec<(String, Stream)>> {
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
    pub fn dead_letters(&mut self) -> Result<u64> {
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
