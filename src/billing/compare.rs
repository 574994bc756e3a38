//! Compares the records of one call by two sides. Pure.

use super::call::BilledCall;

/// A way in which the two records of a call differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Difference {
    /// Only the other side has the call.
    MissingOurs,
    /// Only our side has the call.
    MissingTheirs,
    /// The sides disagree whether the call was answered.
    Answered,
    ReplyCode,
    /// The durations differ by more than the tolerance.
    Duration,
    /// The set-up delays differ by more than the tolerance.
    Setup,
    HungUp,
}

impl Difference {
    /// All differences, the most serious first.
    pub const ALL: [Difference; 7] = [
        Difference::MissingOurs,
        Difference::MissingTheirs,
        Difference::Answered,
        Difference::ReplyCode,
        Difference::Duration,
        Difference::Setup,
        Difference::HungUp,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Difference::MissingOurs => "missing_ours",
            Difference::MissingTheirs => "missing_theirs",
            Difference::Answered => "answered",
            Difference::ReplyCode => "reply_code",
            Difference::Duration => "duration",
            Difference::Setup => "setup",
            Difference::HungUp => "hung_up",
        }
    }
}

/// The set of differences of one call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Differences(u8);

impl Differences {
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub fn contains(self, difference: Difference) -> bool {
        self.0 & 1 << difference as u8 != 0
    }

    /// Iterates over the differences, the most serious first.
    pub fn iter(self) -> impl Iterator<Item = Difference> {
        Difference::ALL.into_iter().filter(move |difference| self.contains(*difference))
    }

    fn add_if(&mut self, differs: bool, difference: Difference) {
        if differs {
            self.0 |= 1 << difference as u8;
        }
    }
}

/// Compares the records of one call. A value that only one side has counts as a difference.
pub fn compare_calls(
    ours: Option<&BilledCall>,
    theirs: Option<&BilledCall>,
    tolerance_us: i64,
) -> Differences {
    let mut found = Differences::default();
    let (Some(ours), Some(theirs)) = (ours, theirs) else {
        found.add_if(ours.is_none(), Difference::MissingOurs);
        found.add_if(theirs.is_none(), Difference::MissingTheirs);
        return found;
    };
    let spans = |one: Option<i64>, other: Option<i64>| match (one, other) {
        (Some(one), Some(other)) => one.abs_diff(other) > tolerance_us.unsigned_abs(),
        (one, other) => one != other,
    };
    found.add_if(ours.answered != theirs.answered, Difference::Answered);
    found.add_if(ours.reply_code != theirs.reply_code, Difference::ReplyCode);
    found.add_if(spans(ours.duration_us, theirs.duration_us), Difference::Duration);
    found.add_if(spans(ours.setup_us, theirs.setup_us), Difference::Setup);
    found.add_if(ours.hung_up != theirs.hung_up, Difference::HungUp);
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::billing::call::{CallParty, MissingParts};

    fn call() -> BilledCall {
        BilledCall {
            call_id: "1".to_owned(),
            caller: "a".to_owned(),
            callee: "b".to_owned(),
            start_us: 0,
            setup_us: Some(3_000_000),
            answered: Some(true),
            duration_us: Some(60_000_000),
            reply_code: Some(200),
            hung_up: Some(CallParty::Caller),
            rows: 4,
            duplicates: 0,
            reordered: 0,
            missing: MissingParts::default(),
        }
    }

    #[track_caller]
    fn check(theirs: Option<BilledCall>, expected: &[Difference]) {
        let found = compare_calls(Some(&call()), theirs.as_ref(), 1_000_000);
        assert_eq!(found.iter().collect::<Vec<_>>(), expected);
        assert_eq!(found.is_empty(), expected.is_empty());
        let turned = compare_calls(theirs.as_ref(), Some(&call()), 1_000_000);
        if theirs.is_some() {
            assert_eq!(turned, found);
        } else {
            assert!(turned.contains(Difference::MissingOurs));
        }
    }

    #[test]
    fn each_difference_is_found() {
        check(Some(call()), &[]);
        check(None, &[Difference::MissingTheirs]);
        check(Some(BilledCall { duration_us: Some(61_000_000), ..call() }), &[]);
        check(Some(BilledCall { duration_us: Some(61_000_001), ..call() }), &[Difference::Duration]);
        check(Some(BilledCall { duration_us: Some(58_999_999), ..call() }), &[Difference::Duration]);
        check(Some(BilledCall { duration_us: None, ..call() }), &[Difference::Duration]);
        check(Some(BilledCall { setup_us: Some(4_000_000), ..call() }), &[]);
        check(Some(BilledCall { setup_us: Some(1), ..call() }), &[Difference::Setup]);
        check(Some(BilledCall { reply_code: Some(202), ..call() }), &[Difference::ReplyCode]);
        check(Some(BilledCall { hung_up: Some(CallParty::Callee), ..call() }), &[Difference::HungUp]);
        let rejected_call = BilledCall {
            answered: Some(false),
            reply_code: Some(486),
            duration_us: None,
            hung_up: None,
            ..call()
        };
        let all = [Difference::Answered, Difference::ReplyCode, Difference::Duration, Difference::HungUp];
        check(Some(rejected_call), &all);
        // Different clocks, duplicates and dialled forms are not differences.
        check(
            Some(BilledCall { start_us: 7, rows: 5, duplicates: 1, caller: "x".to_owned(), ..call() }),
            &[],
        );
    }
}
