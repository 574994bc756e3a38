//! `lea tail`: writes a stream's file to stdout and follows it until the stream ends. Runs in the main thread; reads only,
//! so the receiver does not notice it.
//!
//! Invariant: what was written is a prefix of the stream. The manifest is read before the file, so a closed stream is
//! written completely. Headers that a rotated stream repeats at the start of each file are written once.

use std::fs::{self, File};
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use rustix::io::Errno;

use super::args::listing::{self, ManifestStatus, ReceiverState};
use super::args::units;
use super::output::stdout;
use crate::cc::vault::damage;
use crate::cc::vault::dir::META_DIR;
use crate::cc::vault::manifest::{EndReason, Manifest, ManifestState, PartPosition, SUFFIX};
use crate::cc::wire::name::{file_name, parse_part_file_name, part_file_name};
use crate::cmd::Command;
use crate::cmd::args::globals::Globals;
use crate::manual::{self, Example, Manual};
use crate::runtime::logging::{self, LevelFilter};
use crate::runtime::shutdown::Shutdown;
use crate::runtime::terminal::escape;
use crate::{Error, Exit, Result};

/// Size of one read.
const READ_BYTES: usize = 64 << 10;

/// Pause when the file has not grown.
const PAUSE: Duration = Duration::from_millis(50);

/// Pause when the stream does not exist yet.
const WAIT_PAUSE: Duration = Duration::from_millis(200);

/// Time without growth after which it is checked whether a receiver still runs.
const SILENCE: Duration = Duration::from_secs(2);

/// Write a stream to stdout, and follow it while it grows
///
/// NAME is the name of a stream, or the path of its file. The file of a stream ends at a whole packet at every moment, so
/// the output can be piped into Wireshark or tshark while a call is going on. lea tail ends when the stream is closed, when
/// the reader of stdout is gone, or at ^C.
///
/// A sender that reconnects within --linger is followed. Bytes that it sends again are not written again. If a name has
/// several parts, the one that is open is written, or else the last one; --part selects another. Files of a rotated stream
/// are written one after another, as the sender sent them.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Name of a stream, or path of its file
    #[arg(value_name = "NAME")]
    name: PathBuf,
    /// Output directory of the receiver (its --output)
    #[arg(short, long, value_name = "DIR", default_value = "interceptions")]
    dir: PathBuf,
    /// Part of the stream, from 1
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    part: Option<u32>,
    /// Write what is stored, and do not wait for more
    #[arg(long, conflicts_with_all = ["wait", "linger"])]
    no_follow: bool,
    /// Wait until the stream starts, if it does not exist
    #[arg(long)]
    wait: bool,
    /// Time after the end of a stream in which its sender may come back
    #[arg(long, value_name = "TIME", default_value = "3s", value_parser = units::duration)]
    linger: Duration,
}

impl Command for Args {
    const MANUAL: Manual = Manual {
        exits: &[
            (
                Exit::Incomplete,
                "The stream did not end in order: bytes may be missing, or its receiver was killed.",
            ),
            manual::INTERRUPTED,
        ],
        files: &[manual::OUTPUT_FILES],
        examples: &[
            Example {
                text: "Watch a call in Wireshark while it is received",
                command: "lea tail call.pcap --dir interceptions | wireshark -k -i -",
            },
            Example {
                text: "Print the SIP messages of a call, from its first packet on",
                command: "lea tail call.pcap --wait | tshark -r - -Y sip",
            },
        ],
        see_also: &["lea-serve-tcp(1)", "lea-ls(1)", "lea-mend(1)"],
        ..manual::EMPTY
    };

    fn run(self, globals: &Globals) -> Result<Exit> {
        logging::start(globals.level(LevelFilter::Warn));
        if io::stdout().is_terminal() {
            let text = "a capture is not text: send stdout to a file or a program, as in `lea tail NAME | wireshark -k -i -`";
            return Err(Error::Usage(text.to_owned()));
        }
        let shutdown = Shutdown::on_signals()?;
        let Some(place) = self.locate(&shutdown)? else { return Ok(Exit::Done) };
        StreamTail::open(place, &self)?.run(&shutdown)
    }
}

/// Stream file, and the directory that it is in.
#[derive(Clone, Debug, PartialEq, Eq)]
struct StreamPlace {
    dir: PathBuf,
    /// Name of the file.
    file: String,
}

impl Args {
    /// Finds the file, and waits for it if that is wanted. `None`: a signal came first.
    fn locate(&self, shutdown: &Shutdown) -> Result<Option<StreamPlace>> {
        loop {
            match self.find() {
                Ok(Some(place)) => return Ok(Some(place)),
                Ok(None) if !self.wait => return Err(self.missing()),
                Err(Error::Path { source, .. }) if self.wait && source.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
                Ok(None) => {}
            }
            if shutdown.wait(WAIT_PAUSE) {
                return Ok(None);
            }
        }
    }

    fn missing(&self) -> Error {
        let what = match self.part {
            Some(part) => format!("part {part} of a stream named {}", self.name.display()),
            None => format!("stream named {}", self.name.display()),
        };
        let reason = format!("no {what} in {} (lea ls lists them; --wait waits for it)", self.dir.display());
        Error::System { act: "tail the stream", source: io::Error::new(io::ErrorKind::NotFound, reason) }
    }

    fn find(&self) -> Result<Option<StreamPlace>> {
        let is_path = self.name.as_os_str().as_bytes().contains(&b'/');
        if is_path && listing::stream_path(&self.name).is_file() {
            let path = listing::stream_path(&self.name);
            let (Some(dir), Some(file)) = (path.parent(), path.file_name()) else { return Ok(None) };
            return Ok(Some(StreamPlace { dir: dir.to_owned(), file: file.to_string_lossy().into_owned() }));
        }
        let base = file_name(self.name.as_os_str().as_bytes());
        let parts = parts(&self.dir, &base)?;
        let place = |file: String| StreamPlace { dir: self.dir.clone(), file };
        if let Some(part) = self.choose_part(&base, &parts) {
            return Ok(Some(place(part_file_name(&base, part))));
        }
        // The name of a file: that of a part, or one with escapes.
        let given = listing::stream_path(&self.name).to_string_lossy().into_owned();
        let is_file = !is_path && self.part.is_none() && self.dir.join(&given).is_file();
        Ok(is_file.then(|| place(given)))
    }

    /// Chooses the part that was asked for, or the stream of the last part that is open, or that of the last part.
    fn choose_part(&self, base: &str, parts: &[u32]) -> Option<u32> {
        if let Some(wanted) = self.part {
            return parts.contains(&wanted).then_some(wanted);
        }
        let manifest = |part: u32| match listing::read_manifest(&self.dir.join(part_file_name(base, part))) {
            ManifestStatus::Valid(manifest) => Some(manifest),
            ManifestStatus::Invalid(_) | ManifestStatus::Missing => None,
        };
        let is_open =
            |part: &&u32| manifest(**part).is_some_and(|manifest| manifest.state == ManifestState::Open);
        // A crash can leave an empty part.
        let has_content = |part: &&u32| {
            let file = fs::metadata(self.dir.join(part_file_name(base, **part)));
            file.is_ok_and(|file| file.len() > 0)
        };
        let newest_first = || parts.iter().rev();
        let mut chosen =
            *newest_first().find(is_open).or(newest_first().find(has_content)).or(parts.last())?;
        // A part that continues another one is not a capture by itself. Damaged manifests could make a circle.
        for _ in parts {
            let continued = manifest(chosen).and_then(|manifest| manifest.continues);
            let before = continued.and_then(|at| Some(parse_part_file_name(&at.file)?.1));
            match before.filter(|before| parts.contains(before)) {
                Some(before) => chosen = before,
                None => break,
            }
        }
        if parts.len() > 1 {
            let (file, parts) = (part_file_name(base, chosen), parts.len());
            log::warn!("part_chosen file={file} parts={parts} note=\"--part selects another\"");
        }
        Some(chosen)
    }
}

/// Lists the parts of a stream whose files exist, in order.
fn parts(dir: &Path, base: &str) -> Result<Vec<u32>> {
    let unreadable = || Error::path("read the directory", dir);
    let mut parts = Vec::new();
    for entry in fs::read_dir(dir).map_err(unreadable())? {
        let name = entry.map_err(unreadable())?.file_name();
        let part = name.to_str().filter(|name| !name.ends_with(SUFFIX)).and_then(parse_part_file_name);
        parts.extend(part.filter(|(file, _)| *file == base).map(|(_, part)| part));
    }
    parts.sort_unstable();
    Ok(parts)
}

/// Last manifest that was read, and what tells whether there is a newer one.
#[derive(Default)]
struct ManifestCache {
    identity: Option<(u64, i64, i64)>,
    manifest: Option<Box<Manifest>>,
}

impl ManifestCache {
    /// Reads the manifest if it was replaced.
    fn read(&mut self, stream_file: &Path) -> Result<Option<&Manifest>> {
        let path = PathBuf::from(format!("{}{SUFFIX}", stream_file.display()));
        let identity =
            fs::symlink_metadata(&path).ok().map(|file| (file.ino(), file.mtime(), file.mtime_nsec()));
        if identity.is_none() || identity != self.identity {
            self.manifest = match listing::read_manifest(stream_file) {
                ManifestStatus::Valid(manifest) => Some(manifest),
                ManifestStatus::Missing => None,
                ManifestStatus::Invalid(reason) => {
                    let source = io::Error::new(io::ErrorKind::InvalidData, reason);
                    return Err(Error::Path {
                        act: "read the manifest of",
                        path: stream_file.to_owned(),
                        source,
                    });
                }
            };
            self.identity = identity;
        }
        Ok(self.manifest.as_deref())
    }
}

/// Opens a stream file. Neither a pipe nor a link is one.
fn open_stream_file(path: &Path) -> Result<File> {
    listing::open_regular(path, OFlags::NOFOLLOW).map_err(Error::path("open", path))
}

/// Why writing ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TailEnd {
    /// Everything was written: the stream is closed, or more is not wanted.
    Closed,
    /// The reader of stdout is gone.
    ReaderGone,
    /// A signal came.
    Stopped,
    /// The stream is open, but no receiver writes to it.
    Abandoned,
}

/// A stream that is being written to stdout.
struct StreamTail<'a> {
    /// The file, or that of the part which continues it.
    place: StreamPlace,
    args: &'a Args,
    path: PathBuf,
    file: File,
    /// Offset in the file up to which it was written.
    written: u64,
    /// Bytes at the start of the file that are not written again, because they repeat headers.
    skipped: u64,
    /// Bytes of earlier parts that were written.
    written_before: u64,
    buffer: Vec<u8>,
    manifests: ManifestCache,
}

impl<'a> StreamTail<'a> {
    fn open(place: StreamPlace, args: &'a Args) -> Result<StreamTail<'a>> {
        let path = place.dir.join(&place.file);
        let file = open_stream_file(&path)?;
        let (buffer, manifests) = (vec![0; READ_BYTES], ManifestCache::default());
        Ok(StreamTail {
            place,
            args,
            path,
            file,
            written: 0,
            skipped: 0,
            written_before: 0,
            buffer,
            manifests,
        })
    }

    /// Goes on with the part that continues this one where it ends. Returns false if there is none.
    fn go_on(&mut self) -> Result<bool> {
        let Some((base, own)) = parse_part_file_name(&self.place.file) else { return Ok(false) };
        let end = PartPosition { file: self.place.file.clone(), at: self.written };
        for part in parts(&self.place.dir, base)?.into_iter().filter(|part| *part > own) {
            let file = part_file_name(base, part);
            let path = self.place.dir.join(&file);
            let ManifestStatus::Valid(manifest) = listing::read_manifest(&path) else { continue };
            if manifest.continues.as_ref() == Some(&end) && !is_stub(&manifest) {
                log::info!("part_continued file={file} at={}", self.written);
                self.file = open_stream_file(&path)?;
                (self.place.file, self.path, self.manifests) = (file, path, ManifestCache::default());
                self.written_before += self.written - self.skipped;
                self.skipped = manifest.header_bytes();
                self.written = self.skipped;
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Reports whether the file was written completely, and a rotation has ended it.
    fn is_rotated(&mut self) -> Result<bool> {
        let written = self.written;
        Ok(self.manifests.read(&self.path)?.is_some_and(|manifest| {
            manifest.end_reason == Some(EndReason::Rotated) && manifest.bytes == written
        }))
    }

    fn run(mut self, shutdown: &Shutdown) -> Result<Exit> {
        let end = self.follow(shutdown)?;
        self.report(end)
    }

    /// Writes the file until it ends.
    fn follow(&mut self, shutdown: &Shutdown) -> Result<TailEnd> {
        let mut life = StreamLife::new(self.args.linger);
        loop {
            // Read before the file: once the manifest is closed, the file is complete.
            let is_open = self.is_open(&life)?;
            let before = self.written;
            if !self.write_new(shutdown)? {
                return Ok(if shutdown.is_triggered() { TailEnd::Stopped } else { TailEnd::ReaderGone });
            }
            let has_ended = self.args.no_follow || life.has_ended(is_open, self.written > before);
            // After a rotation the sender need not come back: it is still there.
            if !is_open && (has_ended || self.is_rotated()?) && self.go_on()? {
                life = StreamLife::new(self.args.linger);
                continue;
            }
            if has_ended {
                return Ok(TailEnd::Closed);
            }
            if life.is_silent() && is_open && !is_receiver_running(&self.place.dir) {
                return Ok(TailEnd::Abandoned);
            }
            match wait_for_reader(shutdown, PAUSE)? {
                WaitResult::Stopped => return Ok(TailEnd::Stopped),
                WaitResult::ReaderGone => return Ok(TailEnd::ReaderGone),
                WaitResult::TimedOut => {}
            }
        }
    }

    fn is_open(&mut self, life: &StreamLife) -> Result<bool> {
        Ok(match self.manifests.read(&self.path)? {
            Some(manifest) => manifest.state == ManifestState::Open,
            // A stream that starts just now has no manifest yet. A foreign file never gets one.
            None => life.started_at.elapsed() < SILENCE && is_receiver_running(&self.place.dir),
        })
    }

    /// Writes what the file has more than before. Returns false if the reader is gone, or after a signal.
    fn write_new(&mut self, shutdown: &Shutdown) -> Result<bool> {
        let length = self.file.metadata().map_err(Error::path("read", &self.path))?.len();
        if length < self.skipped {
            return Ok(true);
        }
        if length < self.written {
            let reason =
                format!("the file became shorter: {} bytes were written, and it has {length}", self.written);
            return Err(Error::path("follow", &self.path)(io::Error::other(reason)));
        }
        loop {
            let read = match self.file.read_at(&mut self.buffer, self.written) {
                Ok(0) => return Ok(true),
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Error::path("read", &self.path)(error)),
            };
            if shutdown.is_triggered() || !stdout::write_bytes(&self.buffer[..read])? {
                return Ok(false);
            }
            self.written += read as u64;
        }
    }

    /// Reports how the stream ended, and returns the exit code that follows from it.
    fn report(&mut self, end: TailEnd) -> Result<Exit> {
        let (file, bytes) = (escape(&self.place.file), self.written_before + self.written - self.skipped);
        let problem = match end {
            TailEnd::Stopped | TailEnd::ReaderGone => None,
            TailEnd::Abandoned => {
                Some("the stream is open, but no receiver is running: it was killed".to_owned())
            }
            TailEnd::Closed => {
                self.report_later_part()?;
                let written = self.written;
                self.manifests.read(&self.path)?.and_then(|manifest| problem(manifest, written))
            }
        };
        match problem {
            Some(reason) => log::warn!("stream_incomplete file={file} bytes={bytes} reason=\"{reason}\""),
            None => {
                log::info!("stream_written file={file} bytes={bytes}");
                return Ok(Exit::Done);
            }
        }
        Ok(Exit::Incomplete)
    }

    /// Reports a part that started after this one: it is a stream of its own.
    fn report_later_part(&self) -> Result<()> {
        let Some((base, own)) = parse_part_file_name(&self.place.file) else { return Ok(()) };
        if let Some(last) = parts(&self.place.dir, base)?.last().filter(|last| **last > own) {
            let last = escape(&part_file_name(base, *last));
            log::warn!("part_exists file={last} note=\"another stream of this name; --part writes it\"");
        }
        Ok(())
    }
}

/// Returns true for a part that has a repeated header and nothing else, because the receiver was killed just then. The
/// stream goes on in another part.
fn is_stub(manifest: &Manifest) -> bool {
    manifest.state != ManifestState::Open
        && manifest.rotation.is_some_and(|rotation| manifest.bytes <= rotation.header_bytes)
}

/// What is wrong with a stream file of which `bytes` bytes were written.
fn problem(manifest: &Manifest, bytes: u64) -> Option<String> {
    if manifest.state == ManifestState::Open {
        return None;
    }
    if manifest.bytes != bytes {
        return Some(format!("the file has {bytes} bytes, and the manifest says {}", manifest.bytes));
    }
    damage::join(&manifest.damage())
}

/// Times in the life of a stream, which decide when it has ended.
struct StreamLife {
    linger: Duration,
    started_at: Instant,
    was_open: bool,
    /// When the stream was first seen closed, after it was last open.
    closed_at: Option<Instant>,
    /// When the file last grew, or the receiver was last looked for.
    active_at: Instant,
}

impl StreamLife {
    fn new(linger: Duration) -> StreamLife {
        let now = Instant::now();
        StreamLife { linger, started_at: now, was_open: false, closed_at: None, active_at: now }
    }

    /// Reports whether the stream has ended, given its state now and whether its file has grown.
    fn has_ended(&mut self, is_open: bool, has_grown: bool) -> bool {
        if has_grown {
            self.active_at = Instant::now();
        }
        if is_open {
            self.was_open = true;
            self.closed_at = None;
            return false;
        }
        let closed_at = *self.closed_at.get_or_insert_with(Instant::now);
        // A stream that had ended before it was followed does not come back.
        !has_grown && (!self.was_open || closed_at.elapsed() >= self.linger)
    }

    /// Reports, each time that it lasts, whether nothing has happened for [`SILENCE`].
    fn is_silent(&mut self) -> bool {
        let is_silent = self.active_at.elapsed() >= SILENCE;
        if is_silent {
            self.active_at = Instant::now();
        }
        is_silent
    }
}

/// Reports whether a receiver writes to the directory, or may do so.
fn is_receiver_running(dir: &Path) -> bool {
    match listing::receiver_state(dir) {
        ReceiverState::Running => true,
        ReceiverState::Stopped => false,
        // Without a lock file it is a copy, and nobody writes to it. One that cannot be read may be held.
        ReceiverState::Unknown => {
            let lock = fs::symlink_metadata(dir.join(META_DIR).join("lock"));
            lock.err().is_none_or(|error| error.kind() != io::ErrorKind::NotFound)
        }
    }
}

/// Result of waiting for the file to grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WaitResult {
    TimedOut,
    Stopped,
    /// The reader of stdout has closed it.
    ReaderGone,
}

/// Waits for `time`, or until a signal, or until the reader of stdout is gone.
fn wait_for_reader(shutdown: &Shutdown, time: Duration) -> Result<WaitResult> {
    let out = io::stdout();
    let no_events = PollFlags::empty();
    let mut fds = [PollFd::from_borrowed_fd(shutdown.as_fd(), no_events), PollFd::new(&out, no_events)];
    match poll(&mut fds, Timespec::try_from(time).ok().as_ref()) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(error) => return Err(Error::system("wait")(error.into())),
    }
    let is_gone = fds[1].revents().intersects(PollFlags::ERR | PollFlags::HUP | PollFlags::NVAL);
    Ok(match () {
        () if shutdown.is_triggered() => WaitResult::Stopped,
        () if is_gone => WaitResult::ReaderGone,
        () => WaitResult::TimedOut,
    })
}

#[cfg(test)]
mod tests {
    use rustix::fs::{FlockOperation, flock};

    use super::*;
    use crate::cc::vault::manifest::{EndReason, StreamSource};

    fn args(dir: &Path, name: &str) -> Args {
        Args {
            name: PathBuf::from(name),
            dir: dir.to_owned(),
            part: None,
            no_follow: false,
            wait: false,
            linger: Duration::ZERO,
        }
    }

    fn store(dir: &Path, name: &str, part: u32, state: ManifestState) {
        store_part(dir, name, part, state, None);
    }

    fn store_part(dir: &Path, name: &str, part: u32, state: ManifestState, continues: Option<&str>) {
        let base = file_name(name.as_bytes());
        let file = part_file_name(&base, part);
        fs::write(dir.join(&file), "content").unwrap();
        let mut manifest = Manifest::new(name.as_bytes(), file.clone(), part, StreamSource::Tcp);
        manifest.state = state;
        manifest.continues = continues.map(|file| PartPosition { file: file.to_owned(), at: 7 });
        fs::write(dir.join(file + SUFFIX), serde_json::to_vec(&manifest).unwrap()).unwrap();
    }

    #[test]
    fn a_stream_is_found_by_name_part_file_and_path() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path();
        store(dir, "call.pcap", 1, ManifestState::Closed);
        store(dir, "call.pcap", 2, ManifestState::Open);
        store(dir, "call.pcap", 10, ManifestState::Closed);
        store(dir, "a b/c", 1, ManifestState::Closed);
        store(dir, "x.2", 1, ManifestState::Closed);
        fs::write(dir.join("foreign.txt"), "").unwrap();
        let find = |args: Args| args.find().unwrap().map(|place| place.file);
        let named = |name: &str| find(args(dir, name));
        assert_eq!(named("call.pcap").as_deref(), Some("call.pcap.2"), "the open part");
        assert_eq!(find(Args { part: Some(1), ..args(dir, "call.pcap") }).as_deref(), Some("call.pcap"));
        assert_eq!(find(Args { part: Some(3), ..args(dir, "call.pcap") }), None);
        assert_eq!(named("call.pcap.10").as_deref(), Some("call.pcap.10"));
        assert_eq!(named("a b/c").as_deref(), Some("a%20b%2Fc"));
        assert_eq!(named("a%20b%2Fc").as_deref(), Some("a%20b%2Fc"));
        assert_eq!(named("x.2").as_deref(), Some("x%2E2"));
        assert_eq!(named("foreign.txt").as_deref(), Some("foreign.txt"));
        assert_eq!(named("other"), None);
        let path = dir.join("call.pcap.lea.json");
        assert_eq!(named(path.to_str().unwrap()).as_deref(), Some("call.pcap"));
        store(dir, "call.pcap", 2, ManifestState::Closed);
        assert_eq!(named("call.pcap").as_deref(), Some("call.pcap.10"), "the last part");
        // A part that continues another one has no file header.
        store_part(dir, "call.pcap", 10, ManifestState::Open, Some("call.pcap.2"));
        assert_eq!(named("call.pcap").as_deref(), Some("call.pcap.2"), "the start of the stream");
        store_part(dir, "call.pcap", 2, ManifestState::Closed, Some("call.pcap.10"));
        assert!(named("call.pcap").is_some(), "parts that continue each other");
        assert!(args(&dir.join("missing"), "x").find().is_err());
    }

    #[test]
    fn a_stream_ends_when_it_stays_closed() {
        let mut life = StreamLife::new(Duration::ZERO);
        assert!(life.has_ended(false, false), "it was closed from the start");
        assert!(!life.has_ended(false, true), "all of it is written first");
        let mut life = StreamLife::new(Duration::from_secs(3600));
        assert!(!life.has_ended(true, false) && !life.has_ended(false, false), "its sender may come back");
        life.linger = Duration::ZERO;
        assert!(!life.has_ended(true, false) && life.closed_at.is_none());
        assert!(life.has_ended(false, false));
    }

    #[test]
    fn a_receiver_is_running_while_it_has_the_lock() {
        let temp = tempfile::tempdir().unwrap();
        assert!(!is_receiver_running(temp.path()));
        fs::create_dir(temp.path().join(META_DIR)).unwrap();
        let lock = File::create(temp.path().join(META_DIR).join("lock")).unwrap();
        assert!(!is_receiver_running(temp.path()));
        flock(&lock, FlockOperation::NonBlockingLockExclusive).unwrap();
        assert!(is_receiver_running(temp.path()));
        drop(lock);
        assert!(!is_receiver_running(temp.path()));
    }

    #[test]
    fn problems_of_a_closed_stream_are_named() {
        let mut manifest = Manifest::new(b"call.pcap", "call.pcap".to_owned(), 1, StreamSource::Tcp);
        assert_eq!(problem(&manifest, 5), None, "it is open");
        (manifest.state, manifest.bytes, manifest.end_reason) =
            (ManifestState::Closed, 7, Some(EndReason::Eof));
        assert_eq!(problem(&manifest, 7), None);
        assert_eq!(problem(&manifest, 5).unwrap(), "the file has 5 bytes, and the manifest says 7");
        manifest.end_reason = Some(EndReason::Reset);
        assert!(problem(&manifest, 7).unwrap().contains("reset"));
        manifest.lost_bytes = 3;
        assert!(problem(&manifest, 7).unwrap().contains("3 received bytes"));
    }
}
