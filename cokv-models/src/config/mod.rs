//! The shape of a model, from `config.json` or from GGUF metadata, and how it would be drawn from.

mod fields;
mod from_folder;
mod from_gguf;
mod generation;
mod rope;

use std::fmt::Debug;
use std::ops::RangeInclusive;
use std::path::Path;

use cokv_core::{HeadLayout, RotaryPairs};
use serde::Serialize;

pub(crate) use self::generation::Generation;
pub use crate::architecture::Architecture;
use crate::architecture::KNOWN;
use crate::error::ModelError;

/// How rotary frequencies are stretched for long contexts.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RopeScaling {
    /// Not at all.
    None,
    /// All by the same factor.
    Linear {
        /// Context length divided by the original one.
        factor: f32,
    },
    /// Llama 3.1: low frequencies by the factor, high ones not, those between smoothly.
    Llama3 {
        /// Stretch of the low frequencies.
        factor: f32,
        /// Wavelengths above `original_context / low` are stretched.
        low_frequency_factor: f32,
        /// Wavelengths below `original_context / high` are not.
        high_frequency_factor: f32,
        /// Context that the model was first trained on.
        original_context: f32,
    },
    /// All by a base that grows with the text, where it is longer than the original context (NTK-aware scaling).
    Dynamic {
        /// How fast it grows: contexts longer by this factor are what it is made for.
        factor: f32,
        /// Context that the model was first trained on.
        original_context: usize,
    },
    /// YaRN (arXiv 2309.00071): pairs that turn seldom in the original context by the factor, others less or not.
    Yarn {
        /// Stretch of the low frequencies.
        factor: f32,
        /// Context that the model was first trained on.
        original_context: usize,
        /// Pairs that turn more often than this in it are not stretched.
        beta_fast: f32,
        /// Pairs that turn less often than this are stretched fully.
        beta_slow: f32,
        /// Whether the stretch begins and ends with whole pairs.
        truncate: bool,
    },
    /// LongRoPE (arXiv 2402.13753): divisors of each frequency, `[head_dim / 2]`, others in long texts than in short ones.
    LongRope {
        /// Of texts no longer than the original context.
        short: Vec<f32>,
        /// Of longer ones.
        long: Vec<f32>,
        /// Context that the model was first trained on.
        original_context: usize,
    },
    /// Divisors of each frequency, as GGUF stores them (`rope_freqs.weight`): `[head_dim / 2]`.
    Divisors(Vec<f32>),
}

/// All numbers that the decoder needs.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    /// Which family.
    pub architecture: Architecture,
    /// Attention heads.
    pub layout: HeadLayout,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the feed-forward layer.
    pub intermediate_size: usize,
    /// Rows of the embedding table.
    pub vocabulary: usize,
    /// Positions that the model was made for, after its stretch.
    pub context_length: usize,
    /// Sliding windows of the layers that have one: tokens that each token sees, itself included. `[layers]`, or empty where
    /// all layers see everything.
    pub windows: Vec<Option<usize>>,
    /// Epsilon of all norms.
    pub norm_epsilon: f64,
    /// Base of the rotary frequencies.
    pub rope_theta: f32,
    /// Stretch of the rotary frequencies.
    pub rope_scaling: RopeScaling,
    /// What cosines and sines are multiplied with: queries and keys of a stretched model are longer than those of others.
    pub rope_attention_factor: f32,
    /// Order of rotated pairs.
    pub rope_pairs: RotaryPairs,
    /// Whether queries, keys and values have biases, so that a checkpoint without them is incomplete.
    pub attention_bias: bool,
    /// Whether the output layer is the embedding table; where the configuration does not say, the checkpoint decides.
    pub tied_embeddings: Option<bool>,
    /// Tokens that end generation.
    pub stop_tokens: Vec<u32>,
}

impl ModelConfig {
    /// Tokens of a sequence at most.
    pub fn max_tokens(&self) -> usize {
        self.context_length
    }

    /// How positions turn queries and keys, as one line of JSON that is the same wherever it is written: keys of a model whose line
    /// differs stand elsewhere.
    pub fn rope(&self) -> Result<String, ModelError> {
        #[derive(Serialize)]
        struct Rope<'a> {
            theta: f32,
            scaling: &'a RopeScaling,
            attention_factor: f32,
            pairs: RotaryPairs,
        }
        let (theta, attention_factor) = (self.rope_theta, self.rope_attention_factor);
        let rope = Rope { theta, scaling: &self.rope_scaling, attention_factor, pairs: self.rope_pairs };
        serde_json::to_string(&rope).map_err(|error| ModelError::Backend(error.to_string()))
    }

    /// The sliding window of a layer, if it has one.
    pub fn window(&self, layer: usize) -> Option<usize> {
        self.windows.get(layer).copied().flatten()
    }

    /// The linear layers of one decoder layer: names within it and `[out_features, in_features]`.
    pub fn linear_layers(&self) -> [(&'static str, [usize; 2]); 7] {
        let HeadLayout { query_heads, kv_heads, head_dim, .. } = self.layout;
        let (hidden, intermediate) = (self.hidden_size, self.intermediate_size);
        [
            ("self_attn.q_proj", [query_heads * head_dim, hidden]),
            ("self_attn.k_proj", [kv_heads * head_dim, hidden]),
            ("self_attn.v_proj", [kv_heads * head_dim, hidden]),
            ("self_attn.o_proj", [hidden, query_heads * head_dim]),
            ("mlp.gate_proj", [intermediate, hidden]),
            ("mlp.up_proj", [intermediate, hidden]),
            ("mlp.down_proj", [hidden, intermediate]),
        ]
    }

    /// Names and shapes of all tensors that a model of this shape has, as Hugging Face calls them.
    pub fn tensors(&self) -> Vec<(String, Vec<usize>)> {
        let hidden = self.hidden_size;
        let table = vec![self.vocabulary, hidden];
        let mut tensors = vec![
            ("model.embed_tokens.weight".to_owned(), table.clone()),
            ("model.norm.weight".to_owned(), vec![hidden]),
        ];
        if self.tied_embeddings != Some(true) {
            tensors.push(("lm_head.weight".to_owned(), table));
        }
        for layer in 0..self.layout.layers {
            let mut tensor = |part: &str, shape: &[usize]| {
                tensors.push((format!("model.layers.{layer}.{part}"), shape.to_vec()));
            };
            for (linear, shape) in self.linear_layers() {
                tensor(&format!("{linear}.weight"), &shape);
                let biased = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"].contains(&linear);
                if biased && self.attention_bias {
                    tensor(&format!("{linear}.bias"), &shape[..1]);
                }
            }
            for norm in ["input_layernorm", "post_attention_layernorm"] {
                tensor(&format!("{norm}.weight"), &[hidden]);
            }
            if self.architecture == Architecture::Qwen3 {
                for norm in ["self_attn.q_norm", "self_attn.k_norm"] {
                    tensor(&format!("{norm}.weight"), &[self.layout.head_dim]);
                }
            }
        }
        tensors
    }

    /// Refuses sequences beyond [`max_tokens`](Self::max_tokens).
    pub fn check_length(&self, tokens: usize) -> Result<(), ModelError> {
        let limit = self.max_tokens();
        if tokens > limit { Err(ModelError::TooLong { tokens, limit, reason: "" }) } else { Ok(()) }
    }
}

fn unknown_architecture(path: &Path, name: &str) -> ModelError {
    ModelError::unsupported(path, format!("architecture `{name}` is not implemented ({KNOWN})"))
}

fn check_head_dim(path: &Path, head_dim: usize) -> Result<(), ModelError> {
    match head_dim % 2 {
        0 => Ok(()),
        _ => Err(ModelError::unsupported(path, format!("an odd head_dim ({head_dim}) cannot be rotated in pairs"))),
    }
}

/// No width, count of heads or layers, or vocabulary is larger, so that products of two of them fit into 64 bits.
const LARGEST_SIZE: usize = 1 << 24;

/// Positions are counted in f32 where they are rotated, and in u32 where they are kept.
const LONGEST_CONTEXT: usize = u32::MAX as usize;

/// Refuses what a file states where no model can have it. NaN lies in no range.
fn sensible<T: PartialOrd + Debug>(
    path: &Path,
    key: &str,
    number: T,
    range: RangeInclusive<T>,
) -> Result<T, ModelError> {
    if range.contains(&number) {
        return Ok(number);
    }
    let (least, most) = (range.start(), range.end());
    Err(ModelError::malformed(
        path,
        format!("`{key}` is {number:?}; it lies between {least:?} and {most:?} in every model"),
    ))
}

fn size(path: &Path, key: &str, number: usize) -> Result<usize, ModelError> {
    sensible(path, key, number, 0..=LARGEST_SIZE)
}

fn context_length(path: &Path, key: &str, number: usize) -> Result<usize, ModelError> {
    sensible(path, key, number, 1..=LONGEST_CONTEXT)
}

/// A token that does not see itself sees nothing.
fn sliding_window(path: &Path, key: &str, number: usize) -> Result<usize, ModelError> {
    sensible(path, key, number, 1..=LONGEST_CONTEXT)
}

fn norm_epsilon(path: &Path, key: &str, number: f64) -> Result<f64, ModelError> {
    sensible(path, key, number, 0.0..=0.1)
}

fn rope_theta(path: &Path, key: &str, number: f64) -> Result<f32, ModelError> {
    sensible(path, key, number, 1.0..=1e30).map(|theta| theta as f32)
}
