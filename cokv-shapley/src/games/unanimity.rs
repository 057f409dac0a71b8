//! Sums of unanimity games: any game can be written as one, and its Shapley value is read off.

use cokv_core::{Coalition, Game, GameError, Query};

use crate::random::{Purpose, Stream};

/// U(S) = Σ c_T over the teams T that are in S as a whole.
///
/// Every member of a team gets c_T / |T|, for any number of players.
#[derive(Clone, Debug, PartialEq)]
pub struct Unanimity {
    players: usize,
    teams: Vec<(f64, Vec<usize>)>,
}

impl Unanimity {
    /// Teams with what they are worth, of distinct members below `players`. A team of nobody is a constant.
    pub fn new(players: usize, teams: Vec<(f64, Vec<usize>)>) -> Self {
        Self { players, teams }
    }

    /// Circuits that do the same: `worth` is there as soon as one of the disjoint circuits is complete.
    /// By inclusion and exclusion that is a sum over all ways to unite some of them.
    pub fn add_redundant(&mut self, worth: f64, circuits: &[Vec<usize>]) {
        for chosen in 1..1usize << circuits.len() {
            let united = circuits.iter().enumerate().filter(|(circuit, _)| chosen >> circuit & 1 == 1);
            let sign = if chosen.count_ones() % 2 == 1 { 1.0 } else { -1.0 };
            self.teams.push((sign * worth, united.flat_map(|(_, circuit)| circuit.iter().copied()).collect()));
        }
    }

    /// A game like that of attention heads: heavy-tailed effects of single heads, and circuits of one to three heads
    /// that exist two or three times, as many as there are heads, each worth less than the one before.
    pub fn like_heads(players: usize, seed: u64) -> Self {
        let mut stream = Stream::new(seed, Purpose::Weights, 0);
        let single = (0..players).map(|player| (0.5 * stream.normal().powi(3) / players as f64, vec![player]));
        let mut game = Self::new(players, single.collect());
        for circuit in 0..players {
            let length = 1 + stream.below(3);
            let copies = 2 + stream.below(2);
            let members = stream.choose(length * copies, players);
            let circuits: Vec<Vec<usize>> = members.chunks_exact(length).map(<[usize]>::to_vec).collect();
            game.add_redundant(0.3 / (2.0 + circuit as f64), &circuits);
        }
        game
    }

    /// Random teams of two to four, worth either sign.
    pub fn random(players: usize, seed: u64) -> Self {
        let mut stream = Stream::new(seed, Purpose::Weights, 1);
        let team = |stream: &mut Stream| {
            let size = 2 + stream.below(3);
            (stream.normal(), stream.choose(size, players))
        };
        Self::new(players, (0..2 * players).map(|_| team(&mut stream)).collect())
    }

    /// The Shapley values.
    pub fn shapley(&self) -> Vec<f64> {
        let mut values = vec![0.0; self.players];
        for (worth, team) in &self.teams {
            team.iter().for_each(|&player| values[player] += worth / team.len() as f64);
        }
        values
    }

    /// The slice of a size, from 1 to the number of players: the mean of U(S) - U(N∖S) over the coalitions S of that
    /// size that a player is in.
    pub fn slice(&self, size: usize) -> Vec<f64> {
        // Of `size - taken` places among `players - taken`, the next is taken, or left, with these probabilities.
        let taken = |taken: usize| size.saturating_sub(taken) as f64 / (self.players - taken) as f64;
        let left = |left: usize| {
            (self.players - size).saturating_sub(left) as f64 / (self.players - 1).saturating_sub(left).max(1) as f64
        };
        let mut values = vec![0.0; self.players];
        for (worth, team) in &self.teams {
            let inside: f64 = (1..team.len()).map(taken).product();
            let outside = |team: &[usize]| {
                (1..=team.len()).map(taken).product::<f64>() - (0..team.len()).map(left).product::<f64>()
            };
            for (player, value) in values.iter_mut().enumerate() {
                *value += worth * if team.contains(&player) { inside } else { outside(team) };
            }
        }
        values
    }

    fn utility(&self, coalition: &Coalition) -> f64 {
        let complete = |team: &[usize]| team.iter().all(|&player| coalition.contains(player));
        self.teams.iter().filter(|(_, team)| complete(team)).map(|(worth, _)| worth).sum()
    }
}

impl Game for Unanimity {
    fn players(&self) -> usize {
        self.players
    }

    fn evaluate(&mut self, queries: &[Query<'_>], utilities: &mut [f64]) -> Result<(), GameError> {
        for (query, utility) in queries.iter().zip(utilities) {
            *utility = self.utility(query.coalition);
        }
        Ok(())
    }
}
