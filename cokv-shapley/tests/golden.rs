//! Games whose values are known as fractions.

mod common;

use cokv_core::{Coalition, Game};
use cokv_shapley::estimators::{Sides, Ssv};
use cokv_shapley::games::{
    Additive, Airport, Coverage, Glove, Majority, Power, Restricted, RestrictedError, Symmetric, Unanimity,
};
use cokv_shapley::{Design, Estimator, ExactError, enumeration_time, exact_shapley, exact_slices};
use common::{Table, assert_close, sample};

const WEIGHTS: [f64; 5] = [1.0, 2.0, 3.0, 4.0, 5.0];

fn fractions(text: &str) -> Vec<f64> {
    let fraction = |text: &str| match text.split_once('/') {
        Some((numerator, denominator)) => numerator.parse::<f64>().unwrap() / denominator.parse::<f64>().unwrap(),
        None => text.parse().unwrap(),
    };
    text.split_whitespace().map(fraction).collect()
}

struct Golden {
    game: Box<dyn Game>,
    shapley: &'static str,
    second_slice: &'static str,
    third_slice: &'static str,
    normalised: &'static str,
}

/// Five players of weights 1 to 5, by enumeration with rational arithmetic.
fn goldens() -> Vec<Golden> {
    let weights = || WEIGHTS.to_vec();
    vec![
        Golden {
            game: Box::new(Additive::new(weights())),
            shapley: "1/15 2/15 3/15 4/15 5/15",
            second_slice: "-2/5 -3/10 -1/5 -1/10 0",
            third_slice: "1/15 2/15 3/15 4/15 5/15",
            normalised: "0 1/4 1/2 3/4 1",
        },
        Golden {
            game: Box::new(Power { weights: weights(), exponent: 3 }),
            shapley: "49/675 19/135 46/225 178/675 43/135",
            second_slice: "-121/375 -181/750 -119/750 -29/375 0",
            third_slice: "58/1125 119/1125 181/1125 242/1125 4/15",
            normalised: "0 23/83 89/166 129/166 1",
        },
        Golden {
            game: Box::new(Majority { weights: weights(), quota: 8.0 }),
            shapley: "1/15 1/15 7/30 7/30 2/5",
            second_slice: "-1 -1 -1/2 -1/2 0",
            third_slice: "1/3 1/3 2/3 2/3 1",
            normalised: "0 0 1/2 1/2 1",
        },
        Golden {
            game: Box::new(Glove { left: 2, right: 3 }),
            shapley: "13/20 13/20 7/30 7/30 7/30",
            second_slice: "0 0 -1/2 -1/2 -1/2",
            third_slice: "1/2 1/2 1/6 1/6 1/6",
            normalised: "1 1 0 0 0",
        },
        Golden {
            game: Box::new(Coverage { sets: (0..5).map(|i| vec![i, 2 * i % 5, (i + 3) % 7]).collect(), items: 7 }),
            shapley: "5/42 4/21 11/42 11/42 1/6",
            second_slice: "-2/7 -5/28 -1/14 -1/14 -1/4",
            third_slice: "2/21 1/6 5/21 5/21 5/42",
            normalised: "0 1/2 1 1 1/3",
        },
    ]
}

#[test]
fn golden_games_have_their_values_and_slices() {
    for Golden { mut game, shapley, second_slice, third_slice, normalised } in goldens() {
        let (values, slices) = (exact_shapley(game.as_mut()).unwrap(), exact_slices(game.as_mut()).unwrap());
        let slice = |size: usize| slices.iter().map(|of_player| of_player[size - 1]).collect::<Vec<_>>();
        assert_close(&values, &fractions(shapley), 1e-14);
        assert_close(&slice(2), &fractions(second_slice), 1e-14);
        assert_close(&slice(3), &fractions(third_slice), 1e-14);
        let sliced: Vec<f64> = slices.iter().map(|of_player| of_player[..4].iter().sum::<f64>() / 4.0).collect();
        let lowest = sliced.iter().copied().fold(f64::INFINITY, f64::min);
        let highest = sliced.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let normal: Vec<f64> = sliced.iter().map(|value| (value - lowest) / (highest - lowest)).collect();
        assert_close(&normal, &fractions(normalised), 1e-13);

        // The mean over all slices is the value, and the last slice is U(N) - U(∅) for everybody.
        let means: Vec<f64> = slices.iter().map(|of_player| of_player.iter().sum::<f64>() / 5.0).collect();
        assert_close(&means, &values, 1e-14);
        assert_close(&slice(5), &[values.iter().sum::<f64>(); 5], 1e-14);
    }
}

#[test]
fn an_additive_game_has_affine_slices() {
    let slices = exact_slices(&mut Additive::new(WEIGHTS.to_vec())).unwrap();
    for (player, of_player) in slices.iter().enumerate() {
        for size in 1..=5 {
            let slope = 2.0 * (5.0 - size as f64) / 4.0;
            let offset = (2.0 * size as f64 - 6.0) / 4.0;
            assert!((of_player[size - 1] - (slope * WEIGHTS[player] / 15.0 + offset)).abs() < 1e-14);
        }
    }
}

#[test]
fn a_null_player_gets_nothing_but_may_have_slices() {
    let mut game = Majority { weights: vec![3.0, 2.0, 1.0, 0.0], quota: 4.0 };
    assert!(exact_shapley(&mut game).unwrap()[3].abs() < 1e-15);
    let slices = exact_slices(&mut game).unwrap();
    assert!(slices[3].iter().any(|slice| slice.abs() > 0.1), "{slices:?}");
}

#[test]
fn closed_forms_hold() {
    let check = |mut game: Box<dyn Game>, expected: &str| {
        assert_close(&exact_shapley(game.as_mut()).unwrap(), &fractions(expected), 1e-14);
    };
    check(Box::new(Airport { costs: vec![1.0, 2.0, 4.0, 7.0, 7.0, 10.0] }), "1/6 11/30 13/15 28/15 28/15 73/15");
    check(Box::new(Glove { left: 1, right: 2 }), "2/3 1/6 1/6");
    check(Box::new(Glove { left: 1, right: 3 }), "3/4 1/12 1/12 1/12");
    check(Box::new(Glove { left: 2, right: 2 }), "1/2 1/2 1/2 1/2");
    check(Box::new(Glove { left: 2, right: 4 }), "11/15 11/15 2/15 2/15 2/15 2/15");
    check(Box::new(Glove { left: 3, right: 4 }), "67/105 67/105 67/105 19/70 19/70 19/70 19/70");
    check(Box::new(Majority { weights: vec![3.0, 2.0, 1.0], quota: 4.0 }), "2/3 1/6 1/6");
    check(Box::new(Majority { weights: vec![50.0, 49.0, 1.0], quota: 51.0 }), "2/3 1/6 1/6");
    check(Box::new(Symmetric { by_size: vec![1.0, 5.0, 0.0, 4.0] }), "1 1 1");
    // (Σa)² gives a_i Σa.
    check(Box::new(Table::new(3, |bits| f64::from(bits as u32).powi(2))), "7 14 28");
    let mut weights = vec![1.0; 10];
    weights.extend([7.0; 5]);
    let council = exact_shapley(&mut Majority { weights, quota: 39.0 }).unwrap();
    assert_close(&council[..10], &[4.0 / 2145.0; 10], 1e-13);
    assert_close(&council[10..], &[421.0 / 2145.0; 5], 1e-13);
}

#[test]
fn unanimity_games_and_their_slices_are_read_off() {
    for mut game in [Unanimity::like_heads(9, 3), Unanimity::random(8, 4), Unanimity::new(1, vec![(2.0, vec![0])])] {
        assert_close(&exact_shapley(&mut game).unwrap(), &game.shapley(), 1e-13);
        let slices = exact_slices(&mut game).unwrap();
        for size in 1..=game.players() {
            let slice: Vec<f64> = slices.iter().map(|of_player| of_player[size - 1]).collect();
            assert_close(&game.slice(size), &slice, 1e-13);
        }
    }
}

#[test]
fn the_dual_game_has_the_same_values() {
    let game = Unanimity::random(7, 1);
    let mut primal = Table::new(7, |bits| (bits as f64).sin());
    let utilities = primal.utilities.clone();
    let mut dual = Table::new(7, |bits| utilities[127] - utilities[127 ^ bits]);
    assert_close(&exact_shapley(&mut dual).unwrap(), &exact_shapley(&mut primal).unwrap(), 1e-13);
    assert_eq!(game.players(), 7);
}

#[test]
fn the_right_side_says_what_the_left_side_says() {
    // cc_left - cc_right is the sum of all contributions, for every player: a file of one slice holds one of them twice.
    let mut game = Unanimity::like_heads(20, 5);
    let log = sample(&mut game, Design::Slices { sizes: vec![7] }, 60, 1);
    let (mut left, mut right, mut all) = (vec![0.0; 20], vec![0.0; 20], 0.0);
    for sample in log.samples() {
        let contribution = sample.utilities[0] - sample.utilities[1];
        let coalition = &log.plan().draw(sample.k).coalitions[0];
        all += contribution;
        for player in 0..20 {
            let (side, sign) = if coalition.contains(player) { (&mut left, 1.0) } else { (&mut right, -1.0) };
            side[player] += sign * contribution;
        }
    }
    let differences: Vec<f64> = left.iter().zip(&right).map(|(left, right)| left - right).collect();
    assert_close(&differences, &[all; 20], 1e-12);
}

#[test]
fn both_sides_over_all_sizes_are_the_shapley_value() {
    // Exact means per size instead of samples: D = L + R, and the value is a share of U(N) - U(∅) plus sum(D) / 2n.
    let mut game = Unanimity::random(8, 2);
    let slices = exact_slices(&mut game).unwrap();
    let values = exact_shapley(&mut game).unwrap();
    let total: f64 = values.iter().sum();
    for (player, value) in values.iter().enumerate() {
        // R of size j is the slice of size n - j.
        let both: f64 = (1..8).map(|size| slices[player][size - 1] + slices[player][8 - size - 1]).sum();
        assert!((value - total / 8.0 - both / 16.0).abs() < 1e-13);
    }
    // Identity A: the left side is the mean of the slice plus (1 - j/n) D, and D sums to 0.
    for size in 1..8 {
        let differences: Vec<f64> = slices.iter().map(|slice| slice[size - 1] + slice[8 - size - 1]).collect();
        let center = slices.iter().map(|slice| slice[size - 1]).sum::<f64>() / 8.0;
        assert!(differences.iter().sum::<f64>().abs() < 1e-12);
        for (slice, difference) in slices.iter().zip(&differences) {
            assert!((slice[size - 1] - center - (1.0 - size as f64 / 8.0) * difference).abs() < 1e-13);
        }
    }
}

#[test]
fn sliced_values_converge_to_the_enumerated_slices() {
    let mut game = Unanimity::random(8, 6);
    let slices = exact_slices(&mut game).unwrap();
    let log = sample(&mut game, Design::Slices { sizes: vec![2, 4] }, 6000, 1);
    let estimate = Ssv { sides: Sides::Left }.fit(&log).unwrap();
    for (player, slice) in slices.iter().enumerate() {
        let exact = 0.5 * (slice[1] + slice[3]);
        let error = (estimate.values[player] - exact).abs();
        assert!(error < 4.5 * estimate.standard_errors[player], "{player}: {error}");
        assert!(estimate.standard_errors[player] < 0.1);
    }
}

#[test]
fn enumeration_ends_where_it_would_take_for_ever() {
    let mut game = Glove { left: 10, right: 11 };
    let error = exact_shapley(&mut game).unwrap_err();
    assert!(matches!(error, ExactError::TooManyPlayers { players: 21, instances: 1 }));
    assert!(error.to_string().contains("take 2.097e6 evaluations"), "{error}");
    assert_eq!(enumeration_time(12, 10, 0.5).unwrap().as_secs(), 20_480);
    assert_eq!(enumeration_time(256, 10, 0.5), None);
}

#[test]
fn a_restricted_game_is_played_by_some_of_the_players() {
    let mut game = Unanimity::new(6, vec![(1.0, vec![0, 5]), (2.0, vec![1, 2]), (4.0, vec![3])]);
    let others = |members: &[usize]| Coalition::from_members(6, members.iter().copied());
    let mut restricted = Restricted::new(&mut game, vec![5, 1, 2], others(&[0, 3])).unwrap();
    assert_close(&exact_shapley(&mut restricted).unwrap(), &[1.0, 1.0, 1.0], 1e-14);
    let mut restricted = Restricted::new(&mut game, vec![5, 1], others(&[])).unwrap();
    assert_close(&exact_shapley(&mut restricted).unwrap(), &[0.0, 0.0], 1e-14);
    let error = |players: &[usize], others| {
        let mut game = Unanimity::new(6, Vec::new());
        Restricted::new(&mut game, players.to_vec(), others).err()
    };
    assert_eq!(error(&[6], others(&[])), Some(RestrictedError::NoSuchPlayer { player: 6, players: 6 }));
    assert_eq!(error(&[1, 1], others(&[])), Some(RestrictedError::Twice(1)));
    assert_eq!(error(&[1], others(&[1])), Some(RestrictedError::Twice(1)));
    assert!(matches!(error(&[1], Coalition::empty(5)), Some(RestrictedError::OtherGame { .. })));
}
