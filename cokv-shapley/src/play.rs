//! Plays a game: evaluates the samples of a plan until a stop rule is met.

use std::ops::{ControlFlow, Range};
use std::time::{Duration, Instant};

use cokv_core::{Coalition, Game, GameError, Query, Shard};
use thiserror::Error;

use crate::diagnostics::{SplitHalf, split_half};
use crate::pilot::Pilot;
use crate::{
    Draw, Ends, Estimate, Estimator, FitError, LogError, NotFinite, Outcome, Progress, Sample, SampleLog, SamplingPlan,
    Stop,
};

/// Fits while the samples double, once there are more rounds than that: a fit takes longer the more samples there are, and on a GPU longer
/// than to evaluate a round.
const FITS_A_DOUBLING: u64 = 32;

/// How a game is played.
#[derive(Clone, Debug, PartialEq)]
pub struct PlaySettings {
    /// Which rounds are ours.
    pub shard: Shard,
    /// Samples of the plan that are played at most, all shards together.
    pub samples: Option<u64>,
    /// When to stop.
    pub stop: Stop,
    /// Most queries of one call of [`Game::evaluate`]; all of a call are about one instance.
    pub batch: usize,
    /// Samples of a round: between two fits, of the first 64 rounds.
    pub round: usize,
    /// Samples of every instance after which instances are drawn in proportion to how much their utilities vary; 0 draws all
    /// alike. Needs samples of one instance, and one shard.
    pub pilot: u64,
}

impl Default for PlaySettings {
    fn default() -> Self {
        Self { shard: Shard::WHOLE, samples: None, stop: Stop::default(), batch: 32, round: 64, pilot: 0 }
    }
}

impl PlaySettings {
    /// The samples of one of a shard's rounds; none behind the end. Rounds are dealt out whole, so that forward passes have the same
    /// rows whoever makes them.
    fn round_of_shard(&self, round: u64, plan: &SamplingPlan) -> Range<u64> {
        let Shard { index, count } = self.shard;
        let begin = round.saturating_mul(count).saturating_add(index).saturating_mul(self.round as u64);
        let end = self.end(plan).unwrap_or(u64::MAX);
        begin.min(end)..begin.saturating_add(self.round as u64).min(end)
    }

    /// Behind the last sample; none where nothing but what is found ends a play.
    fn end(&self, plan: &SamplingPlan) -> Option<u64> {
        plan.samples().into_iter().chain(self.samples).min()
    }

    /// Samples that the shard has; none where there is no end of them.
    pub(crate) fn share(&self, plan: &SamplingPlan) -> Option<u64> {
        let (Shard { index, count }, round) = (self.shard, self.round as u64);
        self.end(plan).map(|end| {
            let (whole, rest) = (end / round, end % round);
            let last = if whole % count == index { rest } else { 0 };
            whole.saturating_sub(index).div_ceil(count) * round + last
        })
    }

    /// Whether a sample is one of the shard's.
    pub(crate) fn has(&self, k: u64) -> bool {
        k / self.round as u64 % self.shard.count == self.shard.index
    }

    /// Whether stop rules are looked at before one of the shard's rounds.
    fn fits_before(&self, round: u64) -> bool {
        let apart = (round / FITS_A_DOUBLING).checked_ilog2().map_or(1, |doublings| 1 << doublings);
        round.is_multiple_of(apart)
    }
}

/// How many samples of a log an unshared play would have played, and why it would have ended there; none where the log does not have
/// them all.
pub(crate) fn settled(
    log: &SampleLog,
    estimator: &dyn Estimator,
    settings: &PlaySettings,
) -> Result<Option<(usize, Outcome)>, FitError> {
    let (plan, whole) = (log.plan(), PlaySettings { shard: Shard::WHOLE, ..settings.clone() });
    if log.ends().is_none() {
        return Ok(None);
    }
    let Some(pilot) = Pilot::of(log, settings.pilot) else { return Ok(None) };
    for number in 0.. {
        let round = whole.round_of_shard(number, plan);
        let prefix = log.filtered(|_, k| k < round.start);
        let mut before = (0..round.start).filter(|&k| pilot.has(plan, k));
        if !before.all(|k| log.contains(k)) {
            break;
        }
        let there = prefix.len();
        if whole.fits_before(number) || round.is_empty() {
            let (estimate, halves) = fit_for(&whole.stop, estimator, &prefix)?;
            if let Some(outcome) = whole.stop.satisfied(&prefix, estimate.as_ref(), halves.as_ref()) {
                return Ok(Some((there, outcome)));
            }
        }
        if round.is_empty() {
            return Ok(Some((there, Outcome::Exhausted)));
        }
        let (wanted, affordable) = (pilot.of_round(plan, round), whole.stop.affordable(&prefix));
        if affordable < wanted.len() as u64 {
            let wanted = &wanted[..affordable as usize];
            let all = wanted.iter().all(|&k| log.contains(k));
            return Ok(all.then_some((there + wanted.len(), Outcome::Evaluations)));
        }
    }
    Ok(None)
}

/// What has just been evaluated and should be stored.
#[derive(Clone, Copy, Debug)]
pub enum Kept<'a> {
    /// U(nobody) and U(everybody).
    Ends(&'a Ends),
    /// A complete sample.
    Sample(&'a Sample),
}

/// Why a play failed. The samples that had been kept stay.
#[derive(Debug, Error)]
pub enum PlayError {
    /// Settings under which nothing would be played.
    #[error("{0}")]
    Settings(String),
    /// The game failed.
    #[error(transparent)]
    Game(#[from] GameError),
    /// The game answered with NaN or an infinity.
    #[error(transparent)]
    NotFinite(#[from] NotFinite),
    /// The samples could not be kept.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The estimator cannot use the samples.
    #[error(transparent)]
    Fit(#[from] FitError),
}

/// Evaluates the missing samples of the shard, round by round, until a stop rule is met.
///
/// A round sorts its queries by instance, because a model answers many coalitions of one record in one forward pass.
/// A sample goes to the log and to `keep` as soon as its last query is answered, and `observe` is called after every
/// batch, so that breaking there loses one batch at most. Rounds are fixed blocks of the plan and fits happen between
/// them: a play that was interrupted and resumed stops at the same samples as one that was not.
pub fn play(
    game: &mut dyn Game,
    log: &mut SampleLog,
    estimator: &dyn Estimator,
    settings: &PlaySettings,
    keep: &mut dyn FnMut(Kept<'_>) -> Result<(), LogError>,
    observe: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
) -> Result<Outcome, PlayError> {
    check(game, log, settings)?;
    // A design that the estimator cannot use shows in an empty log, before anything is evaluated.
    fit(estimator, &log.prefix(0))?;
    let progress = Progress {
        samples: 0,
        evaluations: 0,
        new_evaluations: 0,
        elapsed: Duration::ZERO,
        estimate: None,
        halves: None,
        remaining: None,
    };
    let mut play = Play { game, log, settings, keep, observe, progress, started: Instant::now() };
    match play.run(estimator)? {
        Outcome::Interrupted => Ok(Outcome::Interrupted),
        outcome => {
            // Whatever ended it, the last word is about all samples.
            let fitted = play.progress.estimate.as_ref().map(|estimate| estimate.samples);
            if fitted != Some(play.log.len() as u64) {
                play.fit(estimator)?;
                let _ = play.report();
            }
            Ok(outcome)
        }
    }
}

fn check(game: &dyn Game, log: &SampleLog, settings: &PlaySettings) -> Result<(), PlayError> {
    let Shard { index, count } = settings.shard;
    let plan = log.plan();
    let wrong = if index >= count {
        format!("shard {index} of {count}: the index counts from 0 and must be below the number of shards")
    } else if settings.batch == 0 || settings.round == 0 {
        format!("batches of {} queries and rounds of {} samples play nothing", settings.batch, settings.round)
    } else if settings.pilot > 0
        && (settings.shard != Shard::WHOLE || plan.instances_per_sample != 1 || plan.samples().is_some())
    {
        "a pilot needs samples of one instance each, of a design without an end, and one process that plays them all"
            .into()
    } else if (game.players(), game.instances()) != (plan.players, plan.instances) {
        format!(
            "the game has {} players and {} instances, the log's plan {} and {}",
            game.players(),
            game.instances(),
            plan.players,
            plan.instances
        )
    } else {
        return Ok(());
    };
    Err(PlayError::Settings(wrong))
}

/// What a rule looks at. Two halves are fitted for the one rule that compares them.
fn fit_for(
    stop: &Stop,
    estimator: &dyn Estimator,
    log: &SampleLog,
) -> Result<(Option<Estimate>, Option<SplitHalf>), FitError> {
    let estimate = fit(estimator, log)?;
    let halves = estimate.as_ref().filter(|_| stop.two_run_mae).and_then(|_| split_half(log, estimator).ok());
    Ok((estimate, halves))
}

/// None while there are too few samples.
fn fit(estimator: &dyn Estimator, log: &SampleLog) -> Result<Option<Estimate>, FitError> {
    match estimator.fit(log) {
        Ok(estimate) => Ok(Some(estimate)),
        Err(FitError::TooFewSamples { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

struct Play<'a> {
    game: &'a mut dyn Game,
    log: &'a mut SampleLog,
    settings: &'a PlaySettings,
    keep: &'a mut dyn FnMut(Kept<'_>) -> Result<(), LogError>,
    observe: &'a mut dyn FnMut(&Progress) -> ControlFlow<()>,
    progress: Progress,
    started: Instant,
}

impl Play<'_> {
    fn run(&mut self, estimator: &dyn Estimator) -> Result<Outcome, PlayError> {
        if self.log.ends().is_none()
            && let ControlFlow::Break(outcome) = self.evaluate_ends()?
        {
            return Ok(outcome);
        }
        if let ControlFlow::Break(outcome) = self.evaluate_pilot()? {
            return Ok(outcome);
        }
        let Some(pilot) = Pilot::of(self.log, self.settings.pilot) else { return Ok(Outcome::Evaluations) };
        for block in 0.. {
            let round = self.settings.round_of_shard(block, self.log.plan());
            let wanted = pilot.of_round(self.log.plan(), round.clone());
            let mut missing: Vec<u64> = wanted.iter().copied().filter(|&k| !self.log.contains(k)).collect();
            if missing.is_empty() && !round.is_empty() {
                continue;
            }
            if missing.len() == wanted.len() && (self.settings.fits_before(block) || round.is_empty()) {
                self.fit(estimator)?;
                if let ControlFlow::Break(outcome) = self.report() {
                    return Ok(outcome);
                }
                let Progress { estimate, halves, .. } = &self.progress;
                if let Some(outcome) = self.settings.stop.satisfied(self.log, estimate.as_ref(), halves.as_ref()) {
                    return Ok(outcome);
                }
            }
            if round.is_empty() {
                return Ok(Outcome::Exhausted);
            }
            let affordable = self.settings.stop.affordable(self.log);
            let enough = missing.len() as u64 <= affordable;
            missing.truncate(affordable.min(self.settings.round as u64) as usize);
            if let ControlFlow::Break(outcome) = self.evaluate_samples(&missing)? {
                return Ok(outcome);
            }
            if !enough {
                return Ok(Outcome::Evaluations);
            }
        }
        Ok(Outcome::Exhausted)
    }

    fn evaluate_ends(&mut self) -> Result<ControlFlow<Outcome>, PlayError> {
        let (players, instances) = (self.log.plan().players, self.log.plan().instances);
        let coalitions = vec![Coalition::empty(players), Coalition::full(players)];
        let draw = Draw { coalitions, instances: (0..instances).collect() };
        self.evaluate(&[draw], |play, _, mut utilities| {
            let full = utilities.split_off(instances);
            let ends = Ends { empty: utilities, full };
            (play.keep)(Kept::Ends(&ends))?;
            play.log.set_ends(ends)
        })
    }

    /// The samples from which it follows how often each instance is drawn.
    fn evaluate_pilot(&mut self) -> Result<ControlFlow<Outcome>, PlayError> {
        let end = Pilot::end(self.log.plan(), self.settings.pilot);
        let mut missing: Vec<u64> = (0..end).filter(|&k| !self.log.contains(k)).collect();
        let affordable = self.settings.stop.affordable(self.log);
        let enough = missing.len() as u64 <= affordable;
        missing.truncate(affordable as usize);
        match self.evaluate_samples(&missing)? {
            ControlFlow::Continue(()) if !enough => Ok(ControlFlow::Break(Outcome::Evaluations)),
            played => Ok(played),
        }
    }

    fn evaluate_samples(&mut self, samples: &[u64]) -> Result<ControlFlow<Outcome>, PlayError> {
        let draws: Vec<Draw> = samples.iter().map(|&k| self.log.plan().draw(k)).collect();
        self.evaluate(&draws, |play, place, utilities| {
            let sample = Sample { k: samples[place], utilities };
            (play.keep)(Kept::Sample(&sample))?;
            play.log.insert(sample)
        })
    }

    /// Evaluates all coalitions of the draws on their instances and hands over the utilities of each draw,
    /// `[coalitions, instances]`, once they are complete.
    fn evaluate<T>(
        &mut self,
        draws: &[Draw],
        mut complete: impl FnMut(&mut Self, usize, Vec<f64>) -> Result<T, LogError>,
    ) -> Result<ControlFlow<Outcome>, PlayError> {
        struct Task {
            instance: usize,
            draw: usize,
            coalition: usize,
            slot: usize,
        }
        let mut tasks = Vec::new();
        for (place, draw) in draws.iter().enumerate() {
            for coalition in 0..draw.coalitions.len() {
                for (column, &instance) in draw.instances.iter().enumerate() {
                    let slot = coalition * draw.instances.len() + column;
                    tasks.push(Task { instance, draw: place, coalition, slot });
                }
            }
        }
        tasks.sort_by_key(|task| task.instance);
        let mut utilities: Vec<Vec<f64>> =
            draws.iter().map(|draw| vec![0.0; draw.coalitions.len() * draw.instances.len()]).collect();
        let mut unanswered: Vec<usize> = utilities.iter().map(Vec::len).collect();
        for batch in tasks.chunk_by(|left, right| left.instance == right.instance) {
            for batch in batch.chunks(self.settings.batch) {
                let query = |task: &Task| Query {
                    coalition: &draws[task.draw].coalitions[task.coalition],
                    instance: task.instance,
                };
                let queries: Vec<Query<'_>> = batch.iter().map(query).collect();
                let mut answers = vec![f64::NAN; queries.len()];
                self.game.evaluate(&queries, &mut answers)?;
                self.progress.new_evaluations += queries.len() as u64;
                let mut failure = None;
                for ((task, query), &utility) in batch.iter().zip(&queries).zip(&answers) {
                    if !utility.is_finite() {
                        let coalition = query.coalition.clone();
                        failure.get_or_insert(NotFinite { coalition, instance: query.instance, utility });
                        continue;
                    }
                    utilities[task.draw][task.slot] = utility;
                    unanswered[task.draw] -= 1;
                    if unanswered[task.draw] == 0 {
                        complete(self, task.draw, std::mem::take(&mut utilities[task.draw]))?;
                    }
                }
                if let Some(failure) = failure {
                    return Err(failure.into());
                }
                if let ControlFlow::Break(outcome) = self.report() {
                    return Ok(ControlFlow::Break(outcome));
                }
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    fn fit(&mut self, estimator: &dyn Estimator) -> Result<(), PlayError> {
        (self.progress.estimate, self.progress.halves) = fit_for(&self.settings.stop, estimator, self.log)?;
        Ok(())
    }

    /// Tells the observer where we are. Breaks when it asks to, or when the time is up.
    fn report(&mut self) -> ControlFlow<Outcome> {
        self.progress.samples = self.log.len() as u64;
        self.progress.evaluations = self.log.evaluations();
        self.progress.elapsed = self.started.elapsed();
        self.progress.remaining =
            self.settings.stop.remaining(self.log.plan(), self.settings.share(self.log.plan()), &self.progress);
        if (self.observe)(&self.progress).is_break() {
            return ControlFlow::Break(Outcome::Interrupted);
        }
        match self.settings.stop.time {
            Some(limit) if self.progress.elapsed >= limit => ControlFlow::Break(Outcome::Time),
            _ => ControlFlow::Continue(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fits_are_a_thirty_second_apart_at_most() {
        let settings = PlaySettings::default();
        let fitted: Vec<u64> = (0..5000).filter(|&round| settings.fits_before(round)).collect();
        assert_eq!(fitted[..64], (0..64).collect::<Vec<u64>>());
        assert!(fitted.windows(2).all(|pair| pair[1] - pair[0] <= (pair[0] / 32).max(1)), "{fitted:?}");
        assert_eq!(fitted.len(), 64 + 32 * 6 + 5000_usize.div_ceil(128) - 4096 / 128);
    }
}
