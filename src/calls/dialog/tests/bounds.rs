//! Limits, each from both sides, and hostile input.

use super::super::*;
use super::kit::*;
use crate::calls::sip::Message;
use crate::calls::view::{EndReason, Finding};

#[test]
fn messages_over_the_limit_are_counted() {
    let mut kit = Kit::new();
    let send = |kit: &mut Kit, count: u32| kit.after(MILLISECOND, A, B, &request("INFO", count).to("b"));
    for count in 0..u32::try_from(MESSAGES_MAX).unwrap() {
        send(&mut kit, count);
    }
    assert_eq!((kit.call().messages.len(), kit.call().messages_omitted), (MESSAGES_MAX, 0));
    send(&mut kit, 50_000);
    kit.send(A, B, &request("BYE", 50_001).to("b"));
    let call = kit.view();
    assert_eq!((call.messages.len(), call.messages_omitted), (MESSAGES_MAX, 2));
    assert_eq!((call.end, call.findings), (Some(EndReason::ByeOfCaller), vec![Finding::Cut]));
}

#[test]
fn descriptions_over_the_limit_are_counted_and_still_returned() {
    let mut kit = Kit::new();
    kit.answer_call();
    let mut last = None;
    for port in 0..SDPS_MAX - 1 {
        let sdp = format!("v=0\r\nc=IN IP4 192.0.2.1\r\nm=audio {} RTP/AVP 8\r\n", 20_000 + port);
        assert_eq!(kit.call().sdps_omitted, 0);
        last = kit.send(A, B, &request("INVITE", 2 + u32::try_from(port).unwrap()).to("b").sdp(&sdp)).sdp;
    }
    assert_eq!((kit.call().sdps.len(), kit.call().sdps_omitted), (SDPS_MAX, 1));
    assert_eq!(last.unwrap().sdp.media[0].port, 20_062);
}

#[test]
fn legs_over_the_limit_are_counted() {
    let mut kit = Kit::new();
    let invite = request("INVITE", 1);
    kit.send(A, B, &invite);
    let mut fork = |count: usize| {
        kit.send(B, A, &response(180, "Ringing", &invite).to(&format!("leg-{count}")));
        (kit.call().legs.len(), kit.call().legs_omitted, kit.view().legs)
    };
    let at_limit = (0..LEGS_MAX).map(&mut fork).last().unwrap();
    assert_eq!(at_limit, (64, 0, 64));
    assert_eq!(fork(LEGS_MAX), (64, 1, 65));
}

#[test]
fn digits_over_the_limit_are_counted() {
    let mut kit = Kit::new();
    kit.answer_call();
    let mut press = |count: usize| {
        let info = request("INFO", 10 + u32::try_from(count).unwrap()).to("b").body("application/dtmf", "1");
        kit.after(MILLISECOND, A, B, &info);
        (kit.call().info_digits.len(), kit.call().digits_omitted)
    };
    let at_limit = (0..DIGITS_MAX).map(&mut press).last().unwrap();
    assert_eq!(at_limit, (DIGITS_MAX, 0));
    assert_eq!(press(DIGITS_MAX), (DIGITS_MAX, 1));
}

#[test]
fn ids_over_the_limit_are_rejected_and_counted() {
    let mut kit = Kit::new();
    let id = |len: usize| "x".repeat(len);
    assert_eq!(kit.send(A, B, &request("INVITE", 1).call_id(&id(ID_BYTES_MAX))).kind, EventKind::NewCall);
    assert_eq!(
        kit.send(A, B, &request("INVITE", 1).call_id(&id(ID_BYTES_MAX + 1))).kind,
        EventKind::Rejected
    );
    assert_eq!(kit.send(A, B, &request("INVITE", 1).from(&id(ID_BYTES_MAX))).kind, EventKind::NewCall);
    assert_eq!(kit.send(A, B, &request("INVITE", 1).from(&id(ID_BYTES_MAX + 1))).kind, EventKind::Rejected);
    assert_eq!(kit.send(A, B, &request("BYE", 1).to(&id(ID_BYTES_MAX + 1))).kind, EventKind::Rejected);
    assert_eq!((kit.calls.totals().ids_too_long, kit.calls.totals().counts.total()), (3, 5));
}

#[test]
fn what_the_parsers_cut_is_counted() {
    let mut kit = Kit::new();
    kit.answer_call();
    assert_eq!((kit.calls.totals().messages_cut, kit.calls.totals().sdps_cut), (0, 0));
    let lines = "X: y\r\n".repeat(600);
    kit.send(A, B, &request("INFO", 2).to("b").header(lines.trim_end()));
    let media = "m=audio 1 RTP/AVP 8\r\n".repeat(65);
    kit.send(A, B, &request("UPDATE", 3).to("b").sdp(&format!("v=0\r\n{media}")));
    assert_eq!((kit.calls.totals().messages_cut, kit.calls.totals().sdps_cut), (1, 1));
}

#[test]
fn texts_are_cut_at_a_character() {
    let mut kit = Kit::new();
    kit.send(A, B, &request("INVITE", 1).header(&format!("User-Agent: x{}", "é".repeat(300))));
    assert_eq!(kit.view().caller.agent.len(), TEXT_BYTES_MAX - 1);
}

#[test]
fn the_call_that_was_idle_longest_is_cut() {
    let mut kit = Kit::new();
    let open = |kit: &mut Kit, number: usize| {
        kit.after(MILLISECOND, A, B, &request("INVITE", 1).call_id(&format!("call-{number}")))
    };
    for number in 0..OPEN_CALLS_MAX {
        assert!(open(&mut kit, number).cut.is_empty());
    }
    assert_eq!((kit.calls.len(), kit.calls.totals().cut), (OPEN_CALLS_MAX, 0));
    // The first call is active again, so that the second one is the oldest.
    kit.send(B, A, &response(180, "Ringing", &request("INVITE", 1).call_id("call-0")));
    let cut = open(&mut kit, OPEN_CALLS_MAX).cut;
    assert_eq!((cut.len(), &*cut[0].call_id), (1, &b"call-1"[..]));
    assert_eq!((cut[0].is_cut, cut[0].end), (true, Some(EndReason::Limit)));
    assert_eq!((kit.calls.len(), kit.calls.totals().cut), (OPEN_CALLS_MAX, 1));
    assert_eq!(&*open(&mut kit, OPEN_CALLS_MAX + 1).cut[0].call_id, b"call-2");
    assert!(kit.calls.memory() < STATE_BYTES_MAX);
    assert_eq!(kit.calls.take_finished(i64::MAX, 0).len(), OPEN_CALLS_MAX);
    assert_eq!(kit.calls.memory(), 0);
}

#[test]
fn memory_is_bounded() {
    let mut kit = Kit::new();
    // 64 media lines of 64 payload types: more than 100 KB in memory.
    let formats = (0..64).map(|payload_type| format!(" {payload_type}")).collect::<String>();
    let media = format!("m=audio 1 RTP/AVP{formats}\r\n").repeat(64);
    let mut cut = 0;
    for number in 0..900 {
        let invite = request("INVITE", 1).call_id(&format!("call-{number}")).sdp(&format!("v=0\r\n{media}"));
        cut += kit.send(A, B, &invite).cut.len();
        assert!(kit.calls.memory() <= STATE_BYTES_MAX);
        assert_eq!(kit.calls.len() + cut, number + 1);
    }
    assert!(cut > 0);
    let sum: usize = kit.calls.iter().map(|call| call.memory).sum();
    assert_eq!(sum, kit.calls.memory());
    assert_eq!(kit.calls.totals().cut, u64::try_from(cut).unwrap());
}

#[test]
fn method_names_over_the_limit_are_counted_together() {
    let mut kit = Kit::new();
    for number in 0..100 {
        kit.send(A, B, &request(&format!("M{number}"), 1));
    }
    kit.send(A, B, &request(&"X".repeat(33), 1));
    let requests = &kit.calls.totals().counts.requests;
    assert_eq!((requests.len(), requests["M63"], requests["OTHER"]), (65, 1, 37));
}

#[test]
fn sessions_are_looked_for_among_the_latest_ones() {
    let with_between = |count: usize| {
        let mut kit = Kit::new();
        kit.send(A, P, &request("REGISTER", 9_999));
        for cseq in 0..count {
            kit.after(MILLISECOND, A, P, &request("OPTIONS", u32::try_from(cseq).unwrap()));
        }
        kit.send(A, P, &request("REGISTER", 9_999)).kind
    };
    assert_eq!(with_between(SESSION_REPEATS_MAX - 1), EventKind::Retransmission);
    assert_eq!(with_between(SESSION_REPEATS_MAX), EventKind::Session);
}

#[test]
fn clocks_that_jump_are_survived() {
    let mut kit = Kit::new();
    for time_ns in [0, i64::MAX, i64::MIN, -1, i64::MAX - 1, 1] {
        kit.time_ns = time_ns;
        kit.add(A, B, &request("INVITE", 1));
        kit.add(B, A, &response(200, "OK", &request("INVITE", 1)));
        let _ = kit.calls.take_finished(time_ns, i64::MAX);
        kit.add(A, B, &request("BYE", 2).to("b"));
    }
    for call in kit.calls.take_all() {
        let _ = to_view(&call, "", "").messages.len();
    }
}

#[test]
fn random_messages_of_few_calls_keep_the_table_consistent() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = |bound: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % bound).unwrap()
    };
    const METHODS: [&str; 10] =
        ["INVITE", "ACK", "BYE", "CANCEL", "PRACK", "UPDATE", "INFO", "REFER", "OPTIONS", "REGISTER"];
    const CODES: [u16; 12] = [100, 180, 183, 200, 202, 302, 401, 407, 481, 486, 487, 503];
    let tags = ["", "a", "b", "c"];
    let mut kit = Kit::new();
    let mut seen = 0;
    for _ in 0..10_000 {
        let cseq = u32::try_from(random(4)).unwrap();
        let mut text =
            request(METHODS[random(10)], cseq).call_id(["call-1", "call-2"][random(2)]).from(tags[random(4)]);
        text = text.to(tags[random(4)]).branch(["x", "y"][random(2)]);
        if random(2) == 0 {
            text = response(CODES[random(12)], "", &text);
        }
        if random(3) == 0 {
            text = text.sdp([SDP, SDP_B, SDP_HOLD][random(3)]);
        }
        let wait_ns = [0, MILLISECOND, SECOND, 10 * SECOND][random(4)];
        kit.ip_id = u16::try_from(random(3)).unwrap();
        kit.time_ns += wait_ns;
        let (source, destination) = [(A, B), (B, A), (A, P), (P, B)][random(4)];
        kit.add(source, destination, &text);
        seen += 1;
        if random(100) == 0 {
            let now_ns = kit.time_ns;
            kit.calls.take_finished(now_ns, 600 * SECOND);
        }
        let sum: usize = kit.calls.iter().map(|call| call.memory).sum();
        assert_eq!(sum, kit.calls.memory());
    }
    assert_eq!(kit.calls.totals().counts.total(), seen);
    for call in kit.calls.iter() {
        let view = to_view(call, "", "");
        assert!(
            view.talk_ns().is_none_or(|talk| talk >= 0) && view.setup_ns().is_none_or(|setup| setup >= 0)
        );
    }
}

#[test]
fn random_bytes_of_messages_are_survived() {
    let original = request("INVITE", 1).sdp(SDP).bytes();
    let mut state = 0xdead_beef_u64;
    let mut kit = Kit::new();
    for _ in 0..5_000 {
        let mut bytes = original.clone();
        for _ in 0..4 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let at = usize::try_from(state % u64::try_from(bytes.len()).unwrap()).unwrap();
            bytes[at] = u8::try_from(state >> 56).unwrap();
        }
        if let Ok(message) = Message::parse(&bytes) {
            let place = PacketPlace { offset: 0, bytes: 0, time_ns: kit.time_ns };
            let endpoint = crate::calls::endpoint::Endpoint::UNSPECIFIED;
            let flow = Flow { source: endpoint, destination: endpoint };
            let packet = PacketMeta {
                place,
                first_offset: place.offset,
                flow,
                ip_id: 0,
                vlan: 0,
                transport: SipTransport::Tcp,
            };
            kit.calls.add(packet, &message, &bytes);
        }
    }
    assert!(kit.calls.totals().counts.total() > 1_000);
}
