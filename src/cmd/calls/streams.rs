//! `lea calls rtp`: one row per RTP stream.

use serde_json::Value;

use super::rows::Rows;
use super::target::CaptureArgs;
use crate::calls::document;
use crate::calls::view::{Binding, MediaStream};
use crate::cmd::Command;
use crate::cmd::args::globals::Globals;
use crate::cmd::output::OutputFormatArgs;
use crate::cmd::output::table::Column;
use crate::manual::{self, Example, Manual};
use crate::runtime::logging::{self, LevelFilter};
use crate::{Exit, Result};

/// List the RTP streams in captures with their statistics
///
/// A stream is the packets of one SSRC from one address and port to another. LOST counts missing sequence numbers;
/// duplicates do not hide them. DUP, REORDERED and LATE (more than 200 ms) count packets. COPIES are packets that the
/// capture has twice, as mirror ports produce them; no other number includes them. JITTER is that of RFC 3550, DELTA the
/// time between packets, each as mean and maximum in milliseconds. MOS follows ITU-T G.107, for codecs with published
/// values.
///
/// CALL is empty for a stream that belongs to no call. BOUND says how it was assigned: sdp (its destination is in the SDP),
/// reverse (it is the other direction of such a stream), port (NAT changed the address).
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    captures: CaptureArgs,
    #[command(flatten)]
    format: OutputFormatArgs,
}

const HEADER: [&str; 20] = [
    "CALL",
    "SOURCE",
    "DESTINATION",
    "SSRC",
    "CODEC",
    "PACKETS",
    "LOST",
    "LOSS",
    "DUP",
    "REORDERED",
    "LATE",
    "COPIES",
    "RESTARTS",
    "DELTA",
    "DELTA MAX",
    "JITTER",
    "JITTER MAX",
    "MOS",
    "BOUND",
    "SIDE",
];

impl Command for Args {
    const MANUAL: Manual = Manual {
        exits: &[(
            Exit::Incomplete,
            "A capture could not be read to its end, or a limit of the analysis cut something off.",
        )],
        files: &[manual::CALL_INDEX_FILES],
        environment: &[manual::NO_COLOR_VARIABLE],
        examples: &[
            Example { text: "List the streams in a capture", command: "lea calls rtp call.pcap" },
            Example { text: "The same as CSV", command: "lea calls rtp interceptions --csv" },
        ],
        see_also: &["lea-calls-list(1)"],
        ..manual::EMPTY
    };

    fn run(self, globals: &Globals) -> Result<Exit> {
        logging::start(globals.level(LevelFilter::Warn));
        let mut streams: Vec<(String, MediaStream)> = Vec::new();
        let mut captures = self.captures.open()?;
        captures.each(|_, analysis| {
            for call in analysis.calls {
                streams.extend(call.streams.into_iter().map(|stream| (call.id.clone(), stream)));
            }
            streams.extend(analysis.unbound.into_iter().map(|stream| (String::new(), stream)));
            Ok(true)
        })?;
        let exit = captures.end();
        streams.sort_by_key(|(_, stream)| stream.first_ns);
        let output = Rows { header: &HEADER, columns: columns(), empty: "no RTP streams" };
        output.print(
            self.format.format(),
            &streams,
            |(call, stream)| cells(call, stream).into(),
            document,
        )?;
        Ok(exit)
    }
}

/// The document of a stream with its call and its windows.
fn document((call, stream): &(String, MediaStream)) -> Value {
    let mut document = document::stream(stream);
    document["windows"] = document::windows(stream);
    if !call.is_empty() {
        document["call"] = call.as_str().into();
    }
    document
}

fn columns() -> Vec<Column<'static>> {
    /// Order in which columns are dropped on a narrow terminal; 0 is never dropped.
    const RANKS: [u8; HEADER.len()] = [0, 0, 0, 5, 0, 0, 0, 0, 7, 8, 9, 10, 11, 12, 4, 6, 0, 3, 13, 14];
    let column = |(name, rank): (&'static str, u8)| {
        let column = Column::new(name).dropped(rank);
        match name {
            "CALL" | "SSRC" | "CODEC" | "BOUND" | "SIDE" => column.whole(),
            "SOURCE" | "DESTINATION" => column.shortened_to(15),
            _ => column.number(),
        }
    };
    HEADER.into_iter().zip(RANKS).map(column).collect()
}

fn cells(call: &str, stream: &MediaStream) -> [String; HEADER.len()] {
    let ms = |value: f64| format!("{value:.3}");
    let unique = stream.packets.saturating_sub(stream.duplicates);
    let loss = 100.0 * stream.lost as f64 / (stream.lost + unique).max(1) as f64;
    let bound = match stream.binding {
        Binding::Sdp => "sdp",
        Binding::Reverse => "reverse",
        Binding::Port => "port",
        Binding::None => "",
    };
    let estimated = if stream.is_clock_estimated { "~" } else { "" };
    [
        call.to_owned(),
        stream.source.to_string(),
        stream.destination.to_string(),
        format!("0x{:08x}", stream.ssrc),
        stream.codec.clone(),
        stream.packets.to_string(),
        stream.lost.to_string(),
        format!("{loss:.1}%"),
        stream.duplicates.to_string(),
        stream.reordered.to_string(),
        stream.late.to_string(),
        stream.copies.to_string(),
        stream.restarts.to_string(),
        ms(stream.delta_mean_ms),
        ms(stream.delta_max_ms),
        format!("{estimated}{}", ms(stream.jitter_mean_ms)),
        format!("{estimated}{}", ms(stream.jitter_max_ms)),
        stream.mos.map(|mos| format!("{mos:.1}")).unwrap_or_default(),
        bound.to_owned(),
        stream.side.map(|side| side.as_str().to_owned()).unwrap_or_default(),
    ]
}
