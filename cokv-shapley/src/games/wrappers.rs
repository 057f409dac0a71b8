//! Games made of other games.

use cokv_core::random::mix;
use cokv_core::{Coalition, Game, GameError, Query};
use thiserror::Error;

use crate::random::{Purpose, Stream};

/// A game whose utilities are wrong by a normal error that depends on the coalition and the instance alone.
#[derive(Clone, Debug)]
pub struct Noisy<G> {
    /// Without noise.
    pub game: G,
    /// Standard deviation of the errors.
    pub deviation: f64,
    /// Seed of the errors.
    pub seed: u64,
}

impl<G: Game> Game for Noisy<G> {
    fn players(&self) -> usize {
        self.game.players()
    }

    fn instances(&self) -> usize {
        self.game.instances()
    }

    fn evaluate(&mut self, queries: &[Query<'_>], utilities: &mut [f64]) -> Result<(), GameError> {
        self.game.evaluate(queries, utilities)?;
        for (query, utility) in queries.iter().zip(utilities) {
            let start = mix(query.instance as u64);
            let name = query.coalition.members().fold(start, |name, player| mix(name ^ player as u64));
            *utility += self.deviation * Stream::new(self.seed, Purpose::Noise, name).normal();
        }
        Ok(())
    }
}

/// A game of one instance played on many: on each, the heads have effects of their own, which cancel over all of them,
/// and so does a common slope in the size of the coalition. The Shapley values stay what they were.
#[derive(Clone, Debug)]
pub struct Instances<G> {
    game: G,
    /// `[instances][players]`, columns sum to 0.
    effects: Vec<Vec<f64>>,
}

impl<G: Game> Instances<G> {
    /// On how many instances, and the standard deviation of the effect that a head has on one of them.
    pub fn new(game: G, instances: usize, deviation: f64, seed: u64) -> Self {
        let players = game.players();
        let mut effects: Vec<Vec<f64>> = (0..instances)
            .map(|instance| {
                let mut stream = Stream::new(seed, Purpose::InstanceEffects, instance as u64);
                let slope = stream.normal();
                (0..players).map(|_| deviation * (slope + stream.normal())).collect()
            })
            .collect();
        for player in 0..players {
            let center = effects.iter().map(|row| row[player]).sum::<f64>() / instances as f64;
            effects.iter_mut().for_each(|row| row[player] -= center);
        }
        Self { game, effects }
    }
}

impl<G: Game> Game for Instances<G> {
    fn players(&self) -> usize {
        self.game.players()
    }

    fn instances(&self) -> usize {
        self.effects.len()
    }

    fn evaluate(&mut self, queries: &[Query<'_>], utilities: &mut [f64]) -> Result<(), GameError> {
        let mean: Vec<Query<'_>> = queries.iter().map(|query| Query { instance: 0, ..*query }).collect();
        self.game.evaluate(&mean, utilities)?;
        for (query, utility) in queries.iter().zip(utilities) {
            let effects = self.effects.get(query.instance).ok_or("there is no such instance")?;
            *utility += query.coalition.members().map(|player| effects[player]).sum::<f64>();
        }
        Ok(())
    }
}

/// The sum of two games of the same players; the second is asked about the first one's instances.
#[derive(Clone, Debug)]
pub struct SumOf<A, B>(pub A, pub B);

impl<A: Game, B: Game> Game for SumOf<A, B> {
    fn players(&self) -> usize {
        self.0.players()
    }

    fn instances(&self) -> usize {
        self.0.instances()
    }

    fn evaluate(&mut self, queries: &[Query<'_>], utilities: &mut [f64]) -> Result<(), GameError> {
        self.0.evaluate(queries, utilities)?;
        let mut others = vec![0.0; utilities.len()];
        self.1.evaluate(queries, &mut others)?;
        utilities.iter_mut().zip(others).for_each(|(utility, other)| *utility += other);
        Ok(())
    }
}

/// A game that only some players of a bigger game play, while others always take part and the rest never do: exact
/// values of a dozen heads of a real model.
pub struct Restricted<G> {
    game: G,
    players: Vec<usize>,
    others: Coalition,
}

/// Players that a game cannot be restricted to.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum RestrictedError {
    /// The bigger game has no such player.
    #[error("player {player} cannot play: the game has players 0 to {}", players - 1)]
    NoSuchPlayer {
        /// Who.
        player: usize,
        /// Players of the bigger game.
        players: usize,
    },
    /// Listed twice, or among those who always take part.
    #[error("player {0} takes part twice: as one of the players or of those who always take part")]
    Twice(usize),
    /// The others are of another game.
    #[error("the others are a coalition of {found} players; the game has {expected}")]
    OtherGame {
        /// Players of the coalition's game.
        found: usize,
        /// Players of this game.
        expected: usize,
    },
}

impl<G: Game> Restricted<G> {
    /// Player i of the smaller game is `players[i]` of the bigger one; `others` always take part.
    pub fn new(game: G, players: Vec<usize>, others: Coalition) -> Result<Self, RestrictedError> {
        let all = game.players();
        if others.players() != all {
            return Err(RestrictedError::OtherGame { found: others.players(), expected: all });
        }
        for (place, &player) in players.iter().enumerate() {
            if player >= all {
                return Err(RestrictedError::NoSuchPlayer { player, players: all });
            }
            if others.contains(player) || players[..place].contains(&player) {
                return Err(RestrictedError::Twice(player));
            }
        }
        Ok(Self { game, players, others })
    }
}

impl<G: Game> Game for Restricted<G> {
    fn players(&self) -> usize {
        self.players.len()
    }

    fn instances(&self) -> usize {
        self.game.instances()
    }

    fn evaluate(&mut self, queries: &[Query<'_>], utilities: &mut [f64]) -> Result<(), GameError> {
        let united = |query: &Query<'_>| {
            let mut coalition = self.others.clone();
            let members = query.coalition.members().filter_map(|player| self.players.get(player));
            members.for_each(|&player| coalition.insert(player));
            coalition
        };
        let coalitions: Vec<Coalition> = queries.iter().map(united).collect();
        let queries: Vec<Query<'_>> = coalitions
            .iter()
            .zip(queries)
            .map(|(coalition, query)| Query { coalition, instance: query.instance })
            .collect();
        self.game.evaluate(&queries, utilities)
    }
}
