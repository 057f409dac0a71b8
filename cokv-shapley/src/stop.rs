//! When to stop sampling.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::diagnostics::{Allocation, SplitHalf};
use crate::{Estimate, Progress, SampleLog, SamplingPlan};

/// What ends a play: [`reliability`](Self::reliability) and [`allocation_distance`](Self::allocation_distance) once both are
/// reached, of which either may be left out, and each of the others by itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Stop {
    /// Estimated reliability reached, such as 0.9. It does not count before there are twice as many pairs of coalitions
    /// as players: with as many pairs as players, regression can take noise for signal. Without another rule, a game that is
    /// nothing but noise is played for ever. A few strong heads make it high while the budgets of all others are still
    /// chance, which is why there is the other rule.
    pub reliability: Option<f64>,
    /// Evaluations in the log, those of earlier plays included. A sample that would exceed them is not begun.
    pub evaluations: Option<u64>,
    /// Time of this play.
    pub time: Option<Duration>,
    /// The authors' rule, see [`crate::diagnostics::SplitHalf::two_run_mae`]: not scale-free.
    pub two_run_mae: bool,
    /// Budgets that are known: by the standard errors, at most this share of the pool would go to other players if the true values
    /// were known, see [`Allocation::foreseen`].
    pub allocation_distance: Option<f64>,
    /// How budgets follow from values; none for [`Allocation::authors`].
    pub allocation: Option<Allocation>,
}

impl Default for Stop {
    fn default() -> Self {
        Self {
            reliability: Some(0.9),
            evaluations: None,
            time: None,
            two_run_mae: false,
            allocation_distance: None,
            allocation: None,
        }
    }
}

/// Why a play ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The estimate is as reliable as asked.
    Reliable,
    /// No more evaluations are allowed.
    Evaluations,
    /// The time is up.
    Time,
    /// Two halves of the samples agree by the authors' rule.
    TwoRunMae,
    /// Knowing more would hardly change the budgets.
    AllocationDistance,
    /// All samples of the plan, or of this shard of it, are in the log.
    Exhausted,
    /// The observer asked to stop.
    Interrupted,
}

impl Outcome {
    /// For people.
    pub fn sentence(self) -> &'static str {
        match self {
            Self::Reliable => "reliable",
            Self::Evaluations => "no more evaluations are allowed",
            Self::Time => "time is up",
            Self::TwoRunMae => "two halves agree",
            Self::AllocationDistance => "budgets would hardly change",
            Self::Exhausted => "all samples are done",
            Self::Interrupted => "stopped",
        }
    }
}

impl Stop {
    /// The rule that the latest fit meets, if any.
    pub(crate) fn satisfied(
        &self,
        log: &SampleLog,
        estimate: Option<&Estimate>,
        halves: Option<&SplitHalf>,
    ) -> Option<Outcome> {
        let (estimate, plan) = (estimate?, log.plan());
        let credible = log.len() as u64 >= credible_samples(plan);
        let reliable = self.reliability.map(|target| credible && estimate.reliability >= target);
        let stable = self.allocation_distance.map(|most| credible && self.tokens_to_move(estimate) <= most);
        match (reliable, stable) {
            (Some(true), None | Some(true)) => return Some(Outcome::Reliable),
            (None, Some(true)) => return Some(Outcome::AllocationDistance),
            _ => {}
        }
        let agree = self.two_run_mae && halves?.two_run_mae < 1.0 / plan.players as f64;
        agree.then_some(Outcome::TwoRunMae)
    }

    /// See [`Allocation::foreseen`].
    pub(crate) fn tokens_to_move(&self, estimate: &Estimate) -> f64 {
        self.allocation.unwrap_or_else(|| Allocation::authors(estimate.values.len())).foreseen(estimate)
    }

    /// Samples that the limit on evaluations still allows.
    pub(crate) fn affordable(&self, log: &SampleLog) -> u64 {
        let Some(limit) = self.evaluations else { return u64::MAX };
        limit.saturating_sub(log.evaluations()) / log.plan().evaluations_per_sample()
    }

    /// Samples before which none of the rules can be met that look at what the samples say.
    pub(crate) fn least_samples(&self, plan: &SamplingPlan) -> u64 {
        let credible = (self.reliability.is_some() || self.allocation_distance.is_some()) && !self.two_run_mae;
        if credible { credible_samples(plan) } else { 0 }
    }

    /// Time until the first of the rules that can be foreseen will be met, at the speed so far: 1/reliability - 1
    /// falls like 1/samples, and so does the square of the distance that is foreseen.
    pub(crate) fn remaining(&self, plan: &SamplingPlan, share: Option<u64>, progress: &Progress) -> Option<Duration> {
        let per_evaluation = progress.elapsed.as_secs_f64() / progress.new_evaluations as f64;
        let whole_plan = share
            .map(|ours| ours.saturating_mul(plan.evaluations_per_sample()).saturating_add(2 * plan.instances as u64));
        let limit = self.evaluations.into_iter().chain(whole_plan).min();
        let for_evaluations = limit.map(|limit| limit.saturating_sub(progress.evaluations) as f64);
        let for_reliability = self.reliability.zip(progress.estimate.as_ref()).map(|(target, estimate)| {
            let factor = (1.0 / estimate.reliability - 1.0) / (1.0 / target - 1.0);
            factor * estimate.evaluations as f64 - progress.evaluations as f64
        });
        let for_stability = self.allocation_distance.zip(progress.estimate.as_ref()).map(|(target, estimate)| {
            let factor = (self.tokens_to_move(estimate) / target).powi(2);
            (factor - 1.0) * progress.evaluations as f64
        });
        let for_both = for_reliability.into_iter().chain(for_stability).reduce(f64::max);
        let by_speed = [for_evaluations, for_both].into_iter().flatten().map(|left| left.max(0.0) * per_evaluation);
        let by_clock = self.time.map(|limit| limit.saturating_sub(progress.elapsed).as_secs_f64());
        let seconds = by_speed.chain(by_clock).filter(|seconds| seconds.is_finite()).min_by(f64::total_cmp)?;
        Duration::try_from_secs_f64(seconds).ok()
    }
}

/// Samples before which a reliability does not count.
fn credible_samples(plan: &SamplingPlan) -> u64 {
    (4 * plan.players).div_ceil(plan.coalitions_per_sample()) as u64
}
