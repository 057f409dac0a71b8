//! Dense symmetric matrices of a thousand rows: all that the regressions need, without a library.
//!
//! Inner loops add a multiple of one contiguous row to another, which compilers vectorise without reordering sums: the
//! results have the same bits on every machine.

/// A square matrix, row-major.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Matrix {
    order: usize,
    entries: Vec<f64>,
}

impl Matrix {
    pub(crate) fn zeros(order: usize) -> Self {
        Self { order, entries: vec![0.0; order * order] }
    }

    pub(crate) fn order(&self) -> usize {
        self.order
    }

    pub(crate) fn row(&self, row: usize) -> &[f64] {
        &self.entries[row * self.order..(row + 1) * self.order]
    }

    fn row_mut(&mut self, row: usize) -> &mut [f64] {
        &mut self.entries[row * self.order..(row + 1) * self.order]
    }

    pub(crate) fn trace(&self) -> f64 {
        (0..self.order).map(|row| self.row(row)[row]).sum()
    }

    /// `FᵀWF` for features `[samples, order]`, row-major, and a weight of each sample.
    pub(crate) fn gram(order: usize, features: &[f64], weights: impl Fn(usize) -> f64) -> Self {
        let mut gram = Self::zeros(order);
        for (sample, row) in features.chunks_exact(order.max(1)).enumerate() {
            let weight = weights(sample);
            for (i, &value) in row.iter().enumerate() {
                add_multiple(&mut gram.row_mut(i)[i..], weight * value, &row[i..]);
            }
        }
        gram.mirror();
        gram
    }

    /// Copies the upper triangle to the lower one.
    fn mirror(&mut self) {
        for row in 0..self.order {
            for column in 0..row {
                self.entries[row * self.order + column] = self.entries[column * self.order + row];
            }
        }
    }

    /// The matrix with something added to its diagonal.
    pub(crate) fn plus_diagonal(mut self, value: f64) -> Self {
        (0..self.order).for_each(|row| self.row_mut(row)[row] += value);
        self
    }

    /// The matrix with the same number added everywhere.
    pub(crate) fn plus_everywhere(mut self, value: f64) -> Self {
        self.entries.iter_mut().for_each(|entry| *entry += value);
        self
    }

    /// `DMD` for a diagonal matrix D.
    pub(crate) fn scaled(mut self, diagonal: &[f64]) -> Self {
        for (row, &scale) in diagonal.iter().enumerate() {
            self.row_mut(row).iter_mut().zip(diagonal).for_each(|(entry, other)| *entry *= scale * other);
        }
        self
    }
}

fn add_multiple(target: &mut [f64], factor: f64, source: &[f64]) {
    target.iter_mut().zip(source).for_each(|(target, source)| *target += factor * source);
}

pub(crate) fn dot(left: &[f64], right: &[f64]) -> f64 {
    left.iter().zip(right).map(|(left, right)| left * right).sum()
}

/// `LLᵀ` of a positive definite matrix, kept as `Lᵀ`.
#[derive(Clone, Debug)]
pub(crate) struct Cholesky {
    upper: Matrix,
}

impl Cholesky {
    /// None if the matrix is not positive definite, up to rounding.
    pub(crate) fn new(mut matrix: Matrix) -> Option<Self> {
        let order = matrix.order;
        let smallest = f64::EPSILON * order as f64 * matrix.trace() / order.max(1) as f64;
        for pivot in 0..order {
            let square = matrix.row(pivot)[pivot];
            if square.is_nan() || square <= smallest {
                return None;
            }
            let scale = square.sqrt().recip();
            matrix.row_mut(pivot)[pivot..].iter_mut().for_each(|entry| *entry *= scale);
            let (above, below) = matrix.entries.split_at_mut((pivot + 1) * order);
            let pivot_row = &above[pivot * order..];
            for (offset, row) in below.chunks_exact_mut(order).enumerate() {
                let first = pivot + 1 + offset;
                add_multiple(&mut row[first..], -pivot_row[first], &pivot_row[first..]);
            }
        }
        Some(Self { upper: matrix })
    }

    /// The solution x of `LLᵀ x = right`.
    pub(crate) fn solve(&self, right: &[f64]) -> Vec<f64> {
        let order = self.upper.order;
        let mut solution = right.to_vec();
        for pivot in 0..order {
            let row = self.upper.row(pivot);
            solution[pivot] /= row[pivot];
            let value = solution[pivot];
            add_multiple(&mut solution[pivot + 1..], -value, &row[pivot + 1..]);
        }
        for pivot in (0..order).rev() {
            let row = self.upper.row(pivot);
            solution[pivot] = (solution[pivot] - dot(&row[pivot + 1..], &solution[pivot + 1..])) / row[pivot];
        }
        solution
    }

    /// `right (LLᵀ)⁻¹ right`.
    pub(crate) fn inverse_form(&self, mut right: Vec<f64>) -> f64 {
        for pivot in 0..self.upper.order {
            let row = self.upper.row(pivot);
            right[pivot] /= row[pivot];
            let value = right[pivot];
            add_multiple(&mut right[pivot + 1..], -value, &row[pivot + 1..]);
        }
        dot(&right, &right)
    }

    /// The diagonal of the inverse: column sums of the squares of `L⁻¹`.
    pub(crate) fn inverse_diagonal(&self) -> Vec<f64> {
        let order = self.upper.order;
        let mut inverse = Matrix::zeros(order);
        let mut diagonal = vec![0.0; order];
        for row in 0..order {
            let (above, current) = inverse.entries.split_at_mut(row * order);
            let current = &mut current[..=row];
            current[row] = 1.0;
            for (earlier, solved) in above.chunks_exact(order).enumerate() {
                add_multiple(&mut current[..=earlier], -self.upper.row(earlier)[row], &solved[..=earlier]);
            }
            let scale = self.upper.row(row)[row].recip();
            for (sum, entry) in diagonal.iter_mut().zip(current) {
                *entry *= scale;
                *sum += *entry * *entry;
            }
        }
        diagonal
    }
}

/// A symmetric matrix G and a vector t in a basis where G is tridiagonal, so that `G + λI` is solved in linear time
/// for as many λ as one likes.
#[derive(Clone, Debug)]
pub(crate) struct Tridiagonal {
    diagonal: Vec<f64>,
    beside: Vec<f64>,
    vector: Vec<f64>,
}

/// `t (G + λI)⁻¹ t` and `ln det(G + λI)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Shifted {
    pub(crate) quadratic_form: f64,
    pub(crate) log_determinant: f64,
}

impl Tridiagonal {
    /// Householder's reduction (Golub, Van Loan, "Matrix Computations", algorithm 8.3.1).
    pub(crate) fn new(mut matrix: Matrix, mut vector: Vec<f64>) -> Self {
        let order = matrix.order;
        let mut beside = vec![0.0; order.saturating_sub(1)];
        for pivot in 0..order.saturating_sub(1) {
            let mut reflector = matrix.row(pivot)[pivot + 1..].to_vec();
            let norm = dot(&reflector, &reflector).sqrt();
            let target = if reflector[0] > 0.0 { -norm } else { norm };
            beside[pivot] = target;
            reflector[0] -= target;
            let square = dot(&reflector, &reflector);
            if square == 0.0 {
                continue;
            }
            let scale = 2.0 / square;
            let tail = &mut vector[pivot + 1..];
            let along = scale * dot(&reflector, tail);
            add_multiple(tail, -along, &reflector);
            // The trailing block A becomes A - v wᵀ - w vᵀ.
            let mut partner = vec![0.0; reflector.len()];
            for (offset, &value) in reflector.iter().enumerate() {
                add_multiple(&mut partner, scale * value, &matrix.row(pivot + 1 + offset)[pivot + 1..]);
            }
            let overlap = 0.5 * scale * dot(&reflector, &partner);
            add_multiple(&mut partner, -overlap, &reflector);
            for offset in 0..reflector.len() {
                let (left, right) = (reflector[offset], partner[offset]);
                let row = &mut matrix.row_mut(pivot + 1 + offset)[pivot + 1..];
                for ((entry, partner), reflector) in row.iter_mut().zip(&partner).zip(&reflector) {
                    *entry -= left * partner + right * reflector;
                }
            }
        }
        let diagonal = (0..order).map(|row| matrix.row(row)[row]).collect();
        Self { diagonal, beside, vector }
    }

    /// Elimination of `G + λI`, which must be positive definite.
    pub(crate) fn shifted(&self, shift: f64) -> Shifted {
        let mut shifted = Shifted { quadratic_form: 0.0, log_determinant: 0.0 };
        let (mut pivot, mut reduced) = (1.0, 0.0);
        for (place, (diagonal, value)) in self.diagonal.iter().zip(&self.vector).enumerate() {
            let factor = if place == 0 { 0.0 } else { self.beside[place - 1] / pivot };
            let before = if place == 0 { 0.0 } else { self.beside[place - 1] };
            pivot = (diagonal + shift - factor * before).max(f64::MIN_POSITIVE);
            reduced = value - factor * reduced;
            shifted.quadratic_form += reduced * reduced / pivot;
            shifted.log_determinant += pivot.ln();
        }
        shifted
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn factors_agree_with_each_other(
            order in 1usize..12,
            entries in proptest::collection::vec(-1.0..1.0f64, 20 * 12),
            shift in 0.1..10.0f64,
        ) {
            let features = &entries[..20 * order];
            let gram = Matrix::gram(order, features, |sample| 1.0 + sample as f64 / 20.0);
            let vector: Vec<f64> = entries[entries.len() - order..].to_vec();
            let cholesky = Cholesky::new(gram.clone().plus_diagonal(shift)).unwrap();
            let solution = cholesky.solve(&vector);
            for row in 0..order {
                let product = dot(gram.row(row), &solution) + shift * solution[row];
                prop_assert!((product - vector[row]).abs() < 1e-10);
            }
            for (column, inverse) in cholesky.inverse_diagonal().into_iter().enumerate() {
                let unit: Vec<f64> = (0..order).map(|row| f64::from(u8::from(row == column))).collect();
                prop_assert!((inverse - cholesky.solve(&unit)[column]).abs() < 1e-10);
            }
            prop_assert!((cholesky.inverse_form(vector.clone()) - dot(&solution, &vector)).abs() < 1e-9);
            let shifted = Tridiagonal::new(gram, vector.clone()).shifted(shift);
            prop_assert!((shifted.quadratic_form - dot(&solution, &vector)).abs() < 1e-9);
            let log_determinant: f64 = (0..order).map(|row| 2.0 * cholesky.upper.row(row)[row].ln()).sum();
            prop_assert!((shifted.log_determinant - log_determinant).abs() < 1e-9);
        }
    }

    #[test]
    fn singular_matrices_have_no_factor() {
        let gram = Matrix::gram(3, &[1.0, 2.0, 3.0], |_| 1.0);
        assert!(Cholesky::new(gram).is_none());
    }
}
