//! The cooperative game whose players are KV heads.

use std::error::Error;

use crate::Coalition;

/// Whatever stopped a game or an estimator.
pub type GameError = Box<dyn Error + Send + Sync>;

/// One question to a game: what does this coalition achieve on this instance?
#[derive(Clone, Copy, Debug)]
pub struct Query<'a> {
    /// The heads that keep the whole prompt.
    pub coalition: &'a Coalition,
    /// A validation record, below [`Game::instances`].
    pub instance: usize,
}

/// A cooperative game. The utility of a coalition is the mean of its utilities over the instances.
///
/// Queries come in batches because that is where the speed is: a model answers many coalitions of one record in one
/// forward pass.
///
/// ```
/// use cokv_core::{Coalition, Game, GameError, Query};
///
/// /// A pair of gloves is worth 1, whoever of the others is there.
/// struct Gloves;
///
/// impl Game for Gloves {
///     fn players(&self) -> usize {
///         3
///     }
///
///     fn evaluate(&mut self, queries: &[Query<'_>], utilities: &mut [f64]) -> Result<(), GameError> {
///         for (query, utility) in queries.iter().zip(utilities) {
///             let has = |player| query.coalition.contains(player);
///             *utility = if has(0) && (has(1) || has(2)) { 1.0 } else { 0.0 };
///         }
///         Ok(())
///     }
/// }
///
/// let coalitions = [vec![0, 2], vec![1, 2]].map(|members| Coalition::from_members(3, members));
/// let queries = coalitions.each_ref().map(|coalition| Query { coalition, instance: 0 });
/// let mut utilities = [0.0; 2];
/// Gloves.evaluate(&queries, &mut utilities).unwrap();
/// assert_eq!(utilities, [1.0, 0.0]);
/// ```
pub trait Game {
    /// Number of players: KV heads of the model.
    fn players(&self) -> usize;

    /// Number of instances; a game without records has one.
    fn instances(&self) -> usize {
        1
    }

    /// Writes the utility of every query to the same place of `utilities`, which has the length of `queries`.
    fn evaluate(&mut self, queries: &[Query<'_>], utilities: &mut [f64]) -> Result<(), GameError>;
}

impl<G: Game + ?Sized> Game for &mut G {
    fn players(&self) -> usize {
        (**self).players()
    }

    fn instances(&self) -> usize {
        (**self).instances()
    }

    fn evaluate(&mut self, queries: &[Query<'_>], utilities: &mut [f64]) -> Result<(), GameError> {
        (**self).evaluate(queries, utilities)
    }
}
