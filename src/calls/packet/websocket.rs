//! SIP over WebSocket (RFC 7118): handshake and frames of RFC 6455. Each WebSocket message is one SIP message.

use serde::{Deserialize, Serialize};

use super::framing::{FramedMessage, MESSAGE_BYTES_MAX, Places};
use super::header_lines::{has_element, head_bytes, headers};
use super::start_line::{after_line_ends, looks_like_sip};
use super::{PacketCounters, StreamTransport};
use crate::calls::endpoint::PacketPlace;

/// Longest HTTP head of a handshake.
const HANDSHAKE_BYTES_MAX: usize = 8 * 1024;
/// Messages without SIP after which a connection whose handshake did not name `sip` is given up.
const MESSAGES_WITHOUT_SIP_MAX: u8 = 3;
/// Longest payload of a control frame (RFC 6455 section 5.5).
const CONTROL_BYTES_MAX: u64 = 125;

/// What is known of an HTTP head at the start of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Handshake {
    /// Not HTTP.
    None,
    /// May become an upgrade.
    Incomplete,
    /// Request for an upgrade to WebSocket, or the server's consent.
    Upgrade { head_bytes: usize, names_sip: bool },
    /// HTTP without such an upgrade.
    Other { head_bytes: usize },
}

/// Reads an HTTP head (RFC 6455 section 4).
pub(super) fn handshake(bytes: &[u8]) -> Handshake {
    let is_start_of = |start: &[u8]| bytes.iter().zip(start).all(|(byte, expected)| byte == expected);
    if bytes.is_empty() || !(is_start_of(b"GET ") || is_start_of(b"HTTP/1.1 ")) {
        return Handshake::None;
    }
    let Some(head_bytes) = head_bytes(bytes) else { return Handshake::Incomplete };
    let head = bytes.get(..head_bytes).unwrap_or_default();
    let (mut is_upgrade, mut names_sip) = (false, false);
    for (name, value) in headers(head) {
        is_upgrade |= name.eq_ignore_ascii_case(b"upgrade") && has_element(value, b"websocket");
        names_sip |= name.eq_ignore_ascii_case(b"sec-websocket-protocol") && has_element(value, b"sip");
    }
    let is_consent = head.starts_with(b"GET ") || head.starts_with(b"HTTP/1.1 101");
    if is_upgrade && is_consent {
        Handshake::Upgrade { head_bytes, names_sip }
    } else {
        Handshake::Other { head_bytes }
    }
}

/// Header of a frame (RFC 6455 section 5.2).
#[derive(Clone, Copy, Debug)]
struct FrameHeader {
    is_final: bool,
    /// Set by permessage-deflate (RFC 7692 section 6).
    is_compressed: bool,
    opcode: u8,
    mask: [u8; 4],
    header_bytes: usize,
    payload_bytes: u64,
}

const OPCODE_CONTINUATION: u8 = 0;
const OPCODE_TEXT: u8 = 1;
const OPCODE_BINARY: u8 = 2;
const OPCODE_CLOSE: u8 = 8;
const OPCODE_PONG: u8 = 10;

/// What is known of the first bytes of a frame.
enum FrameStart {
    Header(FrameHeader),
    Incomplete,
    Malformed,
}

fn frame_header(bytes: &[u8]) -> FrameStart {
    let &[first, second, ..] = bytes else { return FrameStart::Incomplete };
    let (length_bytes, length) = match second & 0x7f {
        126 => {
            (2, bytes.get(2..4).map(|length| length.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte))))
        }
        127 => {
            (8, bytes.get(2..10).map(|length| length.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte))))
        }
        length => (0, Some(u64::from(length))),
    };
    let mask_bytes = if second & 0x80 != 0 { 4 } else { 0 };
    let (Some(payload_bytes), Some(mask)) =
        (length, bytes.get(2 + length_bytes..2 + length_bytes + mask_bytes))
    else {
        return FrameStart::Incomplete;
    };
    let header = FrameHeader {
        is_final: first & 0x80 != 0,
        is_compressed: first & 0x40 != 0,
        opcode: first & 0x0f,
        mask: mask.first_chunk().copied().unwrap_or_default(),
        header_bytes: 2 + length_bytes + mask_bytes,
        payload_bytes,
    };
    if header.is_valid() && first & 0x30 == 0 { FrameStart::Header(header) } else { FrameStart::Malformed }
}

impl FrameHeader {
    fn is_valid(&self) -> bool {
        match self.opcode {
            OPCODE_CONTINUATION..=OPCODE_BINARY => true,
            OPCODE_CLOSE..=OPCODE_PONG => {
                self.is_final && !self.is_compressed && self.payload_bytes <= CONTROL_BYTES_MAX
            }
            _ => false,
        }
    }

    fn unmask(&self, payload: &mut [u8]) {
        for chunk in payload.chunks_mut(4) {
            chunk.iter_mut().zip(self.mask).for_each(|(byte, mask)| *byte ^= mask);
        }
    }
}

/// Reports whether the bytes start with a frame whose payload starts like a SIP message. So a connection is recognised
/// whose handshake was before the capture, and frames are found again after a hole.
pub(super) fn starts_with_sip_frame(bytes: &[u8]) -> bool {
    /// Bytes of the payload that are looked at. Start lines in WebSocket are short: hosts are random names in `.invalid`.
    const LOOK_BYTES: usize = 512;
    let FrameStart::Header(header) = frame_header(bytes) else { return false };
    if !matches!(header.opcode, OPCODE_TEXT | OPCODE_BINARY) || header.is_compressed {
        return false;
    }
    let look_bytes = usize::try_from(header.payload_bytes).unwrap_or(usize::MAX).min(LOOK_BYTES);
    let payload = bytes.get(header.header_bytes..).unwrap_or_default();
    let mut look = [0; LOOK_BYTES];
    let copied = payload.len().min(look_bytes);
    let (Some(look), Some(payload)) = (look.get_mut(..copied), payload.get(..copied)) else { return false };
    look.copy_from_slice(payload);
    header.unmask(look);
    looks_like_sip(look)
}

/// Position in the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Step {
    /// Before an HTTP head, or a frame if the stream was picked up later.
    Start,
    Frames,
    /// After a hole or a malformed frame: bytes are ignored until a segment starts with a frame of SIP, or a handshake.
    Lost,
}

/// Message of which fragments were received.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Message {
    bytes: Vec<u8>,
    places: Option<Places>,
    /// It is compressed or too long, and counted already.
    is_refused: bool,
}

/// Decoder of one direction.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct WebSocket {
    step: Step,
    /// Start of an incomplete head or frame, and its packets.
    buffer: Vec<u8>,
    places: Option<Places>,
    message: Option<Message>,
    has_sip: bool,
    messages_without_sip: u8,
    gap_before: bool,
}

impl Default for WebSocket {
    fn default() -> WebSocket {
        WebSocket {
            step: Step::Start,
            buffer: Vec::new(),
            places: None,
            message: None,
            has_sip: false,
            messages_without_sip: 0,
            gap_before: false,
        }
    }
}

impl WebSocket {
    /// Bytes that it keeps.
    pub(super) fn memory(&self) -> usize {
        self.buffer.len() + self.message.as_ref().map_or(0, |message| message.bytes.len())
    }

    /// The handshake named `sip`, or a SIP message was received.
    pub(super) fn has_sip(&self) -> bool {
        self.has_sip
    }

    /// Several messages were received, and none was SIP.
    pub(super) fn is_without_sip(&self) -> bool {
        !self.has_sip && self.messages_without_sip >= MESSAGES_WITHOUT_SIP_MAX
    }

    /// Adds the next bytes of the stream, and hands out the messages that are complete.
    pub(super) fn push(
        &mut self,
        bytes: &[u8],
        place: PacketPlace,
        counters: &mut PacketCounters,
        output: &mut impl FnMut(FramedMessage<'_>),
    ) {
        if self.step == Step::Lost && !self.find_again(bytes) {
            return;
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        let buffered = buffer.len();
        let places =
            self.places.filter(|_| buffered > 0).map_or(Places::of(place), |places| places.with(place));
        buffer.extend_from_slice(bytes);
        let mut at = 0;
        while let Some(rest) = buffer.get_mut(at..).filter(|rest| !rest.is_empty()) {
            let unit_places = if at < buffered { places } else { Places::of(place) };
            match self.take_unit(rest, unit_places, counters, output) {
                Some(unit_bytes) => at += unit_bytes,
                None => break,
            }
        }
        if self.step == Step::Lost {
            return;
        }
        self.places = Some(if at >= buffered { Places::of(place) } else { places });
        buffer.drain(..at.min(buffer.len()));
        if !buffer.is_empty() {
            self.buffer = buffer;
        }
    }

    /// Takes note of missing bytes.
    pub(super) fn gap(&mut self, counters: &mut PacketCounters) {
        self.finish(counters);
        self.lose();
    }

    /// Drops an incomplete message.
    pub(super) fn finish(&mut self, counters: &mut PacketCounters) {
        let has_frame = self.step == Step::Frames && !self.buffer.is_empty();
        let is_incomplete = has_frame || self.message.as_ref().is_some_and(|message| !message.is_refused);
        counters.sip_messages_incomplete += u64::from(is_incomplete && self.has_sip);
        self.message = None;
        self.buffer = Vec::new();
    }

    fn lose(&mut self) {
        self.step = Step::Lost;
        self.gap_before = true;
        self.message = None;
        self.buffer = Vec::new();
    }

    /// Reports whether the decoder can go on with the start of a segment.
    fn find_again(&mut self, bytes: &[u8]) -> bool {
        if starts_with_sip_frame(bytes) {
            self.step = Step::Frames;
        } else if matches!(handshake(bytes), Handshake::Upgrade { .. }) {
            self.step = Step::Start;
        }
        self.step != Step::Lost
    }

    /// Takes a head or a frame from the start of `data`, and returns its length. Returns `None` if it is not complete, or
    /// after it was malformed.
    fn take_unit(
        &mut self,
        data: &mut [u8],
        places: Places,
        counters: &mut PacketCounters,
        output: &mut impl FnMut(FramedMessage<'_>),
    ) -> Option<usize> {
        if self.step == Step::Start {
            match handshake(data) {
                Handshake::Upgrade { head_bytes, names_sip } => {
                    self.has_sip |= names_sip;
                    self.step = Step::Frames;
                    return Some(head_bytes);
                }
                Handshake::Other { head_bytes } => return Some(head_bytes),
                Handshake::Incomplete if data.len() <= HANDSHAKE_BYTES_MAX => return None,
                Handshake::Incomplete | Handshake::None => self.step = Step::Frames,
            }
        }
        let header = match frame_header(data) {
            FrameStart::Header(header) => header,
            FrameStart::Incomplete => return None,
            FrameStart::Malformed => {
                counters.websocket_frames_malformed += 1;
                self.lose();
                return None;
            }
        };
        if header.payload_bytes > MESSAGE_BYTES_MAX as u64 {
            counters.websocket_messages_over_limit += 1;
            self.messages_without_sip = self.messages_without_sip.saturating_add(1);
            self.lose();
            return None;
        }
        let frame_bytes = header.header_bytes + usize::try_from(header.payload_bytes).ok()?;
        let payload = data.get_mut(header.header_bytes..frame_bytes)?;
        header.unmask(payload);
        self.take_frame(&header, payload, places, counters, output);
        Some(frame_bytes)
    }

    fn take_frame(
        &mut self,
        header: &FrameHeader,
        payload: &[u8],
        places: Places,
        counters: &mut PacketCounters,
        output: &mut impl FnMut(FramedMessage<'_>),
    ) {
        let mut message = match (header.opcode, self.message.take()) {
            (OPCODE_TEXT | OPCODE_BINARY, unfinished) => {
                counters.websocket_frames_malformed += u64::from(unfinished.is_some());
                Message::default()
            }
            (OPCODE_CONTINUATION, Some(message)) => message,
            (OPCODE_CONTINUATION, None) => {
                counters.websocket_frames_malformed += 1;
                return;
            }
            // Control frames come between the fragments of a message.
            (_, message) => {
                self.message = message;
                return;
            }
        };
        if header.is_compressed && !message.is_refused {
            counters.websocket_messages_compressed += 1;
            message.refuse();
        } else if message.bytes.len() + payload.len() > MESSAGE_BYTES_MAX {
            counters.websocket_messages_over_limit += 1;
            message.refuse();
        }
        message.add(payload, places);
        if header.is_final {
            self.finish_message(&message, counters, output);
        } else {
            self.message = Some(message);
        }
    }

    fn finish_message(
        &mut self,
        message: &Message,
        counters: &mut PacketCounters,
        output: &mut impl FnMut(FramedMessage<'_>),
    ) {
        let is_sip = !message.is_refused && looks_like_sip(&message.bytes);
        if let (true, Some(places)) = (is_sip, message.places) {
            self.has_sip = true;
            counters.sip_stream_messages += 1;
            let gap_before = std::mem::take(&mut self.gap_before);
            let (transport, bytes) = (StreamTransport::WebSocket, after_line_ends(&message.bytes));
            output(FramedMessage { transport, bytes, places, gap_before });
        } else if !message.is_refused && after_line_ends(&message.bytes).is_empty() {
            counters.stream_keep_alive_bytes += message.bytes.len() as u64;
        } else {
            counters.websocket_messages_not_sip += u64::from(!message.is_refused);
            self.messages_without_sip = self.messages_without_sip.saturating_add(1);
        }
    }
}

impl Message {
    fn add(&mut self, payload: &[u8], places: Places) {
        if !self.is_refused {
            self.bytes.extend_from_slice(payload);
        }
        self.places = Some(self.places.map_or(places, |known| known.with(places.first).with(places.last)));
    }

    fn refuse(&mut self) {
        self.is_refused = true;
        self.bytes = Vec::new();
    }
}

#[cfg(test)]
#[path = "websocket_tests.rs"]
mod tests;
