//! How a model stretches its rotary embedding, from config.json or from GGUF metadata.

mod from_folder;
mod from_gguf;

use std::path::Path;

use super::{LONGEST_CONTEXT, RopeScaling, sensible};
use crate::error::ModelError;

/// A model without its stretch.
#[derive(Clone, Copy)]
pub(super) struct Unstretched {
    pub context_length: usize,
    pub head_dim: usize,
    pub theta: f32,
}

/// What a file says of it.
pub(super) struct Stretch {
    pub scaling: RopeScaling,
    /// What cosines and sines are multiplied with.
    pub attention_factor: f32,
    /// Positions that the model is good for.
    pub context_length: usize,
}

struct Yarn {
    factor: f32,
    attention_factor: f64,
    original_context: usize,
    beta_fast: f32,
    beta_slow: f32,
    truncate: bool,
}

struct LongRope {
    factor: f32,
    attention_factor: f64,
    original_context: usize,
    short: Vec<f32>,
    long: Vec<f32>,
}

/// Turns in the original context of the pairs between which YaRN begins to stretch, where nothing is said.
const BETA_FAST: f32 = 32.0;
const BETA_SLOW: f32 = 1.0;

impl Unstretched {
    fn plain(self, scaling: RopeScaling) -> Stretch {
        Stretch { scaling, attention_factor: 1.0, context_length: self.context_length }
    }

    /// The context is the one that the model was first made for.
    fn dynamic(self, path: &Path, factor: f32) -> Result<Stretch, ModelError> {
        if self.head_dim <= 2 {
            return Err(ModelError::unsupported(path, "dynamic RoPE scaling of a single pair is not implemented"));
        }
        if factor < 1.0 {
            let message = format!("`factor` is {factor}; dynamic RoPE scaling lengthens contexts by 1 or more");
            return Err(ModelError::malformed(path, message));
        }
        let scaling = RopeScaling::Dynamic { factor, original_context: self.context_length };
        Ok(Stretch { context_length: self.reach(factor, self.context_length), ..self.plain(scaling) })
    }

    fn yarn(self, path: &Path, yarn: Yarn) -> Result<Stretch, ModelError> {
        let Yarn { factor, attention_factor, original_context, beta_fast, beta_slow, truncate } = yarn;
        if beta_slow >= beta_fast {
            let message = format!("`beta_slow` is {beta_slow}; it must be below `beta_fast`, which is {beta_fast}");
            return Err(ModelError::malformed(path, message));
        }
        // The pairs between which it stretches are found by logarithms to this base.
        sensible(path, "rope_theta", self.theta, 1.001..=f32::MAX)?;
        Ok(Stretch {
            scaling: RopeScaling::Yarn { factor, original_context, beta_fast, beta_slow, truncate },
            attention_factor: rope_factor(path, "attention_factor", attention_factor)?,
            context_length: self.reach(factor, original_context),
        })
    }

    fn longrope(self, path: &Path, longrope: LongRope) -> Result<Stretch, ModelError> {
        let LongRope { factor, attention_factor, original_context, short, long } = longrope;
        Ok(Stretch {
            scaling: RopeScaling::LongRope { short, long, original_context },
            attention_factor: rope_factor(path, "attention_factor", attention_factor)?,
            context_length: self.reach(factor, original_context),
        })
    }

    /// Positions after a stretch: files state those before it as often as those after it.
    fn reach(self, factor: f32, original_context: usize) -> usize {
        let stretched = (f64::from(factor) * original_context as f64) as usize;
        self.context_length.max(stretched).min(LONGEST_CONTEXT)
    }

    /// Refuses divisors of frequencies that are not one for each pair, or that nothing can be divided by.
    fn divisors(self, path: &Path, name: &str, divisors: Vec<f32>) -> Result<Vec<f32>, ModelError> {
        let pairs = self.head_dim / 2;
        let broken = |message: String| Err(ModelError::malformed(path, format!("`{name}` {message}")));
        if divisors.len() != pairs {
            return broken(format!("has {} numbers for {pairs} pairs of dimensions", divisors.len()));
        }
        match divisors.iter().find(|divisor| !(1e-6..=1e6).contains(*divisor)) {
            Some(divisor) => broken(format!("divides a frequency by {divisor}")),
            None => Ok(divisors),
        }
    }
}

/// What stretches rotary frequencies, or where between two of them a stretch begins.
fn rope_factor(path: &Path, key: &str, number: f64) -> Result<f32, ModelError> {
    sensible(path, key, number, 1e-6..=1e6).map(|factor| factor as f32)
}

/// YaRN's lengthening of queries and keys.
fn mscale(factor: f32, scale: f64) -> f64 {
    if factor <= 1.0 { 1.0 } else { 0.1 * scale * f64::from(factor).ln() + 1.0 }
}

fn unknown(path: &Path, name: &str, known: &str) -> ModelError {
    ModelError::unsupported(path, format!("RoPE scaling `{name}` is not implemented (known: {known})"))
}
