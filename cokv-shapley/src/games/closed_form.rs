//! Games that are defined by a formula.

use std::collections::BTreeSet;

use cokv_core::{Coalition, Game, GameError, Query};

/// Lets a closed-form utility play.
macro_rules! closed_form {
    ($game:ty, $players:expr, $utility:expr) => {
        impl Game for $game {
            fn players(&self) -> usize {
                ($players)(self)
            }

            fn evaluate(&mut self, queries: &[Query<'_>], utilities: &mut [f64]) -> Result<(), GameError> {
                for (query, utility) in queries.iter().zip(utilities) {
                    *utility = ($utility)(self, query.coalition);
                }
                Ok(())
            }
        }
    };
}

fn weight(weights: &[f64], coalition: &Coalition) -> f64 {
    coalition.members().map(|player| weights[player]).sum()
}

/// U(S) = w(S) / w(N): everybody is worth their weight.
#[derive(Clone, Debug)]
pub struct Additive {
    weights: Vec<f64>,
}

impl Additive {
    /// A weight for each player.
    pub fn new(weights: Vec<f64>) -> Self {
        Self { weights }
    }
}

closed_form!(Additive, |game: &Additive| game.weights.len(), |game: &Additive, coalition: &Coalition| {
    weight(&game.weights, coalition) / game.weights.iter().sum::<f64>()
});

/// U(S) = (w(S) / w(N))^exponent: players help each other.
#[derive(Clone, Debug)]
pub struct Power {
    /// One per player.
    pub weights: Vec<f64>,
    /// Above 1: the more, the better together.
    pub exponent: i32,
}

closed_form!(Power, |game: &Power| game.weights.len(), |game: &Power, coalition: &Coalition| {
    (weight(&game.weights, coalition) / game.weights.iter().sum::<f64>()).powi(game.exponent)
});

/// U(S) = 1 where w(S) reaches the quota, else 0: weighted voting.
#[derive(Clone, Debug)]
pub struct Majority {
    /// One per player.
    pub weights: Vec<f64>,
    /// Weight that wins.
    pub quota: f64,
}

closed_form!(Majority, |game: &Majority| game.weights.len(), |game: &Majority, coalition: &Coalition| {
    f64::from(u8::from(weight(&game.weights, coalition) >= game.quota))
});

/// U(S) = pairs of a left and a right glove.
#[derive(Clone, Debug)]
pub struct Glove {
    /// The first players hold a left glove.
    pub left: usize,
    /// All others hold a right glove.
    pub right: usize,
}

closed_form!(Glove, |game: &Glove| game.left + game.right, |game: &Glove, coalition: &Coalition| {
    let left = coalition.members().filter(|&player| player < game.left).count();
    left.min(coalition.size() - left) as f64
});

/// U(S) = share of the items that the members' sets cover.
#[derive(Clone, Debug)]
pub struct Coverage {
    /// Items of each player.
    pub sets: Vec<Vec<usize>>,
    /// Items that there are.
    pub items: usize,
}

closed_form!(Coverage, |game: &Coverage| game.sets.len(), |game: &Coverage, coalition: &Coalition| {
    let covered: BTreeSet<usize> = coalition.members().flat_map(|player| game.sets[player].iter().copied()).collect();
    covered.len() as f64 / game.items as f64
});

/// U(S) = cost of the longest runway that a member needs: who needs a stretch shares its cost equally.
#[derive(Clone, Debug)]
pub struct Airport {
    /// Cost of each player's runway.
    pub costs: Vec<f64>,
}

closed_form!(Airport, |game: &Airport| game.costs.len(), |game: &Airport, coalition: &Coalition| {
    coalition.members().map(|player| game.costs[player]).fold(0.0, f64::max)
});

/// U(S) depends on how many take part: everybody is worth the same.
#[derive(Clone, Debug)]
pub struct Symmetric {
    /// Utility of 0, 1, … players.
    pub by_size: Vec<f64>,
}

closed_form!(Symmetric, |game: &Symmetric| game.by_size.len() - 1, |game: &Symmetric, coalition: &Coalition| {
    game.by_size[coalition.size()]
});
