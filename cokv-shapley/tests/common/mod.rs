//! What several tests need.
#![allow(dead_code)]

use std::ops::ControlFlow;

use cokv_core::{Game, GameError, Query};
use cokv_shapley::estimators::Scpr;
use cokv_shapley::{Design, Estimator, LogHeader, PlaySettings, SampleLog, SamplingPlan, Stop, play};

/// A utility for every coalition; player 0 is the lowest bit.
#[derive(Clone, Debug)]
pub struct Table {
    pub players: usize,
    pub utilities: Vec<f64>,
}

impl Table {
    pub fn new(players: usize, utility: impl Fn(usize) -> f64) -> Self {
        Self { players, utilities: (0..1 << players).map(utility).collect() }
    }
}

impl Game for Table {
    fn players(&self) -> usize {
        self.players
    }

    fn evaluate(&mut self, queries: &[Query<'_>], utilities: &mut [f64]) -> Result<(), GameError> {
        for (query, utility) in queries.iter().zip(utilities) {
            *utility = self.utilities[query.coalition.members().map(|player| 1 << player).sum::<usize>()];
        }
        Ok(())
    }
}

pub fn plan(game: &dyn Game, design: Design, seed: u64) -> SamplingPlan {
    SamplingPlan { players: game.players(), instances: game.instances(), instances_per_sample: 1, seed, design }
}

pub fn empty_log(plan: SamplingPlan) -> SampleLog {
    SampleLog::new(LogHeader::new("test", plan)).unwrap()
}

/// Evaluates the first `samples` samples of the plan.
pub fn sample_plan(game: &mut dyn Game, plan: SamplingPlan, samples: u64) -> SampleLog {
    let evaluations = 2 * plan.instances as u64 + samples * plan.evaluations_per_sample();
    let stop = Stop { reliability: None, evaluations: Some(evaluations), ..Stop::default() };
    let settings = PlaySettings { stop, batch: 256, round: 4096, ..PlaySettings::default() };
    let mut log = empty_log(plan);
    let design = &log.plan().design;
    let finite = cokv_shapley::estimators::LeaveOneOut {};
    let any: Box<dyn Estimator> = match design {
        Design::LeaveOneOut => Box::new(finite),
        Design::Permutations { .. } => Box::new(cokv_shapley::estimators::Permutation::default()),
        _ => Box::new(Scpr::default()),
    };
    let observe = &mut |_: &_| ControlFlow::Continue(());
    play(game, &mut log, any.as_ref(), &settings, &mut |_| Ok(()), observe).unwrap();
    assert_eq!(log.len() as u64, log.plan().samples().map_or(samples, |all| all.min(samples)));
    log
}

pub fn sample(game: &mut dyn Game, design: Design, samples: u64, seed: u64) -> SampleLog {
    let plan = plan(game, design, seed);
    sample_plan(game, plan, samples)
}

#[track_caller]
pub fn assert_close(found: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len());
    for (left, right) in found.iter().zip(expected) {
        assert!((left - right).abs() <= tolerance, "{found:?} is not {expected:?}");
    }
}

/// An estimator with its default settings.
pub fn named(name: &str) -> cokv_core::Named<dyn Estimator> {
    let text = format!("estimator = '{name}'");
    let mut table = cokv_core::ConfigTable::parse("test", &text).unwrap();
    cokv_shapley::estimator(&table.take_choice("estimator").unwrap().unwrap()).unwrap()
}
