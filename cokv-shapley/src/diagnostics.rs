//! Whether an estimate can be trusted.

use crate::statistics::{mean, pearson, spearman};
use crate::{Estimate, Estimator, FitError, SampleLog};

/// How two estimates from alternate halves of a log agree.
#[derive(Clone, Debug, PartialEq)]
pub struct SplitHalf {
    /// Rank correlation of the values.
    pub spearman: f64,
    /// Correlation of the values.
    pub pearson: f64,
    /// Mean absolute difference of the values. The authors of CoKV stop when two runs differ by less than 1/n.
    /// That is not scale-free: scores that hardly differ between heads pass it although they are noise, as those of
    /// most tasks that the authors published would.
    pub two_run_mae: f64,
    /// See [`allocation_distance`].
    pub allocation_distance: f64,
}

/// Fits the two halves of a log and compares them.
pub fn split_half(log: &SampleLog, estimator: &dyn Estimator) -> Result<SplitHalf, FitError> {
    let (first, second) = log.halves();
    let (first, second) = (estimator.fit(&first)?, estimator.fit(&second)?);
    Ok(compare(&first, &second))
}

/// How two estimates of the same game agree.
pub fn compare(first: &Estimate, second: &Estimate) -> SplitHalf {
    let (first, second) = (&first.values, &second.values);
    let differences: Vec<f64> = first.iter().zip(second).map(|(left, right)| (left - right).abs()).collect();
    SplitHalf {
        spearman: spearman(first, second),
        pearson: pearson(first, second),
        two_run_mae: mean(&differences),
        allocation_distance: allocation_distance(first, second),
    }
}

/// The share of the pool of tokens that goes to other heads under one score than under the other, from 0 to 1, by the
/// authors' rule: the 8 % lowest heads get nothing and the others in proportion to their distance from the border.
pub fn allocation_distance(first: &[f64], second: &[f64]) -> f64 {
    let (first, second) = (shares(first), shares(second));
    0.5 * first.iter().zip(&second).map(|(left, right)| (left - right).abs()).sum::<f64>()
}

fn shares(scores: &[f64]) -> Vec<f64> {
    let mut ascending = scores.to_vec();
    ascending.sort_by(f64::total_cmp);
    let dropped = (0.08 * scores.len() as f64).round() as usize;
    let border = ascending.get(dropped.max(1) - 1).copied().unwrap_or(0.0);
    let above: Vec<f64> = scores.iter().map(|score| (score - border).max(0.0)).collect();
    let total: f64 = above.iter().sum();
    if total > 0.0 {
        above.into_iter().map(|share| share / total).collect()
    } else {
        vec![1.0 / scores.len() as f64; scores.len()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budgets_of_opposite_scores_have_little_in_common() {
        let up: Vec<f64> = (0..25).map(f64::from).collect();
        let down: Vec<f64> = up.iter().rev().copied().collect();
        assert_eq!(allocation_distance(&up, &up), 0.0);
        // Scores count from the second lowest: shares of 1 to 23 out of 276 against their mirror image.
        assert!((allocation_distance(&up, &down) - 155.0 / 276.0).abs() < 1e-12);
        // An affine change of the scores changes no budget, and equal scores are shared out equally.
        let other: Vec<f64> = up.iter().map(|score| 3.0 * score - 7.0).collect();
        assert!(allocation_distance(&up, &other) < 1e-12);
        assert_eq!(allocation_distance(&[1.0; 5], &[2.0; 5]), 0.0);
    }
}
