//! Frames and methods of AMQP 0-9-1 that a consumer needs, in both directions. Pure.
//!
//! Of the broker's methods only those that a consumer of one queue receives are decoded; others keep their numbers.
//! The sources are sections 2.3 and 4.2 of the specification 0-9-1, and its XML for the numbers.

/// First bytes that a client sends.
pub const PROTOCOL_HEADER: [u8; 8] = *b"AMQP\x00\x00\x09\x01";

/// Maximum size of an accepted frame, including its overhead; RabbitMQ's default.
pub const FRAME_BYTES_MAX: u32 = 131_072;

/// Frame size that every peer must accept.
pub const FRAME_BYTES_MIN: u32 = 4_096;

/// Bytes around a payload: type, channel and size before it, and the end byte after it.
pub const FRAME_OVERHEAD_BYTES: usize = 8;

const FRAME_END: u8 = 0xce;

const METHOD: u8 = 1;
const HEADER: u8 = 2;
const BODY: u8 = 3;
const HEARTBEAT: u8 = 8;

const CLASS_BASIC: u16 = 60;

/// The channel in use. Channel 0 is the connection itself.
pub const CHANNEL: u16 = 1;

/// A frame from the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerMethod<'a> {
    /// First method of a connection; the value lists the authentication mechanisms.
    Start(&'a str),
    /// Limits that the broker proposes.
    Tune {
        channel_max: u16,
        /// Maximum frame size; 0 for no limit.
        frame_max: u32,
        /// Seconds between heartbeats; 0 for none.
        heartbeat: u16,
    },
    OpenOk,
    ChannelOpenOk,
    QosOk,
    ConsumeOk,
    /// The queue was deleted.
    Cancel,
    /// Start of a message; header and body follow.
    Deliver {
        /// Delivery tag, unique on this channel.
        tag: u64,
        /// The broker may have delivered it before.
        redelivered: bool,
    },
    /// Content header of a message.
    Header {
        body_bytes: u64,
        /// The publisher's message ID.
        message_id: Option<&'a str>,
    },
    /// Part of a message's body.
    Body(&'a [u8]),
    Heartbeat,
    /// The broker closes the connection or the channel.
    Close {
        /// True for the connection, false for the channel.
        is_connection: bool,
        /// Reply code.
        code: u16,
        text: &'a str,
    },
    CloseOk,
    /// Another method, by class and method number.
    Other(u16, u16),
}

/// Reason why bytes are not valid AMQP 0-9-1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The broker requires another version: it replied with a protocol header.
    #[error("the broker does not support AMQP 0-9-1")]
    Version,
    /// A frame exceeds the negotiated size; the value is its payload's size.
    #[error("a frame of {0} bytes exceeds the negotiated size")]
    TooLarge(u32),
    /// A frame has no end byte.
    #[error("a frame has no end byte")]
    MissingEnd,
    /// The arguments of a method are truncated.
    #[error("a frame is truncated")]
    Truncated,
    #[error("a string is not valid UTF-8")]
    InvalidUtf8,
}

/// Decodes the first frame. Returns it with its size, or `None` if it is not complete.
pub fn parse_frame(
    bytes: &[u8],
    frame_bytes_max: u32,
) -> Result<Option<(ServerMethod<'_>, usize)>, FrameError> {
    if bytes.first() == Some(&PROTOCOL_HEADER[0]) {
        // No frame type has this value: it is a protocol header.
        return Err(FrameError::Version);
    }
    let Some((head, rest)) = bytes.split_first_chunk::<7>() else { return Ok(None) };
    let [kind, _, _, size @ ..] = *head;
    let size = u32::from_be_bytes(size);
    if size > frame_bytes_max.saturating_sub(FRAME_OVERHEAD_BYTES as u32) {
        return Err(FrameError::TooLarge(size));
    }
    let size = size as usize;
    let Some(end) = rest.get(size) else { return Ok(None) };
    if *end != FRAME_END {
        return Err(FrameError::MissingEnd);
    }
    let payload = &rest[..size];
    let said = match kind {
        METHOD => parse_method(payload)?,
        HEADER => parse_header(payload)?,
        BODY => ServerMethod::Body(payload),
        HEARTBEAT => ServerMethod::Heartbeat,
        kind => ServerMethod::Other(u16::from(kind), 0),
    };
    Ok(Some((said, size + FRAME_OVERHEAD_BYTES)))
}

fn parse_method(payload: &[u8]) -> Result<ServerMethod<'_>, FrameError> {
    let mut from = ArgumentReader(payload);
    let (class, method) = (from.short()?, from.short()?);
    Ok(match (class, method) {
        (10, 10) => {
            // Skips the version and the server's properties.
            from.short()?;
            from.long_bytes()?;
            ServerMethod::Start(parse_text(from.long_bytes()?)?)
        }
        (10, 30) => ServerMethod::Tune {
            channel_max: from.short()?,
            frame_max: from.long()?,
            heartbeat: from.short()?,
        },
        (10, 41) => ServerMethod::OpenOk,
        (20, 11) => ServerMethod::ChannelOpenOk,
        (60, 11) => ServerMethod::QosOk,
        (60, 21) => ServerMethod::ConsumeOk,
        (60, 30) => ServerMethod::Cancel,
        (60, 60) => {
            from.short_text()?;
            ServerMethod::Deliver { tag: from.long_long()?, redelivered: from.octet()? & 1 == 1 }
        }
        (10, 50) | (20, 40) => {
            ServerMethod::Close { is_connection: class == 10, code: from.short()?, text: from.short_text()? }
        }
        (10, 51) | (20, 41) => ServerMethod::CloseOk,
        _ => ServerMethod::Other(class, method),
    })
}

/// Decodes a content header. Properties have a fixed order; only the message ID is used.
fn parse_header(payload: &[u8]) -> Result<ServerMethod<'_>, FrameError> {
    let mut from = ArgumentReader(payload);
    // Skips class and weight.
    from.long()?;
    let body_bytes = from.long_long()?;
    let flags = from.short()?;
    // The lowest bit announces another word of flags. All known flags are in the first.
    let mut more = flags;
    while more & 1 == 1 {
        more = from.short()?;
    }
    let has = |bit: u16| flags & 1 << bit != 0;
    for (bit, kind) in [(15, 's'), (14, 's'), (13, 'l'), (12, 'o'), (11, 'o'), (10, 's'), (9, 's'), (8, 's')]
    {
        match kind {
            _ if !has(bit) => {}
            's' => drop(from.short_text()?),
            'l' => drop(from.long_bytes()?),
            _ => drop(from.octet()?),
        }
    }
    let message_id = if has(7) { Some(from.short_text()?) } else { None };
    Ok(ServerMethod::Header { body_bytes, message_id: message_id.filter(|id| !id.is_empty()) })
}

fn parse_text(bytes: &[u8]) -> Result<&str, FrameError> {
    std::str::from_utf8(bytes).map_err(|_| FrameError::InvalidUtf8)
}

struct ArgumentReader<'a>(&'a [u8]);

impl<'a> ArgumentReader<'a> {
    fn take(&mut self, bytes: usize) -> Result<&'a [u8], FrameError> {
        let (taken, rest) = self.0.split_at_checked(bytes).ok_or(FrameError::Truncated)?;
        self.0 = rest;
        Ok(taken)
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], FrameError> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(FrameError::Truncated)?;
        self.0 = rest;
        Ok(*taken)
    }

    fn octet(&mut self) -> Result<u8, FrameError> {
        self.fixed().map(|[octet]| octet)
    }

    fn short(&mut self) -> Result<u16, FrameError> {
        self.fixed().map(u16::from_be_bytes)
    }

    fn long(&mut self) -> Result<u32, FrameError> {
        self.fixed().map(u32::from_be_bytes)
    }

    fn long_long(&mut self) -> Result<u64, FrameError> {
        self.fixed().map(u64::from_be_bytes)
    }

    fn short_text(&mut self) -> Result<&'a str, FrameError> {
        let bytes = self.octet()?;
        parse_text(self.take(bytes.into())?)
    }

    fn long_bytes(&mut self) -> Result<&'a [u8], FrameError> {
        let bytes = self.long()?;
        self.take(bytes as usize)
    }
}

/// Encodes the frames that are sent to the broker.
#[derive(Debug, Default)]
pub struct FrameWriter {
    /// Frames that were not sent yet.
    pub bytes: Vec<u8>,
}

impl FrameWriter {
    /// Logs in with the mechanism PLAIN.
    pub fn start_ok(&mut self, user: &str, password: &str) {
        // Without the first capability, a broker that rejects the login closes the socket without a reason.
        let capabilities = encode_table(&[
            ("authentication_failure_close", b't', &[1]),
            ("consumer_cancel_notify", b't', &[1]),
        ]);
        let product = encode_long_text(b"lea");
        let properties = encode_table(&[("product", b'S', &product), ("capabilities", b'F', &capabilities)]);
        let login = format!("\0{user}\0{password}");
        let arguments = [
            &properties[..],
            &encode_short_text("PLAIN"),
            &encode_long_text(login.as_bytes()),
            &encode_short_text("en_US"),
        ];
        self.push_method(0, 10, 11, &arguments.concat());
    }

    /// Accepts the connection's limits.
    pub fn tune_ok(&mut self, channel_max: u16, frame_max: u32, heartbeat: u16) {
        let arguments = [&channel_max.to_be_bytes()[..], &frame_max.to_be_bytes(), &heartbeat.to_be_bytes()];
        self.push_method(0, 10, 31, &arguments.concat());
    }

    /// Opens the virtual host, whose name has at most 255 bytes.
    pub fn open(&mut self, vhost: &str) {
        self.push_method(0, 10, 40, &[&encode_short_text(vhost)[..], &[0, 0]].concat());
    }

    pub fn channel_open(&mut self) {
        self.push_method(CHANNEL, 20, 10, &[0]);
    }

    /// Sets the maximum of unacknowledged messages.
    pub fn qos(&mut self, prefetch: u16) {
        let arguments = [&[0; 4][..], &prefetch.to_be_bytes(), &[0]];
        self.push_method(CHANNEL, CLASS_BASIC, 10, &arguments.concat());
    }

    /// Starts to consume a queue, whose name has at most 255 bytes.
    pub fn consume(&mut self, queue: &str) {
        // The broker chooses the consumer's name. No flag is set: shared queue, explicit acknowledgements. No arguments.
        let arguments = [&[0, 0][..], &encode_short_text(queue), &encode_short_text(""), &[0], &[0; 4]];
        self.push_method(CHANNEL, CLASS_BASIC, 20, &arguments.concat());
    }

    /// Acknowledges all messages up to this one.
    pub fn ack_to(&mut self, tag: u64) {
        self.push_method(CHANNEL, CLASS_BASIC, 80, &[&tag.to_be_bytes()[..], &[1]].concat());
    }

    /// Rejects one message without requeueing it.
    pub fn reject(&mut self, tag: u64) {
        self.push_method(CHANNEL, CLASS_BASIC, 90, &[&tag.to_be_bytes()[..], &[0]].concat());
    }

    pub fn heartbeat(&mut self) {
        self.push_frame(HEARTBEAT, 0, &[]);
    }

    /// Closes the connection.
    pub fn close(&mut self) {
        let arguments = [&200_u16.to_be_bytes()[..], &encode_short_text("done"), &[0; 4]];
        self.push_method(0, 10, 50, &arguments.concat());
    }

    /// Confirms that the broker closed the connection or the channel.
    pub fn close_ok(&mut self, whole: bool) {
        let (channel, class, method) = if whole { (0, 10, 51) } else { (CHANNEL, 20, 41) };
        self.push_method(channel, class, method, &[]);
    }

    fn push_method(&mut self, channel: u16, class: u16, method: u16, arguments: &[u8]) {
        let payload = [&class.to_be_bytes()[..], &method.to_be_bytes(), arguments].concat();
        self.push_frame(METHOD, channel, &payload);
    }

    fn push_frame(&mut self, kind: u8, channel: u16, payload: &[u8]) {
        self.bytes.push(kind);
        self.bytes.extend_from_slice(&channel.to_be_bytes());
        self.bytes.extend_from_slice(&(payload.len() as u32).to_be_bytes());
        self.bytes.extend_from_slice(payload);
        self.bytes.push(FRAME_END);
    }
}

fn encode_short_text(text: &str) -> Vec<u8> {
    let mut bytes = vec![u8::try_from(text.len()).expect("names were checked to have at most 255 bytes")];
    bytes.extend_from_slice(text.as_bytes());
    bytes
}

fn encode_long_text(text: &[u8]) -> Vec<u8> {
    [&(text.len() as u32).to_be_bytes()[..], text].concat()
}

fn encode_table(entries: &[(&str, u8, &[u8])]) -> Vec<u8> {
    let entry =
        |(name, kind, value): &(&str, u8, &[u8])| [&encode_short_text(name)[..], &[*kind], value].concat();
    encode_long_text(&entries.iter().flat_map(entry).collect::<Vec<u8>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        let mut writer = FrameWriter::default();
        writer.push_frame(kind, 1, payload);
        writer.bytes
    }

    fn of(class: u16, method: u16, arguments: &[u8]) -> Vec<u8> {
        let mut writer = FrameWriter::default();
        writer.push_method(1, class, method, arguments);
        writer.bytes
    }

    /// Checks that nothing is decoded before the frame's last byte, and the expected method after it.
    #[track_caller]
    fn check(bytes: &[u8], expected: ServerMethod<'_>) {
        let with_more = [bytes, b"\x08"].concat();
        for end in 0..bytes.len() {
            assert_eq!(parse_frame(&bytes[..end], FRAME_BYTES_MAX), Ok(None), "{end}");
        }
        assert_eq!(parse_frame(&with_more, FRAME_BYTES_MAX), Ok(Some((expected, bytes.len()))));
    }

    #[test]
    fn methods_of_a_broker_are_decoded() {
        let start = [
            &[0, 9][..],
            &encode_table(&[("x", b't', &[1])]),
            &encode_long_text(b"PLAIN AMQPLAIN"),
            &encode_long_text(b"en_US"),
        ];
        check(&of(10, 10, &start.concat()), ServerMethod::Start("PLAIN AMQPLAIN"));
        let tune = [&2047_u16.to_be_bytes()[..], &131_072_u32.to_be_bytes(), &60_u16.to_be_bytes()];
        check(
            &of(10, 30, &tune.concat()),
            ServerMethod::Tune { channel_max: 2047, frame_max: 131_072, heartbeat: 60 },
        );
        check(&of(10, 41, &[0]), ServerMethod::OpenOk);
        check(&of(20, 11, &[0; 4]), ServerMethod::ChannelOpenOk);
        check(&of(60, 11, &[]), ServerMethod::QosOk);
        check(&of(60, 21, &encode_short_text("c")), ServerMethod::ConsumeOk);
        check(&of(60, 30, &encode_short_text("c")), ServerMethod::Cancel);
        let deliver = [
            &encode_short_text("c")[..],
            &7_u64.to_be_bytes(),
            &[1],
            &encode_short_text(""),
            &encode_short_text("q"),
        ];
        check(&of(60, 60, &deliver.concat()), ServerMethod::Deliver { tag: 7, redelivered: true });
        let close = [&404_u16.to_be_bytes()[..], &encode_short_text("NOT_FOUND"), &[0; 4]].concat();
        check(
            &of(20, 40, &close),
            ServerMethod::Close { is_connection: false, code: 404, text: "NOT_FOUND" },
        );
        check(&of(10, 50, &close), ServerMethod::Close { is_connection: true, code: 404, text: "NOT_FOUND" });
        check(&of(10, 51, &[]), ServerMethod::CloseOk);
        check(&of(10, 60, &encode_short_text("low on memory")), ServerMethod::Other(10, 60));
        check(&frame(BODY, b"{}"), ServerMethod::Body(b"{}"));
        check(&frame(HEARTBEAT, b""), ServerMethod::Heartbeat);
    }

    #[test]
    fn the_message_id_is_found_after_other_properties() {
        let header = |flags: &[u8], properties: &[u8]| {
            let body = 5_u64.to_be_bytes();
            frame(HEADER, &[&[0, 60, 0, 0][..], &body, flags, properties].concat())
        };
        let said = |message_id| ServerMethod::Header { body_bytes: 5, message_id };
        check(&header(&[0, 0], &[]), said(None));
        check(&header(&[0, 0x80], &encode_short_text("m-1")), said(Some("m-1")));
        check(&header(&[0, 0x80], &encode_short_text("")), said(None));
        check(&header(&[0, 0x81, 0, 0], &encode_short_text("m-1")), said(Some("m-1")));
        let all = [
            encode_short_text("application/json"),
            encode_short_text("utf-8"),
            encode_table(&[("a", b't', &[1])]),
            vec![2, 0],
            encode_short_text("correlation"),
            encode_short_text("reply"),
            encode_short_text("60000"),
            encode_short_text("m-1"),
            9_u64.to_be_bytes().to_vec(),
        ];
        check(&header(&[0xff, 0xc0], &all.concat()), said(Some("m-1")));
    }

    #[test]
    fn invalid_frames_are_rejected() {
        assert_eq!(parse_frame(b"AMQP\x00\x01\x00\x00", FRAME_BYTES_MAX), Err(FrameError::Version));
        let good = frame(BODY, &[0; 92]);
        assert!(parse_frame(&good, 100).unwrap().is_some());
        assert_eq!(parse_frame(&good, 99), Err(FrameError::TooLarge(92)));
        let mut bad = good.clone();
        *bad.last_mut().unwrap() = 0;
        assert_eq!(parse_frame(&bad, 100), Err(FrameError::MissingEnd));
        assert_eq!(parse_frame(&frame(METHOD, &[0, 60, 0]), 100), Err(FrameError::Truncated));
        assert_eq!(parse_frame(&of(60, 60, &[200, b'x']), 100), Err(FrameError::Truncated));
        assert_eq!(parse_frame(&of(20, 40, &[0, 0, 1, 0xff]), 100), Err(FrameError::InvalidUtf8));
        assert_eq!(
            parse_frame(&frame(HEADER, &[0; 14]), 100).unwrap().unwrap().0,
            ServerMethod::Header { body_bytes: 0, message_id: None }
        );
        assert_eq!(parse_frame(&frame(HEADER, &[0xff; 20]), 100), Err(FrameError::Truncated));
    }

    #[test]
    fn encoded_frames_can_be_decoded() {
        let mut writer = FrameWriter::default();
        writer.heartbeat();
        writer.close();
        writer.close_ok(true);
        writer.tune_ok(0, 4096, 60);
        let mut rest = &writer.bytes[..];
        let mut said = Vec::new();
        while let Some((next, bytes)) = parse_frame(rest, FRAME_BYTES_MAX).unwrap() {
            said.push(format!("{next:?}"));
            rest = &rest[bytes..];
        }
        assert_eq!(
            said,
            [
                "Heartbeat",
                "Close { is_connection: true, code: 200, text: \"done\" }",
                "CloseOk",
                "Other(10, 31)"
            ]
        );
    }
}
