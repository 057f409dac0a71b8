//! Numbers that are drawn by their place, the same on every machine and every backend.

use candle_core::quantized::GgmlDType;
use cokv_core::random::mix;
use half::bf16;

/// How a tensor is drawn: number `i` is uniform with mean 0, from [`mix`] of `seed ^ i`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Draw {
    /// Of the tensor.
    pub seed: u64,
    /// Standard deviation.
    pub deviation: f32,
    /// How many numbers.
    pub count: usize,
}

impl Draw {
    /// How numbers are stored.
    pub(super) const KIND: GgmlDType = GgmlDType::BF16;

    /// A number.
    pub fn number(&self, at: usize) -> f32 {
        // 24 bits, in [-1, 1), whose standard deviation is 1 / sqrt(3).
        let uniform = (mix(self.seed ^ at as u64) >> 40) as f32 * (1.0 / 8_388_608.0) - 1.0;
        uniform * self.deviation * 1.732_050_8
    }

    /// All numbers as bf16, little-endian.
    pub(super) fn bytes(&self) -> Vec<u8> {
        (0..self.count).flat_map(|at| bf16::from_f32(self.number(at)).to_le_bytes()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_spread_as_they_say() {
        let draw = Draw { seed: 7, deviation: 0.02, count: 100_000 };
        let numbers: Vec<f64> = (0..draw.count).map(|at| f64::from(draw.number(at))).collect();
        let mean = numbers.iter().sum::<f64>() / draw.count as f64;
        let deviation = (numbers.iter().map(|x| x * x).sum::<f64>() / draw.count as f64).sqrt();
        assert!(mean.abs() < 3e-4 && (deviation / 0.02 - 1.0).abs() < 0.01, "{mean} {deviation}");
        assert_eq!(draw.bytes().len(), 2 * draw.count);
    }
}
