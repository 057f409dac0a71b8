//! The Shapley value by enumeration of all coalitions.

use cokv_core::{Coalition, Game, GameError, HeadLayout, HeadScores, ImportanceEstimator, Query};
use thiserror::Error;

/// Most players that are enumerated: 2^20 coalitions are a million evaluations.
const MOST_PLAYERS: usize = 20;

/// Why a game could not be enumerated.
#[derive(Debug, Error)]
pub enum ExactError {
    /// The number of coalitions is out of reach.
    #[error("{0} players have 2^{0} coalitions; exact values are for at most {MOST_PLAYERS}")]
    TooManyPlayers(usize),
    /// The game failed.
    #[error(transparent)]
    Game(#[from] GameError),
    /// The game answered with NaN or an infinity.
    #[error("the utility of coalition {coalition} is {utility}")]
    NotFinite {
        /// Which coalition.
        coalition: Coalition,
        /// Its utility.
        utility: f64,
    },
}

/// Exact Shapley values of a game of at most 20 players.
///
/// Player i is worth the mean, over the sizes of the coalitions that it may join, of the mean utility that it adds
/// (Shapley 1953). The values sum to U(everybody) - U(nobody).
pub fn exact_shapley(game: &mut dyn Game) -> Result<Vec<f64>, ExactError> {
    let players = game.players();
    if players > MOST_PLAYERS {
        return Err(ExactError::TooManyPlayers(players));
    }
    let coalitions: Vec<Coalition> = (0..1usize << players)
        .map(|bits| Coalition::from_members(players, (0..players).filter(|player| bits >> player & 1 == 1)))
        .collect();
    let mut utilities = vec![0.0; coalitions.len()];
    for instance in 0..game.instances() {
        let queries: Vec<Query<'_>> = coalitions.iter().map(|coalition| Query { coalition, instance }).collect();
        let mut answers = vec![0.0; queries.len()];
        game.evaluate(&queries, &mut answers)?;
        utilities.iter_mut().zip(&answers).for_each(|(sum, answer)| *sum += answer / game.instances() as f64);
    }
    if let Some(at) = utilities.iter().position(|utility| !utility.is_finite()) {
        return Err(ExactError::NotFinite { coalition: coalitions[at].clone(), utility: utilities[at] });
    }
    // Weight of joining a coalition of `size`: size! (players - size - 1)! / players!.
    let mut weights = vec![1.0 / players as f64; players];
    for size in 1..players {
        weights[size] = weights[size - 1] * size as f64 / (players - size) as f64;
    }
    let value = |player: usize| {
        let without = (0..utilities.len()).filter(|bits| bits >> player & 1 == 0);
        without
            .map(|bits| weights[bits.count_ones() as usize] * (utilities[bits | 1 << player] - utilities[bits]))
            .sum()
    };
    Ok((0..players).map(value).collect())
}

/// The exact value as an estimator, for models or groupings of few heads.
#[derive(Clone, Copy, Debug)]
pub struct Exact {
    /// Heads of the model that plays.
    pub layout: HeadLayout,
}

impl ImportanceEstimator for Exact {
    fn estimate(&self, game: &mut dyn Game) -> Result<HeadScores, GameError> {
        Ok(HeadScores::new(self.layout, exact_shapley(game)?)?)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::games::{Additive, Coverage, Glove, Majority, Power};

    fn check(mut game: impl Game, expected: [(i32, i32); 5]) {
        let values = exact_shapley(&mut game).unwrap();
        for (value, (numerator, denominator)) in values.iter().zip(expected) {
            assert!((value - f64::from(numerator) / f64::from(denominator)).abs() < 1e-14, "{values:?}");
        }
    }

    /// The rational golden table of ../shared/spec/cokv-method.md 6.1: five players, weights 1 to 5.
    #[test]
    fn golden_games_have_their_values() {
        let weights = || (1..=5).map(f64::from).collect::<Vec<_>>();
        check(Additive::new(weights()), [(1, 15), (2, 15), (3, 15), (4, 15), (5, 15)]);
        check(Power { weights: weights(), exponent: 3 }, [(49, 675), (19, 135), (46, 225), (178, 675), (43, 135)]);
        check(Majority { weights: weights(), quota: 8.0 }, [(1, 15), (1, 15), (7, 30), (7, 30), (2, 5)]);
        check(Glove { left: 2, right: 3 }, [(13, 20), (13, 20), (7, 30), (7, 30), (7, 30)]);
        let sets = (0..5).map(|i| vec![i, 2 * i % 5, (i + 3) % 7]).collect();
        check(Coverage { sets, items: 7 }, [(5, 42), (4, 21), (11, 42), (11, 42), (1, 6)]);
    }

    #[test]
    fn too_many_players_are_refused() {
        let mut game = Glove { left: 10, right: 11 };
        assert!(matches!(exact_shapley(&mut game), Err(ExactError::TooManyPlayers(21))));
    }

    proptest! {
        #[test]
        fn values_are_efficient_and_null_players_get_nothing(weights in proptest::collection::vec(1u8..9, 1..8), quota in 1.0..20.0f64) {
            let mut weights: Vec<f64> = weights.into_iter().map(f64::from).collect();
            weights.push(0.0);
            let total: f64 = weights.iter().sum();
            let null = weights.len() - 1;
            let values = exact_shapley(&mut Majority { weights, quota }).unwrap();
            let grand = f64::from(u8::from(total >= quota));
            prop_assert!((values.iter().sum::<f64>() - grand).abs() < 1e-12);
            prop_assert!(values[null].abs() < 1e-15);
        }
    }
}
