//! How many evaluations each estimator needs on a real game.

use std::ops::ControlFlow;

use cokv_core::Game;
use cokv_shapley::diagnostics::allocation_distance;
use cokv_shapley::estimators::{
    Banzhaf, Complementary, Exact, KernelShap, LeaveOneOut, Permutation, Scpr, Sides, Ssv, SsvRidge,
};
use cokv_shapley::games::Tabulated;
use cokv_shapley::statistics::{mean, pearson, spearman};
use cokv_shapley::{
    Design, Estimator, FitError, LogHeader, PlayError, PlaySettings, SampleLog, SamplingPlan, Stop, play,
};

use crate::chart::Series;

/// Disjoint stretches of a log that are fitted for one point of a curve, at most.
const STRETCHES: usize = 16;

/// How near an estimator comes to the reference, by evaluations.
#[derive(Clone, Debug)]
pub struct Curve {
    /// Name of the estimator, with what distinguishes it.
    pub name: String,
    /// By ascending evaluations.
    pub points: Vec<Point>,
}

/// An estimator after some evaluations, averaged over runs.
#[derive(Clone, Copy, Debug)]
pub struct Point {
    /// One coalition on one instance each; the ends are not counted, they are the same for all.
    pub evaluations: u64,
    /// Squared correlation with the reference.
    pub squared_correlation: f64,
    /// Share of the reference's highest heads that are the estimate's highest heads.
    pub recall: f64,
    /// Rank correlation with the reference among the half of the heads that it has lowest.
    pub lower_half: f64,
    /// Share of all tokens that the authors' rule gives to other heads than by the reference.
    pub allocation_distance: f64,
    /// Independent runs in the mean.
    pub runs: usize,
}

impl Curve {
    /// Evaluations from which on the mean squared correlation is at least `target`, between two points by the logarithm
    /// of the evaluations; none if that is never.
    pub fn evaluations_to(&self, target: f64) -> Option<u64> {
        let below = self.points.iter().rposition(|point| point.squared_correlation < target);
        let Some(below) = below else { return self.points.first().map(|point| point.evaluations) };
        let (low, high) = (self.points[below], self.points.get(below + 1)?);
        let share = (target - low.squared_correlation) / (high.squared_correlation - low.squared_correlation);
        let logarithm = |point: &Point| (point.evaluations as f64).ln();
        Some((logarithm(&low) + share * (logarithm(high) - logarithm(&low))).exp().round() as u64)
    }

    /// Squared correlation by evaluations, as a line.
    pub fn squared_correlation(&self) -> Series {
        self.series(|point| point.squared_correlation)
    }

    /// Recall by evaluations, as a line.
    pub fn recall(&self) -> Series {
        self.series(|point| point.recall)
    }

    fn series(&self, value: impl Fn(&Point) -> f64) -> Series {
        let points = self.points.iter().map(|point| (point.evaluations as f64, value(point))).collect();
        Series { name: self.name.clone(), points, ..Series::default() }
    }
}

/// All estimators but the exact one, under the names that curves have.
pub fn estimators() -> Vec<(&'static str, Box<dyn Estimator>)> {
    vec![
        ("scpr", Box::new(Scpr::default())),
        ("ssv-ridge", Box::new(SsvRidge {})),
        ("ssv", Box::new(Ssv::default())),
        ("ssv, both sides", Box::new(Ssv { sides: Sides::Both })),
        ("complementary", Box::new(Complementary {})),
        ("kernel-shap", Box::new(KernelShap {})),
        ("banzhaf", Box::new(Banzhaf {})),
        ("permutation", Box::new(Permutation { antithetic: false })),
        ("permutation, antithetic", Box::new(Permutation { antithetic: true })),
        ("leave-one-out", Box::new(LeaveOneOut {})),
    ]
}

/// Lets every estimator play the game of a complete exhaustive log with several seeds, one instance a sample, up to as
/// many evaluations as the log itself took, and compares it with the exact values.
pub fn on_enumerated_game(
    log: &SampleLog,
    seeds: u64,
    top: usize,
    mut done: impl FnMut(&str),
) -> Result<Vec<Curve>, PlayError> {
    let truth = Exact {}.fit(log)?.values;
    let mut game = Tabulated::new(log)?;
    let (players, instances) = (game.players(), game.instances());
    let most = (1u64 << players) * instances as u64;
    let mut curves = Vec::new();
    for (name, estimator) in estimators() {
        let mut logs = Vec::new();
        for seed in 1..=seeds {
            let design = estimator.design(players);
            let plan = SamplingPlan { players, instances, instances_per_sample: 1, seed, design };
            let header = LogHeader::new(log.header().game.clone(), plan);
            let mut sampled = SampleLog::new(header).map_err(|error| PlayError::Settings(error.to_string()))?;
            let stop = Stop { reliability: None, evaluations: Some(most + 2 * instances as u64), ..Stop::default() };
            let settings = PlaySettings { stop, batch: 4096, round: 1 << 20, ..PlaySettings::default() };
            let proceed = &mut |_: &_| ControlFlow::Continue(());
            play(&mut game, &mut sampled, estimator.as_ref(), &settings, &mut |_| Ok(()), proceed)?;
            logs.push(sampled);
            if finite(&logs[0]).is_some() {
                break;
            }
        }
        let grid = Grid { per_sample: logs[0].plan().evaluations_per_sample(), most, whole: finite(&logs[0]) };
        curves.push(curve(name, estimator.as_ref(), &truth, top, grid, |samples| {
            logs.iter().filter(|log| samples <= log.len()).map(|log| log.prefix(samples)).collect()
        }));
        done(name);
    }
    Ok(curves)
}

/// Compares what each estimator makes of a log with a reference that comes from elsewhere. Disjoint stretches of the
/// log are as good as runs of their own. Estimators that cannot use the log's design are left out.
pub fn on_log(name: &str, log: &SampleLog, reference: &[f64], top: usize) -> Vec<Curve> {
    let usable = |estimator: &dyn Estimator| {
        let plan = log.plan();
        // Both kinds of permutations fit each other's logs, and would give one curve two names.
        let permutations = matches!(plan.design, Design::Permutations { .. });
        let same = !permutations || estimator.design(plan.players) == plan.design;
        same && !matches!(estimator.fit(&log.prefix(0)), Err(FitError::Design { .. }))
    };
    let per_sample = log.plan().evaluations_per_sample();
    let grid = Grid { per_sample, most: log.len() as u64 * per_sample, whole: finite(log) };
    let curves =
        estimators().into_iter().filter(|(_, estimator)| usable(estimator.as_ref())).map(|(label, estimator)| {
            curve(&format!("{label} on {name}"), estimator.as_ref(), reference, top, grid, |samples| {
                let stretches = (log.len() / samples).min(STRETCHES);
                (0..stretches).map(|stretch| log.slice(stretch * samples..(stretch + 1) * samples)).collect()
            })
        });
    curves.filter(|curve| !curve.points.is_empty()).collect()
}

/// Number of samples of a finite design, which every seed draws alike.
fn finite(log: &SampleLog) -> Option<usize> {
    log.plan().samples().map(|samples| samples as usize)
}

/// Where the points of a curve lie: from a few evaluations per player up to `most`, a factor of √2 apart.
#[derive(Clone, Copy)]
struct Grid {
    per_sample: u64,
    most: u64,
    /// All samples of a finite design, which says nothing before.
    whole: Option<usize>,
}

impl Grid {
    /// Samples of each point, ascending.
    fn samples(self, players: usize) -> Vec<usize> {
        if let Some(whole) = self.whole {
            return vec![whole];
        }
        let evaluations = |step: i32| self.most as f64 / std::f64::consts::SQRT_2.powi(step);
        let steps = (0..).map(evaluations).take_while(|&evaluations| evaluations >= 2.0 * players as f64);
        let samples = steps.map(|evaluations| (evaluations / self.per_sample as f64) as usize);
        let mut samples: Vec<usize> = samples.filter(|&samples| samples > 0).collect();
        samples.reverse();
        samples.dedup();
        samples
    }
}

/// Fits the runs that `runs` finds for each number of samples.
fn curve(
    name: &str,
    estimator: &dyn Estimator,
    reference: &[f64],
    top: usize,
    grid: Grid,
    runs: impl Fn(usize) -> Vec<SampleLog>,
) -> Curve {
    let mut points: Vec<Point> = Vec::new();
    for samples in grid.samples(reference.len()) {
        let fits: Vec<Vec<f64>> =
            runs(samples).iter().filter_map(|log| estimator.fit(log).ok()).map(|estimate| estimate.values).collect();
        if fits.is_empty() {
            continue;
        }
        let of = |measure: &dyn Fn(&[f64]) -> f64| mean(&fits.iter().map(|values| measure(values)).collect::<Vec<_>>());
        points.push(Point {
            evaluations: samples as u64 * grid.per_sample,
            squared_correlation: of(&|values| pearson(values, reference).powi(2)),
            recall: of(&|values| recall(values, reference, top)),
            lower_half: of(&|values| lower_half(values, reference)),
            allocation_distance: of(&|values| allocation_distance(values, reference)),
            runs: fits.len(),
        });
    }
    Curve { name: name.into(), points }
}

fn lower_half(values: &[f64], reference: &[f64]) -> f64 {
    let lowest = highest(&reference.iter().map(|value| -value).collect::<Vec<_>>(), reference.len() / 2);
    let of = |values: &[f64]| lowest.iter().map(|&head| values[head]).collect::<Vec<_>>();
    spearman(&of(values), &of(reference))
}

fn recall(values: &[f64], reference: &[f64], top: usize) -> f64 {
    let (found, expected) = (highest(values, top), highest(reference, top));
    found.iter().filter(|head| expected.contains(head)).count() as f64 / expected.len().max(1) as f64
}

fn highest(values: &[f64], top: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&left, &right| values[right].total_cmp(&values[left]));
    order.truncate(top);
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curve(points: &[(u64, f64)]) -> Curve {
        let point = |&(evaluations, squared_correlation)| Point {
            evaluations,
            squared_correlation,
            recall: 0.0,
            lower_half: 0.0,
            allocation_distance: 0.0,
            runs: 1,
        };
        Curve { name: "toy".into(), points: points.iter().map(point).collect() }
    }

    #[test]
    fn the_target_is_reached_where_the_curve_stays_above_it() {
        assert_eq!(curve(&[(100, 0.5), (400, 1.0)]).evaluations_to(0.75), Some(200));
        assert_eq!(curve(&[(100, 0.95), (200, 0.5), (400, 1.0)]).evaluations_to(0.9), Some(348));
        assert_eq!(curve(&[(100, 0.95)]).evaluations_to(0.9), Some(100));
        assert_eq!(curve(&[(100, 0.95), (200, 0.5)]).evaluations_to(0.9), None);
    }

    #[test]
    fn recall_counts_the_highest_heads() {
        assert_eq!(recall(&[3.0, 2.0, 1.0, 0.0], &[3.0, 0.0, 2.0, 1.0], 2), 0.5);
        assert_eq!(highest(&[0.0, 5.0, 3.0], 2), [1, 2]);
        // The strong heads are in the right order, the weak ones in the opposite one.
        assert_eq!(lower_half(&[3.0, 2.0, 1.0, 7.0, 8.0, 9.0], &[0.0, 0.1, 0.2, 7.0, 8.0, 9.0]), -1.0);
    }
}
