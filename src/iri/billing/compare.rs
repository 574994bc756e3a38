//! Two sides of one call beside each other. Pure.

use super::call::Call;

/// What may differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Difference {
    /// Only the other side has it.
    MissingOurs,
    /// Only our side has it.
    MissingTheirs,
    /// One side says that it was answered.
    Answered,
    /// The reply codes.
    ReplyCode,
    /// The durations, by more than the tolerance.
    Duration,
    /// The set-up delays, by more than the tolerance.
    Setup,
    /// Who hung up.
    HungUp,
}

impl Difference {
    /// All, the gravest first.
    pub const ALL: [Difference; 7] = [
        Difference::MissingOurs,
        Difference::MissingTheirs,
        Difference::Answered,
        Difference::ReplyCode,
        Difference::Duration,
        Difference::Setup,
        Difference::HungUp,
    ];

    /// As it is shown.
    pub fn word(self) -> &'static str {
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

/// How one call differs, as a set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Differences(u8);

impl Differences {
    /// True where nothing does.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// True for one of them.
    pub fn has(self, difference: Difference) -> bool {
        self.0 & 1 << difference as u8 != 0
    }

    /// All of them, the gravest first.
    pub fn iter(self) -> impl Iterator<Item = Difference> {
        Difference::ALL.into_iter().filter(move |difference| self.has(*difference))
    }

    fn add_if(&mut self, differs: bool, difference: Difference) {
        if differs {
            self.0 |= 1 << difference as u8;
        }
    }
}

/// How a call differs. What one side does not know differs from what the other does.
pub fn compare(ours: Option<&Call>, theirs: Option<&Call>, tolerance_us: i64) -> Differences {
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
    use super::super::call::{Missing, Side};
    use super::*;

    fn call() -> Call {
        Call {
            call_id: "1".to_owned(),
            caller: "a".to_owned(),
            callee: "b".to_owned(),
            start_us: 0,
            setup_us: Some(3_000_000),
            answered: Some(true),
            duration_us: Some(60_000_000),
            reply_code: Some(200),
            hung_up: Some(Side::Caller),
            rows: 4,
            doubled: 0,
            reordered: 0,
            missing: Missing::default(),
        }
    }

    #[track_caller]
    fn check(theirs: Option<Call>, expected: &[Difference]) {
        let found = compare(Some(&call()), theirs.as_ref(), 1_000_000);
        assert_eq!(found.iter().collect::<Vec<_>>(), expected);
        assert_eq!(found.is_empty(), expected.is_empty());
        let turned = compare(theirs.as_ref(), Some(&call()), 1_000_000);
        if theirs.is_some() {
            assert_eq!(turned, found);
        } else {
            assert!(turned.has(Difference::MissingOurs));
        }
    }

    #[test]
    fn each_difference_is_found() {
        check(Some(call()), &[]);
        check(None, &[Difference::MissingTheirs]);
        check(Some(Call { duration_us: Some(61_000_000), ..call() }), &[]);
        check(Some(Call { duration_us: Some(61_000_001), ..call() }), &[Difference::Duration]);
        check(Some(Call { duration_us: Some(58_999_999), ..call() }), &[Difference::Duration]);
        check(Some(Call { duration_us: None, ..call() }), &[Difference::Duration]);
        check(Some(Call { setup_us: Some(4_000_000), ..call() }), &[]);
        check(Some(Call { setup_us: Some(1), ..call() }), &[Difference::Setup]);
        check(Some(Call { reply_code: Some(202), ..call() }), &[Difference::ReplyCode]);
        check(Some(Call { hung_up: Some(Side::Callee), ..call() }), &[Difference::HungUp]);
        let refused =
            Call { answered: Some(false), reply_code: Some(486), duration_us: None, hung_up: None, ..call() };
        let all = [Difference::Answered, Difference::ReplyCode, Difference::Duration, Difference::HungUp];
        check(Some(refused), &all);
        // Clocks of two sides, and what was sent twice, are no differences.
        check(Some(Call { start_us: 7, rows: 5, doubled: 1, caller: "x".to_owned(), ..call() }), &[]);
    }
}
