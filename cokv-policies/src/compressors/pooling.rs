//! Neighbours of a token that others attend to are worth something too.

use cokv_core::{ConfigError, ConfigTable};
use serde::{Deserialize, Serialize};

/// Pooling along the prompt, stride 1, the ends padded by half a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pooling {
    /// Mean; the padding counts as zeros, so that the ends are divided by the whole kernel too.
    Avg,
    /// Maximum; the padding never wins.
    Max,
    /// None.
    None,
}

impl Pooling {
    /// What it makes of the scores of a head, with an odd kernel.
    pub fn pool(self, scores: &[f32], kernel: usize) -> Vec<f32> {
        let half = kernel / 2;
        let neighbourhood = |at: usize| &scores[at.saturating_sub(half)..scores.len().min(at + half + 1)];
        match self {
            Pooling::None => scores.to_vec(),
            Pooling::Avg => (0..scores.len()).map(|at| neighbourhood(at).iter().sum::<f32>() / kernel as f32).collect(),
            Pooling::Max => (0..scores.len())
                .map(|at| neighbourhood(at).iter().copied().fold(f32::NEG_INFINITY, f32::max))
                .collect(),
        }
    }
}

/// Refuses a kernel that would move positions.
pub fn check_kernel(settings: &ConfigTable<'_>, method: &str, kernel: usize) -> Result<(), ConfigError> {
    match kernel.is_multiple_of(2) {
        true => {
            Err(settings.error(format!("{method} needs an odd kernel, so that pooling keeps positions; got {kernel}")))
        }
        false => Ok(()),
    }
}
