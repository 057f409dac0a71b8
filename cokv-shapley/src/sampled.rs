//! Estimators behind the seam of cokv-core.

use std::ops::ControlFlow;

use cokv_core::{Game, GameError, HeadLayout, HeadScores, ImportanceEstimator};

use crate::{Design, Estimator, LogHeader, PlaySettings, SampleLog, SamplingPlan, play};

/// An estimator, what it samples and when it stops: everything from a game to head scores in one call, in memory.
#[derive(Debug)]
pub struct Sampled {
    /// Heads of the model that plays.
    pub layout: HeadLayout,
    /// What turns samples into values.
    pub estimator: Box<dyn Estimator>,
    /// What is sampled; none for the estimator's own design.
    pub design: Option<Design>,
    /// Instances that a sample evaluates its coalitions on.
    pub instances_per_sample: usize,
    /// Seed of all random choices.
    pub seed: u64,
    /// Batches, rounds and stop rules.
    pub settings: PlaySettings,
}

impl ImportanceEstimator for Sampled {
    fn estimate(&self, game: &mut dyn Game) -> Result<HeadScores, GameError> {
        let (players, instances) = (game.players(), game.instances());
        let design = self.design.clone().unwrap_or_else(|| self.estimator.design(players));
        let plan = SamplingPlan {
            players,
            instances,
            instances_per_sample: self.instances_per_sample,
            seed: self.seed,
            design,
        };
        let mut log = SampleLog::new(LogHeader::new("", plan))?;
        let proceed = &mut |_: &_| ControlFlow::Continue(());
        play(game, &mut log, self.estimator.as_ref(), &self.settings, &mut |_| Ok(()), proceed)?;
        Ok(HeadScores::new(self.layout, self.estimator.fit(&log)?.values)?)
    }
}
