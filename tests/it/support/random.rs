//! Random numbers that can be repeated: the seed is printed, and `LEA_TEST_SEED` sets it.

use std::hash::{BuildHasher, RandomState};

/// SplitMix64 (Steele, Lea, Flood 2014), which is sufficient for choosing times and sizes.
pub(crate) struct Random(u64);

impl Random {
    /// Creates a generator with a new seed, which it prints to stderr. `LEA_TEST_SEED` sets the seed.
    pub(crate) fn new(test: &str) -> Random {
        let seed = match std::env::var("LEA_TEST_SEED") {
            Ok(text) => text.parse().expect("LEA_TEST_SEED is a number"),
            Err(_) => RandomState::new().hash_one(test),
        };
        eprintln!("{test}: LEA_TEST_SEED={seed}");
        Random::with_seed(seed)
    }

    /// Creates a generator with the seed `seed`.
    pub(crate) fn with_seed(seed: u64) -> Random {
        Random(seed)
    }

    /// Returns the next 64 bits.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Returns a number below `bound`, which must not be 0.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// Returns `len` bytes.
    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len.div_ceil(8)).flat_map(|_| self.next().to_le_bytes()).take(len).collect()
    }
}

#[test]
fn the_same_seed_gives_the_same_chance() {
    let (mut one, mut two) = (Random::with_seed(7), Random::with_seed(7));
    assert_eq!(one.bytes(21), two.bytes(21));
    assert_eq!(one.bytes(21).len(), 21);
    assert!((0..1000).all(|_| one.below(10) < 10));
    assert_ne!(one.next(), two.next());
}
