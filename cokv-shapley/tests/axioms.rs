//! What every value must satisfy, on random games.

mod common;

use std::ops::Range;

use cokv_shapley::estimators::{
    Banzhaf, Complementary, Exact, KernelShap, Permutation, Prior, Scpr, Sides, Ssv, SsvRidge,
};
use cokv_shapley::games::{Instances, Noisy, SumOf, Unanimity};
use cokv_shapley::statistics::{mean, pearson};
use cokv_shapley::{Design, Estimator, exact_shapley};
use common::{Table, assert_close, plan, sample, sample_plan};
use proptest::prelude::*;

fn random_game(players: Range<usize>) -> impl Strategy<Value = Table> {
    players.prop_flat_map(|players| {
        proptest::collection::vec(-1.0..1.0f64, 1 << players).prop_map(move |utilities| Table { players, utilities })
    })
}

/// The same game with its players renamed: player i becomes player (i + 1) mod n.
fn renamed(game: &Table) -> Table {
    let players = game.players;
    let all = (1 << players) - 1;
    Table::new(players, |bits| game.utilities[(bits >> 1 | bits << (players - 1)) & all])
}

proptest! {
    #[test]
    fn exact_values_satisfy_the_axioms(game in random_game(2..8), other: u64, factor in -3.0..3.0f64) {
        let players = game.players;
        let values = exact_shapley(&mut game.clone()).unwrap();

        let total = game.utilities[(1 << players) - 1] - game.utilities[0];
        prop_assert!((values.iter().sum::<f64>() - total).abs() < 1e-12);

        let mut moved = exact_shapley(&mut renamed(&game)).unwrap();
        moved.rotate_left(1);
        assert_close(&moved, &values, 1e-12);

        let second = Table::new(players, |bits| (bits as f64 + other as f64 * 1e-18).sin());
        let sum = Table::new(players, |bits| game.utilities[bits] + factor * second.utilities[bits]);
        let second = exact_shapley(&mut second.clone()).unwrap();
        let expected: Vec<f64> = values.iter().zip(second).map(|(value, other)| value + factor * other).collect();
        assert_close(&exact_shapley(&mut sum.clone()).unwrap(), &expected, 1e-12);

        // Player 0 becomes a dummy that always adds the same, then equal to player 1.
        let dummy = Table::new(players, |bits| game.utilities[bits & !1] + 0.7 * (bits & 1) as f64);
        prop_assert!((exact_shapley(&mut dummy.clone()).unwrap()[0] - 0.7).abs() < 1e-12);
        let swapped = |bits: usize| bits & !3 | (bits & 1) << 1 | bits >> 1 & 1;
        let equal = Table::new(players, |bits| game.utilities[bits] + game.utilities[swapped(bits)]);
        let equal = exact_shapley(&mut equal.clone()).unwrap();
        prop_assert!((equal[0] - equal[1]).abs() < 1e-12);
    }

    #[test]
    fn a_log_of_all_coalitions_gives_exact_values(game in random_game(2..8)) {
        let values = exact_shapley(&mut game.clone()).unwrap();
        let log = sample(&mut game.clone(), Design::Exhaustive, u64::MAX >> 20, 0);
        assert_close(&Exact {}.fit(&log).unwrap().values, &values, 1e-12);
        if log.len() >= game.players {
            assert_close(&KernelShap {}.fit(&log).unwrap().values, &values, 1e-9);
        }
        let once = (1u64 << (game.players - 1)) - 1;
        if once >= game.players as u64 {
            let log = sample(&mut game.clone(), Design::KernelWithoutReplacement, once, 7);
            assert_close(&KernelShap {}.fit(&log).unwrap().values, &values, 1e-9);
        }
        let marginals = |player: usize| {
            let without = (0..game.utilities.len()).filter(|bits| bits >> player & 1 == 0);
            mean(&without.map(|bits| game.utilities[bits | 1 << player] - game.utilities[bits]).collect::<Vec<_>>())
        };
        let banzhaf: Vec<f64> = (0..game.players).map(marginals).collect();
        assert_close(&Banzhaf {}.fit(&log).unwrap().values, &banzhaf, 1e-12);
    }

}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn regression_moves_with_the_names_of_the_players(game in random_game(5..8)) {
        for prior in [Prior::Ridge, Prior::Ard, Prior::ThirdOrder, Prior::SizeModulated, Prior::Auto] {
            let fit = |game: &Table| {
                let log = sample(&mut game.clone(), Design::Exhaustive, u64::MAX >> 20, 0);
                Scpr { prior }.fit(&log).unwrap().values
            };
            let mut moved = fit(&renamed(&game));
            moved.rotate_left(1);
            // A penalty at the flat top of its evidence is known to half the digits.
            assert_close(&moved, &fit(&game), 1e-5);
        }
    }

    #[test]
    fn paired_estimators_do_not_see_even_functions(game in random_game(3..8), seed: u64) {
        let players = game.players;
        let all = (1usize << players) - 1;
        let even = Table::new(players, |bits| game.utilities[bits] + (bits.min(all ^ bits) as f64).cos());
        let samples = 16 * players as u64;
        let estimators: [(Box<dyn Estimator>, Design); 7] = [
            (Box::new(Scpr { prior: Prior::Ridge }), Design::middle(players)),
            (Box::new(Ssv { sides: Sides::Left }), Design::authors(players)),
            (Box::new(Ssv { sides: Sides::Both }), Design::authors(players)),
            (Box::new(SsvRidge {}), Design::authors(players)),
            (Box::new(Complementary {}), Design::AllSizes),
            (Box::new(KernelShap {}), Design::AllSizes),
            (Box::new(Banzhaf {}), Design::Halves),
        ];
        for (estimator, design) in estimators {
            let fit = |game: &Table| estimator.fit(&sample(&mut game.clone(), design.clone(), samples, seed)).unwrap();
            assert_close(&fit(&even).values, &fit(&game).values, 1e-5);
        }
    }
}

/// Estimators of the Shapley value that are unbiased, or nearly so with this many samples, and their designs.
fn shapley_estimators(players: usize) -> Vec<(Box<dyn Estimator>, Design, u64)> {
    let pairs = 100 * players as u64;
    vec![
        (Box::new(Complementary {}), Design::AllSizes, pairs),
        (Box::new(KernelShap {}), Design::KernelSizes, pairs),
        (Box::new(KernelShap {}), Design::AllSizes, pairs),
        (Box::new(Permutation { antithetic: true }), Design::Permutations { antithetic: true }, 200),
        (Box::new(Permutation { antithetic: false }), Design::Permutations { antithetic: false }, 200),
        (Box::new(Ssv { sides: Sides::Both }), Design::AllSizes, pairs),
    ]
}

#[test]
fn estimates_are_unbiased_on_many_instances() {
    let players = 8;
    let game = Instances::new(Unanimity::random(players, 3), 5, 0.05, 9);
    let truth = exact_shapley(&mut game.clone()).unwrap();
    for (estimator, design, samples) in shapley_estimators(players) {
        let seeds = 24;
        let mut deviations = vec![Vec::new(); players];
        let mut scores = Vec::new();
        for seed in 0..seeds {
            let plan = plan(&game, design.clone(), seed);
            let estimate = estimator.fit(&sample_plan(&mut game.clone(), plan, samples)).unwrap();
            for player in 0..players {
                let deviation = estimate.values[player] - truth[player];
                deviations[player].push(deviation);
                scores.push((deviation / estimate.standard_errors[player]).powi(2));
            }
        }
        for (player, deviations) in deviations.iter().enumerate() {
            let center = mean(deviations);
            let spread = mean(&deviations.iter().map(|d| (d - center).powi(2)).collect::<Vec<_>>());
            let z = center / (spread / (seeds - 1) as f64).sqrt();
            assert!(z.abs() < 4.0, "{estimator:?} {design:?}: player {player} is off by {z} standard errors");
        }
        // Standard errors that are half or twice the truth would give 4 or 1/4.
        let score = mean(&scores);
        assert!((0.5..1.8).contains(&score), "{estimator:?} {design:?}: squared z is {score}");
    }
}

#[test]
fn errors_know_what_enumeration_leaves_open() {
    let game = Unanimity::random(12, 3);
    let truth = game.shapley();
    // Of 2,047 pairs.
    for samples in [60, 300, 1200] {
        let scores = (0..16).flat_map(|seed| {
            let log = sample(&mut game.clone(), Design::KernelWithoutReplacement, samples, seed);
            let estimate = KernelShap {}.fit(&log).unwrap();
            let score =
                |player: usize| ((estimate.values[player] - truth[player]) / estimate.standard_errors[player]).powi(2);
            (0..12).map(score).collect::<Vec<_>>()
        });
        let score = mean(&scores.collect::<Vec<_>>());
        assert!((0.5..1.8).contains(&score), "{samples}: squared z is {score}");
    }
}

#[test]
fn symmetric_and_null_players_are_told_within_their_errors() {
    // Players 0 and 1 are equal, player 2 does nothing.
    let game = Unanimity::new(9, vec![(1.0, vec![0, 1, 3]), (0.8, vec![4, 5]), (-0.5, vec![6, 7, 8])]);
    for (estimator, design, samples) in shapley_estimators(9) {
        let estimate = estimator.fit(&sample(&mut game.clone(), design, samples, 4)).unwrap();
        let errors = &estimate.standard_errors;
        let difference = (estimate.values[0] - estimate.values[1]).abs();
        assert!(difference < 4.0 * errors[0].hypot(errors[1]), "{estimator:?}: {difference}");
        assert!(estimate.values[2].abs() <= 4.0 * errors[2], "{estimator:?}: {:?}", estimate.values);
        assert!(pearson(&estimate.values, &game.shapley()) > 0.9, "{estimator:?}");
    }
}

#[test]
fn posterior_intervals_cover() {
    let players = 48;
    let mut covered = Vec::new();
    for seed in 0..6 {
        let game = Unanimity::like_heads(players, seed);
        let truth = game.shapley();
        let mut noisy = Noisy { game, deviation: 0.1, seed };
        let estimate = Scpr::default().fit(&sample(&mut noisy, Design::middle(players), 240, seed)).unwrap();
        // Ends have noise too, which all players share.
        let shared = mean(&estimate.values) - mean(&truth);
        covered.extend((0..players).map(|player| {
            let error = (estimate.values[player] - shared - truth[player]).abs();
            f64::from(u8::from(error <= 1.96 * estimate.standard_errors[player]))
        }));
    }
    let coverage = mean(&covered);
    assert!((0.88..=1.0).contains(&coverage), "{coverage}");
}

#[test]
fn sums_of_games_have_sums_of_values() {
    let mut game = SumOf(Unanimity::random(6, 1), Unanimity::random(6, 2));
    let expected: Vec<f64> = game.0.shapley().iter().zip(game.1.shapley()).map(|(left, right)| left + right).collect();
    assert_close(&exact_shapley(&mut game).unwrap(), &expected, 1e-13);
}
