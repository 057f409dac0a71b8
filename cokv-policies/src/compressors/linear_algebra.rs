//! Products of vectors, and what solves a system of equations.

/// `aᵀ b`.
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// `vᵀ M v` for a square matrix, row by row.
pub fn quadratic(matrix: &[f32], vector: &[f32]) -> f32 {
    matrix.chunks_exact(vector.len()).zip(vector).map(|(row, x)| x * dot(row, vector)).sum()
}

/// `Σ w v` of vectors, `[tokens, dim]`.
pub fn weighted_sum(weights: &[f32], vectors: &[f32], dim: usize) -> Vec<f32> {
    let mut sum = vec![0.0; dim];
    for (weight, vector) in weights.iter().zip(vectors.chunks_exact(dim)) {
        sum.iter_mut().zip(vector).for_each(|(sum, x)| *sum += weight * x);
    }
    sum
}

/// `‖W x‖₂` of every vector, where `gram` is `Wᵀ W`, `[dim, dim]`.
pub fn lengths_behind<'a>(gram: &[f32], vectors: impl Iterator<Item = &'a [f32]>, dim: usize) -> Vec<f32> {
    let mut product = vec![0.0; dim];
    let mut length = |vector: &[f32]| {
        product.fill(0.0);
        // Row by row, so that the inner loop has no sum that must keep its order: every token of every head comes here.
        for (row, x) in gram.chunks_exact(dim).zip(vector) {
            product.iter_mut().zip(row).for_each(|(sum, entry)| *sum += x * entry);
        }
        dot(&product, vector).max(0.0).sqrt()
    };
    vectors.map(&mut length).collect()
}

/// A symmetric matrix, of which the part from the diagonal on is stored: `[dim, dim]`, row-major.
#[derive(Clone)]
pub struct Symmetric {
    dim: usize,
    rows: Vec<f64>,
}

impl Symmetric {
    /// `number · I`.
    pub fn diagonal(dim: usize, number: f64) -> Self {
        let mut rows = vec![0.0; dim * dim];
        rows.iter_mut().step_by(dim + 1).for_each(|entry| *entry = number);
        Self { dim, rows }
    }

    /// Adds `weight · v vᵀ`.
    pub fn add_square(&mut self, weight: f64, vector: &[f32]) {
        for (at, (row, &x)) in self.rows.chunks_exact_mut(self.dim).zip(vector).enumerate() {
            let scaled = weight * f64::from(x);
            row[at..].iter_mut().zip(&vector[at..]).for_each(|(entry, &y)| *entry += scaled * f64::from(y));
        }
    }

    /// Adds `number · I`.
    pub fn add_diagonal(&mut self, number: f64) {
        self.rows.iter_mut().step_by(self.dim + 1).for_each(|entry| *entry += number);
    }

    /// The matrix as `L Lᵀ`; none where rounding or its entries leave it without (it is not positive definite).
    pub fn cholesky(mut self) -> Option<Cholesky> {
        let dim = self.dim;
        for at in 0..dim {
            let (done, rest) = self.rows.split_at_mut((at + 1) * dim);
            let column = &mut done[at * dim..][at..];
            let pivot = column[0].sqrt();
            if !(pivot.is_finite() && pivot > 0.0) {
                return None;
            }
            column.iter_mut().for_each(|entry| *entry /= pivot);
            for (next, row) in rest.chunks_exact_mut(dim).enumerate() {
                let factor = column[next + 1];
                row[at + 1 + next..].iter_mut().zip(&column[next + 1..]).for_each(|(entry, x)| *entry -= factor * x);
            }
        }
        Some(Cholesky { dim, columns: self.rows })
    }
}

/// The factor `L` of a positive definite matrix `M = L Lᵀ`, column by column.
pub struct Cholesky {
    dim: usize,
    columns: Vec<f64>,
}

impl Cholesky {
    /// `vᵀ M⁻¹ v`.
    pub fn inverse_quadratic(&self, vector: &[f32]) -> f64 {
        // ‖y‖² where L y = v.
        let mut rest: Vec<f64> = vector.iter().map(|&x| f64::from(x)).collect();
        let mut sum = 0.0;
        for (at, column) in self.columns.chunks_exact(self.dim).enumerate() {
            let y = rest[at] / column[at];
            sum += y * y;
            rest[at + 1..].iter_mut().zip(&column[at + 1..]).for_each(|(rest, entry)| *rest -= y * entry);
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quadratic_forms() {
        assert_eq!(quadratic(&[2.0, 1.0, 1.0, 3.0], &[1.0, -2.0]), 2.0 - 4.0 + 12.0);
    }

    #[test]
    fn lengths_are_those_of_the_product() {
        // W = [[1, 2], [0, 3]]: Wᵀ W = [[1, 2], [2, 13]], W (1, -1) = (-1, -3).
        let gram = [1.0, 2.0, 2.0, 13.0];
        assert_eq!(lengths_behind(&gram, [[1.0, -1.0].as_slice(), &[0.0, 0.0]].into_iter(), 2), [10f32.sqrt(), 0.0]);
    }

    #[test]
    fn inverses_are_those_of_the_matrix() {
        // M = 2 I + 3 (1, 2)(1, 2)ᵀ = [[5, 6], [6, 14]], det 34, M⁻¹ = [[14, -6], [-6, 5]] / 34.
        let mut matrix = Symmetric::diagonal(2, 1.5);
        matrix.add_square(3.0, &[1.0, 2.0]);
        matrix.add_diagonal(0.5);
        let cholesky = matrix.cholesky().unwrap();
        for (vector, expected) in [([1.0, 0.0], 14.0 / 34.0), ([0.0, 1.0], 5.0 / 34.0), ([1.0, -1.0], 31.0 / 34.0)] {
            assert!((cholesky.inverse_quadratic(&vector) - expected).abs() < 1e-15, "{vector:?}");
        }
        assert!(Symmetric::diagonal(2, 0.0).cholesky().is_none());
        assert!(Symmetric::diagonal(1, f64::NAN).cholesky().is_none());
    }
}
