//! `lea mend`: writes the whole packets of a damaged capture to new files. Runs in the main thread; the original is only
//! read.
//!
//! The source is read twice. The first pass finds captures, packets and damage, and whether packets are in order of time.
//! The second pass writes, with an index of the packets only if they have to be sorted.

use std::fs;
use std::io::{self, BufWriter, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::Serialize;
use tempfile::NamedTempFile;

use super::output::stdout;
use crate::capture::formats::CaptureFormat;
use crate::capture::mend::{DamageReason, SourcePart, find_parts};
use crate::capture::tracker::Packet;
use crate::cmd::Command;
use crate::cmd::args::globals::Globals;
use crate::manual::{self, Example, Manual};
use crate::replay::names;
use crate::replay::source::{FileCursor, ReplayFile};
use crate::runtime::create::create_in_error;
use crate::runtime::logging::{self, LevelFilter};
use crate::runtime::progress::Progress;
use crate::runtime::shutdown::Shutdown;
use crate::{Error, Exit, Result};

/// Limit on the captures in a source, so that a hostile one cannot fill the directory with files.
const CAPTURES_MAX: usize = 1_000;

/// Limit on the packets that are sorted: their index takes 768 MiB.
const SORTED_PACKETS_MAX: u64 = 32 << 20;

/// Ranges of damage that are logged, and those that `--json` lists.
const LOGGED_RANGES_MAX: usize = 20;
const LISTED_RANGES_MAX: usize = 1_000;

/// Size of the pieces in which the source is read and copied.
const PIECE_BYTES: usize = 256 << 10;

/// First bytes of a pcapng section header, in both byte orders.
const SECTION_TYPE: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];

/// Write the whole packets of a damaged capture to a new file
///
/// What is not part of a whole packet is left out: a packet that was cut off, bytes that were overwritten, inserted or
/// lost. Captures that were appended to each other are split: the first one goes to the file of --output, the next ones to
/// files with a number (call-2.pcap). Packets are sorted by time. The original stays as it is.
///
/// Several files are read as if their bytes followed each other, for parts that continue a stream. The exit status is 3 if
/// anything was left out.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Damaged capture: pcap, pcapng
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// New file for the packets; an existing file is not overwritten
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Print the summary as JSON to stdout
    #[arg(long)]
    json: bool,
}

impl Command for Args {
    const MANUAL: Manual = Manual {
        exits: &[(Exit::Incomplete, "Something was left out."), manual::INTERRUPTED],
        examples: &[
            Example { text: "Repair a capture", command: "lea mend call.pcap -o mended.pcap" },
            Example {
                text: "Join a stream and the part that continues it",
                command: "lea mend start.pcap rest.pcap -o whole.pcap",
            },
        ],
        see_also: &["lea-verify(1)", "lea-replay(1)"],
        ..manual::EMPTY
    };

    fn run(self, globals: &Globals) -> Result<Exit> {
        logging::start(globals.level(LevelFilter::Info));
        let shutdown = Shutdown::on_signals()?;
        let source = ReplayFile::open_joined(&self.files)?;
        let progress =
            Progress::new(globals.quiet == 0, Some(source.bytes() * 2), "{wide_bar} {bytes}/{total_bytes}");
        let survey = Survey::make(&source, &shutdown, &progress)?;
        survey.log_damage(&self.files[0]);
        let captures = self.write(&source, &survey, &shutdown, &progress)?;
        drop(progress);
        self.report(survey, captures)
    }
}

/// What one capture of the source has.
#[derive(Clone, Copy, Debug)]
struct CaptureSurvey {
    format: CaptureFormat,
    packets: u64,
    /// Packets with a time before that of an earlier packet.
    moved: u64,
    latest_ns: Option<i64>,
}

/// Damaged range of the source, for `--json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct LeftOut {
    from: u64,
    to: u64,
    reason: &'static str,
}

/// Result of the first pass.
#[derive(Debug, Default)]
struct Survey {
    captures: Vec<CaptureSurvey>,
    left_out: Vec<LeftOut>,
    left_out_ranges: u64,
    left_out_bytes: u64,
}

impl Survey {
    fn make(source: &ReplayFile, shutdown: &Shutdown, progress: &Progress) -> Result<Survey> {
        let mut survey = Survey::default();
        let found = find_parts(&mut source.cursor(PIECE_BYTES), source.bytes(), &mut |part| {
            progress.set_position(end(&part));
            survey.add(part);
            if survey.captures.len() > CAPTURES_MAX {
                return Err(io::Error::other(format!("it has more than {CAPTURES_MAX} captures")));
            }
            fail_on_signal(shutdown)
        });
        found.map_err(Error::path("mend", source.path()))?;
        if survey.captures.is_empty() {
            let reason = "there is no capture in it (a compressed one has to be decompressed first)";
            return Err(Error::path("mend", source.path())(io::Error::other(reason)));
        }
        Ok(survey)
    }

    fn add(&mut self, part: SourcePart) {
        match part {
            SourcePart::Capture { format, .. } => {
                self.captures.push(CaptureSurvey { format, packets: 0, moved: 0, latest_ns: None });
            }
            SourcePart::Packet(Packet { time_ns, .. }) => {
                let Some(capture) = self.captures.last_mut() else { return };
                capture.packets += 1;
                let is_early = time_ns.zip(capture.latest_ns).is_some_and(|(time, latest)| time < latest);
                capture.moved += u64::from(is_early);
                capture.latest_ns = if is_early { capture.latest_ns } else { time_ns.or(capture.latest_ns) };
            }
            SourcePart::Header(_) => {}
            SourcePart::Damaged { range, reason } => self.add_damage(range, reason),
        }
    }

    fn add_damage(&mut self, range: Range<u64>, reason: DamageReason) {
        self.left_out_ranges += 1;
        self.left_out_bytes += range.end - range.start;
        if self.left_out.len() < LISTED_RANGES_MAX {
            self.left_out.push(LeftOut { from: range.start, to: range.end, reason: reason.as_str() });
        }
    }

    fn log_damage(&self, file: &Path) {
        for LeftOut { from, to, reason } in self.left_out.iter().take(LOGGED_RANGES_MAX) {
            log::warn!(
                "bytes_left_out file={file:?} from={from} to={to} bytes={} reason={reason}",
                to - from
            );
        }
        let more = self.left_out_ranges.saturating_sub(LOGGED_RANGES_MAX as u64);
        if more > 0 {
            log::warn!("more_left_out file={file:?} ranges={more} note=\"--json lists the first thousand\"");
        }
    }
}

fn end(part: &SourcePart) -> u64 {
    match part {
        SourcePart::Capture { at, .. } => *at,
        SourcePart::Header(range) | SourcePart::Damaged { range, .. } => range.end,
        SourcePart::Packet(packet) => packet.end,
    }
}

fn fail_on_signal(shutdown: &Shutdown) -> io::Result<()> {
    let stopped =
        || io::Error::new(io::ErrorKind::Interrupted, "interrupted by a signal; nothing was written");
    if shutdown.is_triggered() { Err(stopped()) } else { Ok(()) }
}

/// A capture that was written. Serialized, it is part of the `--json` object.
#[derive(Debug, Serialize)]
struct WrittenCapture {
    file: PathBuf,
    format: CaptureFormat,
    packets: u64,
    /// Packets that were out of order.
    moved: u64,
    bytes: u64,
    /// False if there are too many packets to be sorted.
    sorted: bool,
}

/// The `--json` object.
#[derive(Debug, Serialize)]
struct MendSummary {
    captures: Vec<WrittenCapture>,
    left_out_bytes: u64,
    left_out_ranges: u64,
    /// The first thousand.
    left_out: Vec<LeftOut>,
}

impl Args {
    /// Writes all captures to temporary files, and moves them to their names when all are complete.
    fn write(
        &self,
        source: &ReplayFile,
        survey: &Survey,
        shutdown: &Shutdown,
        progress: &Progress,
    ) -> Result<Vec<WrittenCapture>> {
        for number in 1..=survey.captures.len() {
            let path = self.output_path(number);
            if fs::symlink_metadata(&path).is_ok() {
                return Err(Error::Usage(format!(
                    "{} exists, and is not overwritten: choose another --output",
                    path.display()
                )));
            }
        }
        let mut writer = CaptureWriter { source, outputs: Vec::new() };
        let mut failure = None;
        let found = find_parts(&mut source.cursor(PIECE_BYTES), source.bytes(), &mut |part| {
            progress.set_position(source.bytes() + end(&part));
            fail_on_signal(shutdown)?;
            writer.write(part, survey, self).map_err(|error| {
                let reason = io::Error::other(error.to_string());
                failure = Some(error);
                reason
            })
        });
        if let Some(failure) = failure {
            return Err(failure);
        }
        found.map_err(Error::path("mend", source.path()))?;
        let finished: Vec<FinishedOutput> =
            writer.outputs.into_iter().map(CaptureOutput::finish).collect::<Result<_>>()?;
        finished.into_iter().zip(&survey.captures).map(|(output, capture)| output.publish(capture)).collect()
    }

    /// Path of a capture's file: that of the option, then numbered ones.
    fn output_path(&self, number: usize) -> PathBuf {
        use std::os::unix::ffi::{OsStrExt, OsStringExt};
        let name = self.output.file_name().unwrap_or_default();
        let numbered = names::numbered(name.as_bytes(), number as u64);
        self.output.with_file_name(std::ffi::OsString::from_vec(numbered))
    }

    fn report(&self, survey: Survey, captures: Vec<WrittenCapture>) -> Result<Exit> {
        for capture in &captures {
            log::info!(
                "capture_written file={:?} packets={} moved={} bytes={}",
                capture.file,
                capture.packets,
                capture.moved,
                capture.bytes
            );
            if !capture.sorted {
                log::warn!("packets_not_sorted file={:?} note=\"too many packets\"", capture.file);
            }
        }
        let sum = |count: fn(&WrittenCapture) -> u64| captures.iter().map(count).sum::<u64>();
        logging::status_line(format_args!(
            "mended captures={} packets={} moved={} bytes={} left_out_bytes={} left_out_ranges={}",
            captures.len(),
            sum(|capture| capture.packets),
            sum(|capture| capture.moved),
            sum(|capture| capture.bytes),
            survey.left_out_bytes,
            survey.left_out_ranges
        ));
        let is_complete = survey.left_out_ranges == 0 && captures.iter().all(|capture| capture.sorted);
        if self.json {
            let Survey { left_out, left_out_ranges, left_out_bytes, .. } = survey;
            let summary = MendSummary { captures, left_out_bytes, left_out_ranges, left_out };
            let json =
                serde_json::to_string(&summary).map_err(|error| Error::system("print")(error.into()))?;
            stdout::print_line(&json)?;
        }
        Ok(if is_complete { Exit::Done } else { Exit::Incomplete })
    }
}

/// Writes the parts of the second pass.
struct CaptureWriter<'a> {
    source: &'a ReplayFile,
    outputs: Vec<CaptureOutput<'a>>,
}

impl<'a> CaptureWriter<'a> {
    fn write(&mut self, part: SourcePart, survey: &Survey, args: &Args) -> Result<()> {
        if let SourcePart::Capture { .. } = part {
            let number = self.outputs.len();
            let Some(capture) = survey.captures.get(number) else { return Err(changed(self.source)) };
            if let Some(before) = self.outputs.last_mut() {
                before.flush_group()?;
            }
            self.outputs.push(CaptureOutput::create(args.output_path(number + 1), capture, self.source)?);
            return Ok(());
        }
        match (part, self.outputs.last_mut()) {
            (SourcePart::Header(range), Some(output)) => output.add_header(range, self.source),
            (SourcePart::Packet(packet), Some(output)) => output.add_packet(packet, self.source),
            _ => Ok(()),
        }
    }
}

fn changed(source: &ReplayFile) -> Error {
    Error::path("mend", source.path())(io::Error::other("the file changed while it was read"))
}

/// Packet to be sorted.
#[derive(Clone, Copy, Debug)]
struct IndexedPacket {
    time_ns: i64,
    start: u64,
    /// A packet is shorter than 4 GiB.
    bytes: u32,
}

/// File of one capture.
struct CaptureOutput<'a> {
    path: PathBuf,
    file: BufWriter<NamedTempFile>,
    cursor: FileCursor<'a>,
    bytes: u64,
    is_pcapng: bool,
    is_sorted: bool,
    /// Packets of the group that is being collected, if packets are sorted. A group is a capture, or a section of it:
    /// packets of a pcapng section belong to its interfaces.
    index: Option<Vec<IndexedPacket>>,
    latest_ns: i64,
    big_endian: bool,
}

/// File of one capture with all its bytes.
struct FinishedOutput {
    path: PathBuf,
    file: NamedTempFile,
    bytes: u64,
    is_sorted: bool,
}

impl<'a> CaptureOutput<'a> {
    fn create(path: PathBuf, capture: &CaptureSurvey, source: &'a ReplayFile) -> Result<CaptureOutput<'a>> {
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let file = NamedTempFile::new_in(dir).map_err(create_in_error(dir))?;
        let is_sortable = capture.packets <= SORTED_PACKETS_MAX;
        Ok(CaptureOutput {
            path,
            file: BufWriter::with_capacity(PIECE_BYTES, file),
            cursor: source.cursor(PIECE_BYTES),
            bytes: 0,
            is_pcapng: capture.format == CaptureFormat::Pcapng,
            is_sorted: capture.moved == 0 || is_sortable,
            index: (capture.moved > 0 && is_sortable).then(Vec::new),
            latest_ns: i64::MIN,
            big_endian: false,
        })
    }

    /// Copies bytes of the source.
    fn copy(&mut self, range: Range<u64>) -> Result<()> {
        let mut at = range.start;
        while at < range.end {
            let to = range.end.min(at + PIECE_BYTES as u64);
            let bytes = self.cursor.slice(at, to)?;
            self.file.write_all(bytes).map_err(Error::path("write", &self.path))?;
            self.bytes += to - at;
            at = to;
        }
        Ok(())
    }

    /// Adds bytes that are not a packet. When packets are sorted, they come before the packets of their section.
    fn add_header(&mut self, range: Range<u64>, source: &ReplayFile) -> Result<()> {
        if self.index.is_none() || !self.is_pcapng {
            return self.copy(range);
        }
        let mut at = range.start;
        while at < range.end {
            let bytes = self.block_bytes(at, source)?.clamp(1, range.end - at);
            self.copy(at..at + bytes)?;
            at += bytes;
        }
        Ok(())
    }

    /// Returns the length of a pcapng block. A section header ends the group before it.
    fn block_bytes(&mut self, at: u64, source: &ReplayFile) -> Result<u64> {
        let head: [u8; 12] = match self.cursor.slice(at, at + 12)?.try_into() {
            Ok(head) => head,
            Err(_) => return Err(changed(source)),
        };
        if head[..4] == SECTION_TYPE {
            self.flush_group()?;
            self.big_endian = head[8..] == [0x1a, 0x2b, 0x3c, 0x4d];
        }
        let length = [head[4], head[5], head[6], head[7]];
        Ok(u64::from(if self.big_endian { u32::from_be_bytes(length) } else { u32::from_le_bytes(length) }))
    }

    fn add_packet(&mut self, packet: Packet, source: &ReplayFile) -> Result<()> {
        let Some(index) = &mut self.index else { return self.copy(packet.start..packet.end) };
        // A packet without a time stays after the packet before it.
        let time_ns = packet.time_ns.unwrap_or(self.latest_ns);
        self.latest_ns = time_ns;
        let bytes = u32::try_from(packet.end - packet.start).map_err(|_| changed(source))?;
        index.push(IndexedPacket { time_ns, start: packet.start, bytes });
        Ok(())
    }

    /// Writes the packets of a group in order of time. Equal times keep their order.
    fn flush_group(&mut self) -> Result<()> {
        let Some(index) = &mut self.index else { return Ok(()) };
        let mut packets = std::mem::take(index);
        packets.sort_by_key(|packet| packet.time_ns);
        for packet in packets {
            self.copy(packet.start..packet.start + u64::from(packet.bytes))?;
        }
        self.latest_ns = i64::MIN;
        Ok(())
    }

    fn finish(mut self) -> Result<FinishedOutput> {
        self.flush_group()?;
        let CaptureOutput { path, file, bytes, is_sorted, .. } = self;
        let written = file.into_inner().map_err(|error| error.into_error());
        let synced = written.and_then(|file| file.as_file().sync_all().map(|()| file));
        let file = synced.map_err(Error::path("write", &path))?;
        Ok(FinishedOutput { path, file, bytes, is_sorted })
    }
}

impl FinishedOutput {
    /// Moves the file to its name, unless that exists.
    fn publish(self, capture: &CaptureSurvey) -> Result<WrittenCapture> {
        let FinishedOutput { path, file, bytes, is_sorted } = self;
        file.persist_noclobber(&path).map_err(|error| Error::path("create", &path)(error.error))?;
        let CaptureSurvey { format, packets, moved, .. } = *capture;
        Ok(WrittenCapture { file: path, format, packets, moved, bytes, sorted: is_sorted })
    }
}
