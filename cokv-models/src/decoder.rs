//! The decoder: Llama, Mistral, Qwen2 and Qwen3 are one forward pass with three switches (biases, query/key norms, tied
//! embeddings), all of which the checkpoint itself decides.
//!
//! Linear layers and norms run on the model's device. Attention runs on the CPU, over caches that live there: queries,
//! keys and values of the new tokens travel, caches do not.

use candle_core::{D, Device, Tensor};
use cokv_core::{HeadLayout, RotaryEmbedding};

use crate::cache::RaggedCache;
use crate::config::{Architecture, ModelConfig};
use crate::error::ModelError;
use crate::kernel::attention::{self, attend};
use crate::linear::{Linear, WeightType};
use crate::observe::Recorder;
use crate::ops::{add, rms_norm, silu_times};
use crate::rope::{Angles, Rope};
use crate::weights::Weights;

/// A decoder-only transformer.
pub struct Decoder {
    config: ModelConfig,
    /// None where the table is the output layer's weight.
    embed_tokens: Option<Linear>,
    layers: Vec<DecoderLayer>,
    norm: Tensor,
    lm_head: Linear,
    rope: Rope,
    device: Device,
}

struct DecoderLayer {
    input_layernorm: Tensor,
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    o_proj: Linear,
    /// Weights of the norms of each query head and each key head (Qwen3): `[head_dim]`.
    q_norm: Option<Tensor>,
    k_norm: Option<Tensor>,
    post_attention_layernorm: Tensor,
    gate_proj: Linear,
    up_proj: Linear,
    down_proj: Linear,
}

/// New tokens of one sequence and the cache that they extend.
pub struct Row<'a> {
    /// Tokens that the cache has not seen.
    pub tokens: &'a [u32],
    /// What came before, as far as it was kept.
    pub cache: &'a mut RaggedCache,
}

impl Decoder {
    /// Loads all weights.
    pub fn load(
        weights: &Weights,
        config: ModelConfig,
        weight_type: WeightType,
        device: &Device,
        mut progress: impl FnMut(usize, usize),
    ) -> Result<Self, ModelError> {
        let HeadLayout { layers, query_heads, kv_heads, head_dim } = config.layout;
        let hidden = config.hidden_size;
        let vector = |name: &str, length: usize| -> Result<Tensor, ModelError> {
            Ok(weights.dense(name, &[length])?.to_device(device)?)
        };
        let load_layer = |index: usize| -> Result<DecoderLayer, ModelError> {
            let prefix = format!("model.layers.{index}");
            let linear = |name: &str, shape: (usize, usize)| {
                Linear::load(weights, &format!("{prefix}.{name}"), shape, weight_type, device)
            };
            let head_norm = |name: &str| match config.architecture {
                Architecture::Qwen3 => vector(&format!("{prefix}.self_attn.{name}.weight"), head_dim).map(Some),
                _ => Ok(None),
            };
            Ok(DecoderLayer {
                input_layernorm: vector(&format!("{prefix}.input_layernorm.weight"), hidden)?,
                q_proj: linear("self_attn.q_proj", (query_heads * head_dim, hidden))?,
                k_proj: linear("self_attn.k_proj", (kv_heads * head_dim, hidden))?,
                v_proj: linear("self_attn.v_proj", (kv_heads * head_dim, hidden))?,
                o_proj: linear("self_attn.o_proj", (hidden, query_heads * head_dim))?,
                q_norm: head_norm("q_norm")?,
                k_norm: head_norm("k_norm")?,
                post_attention_layernorm: vector(&format!("{prefix}.post_attention_layernorm.weight"), hidden)?,
                gate_proj: linear("mlp.gate_proj", (config.intermediate_size, hidden))?,
                up_proj: linear("mlp.up_proj", (config.intermediate_size, hidden))?,
                down_proj: linear("mlp.down_proj", (hidden, config.intermediate_size))?,
            })
        };

        let table = (config.vocabulary, hidden);
        let load_table = |name: &str| Linear::load(weights, name, table, weight_type, device);
        // Looked at before anything is allocated: a damaged configuration may name any number of layers.
        let last = format!("model.layers.{}", layers - 1);
        let mut needed = vec![format!("{last}.input_layernorm.weight")];
        if config.attention_bias {
            needed.push(format!("{last}.self_attn.k_proj.bias"));
        }
        if let Some(name) = needed.iter().find(|name| !weights.contains(name)) {
            return Err(weights.missing(name));
        }
        let untied = weights.contains("lm_head.weight");
        if !untied && config.tied_embeddings == Some(false) {
            return Err(weights.missing("lm_head.weight"));
        }
        let (embed_tokens, lm_head) = match untied {
            true => (Some(load_table("model.embed_tokens")?), load_table("lm_head")?),
            false => (None, load_table("model.embed_tokens")?),
        };
        let mut loaded = Vec::with_capacity(layers);
        for index in 0..layers {
            progress(index, layers);
            loaded.push(load_layer(index)?);
        }
        progress(layers, layers);
        Ok(Self {
            embed_tokens,
            layers: loaded,
            norm: vector("model.norm.weight", hidden)?,
            lm_head,
            rope: Rope::new(&config),
            device: device.clone(),
            config,
        })
    }

    /// The model's shape.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Bytes of the weights that every step reads: all but those of an embedding table of its own, of which it reads a row.
    pub fn weight_bytes(&self) -> usize {
        let layers = self.layers.iter().flat_map(|layer| {
            [
                &layer.q_proj,
                &layer.k_proj,
                &layer.v_proj,
                &layer.o_proj,
                &layer.gate_proj,
                &layer.up_proj,
                &layer.down_proj,
            ]
        });
        layers.chain([&self.lm_head]).map(Linear::bytes).sum()
    }

    /// How queries and keys are turned by their positions.
    pub(crate) fn rotary(&self) -> RotaryEmbedding {
        self.rope.embedding()
    }

    /// Runs new tokens of all rows, appends their keys and values to the rows' caches, and returns their hidden states
    /// before the final norm, `[all tokens of all rows, hidden_size]`. The recorder sees the first row only.
    pub fn forward(&self, rows: &mut [Row<'_>], mut recorder: Option<&mut Recorder>) -> Result<Tensor, ModelError> {
        let tokens: Vec<u32> = rows.iter().flat_map(|row| row.tokens.iter().copied()).collect();
        if let Some(&token) = tokens.iter().find(|&&token| token as usize >= self.config.vocabulary) {
            return Err(ModelError::UnknownToken { token, vocabulary: self.config.vocabulary });
        }
        let mut positions = Vec::with_capacity(tokens.len());
        for row in rows.iter() {
            let start = row.cache.next_position();
            self.config.check_length(start + row.tokens.len())?;
            positions.extend(start..start + row.tokens.len());
        }
        let angles = self.rope.angles(&positions);

        let indices = Tensor::new(tokens.as_slice(), &self.device)?;
        let mut hidden = self.embed_tokens.as_ref().unwrap_or(&self.lm_head).rows(&indices)?;
        for (index, layer) in self.layers.iter().enumerate() {
            hidden = self.attention(index, layer, &hidden, &angles, rows, recorder.as_deref_mut())?;
            hidden = self.feed_forward(layer, &hidden)?;
        }
        for row in rows.iter_mut() {
            row.cache.advance(row.tokens.len());
        }
        Ok(hidden)
    }

    /// Logits of hidden states, `[rows, vocabulary]`.
    pub fn logits(&self, hidden: &Tensor) -> Result<Tensor, ModelError> {
        let normed = rms_norm(hidden, &self.norm, self.config.norm_epsilon as f32)?;
        // A quantised output layer would turn NaN into uniform logits.
        if !normed.sum_all()?.to_scalar::<f32>()?.is_finite() {
            return Err(ModelError::NotFinite { place: "in the last layer's output".into() });
        }
        Ok(self.lm_head.forward(&normed)?.to_device(&Device::Cpu)?)
    }

    /// Logits of hidden states on the host; NaN and infinities, which would look like confident answers, are refused.
    pub(crate) fn finite_logits(
        &self,
        hidden: &Tensor,
        place: impl FnOnce() -> String,
    ) -> Result<Vec<f32>, ModelError> {
        let logits: Vec<f32> = self.logits(hidden)?.flatten_all()?.to_vec1()?;
        match logits.iter().all(|logit| logit.is_finite()) {
            true => Ok(logits),
            false => Err(ModelError::NotFinite { place: place() }),
        }
    }

    fn attention(
        &self,
        index: usize,
        layer: &DecoderLayer,
        hidden: &Tensor,
        angles: &Angles,
        rows: &mut [Row<'_>],
        mut recorder: Option<&mut Recorder>,
    ) -> Result<Tensor, ModelError> {
        let layout = self.config.layout;
        let HeadLayout { query_heads, kv_heads, .. } = layout;
        let normed = rms_norm(hidden, &layer.input_layernorm, self.config.norm_epsilon as f32)?;
        let [queries, keys, values] = Linear::forward_all([&layer.q_proj, &layer.k_proj, &layer.v_proj], &normed)?;
        let mut queries = self.heads(queries, layer.q_norm.as_ref())?;
        let mut keys = self.heads(keys, layer.k_norm.as_ref())?;
        let values = self.heads(values, None)?;
        let first_row = rows.first().map_or(0, |row| row.tokens.len()) * query_heads * layout.head_dim;

        if let Some(recorder) = recorder.as_deref_mut() {
            recorder.queries_before_rope(index, &queries[..first_row]);
            if recorder.wants_value_output_norms() {
                let norms = self.value_output_norms(&layer.o_proj, &values[..first_row / layout.group()])?;
                recorder.value_output_norms(index, &norms);
            }
        }
        angles.rotate(&mut queries, layout, query_heads);
        angles.rotate(&mut keys, layout, kv_heads);

        let mut start = 0;
        for row in rows.iter_mut() {
            let end = start + row.tokens.len() * kv_heads * layout.head_dim;
            row.cache.append(index, &keys[start..end], &values[start..end]);
            start = end;
        }
        let mut rest = queries.as_slice();
        let attention_rows: Vec<attention::Row<'_>> = rows
            .iter()
            .map(|row| {
                let (queries, others) = rest.split_at(row.tokens.len() * query_heads * layout.head_dim);
                rest = others;
                attention::Row { queries, cache: row.cache }
            })
            .collect();
        let attention = attend(layout, index, &attention_rows);
        if let (Some(recorder), Some(row)) = (recorder, attention_rows.first()) {
            recorder.attention(index, row, &attention.log_sum_exp[..first_row / layout.head_dim]);
        }
        let width = query_heads * layout.head_dim;
        let tokens = attention.output.len() / width;
        let output = Tensor::from_vec(attention.output, (tokens, width), &Device::Cpu)?.to_device(&self.device)?;
        add(hidden, &layer.o_proj.forward(&output)?)
    }

    /// 1-norms of values `[tokens, kv_heads, head_dim]` behind the columns of the output projection that belong to each
    /// query head: `[query_heads, tokens]`.
    fn value_output_norms(&self, o_proj: &Linear, values: &[f32]) -> Result<Vec<f32>, ModelError> {
        let layout = self.config.layout;
        let HeadLayout { query_heads, kv_heads, head_dim, .. } = layout;
        let tokens = values.len() / (kv_heads * head_dim);
        let values = Tensor::from_slice(values, (tokens, kv_heads, head_dim), &self.device)?;
        let weight = o_proj.rows(&Tensor::arange(0, self.config.hidden_size as u32, &self.device)?)?;
        let mut norms = Vec::with_capacity(query_heads * tokens);
        for query_head in 0..query_heads {
            let of_head = weight.narrow(1, query_head * head_dim, head_dim)?;
            let values = values.narrow(1, query_head / layout.group(), 1)?.squeeze(1)?.contiguous()?;
            let written = values.matmul(&of_head.t()?.contiguous()?)?;
            norms.extend(written.abs()?.sum(D::Minus1)?.to_vec1::<f32>()?);
        }
        Ok(norms)
    }

    /// `[tokens, heads * head_dim]` to the host, each head normalised where the model does that.
    fn heads(&self, projected: Tensor, norm: Option<&Tensor>) -> Result<Vec<f32>, ModelError> {
        let head_dim = self.config.layout.head_dim;
        let projected = match norm {
            Some(weight) => {
                let heads = projected.elem_count() / head_dim;
                rms_norm(&projected.reshape((heads, head_dim))?, weight, self.config.norm_epsilon as f32)?
            }
            None => projected,
        };
        Ok(projected.to_device(&Device::Cpu)?.flatten_all()?.to_vec1()?)
    }

    fn feed_forward(&self, layer: &DecoderLayer, hidden: &Tensor) -> Result<Tensor, ModelError> {
        let normed = rms_norm(hidden, &layer.post_attention_layernorm, self.config.norm_epsilon as f32)?;
        let [gate, up] = Linear::forward_all([&layer.gate_proj, &layer.up_proj], &normed)?;
        let gated = silu_times(&gate, &up)?;
        add(hidden, &layer.down_proj.forward(&gated)?)
    }
}
