//! How fast every estimator converges on two synthetic games whose Shapley values are known.
//!
//! ```text
//! cargo run --release -p cokv-shapley --example convergence -- 90
//! ```
//!
//! Prints, averaged over seeds, the squared correlation with the true values at some evaluations per player; the share
//! of 95 % intervals that hold the value (of the slices, for the sliced estimators) and the estimated reliability at
//! one of them; and the time of one fit.

use std::error::Error;
use std::ops::ControlFlow;
use std::time::Instant;

use cokv_core::Game;
use cokv_shapley::estimators::{Complementary, KernelShap, Permutation, Prior, Scpr, Sides, Ssv, SsvRidge};
use cokv_shapley::games::{Noisy, SumOf, Symmetric, Unanimity};
use cokv_shapley::statistics::{mean, pearson, variance};
use cokv_shapley::{Design, Estimator, LogHeader, PlaySettings, SampleLog, SamplingPlan, Stop, play};

const BUDGETS: [u64; 5] = [2, 4, 8, 16, 32];
const INTERVALS_AT: u64 = 8;
const SEEDS: u64 = 6;

fn main() -> Result<(), Box<dyn Error>> {
    let players = std::env::args().nth(1).map_or(Ok(90), |text| text.parse())?;
    for noise in [0.0, 0.7] {
        for (name, make) in
            [("head-like", Unanimity::like_heads as fn(usize, u64) -> Unanimity), ("unanimity", Unanimity::random)]
        {
            println!("\n{name}, {players} players, noise {noise}: r² at {BUDGETS:?} evaluations per player");
            for (label, estimator) in estimators() {
                let setups = (0..SEEDS).map(|seed| Setup::new(make(players, seed), noise, seed));
                println!("{label:22} {}", row(estimator.as_ref(), label.contains("left"), setups)?);
            }
        }
    }
    println!();
    for players in [90, 256, 512] {
        let estimator = Scpr::default();
        let log = sample(&mut Unanimity::like_heads(players, 1), &estimator, 4000, 1)?;
        let start = Instant::now();
        estimator.fit(&log)?;
        println!("scpr, {players} players, {} pairs: {:.2} s", log.len(), start.elapsed().as_secs_f64());
    }
    Ok(())
}

fn estimators() -> Vec<(&'static str, Box<dyn Estimator>)> {
    let scpr = |prior| Box::new(Scpr { prior }) as Box<dyn Estimator>;
    vec![
        ("scpr", scpr(Prior::Auto)),
        ("scpr, ridge", scpr(Prior::Ridge)),
        ("scpr, ard", scpr(Prior::Ard)),
        ("scpr, third-order", scpr(Prior::ThirdOrder)),
        ("scpr, size-modulated", scpr(Prior::SizeModulated)),
        ("ssv-ridge, left", Box::new(SsvRidge {})),
        ("ssv, left", Box::new(Ssv { sides: Sides::Left })),
        ("ssv, both", Box::new(Ssv { sides: Sides::Both })),
        ("complementary", Box::new(Complementary {})),
        ("kernel-shap", Box::new(KernelShap {})),
        ("permutation", Box::new(Permutation { antithetic: true })),
    ]
}

/// A game of known values on a steep size curve, with noise in units of the linear effects' spread.
struct Setup {
    game: Unanimity,
    by_size: Vec<f64>,
    deviation: f64,
    seed: u64,
}

impl Setup {
    fn new(game: Unanimity, noise: f64, seed: u64) -> Self {
        let players = game.players();
        let spread = (variance(&game.shapley()) * players as f64).sqrt();
        let curve = |size: usize| 3.0 * spread / (1.0 + (6.0 - 12.0 * size as f64 / players as f64).exp());
        Self { game, by_size: (0..=players).map(curve).collect(), deviation: noise * spread, seed }
    }

    fn play(&self) -> impl Game {
        let game = SumOf(self.game.clone(), Symmetric { by_size: self.by_size.clone() });
        Noisy { game, deviation: self.deviation, seed: self.seed }
    }

    /// What an estimator of some slices, or of the Shapley value, should say.
    fn target(&self, slices: Option<&[usize]>) -> Vec<f64> {
        let players = self.game.players();
        let Some(slices) = slices else {
            let share = (self.by_size[players] - self.by_size[0]) / players as f64;
            return self.game.shapley().into_iter().map(|value| value + share).collect();
        };
        let mut target = vec![0.0; players];
        for &size in slices {
            let offset = self.by_size[size] - self.by_size[players - size];
            for (sum, value) in target.iter_mut().zip(self.game.slice(size)) {
                *sum += (value + offset) / slices.len() as f64;
            }
        }
        target
    }
}

fn row(estimator: &dyn Estimator, sliced: bool, setups: impl Iterator<Item = Setup>) -> Result<String, Box<dyn Error>> {
    let mut squares = vec![Vec::new(); BUDGETS.len()];
    let (mut covered, mut reliability) = (Vec::new(), Vec::new());
    for setup in setups {
        let players = setup.game.players();
        let log = sample(&mut setup.play(), estimator, BUDGETS[BUDGETS.len() - 1] * players as u64, setup.seed)?;
        let target = match &log.plan().design {
            Design::Slices { sizes } if sliced => setup.target(Some(sizes)),
            _ => setup.target(None),
        };
        for (budget, squares) in BUDGETS.into_iter().zip(&mut squares) {
            let samples = budget * players as u64 / log.plan().evaluations_per_sample();
            let Ok(estimate) = estimator.fit(&log.prefix(samples as usize)) else { continue };
            squares.push(pearson(&estimate.values, &setup.game.shapley()).powi(2));
            if budget == INTERVALS_AT {
                let errors = estimate.values.iter().zip(&target).map(|(value, target)| (value - target).abs());
                let inside = errors.zip(&estimate.standard_errors).map(|(error, standard)| error <= 1.96 * standard);
                covered.extend(inside.map(|inside| f64::from(u8::from(inside))));
                reliability.push(estimate.reliability);
            }
        }
    }
    let squares: Vec<String> = squares.iter().map(|squares| format!("{:5.2}", mean(squares))).collect();
    let (covered, reliability) = (mean(&covered), mean(&reliability));
    Ok(format!("{}   at {INTERVALS_AT}: coverage {covered:.2}, reliability {reliability:.2}", squares.join(" ")))
}

fn sample(
    game: &mut dyn Game,
    estimator: &dyn Estimator,
    evaluations: u64,
    seed: u64,
) -> Result<SampleLog, Box<dyn Error>> {
    let players = game.players();
    let design = estimator.design(players);
    let plan = SamplingPlan { players, instances: 1, instances_per_sample: 1, seed, design };
    let mut log = SampleLog::new(LogHeader::new("synthetic", plan))?;
    let stop = Stop { reliability: None, evaluations: Some(evaluations + 2), ..Stop::default() };
    let settings = PlaySettings { stop, batch: 1024, round: 1 << 16, ..PlaySettings::default() };
    play(game, &mut log, estimator, &settings, &mut |_| Ok(()), &mut |_| ControlFlow::Continue(()))?;
    Ok(log)
}
