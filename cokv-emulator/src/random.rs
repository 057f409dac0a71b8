//! What seeds draw.

use cokv_core::random::mix;

/// A sequence that a seed gives.
#[derive(Clone, Debug)]
pub struct Random {
    state: u64,
}

impl Random {
    /// The same seed, the same numbers.
    pub fn new(seed: u64) -> Self {
        Self { state: mix(seed) }
    }

    /// Any number.
    pub fn number(&mut self) -> u64 {
        self.state = mix(self.state);
        self.state
    }

    /// A number below `count`, which is no more than 2³².
    pub fn below(&mut self, count: usize) -> usize {
        (((self.number() >> 32) * count as u64) >> 32) as usize
    }

    /// Whether what has one chance in `count` comes to pass.
    pub fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    /// An order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}
