//! The sample captures. Expected numbers are those of `tshark -q -z sip,stat` and `tshark -T fields -e sip.Call-ID` of
//! tshark 4.0.17.

use std::net::Ipv4Addr;

use super::super::*;
use super::kit::MILLISECOND;
use crate::calls::endpoint::Endpoint;
use crate::calls::sip::{Message, is_start_line};
use crate::calls::view::{CallState, EndReason};

/// Packets of a pcap or pcapng file of this machine's byte order, as (time, offset, packet). Enough for the samples.
fn packets_of(bytes: &[u8]) -> Vec<(i64, usize, &[u8])> {
    let number = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    let index = |at: usize| usize::try_from(number(at)).unwrap();
    let mut packets = Vec::new();
    if number(0) == 0x0A0D_0D0A {
        let mut at = 0;
        while at < bytes.len() {
            if number(at) == 6 {
                // The samples have nanoseconds.
                let time = u64::from(number(at + 12)) << 32 | u64::from(number(at + 16));
                packets.push((i64::try_from(time).unwrap(), at, &bytes[at + 28..at + 28 + index(at + 20)]));
            }
            at += index(at + 4);
        }
        return packets;
    }
    let unit = if number(0) == 0xA1B2_3C4D { 1 } else { 1_000 };
    let mut at = 24;
    while at < bytes.len() {
        let time = i64::from(number(at)) * 1_000_000_000 + i64::from(number(at + 4)) * unit;
        packets.push((time, at, &bytes[at + 16..at + 16 + index(at + 8)]));
        at += 16 + index(at + 8);
    }
    packets
}

/// UDP payload of an Ethernet packet, with its flow and IP identification.
fn udp_of(packet: &[u8]) -> Option<(Flow, u16, &[u8])> {
    let ip = packet.get(14..).filter(|_| packet[12..14] == [8, 0])?;
    let udp = ip.get(usize::from(ip[0] & 15) * 4..).filter(|_| ip[9] == 17)?;
    let short = |bytes: &[u8], at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
    let endpoint =
        |at: usize, port| Endpoint::new(Ipv4Addr::new(ip[at], ip[at + 1], ip[at + 2], ip[at + 3]), port);
    let flow = Flow { source: endpoint(12, short(udp, 0)), destination: endpoint(16, short(udp, 2)) };
    Some((flow, short(ip, 4), udp.get(8..usize::from(short(udp, 4)))?))
}

fn calls_of(name: &str) -> Calls {
    let bytes = std::fs::read(capture_path(name)).unwrap();
    let mut calls = Calls::default();
    for (time_ns, offset, packet) in packets_of(&bytes) {
        let Some((flow, ip_id, payload)) = udp_of(packet).filter(|(_, _, payload)| is_start_line(payload))
        else {
            continue;
        };
        let message = Message::parse(payload).unwrap();
        let place = PacketPlace { offset: offset as u64, bytes: packet.len() as u32, time_ns };
        calls.add(
            PacketMeta {
                place,
                first_offset: place.offset,
                flow,
                ip_id,
                vlan: 0,
                transport: SipTransport::Udp,
            },
            &message,
            payload,
        );
    }
    calls
}

/// In the checkout, or beside this crate.
fn capture_path(name: &str) -> String {
    let here = format!("{}/testdata/pcap/{name}", env!("CARGO_MANIFEST_DIR"));
    if std::fs::exists(&here).unwrap() {
        here
    } else {
        format!("{}/../../../main/testdata/pcap/{name}", env!("CARGO_MANIFEST_DIR"))
    }
}

#[track_caller]
fn check_counts(calls: &Calls, requests: &[(&str, u64)], responses: &[(u16, u64)]) {
    let counts = &calls.totals().counts;
    assert_eq!(counts.requests.iter().map(|(name, count)| (&**name, *count)).collect::<Vec<_>>(), requests);
    assert_eq!(counts.responses.iter().map(|(code, count)| (*code, *count)).collect::<Vec<_>>(), responses);
}

fn call_ids(calls: &Calls) -> Vec<String> {
    calls.iter().map(|call| String::from_utf8_lossy(&call.call_id).into_owned()).collect()
}

#[test]
fn the_answered_call_is_read() {
    let calls = calls_of("answered-call.pcap");
    check_counts(&calls, &[("ACK", 1), ("BYE", 1), ("INVITE", 1)], &[(180, 1), (200, 2)]);
    assert_eq!(call_ids(&calls), ["1-20929@10.77.0.1"]);
    let call = to_view(calls.iter().next().unwrap(), "answered-call.pcap", "s");
    assert_eq!(
        (call.state, call.end, call.final_code),
        (CallState::Completed, Some(EndReason::ByeOfCaller), Some(200))
    );
    assert_eq!(call.callee.user, "+447700900456");
    // Times of frames 1, 2, 3 and 505.
    assert_eq!(call.start_ns, 1_795_294_772_117_736_000);
    assert_eq!(call.ringing_ns, Some(1_795_294_772_117_877_000));
    assert_eq!(call.answered_ns, Some(1_795_294_772_118_951_000));
    assert_eq!(call.ended_ns, Some(1_795_294_777_325_358_000));
    assert_eq!(call.setup_ns().map(|ns| ns / MILLISECOND), Some(0));
    let sides: Vec<Side> = calls.iter().flat_map(|call| &call.sdps).map(|sdp_use| sdp_use.side).collect();
    assert_eq!(sides, [Side::Caller, Side::Callee]);
}

#[test]
fn the_rejected_call_is_read() {
    let calls = calls_of("rejected-call.pcap");
    check_counts(&calls, &[("ACK", 1), ("INVITE", 1)], &[(180, 1), (486, 1)]);
    assert_eq!(call_ids(&calls), ["1-22228@10.77.0.1"]);
    let call = to_view(calls.iter().next().unwrap(), "rejected-call.pcap", "s");
    assert_eq!(
        (call.state, call.end, call.final_code),
        (CallState::Rejected, Some(EndReason::Response), Some(486))
    );
    assert_eq!(call.ended_ns, Some(1_795_294_796_393_366_000));
}

#[test]
fn the_three_calls_are_read() {
    let calls = calls_of("three-calls.pcapng");
    check_counts(&calls, &[("ACK", 3), ("BYE", 3), ("INVITE", 3)], &[(180, 3), (200, 6)]);
    assert_eq!(call_ids(&calls), ["1-21469@10.77.0.1", "2-21469@10.77.0.1", "3-21469@10.77.0.1"]);
    assert!(calls.iter().all(|call| call.state() == CallState::Completed && call.messages.len() == 6));
    assert_eq!((calls.totals().retransmissions, calls.totals().copies), (0, 0));
    assert_eq!(calls.get(3).unwrap().ended_ns, Some(1_795_294_789_626_122_267));
}
