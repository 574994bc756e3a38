//! Counters of what was peeled, reassembled, and cut off.

use serde::{Deserialize, Serialize};

use super::{OtherReason, Peeled};

/// What a counter that is not 0 means for the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum CounterKind {
    /// Nothing is wrong.
    Information,
    /// The capture lacks something, or what was sent is malformed.
    Damage,
    /// A limit of the analysis cut something off.
    Limit,
}

macro_rules! counters {
    ($($name:ident, $kind:ident, $text:literal;)*) => {
        /// Counters of packets, fragments and streams.
        #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        pub(crate) struct PacketCounters {
            $(#[doc = $text] pub $name: u64,)*
        }

        impl PacketCounters {
            pub(crate) const COUNT: usize = [$(stringify!($name)),*].len();

            /// Returns name, kind, text and value of each counter.
            pub(crate) fn rows(&self) -> [(&'static str, CounterKind, &'static str, u64); Self::COUNT] {
                [$((stringify!($name), CounterKind::$kind, $text, self.$name)),*]
            }
        }
    };
}

counters! {
    udp_datagrams, Information, "UDP datagrams.";
    tcp_segments, Information, "TCP segments.";
    sctp_packets, Information, "SCTP packets.";
    ip_fragments, Information, "Fragments of IP datagrams.";
    cut_packets, Damage, "Packets of which fewer bytes were captured than were sent.";
    link_type_unknown, Damage, "Packets of a link type that is not analysed.";
    not_ip, Information, "Packets that are not IP.";
    other_transport, Information, "IP packets that are not UDP, TCP or SCTP.";
    packets_truncated, Damage, "Packets whose captured bytes end inside a header.";
    packets_malformed, Damage, "Packets with a header that contradicts itself.";
    encapsulations_over_limit, Limit, "Packets with more encapsulations than the limit.";

    datagrams_reassembled, Information, "Datagrams reassembled from fragments.";
    fragments_repeated, Information, "Fragments whose bytes had all been received before.";
    fragments_malformed, Damage, "Fragments with an impossible offset or length.";
    fragments_cut, Damage, "Fragments of which fewer bytes were captured than were sent.";
    datagrams_incomplete, Damage, "Datagrams with fragments missing after 30 s.";
    datagrams_over_limit, Limit, "Incomplete datagrams that gave way to newer ones.";
    fragment_pieces_over_limit, Limit, "Datagrams in more pieces than the limit.";

    tcp_segments_ignored, Information, "TCP segments of connections without SIP.";
    tcp_connections_ignored, Information, "TCP connections that show no SIP or WebSocket.";
    tcp_connections, Information, "TCP connections with SIP or WebSocket.";
    tcp_connections_forgotten, Information, "TCP connections that are looked at again, because newer ones took their place.";
    tcp_segments_repeated, Information, "TCP segments whose bytes had all been received before.";
    tcp_segments_reordered, Information, "TCP segments that arrived before bytes that precede them.";
    tcp_sequence_jumps, Damage, "Jumps of the TCP sequence number without SYN.";
    tcp_holes, Damage, "Holes in TCP streams that were never filled.";
    tcp_connections_over_limit, Limit, "Open TCP connections that gave way to newer ones.";

    sip_stream_messages, Information, "SIP messages in TCP and WebSocket streams.";
    stream_keep_alive_bytes, Information, "Bytes of keep-alives between SIP messages (RFC 5626).";
    stream_junk_bytes, Damage, "Bytes in SIP streams that belong to no SIP message.";
    stream_resynchronisations, Damage, "Times that something else than a start line followed a SIP message.";
    sip_messages_incomplete, Damage, "SIP messages that ended at a hole or at the end of their stream.";
    sip_messages_over_limit, Limit, "SIP messages in streams of more than 256 KiB.";
    content_length_missing, Damage, "SIP messages in streams without Content-Length.";
    content_length_malformed, Damage, "SIP messages in streams with a Content-Length that is not a number.";

    websocket_messages_not_sip, Information, "WebSocket messages that are not SIP.";
    websocket_messages_compressed, Damage, "WebSocket messages compressed by permessage-deflate, which are not read.";
    websocket_messages_over_limit, Limit, "WebSocket messages of more than 256 KiB.";
    websocket_frames_malformed, Damage, "Malformed WebSocket frames.";
}

impl PacketCounters {
    /// Counts a packet by its kind.
    pub(crate) fn count(&mut self, peeled: &Peeled<'_>) {
        let (counter, is_cut) = match peeled {
            Peeled::Udp(datagram) => (&mut self.udp_datagrams, datagram.is_cut),
            Peeled::Tcp(segment) => (&mut self.tcp_segments, segment.is_cut()),
            Peeled::Sctp(packet) => (&mut self.sctp_packets, packet.is_cut),
            Peeled::Fragment(fragment) => (&mut self.ip_fragments, fragment.is_cut),
            Peeled::Other(reason) => {
                let counter = match reason {
                    OtherReason::LinkType => &mut self.link_type_unknown,
                    OtherReason::NetworkProtocol => &mut self.not_ip,
                    OtherReason::TransportProtocol => &mut self.other_transport,
                    OtherReason::Truncated => &mut self.packets_truncated,
                    OtherReason::Malformed => &mut self.packets_malformed,
                    OtherReason::TooDeep => &mut self.encapsulations_over_limit,
                };
                (counter, false)
            }
        };
        *counter += 1;
        self.cut_packets += u64::from(is_cut);
    }

    /// Number of things that limits of the analysis cut off.
    #[cfg(test)]
    pub(crate) fn cut_off(&self) -> u64 {
        self.rows().iter().filter(|row| row.1 == CounterKind::Limit).map(|row| row.3).sum()
    }
}
