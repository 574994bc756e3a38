//! How long to wait before the cluster is asked again. Pure.

use std::time::Duration;

/// The first wait.
const FIRST_MS: u64 = 100;

/// The longest: a cluster that comes back is noticed within it.
const LONGEST_MS: u64 = 10_000;

/// Waits that grow, each by chance a part shorter, so that several lea do not come all at once.
#[derive(Clone, Debug)]
pub struct Backoff {
    step: u32,
    chance: u64,
}

impl Backoff {
    /// Begins with the shortest; `seed` is another one in each process.
    pub fn new(seed: u64) -> Backoff {
        Backoff { step: 0, chance: seed | 1 }
    }

    /// The next wait, half as long at least as it may be.
    pub fn next(&mut self) -> Duration {
        let most = (FIRST_MS << self.step.min(16)).min(LONGEST_MS);
        self.step += 1;
        // xorshift64
        self.chance ^= self.chance << 13;
        self.chance ^= self.chance >> 7;
        self.chance ^= self.chance << 17;
        Duration::from_millis(most / 2 + self.chance % (most / 2 + 1))
    }

    /// All is well again.
    pub fn reset(&mut self) {
        self.step = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_bound_and_begin_anew() {
        let mut backoff = Backoff::new(7);
        for nth in 0..40 {
            let most = (FIRST_MS << nth.min(16)).min(LONGEST_MS);
            let wait = backoff.next().as_millis() as u64;
            assert!((most / 2..=most).contains(&wait), "{wait} of {most}");
        }
        backoff.reset();
        assert!(backoff.next() <= Duration::from_millis(FIRST_MS));
        let (mut one, mut other) = (Backoff::new(1), Backoff::new(2));
        assert!((0..9).any(|_| one.next() != other.next()));
    }
}
