//! What an analyst should look at in a call.

use crate::calls::view::{Call, Finding};

/// Media after the BYE for longer than this are a finding. Packets that were on their way take less.
const AFTER_BYE_NS: i64 = 2_000_000_000;

/// Share of lost packets and of copies that is a finding.
const SHARE: f64 = 0.01;

/// Shorter calls may have no packet of one side by chance.
const MEDIA_EXPECTED_NS: i64 = 1_000_000_000;

/// Adds the findings about the media of a call to those about its signalling. `copies` are those of its SIP messages.
pub(super) fn add(call: &mut Call, copies: u64) {
    let mut findings = std::mem::take(&mut call.findings);
    let mut add_if = |condition: bool, finding: Finding| {
        if condition && !findings.contains(&finding) {
            findings.push(finding);
        }
    };
    let is_answered = call.answered_ns.is_some();
    let is_long = call.talk_ns().is_some_and(|talk| talk >= MEDIA_EXPECTED_NS);
    add_if(is_long && call.streams.is_empty(), Finding::NoMedia);
    add_if(is_long && call.silent_side().is_some(), Finding::OneWay);
    let last_media = call.streams.iter().map(|stream| stream.last_ns).max();
    let after_bye = call.ended_ns.zip(last_media).map_or(0, |(ended, last)| last.saturating_sub(ended));
    add_if(is_answered && after_bye > AFTER_BYE_NS, Finding::MediaAfterBye);
    let share = |part: u64, whole: u64| whole > 0 && part as f64 > SHARE * whole as f64;
    let media_copies: u64 = call.streams.iter().map(|stream| stream.copies).sum();
    let packets: u64 = call.streams.iter().map(|stream| stream.packets).sum();
    let messages = call.messages.len() as u64 + call.messages_omitted;
    add_if(share(copies + media_copies, packets + messages), Finding::Copies);
    add_if(call.streams.iter().any(|stream| stream.lost_by_capture > 0), Finding::CaptureHasGap);
    add_if(call.streams.iter().any(|stream| stream.is_encrypted), Finding::Srtp);
    let is_lossy = call.streams.iter().any(|stream| share(stream.lost, stream.packets + stream.lost));
    add_if(is_lossy, Finding::Loss);
    add_if(call.is_cut, Finding::Cut);
    findings.sort_unstable();
    call.findings = findings;
}
