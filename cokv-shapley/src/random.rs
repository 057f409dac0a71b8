//! Streams of random numbers: a stream is a pure function of its seed, its purpose and its number.

use cokv_core::random::mix;

/// What a stream is for. Streams of different purposes are unrelated.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Purpose {
    Members = 1,
    Sizes = 2,
    Instances = 3,
    Noise = 4,
    Weights = 5,
    InstanceEffects = 6,
    Draws = 7,
}

/// SplitMix64 (Steele, Lea, Flood 2014) from a state that the seed, the purpose and a number determine.
#[derive(Clone, Debug)]
pub(crate) struct Stream {
    state: u64,
}

impl Stream {
    pub(crate) fn new(seed: u64, purpose: Purpose, number: u64) -> Self {
        Self { state: mix(mix(mix(seed) ^ purpose as u64) ^ number) }
    }

    pub(crate) fn bits(&mut self) -> u64 {
        let bits = mix(self.state);
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        bits
    }

    /// Uniform below `bound`, without bias (Lemire 2019, "Fast random integer generation in an interval").
    /// A bound of 0 gives 0.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        let bound = bound as u64;
        loop {
            let product = u128::from(self.bits()) * u128::from(bound);
            let low = product as u64;
            if low >= bound || low >= bound.wrapping_neg().checked_rem(bound).unwrap_or(0) {
                return (product >> 64) as usize;
            }
        }
    }

    /// Uniform in [0, 1), a multiple of 2^-53.
    pub(crate) fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Standard normal (Box, Muller 1958).
    pub(crate) fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.unit()).cos()
    }

    /// The first `count` places of a random permutation of `0..items` (partial Fisher-Yates).
    pub(crate) fn choose(&mut self, count: usize, items: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..items).collect();
        for place in 0..count.min(items) {
            order.swap(place, place + self.below(items - place));
        }
        order.truncate(count);
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounded_integers_are_uniform() {
        let mut stream = Stream::new(1, Purpose::Noise, 0);
        let mut counts = [0u32; 7];
        (0..70_000).for_each(|_| counts[stream.below(7)] += 1);
        // Five standard deviations of a binomial count.
        assert!(counts.iter().all(|&count| count.abs_diff(10_000) < 5 * 93), "{counts:?}");
        assert_eq!(stream.below(0), 0);
        assert_eq!(stream.below(1), 0);
    }

    #[test]
    fn normals_have_mean_zero_and_variance_one() {
        let mut stream = Stream::new(2, Purpose::Noise, 0);
        let draws: Vec<f64> = (0..40_000).map(|_| stream.normal()).collect();
        let mean = draws.iter().sum::<f64>() / 40_000.0;
        let variance = draws.iter().map(|draw| draw * draw).sum::<f64>() / 40_000.0;
        assert!(mean.abs() < 0.025 && (variance - 1.0).abs() < 0.035, "{mean} {variance}");
    }
}
