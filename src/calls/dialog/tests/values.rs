//! Data of calls besides their state.

use super::super::*;
use super::kit::*;

#[test]
fn parties_are_those_of_from_and_to() {
    let mut kit = Kit::new();
    let invite = request("INVITE", 1)
        .header("User-Agent: phone/1.0")
        .header("P-Asserted-Identity: \"x\" <tel:+12025550100>, <sip:y@example.com>")
        .header("Replaces: other;to-tag=1;from-tag=2")
        .header("History-Info: <sip:z@example.com>;index=1");
    kit.send(A, B, &invite);
    kit.send(P, A, &response(100, "Trying", &invite).header("Server: proxy"));
    kit.send(B, A, &response(180, "Ringing", &invite).header("Server: gateway"));
    kit.send(B, A, &response(200, "OK", &invite).header("Server: desk phone"));
    kit.send(B, A, &request("BYE", 1).from("b").to("a").header("User-Agent: other"));
    let call = kit.view();
    assert_eq!((&*call.caller.user, &*call.callee.user), ("+447700900123", "+447700900456"));
    assert_eq!(call.caller.uri, "sip:+447700900123@example.com");
    assert_eq!((&*call.caller.agent, &*call.callee.agent), ("phone/1.0", "desk phone"));
    let record = kit.call();
    assert_eq!(record.asserted_identity.as_deref(), Some("tel:+12025550100"));
    assert_eq!(record.replaces.as_deref(), Some("other;to-tag=1;from-tag=2"));
    assert!(record.has_diversion && !record.is_siprec);
}

#[test]
fn the_short_id_is_a_hash_of_lengths_and_values() {
    let mut kit = Kit::new();
    kit.send(A, B, &request("INVITE", 1));
    // printf '\0\0\0\0\0\0\0\6stream\0\0\0\0\0\0\0\6call-1\0\0\0\0\0\0\0\1a' | sha256sum
    assert_eq!(kit.view().id, SHORT_ID);
    let id_of = |stream: &str, call_id: &str, tag: &str| {
        let mut kit = Kit::new();
        kit.send(A, B, &request("INVITE", 1).call_id(call_id).from(tag));
        short_id(kit.call(), stream)
    };
    assert_eq!(id_of("stream", "call-1", "a"), SHORT_ID);
    // Borders that move make another ID.
    assert_ne!(id_of("streamc", "all-1", "a"), SHORT_ID);
    assert_ne!(id_of("stream", "call-", "1a"), SHORT_ID);
}

const SHORT_ID: &str = "d7dd44d1b5";

#[test]
fn recording_sessions_and_encryption_are_noted() {
    let mut kit = Kit::new();
    let body = "--b\nContent-Type: application/sdp\n\nv=0\nm=audio 1 RTP/SAVP 0\n--b\n\
                Content-Type: application/rs-metadata+xml\n\n<r/>\n--b--";
    kit.send(A, B, &request("INVITE", 1).body("multipart/mixed;boundary=b", body));
    assert!(kit.call().is_siprec);
    assert_eq!(kit.view().findings, [crate::calls::view::Finding::Srtp]);
}

#[test]
fn bodies_that_are_not_sdp_are_counted() {
    let mut kit = Kit::new();
    let event = kit.send(A, B, &request("INVITE", 1).sdp("<xml/>"));
    assert_eq!((event.sdp, kit.calls.totals().sdp_invalid), (None, 1));
    assert!(!kit.view().messages[0].has_sdp);
}

#[test]
fn methods_of_extensions_keep_their_name() {
    let mut kit = Kit::new();
    kit.answer_call();
    kit.send(A, B, &request("FOO", 2).to("b"));
    kit.send(B, A, &response(501, "", &request("FOO", 2).to("b")));
    let call = kit.view();
    let last: Vec<(&str, &str)> =
        call.messages.iter().rev().take(2).map(|m| (&*m.text, &*m.method)).collect();
    assert_eq!(last, [("501", "FOO"), ("FOO", "FOO")]);
    assert_eq!(kit.send(A, B, &request("BAR", 2).to("b")).kind, EventKind::Message);
}

/// A table in the middle of many calls.
fn busy_table() -> Kit {
    let mut kit = Kit::new();
    for number in 0..50 {
        let invite = request("INVITE", 1).call_id(&format!("call-{number}")).sdp(SDP);
        kit.send(A, B, &invite);
        kit.send(B, A, &response(200, "OK", &invite).sdp(SDP_B));
        if number % 3 == 0 {
            kit.send(A, B, &request("BYE", 2).call_id(&invite.call_id).to("b"));
        }
        kit.send(A, P, &request("REGISTER", number));
    }
    // The first call is now the one that was active last, and its ID has been used twice.
    kit.send(A, B, &request("INVITE", 3).call_id("call-0"));
    kit.send(A, B, &request("INFO", 2).call_id("call-1").to("b"));
    kit
}

#[test]
fn the_table_survives_storage_at_any_point() {
    let mut kit = busy_table();
    let bytes = postcard::to_allocvec(&kit.calls).unwrap();
    let mut restored = Kit { calls: postcard::from_bytes(&bytes).unwrap(), ..busy_table() };
    assert!(postcard::to_allocvec(&restored.calls).unwrap() == bytes);
    assert_eq!(restored.calls.memory(), kit.calls.memory());
    for number in 0..50 {
        let text = request("BYE", 9).call_id(&format!("call-{number}")).to("b");
        assert_eq!(kit.send(A, B, &text), restored.send(A, B, &text));
    }
    let now_ns = kit.time_ns + 60 * SECOND;
    assert_eq!(kit.calls.take_finished(now_ns, 0).len(), restored.calls.take_finished(now_ns, 0).len());
    assert!(kit.calls.take_all() == restored.calls.take_all());
    assert_eq!((kit.calls.len(), kit.calls.totals()), (0, restored.calls.totals()));
}

#[test]
fn numbers_go_on_after_the_end_of_a_capture() {
    let mut kit = Kit::new();
    kit.send(A, B, &request("INVITE", 1));
    assert_eq!(kit.calls.take_all().len(), 1);
    assert_eq!(kit.send(A, B, &request("INVITE", 1)).call, Some(2));
}
