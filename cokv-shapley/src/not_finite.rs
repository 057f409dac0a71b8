//! What a game may not answer.

use cokv_core::Coalition;
use thiserror::Error;

/// A utility that is NaN or an infinity.
#[derive(Clone, Debug, Error, PartialEq)]
#[error("the utility of coalition {coalition} on instance {instance} is {utility}, which is not a finite number")]
pub struct NotFinite {
    /// Which coalition.
    pub coalition: Coalition,
    /// On which instance.
    pub instance: usize,
    /// Its utility.
    pub utility: f64,
}
