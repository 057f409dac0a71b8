//! What queries that are still to come look like, as far as their positions go.

use std::ops::Range;

use cokv_core::{RotaryEmbedding, RotaryPairs};

/// The mean of the rotations of some positions, with their scale: cosine and sine of each pair.
pub struct MeanRotation {
    pairs: RotaryPairs,
    cos_sin: Vec<(f32, f32)>,
}

impl MeanRotation {
    /// Of these positions.
    pub fn new(rotary: &RotaryEmbedding, positions: Range<usize>) -> Self {
        let count = positions.len().max(1) as f64;
        let mean = |&frequency: &f32| {
            let angles = positions.clone().map(|position| position as f64 * f64::from(frequency));
            let (sin, cos) = angles.map(f64::sin_cos).fold((0.0, 0.0), |sum, at| (sum.0 + at.0, sum.1 + at.1));
            ((cos / count) as f32 * rotary.scale, (sin / count) as f32 * rotary.scale)
        };
        Self { pairs: rotary.pairs, cos_sin: rotary.frequencies.iter().map(mean).collect() }
    }

    /// The rotation of every vector.
    pub fn turn(&self, vectors: &[f32], dim: usize) -> Vec<f32> {
        self.turned(vectors, dim, -1.0)
    }

    /// The transposed rotation of every vector.
    pub fn turn_back(&self, vectors: &[f32], dim: usize) -> Vec<f32> {
        self.turned(vectors, dim, 1.0)
    }

    fn turned(&self, vectors: &[f32], dim: usize, back: f32) -> Vec<f32> {
        let half = self.cos_sin.len().min(dim / 2);
        let mut turned = vectors.to_vec();
        for vector in turned.chunks_exact_mut(dim) {
            for (pair, &(cos, sin)) in self.cos_sin[..half].iter().enumerate() {
                let [first, second] = self.pairs.elements(pair, 2 * half);
                let (a, b, sin) = (vector[first], vector[second], back * sin);
                (vector[first], vector[second]) = (a * cos + b * sin, b * cos - a * sin);
            }
        }
        turned
    }
}

#[cfg(test)]
mod tests {
    use super::super::linear_algebra::dot;
    use super::*;

    /// Against the definition: the mean over future positions of the logits of the turned mean query.
    #[test]
    fn the_mean_rotation_is_the_mean_of_the_rotations() {
        let query = [0.3f32, -1.2, 0.8, 0.5];
        let key = [1.1f32, 0.4, -0.7, 0.9];
        let frequencies = vec![1.0f32, 0.1];
        for pairs in [RotaryPairs::Halves, RotaryPairs::Neighbours] {
            let turned_query = |position: usize| {
                let mut turned = query;
                for (pair, frequency) in frequencies.iter().enumerate() {
                    let (first, second) =
                        if pairs == RotaryPairs::Halves { (pair, pair + 2) } else { (2 * pair, 2 * pair + 1) };
                    let (sin, cos) = (position as f32 * frequency).sin_cos();
                    turned[first] = query[first] * cos - query[second] * sin;
                    turned[second] = query[second] * cos + query[first] * sin;
                }
                turned
            };
            let expected = (10..15).map(|position| dot(&turned_query(position), &key)).sum::<f32>() / 5.0;
            let rotary = RotaryEmbedding { frequencies: frequencies.clone(), scale: 1.5, pairs };
            let rotation = MeanRotation::new(&rotary, 10..15);
            for found in [dot(&query, &rotation.turn_back(&key, 4)), dot(&rotation.turn(&query, 4), &key)] {
                assert!((found - 1.5 * expected).abs() < 1e-5, "{pairs:?}");
            }
        }
    }
}
