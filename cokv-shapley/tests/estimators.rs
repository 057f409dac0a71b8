//! How good the estimators are.

mod common;

use cokv_core::{Game, GameError, Query};
use cokv_shapley::diagnostics::split_half;
use cokv_shapley::estimators::{
    Complementary, KernelShap, LeaveOneOut, Permutation, Prior, Scpr, Sides, Ssv, SsvRidge,
};
use cokv_shapley::games::{Additive, Instances, Noisy, SumOf, Symmetric, Unanimity};
use cokv_shapley::statistics::{mean, pearson, variance};
use cokv_shapley::{Design, Estimator, FitError, NAMES, SampleLog, exact_slices, interactions};
use common::{assert_close, empty_log, plan, sample, sample_plan};

fn additive(players: usize) -> Additive {
    Additive::new((0..players).map(|player| 1.0 + (player as f64 * 1.7).sin().powi(3)).collect())
}

fn weights(players: usize) -> Vec<f64> {
    let weights: Vec<f64> = (0..players).map(|player| 1.0 + (player as f64 * 1.7).sin().powi(3)).collect();
    let total: f64 = weights.iter().sum();
    weights.into_iter().map(|weight| weight / total).collect()
}

#[test]
fn regression_is_exact_on_additive_games_from_few_pairs() {
    for players in [5, 16, 40] {
        let truth = weights(players);
        let pairs = players as u64 + 10;
        for prior in [Prior::Ridge, Prior::Ard, Prior::Auto] {
            let log = sample(&mut additive(players), Design::middle(players), pairs, 3);
            let estimate = Scpr { prior }.fit(&log).unwrap();
            assert_close(&estimate.values, &truth, 1e-7);
            assert!(estimate.reliability > 0.999, "{}", estimate.reliability);
        }
        let log = sample(&mut additive(players), Design::KernelSizes, 2 * pairs, 3);
        assert_close(&KernelShap {}.fit(&log).unwrap().values, &truth, 1e-9);
        let log = sample(&mut additive(players), Design::Permutations { antithetic: true }, 4, 3);
        assert_close(&Permutation::default().fit(&log).unwrap().values, &truth, 1e-12);
        let log = sample(&mut additive(players), Design::LeaveOneOut, players as u64, 3);
        assert_close(&LeaveOneOut {}.fit(&log).unwrap().values, &truth, 1e-12);
    }
}

#[test]
fn twice_as_many_features_need_twice_as_many_pairs() {
    let log = sample(&mut additive(16), Design::middle(16), 60, 3);
    let estimate = Scpr { prior: Prior::SizeModulated }.fit(&log).unwrap();
    assert_close(&estimate.values, &weights(16), 1e-7);
}

#[test]
fn the_sliced_value_cannot_see_an_additive_game_as_clearly() {
    // Reliability of difference in means is at most m / (m + n), here 26/42 or so; regression is exact.
    let log = sample(&mut additive(16), Design::Slices { sizes: vec![8] }, 26, 3);
    let truth = weights(16);
    let square = |estimator: &dyn Estimator| pearson(&estimator.fit(&log).unwrap().values, &truth).powi(2);
    assert!(square(&Ssv::default()) < 0.85, "{}", square(&Ssv::default()));
    assert!(square(&SsvRidge {}) > 1.0 - 1e-9, "{}", square(&SsvRidge {}));
}

#[test]
fn regression_per_slice_is_the_sliced_value_in_the_limit() {
    let mut game = Unanimity::random(10, 2);
    let slices = exact_slices(&mut game).unwrap();
    let expected: Vec<f64> = slices.iter().map(|slice| 0.5 * (slice[1] + slice[4])).collect();
    let log = sample(&mut game, Design::Slices { sizes: vec![2, 5] }, 8000, 5);
    for estimator in [&Ssv::default() as &dyn Estimator, &SsvRidge {}] {
        let estimate = estimator.fit(&log).unwrap();
        for (player, value) in estimate.values.iter().enumerate() {
            let error = estimate.standard_errors[player];
            assert!((value - expected[player]).abs() < 4.0 * error && error < 0.1, "{}: {player}", estimator.name());
        }
    }
}

#[test]
fn a_curve_in_the_size_does_not_disturb_regression() {
    let players = 40;
    let steep = (0..=players).map(|size| 1.0 / (1.0 + (8.0 - 0.4 * size as f64).exp())).collect();
    let mut game = SumOf(additive(players), Symmetric { by_size: steep });
    let log = sample(&mut game, Design::middle(players), 160, 1);
    let estimate = Scpr::default().fit(&log).unwrap();
    let correlation = pearson(&estimate.values, &weights(players));
    assert!(correlation > 0.95, "{correlation}");
    // Efficient: the values share out U(N) - U(∅).
    let total = log.ends().unwrap().mean_difference();
    assert!((estimate.values.iter().sum::<f64>() - total).abs() < 1e-12);
}

/// An additive game whose first players do more together the larger the coalition: s_a s_b c for each two of `together`.
struct Together {
    additive: Additive,
    together: usize,
}

impl Together {
    /// Of each two, as much as a quarter of the strongest player's effect.
    const WORTH: f64 = 0.02;

    fn shapley(&self) -> Vec<f64> {
        let players = self.additive.players() as f64;
        let couples = (self.together * (self.together - 1) / 2) as f64;
        let value = |(player, weight): (usize, f64)| {
            let others = if player < self.together { self.together - 1 } else { 0 } as f64;
            weight + Self::WORTH * (couples / (3.0 * players) + others / 3.0)
        };
        weights(self.additive.players()).into_iter().enumerate().map(value).collect()
    }
}

impl Game for Together {
    fn players(&self) -> usize {
        self.additive.players()
    }

    fn evaluate(&mut self, queries: &[Query<'_>], utilities: &mut [f64]) -> Result<(), GameError> {
        self.additive.evaluate(queries, utilities)?;
        for (query, utility) in queries.iter().zip(utilities) {
            let size = 2.0 * query.coalition.size() as f64 / self.players() as f64 - 1.0;
            let sum: f64 =
                (0..self.together).map(|player| if query.coalition.contains(player) { 1.0 } else { -1.0 }).sum();
            *utility += 0.25 * Self::WORTH * (sum * sum - self.together as f64) * size;
        }
        Ok(())
    }
}

#[test]
fn what_strong_players_do_together_is_read_where_it_is_there() {
    let players = 30;
    let strong = (0..players).map(|player| if player < 5 { 8.0 - player as f64 } else { 0.3 + 0.01 * player as f64 });
    let strong: Vec<f64> = strong.collect();
    let total: f64 = strong.iter().sum();
    let mut game = Together { additive: Additive::new(strong.clone()), together: 5 };
    let truth: Vec<f64> = game
        .shapley()
        .iter()
        .zip(weights(players))
        .zip(&strong)
        .map(|((value, weight), strong)| value - weight + strong / total)
        .collect();
    let log = sample(&mut game, Design::middle(players), 200, 1);
    let error = |prior| {
        let values = Scpr { prior }.fit(&log).unwrap().values;
        assert!((values.iter().sum::<f64>() - log.ends().unwrap().mean_difference()).abs() < 1e-12);
        values.iter().zip(&truth).map(|(value, truth)| (value - truth).abs()).fold(0.0, f64::max)
    };
    let (auto, blind) = (error(Prior::Auto), error(Prior::Ard));
    assert!(auto < 1e-4 && blind > 1e-3, "{auto} {blind}");
}

#[test]
fn where_nothing_is_done_together_nothing_is_read() {
    for seed in 0..4 {
        let mut game = Noisy { game: additive(40), deviation: 0.1, seed };
        let log = sample(&mut game, Design::middle(40), 200, seed);
        let values = |prior| Scpr { prior }.fit(&log).unwrap().values;
        let auto = values(Prior::Auto);
        assert!(auto == values(Prior::Ard) || auto == values(Prior::Ridge), "{seed}");
        // Terms that are asked for, whatever the evidence, are shrunk away.
        assert!(pearson(&values(Prior::ThirdOrder), &auto) > 0.99, "{seed}");
    }
}

/// The head-like game on a steep size curve, with noise of the size of the linear effects' share.
fn head_game(players: usize, seed: u64) -> (impl Game, Vec<f64>) {
    let game = Unanimity::like_heads(players, seed);
    let truth = game.shapley();
    let scale = (variance(&truth) * players as f64).sqrt();
    let curve = |size: usize| 3.0 * scale / (1.0 + (6.0 - 12.0 * size as f64 / players as f64).exp());
    let by_size = (0..=players).map(curve).collect();
    (Noisy { game: SumOf(game, Symmetric { by_size }), deviation: 0.5 * scale, seed }, truth)
}

/// Evaluations until the squared correlation with the truth has reached 0.9.
fn evaluations_to_know(estimator: &dyn Estimator, log: &SampleLog, truth: &[f64]) -> Option<u64> {
    let prefixes = (1..).map(|step| 60 * step).take_while(|&count| count <= log.len());
    let logs = prefixes.map(|count| log.prefix(count));
    let known =
        |log: &SampleLog| estimator.fit(log).is_ok_and(|estimate| pearson(&estimate.values, truth).powi(2) >= 0.9);
    logs.into_iter().find(known).map(|log| log.evaluations())
}

#[test]
fn regression_needs_half_of_the_evaluations_of_the_sliced_value() {
    let players = 60;
    let (mut ours, mut theirs) = (0, 0);
    for seed in 0..3 {
        let (mut game, truth) = head_game(players, seed);
        let (scpr, ssv) = (Scpr::default(), Ssv::default());
        let log = sample(&mut game, scpr.design(players), 3000, seed);
        ours += evaluations_to_know(&scpr, &log, &truth).unwrap();
        let log = sample(&mut game, ssv.design(players), 6000, seed);
        theirs += evaluations_to_know(&ssv, &log, &truth).unwrap_or(12_000);
    }
    assert!(2 * ours <= theirs, "{ours} against {theirs}");
}

#[test]
fn estimated_reliability_is_the_squared_correlation() {
    let players = 48;
    for (estimator, pairs) in [
        (Box::new(Scpr::default()) as Box<dyn Estimator>, 150),
        (Box::new(Scpr::default()), 600),
        (Box::new(Ssv { sides: Sides::Both }), 600),
        (Box::new(SsvRidge {}), 400),
    ] {
        let (mut estimated, mut true_squares) = (Vec::new(), Vec::new());
        for seed in 0..6 {
            let (mut game, truth) = head_game(players, seed);
            let estimate = estimator.fit(&sample(&mut game, estimator.design(players), pairs, seed)).unwrap();
            estimated.push(estimate.reliability);
            true_squares.push(pearson(&estimate.values, &truth).powi(2));
        }
        let (estimated, actual) = (mean(&estimated), mean(&true_squares));
        assert!((estimated - actual).abs() < 0.1, "{estimator:?} {pairs}: {estimated} is not {actual}");
    }
}

#[test]
fn one_instance_per_sample_is_enough() {
    let players = 30;
    let game = Instances::new(Unanimity::like_heads(players, 2), 12, 0.01, 5);
    let truth = Unanimity::like_heads(players, 2).shapley();
    let correlation = |instances_per_sample: usize, samples: u64| {
        let plan = cokv_shapley::SamplingPlan { instances_per_sample, ..plan(&game, Design::middle(players), 3) };
        let log = sample_plan(&mut game.clone(), plan, samples);
        pearson(&Scpr::default().fit(&log).unwrap().values, &truth)
    };
    // Equal evaluations: 720 pairs on one instance each, 240 on three, 60 on all twelve.
    let (one, three, all) = (correlation(1, 720), correlation(3, 240), correlation(12, 60));
    assert!(one > 0.95 && three > 0.95 && one > all, "{one} {three} {all}");
}

#[test]
fn pure_noise_and_dead_games_are_not_reliable() {
    // Many players: the noise of a coalition is always the same, so that few coalitions are a game of their own.
    for players in [40, 60] {
        for seed in 0..4 {
            let by_size = vec![0.0; players + 1];
            let dead = Symmetric { by_size };
            for name in NAMES {
                let estimator = common::named(name);
                let design = estimator.design(players);
                if matches!(design, Design::LeaveOneOut | Design::Exhaustive) {
                    continue;
                }
                let samples = if design.is_paired() { 8 * players as u64 } else { 8 };
                let mut noise = Noisy { game: dead.clone(), deviation: 1.0, seed };
                let estimate = estimator.fit(&sample(&mut noise, design.clone(), samples, seed)).unwrap();
                assert!(estimate.reliability < 0.7, "{name} {players} {seed}: {}", estimate.reliability);
                let estimate = estimator.fit(&sample(&mut dead.clone(), design, samples, seed)).unwrap();
                assert_eq!(estimate.reliability, 0.0, "{name}");
                assert_close(&estimate.values, &vec![0.0; players], 1e-12);
            }
        }
    }
}

#[test]
fn logs_that_cannot_be_fitted_say_what_they_lack() {
    let mut game = additive(12);
    for name in NAMES {
        let estimator = common::named(name);
        let design = estimator.design(12);
        let fresh = estimator.fit(&empty_log(plan(&game, design.clone(), 1))).unwrap_err();
        assert!(matches!(fresh, FitError::TooFewSamples { found: 0, needed, .. } if needed > 0), "{name}: {fresh}");
        let other = if design.is_paired() { Design::LeaveOneOut } else { Design::Halves };
        let wrong = estimator.fit(&sample(&mut game, other, 12, 1)).unwrap_err();
        assert!(matches!(wrong, FitError::Design { .. }), "{name}: {wrong}");
    }
    let log = sample(&mut game, Design::Halves, 20, 1);
    let message = KernelShap {}.fit(&log).unwrap_err().to_string();
    assert!(
        message.contains("of the design `halves`; it needs pairs of all sizes: `kernel-without-replacement`"),
        "{message}"
    );

    let mut without_ends = empty_log(log.plan().clone());
    log.samples().for_each(|sample| assert!(without_ends.insert(sample.clone()).is_ok()));
    assert_eq!(Scpr::default().fit(&without_ends).unwrap_err(), FitError::NoEnds("scpr"));
}

#[test]
fn merged_logs_fit_like_the_whole() {
    let (mut game, _) = head_game(24, 1);
    for (estimator, design) in [
        (Box::new(Scpr::default()) as Box<dyn Estimator>, Design::middle(24)),
        (Box::new(Ssv::default()), Design::authors(24)),
        (Box::new(SsvRidge {}), Design::authors(24)),
        (Box::new(Complementary {}), Design::AllSizes),
        (Box::new(KernelShap {}), Design::KernelSizes),
        (Box::new(KernelShap {}), Design::KernelWithoutReplacement),
    ] {
        let whole = sample(&mut game, design, 120, 1);
        let (first, second) = whole.halves();
        let mut merged = second;
        merged.merge(first).unwrap();
        assert_eq!(merged, whole);
        assert_eq!(estimator.fit(&merged).unwrap(), estimator.fit(&whole).unwrap());
    }
}

#[test]
fn halves_agree_where_there_is_signal() {
    let (mut game, _) = head_game(30, 1);
    let log = sample(&mut game, Design::middle(30), 1200, 1);
    let halves = split_half(&log, &Scpr::default()).unwrap();
    assert!(halves.spearman > 0.6 && halves.pearson > 0.9 && halves.allocation_distance < 0.2, "{halves:?}");
    // The authors' rule passes on noise, as long as it is small: it is not scale-free.
    let mut noise = Noisy { game: Symmetric { by_size: vec![0.0; 31] }, deviation: 0.02, seed: 1 };
    let log = sample(&mut noise, Design::authors(30), 60, 1);
    let halves = split_half(&log, &Ssv::default()).unwrap();
    assert!(halves.two_run_mae < 1.0 / 30.0 && halves.pearson < 0.5, "{halves:?}");
}

#[test]
fn interactions_have_their_sign_and_size() {
    let single = (0..20).map(|player| (if player < 14 { 0.3 } else { 0.6 } + 0.02 * player as f64, vec![player]));
    let teams = single.chain([(0.8, vec![19, 18]), (-0.6, vec![17, 16])]).collect();
    let mut game = Noisy { game: Instances::new(Unanimity::new(20, teams), 6, 0.05, 1), deviation: 0.05, seed: 3 };
    let log = sample(&mut game, Design::middle(20), 900, 2);
    let values = Scpr::default().fit(&log).unwrap().values;
    let found = interactions(&log, &values, 14).unwrap();
    assert_eq!(found.len(), 91);
    let (synergy, substitutes) = (found[0], found[1]);
    assert_eq!((synergy.first, synergy.second), (18, 19));
    assert!((synergy.effect - 0.8).abs() < 0.1 && synergy.t > 10.0, "{synergy:?}");
    assert_eq!((substitutes.first, substitutes.second), (16, 17));
    assert!((substitutes.effect + 0.6).abs() < 0.1 && substitutes.t < -10.0, "{substitutes:?}");
    assert!(found[2..].iter().all(|other| other.t.abs() < 4.5), "{:?}", found[2]);
    let few = log.prefix(100);
    assert!(matches!(interactions(&few, &values, 14), Err(FitError::TooFewSamples { needed: 146, .. })));
    assert_eq!(interactions(&log, &values, 1).unwrap(), []);
}
