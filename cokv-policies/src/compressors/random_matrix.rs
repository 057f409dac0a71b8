//! Random projections that are the same every time.

use std::f64::consts::TAU;

use cokv_core::random::mix;

/// A matrix of independent normal numbers of variance `1 / columns`, which leaves lengths as they are on average:
/// `[rows, columns]`. It depends on its seed and shape alone, so that all heads and layers have the same.
#[derive(Debug)]
pub struct RandomMatrix {
    columns: usize,
    entries: Vec<f32>,
}

impl RandomMatrix {
    /// Draws it.
    pub fn new(seed: u64, rows: usize, columns: usize) -> Self {
        // The upper 53 bits, shifted by half a step so that no logarithm of 0 is taken.
        let uniform = |bits: u64| ((bits >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
        let normal = |at: u64| {
            let [radius, angle] = [2 * at, 2 * at + 1].map(|draw| uniform(mix(mix(seed) ^ draw)));
            ((-2.0 * radius.ln() / columns as f64).sqrt() * (TAU * angle).cos()) as f32
        };
        Self { columns, entries: (0..(rows * columns) as u64).map(normal).collect() }
    }

    /// Numbers of a projected vector.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// `vᵀ M`.
    pub fn project(&self, vector: &[f32]) -> Vec<f32> {
        let mut projected = vec![0.0; self.columns];
        for (row, x) in self.entries.chunks_exact(self.columns).zip(vector) {
            projected.iter_mut().zip(row).for_each(|(sum, entry)| *sum += x * entry);
        }
        projected
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_stay_as_they_are_on_average() {
        let matrix = RandomMatrix::new(7, 2, 10_000);
        for (vector, length) in [([1.0, 0.0], 1.0), ([3.0, -4.0], 25.0)] {
            let found: f32 = matrix.project(&vector).iter().map(|x| x * x).sum();
            assert!((found - length).abs() < 0.05 * length, "{found} and not {length}");
        }
        assert_ne!(matrix.entries, RandomMatrix::new(8, 2, 10_000).entries);
    }
}
