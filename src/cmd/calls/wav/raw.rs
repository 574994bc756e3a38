//! `lea calls wav --raw`: the packets of a side, without decoding.

use std::fs;
use std::path::{Path, PathBuf};

use super::FoundCall;
use crate::calls::audio::{AudioCodec, OpusFile, Plan, RawFormat};
use crate::calls::view::{MediaStream, Side};
use crate::runtime::logging;
use crate::runtime::terminal::escape;
use crate::{Error, Exit, Result};

/// Clock of Opus in Ogg (RFC 7845 section 4).
const OPUS_CLOCK_HZ: u32 = 48_000;

/// Form of a side's file.
enum RawFile {
    Opus,
    Frames(RawFormat),
}

/// Writes a file per side. `output` is the start of their names; the call's ID if there is none.
pub(super) fn write(found: &FoundCall, plan: &Plan, output: Option<&Path>) -> Result<Exit> {
    let mut files = 0;
    let mut malformed = 0_u64;
    for side in [Side::Caller, Side::Callee] {
        let Some((stream, kind)) = file_kind(found, side) else { continue };
        let extension = match kind {
            RawFile::Opus => "opus",
            RawFile::Frames(format) => format.extension(),
        };
        let stem = output.map_or_else(|| PathBuf::from(&found.call.id), |path| path.with_extension(""));
        let path = PathBuf::from(format!("{}-{}.{extension}", stem.display(), side.as_str()));
        let (bytes, refused) = encode(found, plan, side, &kind)?;
        fs::write(&path, &bytes).map_err(Error::path("write", &path))?;
        malformed += refused;
        files += 1;
        let name = escape(&path.display().to_string());
        let hint = match kind {
            RawFile::Opus => String::new(),
            RawFile::Frames(format) if format.ffmpeg_options().is_empty() => String::new(),
            RawFile::Frames(format) => format!("; for ffmpeg: {} -i FILE", format.ffmpeg_options()),
        };
        logging::status_line(format_args!(
            "{name}: {} bytes, codec {}{hint}",
            bytes.len(),
            escape(&stream.codec)
        ));
    }
    if files == 0 {
        let reason = format!("the call {} has no stream of a codec that can be written raw", found.call.id);
        return Err(Error::Usage(format!("{reason}: {}", super::reason(&found.call))));
    }
    if malformed > 0 {
        logging::status_line(format_args!("{malformed} packets are malformed and were left out"));
        return Ok(Exit::Incomplete);
    }
    Ok(Exit::Done)
}

/// The longest stream of a side, and the form of its file.
fn file_kind(found: &FoundCall, side: Side) -> Option<(&MediaStream, RawFile)> {
    let streams =
        found.call.streams.iter().filter(|stream| stream.side == Some(side) && !stream.is_encrypted);
    let stream = streams.max_by_key(|stream| stream.packets)?;
    let format = stream.formats.iter().find(|format| format.name == stream.codec);
    let parameters = format.map_or("", |format| format.parameters.as_str());
    let kind = match stream.codec.eq_ignore_ascii_case("opus") {
        true => RawFile::Opus,
        false => RawFile::Frames(RawFormat::from_sdp(&stream.codec, parameters)?),
    };
    Some((stream, kind))
}

/// Returns the file, and the number of malformed packets.
fn encode(found: &FoundCall, plan: &Plan, side: Side, kind: &RawFile) -> Result<(Vec<u8>, u64)> {
    let unreadable = |error| Error::System { act: "read the packets of the call", source: error };
    let (mut bytes, mut payload, mut malformed) = (Vec::new(), Vec::new(), 0);
    let mut opus = OpusFile::new(1);
    if let RawFile::Frames(format) = kind {
        bytes.extend_from_slice(format.header());
    }
    for packet in plan.packets(side, OPUS_CLOCK_HZ) {
        let is_it = match kind {
            RawFile::Opus => packet.codec == AudioCodec::Opus,
            RawFile::Frames(_) => matches!(packet.codec, AudioCodec::Other { .. }),
        };
        if !is_it {
            continue;
        }
        payload.clear();
        found.file.append(packet.place, usize::from(packet.bytes), &mut payload).map_err(unreadable)?;
        match kind {
            RawFile::Opus => opus.add(packet.position, &payload, &mut bytes),
            RawFile::Frames(format) => malformed += u64::from(format.append(&payload, &mut bytes).is_none()),
        }
    }
    if let RawFile::Opus = kind {
        opus.finish(&mut bytes);
    }
    Ok((bytes, malformed))
}
