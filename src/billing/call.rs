//! Builds a billed call from its rows, which arrive in the order of their time. Pure.
//!
//! Invariant: the memory of a builder does not grow with the number of rows.

use std::fmt;

use super::label::RowKind;
use super::row::BillingRow;

/// The party that sent the BYE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallParty {
    Caller,
    Callee,
}

impl CallParty {
    pub fn as_str(self) -> &'static str {
        match self {
            CallParty::Caller => "caller",
            CallParty::Callee => "callee",
        }
    }
}

/// The set of parts that a call lacks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MissingParts(u8);

impl MissingParts {
    pub const INVITE_REQUEST: MissingParts = MissingParts(1);
    /// There is no final reply to the INVITE.
    pub const INVITE_REPLY: MissingParts = MissingParts(2);
    pub const BYE_REQUEST: MissingParts = MissingParts(4);
    pub const BYE_REPLY: MissingParts = MissingParts(8);
    /// The times are out of order, for example because a clock was set.
    pub const ORDER: MissingParts = MissingParts(16);

    const WORDS: [(MissingParts, &str); 5] = [
        (MissingParts::INVITE_REQUEST, "INVITE request"),
        (MissingParts::INVITE_REPLY, "INVITE reply"),
        (MissingParts::BYE_REQUEST, "BYE request"),
        (MissingParts::BYE_REPLY, "BYE reply"),
        (MissingParts::ORDER, "order of times"),
    ];

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Returns true if all parts in `other` are missing.
    pub fn contains(self, other: MissingParts) -> bool {
        self.0 & other.0 == other.0
    }

    pub fn names(self) -> impl Iterator<Item = &'static str> {
        MissingParts::WORDS
            .into_iter()
            .filter(move |(missing, _)| self.contains(*missing))
            .map(|(_, word)| word)
    }

    fn add_if(&mut self, is_missing: bool, what: MissingParts) {
        if is_missing {
            self.0 |= what.0;
        }
    }
}

impl fmt::Display for MissingParts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (nth, word) in self.names().enumerate() {
            f.write_str(if nth == 0 { "" } else { ", " })?;
            f.write_str(word)?;
        }
        Ok(())
    }
}

/// A call as it is billed. A value that the rows do not contain is `None`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BilledCall {
    pub call_id: String,
    pub caller: String,
    pub callee: String,
    /// The time of the INVITE; without that row, the time of the first row.
    pub start_us: i64,
    /// The time from the INVITE to its final reply.
    pub setup_us: Option<i64>,
    /// True if the final reply to the INVITE was a 2xx.
    pub answered: Option<bool>,
    /// The time from the 2xx to the BYE.
    pub duration_us: Option<i64>,
    /// The code of the reply to the INVITE.
    pub reply_code: Option<u16>,
    /// The party that sent the BYE.
    pub hung_up: Option<CallParty>,
    /// The number of rows, including duplicates.
    pub rows: u64,
    /// Rows that repeat another row.
    pub duplicates: u64,
    /// Rows that the input had after a row with a later time.
    pub reordered: u64,
    pub missing: MissingParts,
}

/// Builds a call from its rows, which must be added in the order of their time.
pub struct CallBuilder {
    call_id: String,
    first_us: i64,
    /// The time, caller and callee of the INVITE.
    invite: Option<(i64, String, String)>,
    /// The caller and callee of a reply, for a call without the INVITE row.
    sides: Option<(String, String)>,
    /// The time and code of the reply to the INVITE that counts.
    reply: Option<(i64, u16)>,
    /// The time and sender of the first BYE after the answer.
    bye: Option<(i64, String)>,
    has_bye_reply: bool,
    rows: u64,
    duplicates: u64,
    reordered: u64,
    last: LastRow,
}

/// The values of the last row, to detect a duplicate.
#[derive(Default, PartialEq, Eq)]
struct LastRow {
    what: Option<(i64, RowKind, u16)>,
    caller: String,
    callee: String,
    sequence_max: u64,
}

impl CallBuilder {
    /// Creates a builder with the first row of a call.
    pub fn new(row: &BillingRow<'_>) -> CallBuilder {
        let mut builder = CallBuilder {
            call_id: row.call_id.clone().into_owned(),
            first_us: row.time_us,
            invite: None,
            sides: None,
            reply: None,
            bye: None,
            has_bye_reply: false,
            rows: 0,
            duplicates: 0,
            reordered: 0,
            last: LastRow::default(),
        };
        builder.add(row);
        builder
    }

    /// Returns true if the row belongs to this call.
    pub fn is_same_call(&self, row: &BillingRow<'_>) -> bool {
        self.call_id == row.call_id
    }

    pub fn add(&mut self, row: &BillingRow<'_>) {
        self.rows += 1;
        let last = &mut self.last;
        if self.rows > 1 && row.sequence < last.sequence_max {
            self.reordered += 1;
        }
        last.sequence_max = last.sequence_max.max(row.sequence);
        let what = Some((row.time_us, row.kind, row.code));
        if last.what == what && last.caller == row.caller && last.callee == row.callee {
            self.duplicates += 1;
            return;
        }
        last.what = what;
        assign(&mut last.caller, &row.caller);
        assign(&mut last.callee, &row.callee);
        self.apply_row(row);
    }

    fn apply_row(&mut self, row: &BillingRow<'_>) {
        let has_final_reply = self.reply.is_some_and(|(_, code)| code == 0 || code >= 200);
        let sides = || (row.caller.clone().into_owned(), row.callee.clone().into_owned());
        match row.kind {
            // A request after the final reply is the BYE; a request before it repeats the INVITE.
            RowKind::Request if has_final_reply => self.record_bye(row),
            RowKind::InviteRequest | RowKind::Request if self.invite.is_none() => {
                let (caller, callee) = sides();
                self.invite = Some((row.time_us, caller, callee));
            }
            RowKind::InviteRequest | RowKind::Request => {}
            RowKind::Reply if has_final_reply => self.has_bye_reply = true,
            RowKind::InviteReply | RowKind::Reply => {
                self.sides.get_or_insert_with(sides);
                self.record_reply(row);
            }
            RowKind::ByeRequest => self.record_bye(row),
            RowKind::ByeReply => self.has_bye_reply = true,
        }
    }

    /// Records a reply to the INVITE. The first 2xx counts. Without one the last final reply counts, since a caller
    /// repeats the INVITE after 401 and 407; without a final reply the last reply counts.
    fn record_reply(&mut self, row: &BillingRow<'_>) {
        let rank = |code: u16| match code {
            200..300 => 2,
            0 | 300.. => 1,
            _ => 0,
        };
        if self.reply.is_none_or(|(_, code)| rank(code) < 2 && rank(row.code) >= rank(code)) {
            self.reply = Some((row.time_us, row.code));
        }
    }

    fn record_bye(&mut self, row: &BillingRow<'_>) {
        if self.bye.is_none() {
            self.bye = Some((row.time_us, row.caller.clone().into_owned()));
        }
    }

    /// Returns the call. `is_same` returns true if two texts are dialled forms of one number.
    pub fn finish(self, is_same: impl Fn(&str, &str) -> bool) -> BilledCall {
        let invite_us = self.invite.as_ref().map(|(time_us, ..)| *time_us);
        let sides = self.invite.map(|(_, caller, callee)| (caller, callee)).or(self.sides);
        let (caller, callee) = sides.unwrap_or_default();
        let is_final = self.reply.is_some_and(|(_, code)| !(100..200).contains(&code));
        // A reply without a code must have been a 2xx if a BYE follows.
        let answered = self.reply.filter(|_| is_final).and_then(|(_, code)| match code {
            0 => self.bye.as_ref().map(|_| true),
            code => Some((200..300).contains(&code)),
        });
        let reply_us = self.reply.filter(|_| is_final).map(|(time_us, _)| time_us);
        let bye_us = self.bye.as_ref().map(|(time_us, _)| *time_us);
        let span = |from: Option<i64>, to: Option<i64>| from.zip(to).map(|(from, to)| to - from);
        let setup_us = span(invite_us, reply_us);
        let duration_us = span(reply_us.filter(|_| answered == Some(true)), bye_us);
        let hung_up = self.bye.as_ref().and_then(|(_, sender)| bye_sender(sender, &caller, &callee, is_same));

        let mut missing = MissingParts::default();
        missing.add_if(invite_us.is_none(), MissingParts::INVITE_REQUEST);
        missing.add_if(!is_final, MissingParts::INVITE_REPLY);
        let has_bye = bye_us.is_some() || self.has_bye_reply;
        let needs_bye = answered == Some(true) || (answered.is_none() && has_bye);
        missing.add_if(needs_bye && bye_us.is_none(), MissingParts::BYE_REQUEST);
        missing.add_if(needs_bye && !self.has_bye_reply, MissingParts::BYE_REPLY);
        let is_before = |span: &i64| *span < 0;
        let is_disordered = setup_us.is_some_and(|span| span < 0) || duration_us.is_some_and(|span| span < 0);
        missing.add_if(is_disordered, MissingParts::ORDER);
        BilledCall {
            call_id: self.call_id,
            caller,
            callee,
            start_us: invite_us.unwrap_or(self.first_us),
            setup_us: setup_us.filter(|span| !is_before(span)),
            answered,
            duration_us: duration_us.filter(|span| !is_before(span)),
            reply_code: self.reply.map(|(_, code)| code).filter(|code| *code != 0),
            hung_up,
            rows: self.rows,
            duplicates: self.duplicates,
            reordered: self.reordered,
            missing,
        }
    }
}

/// Returns the party that sent the BYE, or `None` if the sender matches neither party or both.
fn bye_sender(
    sender: &str,
    caller: &str,
    callee: &str,
    is_same: impl Fn(&str, &str) -> bool,
) -> Option<CallParty> {
    if sender.is_empty() {
        return None;
    }
    let same = |other: &str| sender == other || is_same(sender, other);
    match (sender == caller, sender == callee) {
        (true, false) => Some(CallParty::Caller),
        (false, true) => Some(CallParty::Callee),
        _ => match (same(caller), same(callee)) {
            (true, false) => Some(CallParty::Caller),
            (false, true) => Some(CallParty::Callee),
            _ => None,
        },
    }
}

fn assign(text: &mut String, with: &str) {
    text.clear();
    text.push_str(with);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Builds a call from rows written as `time word code caller`, in the order of the input.
    fn build(rows: &str) -> BilledCall {
        let mut read: Vec<BillingRow<'_>> = rows
            .split(',')
            .enumerate()
            .map(|(sequence, row)| {
                let mut words = row.trim().split(' ');
                let time_us = words.next().unwrap().parse().unwrap();
                let kind = match words.next().unwrap() {
                    "invite" => RowKind::InviteRequest,
                    "answer" => RowKind::InviteReply,
                    "bye" => RowKind::ByeRequest,
                    "byed" => RowKind::ByeReply,
                    "request" => RowKind::Request,
                    "reply" => RowKind::Reply,
                    word => panic!("{word}"),
                };
                let code = words.next().map_or(0, |code| code.parse().unwrap());
                let caller = words.next().unwrap_or("a");
                let callee = if caller == "a" { "b" } else { "a" };
                let (caller, callee) = (caller.into(), callee.into());
                BillingRow {
                    call_id: "1".into(),
                    time_us,
                    kind,
                    code,
                    caller,
                    callee,
                    sequence: sequence as u64,
                }
            })
            .collect();
        read.sort_by_key(|row| (row.time_us, row.kind, row.code, row.sequence));
        let mut builder = CallBuilder::new(&read[0]);
        read[1..].iter().for_each(|row| builder.add(row));
        builder.finish(|one, other| one.eq_ignore_ascii_case(other))
    }

    /// `setup answered duration code who [missing]`
    #[track_caller]
    fn check(rows: &str, expected: &str) {
        let call = build(rows);
        let number = |number: Option<i64>| number.map_or("-".to_owned(), |number| number.to_string());
        let answered = call.answered.map_or("-", |answered| if answered { "yes" } else { "no" });
        let found = format!(
            "{} {answered} {} {} {} [{}]",
            number(call.setup_us),
            number(call.duration_us),
            number(call.reply_code.map(i64::from)),
            call.hung_up.map_or("-", CallParty::as_str),
            call.missing
        );
        assert_eq!(found, expected, "{rows}");
    }

    #[test]
    fn complete_calls_lack_nothing() {
        check("1 invite,4 answer 200,10 bye,11 byed 200", "3 yes 6 200 caller []");
        check("1 invite,4 answer 200,10 bye 0 b,11 byed 200", "3 yes 6 200 callee []");
        check("1 invite,4 answer 200,10 bye 0 B,11 byed 200", "3 yes 6 200 callee []");
        check("1 invite,4 answer 200,10 bye 0 c,11 byed 200", "3 yes 6 200 - []");
        check("1 invite,4 answer 486", "3 no - 486 - []");
        check("1 invite,2 answer 180,4 answer 200,10 bye,11 byed 200", "3 yes 6 200 caller []");
    }

    #[test]
    fn reordered_and_repeated_rows_give_the_same_call() {
        let call = build("11 byed 200,10 bye,4 answer 200,1 invite,4 answer 200,1 invite");
        assert_eq!(
            (call.setup_us, call.duration_us, call.missing),
            (Some(3), Some(6), MissingParts::default())
        );
        assert_eq!((call.rows, call.duplicates, call.reordered), (6, 2, 4));
        // SIP itself repeats a message at a later time: the first of each counts.
        check(
            "1 invite,2 invite,4 answer 200,5 answer 200,10 bye,12 bye,13 byed 200",
            "3 yes 6 200 caller []",
        );
        // The INVITE is challenged and repeated with credentials.
        check("1 invite,2 answer 407,3 invite,6 answer 200,10 bye,11 byed 200", "5 yes 4 200 caller []");
        check("1 invite,2 answer 407,3 invite,6 answer 403", "5 no - 403 - []");
        // A second INVITE within the call changes the session.
        check("1 invite,4 answer 200,6 invite,7 answer 200,10 bye,11 byed 200", "3 yes 6 200 caller []");
        check("1 invite,4 answer 200,6 invite,7 answer 488,10 bye,11 byed 200", "3 yes 6 200 caller []");
    }

    #[test]
    fn missing_parts_are_named() {
        check("1 invite", "- - - - - [INVITE reply]");
        check("1 invite,2 answer 180", "- - - 180 - [INVITE reply]");
        check("4 answer 200,10 bye,11 byed 200", "- yes 6 200 caller [INVITE request]");
        check("1 invite,4 answer 200", "3 yes - 200 - [BYE request, BYE reply]");
        check("1 invite,4 answer 200,11 byed 200", "3 yes - 200 - [BYE request]");
        check("1 invite,4 answer 200,10 bye", "3 yes 6 200 caller [BYE reply]");
        check("1 invite,10 bye,11 byed 200", "- - - - caller [INVITE reply]");
        check("10 bye", "- - - - - [INVITE request, INVITE reply, BYE reply]");
        check("4 invite,1 answer 200,10 bye,11 byed 200", "- yes 9 200 caller [order of times]");
        check("1 invite,8 answer 200,5 bye,11 byed 200", "7 yes - 200 caller [order of times]");
    }

    #[test]
    fn rows_without_a_method_are_classified_by_their_order() {
        check("1 request,4 reply 200,10 request,11 reply 200", "3 yes 6 200 caller []");
        check("1 request,4 reply 200,10 request 0 b,11 reply 200", "3 yes 6 200 callee []");
        check("1 request,2 reply 180,4 reply 200,10 request,11 reply 200", "3 yes 6 200 caller []");
        check("1 request,2 request,4 reply 486", "3 no - 486 - []");
        check("1 request,4 reply,10 request,11 reply", "3 yes 6 - caller []");
        check("1 request,4 reply", "3 - - - - []");
        check("1 request,4 reply 200,11 reply 200", "3 yes - 200 - [BYE request]");
        check("4 reply 200,10 request,11 reply 200", "- yes 6 200 caller [INVITE request]");
    }
}
