//! The metadata of a GGUF file.

use cokv_core::{HeadLayout, RotaryPairs};

use super::rope::{Stretch, Unstretched};
use super::{Architecture, ModelConfig};
use super::{check_head_dim, context_length, norm_epsilon, rope_theta, size, sliding_window, unknown_architecture};
use crate::error::ModelError;
use crate::weights::Gguf;

impl ModelConfig {
    /// Reads the metadata of a GGUF file.
    pub fn from_gguf(gguf: &Gguf) -> Result<Self, ModelError> {
        let path = gguf.path();
        let name = gguf.string("general.architecture")?;
        let architecture = Architecture::of_gguf(&name).ok_or_else(|| unknown_architecture(path, &name))?;
        let key = |key: &str| format!("{name}.{key}");
        let optional_count = |suffix: &str| -> Result<Option<usize>, ModelError> {
            let key = key(suffix);
            gguf.optional_integer(&key)?.map(|number| size(path, &key, number)).transpose()
        };
        let count = |suffix: &str| optional_count(suffix)?.ok_or_else(|| gguf.missing(&key(suffix)));
        if let Some(experts) = optional_count("expert_count")?.filter(|&experts| experts > 0) {
            let message = format!("a mixture of {experts} experts is not implemented; use a dense model");
            return Err(ModelError::unsupported(path, message));
        }
        let query_heads = count("attention.head_count")?;
        let kv_heads = optional_count("attention.head_count_kv")?.unwrap_or(query_heads);
        let hidden_size = count("embedding_length")?;
        let head_dim = optional_count("attention.key_length")?.unwrap_or(hidden_size / query_heads.max(1));
        let layout = HeadLayout::new(count("block_count")?, query_heads, kv_heads, head_dim)?;
        check_head_dim(path, head_dim)?;
        if let Some(rotated) =
            gguf.optional_integer(&key("rope.dimension_count"))?.filter(|rotated| *rotated != head_dim)
        {
            let message = format!("rotating only {rotated} of {head_dim} dimensions of each head is not implemented");
            return Err(ModelError::unsupported(path, message));
        }
        let stop_keys = ["tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"];
        let mut stop_tokens = Vec::new();
        for key in stop_keys {
            stop_tokens.extend(gguf.optional_integer(key)?.map(|id| id as u32));
        }
        let (context, epsilon) = (key("context_length"), key("attention.layer_norm_rms_epsilon"));
        let theta = key("rope.freq_base");
        let theta = rope_theta(path, &theta, gguf.optional_float(&theta)?.map_or(10_000.0, f64::from))?;
        let context_length = context_length(path, &context, gguf.integer(&context)?)?;
        let rope = Unstretched { context_length, head_dim, theta };
        let Stretch { scaling, attention_factor, context_length } = rope.stretched_by_gguf(gguf, &name)?;
        let windows = windows(gguf, &key("attention.sliding_window"), architecture, &layout, context_length)?;
        Ok(Self {
            architecture,
            layout,
            hidden_size,
            intermediate_size: count("feed_forward_length")?,
            vocabulary: gguf.tensor_shape("token_embd.weight")?.first().copied().unwrap_or(0),
            context_length,
            windows,
            norm_epsilon: norm_epsilon(path, &epsilon, f64::from(gguf.float(&epsilon)?))?,
            rope_theta: theta,
            rope_scaling: scaling,
            rope_attention_factor: attention_factor,
            rope_pairs: match architecture {
                Architecture::Llama | Architecture::Mistral => RotaryPairs::Neighbours,
                Architecture::Qwen2 | Architecture::Qwen3 => RotaryPairs::Halves,
            },
            attention_bias: architecture == Architecture::Qwen2,
            tied_embeddings: None,
            stop_tokens,
        })
    }
}

/// A window is all layers', as Mistral's is. Qwen's may be of some, which the file does not say.
fn windows(
    gguf: &Gguf,
    key: &str,
    architecture: Architecture,
    layout: &HeadLayout,
    context_length: usize,
) -> Result<Vec<Option<usize>>, ModelError> {
    let window = gguf.optional_integer(key)?.filter(|&window| window > 0 && window < context_length);
    let Some(window) = window else { return Ok(Vec::new()) };
    let window = sliding_window(gguf.path(), key, window)?;
    match architecture {
        Architecture::Llama | Architecture::Mistral => Ok(vec![Some(window); layout.layers]),
        Architecture::Qwen2 | Architecture::Qwen3 => {
            let message = format!("`{key}` is {window}, and nothing says which layers slide; use the original weights");
            Err(ModelError::unsupported(gguf.path(), message))
        }
    }
}
