//! Delays between attempts to reach the cluster. Pure code.

use std::time::Duration;

/// Maximum of the first delay.
const FIRST_MS: u64 = 100;

/// Maximum delay; a recovered cluster is noticed within this time.
const LONGEST_MS: u64 = 10_000;

/// Exponential backoff with jitter, so that several instances of lea do not retry at the same moment.
#[derive(Clone, Debug)]
pub(super) struct Backoff {
    step: u32,
    chance: u64,
}

impl Backoff {
    /// `seed` must differ between processes.
    pub(super) fn new(seed: u64) -> Backoff {
        Backoff { step: 0, chance: seed | 1 }
    }

    /// Returns the next delay: a random time between half the current maximum and the maximum.
    pub(super) fn next_delay(&mut self) -> Duration {
        let most = (FIRST_MS << self.step.min(16)).min(LONGEST_MS);
        self.step += 1;
        // xorshift64
        self.chance ^= self.chance << 13;
        self.chance ^= self.chance >> 7;
        self.chance ^= self.chance << 17;
        Duration::from_millis(most / 2 + self.chance % (most / 2 + 1))
    }

    /// Starts again with the shortest delay.
    pub(super) fn reset(&mut self) {
        self.step = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_to_a_limit_until_reset() {
        let mut backoff = Backoff::new(7);
        for nth in 0..40 {
            let most = (FIRST_MS << nth.min(16)).min(LONGEST_MS);
            let wait = backoff.next_delay().as_millis() as u64;
            assert!((most / 2..=most).contains(&wait), "{wait} of {most}");
        }
        backoff.reset();
        assert!(backoff.next_delay() <= Duration::from_millis(FIRST_MS));
        let (mut one, mut other) = (Backoff::new(1), Backoff::new(2));
        assert!((0..9).any(|_| one.next_delay() != other.next_delay()));
    }
}
