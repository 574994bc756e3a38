//! Decides whether a stream may be appended to a stored part of its name. Pure.
//!
//! A stream that was closed stays as it is, because anybody can send its name. Only the address that brought its bytes
//! continues it, and only for some time: real senders reconnect and go on. Everything else is a part of its own.

use std::time::Duration;

use chrono::DateTime;

use super::manifest::{Manifest, StreamSource, is_same_address};
use super::pending_stream::StreamOrigin;

/// Whether a stream may be appended to a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Continuation {
    Allowed,
    /// Its bytes came from another address.
    OtherAddress,
    /// Its address was last heard of too long ago.
    TooLate,
    /// Its list of connections is full.
    TooManyConnections,
}

impl Continuation {
    /// Returns the token used in the log.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Continuation::Allowed => "allowed",
            Continuation::OtherAddress => "other_address",
            Continuation::TooLate => "too_late",
            Continuation::TooManyConnections => "too_many_connections",
        }
    }

    /// Decides for the part with this manifest. `modified_ms` is when its file was last written, in milliseconds since
    /// 1970; `within` is the time that a sender has to come back, `None` without a limit, for everybody.
    pub(super) fn decide(
        manifest: &Manifest,
        modified_ms: i64,
        origin: &StreamOrigin,
        within: Option<Duration>,
    ) -> Continuation {
        let Some(within) = within else { return Continuation::Allowed };
        // Kafka records are identified by their offsets, not by an address. An empty part has nothing to protect.
        let has_sender = matches!(origin.source, StreamSource::Tcp | StreamSource::Lines);
        if !has_sender || manifest.bytes == 0 {
            return Continuation::Allowed;
        }
        if !manifest.has_room_for_connection() {
            return Continuation::TooManyConnections;
        }
        let mut brought = manifest.connections.iter().filter(|connection| connection.bytes > 0);
        if !brought.next_back().is_some_and(|last| is_same_address(&last.peer, &origin.peer)) {
            return Continuation::OtherAddress;
        }
        let seen_ms = last_seen_ms(manifest, &origin.peer).unwrap_or(modified_ms);
        let within_ms = i64::try_from(within.as_millis()).unwrap_or(i64::MAX);
        // The clock may have been set back since: then no time is taken as passed.
        if origin.connected_ms.saturating_sub(seen_ms) <= within_ms {
            Continuation::Allowed
        } else {
            Continuation::TooLate
        }
    }
}

/// Returns when the last connection of an address ended. `None` if one of them was open when lea was killed.
fn last_seen_ms(manifest: &Manifest, peer: &str) -> Option<i64> {
    let ms = |text: &String| DateTime::parse_from_rfc3339(text).ok().map(|time| time.timestamp_millis());
    let of_peer = manifest.connections.iter().filter(|connection| is_same_address(&connection.peer, peer));
    of_peer
        .map(|connection| connection.ended_at.as_ref().and_then(ms))
        .collect::<Option<Vec<_>>>()?
        .into_iter()
        .max()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cc::vault::manifest::{EndReason, StreamConnection};
    use crate::runtime::time::rfc3339_ms;

    const HOUR: Duration = Duration::from_secs(3600);
    const ENDED_MS: i64 = 1_795_294_777_000;

    fn connection(peer: &str, bytes: u64, ended_ms: Option<i64>) -> StreamConnection {
        StreamConnection {
            raw_name_hex: None,
            peer: peer.to_owned(),
            connected_at: rfc3339_ms(0),
            first_byte_at: None,
            last_byte_at: None,
            ended_at: ended_ms.map(rfc3339_ms),
            end_reason: Some(EndReason::Eof),
            offset: 0,
            bytes,
            compared_bytes: 0,
        }
    }

    #[track_caller]
    fn check(
        connections: &[(&str, u64, Option<i64>)],
        (peer, at_ms): (&str, i64),
        source: StreamSource,
        expected: Continuation,
    ) {
        let mut manifest = Manifest::new(b"v.pcap", "v.pcap".into(), 1, source);
        for (peer, bytes, ended_ms) in connections {
            manifest.bytes += bytes;
            manifest.add_connection(connection(peer, *bytes, *ended_ms));
        }
        let origin = StreamOrigin { source, peer: peer.to_owned(), raw_name: None, connected_ms: at_ms };
        let decided = Continuation::decide(&manifest, ENDED_MS + 9_000, &origin, Some(HOUR));
        assert_eq!(decided, expected, "{connections:?} {peer} {at_ms}");
        assert_eq!(Continuation::decide(&manifest, 0, &origin, None), Continuation::Allowed);
    }

    #[test]
    fn a_sender_continues_its_stream_for_some_time() {
        let sender = [("192.0.2.1:1000", 404, Some(ENDED_MS))];
        let hour = ENDED_MS + 3_600_000;
        check(&sender, ("192.0.2.1:2000", ENDED_MS), StreamSource::Tcp, Continuation::Allowed);
        check(&sender, ("192.0.2.1:2000", hour), StreamSource::Tcp, Continuation::Allowed);
        check(&sender, ("192.0.2.1:2000", hour + 1), StreamSource::Tcp, Continuation::TooLate);
        check(&sender, ("192.0.2.1:2000", ENDED_MS - 1), StreamSource::Tcp, Continuation::Allowed);
        // A re-send that brought nothing keeps the sender known.
        let again = [sender[0], ("192.0.2.1:1001", 0, Some(hour))];
        check(&again, ("192.0.2.1:2000", hour + 1), StreamSource::Tcp, Continuation::Allowed);
    }

    #[test]
    fn another_address_does_not_continue_it() {
        let sender = [("192.0.2.1:1000", 404, Some(ENDED_MS))];
        for source in [StreamSource::Tcp, StreamSource::Lines] {
            check(&sender, ("198.51.100.9:1000", ENDED_MS), source, Continuation::OtherAddress);
        }
        check(&sender, ("198.51.100.9:1000", ENDED_MS), StreamSource::Kafka, Continuation::Allowed);
        // An equal re-send from elsewhere gives no rights, and takes none.
        let again = [sender[0], ("198.51.100.9:1001", 0, Some(ENDED_MS))];
        check(&again, ("198.51.100.9:1002", ENDED_MS), StreamSource::Tcp, Continuation::OtherAddress);
        check(&again, ("192.0.2.1:2000", ENDED_MS), StreamSource::Tcp, Continuation::Allowed);
        check(&[], ("198.51.100.9:1000", ENDED_MS), StreamSource::Tcp, Continuation::Allowed);
    }

    #[test]
    fn after_a_crash_the_time_of_the_file_counts() {
        let killed = [("192.0.2.1:1000", 404, None)];
        let hour = ENDED_MS + 9_000 + 3_600_000;
        check(&killed, ("192.0.2.1:2000", hour), StreamSource::Tcp, Continuation::Allowed);
        check(&killed, ("192.0.2.1:2000", hour + 1), StreamSource::Tcp, Continuation::TooLate);
    }
}
