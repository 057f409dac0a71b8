//! The Shapley value by enumeration of all coalitions.

use std::time::Duration;

use cokv_core::{Coalition, Game, GameError, Query};
use thiserror::Error;

use crate::NotFinite;
use crate::design::MOST_ENUMERATED;
use crate::statistics::{Sum, mean};

/// Coalitions that are held at a time.
const BATCH: u64 = 1024;

/// Why a game could not be enumerated.
#[derive(Debug, Error)]
pub enum ExactError {
    /// The number of coalitions is out of reach.
    #[error(
        "exact values of {players} players on {instances} instances take {:.3e} evaluations; at most \
         {MOST_ENUMERATED} players are enumerated: estimate the values, or let fewer players play",
        enumeration(*players, *instances)
    )]
    TooManyPlayers {
        /// Players of the game.
        players: usize,
        /// Instances of the game.
        instances: usize,
    },
    /// The game failed.
    #[error(transparent)]
    Game(#[from] GameError),
    /// The game answered with NaN or an infinity.
    #[error(transparent)]
    NotFinite(#[from] NotFinite),
}

/// Evaluations that exact values take: all coalitions on all instances.
pub fn enumeration(players: usize, instances: usize) -> f64 {
    (players as f64).exp2() * instances as f64
}

/// How long exact values take at a measured speed; none if it is longer than a duration can be.
pub fn enumeration_time(players: usize, instances: usize, seconds_per_evaluation: f64) -> Option<Duration> {
    Duration::try_from_secs_f64(enumeration(players, instances) * seconds_per_evaluation).ok()
}

/// Exact Shapley values of a game of at most 20 players.
///
/// Player i is worth the mean, over the sizes of the coalitions that it may join, of the mean utility that it adds
/// (Shapley 1953). The values sum to U(everybody) - U(nobody).
pub fn exact_shapley(game: &mut dyn Game) -> Result<Vec<f64>, ExactError> {
    let mut sum = ShapleySum::new(game.players());
    enumerate(game, |coalition, utility| sum.add(coalition, utility))?;
    Ok(sum.values())
}

/// The exact slices of the Shapley value of a game of at most 20 players, `[players][size - 1]`: the mean of
/// U(S) - U(N∖S) over the coalitions S of a size that the player is in. Their mean over the sizes is the Shapley value,
/// and over some sizes the Sliced Shapley Value (CoKV, arXiv 2502.17501).
pub fn exact_slices(game: &mut dyn Game) -> Result<Vec<Vec<f64>>, ExactError> {
    let players = game.players();
    let mut inside = vec![vec![Sum::default(); players + 1]; players];
    let mut outside = inside.clone();
    enumerate(game, |coalition, utility| {
        let size = coalition.size();
        for player in 0..players {
            let side = if coalition.contains(player) { &mut inside } else { &mut outside };
            side[player][size].add(utility);
        }
    })?;
    // Coalitions of a size with a given player, and so their complements, which lack it.
    let mut count = 1.0;
    let mut slices = vec![Vec::with_capacity(players); players];
    for size in 1..=players {
        for player in 0..players {
            let difference = inside[player][size].total() - outside[player][players - size].total();
            slices[player].push(difference / count);
        }
        count *= (players - size) as f64 / size as f64;
    }
    Ok(slices)
}

/// Calls `visit` with every coalition and its mean utility over the instances.
fn enumerate(game: &mut dyn Game, mut visit: impl FnMut(&Coalition, f64)) -> Result<(), ExactError> {
    let (players, instances) = (game.players(), game.instances());
    if players > MOST_ENUMERATED {
        return Err(ExactError::TooManyPlayers { players, instances });
    }
    let all = 1u64 << players;
    for first in (0..all).step_by(BATCH as usize) {
        let coalitions: Vec<Coalition> = (first..all.min(first + BATCH))
            .map(|bits| Coalition::from_members(players, (0..players).filter(|player| bits >> player & 1 == 1)))
            .collect();
        let mut utilities = vec![vec![0.0; instances]; coalitions.len()];
        for instance in 0..instances {
            let queries: Vec<Query<'_>> = coalitions.iter().map(|coalition| Query { coalition, instance }).collect();
            let mut answers = vec![f64::NAN; queries.len()];
            game.evaluate(&queries, &mut answers)?;
            for ((coalition, utilities), &utility) in coalitions.iter().zip(&mut utilities).zip(&answers) {
                if !utility.is_finite() {
                    return Err(NotFinite { coalition: coalition.clone(), instance, utility }.into());
                }
                utilities[instance] = utility;
            }
        }
        coalitions.iter().zip(&utilities).for_each(|(coalition, utilities)| visit(coalition, mean(utilities)));
    }
    Ok(())
}

/// The Shapley value as a running sum over all coalitions, in any order, without a table of utilities:
/// φ_i = Σ_{S∋i} U(S) (w_{|S|-1} + w_{|S|}) - Σ_S w_{|S|} U(S), where w_s = s! (n - s - 1)! / n!.
pub(crate) struct ShapleySum {
    weights: Vec<f64>,
    joined: Vec<Sum>,
    everyone: Sum,
}

impl ShapleySum {
    pub(crate) fn new(players: usize) -> Self {
        let mut weights = vec![1.0 / players as f64; players];
        for size in 1..players {
            weights[size] = weights[size - 1] * size as f64 / (players - size) as f64;
        }
        Self { weights, joined: vec![Sum::default(); players], everyone: Sum::default() }
    }

    pub(crate) fn add(&mut self, coalition: &Coalition, utility: f64) {
        let size = coalition.size();
        let weight = self.weights.get(size).copied().unwrap_or(0.0);
        self.everyone.add(weight * utility);
        for player in coalition.members() {
            self.joined[player].add((self.weights[size - 1] + weight) * utility);
        }
    }

    pub(crate) fn values(&self) -> Vec<f64> {
        self.joined.iter().map(|joined| joined.total() - self.everyone.total()).collect()
    }
}
