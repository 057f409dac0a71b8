//! Linear guesses from sums of products.

/// Weights `[order]` of `(XᵀX + λ I) w = Xᵀy` from the lower half of `XᵀX`, `[order, order]`, and several `Xᵀy`, `[targets, order]`;
/// λ is a part of the mean of the diagonal. None where the matrix has no such solution.
pub fn ridge(gram: &[f64], targets: &[f64], order: usize, part: f64) -> Option<Vec<f64>> {
    if order == 0 {
        return None;
    }
    let mean = (0..order).map(|at| gram[at * order + at]).sum::<f64>() / order as f64;
    let mut lower = gram.to_vec();
    (0..order).for_each(|at| lower[at * order + at] += part * mean);
    for row in 0..order {
        let (above, rest) = lower.split_at_mut(row * order);
        let own = &mut rest[..order];
        for column in 0..row {
            let other = &above[column * order..][..order];
            let product: f64 = own[..column].iter().zip(&other[..column]).map(|(a, b)| a * b).sum();
            own[column] = (own[column] - product) / other[column];
        }
        let pivot = own[row] - own[..row].iter().map(|x| x * x).sum::<f64>();
        if pivot.is_nan() || pivot <= 0.0 {
            return None;
        }
        own[row] = pivot.sqrt();
    }
    let mut all = targets.to_vec();
    for weights in all.chunks_exact_mut(order) {
        for row in 0..order {
            let own = &lower[row * order..][..order];
            let known: f64 = own[..row].iter().zip(&weights[..row]).map(|(a, b)| a * b).sum();
            weights[row] = (weights[row] - known) / own[row];
        }
        for row in (0..order).rev() {
            weights[row] /= lower[row * order + row];
            let (before, own) = weights.split_at_mut(row);
            before.iter_mut().zip(&lower[row * order..][..row]).for_each(|(weight, x)| *weight -= own[0] * x);
        }
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_solve_the_equations() {
        // XᵀX of rows (1, 2), (3, 1), (0, 1), and Xᵀy of y = 2 x₀ - x₁, and of y = 5.
        let (gram, targets) = ([10.0, 5.0, 5.0, 6.0], [15.0, 4.0, 20.0, 20.0]);
        let weights = ridge(&gram, &targets, 2, 0.0).unwrap();
        for (found, expected) in weights.iter().zip([2.0, -1.0, 4.0 / 7.0, 20.0 / 7.0]) {
            assert!((found - expected).abs() < 1e-12, "{weights:?}");
        }
        let shrunk = ridge(&gram, &targets, 2, 0.1).unwrap();
        assert!(shrunk[0] < 2.0 && shrunk[1] > -1.0);
        assert_eq!(ridge(&[0.0; 4], &targets, 2, 0.0), None);
        assert_eq!(ridge(&[], &[], 0, 0.1), None);
    }
}
