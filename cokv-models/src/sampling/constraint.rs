//! What an answer has to follow, token by token: a grammar, a list of words, whatever somebody can say as a mask.

use thiserror::Error;

/// What an answer has to follow. It is asked before each token and hears each that was chosen, on the thread that computes: it must not
/// take long.
pub trait Constraint: Send {
    /// Which tokens may come next, in words as of [`Mask`](super::Mask). Those that end answers are none of its affair: [`end`](Self::end)
    /// says whether they may come.
    ///
    /// # Errors
    /// Where it cannot say; the answer fails.
    fn mask(&mut self) -> Result<Vec<u32>, ConstraintError>;

    /// Hears the token that was chosen, which the last mask allowed.
    ///
    /// # Errors
    /// Where it cannot go on from there; the answer fails.
    fn push(&mut self, token: u32) -> Result<(), ConstraintError>;

    /// Whether the answer may end here.
    ///
    /// # Errors
    /// Where it cannot say; the answer fails.
    fn end(&mut self) -> Result<End, ConstraintError>;

    /// The same, from here on, for another answer.
    fn fork(&self) -> Box<dyn Constraint>;
}

/// Whether an answer may end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Something is missing.
    Not,
    /// It is whole, and may go on.
    May,
    /// It is whole, and nothing may follow.
    Must,
}

/// Why a constraint does not know what may come next: a limit that it sets itself, or a fault of its own.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("the answer cannot follow what was asked of its form any further: {0}")]
pub struct ConstraintError(pub String);
