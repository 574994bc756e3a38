//! Ladder of a call: endpoints as columns, messages, RTP streams and digits as rows. Pure.
//!
//! [`Ladder::of`] makes the model. [`text::render`] prints it for a terminal. JSON is the serialized model, and pictures
//! are drawn from it. The model contains texts of peers as they are: they must be escaped when they are shown.

mod columns;
mod text;

use serde::{Serialize, Serializer};

pub(crate) use columns::{Address, Column};
pub(crate) use text::{RenderOptions, render};

use super::endpoint::Endpoint;
use super::view::{Binding, Call, CallMessage, Digit, Finding, MediaStream, Side, SipTransport};
use columns::Columns;

/// Rows of a ladder. A call has at most 2,000 messages, but an attacker can send a stream per packet, or digits for hours,
/// and nobody reads more. Rows over the limit are counted in [`Ladder::rows_omitted`].
pub(crate) const ROWS_MAX: usize = 4_096;

/// Step back of the clock that still counts as packets out of order, such as those of two interfaces. After a larger step,
/// the clock was set, and the order of the file is kept.
const DISORDER_NS: i64 = 1_000_000_000;

/// Choices of the reader.
#[derive(Clone, Debug, Default)]
pub(crate) struct LadderOptions {
    /// Groups of addresses that share a column.
    pub join: Vec<Vec<Address>>,
    /// Names that are shown instead of addresses. The first that matches counts.
    pub names: Vec<(Address, String)>,
    /// Whether DTMF digits get rows.
    pub has_digits: bool,
}

/// Ladder of a call.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Ladder {
    pub columns: Vec<Column>,
    /// In the order of time.
    pub rows: Vec<Row>,
    /// What an analyst should look at.
    pub notes: Vec<Note>,
    /// Endpoints over the limit of columns, which share the last column.
    pub endpoints_omitted: u64,
    /// Rows over [`ROWS_MAX`]: the last ones.
    pub rows_omitted: u64,
}

/// Row of a ladder.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Row {
    /// Nanoseconds since 1970.
    pub time_ns: i64,
    /// Nanoseconds since the first row, and since the row before. Never negative, even if the clock was set back.
    pub since_start_ns: i64,
    pub since_previous_ns: i64,
    pub arrow: Option<Arrow>,
    pub content: Content,
}

/// Arrow from one column to another, or to the same one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Arrow {
    /// Indices of columns.
    pub from: usize,
    pub to: usize,
    #[serde(serialize_with = "as_text")]
    pub source: Endpoint,
    #[serde(serialize_with = "as_text")]
    pub destination: Endpoint,
}

fn as_text<S: Serializer>(endpoint: &Endpoint, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(endpoint)
}

/// What happened in a row.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum Content {
    Message {
        /// `INVITE`, or `200 OK`.
        text: String,
        code: Option<u16>,
        has_sdp: bool,
        /// Number of times that the message was sent: 1 and its retransmissions.
        count: u64,
        transport: SipTransport,
    },
    Stream(StreamSpan),
    Digit {
        digit: char,
        duration_ms: u32,
        /// Sent by SIP INFO, otherwise by RTP (RFC 4733).
        is_info: bool,
    },
    /// Messages that the analysis did not keep.
    Omitted {
        messages: u64,
    },
}

/// RTP stream as a row, at its first packet.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct StreamSpan {
    pub codec: String,
    pub ssrc: u32,
    pub side: Option<Side>,
    pub binding: Binding,
    pub is_encrypted: bool,
    pub packets: u64,
    /// Time between the first and the last packet.
    pub duration_ns: i64,
    pub lost: u64,
    /// RFC 3550 section 6.4.1.
    pub jitter_max_ms: f64,
}

/// Finding with an explanation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Note {
    pub finding: Finding,
    pub text: String,
}

impl Ladder {
    pub(crate) fn of(call: &Call, options: &LadderOptions) -> Ladder {
        let mut columns = Columns::new(options);
        let mut rows: Vec<(i64, Row)> = Vec::new();
        for (key_ns, message) in in_order(&call.messages) {
            rows.push((key_ns, message_row(message, &mut columns)));
        }
        let sides = columns.find_sides(&call.messages);
        for stream in &call.streams {
            let arrow = columns.place_stream(stream, sides);
            rows.push((stream.first_ns, stream_row(stream, arrow)));
            if options.has_digits {
                let row = |digit: &Digit| (digit.time_ns, digit_row(digit, Some(arrow), false));
                rows.extend(stream.digits.iter().map(row));
            }
        }
        if options.has_digits {
            let of_side = |digit: &Digit| info_arrow(&call.messages, digit.side, &mut columns);
            let arrows: Vec<Option<Arrow>> = call.info_digits.iter().map(of_side).collect();
            let digits = call.info_digits.iter().zip(arrows);
            rows.extend(digits.map(|(digit, arrow)| (digit.time_ns, digit_row(digit, arrow, true))));
        }
        // Stable: at the same time, messages are before streams, and streams before digits.
        rows.sort_by_key(|(key_ns, _)| *key_ns);
        let rows_omitted = rows.len().saturating_sub(ROWS_MAX) as u64;
        rows.truncate(ROWS_MAX);
        let mut rows = measure(rows);
        rows.extend(omitted_row(call, rows.last()));
        let notes = call.findings.iter().map(|finding| note(*finding, call)).collect();
        let endpoints_omitted = columns.omitted();
        Ladder { columns: columns.into_columns(), rows, notes, endpoints_omitted, rows_omitted }
    }
}

/// Returns the messages in the order of time, with the time that orders them.
fn in_order(messages: &[CallMessage]) -> Vec<(i64, &CallMessage)> {
    let mut max_ns = i64::MIN;
    let mut keyed = Vec::with_capacity(messages.len());
    for message in messages {
        let time_ns = message.place.time_ns;
        let is_set_back = time_ns < max_ns.saturating_sub(DISORDER_NS);
        max_ns = max_ns.max(time_ns);
        keyed.push((if is_set_back { max_ns } else { time_ns }, message));
    }
    keyed.sort_by_key(|(key_ns, _)| *key_ns);
    keyed
}

/// Sets the times between rows.
fn measure(rows: Vec<(i64, Row)>) -> Vec<Row> {
    let first_ns = rows.first().map_or(0, |(key_ns, _)| *key_ns);
    let mut previous_ns = first_ns;
    let set = |(key_ns, mut row): (i64, Row)| {
        row.since_start_ns = key_ns.saturating_sub(first_ns);
        row.since_previous_ns = key_ns.saturating_sub(previous_ns);
        previous_ns = key_ns;
        row
    };
    rows.into_iter().map(set).collect()
}

fn new_row(time_ns: i64, arrow: Option<Arrow>, content: Content) -> Row {
    Row { time_ns, since_start_ns: 0, since_previous_ns: 0, arrow, content }
}

fn message_row(message: &CallMessage, columns: &mut Columns<'_>) -> Row {
    let content = Content::Message {
        text: message.text.clone(),
        code: message.code,
        has_sdp: message.has_sdp,
        count: u64::from(message.retransmissions) + 1,
        transport: message.transport,
    };
    let arrow = columns.place_message(message.source, message.destination);
    new_row(message.place.time_ns, Some(arrow), content)
}

fn stream_row(stream: &MediaStream, arrow: Arrow) -> Row {
    let content = Content::Stream(StreamSpan {
        codec: stream.codec.clone(),
        ssrc: stream.ssrc,
        side: stream.side,
        binding: stream.binding,
        is_encrypted: stream.is_encrypted,
        packets: stream.packets,
        duration_ns: stream.last_ns.saturating_sub(stream.first_ns).max(0),
        lost: stream.lost,
        jitter_max_ms: stream.jitter_max_ms,
    });
    new_row(stream.first_ns, Some(arrow), content)
}

fn digit_row(digit: &Digit, arrow: Option<Arrow>, is_info: bool) -> Row {
    let content = Content::Digit { digit: digit.digit, duration_ms: digit.duration_ms, is_info };
    new_row(digit.time_ns, arrow, content)
}

/// Returns the arrow of a digit of SIP INFO: that of the first message, or against it if the callee sent the digit.
fn info_arrow(messages: &[CallMessage], side: Option<Side>, columns: &mut Columns<'_>) -> Option<Arrow> {
    let first = messages.first()?;
    Some(match side {
        Some(Side::Callee) => columns.place_message(first.destination, first.source),
        Some(Side::Caller) | None => columns.place_message(first.source, first.destination),
    })
}

fn omitted_row(call: &Call, last: Option<&Row>) -> Option<Row> {
    if call.messages_omitted == 0 {
        return None;
    }
    let content = Content::Omitted { messages: call.messages_omitted };
    let since_start_ns = last.map_or(0, |row| row.since_start_ns);
    Some(Row { since_start_ns, ..new_row(last.map_or(call.last_ns, |row| row.time_ns), None, content) })
}

fn note(finding: Finding, call: &Call) -> Note {
    let sum = |count: fn(&MediaStream) -> u64| -> u64 {
        call.streams.iter().fold(0, |sum, stream| sum.saturating_add(count(stream)))
    };
    let text = match finding {
        Finding::NoMedia => "the call was answered, but no RTP was seen".to_owned(),
        Finding::OneWay => match call.silent_side() {
            Some(side) => format!("RTP from one side only: the {} is silent", side.as_str()),
            None => "RTP from one side only".to_owned(),
        },
        Finding::MediaAfterBye => "RTP went on for more than 2 s after the BYE".to_owned(),
        Finding::NoBye => "the call was answered, but there is no BYE".to_owned(),
        Finding::SeveralAnswers => "several forks of the call were answered".to_owned(),
        Finding::Copies => format!("the capture has {} packets twice", sum(|stream| stream.copies)),
        Finding::CaptureHasGap => {
            let lost = sum(|stream| stream.lost_by_capture);
            format!("the capture has a gap: the recorder lost {lost} RTP packets")
        }
        Finding::Srtp => "the media are encrypted".to_owned(),
        Finding::Loss => format!("{} RTP packets were lost", sum(|stream| stream.lost)),
        Finding::Cut => "a limit of the analysis cut the call short".to_owned(),
    };
    Note { finding, text }
}
