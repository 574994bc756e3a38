//! Calls and packets for tests.

use super::capture_file::RecordReader;
use super::endpoint::{Endpoint, Flow, PacketPlace};
use super::packet::{Peeled, UdpDatagram, peel};
use super::view::{Binding, Call, CallMessage, CallState, EndReason, MediaStream, Party, Side, SipTransport};

/// 2026-11-21T20:59:41.102Z.
pub(crate) const START_NS: i64 = 1_795_294_781_102_000_000;
const MS: i64 = 1_000_000;

pub(crate) fn endpoint(text: &str) -> Endpoint {
    let address: std::net::SocketAddr = text.parse().unwrap();
    Endpoint::new(address.ip(), address.port())
}

/// `time_ms` counts from [`START_NS`]. A text with a leading digit is a response to an INVITE.
pub(crate) fn message(time_ms: i64, source: &str, destination: &str, text: &str) -> CallMessage {
    let (text, has_sdp) = text.strip_suffix(" +SDP").map_or((text, false), |text| (text, true));
    let code = text.get(..3).and_then(|code| code.parse().ok());
    CallMessage {
        place: PacketPlace { offset: 24, bytes: 600, time_ns: START_NS + time_ms * MS },
        first_offset: 24,
        source: endpoint(source),
        destination: endpoint(destination),
        text: text.to_owned(),
        code,
        cseq: 1,
        method: if code.is_some() { "INVITE".to_owned() } else { text.to_owned() },
        to_tag: String::new(),
        has_sdp,
        retransmissions: 0,
        transport: SipTransport::Udp,
    }
}

pub(crate) fn stream(time_ms: i64, source: &str, destination: &str, side: Side) -> MediaStream {
    MediaStream {
        source: endpoint(source),
        destination: endpoint(destination),
        ssrc: 0x1a2b_3c4d,
        side: Some(side),
        binding: Binding::Sdp,
        codec: "PCMA".to_owned(),
        clock_hz: 8_000,
        is_clock_estimated: false,
        is_encrypted: false,
        first_ns: START_NS + time_ms * MS,
        last_ns: START_NS + (time_ms + 9_980) * MS,
        packets: 500,
        payload_bytes: 80_000,
        lost: 0,
        lost_by_capture: 0,
        duplicates: 0,
        reordered: 0,
        late: 0,
        copies: 0,
        restarts: 0,
        loss_runs: [0; 11],
        jitter_mean_ms: 0.1,
        jitter_max_ms: 0.3,
        delta_mean_ms: 20.0,
        delta_max_ms: 21.5,
        mos: Some(4.409_286),
        reported_loss: None,
        reported_jitter_ms: None,
        reported_rtt_ms: None,
        reported_mos: None,
        digits: Vec::new(),
        windows: Vec::new(),
        window_ns: 5_000_000_000,
        formats: Vec::new(),
        first_offset: 24,
        last_offset: 24,
    }
}

pub(crate) fn party(user: &str) -> Party {
    Party { user: user.to_owned(), uri: format!("sip:{user}@example.com"), ..Party::default() }
}

/// The call of section 1.3 of the design: answered after 2.202 s, 10 s of RTP from the caller.
pub(crate) fn answered_call() -> Call {
    const A: &str = "192.0.2.1:5060";
    const B: &str = "192.0.2.2:5060";
    Call {
        id: "8f31c0a2d4".to_owned(),
        capture: "+447700900123-2-3_21_11_2026_20:59:41.pcap".to_owned(),
        call_id: "1-2345@192.0.2.1".to_owned(),
        from_tag: "t1".to_owned(),
        caller: party("+447700900123"),
        callee: party("+447700900456"),
        state: CallState::Completed,
        end: Some(EndReason::ByeOfCaller),
        final_code: Some(200),
        start_ns: START_NS,
        ringing_ns: Some(START_NS + 198 * MS),
        answered_ns: Some(START_NS + 2_202 * MS),
        ended_ns: Some(START_NS + 12_224 * MS),
        last_ns: START_NS + 12_226 * MS,
        legs: 1,
        messages: vec![
            message(0, A, B, "INVITE +SDP"),
            message(198, B, A, "180 Ringing"),
            message(2_202, B, A, "200 OK +SDP"),
            message(2_204, A, B, "ACK"),
            message(12_224, A, B, "BYE"),
            message(12_226, B, A, "200 OK"),
        ],
        messages_omitted: 0,
        streams: vec![stream(2_222, "192.0.2.1:6000", "192.0.2.2:6002", Side::Caller)],
        info_digits: Vec::new(),
        findings: Vec::new(),
        is_cut: false,
    }
}

/// A UDP datagram of a capture.
pub(crate) struct SampleDatagram {
    pub place: PacketPlace,
    pub flow: Flow,
    pub ip_id: u16,
    pub payload: Vec<u8>,
}

/// Packets of a capture in testdata: place, link type, bytes.
pub(crate) fn packets(name: &str) -> Vec<(PacketPlace, u32, Vec<u8>)> {
    let file = std::fs::read(format!("{}/testdata/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let mut source = &file[..];
    let mut reader = RecordReader::open(&mut source, file.len() as u64).unwrap().unwrap();
    let mut packets = Vec::new();
    while let Some(record) = reader.next(&mut source).unwrap() {
        let data = record.data.unwrap();
        packets.push((record.place, data.link_type, data.bytes(record.bytes).to_vec()));
    }
    packets
}

/// Whole UDP datagrams of a capture in testdata.
pub(crate) fn datagrams(name: &str) -> Vec<SampleDatagram> {
    let datagram = |(place, link_type, bytes): (PacketPlace, u32, Vec<u8>)| match peel(link_type, &bytes) {
        Peeled::Udp(UdpDatagram { flow, ip_id, payload, is_cut: false }) => {
            Some(SampleDatagram { place, flow, ip_id, payload: payload.to_vec() })
        }
        _ => None,
    };
    packets(name).into_iter().filter_map(datagram).collect()
}
