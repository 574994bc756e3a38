//! Calls as they are shown.

use sha2::{Digest, Sha256};

use super::super::view::{Call, CallMessage, EndReason, Finding};
use super::log::MessageRecord;
use super::record::CallRecord;
use crate::runtime::hex;

/// Makes the call that is shown, without its streams and what is found out about them. `capture` is the file that has
/// it, `stream_name` is the name that its ID is made of.
pub(crate) fn to_view(call: &CallRecord, capture: &str, stream_name: &str) -> Call {
    Call {
        id: short_id(call, stream_name),
        capture: capture.to_string(),
        call_id: String::from_utf8_lossy(&call.call_id).into_owned(),
        from_tag: String::from_utf8_lossy(&call.from_tag).into_owned(),
        caller: call.caller.clone(),
        callee: call.callee.clone(),
        state: call.state(),
        end: call.end,
        final_code: call.final_code,
        start_ns: call.start_ns,
        ringing_ns: call.ringing_ns,
        answered_ns: call.answered_ns,
        ended_ns: call.ended_ns,
        last_ns: call.last_ns,
        legs: u32::try_from(call.legs.len()).unwrap_or(u32::MAX).saturating_add(call.legs_omitted),
        messages: call.messages.iter().map(|message| view_message(call, message)).collect(),
        messages_omitted: call.messages_omitted,
        streams: Vec::new(),
        info_digits: call.info_digits.clone(),
        findings: findings(call),
        is_cut: call.is_cut,
    }
}

/// First 10 hex digits of the SHA-256 over stream name, Call-ID and From tag, each after its length as 8 bytes, big
/// endian. If the same IDs were used before, the number of times follows as 4 bytes.
pub(crate) fn short_id(call: &CallRecord, stream_name: &str) -> String {
    let mut hash = Sha256::new();
    for part in [stream_name.as_bytes(), &call.call_id, &call.from_tag] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    if call.reuse > 0 {
        hash.update(call.reuse.to_be_bytes());
    }
    hex::encode(&hash.finalize()[..5])
}

fn view_message(call: &CallRecord, message: &MessageRecord) -> CallMessage {
    let method = message.method_text().to_string();
    let text = match message.code {
        Some(code) => format!("{code} {}", message.reason).trim_end().to_string(),
        None => method.clone(),
    };
    let leg = message.leg.and_then(|leg| call.legs.get(usize::from(leg)));
    CallMessage {
        place: message.place,
        first_offset: message.first_offset,
        source: message.flow.source,
        destination: message.flow.destination,
        text,
        code: message.code,
        cseq: message.cseq,
        method,
        to_tag: leg.map_or_else(String::new, |leg| String::from_utf8_lossy(&leg.tag).into_owned()),
        has_sdp: message.has_sdp,
        retransmissions: message.retransmissions,
        transport: message.transport,
    }
}

/// Findings of the signalling. Those of media are added by the engine.
fn findings(call: &CallRecord) -> Vec<Finding> {
    let is_srtp = call.sdps.iter().any(|sdp_use| sdp_use.sdp.has_encryption());
    let is_limited =
        call.is_cut || call.messages_omitted > 0 || call.sdps_omitted > 0 || call.digits_omitted > 0;
    let candidates = [
        (Finding::NoBye, call.end == Some(EndReason::NoBye)),
        (Finding::SeveralAnswers, call.answered_legs() > 1),
        (Finding::Srtp, is_srtp),
        (Finding::Cut, is_limited || call.legs_omitted > 0),
    ];
    candidates.into_iter().filter(|(_, is_found)| *is_found).map(|(finding, _)| finding).collect()
}
