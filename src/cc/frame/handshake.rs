//! Where a stream's name ends (protocol, section 2). Pure: a function of the bytes so far and of what happened.

/// What made the receiver ask again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// More bytes came.
    Data,
    /// Nothing came for the name gap.
    Gap,
    /// The peer closed, or the receiver drains.
    End,
}

/// What the bytes so far are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Undecided: ask again with more bytes, or at a gap or the end.
    More,
    /// The name is `received[..name_bytes]`; content starts at `received[content_at..]`.
    Name {
        /// Length of the name.
        name_bytes: usize,
        /// Where content starts: after the newline, if one ended the name.
        content_at: usize,
    },
    /// More than 4,096 bytes and no end of a name.
    TooLong,
    /// The end, and not a byte came.
    Nothing,
}

/// Decides on all bytes received so far (never more than `NAME_BYTES_MAX + 4` are needed).
pub fn decide(received: &[u8], event: Event) -> Verdict {
    let _ = (received, event);
    Verdict::More
}

/// True if content that starts with these bytes is a capture: a pcap magic, or a pcapng section header with its
/// byte-order magic. `None`: too few bytes to say.
pub fn starts_capture(content: &[u8]) -> Option<bool> {
    let _ = content;
    None
}
