//! The sample captures. Expected numbers are those of `tshark -q -z sip,stat` and `tshark -T fields -e sip.Call-ID` of
//! tshark 4.0.17.

use super::super::*;
use super::kit::MILLISECOND;
use crate::calls::samples::{SampleDatagram, datagrams};
use crate::calls::sip::{Message, is_start_line};
use crate::calls::view::{CallState, EndReason};

fn calls_of(name: &str) -> Calls {
    let mut calls = Calls::default();
    let datagrams = datagrams(&format!("pcap/{name}"));
    for SampleDatagram { place, flow, ip_id, payload } in datagrams {
        if !is_start_line(&payload) {
            continue;
        }
        let transport = SipTransport::Udp;
        let packet = PacketMeta { place, first_offset: place.offset, flow, ip_id, vlan: 0, transport };
        calls.add(packet, &Message::parse(&payload).unwrap(), &payload);
    }
    calls
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
