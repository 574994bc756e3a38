//! Quality of a stream over time: windows of 5 s with what was sent, what arrived, and the jitter.

use serde::{Deserialize, Serialize};

/// Length of a window in nanoseconds.
const WINDOW_NS: i64 = 5_000_000_000;

/// Windows of a stream: 10 hours. Over it, two become one, and the length of all doubles.
const WINDOWS_MAX: usize = 7_200;

/// Doublings after which an i64 of nanoseconds has fewer windows than [`WINDOWS_MAX`].
const DOUBLINGS_MAX: u8 = 20;

/// Window of a stream. Windows without packets are not kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Window {
    /// Number of the window since the first packet of the stream, in units of the length of a window.
    pub index: u32,
    /// Packets sent according to the sequence numbers.
    pub expected: u32,
    /// Different packets that arrived. More than `expected` if late ones of the window before are among them.
    pub received: u32,
    /// Highest jitter in microseconds.
    pub jitter_us: u32,
}

impl Window {
    pub(crate) fn lost(&self) -> u32 {
        self.expected.saturating_sub(self.received)
    }

    fn merge(&mut self, other: &Window) {
        self.expected = self.expected.saturating_add(other.expected);
        self.received = self.received.saturating_add(other.received);
        self.jitter_us = self.jitter_us.max(other.jitter_us);
    }
}

/// Windows of a stream.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Windows {
    ended: Vec<Window>,
    first_ns: i64,
    /// End of the current window. Nanoseconds since 1970.
    end_ns: i64,
    index: u32,
    /// Sums of the stream at the start of the current window.
    expected: u64,
    received: u64,
    doublings: u8,
}

impl Windows {
    pub(crate) fn start(&mut self, time_ns: i64) {
        self.first_ns = time_ns;
        self.end_ns = time_ns.saturating_add(WINDOW_NS);
    }

    /// Tells whether a packet of this time belongs to a later window. A clock that steps back does not change the window.
    #[inline]
    pub(crate) fn is_over(&self, time_ns: i64) -> bool {
        time_ns >= self.end_ns
    }

    /// Ends the current window. `expected` and `received` are the sums of the stream before the packet of `time_ns`.
    pub(crate) fn end(&mut self, time_ns: i64, expected: u64, received: u64, jitter_us: u32) {
        let current = self.current(expected, received, jitter_us);
        match self.ended.last_mut() {
            Some(last) if last.index == current.index => last.merge(&current),
            _ => self.ended.push(current),
        }
        self.expected = expected;
        self.received = received;
        while self.ended.len() >= WINDOWS_MAX && self.doublings < DOUBLINGS_MAX {
            self.double();
        }
        let length = self.length_ns();
        let index = time_ns.saturating_sub(self.first_ns).max(0) / length;
        self.index = u32::try_from(index).unwrap_or(u32::MAX);
        self.end_ns = (index + 1).saturating_mul(length).saturating_add(self.first_ns);
    }

    fn double(&mut self) {
        self.doublings += 1;
        let mut merged: Vec<Window> = Vec::with_capacity(self.ended.len() / 2 + 1);
        for window in &self.ended {
            let index = window.index / 2;
            match merged.last_mut() {
                Some(last) if last.index == index => last.merge(window),
                _ => merged.push(Window { index, ..*window }),
            }
        }
        self.ended = merged;
    }

    fn current(&self, expected: u64, received: u64, jitter_us: u32) -> Window {
        let growth = |now: u64, before: u64| u32::try_from(now.saturating_sub(before)).unwrap_or(u32::MAX);
        Window {
            index: self.index,
            expected: growth(expected, self.expected),
            received: growth(received, self.received),
            jitter_us,
        }
    }

    /// Length of a window in nanoseconds.
    pub(crate) fn length_ns(&self) -> i64 {
        WINDOW_NS << self.doublings
    }

    /// Windows so far and the current one.
    pub(crate) fn list(&self, expected: u64, received: u64, jitter_us: u32) -> Vec<Window> {
        let mut list = self.ended.clone();
        let current = self.current(expected, received, jitter_us);
        match list.last_mut() {
            Some(last) if last.index == current.index => last.merge(&current),
            _ => list.push(current),
        }
        list
    }

    /// Replaces the jitter of the first windows. Units of 0.1 ms.
    pub(crate) fn set_jitter(&mut self, jitter: impl Iterator<Item = u16>) {
        for (window, jitter) in self.ended.iter_mut().zip(jitter) {
            window.jitter_us = u32::from(jitter) * 100;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One packet every 5 s, each second one lost.
    fn windows_of(count: u64) -> Windows {
        let mut windows = Windows::default();
        windows.start(0);
        for index in 1..count {
            let time_ns = index as i64 * WINDOW_NS;
            assert!(windows.is_over(time_ns) || windows.doublings > 0);
            if windows.is_over(time_ns) {
                windows.end(time_ns, index * 2, index, index as u32);
            }
        }
        windows
    }

    #[test]
    fn windows_hold_what_came_in_their_time() {
        let list = windows_of(3).list(6, 3, 7);
        assert_eq!(list.len(), 3);
        assert_eq!(list[1], Window { index: 1, expected: 2, received: 1, jitter_us: 2 });
        assert_eq!((list[2].index, list[2].lost(), list[2].jitter_us), (2, 1, 7));
    }

    #[test]
    fn ten_hours_have_windows_of_5_s_and_more_have_windows_of_10_s() {
        let windows = windows_of(7_200);
        assert_eq!((windows.ended.len(), windows.length_ns()), (7_199, WINDOW_NS));
        let windows = windows_of(7_203);
        assert_eq!((windows.ended.len(), windows.length_ns()), (3_601, 2 * WINDOW_NS));
        let list = windows.list(14_406, 7_203, 0);
        assert_eq!(list.iter().map(|window| window.expected).sum::<u32>(), 14_406);
        assert_eq!(list[10], Window { index: 10, expected: 4, received: 2, jitter_us: 22 });
    }

    #[test]
    fn packets_years_apart_stay_within_the_limit() {
        let mut windows = Windows::default();
        windows.start(i64::MIN);
        let mut time_ns = i64::MIN;
        for count in 0..30_000 {
            time_ns = time_ns.saturating_add(i64::MAX / 12_000);
            if windows.is_over(time_ns) {
                windows.end(time_ns, count, count, 0);
            }
            assert!(windows.ended.len() <= WINDOWS_MAX + 1);
        }
    }
}
