//! Values of another game as what is expected.

mod common;

use cokv_core::Game;
use cokv_shapley::estimators::{Scpr, Ssv};
use cokv_shapley::games::{Noisy, Unanimity};
use cokv_shapley::statistics::{mean, pearson, variance};
use cokv_shapley::{Design, Estimator, FitError, SampleLog};
use common::{assert_close, sample};

const PLAYERS: usize = 60;

/// A log of few pairs, and the true values.
fn played(seed: u64) -> (SampleLog, Vec<f64>) {
    let game = Unanimity::like_heads(PLAYERS, seed);
    let truth = game.shapley();
    let deviation = 0.4 * (variance(&truth) * PLAYERS as f64).sqrt();
    let mut noisy = Noisy { game, deviation, seed };
    (sample(&mut noisy, Design::middle(PLAYERS), 60, seed), truth)
}

/// Values of a game that has much in common.
fn related(truth: &[f64], seed: u64) -> Vec<f64> {
    let others = Unanimity::like_heads(PLAYERS, seed + 100).shapley();
    truth.iter().zip(others).map(|(own, other)| own + 0.3 * other).collect()
}

fn square(log: &SampleLog, expected: Option<&[f64]>, truth: &[f64]) -> f64 {
    let scpr = Scpr::default();
    let estimate = match expected {
        Some(expected) => scpr.informed(expected).unwrap().fit(log),
        None => scpr.fit(log),
    };
    pearson(&estimate.unwrap().values, truth).powi(2)
}

#[test]
fn a_related_game_helps_and_another_does_not_harm() {
    let (mut alone, mut helped, mut misled) = (Vec::new(), Vec::new(), Vec::new());
    for seed in 0..8 {
        let (log, truth) = played(seed);
        let mut unrelated = related(&truth, seed);
        unrelated.reverse();
        alone.push(square(&log, None, &truth));
        helped.push(square(&log, Some(&related(&truth, seed)), &truth));
        misled.push(square(&log, Some(&unrelated), &truth));
    }
    let (alone, helped, misled) = (mean(&alone), mean(&helped), mean(&misled));
    assert!(helped > alone + 0.1 && misled > alone - 0.01, "{alone} {helped} {misled}");
}

#[test]
fn units_and_origins_of_what_is_expected_do_not_matter() {
    let (log, truth) = played(1);
    let expected = related(&truth, 1);
    let moved: Vec<f64> = expected.iter().map(|value| 40.0 * value - 7.0).collect();
    let fit = |expected: &[f64]| Scpr::default().informed(expected).unwrap().fit(&log).unwrap();
    let estimate = fit(&expected);
    assert_close(&fit(&moved).values, &estimate.values, 1e-9);
    let total = log.ends().unwrap().mean_difference();
    assert!((estimate.values.iter().sum::<f64>() - total).abs() < 1e-12);
    // Constant values say nothing, and are not looked at.
    assert_eq!(fit(&[3.0; PLAYERS]), Scpr::default().fit(&log).unwrap());
}

#[test]
fn what_was_only_expected_is_not_reliable() {
    // Few pairs cannot tell what differs, however right what is expected may be.
    let reliability = |seed| {
        let (log, truth) = played(seed);
        Scpr::default().informed(&truth).unwrap().fit(&log).unwrap().reliability
    };
    let reliability = mean(&(0..8).map(reliability).collect::<Vec<_>>());
    assert!(reliability < 0.4, "{reliability}");
}

#[test]
fn games_of_other_players_are_refused() {
    let (log, _) = played(1);
    let error = Scpr::default().informed(&[1.0; 7]).unwrap().fit(&log).unwrap_err();
    assert_eq!(error, FitError::OtherPlayers { expected: 7, players: PLAYERS });
    assert!(Ssv::default().informed(&[1.0; PLAYERS]).is_none());
    assert_eq!(Unanimity::like_heads(PLAYERS, 1).players(), PLAYERS);
}
