//! Counts started, stopped, rejected and missed calls per subscriber and day, from call events sorted by time. Pure.
//!
//! Call events have no call ID (docs/protocol.md), so the events of a subscriber are paired by their order. An incoming call
//! rings until the subscriber's next `start_call` or `rejected_call`, which ends the call that has been ringing longest.
//! A call that neither of them ends within the ringing time is missed; it counts on the day of its start. A `start_call`
//! without a ringing call is an outgoing call.
//!
//! Invariant: only ringing calls, and the sums of days that may still change, are kept. That is at most two days, so memory
//! depends on the number of subscribers and not on the number of events.

use std::collections::{BTreeMap, HashMap, VecDeque};

use chrono::NaiveDate;

/// Ringing calls per subscriber. If there are more, the one that has been ringing longest is counted as missed.
pub(crate) const RINGING_MAX: usize = 1_024;

/// A call event's type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CallEvent {
    Incoming,
    Started,
    Stopped,
    Rejected,
}

impl CallEvent {
    /// Parses the field `event`. Returns `None` for events that do not concern calls.
    pub(crate) fn parse(event: &str) -> Option<CallEvent> {
        match event {
            "incoming_call" => Some(CallEvent::Incoming),
            "start_call" => Some(CallEvent::Started),
            "stop_call" => Some(CallEvent::Stopped),
            "rejected_call" => Some(CallEvent::Rejected),
            _ => None,
        }
    }
}

/// Numbers of calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct CallSums {
    pub started: u64,
    pub stopped: u64,
    pub rejected: u64,
    /// Incoming calls that were neither started nor rejected within the ringing time.
    pub missed: u64,
}

/// The calls of one subscriber on one day.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SubscriberDay {
    pub day: NaiveDate,
    pub subscriber: String,
    pub sums: CallSums,
}

/// The time range of a report. Events outside it still pair with calls inside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ReportedSpan {
    /// First millisecond of the range.
    pub from_ms: i64,
    /// First millisecond after the range.
    pub to_ms: i64,
}

/// Pairs call events and sums calls by day and subscriber.
pub(crate) struct CallReport<D> {
    reported: ReportedSpan,
    ringing_time_ms: i64,
    day_of: D,
    /// Start times of ringing calls by subscriber, the oldest first.
    ringing: HashMap<Box<str>, VecDeque<i64>>,
    days: BTreeMap<NaiveDate, BTreeMap<Box<str>, CallSums>>,
    /// First day on which a ringing call may have started.
    open_day: Option<NaiveDate>,
}

impl<D: Fn(i64) -> NaiveDate> CallReport<D> {
    /// Creates an empty report. `day_of` returns the day of a time.
    pub(crate) fn new(reported: ReportedSpan, ringing_time_ms: i64, day_of: D) -> CallReport<D> {
        let (ringing, days) = (HashMap::new(), BTreeMap::new());
        CallReport { reported, ringing_time_ms, day_of, ringing, days, open_day: None }
    }

    /// Adds an event. Returns the rows of days that can no longer change, sorted by day and subscriber.
    pub(crate) fn add_event(
        &mut self,
        time_ms: i64,
        subscriber: &str,
        event: CallEvent,
    ) -> Vec<SubscriberDay> {
        let rows = self.close_days(time_ms);
        self.count_missed(subscriber, time_ms);
        match event {
            CallEvent::Incoming => self.start_ringing(subscriber, time_ms),
            CallEvent::Started => {
                self.stop_ringing(subscriber);
                self.add_to_day(time_ms, subscriber, |sums| sums.started += 1);
            }
            CallEvent::Rejected => {
                self.stop_ringing(subscriber);
                self.add_to_day(time_ms, subscriber, |sums| sums.rejected += 1);
            }
            CallEvent::Stopped => self.add_to_day(time_ms, subscriber, |sums| sums.stopped += 1),
        }
        rows
    }

    /// Returns the remaining rows. Calls that are still ringing at `now_ms` are not counted.
    pub(crate) fn finish(mut self, now_ms: i64) -> Vec<SubscriberDay> {
        self.count_all_missed(now_ms);
        into_rows(self.days)
    }

    /// Counts calls that stopped ringing before `now_ms`, and removes the days on which no ringing call can have started.
    fn close_days(&mut self, now_ms: i64) -> Vec<SubscriberDay> {
        let open_day = (self.day_of)(now_ms.saturating_sub(self.ringing_time_ms));
        if self.open_day.replace(open_day).is_none_or(|before| before >= open_day) {
            return Vec::new();
        }
        self.count_all_missed(now_ms);
        let open = self.days.split_off(&open_day);
        into_rows(std::mem::replace(&mut self.days, open))
    }

    fn count_all_missed(&mut self, now_ms: i64) {
        let subscribers: Vec<Box<str>> = self.ringing.keys().cloned().collect();
        for subscriber in subscribers {
            self.count_missed(&subscriber, now_ms);
        }
    }

    /// Counts a subscriber's calls that stopped ringing before `now_ms`.
    fn count_missed(&mut self, subscriber: &str, now_ms: i64) {
        let Some(ringing) = self.ringing.get_mut(subscriber) else { return };
        let rang_out =
            ringing.partition_point(|came_ms| now_ms.saturating_sub(*came_ms) > self.ringing_time_ms);
        let missed: Vec<i64> = ringing.drain(..rang_out).collect();
        if ringing.is_empty() {
            self.ringing.remove(subscriber);
        }
        for came_ms in missed {
            self.add_to_day(came_ms, subscriber, |sums| sums.missed += 1);
        }
    }

    fn start_ringing(&mut self, subscriber: &str, time_ms: i64) {
        let ringing = self.ringing.entry(subscriber.into()).or_default();
        ringing.push_back(time_ms);
        if ringing.len() > RINGING_MAX
            && let Some(came_ms) = ringing.pop_front()
        {
            self.add_to_day(came_ms, subscriber, |sums| sums.missed += 1);
        }
    }

    fn stop_ringing(&mut self, subscriber: &str) {
        if let Some(ringing) = self.ringing.get_mut(subscriber) {
            ringing.pop_front();
            if ringing.is_empty() {
                self.ringing.remove(subscriber);
            }
        }
    }

    fn add_to_day(&mut self, time_ms: i64, subscriber: &str, one: impl FnOnce(&mut CallSums)) {
        if (self.reported.from_ms..self.reported.to_ms).contains(&time_ms) {
            let day = self.days.entry((self.day_of)(time_ms)).or_default();
            one(day.entry(subscriber.into()).or_default());
        }
    }
}

fn into_rows(days: BTreeMap<NaiveDate, BTreeMap<Box<str>, CallSums>>) -> Vec<SubscriberDay> {
    let of_day = |(day, subscribers): (NaiveDate, BTreeMap<Box<str>, CallSums>)| {
        subscribers.into_iter().map(move |(subscriber, sums)| SubscriberDay {
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

    /// Ringing time that the protocol defines.
    const RINGING_TIME_MS: i64 = 180_000;

    const DAY_MS: i64 = 86_400_000;
    const ALL: ReportedSpan = ReportedSpan { from_ms: i64::MIN, to_ms: i64::MAX };

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

    /// Takes events as `SECONDS SUBSCRIBER WORD` and returns rows as `DAY SUBSCRIBER STARTED STOPPED REJECTED MISSED`.
    fn report(reported: ReportedSpan, events: &str, now_s: i64) -> Vec<String> {
        let mut calls = CallReport::new(reported, RINGING_TIME_MS, day_of);
        let mut rows = Vec::new();
        for line in events.split(',').map(str::trim).filter(|line| !line.is_empty()) {
            let mut words = line.split(' ');
            let mut word = || words.next().unwrap();
            let time_ms = word().parse::<i64>().unwrap() * 1_000;
            rows.extend(calls.add_event(time_ms, word(), event(word())));
        }
        rows.extend(calls.finish(now_s * 1_000));
        let shown = |row: &SubscriberDay| {
            let CallSums { started, stopped, rejected, missed } = row.sums;
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
    fn events_of_one_subscriber_are_paired_by_order() {
        check_report("", 1_000, &[]);
        check_report("0 a in, 5 a start, 60 a stop", 1_000, &["0 a 1 1 0 0"]);
        check_report("0 a in, 5 a reject", 1_000, &["0 a 0 0 1 0"]);
        check_report("0 a in, 5 b start, 6 b reject", 1_000, &["0 a 0 0 0 1", "0 b 1 0 1 0"]);
        // The recorded sample: all events have the same millisecond.
        check_report("0 a in, 0 a start, 0 a stop, 0 a reject", 1_000, &["0 a 1 1 1 0"]);
        // An outgoing call: no call is ringing.
        check_report("0 a start, 9 a stop", 1_000, &["0 a 1 1 0 0"]);
        // Each answer ends one of two ringing calls.
        check_report("0 a in, 1 a in, 2 a start, 3 a reject", 1_000, &["0 a 1 0 1 0"]);
        check_report("0 a in, 1 a in, 2 a start", 1_000, &["0 a 1 0 0 1"]);
        // A stop does not answer a ringing call.
        check_report("0 a in, 1 a stop", 1_000, &["0 a 0 1 0 1"]);
    }

    #[test]
    fn a_call_is_missed_after_the_ringing_time() {
        check_report("0 a in, 180 a start", 1_000, &["0 a 1 0 0 0"]);
        check_report("0 a in, 181 a start", 1_000, &["0 a 1 0 0 1"]);
        check_report("0 a in, 100 a in, 190 a start", 1_000, &["0 a 1 0 0 1"]);
        // A call that is still ringing is not counted.
        check_report("0 a in", 180, &[]);
        check_report("0 a in", 181, &["0 a 0 0 0 1"]);
        check_report("0 a in, 300 a in", 400, &["0 a 0 0 0 1"]);
    }

    #[test]
    fn a_day_is_returned_when_it_can_no_longer_change() {
        let midnight = DAY_MS / 1_000;
        let mut calls = CallReport::new(ALL, RINGING_TIME_MS, day_of);
        let mut take = |s: i64, subscriber, event| calls.add_event(s * 1_000, subscriber, event).len();
        assert_eq!(take(midnight - 10, "a", CallEvent::Incoming), 0);
        assert_eq!(take(midnight - 5, "b", CallEvent::Incoming), 0);
        assert_eq!(take(midnight + 170, "a", CallEvent::Rejected), 0);
        // b's call may ring until 175 s after midnight, so the day is complete after 180 s.
        assert_eq!(take(midnight + 179, "c", CallEvent::Started), 0);
        assert_eq!(take(midnight + 180, "c", CallEvent::Started), 1);
        let events = format!("{} a in, {} a reject, {} b start", midnight - 10, midnight + 170, 3 * midnight);
        check_report(&events, 4 * midnight, &["1 a 0 0 1 0", "3 b 1 0 0 0"]);
        let events = format!("{} a in, {} a start", midnight - 10, midnight + 171);
        check_report(&events, 4 * midnight, &["0 a 0 0 0 1", "1 a 1 0 0 0"]);
    }

    #[test]
    fn events_outside_the_range_pair_with_calls_inside_it() {
        let reported = ReportedSpan { from_ms: 100_000, to_ms: 200_000 };
        let check =
            |events, expected: &[&str]| assert_eq!(report(reported, events, 1_000), expected, "{events}");
        check("90 a in, 110 a start", &["0 a 1 0 0 0"]);
        check("90 a in", &[]);
        check("190 a in, 210 a start", &[]);
        check("190 a in", &["0 a 0 0 0 1"]);
        check("99 a stop, 100 a stop, 199 a stop, 200 a stop", &["0 a 0 2 0 0"]);
    }

    #[test]
    fn ringing_calls_per_subscriber_are_bounded() {
        for (calls_in, expected) in [(RINGING_MAX, 0), (RINGING_MAX + 1, 1)] {
            let mut calls = CallReport::new(ALL, RINGING_TIME_MS, day_of);
            for _ in 0..calls_in {
                calls.add_event(0, "a", CallEvent::Incoming);
            }
            let missed: u64 = calls.finish(0).iter().map(|row| row.sums.missed).sum();
            assert_eq!(missed, expected);
        }
    }

    #[test]
    fn calls_that_stopped_ringing_are_not_kept() {
        let mut calls = CallReport::new(ALL, RINGING_TIME_MS, day_of);
        for day in 0..1_000 {
            for subscriber in 0..10 {
                calls.add_event(day * DAY_MS, &format!("{day}-{subscriber}"), CallEvent::Incoming);
            }
            assert!(calls.ringing.len() <= 20 && calls.days.len() <= 2, "day {day}");
        }
    }
}
