//! State machine of a call: what each message changes.
//!
//! All steps can be repeated: a message that is seen on several hops changes nothing the second time.

use super::super::sip::{Message, Method};
use super::super::view::{CallState, EndReason, Side};
use super::log::Identity;
use super::record::{ByeTransaction, CallRecord, InviteTransaction};
use super::{ENDED_IDLE_NS, PacketMeta, RETRANSMISSION_NS, UNANSWERED_IDLE_NS};

impl CallRecord {
    pub(crate) fn state(&self) -> CallState {
        use EndReason::{ByeOfCallee, ByeOfCaller, Cancel, Limit, NoBye, NoResponse, Response};
        match self.end {
            Some(ByeOfCaller | ByeOfCallee) if self.is_answered => CallState::Completed,
            _ if self.is_answered => CallState::Answered,
            Some(Cancel | ByeOfCaller | ByeOfCallee) => CallState::Cancelled,
            Some(Response) if self.final_code.is_some_and(is_rejection) => CallState::Rejected,
            Some(Response | NoResponse | NoBye) => CallState::Failed,
            Some(Limit) | None if self.ringing_ns.is_some() => CallState::Ringing,
            Some(Limit) | None => CallState::Trying,
        }
    }

    /// Leg that was answered: the first one whose 2xx was acknowledged, else the first with a 2xx.
    #[cfg(test)]
    pub(crate) fn answered_leg(&self) -> Option<u16> {
        let answered = |is_acked: bool| {
            self.legs.iter().position(|leg| leg.answered_ns.is_some() && (leg.is_acked || !is_acked))
        };
        answered(true).or_else(|| answered(false)).and_then(|index| u16::try_from(index).ok())
    }

    /// Number of legs with a 2xx.
    pub(crate) fn answered_legs(&self) -> usize {
        self.legs.iter().filter(|leg| leg.answered_ns.is_some()).count()
    }

    /// Capture time after which the call is finished if nothing more is seen of it.
    pub(super) fn deadline_ns(&self, answered_idle_ns: i64) -> i64 {
        let idle = match self.end {
            Some(_) => ENDED_IDLE_NS,
            None if self.is_answered => answered_idle_ns,
            None => UNANSWERED_IDLE_NS,
        };
        self.last_ns.saturating_add(idle)
    }

    /// Returns whether an INVITE without To tag begins another call with the same Call-ID and tag.
    ///
    /// It does if this call was answered or is over, except that the same request may come again, on this hop or
    /// another one, and that some errors ask for another request (RFC 3261 section 8.1.3.5).
    pub(super) fn is_replaced_by(
        &self,
        packet: &PacketMeta,
        message: &Message<'_>,
        identity: &Identity<'_>,
    ) -> bool {
        let is_request = identity.method == Method::Invite && identity.code.is_none();
        let is_first_invite = is_request && message.to.tag().is_empty();
        if !is_first_invite || (self.end.is_none() && !self.is_answered) {
            return false;
        }
        let Some(invite) = self.invite else { return true };
        if invite.cseq != identity.cseq {
            let is_retry = self.end == Some(EndReason::Response) && self.final_code.is_some_and(is_retried);
            return !is_retry;
        }
        let idle = packet.place.time_ns.saturating_sub(self.last_ns);
        let is_same_hop = invite.flow == packet.flow && invite.branch == identity.branch;
        idle > RETRANSMISSION_NS || (invite.flow == packet.flow && !is_same_hop)
    }

    /// Takes a message into the state.
    pub(super) fn apply(&mut self, packet: &PacketMeta, message: &Message<'_>, identity: &Identity<'_>) {
        let time_ns = packet.place.time_ns;
        match (identity.code, identity.method) {
            (None, Method::Invite) => self.apply_invite(packet, message, identity),
            (None, Method::Ack) => self.apply_ack(packet, identity),
            (None, Method::Bye) => self.apply_bye(time_ns, identity.side, identity),
            (None, Method::Cancel) => {
                self.cancel_ns.get_or_insert(time_ns);
            }
            (Some(code), Method::Invite) => self.apply_invite_response(code, time_ns, identity),
            (Some(code), Method::Bye) => self.apply_bye_response(code, time_ns, identity),
            (Some(200..300), Method::Cancel) => {
                self.cancel_ns.get_or_insert(time_ns);
            }
            _ => {}
        }
    }

    fn apply_invite(&mut self, packet: &PacketMeta, message: &Message<'_>, identity: &Identity<'_>) {
        if !message.to.tag().is_empty() {
            // A re-INVITE needs a dialog. If the answer was not seen, it was before the capture.
            self.is_answered |= self.is_partial;
            return;
        }
        if identity.side != Side::Caller || self.invite.is_some_and(|invite| invite.cseq >= identity.cseq) {
            return;
        }
        self.invite =
            Some(InviteTransaction { cseq: identity.cseq, branch: identity.branch, flow: packet.flow });
        self.challenge = None;
        self.distant_final = None;
        if self.end == Some(EndReason::Response) {
            self.reopen();
            self.final_code = None;
        }
    }

    fn reopen(&mut self) {
        self.end = None;
        self.ended_ns = None;
    }

    /// The ACK of a 2xx is a transaction of its own. That of an error has the branch of its INVITE (RFC 3261 section
    /// 17.1.1.3). So the ACK tells an answer that the capture lacks.
    fn apply_ack(&mut self, packet: &PacketMeta, identity: &Identity<'_>) {
        if identity.side != Side::Caller {
            return;
        }
        match self.invite {
            None => self.is_answered |= self.is_partial && self.messages.len() <= 1,
            Some(invite) if invite.cseq != identity.cseq => return,
            Some(invite) if self.is_ack_of_answer(packet, invite, identity) => {
                let time_ns = packet.place.time_ns;
                self.is_answered = true;
                self.answered_ns = Some(time_ns);
                if let Some(leg) = self.leg_mut(identity.leg) {
                    leg.answered_ns = Some(time_ns);
                }
            }
            Some(_) => {}
        }
        if let Some(leg) = self.leg_mut(identity.leg) {
            leg.is_acked |= leg.answered_ns.is_some();
        }
    }

    /// Returns whether an ACK acknowledges a 2xx that was not seen.
    fn is_ack_of_answer(
        &self,
        packet: &PacketMeta,
        invite: InviteTransaction,
        identity: &Identity<'_>,
    ) -> bool {
        let has_final = self.is_answered || self.final_code.is_some();
        let has_error = self.challenge.is_some() || self.distant_final.is_some();
        if has_final || has_error || packet.flow.source != invite.flow.source {
            return false;
        }
        let is_invite_branch = self.messages.iter().any(|message| {
            let is_invite = message.method == Method::Invite && message.code.is_none();
            is_invite && message.cseq == identity.cseq && message.branch() == identity.branch
        });
        !is_invite_branch
    }

    fn apply_invite_response(&mut self, code: u16, time_ns: i64, identity: &Identity<'_>) {
        let is_known_dialog = self.invite.is_none() && self.is_answered && self.answered_ns.is_none();
        let is_other_invite = self.invite.is_some_and(|invite| invite.cseq != identity.cseq);
        if identity.side != Side::Callee || is_known_dialog || is_other_invite {
            return;
        }
        let is_first_hop = self.invite.is_none_or(|invite| invite.branch == identity.branch);
        match code {
            180..190 => {
                self.ringing_ns.get_or_insert(time_ns);
            }
            100..200 => {}
            200..300 => self.answer(code, time_ns, identity.leg),
            _ if self.is_answered || self.final_code.is_some() => {}
            _ if !is_first_hop => {
                self.distant_final.get_or_insert((code, time_ns));
            }
            401 | 407 => {
                self.challenge.get_or_insert((code, time_ns));
            }
            _ => self.fail(code, time_ns),
        }
    }

    fn answer(&mut self, code: u16, time_ns: i64, leg: Option<u16>) {
        if let Some(leg) = self.leg_mut(leg) {
            leg.answered_ns.get_or_insert(time_ns);
        }
        if self.answered_ns.is_none() {
            self.answered_ns = Some(time_ns);
            self.final_code = Some(code);
        }
        self.is_answered = true;
        if matches!(self.end, Some(EndReason::Response | EndReason::Cancel)) {
            self.reopen();
        }
    }

    fn fail(&mut self, code: u16, time_ns: i64) {
        self.final_code = Some(code);
        if self.end.is_none() {
            self.ended_ns = Some(time_ns);
            self.end = Some(if code == 487 { EndReason::Cancel } else { EndReason::Response });
        }
    }

    /// `side` is the sender of the BYE.
    fn apply_bye(&mut self, time_ns: i64, side: Side, identity: &Identity<'_>) {
        if let Some(bye) = self.bye {
            // The session ends when the BYE is sent (RFC 3261 section 15.1.1), but a challenged one had no effect.
            if bye.is_challenged && bye.side == side && identity.cseq > bye.cseq {
                self.ended_ns = Some(time_ns);
                self.bye = Some(ByeTransaction { side, cseq: identity.cseq, is_challenged: false });
            }
            return;
        }
        let is_known_leg = self.leg_mut(identity.leg).is_some_and(|leg| {
            leg.is_ended = true;
            leg.messages > 1
        });
        let has_open_leg = self.legs.iter().any(|leg| leg.answered_ns.is_some() && !leg.is_ended);
        if has_open_leg && is_known_leg {
            // A fork that lost: another one goes on.
            return;
        }
        // A callee may not send BYE before its 2xx was acknowledged (RFC 3261 section 15).
        self.is_answered |= side == Side::Callee || (self.is_partial && self.invite.is_none());
        self.ended_ns = Some(time_ns);
        self.end = Some(match side {
            Side::Caller => EndReason::ByeOfCaller,
            Side::Callee => EndReason::ByeOfCallee,
        });
        self.bye = Some(ByeTransaction { side, cseq: identity.cseq, is_challenged: false });
    }

    /// Response to a BYE. If the BYE itself was lost, the response tells of it.
    fn apply_bye_response(&mut self, code: u16, time_ns: i64, identity: &Identity<'_>) {
        let is_challenge = matches!(code, 401 | 407);
        match self.bye.as_mut() {
            Some(bye) if bye.cseq == identity.cseq => bye.is_challenged |= is_challenge,
            Some(_) => {}
            None if code < 200 || is_challenge => {}
            None => {
                let sender = identity.side.opposite();
                self.apply_bye(time_ns, sender, identity);
            }
        }
    }

    /// Ends a call of which nothing more will be seen.
    pub(crate) fn settle(&mut self) {
        if self.end.is_some() {
            return;
        }
        if self.is_answered {
            self.end = Some(EndReason::NoBye);
        } else if let Some((code, time_ns)) = self.challenge.or(self.distant_final) {
            self.fail(code, time_ns);
        } else if let Some(time_ns) = self.cancel_ns {
            self.ended_ns = Some(time_ns);
            self.end = Some(EndReason::Cancel);
        } else {
            self.end = Some(EndReason::NoResponse);
        }
    }

    /// Ends a call to make room for another one.
    pub(super) fn cut(&mut self) {
        self.is_cut = true;
        self.end.get_or_insert(EndReason::Limit);
    }
}

/// Busy Here, Busy Everywhere, Decline, Not Acceptable, Unwanted (RFC 8197), Rejected (RFC 8688).
fn is_rejection(code: u16) -> bool {
    matches!(code, 486 | 600 | 603 | 606..=608)
}

/// Errors after which the caller sends another INVITE with the same Call-ID, From tag and a higher CSeq: redirection,
/// and errors that say what to change (RFC 3261 sections 8.1.3.4 and 8.1.3.5, RFC 4028, RFC 3578, RFC 3329).
fn is_retried(code: u16) -> bool {
    matches!(code, 300..=399 | 413 | 415 | 416 | 417 | 420 | 421 | 422 | 484 | 494)
}
