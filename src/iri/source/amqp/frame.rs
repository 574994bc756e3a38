//! AMQP 0-9-1 as far as a consumer needs it: frames and methods, both ways. Pure.
//!
//! Of the broker's methods only those that a consumer of one queue is sent are read; others are named by their numbers.
//! (Specification 0-9-1, sections 2.3 and 4.2; the numbers are those of its XML.)

/// What a client says first.
pub const PROTOCOL_HEADER: [u8; 8] = *b"AMQP\x00\x00\x09\x01";

/// A frame's bytes, those around its payload included, that are taken: the broker's own default.
pub const FRAME_BYTES_MAX: u32 = 131_072;

/// A frame that every broker and client takes.
pub const FRAME_BYTES_MIN: u32 = 4_096;

/// Type, channel and size before a payload, and the byte behind it.
pub const FRAME_BYTES_AROUND: usize = 8;

const FRAME_END: u8 = 0xce;

const METHOD: u8 = 1;
const HEADER: u8 = 2;
const BODY: u8 = 3;
const HEARTBEAT: u8 = 8;

const CLASS_BASIC: u16 = 60;

/// The channel that all is done on; 0 is the connection itself.
pub const CHANNEL: u16 = 1;

/// What the broker says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said<'a> {
    /// The first of a connection, with the mechanisms of logging in.
    Start(&'a str),
    /// What it wants of the connection.
    Tune {
        /// Channels.
        channel_max: u16,
        /// A frame's bytes; 0: no bound.
        frame_max: u32,
        /// Seconds between two signs of life; 0: none.
        heartbeat: u16,
    },
    /// The connection is open.
    OpenOk,
    /// The channel is open.
    ChannelOpenOk,
    /// The bound of what is not acknowledged is set.
    QosOk,
    /// Messages come from now on.
    ConsumeOk,
    /// The queue is gone.
    Cancel,
    /// A message, whose content follows.
    Deliver {
        /// Its number on this channel.
        tag: u64,
        /// It may have been delivered before.
        redelivered: bool,
    },
    /// The content's head.
    Header {
        /// The body's bytes.
        body_bytes: u64,
        /// The publisher's id of the message.
        message_id: Option<&'a str>,
    },
    /// A part of the body.
    Body(&'a [u8]),
    /// The broker lives.
    Heartbeat,
    /// The broker closes the connection, or the channel (`whole`: the connection).
    Close {
        /// All of it.
        whole: bool,
        /// The reason's number.
        code: u16,
        /// The reason.
        text: &'a str,
    },
    /// Our closing is done.
    CloseOk,
    /// Something else, which concerns publishers.
    Other(u16, u16),
}

/// What is no AMQP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// The broker speaks another version: it answers with the header of its own.
    #[error("the broker does not speak AMQP 0-9-1")]
    Version,
    /// A frame is larger than was agreed.
    #[error("a frame of {0} bytes, more than was agreed")]
    TooLarge(u32),
    /// It does not end where it has to.
    #[error("a frame without its end")]
    End,
    /// Its content breaks off.
    #[error("a frame that breaks off")]
    Short,
    /// A text that is none.
    #[error("a text that is not UTF-8")]
    Text,
}

/// The first frame of what came, and how many bytes it has; none: more has to come.
pub fn read(bytes: &[u8], frame_bytes_max: u32) -> Result<Option<(Said<'_>, usize)>, Broken> {
    if bytes.first() == Some(&PROTOCOL_HEADER[0]) {
        // No frame has that type: it is a header, as a client would send it.
        return Err(Broken::Version);
    }
    let Some((head, rest)) = bytes.split_first_chunk::<7>() else { return Ok(None) };
    let [kind, _, _, size @ ..] = *head;
    let size = u32::from_be_bytes(size);
    if size > frame_bytes_max.saturating_sub(FRAME_BYTES_AROUND as u32) {
        return Err(Broken::TooLarge(size));
    }
    let size = size as usize;
    let Some(end) = rest.get(size) else { return Ok(None) };
    if *end != FRAME_END {
        return Err(Broken::End);
    }
    let payload = &rest[..size];
    let said = match kind {
        METHOD => method(payload)?,
        HEADER => header(payload)?,
        BODY => Said::Body(payload),
        HEARTBEAT => Said::Heartbeat,
        kind => Said::Other(u16::from(kind), 0),
    };
    Ok(Some((said, size + FRAME_BYTES_AROUND)))
}

fn method(payload: &[u8]) -> Result<Said<'_>, Broken> {
    let mut from = Reader(payload);
    let (class, method) = (from.short()?, from.short()?);
    Ok(match (class, method) {
        (10, 10) => {
            // Version, then the broker's properties.
            from.short()?;
            from.long_bytes()?;
            Said::Start(text(from.long_bytes()?)?)
        }
        (10, 30) => {
            Said::Tune { channel_max: from.short()?, frame_max: from.long()?, heartbeat: from.short()? }
        }
        (10, 41) => Said::OpenOk,
        (20, 11) => Said::ChannelOpenOk,
        (60, 11) => Said::QosOk,
        (60, 21) => Said::ConsumeOk,
        (60, 30) => Said::Cancel,
        (60, 60) => {
            from.short_text()?;
            Said::Deliver { tag: from.long_long()?, redelivered: from.octet()? & 1 == 1 }
        }
        (10, 50) | (20, 40) => {
            Said::Close { whole: class == 10, code: from.short()?, text: from.short_text()? }
        }
        (10, 51) | (20, 41) => Said::CloseOk,
        _ => Said::Other(class, method),
    })
}

/// Properties stand in a fixed order, those that there are; only the message's id is wanted.
fn header(payload: &[u8]) -> Result<Said<'_>, Broken> {
    let mut from = Reader(payload);
    // Class and weight.
    from.long()?;
    let body_bytes = from.long_long()?;
    let flags = from.short()?;
    // With the lowest bit more flags follow; all known ones fit into the first.
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
    Ok(Said::Header { body_bytes, message_id: message_id.filter(|id| !id.is_empty()) })
}

fn text(bytes: &[u8]) -> Result<&str, Broken> {
    std::str::from_utf8(bytes).map_err(|_| Broken::Text)
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, bytes: usize) -> Result<&'a [u8], Broken> {
        let (taken, rest) = self.0.split_at_checked(bytes).ok_or(Broken::Short)?;
        self.0 = rest;
        Ok(taken)
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], Broken> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(Broken::Short)?;
        self.0 = rest;
        Ok(*taken)
    }

    fn octet(&mut self) -> Result<u8, Broken> {
        self.fixed().map(|[octet]| octet)
    }

    fn short(&mut self) -> Result<u16, Broken> {
        self.fixed().map(u16::from_be_bytes)
    }

    fn long(&mut self) -> Result<u32, Broken> {
        self.fixed().map(u32::from_be_bytes)
    }

    fn long_long(&mut self) -> Result<u64, Broken> {
        self.fixed().map(u64::from_be_bytes)
    }

    fn short_text(&mut self) -> Result<&'a str, Broken> {
        let bytes = self.octet()?;
        text(self.take(bytes.into())?)
    }

    fn long_bytes(&mut self) -> Result<&'a [u8], Broken> {
        let bytes = self.long()?;
        self.take(bytes as usize)
    }
}

/// What is said to the broker, frame by frame.
#[derive(Debug, Default)]
pub struct Writer {
    /// Frames that wait to be sent.
    pub bytes: Vec<u8>,
}

impl Writer {
    /// Logs in with user and password.
    pub fn start_ok(&mut self, user: &str, password: &str) {
        // Without this a broker that refuses a login closes the socket and says nothing.
        let capabilities =
            table(&[("authentication_failure_close", b't', &[1]), ("consumer_cancel_notify", b't', &[1])]);
        let product = long_text(b"lea");
        let properties = table(&[("product", b'S', &product), ("capabilities", b'F', &capabilities)]);
        let login = format!("\0{user}\0{password}");
        let arguments =
            [&properties[..], &short_text("PLAIN"), &long_text(login.as_bytes()), &short_text("en_US")];
        self.method(0, 10, 11, &arguments.concat());
    }

    /// Agrees on the connection's bounds.
    pub fn tune_ok(&mut self, channel_max: u16, frame_max: u32, heartbeat: u16) {
        let arguments = [&channel_max.to_be_bytes()[..], &frame_max.to_be_bytes(), &heartbeat.to_be_bytes()];
        self.method(0, 10, 31, &arguments.concat());
    }

    /// Opens the virtual host, of 255 bytes at most.
    pub fn open(&mut self, vhost: &str) {
        self.method(0, 10, 40, &[&short_text(vhost)[..], &[0, 0]].concat());
    }

    /// Opens the channel.
    pub fn channel_open(&mut self) {
        self.method(CHANNEL, 20, 10, &[0]);
    }

    /// So many messages may be delivered and not acknowledged.
    pub fn qos(&mut self, prefetch: u16) {
        let arguments = [&[0; 4][..], &prefetch.to_be_bytes(), &[0]];
        self.method(CHANNEL, CLASS_BASIC, 10, &arguments.concat());
    }

    /// Asks for the messages of a queue, of 255 bytes at most.
    pub fn consume(&mut self, queue: &str) {
        // The broker makes the consumer's name; no bit is set: acknowledged by hand, shared; no arguments.
        let arguments = [&[0, 0][..], &short_text(queue), &short_text(""), &[0], &[0; 4]];
        self.method(CHANNEL, CLASS_BASIC, 20, &arguments.concat());
    }

    /// Acknowledges this message and all before it.
    pub fn ack_to(&mut self, tag: u64) {
        self.method(CHANNEL, CLASS_BASIC, 80, &[&tag.to_be_bytes()[..], &[1]].concat());
    }

    /// Refuses one message, which does not come again.
    pub fn reject(&mut self, tag: u64) {
        self.method(CHANNEL, CLASS_BASIC, 90, &[&tag.to_be_bytes()[..], &[0]].concat());
    }

    /// A sign of life.
    pub fn heartbeat(&mut self) {
        self.frame(HEARTBEAT, 0, &[]);
    }

    /// Closes the connection.
    pub fn close(&mut self) {
        let arguments = [&200_u16.to_be_bytes()[..], &short_text("done"), &[0; 4]];
        self.method(0, 10, 50, &arguments.concat());
    }

    /// The broker's closing is done.
    pub fn close_ok(&mut self, whole: bool) {
        let (channel, class, method) = if whole { (0, 10, 51) } else { (CHANNEL, 20, 41) };
        self.method(channel, class, method, &[]);
    }

    fn method(&mut self, channel: u16, class: u16, method: u16, arguments: &[u8]) {
        let payload = [&class.to_be_bytes()[..], &method.to_be_bytes(), arguments].concat();
        self.frame(METHOD, channel, &payload);
    }

    fn frame(&mut self, kind: u8, channel: u16, payload: &[u8]) {
        self.bytes.push(kind);
        self.bytes.extend_from_slice(&channel.to_be_bytes());
        self.bytes.extend_from_slice(&(payload.len() as u32).to_be_bytes());
        self.bytes.extend_from_slice(payload);
        self.bytes.push(FRAME_END);
    }
}

fn short_text(text: &str) -> Vec<u8> {
    let mut bytes = vec![u8::try_from(text.len()).expect("names were checked to have 255 bytes at most")];
    bytes.extend_from_slice(text.as_bytes());
    bytes
}

fn long_text(text: &[u8]) -> Vec<u8> {
    [&(text.len() as u32).to_be_bytes()[..], text].concat()
}

fn table(entries: &[(&str, u8, &[u8])]) -> Vec<u8> {
    let entry = |(name, kind, value): &(&str, u8, &[u8])| [&short_text(name)[..], &[*kind], value].concat();
    long_text(&entries.iter().flat_map(entry).collect::<Vec<u8>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.frame(kind, 1, payload);
        writer.bytes
    }

    fn of(class: u16, method: u16, arguments: &[u8]) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.method(1, class, method, arguments);
        writer.bytes
    }

    /// For each split: nothing before the end, and then the same.
    #[track_caller]
    fn check(bytes: &[u8], expected: Said<'_>) {
        let with_more = [bytes, b"\x08"].concat();
        for end in 0..bytes.len() {
            assert_eq!(read(&bytes[..end], FRAME_BYTES_MAX), Ok(None), "{end}");
        }
        assert_eq!(read(&with_more, FRAME_BYTES_MAX), Ok(Some((expected, bytes.len()))));
    }

    #[test]
    fn what_a_broker_says() {
        let start =
            [&[0, 9][..], &table(&[("x", b't', &[1])]), &long_text(b"PLAIN AMQPLAIN"), &long_text(b"en_US")];
        check(&of(10, 10, &start.concat()), Said::Start("PLAIN AMQPLAIN"));
        let tune = [&2047_u16.to_be_bytes()[..], &131_072_u32.to_be_bytes(), &60_u16.to_be_bytes()];
        check(
            &of(10, 30, &tune.concat()),
            Said::Tune { channel_max: 2047, frame_max: 131_072, heartbeat: 60 },
        );
        check(&of(10, 41, &[0]), Said::OpenOk);
        check(&of(20, 11, &[0; 4]), Said::ChannelOpenOk);
        check(&of(60, 11, &[]), Said::QosOk);
        check(&of(60, 21, &short_text("c")), Said::ConsumeOk);
        check(&of(60, 30, &short_text("c")), Said::Cancel);
        let deliver = [&short_text("c")[..], &7_u64.to_be_bytes(), &[1], &short_text(""), &short_text("q")];
        check(&of(60, 60, &deliver.concat()), Said::Deliver { tag: 7, redelivered: true });
        let close = [&404_u16.to_be_bytes()[..], &short_text("NOT_FOUND"), &[0; 4]].concat();
        check(&of(20, 40, &close), Said::Close { whole: false, code: 404, text: "NOT_FOUND" });
        check(&of(10, 50, &close), Said::Close { whole: true, code: 404, text: "NOT_FOUND" });
        check(&of(10, 51, &[]), Said::CloseOk);
        check(&of(10, 60, &short_text("low on memory")), Said::Other(10, 60));
        check(&frame(BODY, b"{}"), Said::Body(b"{}"));
        check(&frame(HEARTBEAT, b""), Said::Heartbeat);
    }

    #[test]
    fn the_id_of_a_message_stands_behind_its_other_properties() {
        let header = |flags: &[u8], properties: &[u8]| {
            let body = 5_u64.to_be_bytes();
            frame(HEADER, &[&[0, 60, 0, 0][..], &body, flags, properties].concat())
        };
        let said = |message_id| Said::Header { body_bytes: 5, message_id };
        check(&header(&[0, 0], &[]), said(None));
        check(&header(&[0, 0x80], &short_text("m-1")), said(Some("m-1")));
        check(&header(&[0, 0x80], &short_text("")), said(None));
        check(&header(&[0, 0x81, 0, 0], &short_text("m-1")), said(Some("m-1")));
        let all = [
            short_text("application/json"),
            short_text("utf-8"),
            table(&[("a", b't', &[1])]),
            vec![2, 0],
            short_text("correlation"),
            short_text("reply"),
            short_text("60000"),
            short_text("m-1"),
            9_u64.to_be_bytes().to_vec(),
        ];
        check(&header(&[0xff, 0xc0], &all.concat()), said(Some("m-1")));
    }

    #[test]
    fn what_is_no_amqp() {
        assert_eq!(read(b"AMQP\x00\x01\x00\x00", FRAME_BYTES_MAX), Err(Broken::Version));
        let good = frame(BODY, &[0; 92]);
        assert!(read(&good, 100).unwrap().is_some());
        assert_eq!(read(&good, 99), Err(Broken::TooLarge(92)));
        let mut bad = good.clone();
        *bad.last_mut().unwrap() = 0;
        assert_eq!(read(&bad, 100), Err(Broken::End));
        assert_eq!(read(&frame(METHOD, &[0, 60, 0]), 100), Err(Broken::Short));
        assert_eq!(read(&of(60, 60, &[200, b'x']), 100), Err(Broken::Short));
        assert_eq!(read(&of(20, 40, &[0, 0, 1, 0xff]), 100), Err(Broken::Text));
        assert_eq!(
            read(&frame(HEADER, &[0; 14]), 100).unwrap().unwrap().0,
            Said::Header { body_bytes: 0, message_id: None }
        );
        assert_eq!(read(&frame(HEADER, &[0xff; 20]), 100), Err(Broken::Short));
    }

    #[test]
    fn what_is_said_reads_back() {
        let mut writer = Writer::default();
        writer.heartbeat();
        writer.close();
        writer.close_ok(true);
        writer.tune_ok(0, 4096, 60);
        let mut rest = &writer.bytes[..];
        let mut said = Vec::new();
        while let Some((next, bytes)) = read(rest, FRAME_BYTES_MAX).unwrap() {
            said.push(format!("{next:?}"));
            rest = &rest[bytes..];
        }
        assert_eq!(
            said,
            ["Heartbeat", "Close { whole: true, code: 200, text: \"done\" }", "CloseOk", "Other(10, 31)"]
        );
    }
}
