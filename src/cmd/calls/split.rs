//! `lea calls split`: one capture per call.

use std::fs::{self, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use super::target::{CaptureArgs, open_capture};
use crate::calls::capture_file::{CaptureFile, RecordReader};
use crate::calls::extract::{CallPackets, RawPacket};
use crate::calls::view::Call;
use crate::cmd::Command;
use crate::cmd::args::globals::Globals;
use crate::manual::{self, Example, Manual};
use crate::runtime::logging::{self, LevelFilter};
use crate::{Error, Exit, Result};

/// Magic number of a pcap file with nanoseconds, and its version.
const PCAP_NANOSECONDS: u32 = 0xa1b2_3c4d;
const PCAP_VERSION: u32 = 0x0004_0002;
const SNAPLEN: u32 = 262_144;

/// Write one capture per call
///
/// Each file has the call's SIP messages, RTP, RTCP and the fragments of these, as they were captured, and is named after the
/// call's ID and numbers. Existing files are not overwritten.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    captures: CaptureArgs,
    /// Directory for the captures; created if it does not exist
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    /// Only the call with this ID, or IDs that start with it
    #[arg(long, value_name = "ID")]
    call: Option<String>,
}

impl Command for Args {
    const MANUAL: Manual = Manual {
        exits: &[(
            Exit::Incomplete,
            "A capture could not be read to its end, or has packets of several link types.",
        )],
        files: &[manual::CALL_INDEX_FILES],
        examples: &[
            Example { text: "Split a capture", command: "lea calls split call.pcap --output calls" },
            Example {
                text: "Write one call",
                command: "lea calls split interceptions --call 6fb4bee7d5 --output one",
            },
        ],
        see_also: &["lea-calls-list(1)", "lea-mend(1)"],
        ..manual::EMPTY
    };

    fn run(self, globals: &Globals) -> Result<Exit> {
        logging::start(globals.level(LevelFilter::Warn));
        fs::create_dir_all(&self.output).map_err(Error::path("create the directory", &self.output))?;
        let (mut written, mut skipped) = (0_u64, 0_u64);
        let mut captures = self.captures.open()?;
        captures.each(|path, analysis| {
            let is_wanted = |call: &&Call| self.call.as_ref().is_none_or(|id| call.id.starts_with(id));
            let mut file = open_capture(path).map_err(Error::path("open", path))?;
            for call in analysis.calls.iter().filter(is_wanted) {
                skipped += write_call(call, &mut file, &analysis.reader, &self.output)?;
                written += 1;
            }
            Ok(true)
        })?;
        let exit = captures.end();
        logging::status_line(format_args!("{written} captures in {}", self.output.display()));
        if skipped > 0 {
            logging::status_line(format_args!(
                "{skipped} packets were left out: their link type is not that of their call's first packet"
            ));
            return Ok(Exit::Incomplete);
        }
        Ok(exit)
    }
}

/// Writes the capture of a call. Returns the number of packets that it cannot have, because of their link type.
fn write_call(call: &Call, file: &mut CaptureFile, reader: &RecordReader, dir: &Path) -> Result<u64> {
    let path = dir.join(file_name(call));
    let unwritable = || Error::path("write", &path);
    let output =
        OpenOptions::new().write(true).create_new(true).open(&path).map_err(Error::path("create", &path))?;
    let mut output = BufWriter::new(output);
    let mut link_type: Option<u32> = None;
    let mut skipped = 0;
    let read = CallPackets::new(call).read_raw(file, reader, |packet| {
        match link_type {
            None => write_header(&mut output, packet.link_type)?,
            Some(known) if known != packet.link_type => {
                skipped += 1;
                return Ok(());
            }
            Some(_) => {}
        }
        link_type = Some(packet.link_type);
        write_packet(&mut output, &packet)
    });
    read.and_then(|()| output.flush()).map_err(unwritable())?;
    Ok(skipped)
}

fn write_header(output: &mut impl Write, link_type: u32) -> io::Result<()> {
    for word in [PCAP_NANOSECONDS, PCAP_VERSION, 0, 0, SNAPLEN, link_type] {
        output.write_all(&word.to_le_bytes())?;
    }
    Ok(())
}

fn write_packet(output: &mut impl Write, packet: &RawPacket) -> io::Result<()> {
    let seconds = packet.time_ns.div_euclid(1_000_000_000) as u32;
    let fraction = packet.time_ns.rem_euclid(1_000_000_000) as u32;
    for word in [seconds, fraction, packet.bytes.len() as u32, packet.original] {
        output.write_all(&word.to_le_bytes())?;
    }
    output.write_all(&packet.bytes)
}

/// `6fb4bee7d5_+447700900123_+447700900456.pcap`. Everything but letters, digits and `+-.` becomes `_`.
fn file_name(call: &Call) -> String {
    let safe = |text: &str| -> String {
        let is_safe = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
        text.chars().take(32).map(|c| if is_safe(c) { c } else { '_' }).collect()
    };
    format!("{}_{}_{}.pcap", call.id, safe(&call.caller.user), safe(&call.callee.user))
}
