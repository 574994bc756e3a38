//! Started, stopped, rejected and missed calls per subscriber and day, from call events in the order of their time. Pure.
//!
//! There is no call id (protocol, section 5): the events of one subscriber belong together by order. A call that comes in
//! rings until the subscriber's next `start_call` or `rejected_call`, which belongs to the call that has rung longest; one
//! that neither answers within the ringing time was missed, on the day on which it came in. What starts without a call
//! that rings is a call of the subscriber's own.
//!
//! Invariant: what is kept are the calls that ring, and the sums of the days on which one still may: a day or two, so the
//! memory goes with the number of subscribers and not with that of events.

use std::collections::{BTreeMap, HashMap, VecDeque};

use chrono::NaiveDate;

/// Calls of one subscriber that ring at once. One that has more is being flooded; the longest ringing was missed then.
pub const RINGING_MAX: usize = 1_024;

/// How long a call rings: the protocol's own time.
pub const RINGING_TIME_MS: i64 = 180_000;

/// What an event says of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallEvent {
    /// `incoming_call`
    Incoming,
    /// `start_call`
    Started,
    /// `stop_call`
    Stopped,
    /// `rejected_call`
    Rejected,
}

impl CallEvent {
    /// Reads the field `event`; none where it is about no call.
    pub fn read(event: &str) -> Option<CallEvent> {
        match event {
            "incoming_call" => Some(CallEvent::Incoming),
            "start_call" => Some(CallEvent::Started),
            "stop_call" => Some(CallEvent::Stopped),
            "rejected_call" => Some(CallEvent::Rejected),
            _ => None,
        }
    }
}

/// Sums of a day.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// Calls that started.
    pub started: u64,
    /// Calls that stopped.
    pub stopped: u64,
    /// Calls that were rejected.
    pub rejected: u64,
    /// Calls that came in, and neither started nor were rejected within the ringing time.
    pub missed: u64,
}

/// What is said of one subscriber and one day.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The day.
    pub day: NaiveDate,
    /// The subscriber.
    pub subscriber: String,
    /// The sums.
    pub sums: Sums,
}

/// The span that is reported; events around it tell what became of the calls in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reported {
    /// The first millisecond.
    pub from_ms: i64,
    /// The first that is not reported any more.
    pub to_ms: i64,
}

/// Takes events in the order of their time and gives the days' rows.
pub struct Calls<D> {
    reported: Reported,
    ringing_time_ms: i64,
    day_of: D,
    /// When the calls that ring came in, by subscriber, the longest ringing first.
    ringing: HashMap<Box<str>, VecDeque<i64>>,
    days: BTreeMap<NaiveDate, BTreeMap<Box<str>, Sums>>,
    /// The day on which a call that came in still may ring.
    open_day: Option<NaiveDate>,
}

impl<D: Fn(i64) -> NaiveDate> Calls<D> {
    /// A report; `day_of` says on which day a time is.
    pub fn new(reported: Reported, ringing_time_ms: i64, day_of: D) -> Calls<D> {
        let (ringing, days) = (HashMap::new(), BTreeMap::new());
        Calls { reported, ringing_time_ms, day_of, ringing, days, open_day: None }
    }

    /// Takes an event; gives the rows of days that nothing can change any more, by day and subscriber.
    pub fn take(&mut self, time_ms: i64, subscriber: &str, event: CallEvent) -> Vec<Row> {
        let rows = self.close_days(time_ms);
        self.miss(subscriber, time_ms);
        match event {
            CallEvent::Incoming => self.ring(subscriber, time_ms),
            CallEvent::Started => {
                self.answer(subscriber);
                self.add(time_ms, subscriber, |sums| sums.started += 1);
            }
            CallEvent::Rejected => {
                self.answer(subscriber);
                self.add(time_ms, subscriber, |sums| sums.rejected += 1);
            }
            CallEvent::Stopped => self.add(time_ms, subscriber, |sums| sums.stopped += 1),
        }
        rows
    }

    /// The rows that are left. `now_ms`: what still rings then is in no sum.
    pub fn finish(mut self, now_ms: i64) -> Vec<Row> {
        self.miss_all(now_ms);
        rows(self.days)
    }

    /// Counts the calls that rang out before `now_ms`, and takes out the days before the one on which one still rings.
    fn close_days(&mut self, now_ms: i64) -> Vec<Row> {
        let open_day = (self.day_of)(now_ms.saturating_sub(self.ringing_time_ms));
        if self.open_day.replace(open_day).is_none_or(|before| before >= open_day) {
            return Vec::new();
        }
        self.miss_all(now_ms);
        let open = self.days.split_off(&open_day);
        rows(std::mem::replace(&mut self.days, open))
    }

    fn miss_all(&mut self, now_ms: i64) {
        let subscribers: Vec<Box<str>> = self.ringing.keys().cloned().collect();
        for subscriber in subscribers {
            self.miss(&subscriber, now_ms);
        }
    }

    /// Counts the subscriber's calls that rang out before `now_ms`.
    fn miss(&mut self, subscriber: &str, now_ms: i64) {
        let Some(ringing) = self.ringing.get_mut(subscriber) else { return };
        let rang_out =
            ringing.partition_point(|came_ms| now_ms.saturating_sub(*came_ms) > self.ringing_time_ms);
        let missed: Vec<i64> = ringing.drain(..rang_out).collect();
        if ringing.is_empty() {
            self.ringing.remove(subscriber);
        }
        for came_ms in missed {
            self.add(came_ms, subscriber, |sums| sums.missed += 1);
        }
    }

    fn ring(&mut self, subscriber: &str, time_ms: i64) {
        let ringing = self.ringing.entry(subscriber.into()).or_default();
        ringing.push_back(time_ms);
        if ringing.len() > RINGING_MAX
            && let Some(came_ms) = ringing.pop_front()
        {
            self.add(came_ms, subscriber, |sums| sums.missed += 1);
        }
    }

    fn answer(&mut self, subscriber: &str) {
        if let Some(ringing) = self.ringing.get_mut(subscriber) {
            ringing.pop_front();
            if ringing.is_empty() {
                self.ringing.remove(subscriber);
            }
        }
    }

    fn add(&mut self, time_ms: i64, subscriber: &str, one: impl FnOnce(&mut Sums)) {
        if (self.reported.from_ms..self.reported.to_ms).contains(&time_ms) {
            let day = self.days.entry((self.day_of)(time_ms)).or_default();
            one(day.entry(subscriber.into()).or_default());
        }
    }
}

fn rows(days: BTreeMap<NaiveDate, BTreeMap<Box<str>, Sums>>) -> Vec<Row> {
    let of_day = |(day, subscribers): (NaiveDate, BTreeMap<Box<str>, Sums>)| {
        subscribers.into_iter().map(move |(subscriber, sums)| Row {
            day,
            subscriber: subscriber.into(),
            sums,
        })
    };
    days.into_iter().flat_map(of_day).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_MS: i64 = 86_400_000;
    const ALL: Reported = Reported { from_ms: i64::MIN, to_ms: i64::MAX };

    fn day_of(ms: i64) -> NaiveDate {
        chrono::DateTime::from_timestamp_millis(ms).map(|time| time.date_naive()).unwrap_or(NaiveDate::MIN)
    }

    fn event(word: &str) -> CallEvent {
        match word {
            "in" => CallEvent::Incoming,
            "start" => CallEvent::Started,
            "stop" => CallEvent::Stopped,
            "reject" => CallEvent::Rejected,
            word => panic!("{word}"),
        }
    }

    /// Events as `seconds subscriber word`; rows as `day subscriber started stopped rejected missed`.
    fn report(reported: Reported, events: &str, now_s: i64) -> Vec<String> {
        let mut calls = Calls::new(reported, RINGING_TIME_MS, day_of);
        let mut rows = Vec::new();
        for line in events.split(',').map(str::trim).filter(|line| !line.is_empty()) {
            let mut words = line.split(' ');
            let mut word = || words.next().unwrap();
            let time_ms = word().parse::<i64>().unwrap() * 1_000;
            rows.extend(calls.take(time_ms, word(), event(word())));
        }
        rows.extend(calls.finish(now_s * 1_000));
        let shown = |row: &Row| {
            let Sums { started, stopped, rejected, missed } = row.sums;
            let day = (row.day - day_of(0)).num_days();
            format!("{day} {} {started} {stopped} {rejected} {missed}", row.subscriber)
        };
        rows.iter().map(shown).collect()
    }

    #[track_caller]
    fn check_report(events: &str, now_s: i64, expected: &[&str]) {
        assert_eq!(report(ALL, events, now_s), expected, "{events}");
    }

    #[test]
    fn events_of_one_subscriber_belong_together_by_order() {
        check_report("", 1_000, &[]);
        check_report("0 a in, 5 a start, 60 a stop", 1_000, &["0 a 1 1 0 0"]);
        check_report("0 a in, 5 a reject", 1_000, &["0 a 0 0 1 0"]);
        check_report("0 a in, 5 b start, 6 b reject", 1_000, &["0 a 0 0 0 1", "0 b 1 0 1 0"]);
        // The recording: all in one millisecond, in this order.
        check_report("0 a in, 0 a start, 0 a stop, 0 a reject", 1_000, &["0 a 1 1 1 0"]);
        // A call of the subscriber's own, while none rings.
        check_report("0 a start, 9 a stop", 1_000, &["0 a 1 1 0 0"]);
        // Two that ring at once: each answer is one's.
        check_report("0 a in, 1 a in, 2 a start, 3 a reject", 1_000, &["0 a 1 0 1 0"]);
        check_report("0 a in, 1 a in, 2 a start", 1_000, &["0 a 1 0 0 1"]);
        // A stop answers nothing.
        check_report("0 a in, 1 a stop", 1_000, &["0 a 0 1 0 1"]);
    }

    #[test]
    fn a_call_rings_for_the_ringing_time() {
        check_report("0 a in, 180 a start", 1_000, &["0 a 1 0 0 0"]);
        check_report("0 a in, 181 a start", 1_000, &["0 a 1 0 0 1"]);
        check_report("0 a in, 100 a in, 190 a start", 1_000, &["0 a 1 0 0 1"]);
        // What still rings is in no sum.
        check_report("0 a in", 180, &[]);
        check_report("0 a in", 181, &["0 a 0 0 0 1"]);
        check_report("0 a in, 300 a in", 400, &["0 a 0 0 0 1"]);
    }

    #[test]
    fn a_day_is_given_when_nothing_can_change_it() {
        let midnight = DAY_MS / 1_000;
        let mut calls = Calls::new(ALL, RINGING_TIME_MS, day_of);
        let mut take = |s: i64, subscriber, event| calls.take(s * 1_000, subscriber, event).len();
        assert_eq!(take(midnight - 10, "a", CallEvent::Incoming), 0);
        assert_eq!(take(midnight - 5, "b", CallEvent::Incoming), 0);
        assert_eq!(take(midnight + 170, "a", CallEvent::Rejected), 0);
        // b's call may ring until 175 s past midnight; the day ends for certain at 180.
        assert_eq!(take(midnight + 179, "c", CallEvent::Started), 0);
        assert_eq!(take(midnight + 180, "c", CallEvent::Started), 1);
        let events = format!("{} a in, {} a reject, {} b start", midnight - 10, midnight + 170, 3 * midnight);
        check_report(&events, 4 * midnight, &["1 a 0 0 1 0", "3 b 1 0 0 0"]);
        let events = format!("{} a in, {} a start", midnight - 10, midnight + 171);
        check_report(&events, 4 * midnight, &["0 a 0 0 0 1", "1 a 1 0 0 0"]);
    }

    #[test]
    fn events_around_the_span_tell_what_became_of_calls_in_it() {
        let reported = Reported { from_ms: 100_000, to_ms: 200_000 };
        let check =
            |events, expected: &[&str]| assert_eq!(report(reported, events, 1_000), expected, "{events}");
        check("90 a in, 110 a start", &["0 a 1 0 0 0"]);
        check("90 a in", &[]);
        check("190 a in, 210 a start", &[]);
        check("190 a in", &["0 a 0 0 0 1"]);
        check("99 a stop, 100 a stop, 199 a stop, 200 a stop", &["0 a 0 2 0 0"]);
    }

    #[test]
    fn a_flood_is_bounded() {
        for (calls_in, expected) in [(RINGING_MAX, 0), (RINGING_MAX + 1, 1)] {
            let mut calls = Calls::new(ALL, RINGING_TIME_MS, day_of);
            for _ in 0..calls_in {
                calls.take(0, "a", CallEvent::Incoming);
            }
            let missed: u64 = calls.finish(0).iter().map(|row| row.sums.missed).sum();
            assert_eq!(missed, expected);
        }
    }

    #[test]
    fn what_does_not_ring_any_more_is_not_kept() {
        let mut calls = Calls::new(ALL, RINGING_TIME_MS, day_of);
        for day in 0..1_000 {
            for subscriber in 0..10 {
                calls.take(day * DAY_MS, &format!("{day}-{subscriber}"), CallEvent::Incoming);
            }
            assert!(calls.ringing.len() <= 20 && calls.days.len() <= 2, "day {day}");
        }
    }
}
