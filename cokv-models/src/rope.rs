//! Rotary position embedding.

mod frequencies;

use cokv_core::{HeadLayout, RotaryEmbedding, RotaryPairs};

use self::frequencies::Frequencies;
use crate::config::ModelConfig;

/// Rotates queries and keys by their positions.
pub struct Rope {
    frequencies: Frequencies,
    attention_factor: f32,
    pairs: RotaryPairs,
}

/// Where a token stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Tokens before it.
    pub at: usize,
    /// Tokens of the text that it is read with, from the sequence's beginning. Where frequencies depend on a length, it is
    /// this one.
    pub within: usize,
}

impl Rope {
    /// Frequencies of a model, stretched as its configuration says.
    pub fn new(config: &ModelConfig) -> Self {
        Self {
            frequencies: Frequencies::new(config),
            attention_factor: config.rope_attention_factor,
            pairs: config.rope_pairs,
        }
    }

    /// What policies see of it in a text of so many tokens.
    pub fn embedding(&self, length: usize) -> RotaryEmbedding {
        let frequencies = self.frequencies.of(length).into_owned();
        RotaryEmbedding { frequencies, scale: self.attention_factor, pairs: self.pairs }
    }

    /// Cosines and sines of some positions.
    pub fn angles(&self, positions: &[Position]) -> Angles {
        let (mut cos, mut sin, mut half) = (Vec::new(), Vec::new(), 0);
        for together in positions.chunk_by(|a, b| a.within == b.within) {
            let frequencies = self.frequencies.of(together[0].within);
            half = frequencies.len();
            for position in together {
                for frequency in frequencies.iter() {
                    let (of_sin, of_cos) = (position.at as f32 * frequency).sin_cos();
                    sin.push(of_sin * self.attention_factor);
                    cos.push(of_cos * self.attention_factor);
                }
            }
        }
        Angles { cos, sin, pairs: self.pairs, half }
    }
}

/// Rotations of the tokens of one forward pass, with the factor by which YaRN and LongRoPE lengthen queries and keys.
pub struct Angles {
    /// `[tokens, head_dim / 2]`
    cos: Vec<f32>,
    /// `[tokens, head_dim / 2]`
    sin: Vec<f32>,
    pairs: RotaryPairs,
    half: usize,
}

impl Angles {
    /// Cosines of each token's pairs, `[tokens, head_dim / 2]`.
    pub fn cosines(&self) -> &[f32] {
        &self.cos
    }

    /// Sines, likewise.
    pub fn sines(&self) -> &[f32] {
        &self.sin
    }

    /// Which elements of a head make a pair.
    pub fn pairs(&self) -> RotaryPairs {
        self.pairs
    }

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
