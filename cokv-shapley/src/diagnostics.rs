//! Whether an estimate can be trusted.

use crate::random::{Purpose, Stream};
use crate::statistics::{mean, pearson, spearman, variance};
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
    /// Estimated squared correlation with the true values, of the estimate from both halves, among the players without the five
    /// strongest, which decide it otherwise: from the correlation of the halves (Spearman 1910, Brown 1910). NaN of
    /// fewer than eight players.
    pub reliability_of_others: f64,
}

/// Players that decide a correlation by themselves.
const STRONGEST: usize = 5;

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
        reliability_of_others: reliability_of_others(first, second),
    }
}

fn reliability_of_others(first: &[f64], second: &[f64]) -> f64 {
    let mut order: Vec<usize> = (0..first.len()).collect();
    order.sort_by(|&left, &right| (first[left] + second[left]).total_cmp(&(first[right] + second[right])));
    order.truncate(first.len().saturating_sub(STRONGEST));
    if order.len() < 3 {
        return f64::NAN;
    }
    let others = |values: &[f64]| order.iter().map(|&player| values[player]).collect::<Vec<_>>();
    of_both_halves(pearson(&others(first), &others(second)))
}

/// The reliability of all samples, from the correlation of their halves (Spearman and Brown).
pub(crate) fn of_both_halves(correlation: f64) -> f64 {
    let correlation = correlation.max(0.0);
    2.0 * correlation / (1.0 + correlation)
}

/// How budgets follow from values: in proportion to what each has above a border.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allocation {
    /// Players of the lowest values that get nothing, the highest of which is the border: `drop_lowest` of cokv's allocator. With
    /// 0, as with `proportional`, the border is a value of zero.
    pub drop_lowest: usize,
}

impl Allocation {
    /// The authors' rule for any number of players: the 8 % lowest get nothing.
    pub fn authors(players: usize) -> Self {
        Self { drop_lowest: ((0.08 * players as f64).round() as usize).max(1) }
    }

    /// The share of the pool of tokens that goes to other players under the one values than under the other, from 0 to 1.
    pub fn distance(self, first: &[f64], second: &[f64]) -> f64 {
        let (first, second) = (self.shares(first), self.shares(second));
        0.5 * first.iter().zip(&second).map(|(left, right)| (left - right).abs()).sum::<f64>()
    }

    /// The distance from the budgets of an estimate to those of the true values that is to be expected: the mean over draws from
    /// normal distributions around the values, by their standard errors; 1 where nothing is known of one.
    pub fn foreseen(self, estimate: &Estimate) -> f64 {
        const DRAWS: u64 = 64;
        let draw = |number: u64| {
            let mut stream = Stream::new(0, Purpose::Draws, number);
            let both = estimate.values.iter().zip(&estimate.standard_errors);
            let drawn: Vec<f64> = both.map(|(value, error)| value + error * stream.normal()).collect();
            if drawn.iter().all(|value| value.is_finite()) { self.distance(&estimate.values, &drawn) } else { 1.0 }
        };
        mean(&(0..DRAWS).map(draw).collect::<Vec<_>>())
    }

    fn shares(self, values: &[f64]) -> Vec<f64> {
        let mut ascending = values.to_vec();
        ascending.sort_by(f64::total_cmp);
        let border = self.drop_lowest.checked_sub(1).and_then(|last| ascending.get(last)).copied().unwrap_or(0.0);
        let above: Vec<f64> = values.iter().map(|value| (value - border).max(0.0)).collect();
        let total: f64 = above.iter().sum();
        if total > 0.0 {
            above.into_iter().map(|share| share / total).collect()
        } else {
            vec![1.0 / values.len() as f64; values.len()]
        }
    }
}

/// The share of the pool of tokens that goes to other heads under one score than under the other, from 0 to 1, by the
/// authors' rule: the 8 % lowest heads get nothing and the others in proportion to their distance from the border.
pub fn allocation_distance(first: &[f64], second: &[f64]) -> f64 {
    Allocation::authors(first.len()).distance(first, second)
}

/// An instance whose utilities vary by less than this share of the one that varies most tells next to nothing.
const SILENT: f64 = 0.1;

/// How much each instance tells about players: the standard deviation of U(S) - U(N∖S) over the pairs that were evaluated on it,
/// of U(S) where the design has none. NaN of an instance with fewer than two samples.
pub fn spreads(log: &SampleLog) -> Vec<f64> {
    let plan = log.plan();
    let mut seen = vec![Vec::new(); plan.instances];
    for sample in log.samples() {
        let instances = plan.instances_of(sample.k);
        let rows: Vec<&[f64]> = sample.utilities.chunks_exact(instances.len().max(1)).collect();
        for (column, &instance) in instances.iter().enumerate() {
            match plan.design.is_paired() {
                true => seen[instance].push(rows[0][column] - rows[1][column]),
                false => seen[instance].extend(rows.iter().map(|row| row[column])),
            }
        }
    }
    seen.iter().map(|values| if values.len() < 2 { f64::NAN } else { variance(values).sqrt() }).collect()
}

/// The instances that tell next to nothing, by how much all of them do ([`spreads`]): all where none tells anything.
pub fn silent(spreads: &[f64]) -> Vec<usize> {
    let most = spreads.iter().copied().fold(0.0, f64::max);
    let tells_nothing = |&instance: &usize| spreads[instance] < SILENT * most || spreads[instance] == 0.0;
    (0..spreads.len()).filter(tells_nothing).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instances_that_hardly_vary_are_silent() {
        assert_eq!(silent(&[2.0, 0.1, f64::NAN, 0.21, 0.0]), [1, 4]);
        assert_eq!(silent(&[0.0, 0.0]), [0, 1]);
        let plan = crate::SamplingPlan {
            players: 4,
            instances: 2,
            instances_per_sample: 2,
            seed: 1,
            design: crate::Design::AllSizes,
        };
        let mut log = SampleLog::new(crate::LogHeader::new("toy", plan.clone())).unwrap();
        assert!(spreads(&log).iter().all(|spread| spread.is_nan()));
        for (k, difference) in [(0, 1.0), (1, 3.0)] {
            let mut utilities = vec![0.5; 4];
            utilities[plan.instances_of(k).iter().position(|&instance| instance == 1).unwrap()] += difference;
            log.insert(crate::Sample { k, utilities }).unwrap();
        }
        assert_eq!(spreads(&log), [0.0, 1.0]);
    }

    #[test]
    fn what_errors_may_move_is_foreseen() {
        let log = SampleLog::new(crate::LogHeader::new(
            "toy",
            crate::SamplingPlan {
                players: 40,
                instances: 1,
                instances_per_sample: 1,
                seed: 1,
                design: crate::Design::AllSizes,
            },
        ))
        .unwrap();
        let truth: Vec<f64> = (0..40).map(|player| (player as f64 * 0.2).exp()).collect();
        let estimate = |error: f64| {
            let mut stream = Stream::new(7, Purpose::Noise, 0);
            let values = truth.iter().map(|value| value + error * stream.normal()).collect();
            Estimate::new(&log, values, vec![error; 40], 0.5)
        };
        for drop_lowest in [0, 10] {
            let rule = Allocation { drop_lowest };
            assert_eq!(rule.foreseen(&estimate(0.0)), 0.0);
            for error in [20.0, 100.0] {
                let estimate = estimate(error);
                let (foreseen, actual) = (rule.foreseen(&estimate), rule.distance(&estimate.values, &truth));
                assert!((0.75..1.33).contains(&(foreseen / actual)), "{drop_lowest} {error}: {foreseen} {actual}");
            }
            assert_eq!(rule.foreseen(&estimate(f64::INFINITY)), 1.0);
        }
    }

    #[test]
    fn what_the_others_are_worth_is_said_without_the_strongest() {
        // Five strong players agree, all others are chance.
        let mut stream = Stream::new(3, Purpose::Noise, 0);
        let mut values =
            |_| (0..50).map(|player| if player < 5 { 50.0 } else { stream.normal() }).collect::<Vec<f64>>();
        let halves = [values(0), values(1)];
        assert!(pearson(&halves[0], &halves[1]) > 0.9);
        assert!(reliability_of_others(&halves[0], &halves[1]) < 0.4);
        assert_eq!(reliability_of_others(&halves[0], &halves[0]), 1.0);
        assert!(reliability_of_others(&[1.0; 7], &[1.0; 7]).is_nan());
    }

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
