//! Least squares of some hundred unknowns, from their normal equations.

use ndarray::{Array2, ArrayView2, s};

/// Columns that are eliminated at a time.
const BLOCK: usize = 64;

/// Sweeps over all unknowns after which nothing that matters changes any more.
const SWEEPS: usize = 200;

/// Minimises `‖A x − b‖²` with every unknown within bounds, from `AᵀA`, `[unknowns, unknowns]`, and `Aᵀb`: coordinate by coordinate,
/// from 1 on.
pub fn bounded(gram: ArrayView2<'_, f32>, target: &[f32], bounds: [f32; 2]) -> Vec<f32> {
    let mut x = vec![1f32.clamp(bounds[0], bounds[1]); target.len()];
    // AᵀA x, kept up to date.
    let mut product: Vec<f32> = gram.outer_iter().map(|row| row.sum() * x[0]).collect();
    for _ in 0..SWEEPS {
        let mut most = 0f32;
        for (at, row) in gram.outer_iter().enumerate() {
            let curvature = row[at];
            if curvature <= 0.0 {
                continue;
            }
            let next = (x[at] - (product[at] - target[at]) / curvature).clamp(bounds[0], bounds[1]);
            let step = next - x[at];
            if step != 0.0 {
                x[at] = next;
                product.iter_mut().zip(row).for_each(|(sum, entry)| *sum += step * entry);
                most = most.max(step.abs() / next);
            }
        }
        if most < 5e-4 {
            break;
        }
    }
    x
}

/// Solves `(AᵀA + λ I) X = B`, `[unknowns, columns]`, where λ is a part of the diagonal's mean: raised where rounding leaves no
/// solution. None where nothing does.
pub fn ridge(gram: &Array2<f32>, mut target: Array2<f32>, part: f32) -> Option<Array2<f32>> {
    let mean = gram.diag().sum() / gram.nrows().max(1) as f32;
    let factor = [1.0, 10.0, 100.0, 1000.0].into_iter().find_map(|times| {
        let mut raised = gram.clone();
        raised.diag_mut().iter_mut().for_each(|entry| *entry += mean * part * times);
        cholesky(raised)
    })?;
    // L Y = B, then Lᵀ X = Y.
    for at in 0..factor.nrows() {
        let (done, mut rest) = target.view_mut().split_at(ndarray::Axis(0), at);
        let known = factor.slice(s![at, ..at]).dot(&done);
        let mut row = rest.row_mut(0);
        row -= &known;
        row /= factor[[at, at]];
    }
    for at in (0..factor.nrows()).rev() {
        let (mut rest, done) = target.view_mut().split_at(ndarray::Axis(0), at + 1);
        let known = factor.slice(s![at + 1.., at]).dot(&done);
        let mut row = rest.row_mut(at);
        row -= &known;
        row /= factor[[at, at]];
    }
    Some(target)
}

/// `L` of a positive definite `L Lᵀ`; what is above its diagonal is not to be looked at. None where it is not positive definite.
fn cholesky(mut matrix: Array2<f32>) -> Option<Array2<f32>> {
    let size = matrix.nrows();
    for start in (0..size).step_by(BLOCK) {
        let end = size.min(start + BLOCK);
        for at in start..end {
            let pivot = matrix[[at, at]].sqrt();
            if !(pivot.is_finite() && pivot > 0.0) {
                return None;
            }
            matrix.slice_mut(s![at.., at]).iter_mut().for_each(|entry| *entry /= pivot);
            let column = matrix.slice(s![at.., at]).to_vec();
            // The other columns of the block; what lies right of it follows in one product.
            for (row, factor) in (at + 1..size).zip(&column[1..]) {
                let until = end.min(row + 1);
                let entries = matrix.slice_mut(s![row, at + 1..until]);
                entries.into_iter().zip(&column[1..]).for_each(|(entry, other)| *entry -= factor * other);
            }
        }
        let below = matrix.slice(s![end.., start..end]).to_owned();
        let product = below.dot(&below.t());
        let mut rest = matrix.slice_mut(s![end.., end..]);
        rest -= &product;
    }
    Some(matrix)
}

#[cfg(test)]
mod tests {
    use cokv_core::random::mix;

    use super::*;

    /// `[rows, unknowns]` of numbers that are as good as drawn.
    fn some(rows: usize, columns: usize) -> Array2<f32> {
        let number = |(row, column)| (mix((row * columns + column) as u64) >> 40) as f32 / (1u64 << 23) as f32 - 1.0;
        Array2::from_shape_fn((rows, columns), number)
    }

    #[test]
    fn solutions_solve_the_equations() {
        for unknowns in [1, 5, 64, 65, 200] {
            let matrix = some(3 * unknowns + 7, unknowns);
            let mut gram = matrix.t().dot(&matrix);
            gram.diag_mut().iter_mut().for_each(|entry| *entry += unknowns as f32 * 0.1);
            let right = some(unknowns, 3);
            let found = ridge(&gram, gram.dot(&right), 0.0).unwrap();
            let worst = (&found - &right).iter().fold(0f32, |most, x| most.max(x.abs()));
            assert!(worst < 1e-3, "{unknowns} unknowns: {worst}");
        }
    }

    #[test]
    fn what_has_no_inverse_gets_a_ridge_or_nothing() {
        let gram = Array2::from_elem((3, 3), 1.0);
        let found = ridge(&gram, Array2::from_elem((3, 1), 3.0), 1e-3).unwrap();
        assert!(found.iter().all(|x| (x - 1.0).abs() < 1e-2), "{found}");
        assert!(ridge(&Array2::from_elem((2, 2), f32::NAN), Array2::zeros((2, 1)), 1e-3).is_none());
    }

    #[test]
    fn unknowns_stay_within_bounds() {
        let matrix = some(40, 4);
        let gram = matrix.t().dot(&matrix);
        let target =
            |x: [f32; 4]| gram.dot(&Array2::from_shape_vec((4, 1), x.to_vec()).unwrap()).into_raw_vec_and_offset().0;
        let free = bounded(gram.view(), &target([0.5, 2.0, 1.0, 3.0]), [0.0, 10.0]);
        assert!(free.iter().zip([0.5, 2.0, 1.0, 3.0]).all(|(x, right)| (x - right).abs() < 0.05), "{free:?}");
        let held = bounded(gram.view(), &target([-1.0, 2.0, 1.0, 30.0]), [0.1, 10.0]);
        assert!(held.iter().all(|x| (0.1..=10.0).contains(x)) && held[0] == 0.1 && held[3] == 10.0, "{held:?}");
    }
}
