//! Angles per position of each pair, stretched as transformers' `modeling_rope_utils.py` does.

use std::borrow::Cow;

use crate::config::{ModelConfig, RopeScaling};

/// Frequencies of a model. Those of some kinds of stretching depend on the length of the text.
pub(super) struct Frequencies {
    theta: f32,
    head_dim: usize,
    scaling: RopeScaling,
    /// Of texts no longer than the context that the model was first made for: `[head_dim / 2]`.
    usual: Vec<f32>,
    /// LongRoPE's of longer texts: `[head_dim / 2]`; empty for all other kinds.
    long: Vec<f32>,
}

impl Frequencies {
    pub fn new(config: &ModelConfig) -> Self {
        let (theta, head_dim) = (config.rope_theta, config.layout.head_dim);
        let usual = match &config.rope_scaling {
            RopeScaling::None | RopeScaling::Dynamic { .. } => {
                each(head_dim, |pair| 1.0 / period(theta, head_dim, pair))
            }
            RopeScaling::Linear { factor } => each(head_dim, |pair| 1.0 / period(theta, head_dim, pair) / factor),
            RopeScaling::Divisors(divisors) => {
                each(head_dim, |pair| 1.0 / period(theta, head_dim, pair) / divisors.get(pair).copied().unwrap_or(1.0))
            }
            RopeScaling::Llama3 { factor, low_frequency_factor, high_frequency_factor, original_context } => {
                each(head_dim, |pair| {
                    let frequency = 1.0 / period(theta, head_dim, pair);
                    let turns = original_context * frequency / (2.0 * std::f32::consts::PI);
                    // 0 where the wavelength is long (stretched), 1 where it is short (left alone).
                    let kept = (turns - low_frequency_factor) / (high_frequency_factor - low_frequency_factor);
                    let kept = kept.clamp(0.0, 1.0);
                    frequency * (kept + (1.0 - kept) / factor)
                })
            }
            RopeScaling::Yarn { factor, original_context, beta_fast, beta_slow, truncate } => {
                let (first, width) = ramp(theta, head_dim, *original_context, [*beta_fast, *beta_slow], *truncate);
                each(head_dim, |pair| {
                    let period = period(theta, head_dim, pair);
                    let stretched = ((pair as f32 - first) / width).clamp(0.0, 1.0);
                    let kept = 1.0 - stretched;
                    1.0 / (factor * period) * (1.0 - kept) + 1.0 / period * kept
                })
            }
            RopeScaling::LongRope { short, .. } => divided(theta, head_dim, short),
        };
        let long = match &config.rope_scaling {
            RopeScaling::LongRope { long, .. } => divided(theta, head_dim, long),
            _ => Vec::new(),
        };
        Self { theta, head_dim, scaling: config.rope_scaling.clone(), usual, long }
    }

    /// In a text of so many tokens: `[head_dim / 2]`.
    pub fn of(&self, length: usize) -> Cow<'_, [f32]> {
        match &self.scaling {
            RopeScaling::Dynamic { factor, original_context } if length > *original_context => {
                let (dim, factor) = (self.head_dim as f64, f64::from(*factor));
                let stretch = factor * length as f64 / *original_context as f64 - (factor - 1.0);
                let theta = f64::from(self.theta) * stretch.powf(dim / (dim - 2.0));
                Cow::Owned(each(self.head_dim, |pair| 1.0 / period(theta as f32, self.head_dim, pair)))
            }
            RopeScaling::LongRope { original_context, .. } if length > *original_context => Cow::Borrowed(&self.long),
            _ => Cow::Borrowed(&self.usual),
        }
    }
}

fn each(head_dim: usize, of_pair: impl Fn(usize) -> f32) -> Vec<f32> {
    (0..head_dim / 2).map(of_pair).collect()
}

/// Positions per radian.
fn period(theta: f32, head_dim: usize, pair: usize) -> f32 {
    theta.powf(2.0 * pair as f32 / head_dim as f32)
}

fn divided(theta: f32, head_dim: usize, divisors: &[f32]) -> Vec<f32> {
    each(head_dim, |pair| 1.0 / (divisors.get(pair).copied().unwrap_or(1.0) * period(theta, head_dim, pair)))
}

/// Where YaRN begins to stretch, and over how many pairs until it stretches fully: from the pair that turns `beta_fast`
/// times in the original context to the one that turns `beta_slow` times.
fn ramp(theta: f32, head_dim: usize, original_context: usize, betas: [f32; 2], truncate: bool) -> (f32, f32) {
    let dim = head_dim as f64;
    let [low, high] = betas.map(|turns| {
        let wavelength = original_context as f64 / (f64::from(turns) * 2.0 * std::f64::consts::PI);
        dim * wavelength.ln() / (2.0 * f64::from(theta).ln())
    });
    let (low, high) = if truncate { (low.floor(), high.ceil()) } else { (low, high) };
    let (low, high) = (low.max(0.0), high.min(dim - 1.0));
    let width = if low == high { 0.001 } else { high - low };
    (low as f32, width as f32)
}
