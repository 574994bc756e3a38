//! Retransmissions, copies, hops and forks.

use super::super::*;
use super::kit::*;
use crate::calls::view::{CallState, EndReason, Finding};

#[test]
fn retransmissions_are_counted_on_the_first_message() {
    let mut kit = Kit::new();
    let invite = request("INVITE", 1);
    kit.send(A, B, &invite);
    assert_eq!(kit.after(500 * MILLISECOND, A, B, &invite).kind, EventKind::Retransmission);
    assert_eq!(kit.after(SECOND, A, B, &invite).kind, EventKind::Retransmission);
    let ok = response(200, "OK", &invite).sdp(SDP_B);
    kit.send(B, A, &ok);
    let event = kit.after(500 * MILLISECOND, B, A, &ok);
    assert_eq!((event.kind, event.sdp), (EventKind::Retransmission, None));
    let call = kit.view();
    let counts: Vec<u32> = call.messages.iter().map(|message| message.retransmissions).collect();
    assert_eq!(counts, [2, 1]);
    assert_eq!((kit.call().retransmissions, kit.call().copies, call.last_ns), (3, 0, kit.time_ns));
    assert_eq!(kit.calls.totals().retransmissions, 3);
}

#[test]
fn a_message_after_32_s_is_not_a_retransmission() {
    let mut kit = Kit::new();
    let invite = request("INVITE", 1);
    let ringing = response(180, "Ringing", &invite);
    kit.send(A, B, &invite);
    kit.send(B, A, &ringing);
    assert_eq!(kit.after(32 * SECOND, B, A, &ringing).kind, EventKind::Retransmission);
    assert_eq!(kit.after(32 * SECOND + 1, B, A, &ringing).kind, EventKind::Message);
}

#[test]
fn provisional_responses_that_differ_are_messages() {
    let mut kit = Kit::new();
    let invite = request("INVITE", 1);
    kit.send(A, B, &invite);
    let kinds = ["RSeq: 1", "RSeq: 2", "RSeq: 2"]
        .map(|line| kit.send(B, A, &response(183, "Session Progress", &invite).header(line)).kind);
    assert_eq!(kinds, [EventKind::Message, EventKind::Message, EventKind::Retransmission]);
}

#[test]
fn copies_of_the_capture_are_only_counted() {
    let mut kit = Kit::new();
    let invite = request("INVITE", 1);
    kit.send(A, B, &invite);
    // The same IP identification up to 20 ms later.
    assert_eq!(kit.add(A, B, &invite).kind, EventKind::Copy);
    kit.time_ns += 20 * MILLISECOND;
    assert_eq!(kit.add(A, B, &invite).kind, EventKind::Copy);
    // Later, it is a retransmission. The capture may have it twice as well.
    kit.time_ns += 1;
    assert_eq!(kit.add(A, B, &invite).kind, EventKind::Retransmission);
    assert_eq!(kit.after(500 * MILLISECOND, A, B, &invite).kind, EventKind::Retransmission);
    assert_eq!(kit.add(A, B, &invite).kind, EventKind::Copy);
    // Another IP identification within 20 ms is a retransmission, but not on another VLAN.
    assert_eq!(kit.after(MILLISECOND, A, B, &invite).kind, EventKind::Retransmission);
    kit.vlan = 7;
    assert_eq!(kit.after(MILLISECOND, A, B, &invite).kind, EventKind::Copy);
    let call = kit.call();
    assert_eq!((call.copies, call.retransmissions, call.messages.len()), (4, 3, 1));
    assert_eq!(kit.calls.totals().counts.requests["INVITE"], 8);
}

#[test]
fn without_ip_identification_the_bytes_tell_copies() {
    let mut kit = Kit::new();
    let invite = request("INVITE", 1);
    kit.add(A, B, &invite);
    kit.time_ns += 20 * MILLISECOND;
    assert_eq!(kit.add(A, B, &invite).kind, EventKind::Copy);
    kit.time_ns += MILLISECOND;
    assert_eq!(kit.add(A, B, &invite).kind, EventKind::Retransmission);
}

#[test]
fn a_copy_with_other_bytes_is_no_copy() {
    let mut kit = Kit::new();
    let bye = request("BYE", 2).to("b");
    kit.answer_call();
    kit.send(A, B, &request("INFO", 2).to("b"));
    assert_eq!(kit.add(A, B, &bye).kind, EventKind::Message);
    assert_eq!(kit.view().state, CallState::Completed);
}

#[test]
fn hops_are_messages_that_change_nothing() {
    let mut kit = Kit::new();
    let invite = request("INVITE", 1).sdp(SDP);
    let forwarded = invite.clone().branch("z9hG4bK-proxy");
    kit.send(A, P, &invite);
    assert_eq!(kit.send(P, B, &forwarded).kind, EventKind::Hop);
    assert_eq!(kit.send(P, B, &forwarded).kind, EventKind::Retransmission);
    kit.send(B, P, &response(180, "Ringing", &forwarded));
    let ringing_ns = kit.time_ns;
    assert_eq!(kit.send(P, A, &response(180, "Ringing", &invite)).kind, EventKind::Hop);
    kit.send(B, P, &response(200, "OK", &forwarded).sdp(SDP_B));
    let answered_ns = kit.time_ns;
    kit.send(P, A, &response(200, "OK", &invite).sdp(SDP_B));
    let ack = request("ACK", 1).to("b");
    kit.send(A, P, &ack);
    kit.send(P, B, &ack.clone().branch("z9hG4bK-proxy-ack"));
    let bye = request("BYE", 2).to("b");
    kit.send(A, P, &bye);
    let ended_ns = kit.time_ns;
    kit.send(P, B, &bye.clone().branch("z9hG4bK-proxy-bye"));
    let call = kit.view();
    assert_eq!(
        (call.ringing_ns, call.answered_ns, call.ended_ns),
        (Some(ringing_ns), Some(answered_ns), Some(ended_ns))
    );
    assert_eq!((call.state, call.legs, call.messages.len()), (CallState::Completed, 1, 10));
    let counts: Vec<u32> = call.messages.iter().map(|message| message.retransmissions).collect();
    assert_eq!(counts, [0, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(call.messages[1].source.to_string(), "192.0.2.10:5060");
    // The description that the proxy forwards unchanged is kept once.
    assert_eq!(kit.call().sdps.len(), 2);
}

#[test]
fn an_error_of_one_branch_of_a_proxy_does_not_end_the_call() {
    let mut kit = Kit::new();
    let invite = request("INVITE", 1);
    let (to_b, to_c) = (invite.clone().branch("z9hG4bK-b"), invite.clone().branch("z9hG4bK-c"));
    kit.send(A, P, &invite);
    kit.send(P, B, &to_b);
    kit.send(P, C, &to_c);
    kit.send(B, P, &response(486, "Busy Here", &to_b));
    kit.send(P, B, &request("ACK", 1).to("b").branch("z9hG4bK-b"));
    assert_eq!(kit.view().state, CallState::Trying);
    kit.send(C, P, &response(603, "Decline", &to_c).to("c"));
    kit.send(P, A, &response(603, "Decline", &invite).to("c"));
    let call = kit.view();
    assert_eq!(
        (call.state, call.final_code, call.ended_ns),
        (CallState::Rejected, Some(603), Some(kit.time_ns))
    );
}

#[test]
fn an_error_of_another_hop_counts_if_the_first_hop_has_none() {
    let mut kit = Kit::new();
    let invite = request("INVITE", 1);
    let forwarded = invite.clone().branch("z9hG4bK-b");
    kit.send(A, P, &invite);
    kit.send(P, B, &forwarded);
    kit.send(B, P, &response(404, "Not Found", &forwarded));
    let call = kit.finish();
    assert_eq!(
        (call.state(), call.end, call.final_code),
        (CallState::Failed, Some(EndReason::Response), Some(404))
    );
}

#[test]
fn the_acknowledged_fork_is_the_answered_leg() {
    let mut kit = Kit::new();
    let invite = request("INVITE", 1);
    kit.send(A, P, &invite);
    kit.send(P, A, &response(180, "Ringing", &invite).to("x"));
    kit.send(P, A, &response(180, "Ringing", &invite).to("y"));
    kit.send(P, A, &response(200, "OK", &invite).to("y"));
    kit.send(P, A, &response(200, "OK", &invite).to("z"));
    assert_eq!(kit.call().answered_leg(), Some(1));
    kit.send(A, P, &request("ACK", 1).to("z"));
    let call = kit.call();
    assert_eq!((call.legs.len(), call.answered_legs(), call.answered_leg()), (3, 2, Some(2)));
    let view = kit.view();
    assert_eq!((view.legs, view.findings), (3, vec![Finding::SeveralAnswers]));
    let tags: Vec<&str> = view.messages.iter().map(|message| &*message.to_tag).collect();
    assert_eq!(tags, ["", "x", "y", "y", "z", "z"]);
}

#[test]
fn the_bye_of_a_losing_fork_does_not_end_the_call() {
    let mut kit = Kit::new();
    let invite = request("INVITE", 1);
    kit.send(A, P, &invite);
    for tag in ["x", "y"] {
        kit.send(P, A, &response(200, "OK", &invite).to(tag));
        kit.send(A, P, &request("ACK", 1).to(tag).branch(tag));
    }
    kit.send(A, P, &request("BYE", 2).to("x"));
    assert_eq!(kit.view().state, CallState::Answered);
    kit.send(P, A, &request("BYE", 5).from("y").to("a"));
    let call = kit.view();
    assert_eq!(
        (call.state, call.end, call.ended_ns),
        (CallState::Completed, Some(EndReason::ByeOfCallee), Some(kit.time_ns))
    );
}

#[test]
fn the_bye_of_an_early_fork_does_not_end_the_call() {
    let mut kit = Kit::new();
    let invite = request("INVITE", 1);
    kit.send(A, P, &invite);
    kit.send(P, A, &response(180, "Ringing", &invite).to("x"));
    kit.send(P, A, &response(200, "OK", &invite).to("y"));
    kit.send(A, P, &request("BYE", 2).to("x"));
    assert_eq!(kit.view().state, CallState::Answered);
    // A tag that was never seen is that of an answer which the capture lacks.
    kit.send(A, P, &request("BYE", 3).to("z"));
    assert_eq!(kit.view().state, CallState::Completed);
}

#[test]
fn repeats_are_looked_for_among_the_latest_messages() {
    let with_between = |count: usize| {
        let mut kit = Kit::new();
        kit.answer_call();
        let first = request("INFO", 1_000).to("b");
        kit.send(A, B, &first);
        for cseq in 0..count {
            kit.after(MILLISECOND, A, B, &request("INFO", u32::try_from(cseq).unwrap()).to("b"));
        }
        kit.send(A, B, &first).kind
    };
    assert_eq!(with_between(REPEAT_WINDOW - 1), EventKind::Retransmission);
    assert_eq!(with_between(REPEAT_WINDOW), EventKind::Message);
}

#[test]
fn messages_outside_calls_are_counted() {
    let mut kit = Kit::new();
    let register = request("REGISTER", 1);
    assert_eq!(kit.send(A, P, &register).kind, EventKind::Session);
    assert_eq!(kit.add(A, P, &register).kind, EventKind::Copy);
    assert_eq!(kit.send(A, P, &register).kind, EventKind::Retransmission);
    kit.send(P, A, &response(401, "Unauthorized", &register));
    for method in ["OPTIONS", "SUBSCRIBE", "NOTIFY", "PUBLISH", "MESSAGE", "REFER", "FOO", "INFO", "UPDATE"] {
        assert_eq!(kit.send(A, P, &request(method, 1)).kind, EventKind::Session, "{method}");
    }
    assert_eq!(kit.calls.len(), 0);
    let sessions = &kit.calls.totals().sessions;
    assert_eq!((sessions.counts.total(), sessions.copies, sessions.retransmissions), (13, 1, 1));
    assert_eq!((sessions.counts.requests["REGISTER"], sessions.counts.responses[&401]), (3, 1));
}

#[test]
fn in_dialog_messages_belong_to_the_call_but_registrations_do_not() {
    let mut kit = Kit::new();
    kit.answer_call();
    assert_eq!(kit.send(A, B, &request("OPTIONS", 2).to("b")).call, Some(1));
    assert_eq!(kit.send(B, A, &request("MESSAGE", 2).from("b").to("a")).call, Some(1));
    assert_eq!(kit.send(A, B, &request("OPTIONS", 3)).call, None);
    assert_eq!(kit.send(A, B, &request("REGISTER", 4).to("b")).call, None);
}
