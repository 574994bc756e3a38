//! States of calls: each test is a call flow.

use super::super::*;
use super::kit::*;
use crate::calls::view::{CallState, EndReason};

#[track_caller]
fn check_end(kit: &Kit, state: CallState, end: Option<EndReason>, final_code: Option<u16>) {
    let call = kit.view();
    assert_eq!((call.state, call.end, call.final_code), (state, end, final_code));
}

#[test]
fn a_call_goes_through_its_states() {
    let mut kit = Kit::new();
    let start = kit.time_ns;
    let invite = request("INVITE", 1);
    assert_eq!(kit.send(A, B, &invite).kind, EventKind::NewCall);
    check_end(&kit, CallState::Trying, None, None);
    kit.send(B, A, &response(100, "Trying", &invite));
    check_end(&kit, CallState::Trying, None, None);
    kit.send(B, A, &response(180, "Ringing", &invite));
    check_end(&kit, CallState::Ringing, None, None);
    kit.send(B, A, &response(180, "Ringing", &invite).header("X: again"));
    kit.send(B, A, &response(200, "OK", &invite));
    check_end(&kit, CallState::Answered, None, Some(200));
    kit.send(A, B, &request("ACK", 1).to("b"));
    let event = kit.send(A, B, &request("BYE", 2).to("b"));
    assert_eq!((event.kind, event.call, event.side), (EventKind::Message, Some(1), Some(Side::Caller)));
    let event = kit.send(B, A, &response(200, "OK", &request("BYE", 2).to("b")));
    assert_eq!(event.side, Some(Side::Callee));
    check_end(&kit, CallState::Completed, Some(EndReason::ByeOfCaller), Some(200));
    let call = kit.view();
    let at = |count: i64| start + count * 100 * MILLISECOND;
    assert_eq!((call.start_ns, call.ringing_ns, call.answered_ns), (at(1), Some(at(3)), Some(at(5))));
    assert_eq!((call.ended_ns, call.last_ns, call.legs), (Some(at(7)), at(8), 1));
    let texts: Vec<&str> = call.messages.iter().map(|message| &*message.text).collect();
    assert_eq!(
        texts,
        ["INVITE", "100 Trying", "180 Ringing", "180 Ringing", "200 OK", "ACK", "BYE", "200 OK"]
    );
}

#[test]
fn a_bye_of_the_callee_ends_the_call() {
    let mut kit = Kit::new();
    kit.answer_call();
    let bye = request("BYE", 77).from("b").to("a");
    let event = kit.send(B, A, &bye);
    assert_eq!((event.call, event.side), (Some(1), Some(Side::Callee)));
    assert_eq!(kit.send(A, B, &response(200, "OK", &bye)).side, Some(Side::Caller));
    check_end(&kit, CallState::Completed, Some(EndReason::ByeOfCallee), Some(200));
    assert_eq!(kit.view().legs, 1);
}

#[test]
fn a_challenged_invite_is_the_same_call() {
    let mut kit = Kit::new();
    let first = request("INVITE", 1);
    kit.send(A, P, &first);
    kit.send(P, A, &response(407, "Proxy Authentication Required", &first).to("p"));
    kit.send(A, P, &request("ACK", 1).to("p").branch(&first.branch));
    check_end(&kit, CallState::Trying, None, None);
    let second = request("INVITE", 2);
    kit.send(A, P, &second);
    kit.send(P, A, &response(401, "Unauthorized", &second));
    let third = request("INVITE", 3);
    kit.send(A, P, &third);
    kit.send(P, A, &response(200, "OK", &third));
    check_end(&kit, CallState::Answered, None, Some(200));
    assert_eq!(kit.calls.len(), 1);
}

#[test]
fn a_challenge_without_another_invite_is_a_failure() {
    let mut kit = Kit::new();
    let invite = request("INVITE", 1);
    kit.send(A, P, &invite);
    kit.send(P, A, &response(401, "Unauthorized", &invite));
    let call = kit.finish();
    assert_eq!(
        (call.state(), call.end, call.final_code),
        (CallState::Failed, Some(EndReason::Response), Some(401))
    );
}

#[test]
fn early_media_are_noted() {
    let mut kit = Kit::new();
    let invite = request("INVITE", 1).sdp(SDP);
    kit.send(A, B, &invite);
    let event = kit.send(B, A, &response(183, "Session Progress", &invite).sdp(SDP_B));
    let sdp_use = event.sdp.unwrap();
    assert_eq!((sdp_use.side, sdp_use.message, sdp_use.leg), (Side::Callee, Some(1), Some(0)));
    assert_eq!(sdp_use.sdp.media[0].port, 7000);
    check_end(&kit, CallState::Ringing, None, None);
    assert!(kit.call().has_early_media);
}

#[test]
fn prack_and_update_change_no_state() {
    let mut kit = Kit::new();
    let invite = request("INVITE", 1).sdp(SDP);
    kit.send(A, B, &invite);
    kit.send(B, A, &response(183, "Session Progress", &invite).header("RSeq: 1"));
    let prack = request("PRACK", 2).to("b").header("RAck: 1 1 INVITE");
    kit.send(A, B, &prack);
    kit.send(B, A, &response(200, "OK", &prack));
    let update = request("UPDATE", 5).from("b").to("a").sdp(SDP_B);
    kit.send(B, A, &update);
    kit.send(A, B, &response(200, "OK", &update).sdp(SDP_G722));
    check_end(&kit, CallState::Ringing, None, None);
    let sides: Vec<Side> = kit.call().sdps.iter().map(|sdp_use| sdp_use.side).collect();
    assert_eq!(sides, [Side::Caller, Side::Callee, Side::Caller]);
}

#[test]
fn a_late_offer_has_its_answer_in_the_ack() {
    let mut kit = Kit::new();
    let invite = request("INVITE", 1);
    assert_eq!(kit.send(A, B, &invite).sdp, None);
    kit.send(B, A, &response(200, "OK", &invite).sdp(SDP_B));
    let sdp_use = kit.send(A, B, &request("ACK", 1).to("b").sdp(SDP)).sdp.unwrap();
    assert_eq!((sdp_use.side, sdp_use.sdp.media[0].port), (Side::Caller, 6000));
    assert_eq!(kit.call().sdps.len(), 2);
}

#[test]
fn hold_resume_and_a_codec_change_are_in_the_history() {
    let mut kit = Kit::new();
    kit.answer_call();
    for (cseq, sdp) in [(2, SDP_HOLD), (3, SDP), (4, SDP_G722), (5, SDP_G722)] {
        let invite = request("INVITE", cseq).to("b").sdp(sdp);
        kit.send(A, B, &invite);
        kit.send(B, A, &response(200, "OK", &invite).sdp(SDP_B));
        kit.send(A, B, &request("ACK", cseq).to("b"));
    }
    let call = kit.call();
    // The first one is before the callee's tag is known, so the leg differs.
    let own = call.sdps.iter().filter(|sdp_use| sdp_use.side == Side::Caller);
    let media: Vec<(bool, u8)> = own
        .map(|sdp_use| &sdp_use.sdp.media[0])
        .map(|media| (media.is_hold(), media.formats[0].payload_type))
        .collect();
    assert_eq!(media, [(false, 8), (true, 8), (false, 8), (false, 9)]);
    assert_eq!(call.sdps.len(), 5);
    check_end(&kit, CallState::Answered, None, Some(200));
    assert_eq!((kit.calls.len(), call.answered_ns), (1, Some(1_000 * SECOND + 300 * MILLISECOND)));
}

#[test]
fn a_failed_re_invite_and_glare_leave_the_call_as_it_is() {
    let mut kit = Kit::new();
    kit.answer_call();
    let own = request("INVITE", 2).to("b").sdp(SDP_HOLD);
    let other = request("INVITE", 9).from("b").to("a").sdp(SDP_B);
    kit.send(A, B, &own);
    kit.send(B, A, &other);
    kit.send(B, A, &response(491, "Request Pending", &own));
    kit.send(A, B, &response(491, "Request Pending", &other));
    kit.send(A, B, &request("ACK", 2).to("b").branch(&own.branch));
    let third = request("INVITE", 3).to("b");
    kit.send(A, B, &third);
    kit.send(B, A, &response(488, "Not Acceptable Here", &third));
    check_end(&kit, CallState::Answered, None, Some(200));
}

#[test]
fn a_transfer_is_noted() {
    let mut kit = Kit::new();
    kit.answer_call();
    let refer =
        request("REFER", 2).to("b").header("Refer-To: \"C\" <sip:+12025550100@example.com?Replaces=x>");
    kit.send(A, B, &refer);
    kit.send(B, A, &response(202, "Accepted", &refer));
    let notify = request("NOTIFY", 3).from("b").to("a").body("message/sipfrag", "SIP/2.0 200 OK");
    assert_eq!(kit.send(B, A, &notify).call, Some(1));
    assert_eq!(kit.call().transfer_target.as_deref(), Some("sip:+12025550100@example.com"));
    check_end(&kit, CallState::Answered, None, Some(200));
}

#[test]
fn a_cancelled_call_is_cancelled() {
    let mut kit = Kit::new();
    let invite = request("INVITE", 1);
    kit.send(A, B, &invite);
    kit.send(B, A, &response(180, "Ringing", &invite));
    let cancel = request("CANCEL", 1).branch(&invite.branch);
    kit.send(A, B, &cancel);
    kit.send(B, A, &response(200, "OK", &cancel));
    check_end(&kit, CallState::Ringing, None, None);
    kit.send(B, A, &response(487, "Request Terminated", &invite));
    kit.send(A, B, &request("ACK", 1).to("b").branch(&invite.branch));
    check_end(&kit, CallState::Cancelled, Some(EndReason::Cancel), Some(487));
    assert_eq!(kit.view().ended_ns, Some(kit.time_ns - 100 * MILLISECOND));
}

#[test]
fn a_cancel_that_crosses_the_answer_has_no_effect() {
    let mut kit = Kit::new();
    let invite = request("INVITE", 1);
    kit.send(A, B, &invite);
    kit.send(A, B, &request("CANCEL", 1).branch(&invite.branch));
    kit.send(B, A, &response(200, "OK", &invite));
    check_end(&kit, CallState::Answered, None, Some(200));
}

#[test]
fn a_cancel_without_final_response_ends_the_call() {
    let mut kit = Kit::new();
    let invite = request("INVITE", 1);
    kit.send(A, B, &invite);
    kit.send(A, B, &request("CANCEL", 1).branch(&invite.branch));
    let cancelled_ns = kit.time_ns;
    let call = kit.finish();
    assert_eq!(
        (call.state(), call.end, call.ended_ns),
        (CallState::Cancelled, Some(EndReason::Cancel), Some(cancelled_ns))
    );
}

#[test]
fn final_errors_end_the_call() {
    let check_error = |code: u16, state: CallState| {
        let mut kit = Kit::new();
        let invite = request("INVITE", 1);
        kit.send(A, B, &invite);
        kit.send(B, A, &response(code, "Error", &invite));
        kit.send(A, B, &request("ACK", 1).to("b").branch(&invite.branch));
        check_end(&kit, state, Some(EndReason::Response), Some(code));
    };
    check_error(486, CallState::Rejected);
    check_error(600, CallState::Rejected);
    check_error(603, CallState::Rejected);
    check_error(408, CallState::Failed);
    check_error(404, CallState::Failed);
    check_error(503, CallState::Failed);
    check_error(302, CallState::Failed);
}

#[test]
fn an_invite_after_a_redirection_continues_the_call() {
    for code in [302, 422, 484] {
        let mut kit = Kit::new();
        let invite = request("INVITE", 1);
        kit.send(A, P, &invite);
        kit.send(P, A, &response(code, "Try Again", &invite));
        let second = request("INVITE", 2);
        kit.send(A, B, &second);
        kit.send(B, A, &response(200, "OK", &second));
        check_end(&kit, CallState::Answered, None, Some(200));
    }
}

#[test]
fn a_call_without_responses_fails_after_300_s() {
    let mut kit = Kit::new();
    kit.send(A, B, &request("INVITE", 1));
    assert!(kit.calls.take_finished(kit.time_ns + 300 * SECOND - 1, 0).is_empty());
    let calls = kit.calls.take_finished(kit.time_ns + 300 * SECOND, 0);
    assert_eq!((calls[0].state(), calls[0].end), (CallState::Failed, Some(EndReason::NoResponse)));
    assert_eq!((kit.calls.len(), kit.calls.memory()), (0, 0));
}

#[test]
fn a_call_without_bye_is_finished_by_the_limit_alone() {
    let mut kit = Kit::new();
    kit.answer_call();
    let hour = 3_600 * SECOND;
    assert!(kit.calls.take_finished(kit.time_ns + hour - 1, hour).is_empty());
    let calls = kit.calls.take_finished(kit.time_ns + hour, hour);
    let call = to_view(&calls[0], "", "");
    assert_eq!((call.state, call.end, call.ended_ns), (CallState::Answered, Some(EndReason::NoBye), None));
    assert_eq!(call.findings, [crate::calls::view::Finding::NoBye]);
}

#[test]
fn an_ended_call_is_finished_after_64_s() {
    let mut kit = Kit::new();
    kit.answer_call();
    kit.send(A, B, &request("BYE", 2).to("b"));
    assert!(kit.calls.take_finished(kit.time_ns + 64 * SECOND - 1, i64::MAX).is_empty());
    let calls = kit.calls.take_finished(kit.time_ns + 64 * SECOND, i64::MAX);
    assert_eq!(calls[0].state(), CallState::Completed);
    assert!(kit.calls.take_finished(i64::MAX, 0).is_empty());
}

#[test]
fn the_response_tells_of_a_lost_bye() {
    let mut kit = Kit::new();
    kit.answer_call();
    kit.send(B, A, &response(200, "OK", &request("BYE", 2).to("b")));
    check_end(&kit, CallState::Completed, Some(EndReason::ByeOfCaller), Some(200));
}

#[test]
fn a_challenged_bye_ends_the_call_when_it_comes_again() {
    let mut kit = Kit::new();
    kit.answer_call();
    let bye = request("BYE", 2).to("b");
    kit.send(A, B, &bye);
    kit.send(B, A, &response(401, "Unauthorized", &bye));
    check_end(&kit, CallState::Completed, Some(EndReason::ByeOfCaller), Some(200));
    kit.send(A, B, &request("BYE", 3).to("b"));
    assert_eq!(kit.view().ended_ns, Some(kit.time_ns));
}

#[test]
fn a_bye_for_an_unknown_dialog_ends_the_call_all_the_same() {
    let mut kit = Kit::new();
    kit.answer_call();
    let bye = request("BYE", 2).to("b");
    kit.send(A, B, &bye);
    let ended_ns = kit.time_ns;
    kit.send(B, A, &response(481, "Call/Transaction Does Not Exist", &bye));
    kit.send(A, B, &request("BYE", 3).to("b"));
    check_end(&kit, CallState::Completed, Some(EndReason::ByeOfCaller), Some(200));
    assert_eq!(kit.view().ended_ns, Some(ended_ns));
}

#[test]
fn a_call_id_with_another_from_tag_is_another_call() {
    let mut kit = Kit::new();
    kit.send(A, B, &request("INVITE", 1));
    let event = kit.send(A, B, &request("INVITE", 1).from("c"));
    assert_eq!((event.kind, event.call), (EventKind::NewCall, Some(2)));
    assert_eq!(kit.calls.len(), 2);
}

#[test]
fn the_same_tags_after_the_end_are_another_call() {
    let mut kit = Kit::new();
    kit.answer_call();
    kit.send(A, B, &request("BYE", 2).to("b"));
    let event = kit.send(A, B, &request("INVITE", 3));
    assert_eq!((event.kind, event.call), (EventKind::NewCall, Some(2)));
    // Also with the same CSeq, on the same hop with another branch.
    kit.send(B, A, &response(486, "Busy Here", &request("INVITE", 3)));
    assert_eq!(kit.send(A, B, &request("INVITE", 3).branch("z9hG4bK-new")).call, Some(3));
    // A response goes to the newest call.
    assert_eq!(
        kit.send(B, A, &response(180, "Ringing", &request("INVITE", 3).branch("z9hG4bK-new"))).call,
        Some(3)
    );
    let ids: Vec<String> = kit.calls.iter().map(|call| short_id(call, "s")).collect();
    assert!(ids[0] != ids[1] && ids[1] != ids[2] && ids[0] != ids[2]);
    assert_eq!(kit.calls.get(1).unwrap().state(), CallState::Completed);
}

#[test]
fn an_invite_that_comes_again_after_the_end_is_no_new_call() {
    let mut kit = Kit::new();
    let invite = request("INVITE", 1);
    kit.send(A, B, &invite);
    kit.send(B, A, &response(486, "Busy Here", &invite));
    assert_eq!(kit.send(A, B, &invite).kind, EventKind::Retransmission);
    assert_eq!(kit.send(P, B, &invite.clone().branch("z9hG4bK-hop")).kind, EventKind::Hop);
    assert_eq!(kit.calls.len(), 1);
}

#[test]
fn calls_are_recognized_from_their_middle() {
    let invite = request("INVITE", 1);
    let check_first = |text: &Text, state: CallState, end: Option<EndReason>| {
        let mut kit = Kit::new();
        assert_eq!(kit.send(A, B, text).kind, EventKind::NewCall);
        let call = kit.view();
        assert_eq!((call.state, call.end), (state, end), "{}", call.messages[0].text);
        assert_eq!(call.caller.user, "+447700900123");
        assert!(kit.call().is_partial);
    };
    check_first(&request("BYE", 2).to("b"), CallState::Completed, Some(EndReason::ByeOfCaller));
    check_first(&request("ACK", 1).to("b"), CallState::Answered, None);
    check_first(&request("INVITE", 2).to("b"), CallState::Answered, None);
    check_first(&request("CANCEL", 1), CallState::Trying, None);
    check_first(&request("UPDATE", 2).to("b"), CallState::Trying, None);
    check_first(&response(100, "Trying", &invite), CallState::Trying, None);
    check_first(&response(183, "Session Progress", &invite), CallState::Ringing, None);
    check_first(&response(200, "OK", &invite), CallState::Answered, None);
    check_first(&response(486, "Busy Here", &invite), CallState::Rejected, Some(EndReason::Response));
    check_first(&response(487, "Request Terminated", &invite), CallState::Cancelled, Some(EndReason::Cancel));
    check_first(
        &response(200, "OK", &request("BYE", 2).to("b")),
        CallState::Completed,
        Some(EndReason::ByeOfCaller),
    );
}

#[test]
fn a_call_from_its_middle_goes_on() {
    let mut kit = Kit::new();
    kit.send(A, B, &request("INVITE", 4).to("b").sdp(SDP));
    kit.send(B, A, &response(200, "OK", &request("INVITE", 4).to("b")));
    assert_eq!(kit.call().answered_ns, None);
    let event = kit.send(B, A, &request("BYE", 9).from("b").to("a"));
    assert_eq!((event.call, event.side), (Some(1), Some(Side::Callee)));
    check_end(&kit, CallState::Completed, Some(EndReason::ByeOfCallee), None);
}

#[test]
fn the_ack_tells_of_a_lost_answer() {
    let mut kit = Kit::new();
    kit.send(A, B, &request("INVITE", 1));
    kit.send(A, B, &request("ACK", 1).to("b"));
    check_end(&kit, CallState::Answered, None, None);
    assert_eq!(kit.call().answered_leg(), Some(0));
    // The ACK of an error has the branch of the INVITE.
    let mut kit = Kit::new();
    let invite = request("INVITE", 1);
    kit.send(A, B, &invite);
    kit.send(A, B, &request("ACK", 1).to("b").branch(&invite.branch));
    check_end(&kit, CallState::Trying, None, None);
}

#[test]
fn a_bye_before_the_answer_cancels_the_call() {
    let mut kit = Kit::new();
    let invite = request("INVITE", 1);
    kit.send(A, B, &invite);
    kit.send(B, A, &response(180, "Ringing", &invite));
    kit.send(A, B, &request("BYE", 2).to("b"));
    kit.send(B, A, &response(487, "Request Terminated", &invite));
    check_end(&kit, CallState::Cancelled, Some(EndReason::ByeOfCaller), Some(487));
}

#[test]
fn the_sides_of_a_b2bua_are_two_calls() {
    let mut kit = Kit::new();
    kit.send(A, P, &request("INVITE", 1));
    kit.send(P, B, &request("INVITE", 1).call_id("call-2").from("p"));
    assert_eq!(kit.calls.len(), 2);
}

#[test]
fn info_digits_belong_to_the_side_that_sent_them() {
    let mut kit = Kit::new();
    kit.answer_call();
    let info = request("INFO", 2).to("b").body("application/dtmf-relay", "Signal=5\r\nDuration=160\r\n");
    kit.send(A, B, &info);
    let time_ns = kit.time_ns;
    kit.add(A, B, &info);
    kit.send(A, B, &info);
    kit.send(P, B, &info.clone().branch("z9hG4bK-hop"));
    kit.send(B, A, &response(200, "OK", &info).body("application/dtmf", "7"));
    kit.send(B, A, &request("INFO", 8).from("b").to("a").body("application/dtmf", "#"));
    let digits = kit.view().info_digits;
    let found: Vec<(char, u32, Option<Side>)> =
        digits.iter().map(|digit| (digit.digit, digit.duration_ms, digit.side)).collect();
    assert_eq!(found, [('5', 160, Some(Side::Caller)), ('#', 0, Some(Side::Callee))]);
    assert_eq!(digits[0].time_ns, time_ns);
}
