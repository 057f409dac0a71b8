//! The decoder: Llama, Mistral, Qwen2 and Qwen3 are one forward pass with three switches (biases, query/key norms, tied
//! embeddings), all of which the checkpoint itself decides.

use cokv_core::{Format, ObservationRequest, Replayed, RotaryEmbedding};

use crate::ask::{Answer, Ask};
use crate::backend::{self, Backend, Ceilings, LayerSummaries, Observed, Projected, Replaying, Span, Watch};
use crate::cache::{RaggedCache, Segment};
use crate::config::{Architecture, ModelConfig};
use crate::engine::{Engine, Row};
use crate::error::ModelError;
use crate::rope::{Position, Rope};
use crate::weights::{Stored, WeightType, Weights};

/// A decoder-only transformer on a backend.
pub struct Decoder<B: Backend> {
    backend: B,
    config: ModelConfig,
    /// None where the table is the output layer's weight.
    embed_tokens: Option<B::Linear>,
    layers: Vec<Layer<B>>,
    norm: B::Matrix,
    lm_head: B::Linear,
    rope: Rope,
}

struct Layer<B: Backend> {
    input_layernorm: B::Matrix,
    q_proj: B::Linear,
    k_proj: B::Linear,
    v_proj: B::Linear,
    o_proj: B::Linear,
    /// Weights of the norms of each query head and each key head (Qwen3): `[head_dim]`.
    q_norm: Option<B::Matrix>,
    k_norm: Option<B::Matrix>,
    post_attention_layernorm: B::Matrix,
    gate_proj: B::Linear,
    up_proj: B::Linear,
    down_proj: B::Linear,
}

impl<B: Backend> Decoder<B> {
    /// Loads all weights. `progress` hears (layers loaded, layers).
    pub fn load(
        backend: B,
        weights: &Weights,
        config: ModelConfig,
        weight_type: WeightType,
        mut progress: impl FnMut(usize, usize),
    ) -> Result<Self, ModelError> {
        let layers = config.layout.layers;
        // Looked at before anything is allocated: a damaged configuration may name any number of layers.
        let last = format!("model.layers.{}", layers - 1);
        let mut needed = vec![format!("{last}.input_layernorm.weight")];
        if config.attention_bias {
            needed.push(format!("{last}.self_attn.k_proj.bias"));
        }
        if let Some(name) = needed.iter().find(|name| !weights.contains(name)) {
            return Err(weights.missing(name));
        }
        let found = weights.layers();
        if found > layers {
            let message = format!(
                "{found} layers are in it, and its configuration asks for {layers} (num_hidden_layers, block_count)"
            );
            return Err(ModelError::malformed(weights.path_of(&needed[0]), message));
        }
        let untied = weights.contains("lm_head.weight");
        if !untied && config.tied_embeddings == Some(false) {
            return Err(weights.missing("lm_head.weight"));
        }
        let loader = Loader { backend: &backend, weights, weight_type };
        let table = |name: &str| loader.linear(name, [config.vocabulary, config.hidden_size]);
        let (embed_tokens, lm_head) = match untied {
            true => (Some(table("model.embed_tokens")?), table("lm_head")?),
            false => (None, table("model.embed_tokens")?),
        };
        let mut loaded = Vec::with_capacity(layers);
        for index in 0..layers {
            progress(index, layers);
            loaded.push(loader.layer(&config, index)?);
        }
        progress(layers, layers);
        let norm = loader.vector("model.norm.weight", config.hidden_size)?;
        let rope = Rope::new(&config);
        Ok(Self { embed_tokens, layers: loaded, norm, lm_head, rope, backend, config })
    }

    /// One layer: prefill, forcing, decoding and coalitions alike.
    fn layer(
        &self,
        attention: backend::Layer,
        hidden: B::Matrix,
        angles: &B::Angles,
        pass: &mut B::Pass<'_>,
    ) -> Result<B::Matrix, ModelError> {
        let (backend, layer) = (&self.backend, &self.layers[attention.index]);
        let epsilon = self.config.norm_epsilon as f32;
        let normed = backend.rms_norm(&hidden, &layer.input_layernorm, epsilon)?;
        let [mut queries, mut keys, values] = backend.linear([&layer.q_proj, &layer.k_proj, &layer.v_proj], &normed)?;
        if let Some(norm) = &layer.q_norm {
            queries = backend.rms_norm(&queries, norm, epsilon)?;
        }
        if let Some(norm) = &layer.k_norm {
            keys = backend.rms_norm(&keys, norm, epsilon)?;
        }
        let observed = Observed { inputs: &normed, queries: &queries, values: &values, output: &layer.o_proj };
        backend.observe(pass, attention.index, observed)?;
        let attended = backend.attend(pass, attention, Projected { queries, keys, values }, angles)?;
        let hidden = backend.add_linear(hidden, &layer.o_proj, &attended)?;
        let normed = backend.rms_norm(&hidden, &layer.post_attention_layernorm, epsilon)?;
        let [gate, up] = backend.linear([&layer.gate_proj, &layer.up_proj], &normed)?;
        backend.add_linear(hidden, &layer.down_proj, &backend.silu_times(&gate, &up)?)
    }

    fn attention_layer(&self, index: usize) -> backend::Layer {
        backend::Layer { index, window: self.config.window(index) }
    }

    /// Whether the rows can be run, and the positions of their tokens.
    fn positions(&self, rows: &[Row<'_>]) -> Result<Vec<Position>, ModelError> {
        let vocabulary = self.config.vocabulary;
        let mut positions = Vec::new();
        for row in rows {
            let asked = match row.ask {
                Ask::Along { targets, .. } => targets,
                _ => &[],
            };
            if let Some(&token) = row.tokens.iter().chain(asked).find(|&&token| token as usize >= vocabulary) {
                return Err(ModelError::UnknownToken { token, vocabulary });
            }
            if row.tokens.is_empty() {
                return Err(ModelError::EmptyPrompt);
            }
            let start = row.cache.next_position();
            self.config.check_length(start + row.tokens.len())?;
            let tokens = start..start + row.tokens.len();
            positions.extend(tokens.map(|at| Position { at, within: row.within.max(at + 1) }));
        }
        Ok(positions)
    }

    /// Answers all rows from the hidden states of their tokens, as many rows together as logits may be held.
    fn answers(&self, hidden: &B::Matrix, rows: &[Row<'_>]) -> Result<Vec<Answer>, ModelError> {
        let mut answers = Vec::with_capacity(rows.len());
        let (mut together, mut places, mut end) = (Vec::new(), Vec::new(), 0);
        for row in rows {
            let tokens = row.tokens.len();
            let looked_at = row.ask.looks_at(tokens);
            if (places.len() + looked_at) * self.config.vocabulary > self.backend.logits_at_once() && !places.is_empty()
            {
                self.answer_some(hidden, &places, &together, &mut answers)?;
                (together, places) = (Vec::new(), Vec::new());
            }
            end += tokens;
            places.extend(end - looked_at..end);
            together.push((row.ask, tokens));
        }
        self.answer_some(hidden, &places, &together, &mut answers)?;
        Ok(answers)
    }

    fn answer_some(
        &self,
        hidden: &B::Matrix,
        places: &[usize],
        asks: &[(Ask<'_>, usize)],
        answers: &mut Vec<Answer>,
    ) -> Result<(), ModelError> {
        if places.is_empty() {
            answers.extend(asks.iter().map(|_| Answer::Nothing));
            return Ok(());
        }
        let hidden = self.backend.rows(hidden, places)?;
        let normed = self.backend.rms_norm(&hidden, &self.norm, self.config.norm_epsilon as f32)?;
        let [logits] = self.backend.linear([&self.lm_head], &normed)?;
        self.backend.answer(&normed, &logits, asks, answers)
    }
}

impl<B: Backend> Engine for Decoder<B> {
    fn config(&self) -> &ModelConfig {
        &self.config
    }

    fn backend(&self) -> &'static str {
        self.backend.name()
    }

    fn free_bytes(&self) -> Option<u64> {
        self.backend.free_bytes()
    }

    fn take_peak_bytes(&self) -> Option<u64> {
        self.backend.take_peak_bytes()
    }

    fn ceilings(&self) -> Result<Option<Ceilings>, ModelError> {
        self.backend.ceilings()
    }

    fn chunk(&self) -> usize {
        self.backend.chunk()
    }

    fn weight_bytes(&self) -> usize {
        let of_layer = |layer: &Layer<B>| {
            let attention = [&layer.q_proj, &layer.k_proj, &layer.v_proj, &layer.o_proj];
            let feed_forward = [&layer.gate_proj, &layer.up_proj, &layer.down_proj];
            attention.into_iter().chain(feed_forward).map(|linear| self.backend.bytes(linear)).sum::<usize>()
        };
        self.layers.iter().map(of_layer).sum::<usize>() + self.backend.bytes(&self.lm_head)
    }

    fn rotary(&self, prompt_len: usize) -> RotaryEmbedding {
        self.rope.embedding(prompt_len)
    }

    fn cache(&self, format: Format, tokens: usize) -> Result<RaggedCache, ModelError> {
        let layout = self.config.layout;
        Ok(RaggedCache::new(layout, format, Box::new(self.backend.store(layout, format, tokens)?)))
    }

    fn watch(&self, request: ObservationRequest, prompt_len: usize) -> Box<dyn Watch> {
        Box::new(self.backend.watch(self.config.layout, request, prompt_len))
    }

    fn watch_replay(&self, replaying: Replaying) -> Box<dyn Watch> {
        Box::new(self.backend.watch_replay(self.config.layout, replaying))
    }

    fn replayed(&self, watch: &mut dyn Watch, layer: usize) -> Result<Replayed, ModelError> {
        let watch = (watch as &mut dyn std::any::Any).downcast_mut().ok_or_else(|| backend::foreign("watch"))?;
        self.backend.replayed(watch, layer)
    }

    fn watch_queries(&self, count: usize) -> Box<dyn Watch> {
        Box::new(self.backend.watch_queries(self.config.layout, count))
    }

    fn last_queries(&self, watch: &dyn Watch, layer: usize) -> Result<Vec<f32>, ModelError> {
        let watch = (watch as &dyn std::any::Any).downcast_ref().ok_or_else(|| backend::foreign("watch"))?;
        Ok(self.backend.last_queries(watch, layer))
    }

    fn step(&self, rows: &mut [Row<'_>]) -> Result<Vec<Answer>, ModelError> {
        let angles = self.backend.angles(self.rope.angles(&self.positions(rows)?))?;
        let tokens: Vec<u32> = rows.iter().flat_map(|row| row.tokens.iter().copied()).collect();
        let mut hidden = self.backend.embed(self.embed_tokens.as_ref().unwrap_or(&self.lm_head), &tokens)?;
        let mut spans = Vec::with_capacity(rows.len());
        for row in rows.iter_mut() {
            spans.push(Span::of(row.tokens.len(), row.cache, &mut row.watches)?);
        }
        let mut pass = self.backend.pass(self.config.layout, spans)?;
        for index in 0..self.layers.len() {
            hidden = self.layer(self.attention_layer(index), hidden, &angles, &mut pass)?;
        }
        drop(pass);
        for row in rows.iter_mut() {
            row.cache.advance(row.tokens.len());
        }
        self.answers(&hidden, rows)
    }

    fn summaries(&self, watch: &dyn Watch, prompt: &Segment, layer: usize) -> Result<LayerSummaries, ModelError> {
        let watch = (watch as &dyn std::any::Any).downcast_ref().ok_or_else(|| backend::foreign("watch"))?;
        let layer = self.attention_layer(layer);
        self.backend.summaries(self.config.layout, watch, backend::own_store::<B>(prompt.store())?, layer)
    }
}

/// Takes weights out of a checkpoint.
struct Loader<'a, B> {
    backend: &'a B,
    weights: &'a Weights,
    weight_type: WeightType,
}

impl<B: Backend> Loader<'_, B> {
    fn vector(&self, name: &str, length: usize) -> Result<B::Matrix, ModelError> {
        self.backend.matrix(self.weights.dense(name, &[length])?, length)
    }

    /// `name.weight`, `[out_features, in_features]`, and `name.bias` where the checkpoint has one.
    fn stored(&self, name: &str, shape: [usize; 2]) -> Result<(Stored, Option<Vec<f32>>), ModelError> {
        let weight = self.weights.stored(&format!("{name}.weight"), &shape)?;
        let bias = format!("{name}.bias");
        let bias = self.weights.contains(&bias).then(|| self.weights.dense(&bias, &shape[..1])).transpose()?;
        Ok((weight, bias))
    }

    fn linear(&self, name: &str, shape: [usize; 2]) -> Result<B::Linear, ModelError> {
        let (weight, bias) = self.stored(name, shape)?;
        self.backend.load(weight, bias, self.weight_type)
    }

    fn layer(&self, config: &ModelConfig, index: usize) -> Result<Layer<B>, ModelError> {
        let (hidden, head_dim) = (config.hidden_size, config.layout.head_dim);
        let name = |part: &str| format!("model.layers.{index}.{part}");
        let vector = |part: &str, length: usize| self.vector(&name(part), length);
        let head_norm = |part: &str| match config.architecture {
            Architecture::Qwen3 => vector(part, head_dim).map(Some),
            _ => Ok(None),
        };
        let linears = config.linear_layers();
        let (backend, held) = (self.backend, self.weight_type);
        let read = |first: usize| {
            move |at: usize| {
                let (part, shape) = linears[first + at];
                self.stored(&format!("model.layers.{index}.{part}"), shape)
            }
        };
        let [q_proj, k_proj, v_proj] = backend.load_together(read(0), held)?;
        let [o_proj] = backend.load_together(read(3), held)?;
        let [gate_proj, up_proj] = backend.load_together(read(4), held)?;
        let [down_proj] = backend.load_together(read(6), held)?;
        Ok(Layer {
            input_layernorm: vector("input_layernorm.weight", hidden)?,
            q_proj,
            k_proj,
            v_proj,
            o_proj,
            q_norm: head_norm("self_attn.q_norm.weight")?,
            k_norm: head_norm("self_attn.k_norm.weight")?,
            post_attention_layernorm: vector("post_attention_layernorm.weight", hidden)?,
            gate_proj,
            up_proj,
            down_proj,
        })
    }
}
