//! Rotary position embedding.

use cokv_core::{HeadLayout, RotaryEmbedding, RotaryPairs};

use crate::config::{ModelConfig, RopeScaling};

/// Rotates queries and keys by their positions.
pub struct Rope {
    /// Angle per position of each pair: `[head_dim / 2]`.
    frequencies: Vec<f32>,
    pairs: RotaryPairs,
}

impl Rope {
    /// Frequencies of a model, stretched as its configuration says.
    pub fn new(config: &ModelConfig) -> Self {
        let head_dim = config.layout.head_dim;
        let base = |pair: usize| 1.0 / config.rope_theta.powf(2.0 * pair as f32 / head_dim as f32);
        let frequencies = (0..head_dim / 2).map(|pair| match &config.rope_scaling {
            RopeScaling::None => base(pair),
            RopeScaling::Linear { factor } => base(pair) / factor,
            RopeScaling::Divisors(divisors) => base(pair) / divisors.get(pair).copied().unwrap_or(1.0),
            RopeScaling::Llama3 { factor, low_frequency_factor, high_frequency_factor, original_context } => {
                let frequency = base(pair);
                let turns = original_context * frequency / (2.0 * std::f32::consts::PI);
                // 0 where the wavelength is long (stretched), 1 where it is short (left alone).
                let kept = (turns - low_frequency_factor) / (high_frequency_factor - low_frequency_factor);
                let kept = kept.clamp(0.0, 1.0);
                frequency * (kept + (1.0 - kept) / factor)
            }
        });
        Self { frequencies: frequencies.collect(), pairs: config.rope_pairs }
    }

    /// What policies see of it.
    pub fn embedding(&self) -> RotaryEmbedding {
        RotaryEmbedding { frequencies: self.frequencies.clone(), pairs: self.pairs }
    }

    /// Cosines and sines of some positions.
    pub fn angles(&self, positions: &[usize]) -> Angles {
        let angles = positions.iter().flat_map(|&p| self.frequencies.iter().map(move |f| (p as f32 * f).sin_cos()));
        let (sin, cos) = angles.unzip();
        Angles { cos, sin, pairs: self.pairs, half: self.frequencies.len() }
    }
}

/// Rotations of the tokens of one forward pass.
pub struct Angles {
    /// `[tokens, head_dim / 2]`
    cos: Vec<f32>,
    /// `[tokens, head_dim / 2]`
    sin: Vec<f32>,
    pairs: RotaryPairs,
    half: usize,
}

impl Angles {
    /// Cosine and sine of a token's pair.
    pub(crate) fn of(&self, token: usize, pair: usize) -> (f32, f32) {
        (self.cos[token * self.half + pair], self.sin[token * self.half + pair])
    }

    /// The two elements of a head that make a pair.
    pub(crate) fn elements(&self, pair: usize) -> (usize, usize) {
        match self.pairs {
            RotaryPairs::Halves => (pair, pair + self.half),
            RotaryPairs::Neighbours => (2 * pair, 2 * pair + 1),
        }
    }

    /// Rotates `[tokens, heads, head_dim]` in place.
    pub fn rotate(&self, vectors: &mut [f32], layout: HeadLayout, heads: usize) {
        let tokens = vectors.chunks_exact_mut(heads * layout.head_dim);
        for ((token, cos), sin) in tokens.zip(self.cos.chunks_exact(self.half)).zip(self.sin.chunks_exact(self.half)) {
            for head in token.chunks_exact_mut(layout.head_dim) {
                match self.pairs {
                    RotaryPairs::Halves => {
                        let (first, second) = head.split_at_mut(self.half);
                        for (((a, b), cos), sin) in first.iter_mut().zip(second).zip(cos).zip(sin) {
                            (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
                        }
                    }
                    RotaryPairs::Neighbours => {
                        for ((pair, cos), sin) in head.chunks_exact_mut(2).zip(cos).zip(sin) {
                            (pair[0], pair[1]) = (pair[0] * cos - pair[1] * sin, pair[1] * cos + pair[0] * sin);
                        }
                    }
                }
            }
        }
    }
}
