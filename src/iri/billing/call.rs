//! The rows of one call, in the order of their time, into what is billed. Pure.
//!
//! Invariant: what is kept does not grow with the rows of a call.

use std::fmt;

use super::row::{Kind, Row};

/// Who sent the BYE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The caller.
    Caller,
    /// The callee.
    Callee,
}

impl Side {
    /// As it is shown.
    pub fn word(self) -> &'static str {
        match self {
            Side::Caller => "caller",
            Side::Callee => "callee",
        }
    }
}

/// What a call lacks, as a set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Missing(u8);

impl Missing {
    /// The row is not there.
    pub const INVITE_REQUEST: Missing = Missing(1);
    /// No final reply is there.
    pub const INVITE_REPLY: Missing = Missing(2);
    /// The row is not there.
    pub const BYE_REQUEST: Missing = Missing(4);
    /// The row is not there.
    pub const BYE_REPLY: Missing = Missing(8);
    /// A time is before one that must have come first: a clock was set.
    pub const ORDER: Missing = Missing(16);

    const WORDS: [(Missing, &str); 5] = [
        (Missing::INVITE_REQUEST, "INVITE request"),
        (Missing::INVITE_REPLY, "INVITE reply"),
        (Missing::BYE_REQUEST, "BYE request"),
        (Missing::BYE_REPLY, "BYE reply"),
        (Missing::ORDER, "order of times"),
    ];

    /// True where nothing is missing.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// True where all of `other` is missing.
    pub fn has(self, other: Missing) -> bool {
        self.0 & other.0 == other.0
    }

    /// What is missing.
    pub fn words(self) -> impl Iterator<Item = &'static str> {
        Missing::WORDS.into_iter().filter(move |(missing, _)| self.has(*missing)).map(|(_, word)| word)
    }

    fn add_if(&mut self, is_missing: bool, what: Missing) {
        if is_missing {
            self.0 |= what.0;
        }
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (nth, word) in self.words().enumerate() {
            f.write_str(if nth == 0 { "" } else { ", " })?;
            f.write_str(word)?;
        }
        Ok(())
    }
}

/// A call. What the rows do not tell is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Its id.
    pub call_id: String,
    /// Who called.
    pub caller: String,
    /// Who was called.
    pub callee: String,
    /// When the INVITE passed; without that row, the first time that is known.
    pub start_us: i64,
    /// From the INVITE to its final reply.
    pub setup_us: Option<i64>,
    /// A 2xx came.
    pub answered: Option<bool>,
    /// From the 2xx to the BYE.
    pub duration_us: Option<i64>,
    /// The code of the reply to the INVITE.
    pub reply_code: Option<u16>,
    /// Who sent the BYE.
    pub hung_up: Option<Side>,
    /// Rows that it is made of.
    pub rows: u64,
    /// Rows that were there before.
    pub doubled: u64,
    /// Rows that stood behind a later one in the input.
    pub reordered: u64,
    /// What it lacks.
    pub missing: Missing,
}

/// Makes a call of its rows, which come in the order of their time.
pub struct Builder {
    call_id: String,
    first_us: i64,
    /// Time and both sides.
    invite: Option<(i64, String, String)>,
    /// Sides of other rows, for a call without the INVITE.
    sides: Option<(String, String)>,
    /// The reply to the INVITE that counts: time and code.
    reply: Option<(i64, u16)>,
    /// The first BYE after the answer: time and who sent it.
    bye: Option<(i64, String)>,
    has_bye_reply: bool,
    rows: u64,
    doubled: u64,
    reordered: u64,
    last: Last,
}

/// What tells a row that was there before.
#[derive(Default, PartialEq, Eq)]
struct Last {
    what: Option<(i64, Kind, u16)>,
    caller: String,
    callee: String,
    sequence_max: u64,
}

impl Builder {
    /// Begins with the first row.
    pub fn new(row: &Row<'_>) -> Builder {
        let mut builder = Builder {
            call_id: row.call_id.clone().into_owned(),
            first_us: row.time_us,
            invite: None,
            sides: None,
            reply: None,
            bye: None,
            has_bye_reply: false,
            rows: 0,
            doubled: 0,
            reordered: 0,
            last: Last::default(),
        };
        builder.add(row);
        builder
    }

    /// True for a row of this call.
    pub fn is_of(&self, row: &Row<'_>) -> bool {
        self.call_id == row.call_id
    }

    /// Adds a row.
    pub fn add(&mut self, row: &Row<'_>) {
        self.rows += 1;
        let last = &mut self.last;
        if self.rows > 1 && row.sequence < last.sequence_max {
            self.reordered += 1;
        }
        last.sequence_max = last.sequence_max.max(row.sequence);
        let what = Some((row.time_us, row.kind, row.code));
        if last.what == what && last.caller == row.caller && last.callee == row.callee {
            self.doubled += 1;
            return;
        }
        last.what = what;
        overwrite(&mut last.caller, &row.caller);
        overwrite(&mut last.callee, &row.callee);
        self.take(row);
    }

    fn take(&mut self, row: &Row<'_>) {
        let is_answered_or_refused = self.reply.is_some_and(|(_, code)| code == 0 || code >= 200);
        let sides = || (row.caller.clone().into_owned(), row.callee.clone().into_owned());
        match row.kind {
            // A request behind the final reply is the BYE, before it the INVITE is repeated.
            Kind::Request if is_answered_or_refused => self.hang_up(row),
            Kind::InviteRequest | Kind::Request if self.invite.is_none() => {
                let (caller, callee) = sides();
                self.invite = Some((row.time_us, caller, callee));
            }
            Kind::InviteRequest | Kind::Request => {}
            Kind::Reply if is_answered_or_refused => self.has_bye_reply = true,
            Kind::InviteReply | Kind::Reply => {
                self.sides.get_or_insert_with(sides);
                self.answer(row);
            }
            Kind::ByeRequest => self.hang_up(row),
            Kind::ByeReply => self.has_bye_reply = true,
        }
    }

    /// Of several replies the first 2xx counts, without one the last final one (401 and 407 are asked again), else the
    /// last.
    fn answer(&mut self, row: &Row<'_>) {
        let rank = |code: u16| match code {
            200..300 => 2,
            0 | 300.. => 1,
            _ => 0,
        };
        if self.reply.is_none_or(|(_, code)| rank(code) < 2 && rank(row.code) >= rank(code)) {
            self.reply = Some((row.time_us, row.code));
        }
    }

    fn hang_up(&mut self, row: &Row<'_>) {
        if self.bye.is_none() {
            self.bye = Some((row.time_us, row.caller.clone().into_owned()));
        }
    }

    /// The call. `is_same` tells whether two texts are one number.
    pub fn finish(self, is_same: impl Fn(&str, &str) -> bool) -> Call {
        let invite_us = self.invite.as_ref().map(|(time_us, ..)| *time_us);
        let sides = self.invite.map(|(_, caller, callee)| (caller, callee)).or(self.sides);
        let (caller, callee) = sides.unwrap_or_default();
        let is_final = self.reply.is_some_and(|(_, code)| !(100..200).contains(&code));
        // A reply without a code that a BYE follows was a 2xx.
        let answered = self.reply.filter(|_| is_final).and_then(|(_, code)| match code {
            0 => self.bye.as_ref().map(|_| true),
            code => Some((200..300).contains(&code)),
        });
        let reply_us = self.reply.filter(|_| is_final).map(|(time_us, _)| time_us);
        let bye_us = self.bye.as_ref().map(|(time_us, _)| *time_us);
        let span = |from: Option<i64>, to: Option<i64>| from.zip(to).map(|(from, to)| to - from);
        let setup_us = span(invite_us, reply_us);
        let duration_us = span(reply_us.filter(|_| answered == Some(true)), bye_us);
        let hung_up = self.bye.as_ref().and_then(|(_, sender)| side(sender, &caller, &callee, is_same));

        let mut missing = Missing::default();
        missing.add_if(invite_us.is_none(), Missing::INVITE_REQUEST);
        missing.add_if(!is_final, Missing::INVITE_REPLY);
        let has_bye = bye_us.is_some() || self.has_bye_reply;
        let needs_bye = answered == Some(true) || (answered.is_none() && has_bye);
        missing.add_if(needs_bye && bye_us.is_none(), Missing::BYE_REQUEST);
        missing.add_if(needs_bye && !self.has_bye_reply, Missing::BYE_REPLY);
        let is_before = |span: &i64| *span < 0;
        let is_disordered = setup_us.is_some_and(|span| span < 0) || duration_us.is_some_and(|span| span < 0);
        missing.add_if(is_disordered, Missing::ORDER);
        Call {
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
            doubled: self.doubled,
            reordered: self.reordered,
            missing,
        }
    }
}

/// The side that the sender of the BYE is; none where it is neither, or both.
fn side(sender: &str, caller: &str, callee: &str, is_same: impl Fn(&str, &str) -> bool) -> Option<Side> {
    if sender.is_empty() {
        return None;
    }
    let same = |other: &str| sender == other || is_same(sender, other);
    match (sender == caller, sender == callee) {
        (true, false) => Some(Side::Caller),
        (false, true) => Some(Side::Callee),
        _ => match (same(caller), same(callee)) {
            (true, false) => Some(Side::Caller),
            (false, true) => Some(Side::Callee),
            _ => None,
        },
    }
}

fn overwrite(text: &mut String, with: &str) {
    text.clear();
    text.push_str(with);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows as `time word code caller`, in the order of the input; the call as text.
    fn build(rows: &str) -> Call {
        let mut read: Vec<Row<'_>> = rows
            .split(',')
            .enumerate()
            .map(|(sequence, row)| {
                let mut words = row.trim().split(' ');
                let time_us = words.next().unwrap().parse().unwrap();
                let kind = match words.next().unwrap() {
                    "invite" => Kind::InviteRequest,
                    "answer" => Kind::InviteReply,
                    "bye" => Kind::ByeRequest,
                    "byed" => Kind::ByeReply,
                    "request" => Kind::Request,
                    "reply" => Kind::Reply,
                    word => panic!("{word}"),
                };
                let code = words.next().map_or(0, |code| code.parse().unwrap());
                let caller = words.next().unwrap_or("a");
                let callee = if caller == "a" { "b" } else { "a" };
                let (caller, callee) = (caller.into(), callee.into());
                Row { call_id: "1".into(), time_us, kind, code, caller, callee, sequence: sequence as u64 }
            })
            .collect();
        read.sort_by_key(|row| (row.time_us, row.kind, row.code, row.sequence));
        let mut builder = Builder::new(&read[0]);
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
            call.hung_up.map_or("-", Side::word),
            call.missing
        );
        assert_eq!(found, expected, "{rows}");
    }

    #[test]
    fn whole_calls() {
        check("1 invite,4 answer 200,10 bye,11 byed 200", "3 yes 6 200 caller []");
        check("1 invite,4 answer 200,10 bye 0 b,11 byed 200", "3 yes 6 200 callee []");
        check("1 invite,4 answer 200,10 bye 0 B,11 byed 200", "3 yes 6 200 callee []");
        check("1 invite,4 answer 200,10 bye 0 c,11 byed 200", "3 yes 6 200 - []");
        check("1 invite,4 answer 486", "3 no - 486 - []");
        check("1 invite,2 answer 180,4 answer 200,10 bye,11 byed 200", "3 yes 6 200 caller []");
    }

    #[test]
    fn rows_in_any_order_and_twice() {
        let call = build("11 byed 200,10 bye,4 answer 200,1 invite,4 answer 200,1 invite");
        assert_eq!((call.setup_us, call.duration_us, call.missing), (Some(3), Some(6), Missing::default()));
        assert_eq!((call.rows, call.doubled, call.reordered), (6, 2, 4));
        // Repeated by SIP itself, with other times: the first of each counts.
        check(
            "1 invite,2 invite,4 answer 200,5 answer 200,10 bye,12 bye,13 byed 200",
            "3 yes 6 200 caller []",
        );
        // Asked for a password, and again.
        check("1 invite,2 answer 407,3 invite,6 answer 200,10 bye,11 byed 200", "5 yes 4 200 caller []");
        check("1 invite,2 answer 407,3 invite,6 answer 403", "5 no - 403 - []");
        // A session is changed: an INVITE within the call.
        check("1 invite,4 answer 200,6 invite,7 answer 200,10 bye,11 byed 200", "3 yes 6 200 caller []");
        check("1 invite,4 answer 200,6 invite,7 answer 488,10 bye,11 byed 200", "3 yes 6 200 caller []");
    }

    #[test]
    fn what_is_missing_is_named() {
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
    fn rows_that_do_not_say_what_they_are() {
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
