//! `lea calls wav`: the audio of a call.

mod raw;

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use clap::ValueEnum;

use super::target::{CallArgs, FoundCall};
use crate::calls::audio::{
    AudioCodec, AudioPacket, Output, Plan, PlanBuilder, PlanCounts, Renderer, WavFile,
};
use crate::calls::extract::{CallPacket, CallPackets};
use crate::calls::view::{Call, MediaStream, Side};
use crate::cmd::Command;
use crate::cmd::args::globals::Globals;
use crate::manual::{self, Example, Manual};
use crate::runtime::logging::{self, LevelFilter};
use crate::runtime::terminal::escape;
use crate::runtime::time::rfc3339_ns;
use crate::{Error, Exit, Result};

/// Bytes of the WAV file that are made at once.
const PIECE_BYTES: u64 = 1 << 20;

/// Write the audio of a call as a WAV file
///
/// The file is stereo: the caller is on the left, the callee on the right. Both sides are on the clock of the capture, so
/// that silence, holds and lost packets keep their length. G.711, G.722 and L16 are decoded. Encrypted audio is not.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    call: CallArgs,
    /// File to write [default: the call's ID with .wav]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Side to write
    #[arg(long, value_enum, default_value_t = SideArg::Both)]
    side: SideArg,
    /// Repeat the packet before a lost one instead of silence
    #[arg(long)]
    conceal: bool,
    /// Write the packets of a codec that is not decoded, one file per side: Opus as Ogg, others as ffmpeg reads them
    #[arg(long, conflicts_with = "conceal")]
    raw: bool,
}

/// Side of a call as an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum SideArg {
    /// Stereo: caller left, callee right
    Both,
    /// The caller alone, in mono
    Caller,
    /// The callee alone, in mono
    Callee,
}

impl Command for Args {
    const MANUAL: Manual = Manual {
        exits: &[(
            Exit::Incomplete,
            "Some of the audio could not be decoded, or the capture could not be read to its end.",
        )],
        files: &[manual::CALL_INDEX_FILES],
        examples: &[
            Example {
                text: "Write both sides of a call",
                command: "lea calls wav 6fb4bee7d5 interceptions -o call.wav",
            },
            Example {
                text: "Write the caller of the first call in a capture",
                command: "lea calls wav call.pcap#1 --side caller -o caller.wav",
            },
        ],
        see_also: &["lea-calls-list(1)", "lea-calls-rtp(1)"],
        ..manual::EMPTY
    };

    fn run(self, globals: &Globals) -> Result<Exit> {
        logging::start(globals.level(LevelFilter::Warn));
        let (mut found, exit) = self.call.find()?;
        let unreadable =
            |error: io::Error| Error::System { act: "read the packets of the call", source: error };
        let (plan, silent) = plan(&mut found).map_err(unreadable)?;
        let id = &found.call.id;
        if self.raw {
            return raw::write(&found, &plan, self.output.as_deref());
        }
        if ![Side::Caller, Side::Callee].into_iter().any(|side| plan.has_audio(side)) {
            let advice = "\"lea calls wav --raw\" writes what was received";
            let reason = reason(&found.call);
            return Err(Error::Usage(format!(
                "the call {id} has no audio that can be decoded: {reason} ({advice})"
            )));
        }
        let output = self.output.clone().unwrap_or_else(|| PathBuf::from(format!("{id}.wav")));
        let bytes = self.write(&found, &plan, &output)?;
        let seconds = plan.frames() as f64 / f64::from(plan.rate_hz());
        if output != Path::new("-") {
            logging::status_line(format_args!(
                "{}: {seconds:.1} s from {}, {} Hz, {bytes} bytes",
                escape(&output.display().to_string()),
                rfc3339_ns(plan.start_ns()),
                plan.rate_hz()
            ));
        }
        let PlanCounts { misplaced, over_limit, .. } = plan.counts();
        if misplaced + over_limit > 0 {
            logging::status_line(format_args!(
                "{misplaced} packets have no place on the clock of their stream, {over_limit} are over the limit"
            ));
        }
        if silent > 0 {
            logging::status_line(format_args!("{silent} packets were not decoded: {}", reason(&found.call)));
            return Ok(Exit::Incomplete);
        }
        Ok(exit)
    }
}

impl Args {
    fn write(&self, found: &FoundCall, plan: &Plan, output: &Path) -> Result<u64> {
        let channels = match self.side {
            SideArg::Both => Output::Both,
            SideArg::Caller => Output::One(Side::Caller),
            SideArg::Callee => Output::One(Side::Callee),
        };
        let wav = WavFile::new(plan.rate_hz(), channels.channels(), plan.frames())
            .map_err(|error| Error::Usage(error.to_string()))?;
        let unwritable = || Error::path("write", output);
        let mut file: Box<dyn Write> = match output == Path::new("-") {
            true => Box::new(BufWriter::new(io::stdout().lock())),
            false => Box::new(BufWriter::new(File::create(output).map_err(unwritable())?)),
        };
        let mut renderer = Renderer::new(plan, channels, self.conceal);
        let read = |place: u64, bytes: u16, payload: &mut Vec<u8>| {
            found.file.append(place, usize::from(bytes), payload)
        };
        let mut piece = Vec::new();
        let mut start = 0;
        while start < wav.bytes() {
            let end = wav.bytes().min(start + PIECE_BYTES);
            piece.clear();
            wav.read(start..end, |frames, samples| renderer.render(frames, read, samples), &mut piece)
                .map_err(unwritable())?;
            file.write_all(&piece).map_err(unwritable())?;
            start = end;
        }
        file.flush().map_err(unwritable())?;
        Ok(wav.bytes())
    }
}

/// Plans the audio of a call. Also returns the number of packets with audio that cannot be decoded.
fn plan(found: &mut FoundCall) -> io::Result<(Plan, u64)> {
    let FoundCall { call, file, reader } = found;
    let mut builder = PlanBuilder::new();
    let mut silent = 0;
    CallPackets::new(call).read(file, reader, |packet, place| {
        let CallPacket::Rtp { stream, header, payload, payload_offset } = packet else { return Ok(()) };
        let Some((stream_view, side)) = call.streams.get(stream).and_then(|view| Some((view, view.side?)))
        else {
            return Ok(());
        };
        let codec = codec(stream_view, header.payload_type).filter(|_| !stream_view.is_encrypted);
        let is_decoded = codec.is_some_and(AudioCodec::can_decode);
        let is_silent = payload_offset.is_none() || !is_decoded && is_audio(stream_view, header.payload_type);
        silent += u64::from(is_silent);
        builder.add(&AudioPacket {
            side,
            time_ns: place.time_ns,
            timestamp: header.timestamp,
            sequence: header.sequence,
            // The SSRC alone would join streams of several endpoints.
            stream: stream as u32,
            codec: codec.filter(|_| payload_offset.is_some()),
            place: payload_offset.unwrap_or_default(),
            bytes: u16::try_from(payload.len()).unwrap_or(u16::MAX),
        });
        Ok(())
    })?;
    Ok((builder.finish(), silent))
}

/// Codec of a payload type in a stream. `None`: it has no sound.
fn codec(stream: &MediaStream, payload_type: u8) -> Option<AudioCodec> {
    match stream.formats.iter().find(|format| format.payload_type == payload_type) {
        Some(format) if is_sound(&format.name) => {
            Some(AudioCodec::from_rtpmap(&format.name, format.clock_hz, format.channels))
        }
        Some(_) => None,
        None => AudioCodec::from_payload_type(payload_type),
    }
}

fn is_sound(name: &str) -> bool {
    !name.is_empty() && !["telephone-event", "CN", "red"].iter().any(|other| name.eq_ignore_ascii_case(other))
}

/// Reports whether a payload type is audio, whether it can be decoded or not.
fn is_audio(stream: &MediaStream, payload_type: u8) -> bool {
    match stream.formats.iter().find(|format| format.payload_type == payload_type) {
        Some(format) => is_sound(&format.name),
        // Comfort noise.
        None => !matches!(payload_type, 13 | 19),
    }
}

/// Says why audio was not decoded.
fn reason(call: &Call) -> String {
    if call.streams.is_empty() {
        return "no RTP stream belongs to it".to_owned();
    }
    if call.streams.iter().any(|stream| stream.is_encrypted) {
        return "it is encrypted (SRTP)".to_owned();
    }
    let codecs: Vec<&str> = call.codecs().into_keys().collect();
    format!("codec {}", codecs.join(", "))
}
