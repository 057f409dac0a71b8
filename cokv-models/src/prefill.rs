//! One pass over a prompt that serves every method, budget and coalition.

use std::sync::Arc;

use cokv_core::{HeadLayout, LayerView, Method, ObservationRequest, RotaryEmbedding, Selection, TokenScores};

use crate::cache::{CacheType, HeadRows, PromptCache, RaggedCache};
use crate::decoder::{Decoder, Row};
use crate::error::ModelError;
use crate::kernel::attention::window_attention;
use crate::observe::{LayerObservations, Recorder};

/// Prompt tokens of one forward pass: enough rows for matrix products to reach their peak, few enough that activations
/// stay small.
const CHUNK: usize = 512;

/// A prefilled prompt: its keys and values, what the methods asked to be recorded, and the logits of the first token.
pub struct Prefill {
    cache: Arc<PromptCache>,
    request: ObservationRequest,
    observations: Vec<LayerObservations>,
    logits: Vec<f32>,
    rotary: RotaryEmbedding,
}

impl Prefill {
    /// Runs the prompt in chunks with full attention. `progress` hears the number of tokens done.
    pub fn run(
        decoder: &Decoder,
        prompt: &[u32],
        cache_type: CacheType,
        request: ObservationRequest,
        mut progress: impl FnMut(usize),
    ) -> Result<Self, ModelError> {
        if prompt.is_empty() {
            return Err(ModelError::EmptyPrompt);
        }
        decoder.config().check_length(prompt.len())?;
        let layout = decoder.config().layout;
        let mut cache = RaggedCache::with_capacity(layout, cache_type, prompt.len());
        let mut recorder = Recorder::new(request, layout, prompt.len());
        let mut last = None;
        for tokens in prompt.chunks(CHUNK) {
            recorder.begin_chunk(cache.next_position());
            let hidden = decoder.forward(&mut [Row { tokens, cache: &mut cache }], Some(&mut recorder))?;
            last = Some(hidden.narrow(0, tokens.len() - 1, 1)?);
            progress(cache.next_position());
        }
        let last = last.ok_or(ModelError::EmptyPrompt)?;
        let logits = decoder.finite_logits(&last, || format!("after the {} tokens of the prompt", prompt.len()))?;
        Ok(Self {
            cache: Arc::new(cache.into_prompt()),
            request,
            observations: recorder.into_layers(),
            logits,
            rotary: decoder.rotary(),
        })
    }

    /// Keys and values of the whole prompt.
    pub fn cache(&self) -> &Arc<PromptCache> {
        &self.cache
    }

    /// Prompt tokens.
    pub fn prompt_len(&self) -> usize {
        self.cache.len()
    }

    /// Logits of the first token after the prompt, which no compression can change: `[vocabulary]`.
    pub fn logits(&self) -> &[f32] {
        &self.logits
    }

    /// Scores of a method for every token, KV head and layer.
    pub fn score(&self, method: &Method) -> Result<TokenScores, ModelError> {
        Ok(self.score_all(&[method])?.swap_remove(0))
    }

    /// Scores of several methods, in their order; what they look at is made once per layer for all of them.
    pub fn score_all(&self, methods: &[&Method]) -> Result<Vec<TokenScores>, ModelError> {
        let layout = self.cache.layout();
        let mut scored = vec![TokenScores::with_capacity(layout, self.prompt_len()); methods.len()];
        for layer in 0..layout.layers {
            self.view(layer, |view| -> Result<(), ModelError> {
                for (method, scores) in methods.iter().zip(&mut scored) {
                    scores.push_layer(&method.score(view)?);
                }
                Ok(())
            })?;
        }
        Ok(scored)
    }

    /// What a method keeps of this prompt when all heads together may keep `total` tokens.
    pub fn select(&self, method: &Method, total: usize) -> Result<Selection, ModelError> {
        Ok(method.select(self.cache.layout(), &self.score(method)?, total)?)
    }

    /// Lends one layer as compressors see it. What was not asked for at prefill is absent.
    pub fn view<T>(&self, layer: usize, work: impl FnOnce(&LayerView<'_>) -> T) -> T {
        let layout = self.cache.layout();
        let prompt_len = self.prompt_len();
        let observed = &self.observations[layer];
        let window = observed.window_queries.len() / (layout.query_heads * layout.head_dim);
        let attention = match window {
            0 => Vec::new(),
            _ => window_attention(layout, layer, &observed.window_queries, &RaggedCache::full(&self.cache)),
        };
        let keys = self.request.keys.then(|| self.gather(layer, HeadRows::keys));
        let values = self.request.values.then(|| self.gather(layer, HeadRows::values));
        let statistics = observed.query_statistics(layout);
        work(&LayerView {
            layer,
            layout,
            prompt_len,
            window,
            window_attention: &attention,
            column_sums: Some(observed.column_sums.as_slice()).filter(|sums| !sums.is_empty()),
            query_statistics: statistics.as_ref(),
            keys: keys.as_deref(),
            values: values.as_deref(),
            value_output_norms: Some(observed.value_output_norms.as_slice()).filter(|norms| !norms.is_empty()),
            rotary: Some(&self.rotary),
        })
    }

    /// `[kv_heads, prompt_len, head_dim]` in f32.
    fn gather(&self, layer: usize, part: impl Fn(&HeadRows) -> &crate::cache::Elements) -> Vec<f32> {
        let HeadLayout { kv_heads, head_dim, .. } = self.cache.layout();
        let width = self.prompt_len() * head_dim;
        let mut all = vec![0.0; kv_heads * width];
        for (kv_head, out) in all.chunks_exact_mut(width).enumerate() {
            part(self.cache.head(layer, kv_head)).widen(0..width, out);
        }
        all
    }
}
