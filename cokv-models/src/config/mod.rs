//! The shape of a model, from `config.json` or from GGUF metadata.

use std::path::Path;

use cokv_core::{HeadLayout, RotaryPairs};
use serde::Deserialize;
use serde_json::Value as Json;

use crate::error::ModelError;
use crate::weights::Gguf;

/// Model families that the decoder computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Architecture {
    /// Llama 2, 3, 3.1+ and those made like it (SmolLM2).
    Llama,
    /// Mistral 0.2 and later.
    Mistral,
    /// Qwen2 and 2.5: biases on queries, keys and values.
    Qwen2,
    /// Qwen3: queries and keys are normalised.
    Qwen3,
}

/// How rotary frequencies are stretched for long contexts.
#[derive(Clone, Debug, PartialEq)]
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
    /// Positions that the model was made for.
    pub context_length: usize,
    /// Tokens that a layer attends to, where that is fewer than the context. The decoder attends to everything, which is
    /// the same up to this length: longer sequences are refused.
    pub sliding_window: Option<usize>,
    /// Epsilon of all norms.
    pub norm_epsilon: f64,
    /// Base of the rotary frequencies.
    pub rope_theta: f32,
    /// Stretch of the rotary frequencies.
    pub rope_scaling: RopeScaling,
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
    /// Tokens of a sequence that the decoder computes exactly.
    pub fn max_tokens(&self) -> usize {
        self.sliding_window.unwrap_or(usize::MAX).min(self.context_length)
    }

    /// Refuses sequences beyond [`max_tokens`](Self::max_tokens).
    pub fn check_length(&self, tokens: usize) -> Result<(), ModelError> {
        let limit = self.max_tokens();
        let reason = match self.sliding_window {
            Some(window) if window < self.context_length => {
                " without leaving its sliding window, which this decoder does not implement"
            }
            _ => "",
        };
        if tokens > limit { Err(ModelError::TooLong { tokens, limit, reason }) } else { Ok(()) }
    }

    /// Reads `config.json` of a Hugging Face folder, and the stop tokens of `generation_config.json` beside it.
    pub fn from_folder(folder: &Path) -> Result<Self, ModelError> {
        let path = folder.join("config.json");
        let text = std::fs::read_to_string(&path).map_err(ModelError::io(&path))?;
        let json: Json = serde_json::from_str(&text).map_err(|error| ModelError::malformed(&path, error))?;
        let architecture = match json["model_type"].as_str() {
            Some("llama") => Architecture::Llama,
            Some("mistral") => Architecture::Mistral,
            Some("qwen2") => Architecture::Qwen2,
            Some("qwen3") => Architecture::Qwen3,
            other => return Err(unknown_architecture(&path, other.unwrap_or_default())),
        };
        if let Some(method) = json["quantization_config"]["quant_method"].as_str() {
            let message =
                format!("weights quantised by `{method}` are not implemented; use a GGUF file or the original weights");
            return Err(ModelError::unsupported(&path, message));
        }
        if let Some(factor) = json["partial_rotary_factor"].as_f64().filter(|factor| *factor != 1.0) {
            let message =
                format!("rotating only a part of each head (partial_rotary_factor {factor}) is not implemented");
            return Err(ModelError::unsupported(&path, message));
        }
        let raw: HuggingFaceConfig =
            serde_json::from_value(json).map_err(|error| ModelError::malformed(&path, error))?;
        if let Some(activation) = raw.hidden_act.as_deref().filter(|name| *name != "silu") {
            let message = format!("activation `{activation}` is not implemented (known: silu)");
            return Err(ModelError::unsupported(&path, message));
        }
        let kv_heads = raw.num_key_value_heads.unwrap_or(raw.num_attention_heads);
        let head_dim = raw.head_dim.unwrap_or(raw.hidden_size / raw.num_attention_heads.max(1));
        let layout = HeadLayout::new(raw.num_hidden_layers, raw.num_attention_heads, kv_heads, head_dim)?;
        check_head_dim(&path, head_dim)?;
        let rope = raw.rope_parameters.or(raw.rope_scaling).unwrap_or_default();
        // Qwen names a window and uses it only where a flag says so.
        let uses_window = raw.use_sliding_window.unwrap_or(architecture == Architecture::Mistral);
        let sliding = raw.sliding_window.filter(|_| uses_window);
        let mut stop_tokens = token_ids(raw.eos_token_id.as_ref());
        let generation = folder.join("generation_config.json");
        if let Some(text) = read_optional(&generation)? {
            let json: Json = serde_json::from_str(&text).map_err(|error| ModelError::malformed(&generation, error))?;
            stop_tokens.extend(token_ids(json.get("eos_token_id")));
        }
        Ok(Self {
            architecture,
            layout,
            hidden_size: raw.hidden_size,
            intermediate_size: raw.intermediate_size,
            vocabulary: raw.vocab_size,
            context_length: raw.max_position_embeddings,
            sliding_window: sliding,
            norm_epsilon: raw.rms_norm_eps,
            rope_theta: rope.rope_theta.or(raw.rope_theta).unwrap_or(10_000.0),
            rope_scaling: rope.scaling(&path)?,
            rope_pairs: RotaryPairs::Halves,
            attention_bias: raw.attention_bias.unwrap_or(architecture == Architecture::Qwen2),
            tied_embeddings: raw.tie_word_embeddings,
            stop_tokens,
        })
    }

    /// Reads the metadata of a GGUF file.
    pub fn from_gguf(gguf: &Gguf) -> Result<Self, ModelError> {
        let path = gguf.path();
        let name = gguf.string("general.architecture")?;
        let (architecture, rope_pairs) = match name.as_str() {
            // Mistral files call themselves llama too.
            "llama" => (Architecture::Llama, RotaryPairs::Neighbours),
            "qwen2" => (Architecture::Qwen2, RotaryPairs::Halves),
            "qwen3" => (Architecture::Qwen3, RotaryPairs::Halves),
            other => return Err(unknown_architecture(path, other)),
        };
        let key = |key: &str| format!("{name}.{key}");
        let query_heads = gguf.integer(&key("attention.head_count"))?;
        let kv_heads = gguf.optional_integer(&key("attention.head_count_kv"))?.unwrap_or(query_heads);
        let hidden_size = gguf.integer(&key("embedding_length"))?;
        let head_dim = gguf.optional_integer(&key("attention.key_length"))?.unwrap_or(hidden_size / query_heads.max(1));
        let layout = HeadLayout::new(gguf.integer(&key("block_count"))?, query_heads, kv_heads, head_dim)?;
        check_head_dim(path, head_dim)?;
        if let Some(rotated) =
            gguf.optional_integer(&key("rope.dimension_count"))?.filter(|rotated| *rotated != head_dim)
        {
            let message = format!("rotating only {rotated} of {head_dim} dimensions of each head is not implemented");
            return Err(ModelError::unsupported(path, message));
        }
        let rope_scaling = if gguf.contains("rope_freqs.weight") {
            RopeScaling::Divisors(gguf.dense("rope_freqs.weight")?)
        } else {
            match gguf.optional_string(&key("rope.scaling.type"))?.as_deref() {
                None | Some("none") => RopeScaling::None,
                Some("linear") => RopeScaling::Linear { factor: gguf.float(&key("rope.scaling.factor"))? },
                Some(other) => return Err(unknown_scaling(path, other)),
            }
        };
        let stop_keys = ["tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"];
        let mut stop_tokens = Vec::new();
        for key in stop_keys {
            stop_tokens.extend(gguf.optional_integer(key)?.map(|id| id as u32));
        }
        Ok(Self {
            architecture,
            layout,
            hidden_size,
            intermediate_size: gguf.integer(&key("feed_forward_length"))?,
            vocabulary: gguf.tensor_shape("token_embd.weight")?.first().copied().unwrap_or(0),
            context_length: gguf.integer(&key("context_length"))?,
            sliding_window: gguf.optional_integer(&key("attention.sliding_window"))?.filter(|&window| window > 0),
            norm_epsilon: f64::from(gguf.float(&key("attention.layer_norm_rms_epsilon"))?),
            rope_theta: gguf.optional_float(&key("rope.freq_base"))?.unwrap_or(10_000.0),
            rope_scaling,
            rope_pairs,
            attention_bias: architecture == Architecture::Qwen2,
            tied_embeddings: None,
            stop_tokens,
        })
    }
}

/// A text file that a model may lack.
pub(crate) fn read_optional(path: &Path) -> Result<Option<String>, ModelError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(ModelError::io(path)(error)),
    }
}

fn check_head_dim(path: &Path, head_dim: usize) -> Result<(), ModelError> {
    match head_dim % 2 {
        0 => Ok(()),
        _ => Err(ModelError::unsupported(path, format!("an odd head_dim ({head_dim}) cannot be rotated in pairs"))),
    }
}

fn unknown_architecture(path: &Path, name: &str) -> ModelError {
    ModelError::unsupported(
        path,
        format!("architecture `{name}` is not implemented (known: llama, mistral, qwen2, qwen3)"),
    )
}

fn unknown_scaling(path: &Path, name: &str) -> ModelError {
    ModelError::unsupported(path, format!("RoPE scaling `{name}` is not implemented (known: default, linear, llama3)"))
}

/// One id or a list of them.
fn token_ids(json: Option<&Json>) -> Vec<u32> {
    let id = |json: &Json| json.as_u64().and_then(|id| u32::try_from(id).ok());
    match json {
        Some(Json::Array(ids)) => ids.iter().filter_map(id).collect(),
        Some(single) => id(single).into_iter().collect(),
        None => Vec::new(),
    }
}

#[derive(Deserialize)]
struct HuggingFaceConfig {
    hidden_act: Option<String>,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    vocab_size: usize,
    max_position_embeddings: usize,
    rms_norm_eps: f64,
    rope_theta: Option<f32>,
    rope_scaling: Option<RopeParameters>,
    rope_parameters: Option<RopeParameters>,
    sliding_window: Option<usize>,
    use_sliding_window: Option<bool>,
    attention_bias: Option<bool>,
    tie_word_embeddings: Option<bool>,
    eos_token_id: Option<Json>,
}

#[derive(Default, Deserialize)]
struct RopeParameters {
    #[serde(alias = "type")]
    rope_type: Option<String>,
    rope_theta: Option<f32>,
    factor: Option<f32>,
    low_freq_factor: Option<f32>,
    high_freq_factor: Option<f32>,
    original_max_position_embeddings: Option<f32>,
}

impl RopeParameters {
    fn scaling(&self, path: &Path) -> Result<RopeScaling, ModelError> {
        let need = |value: Option<f32>, name: &str| {
            value.ok_or_else(|| ModelError::malformed(path, format!("RoPE scaling lacks `{name}`")))
        };
        match self.rope_type.as_deref() {
            None | Some("default") => Ok(RopeScaling::None),
            Some("linear") => Ok(RopeScaling::Linear { factor: need(self.factor, "factor")? }),
            Some("llama3") => Ok(RopeScaling::Llama3 {
                factor: need(self.factor, "factor")?,
                low_frequency_factor: need(self.low_freq_factor, "low_freq_factor")?,
                high_frequency_factor: need(self.high_freq_factor, "high_freq_factor")?,
                original_context: need(self.original_max_position_embeddings, "original_max_position_embeddings")?,
            }),
            Some(other) => Err(unknown_scaling(path, other)),
        }
    }
}
