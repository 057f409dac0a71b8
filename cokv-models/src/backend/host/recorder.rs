//! What prefill records for the compressors, layer by layer and chunk by chunk.

use std::ops::Range;

use cokv_core::{HeadLayout, ObservationRequest, QueryStatistics, Replayed, WindowSum};

use super::blocks::PendingBlocks;
use super::last_queries::LastQueries;
use super::moments::Moments;
use super::replay::ReplayRecorder;
use crate::backend::{Layer, LayerSummaries, Replaying, Watch};
use crate::kernel::attention::{self, CacheView, column_sums, window_attention};
use crate::kernel::matmul::multiply_transposed;
use crate::kernel::pool;
use crate::kernel::rows::{Elements, HeadRows};

/// Collects the observations of one prompt while it is prefilled, or the queries of an answer.
pub struct Recorder {
    request: ObservationRequest,
    layout: HeadLayout,
    prompt_len: usize,
    /// Prompt tokens prefilled before the current chunk.
    seen: usize,
    layers: Vec<LayerObservations>,
    /// Where tokens of a prompt are fed again; nothing else is then recorded.
    replay: Option<ReplayRecorder>,
    /// Where it is an answer that is watched; nothing else is then recorded.
    answer: Option<LastQueries>,
}

/// What was recorded of one layer.
#[derive(Clone, Debug, Default)]
struct LayerObservations {
    /// Queries after RoPE of the last tokens that anything is asked of: `[last_queries, query_heads, head_dim]`.
    window_queries: Vec<f32>,
    /// `[query_heads, prompt_len]`; empty unless asked for.
    column_sums: Vec<f32>,
    /// `[query_heads, prompt_len]`; empty unless asked for.
    value_output_norms: Vec<f32>,
    /// `[query_heads, head_dim, head_dim]`; empty unless asked for.
    output_grams: Vec<f32>,
    /// `[prompt_len, hidden_size]`; empty unless asked for.
    inputs: Vec<f32>,
    blocks: PendingBlocks,
    moments: Moments,
}

impl Watch for Recorder {}

impl Recorder {
    /// Nothing recorded yet.
    pub fn new(request: ObservationRequest, layout: HeadLayout, prompt_len: usize) -> Self {
        let of_layer =
            || LayerObservations { blocks: PendingBlocks::new(&request.block_sums), ..LayerObservations::default() };
        let layers = (0..layout.layers).map(|_| of_layer()).collect();
        Self { request, layout, prompt_len, seen: 0, layers, replay: None, answer: None }
    }

    /// Nothing recorded yet of an answer, whose last `count` queries will be.
    pub fn of_answer(count: usize, layout: HeadLayout) -> Self {
        let answer = Some(LastQueries::new(layout.layers, count, layout.query_heads * layout.head_dim));
        Self { answer, ..Self::new(ObservationRequest::default(), layout, 0) }
    }

    /// Nothing recorded yet of a chunk of a prompt that is fed again.
    pub fn of_replay(replaying: Replaying, layout: HeadLayout) -> Self {
        let prompt_len = replaying.prompt_len;
        let replay = Some(ReplayRecorder::new(replaying, layout));
        Self { replay, ..Self::new(ObservationRequest::default(), layout, prompt_len) }
    }

    /// The next chunk begins after this many tokens.
    pub fn begin_chunk(&mut self, seen: usize) {
        self.seen = seen;
        self.replay.iter_mut().for_each(|replay| replay.begin_pass(seen));
    }

    /// `[tokens, query_heads, head_dim]` of the current chunk.
    pub fn queries_before_rope(&mut self, layer: usize, queries: &[f32]) {
        if !self.request.query_statistics {
            return;
        }
        let first = QueryStatistics::FIRST_POSITION.saturating_sub(self.seen);
        let skipped = first * self.layout.query_heads * self.layout.head_dim;
        if let Some(counted) = queries.get(skipped..).filter(|counted| !counted.is_empty()) {
            self.layers[layer].moments.add(self.layout, counted);
        }
    }

    /// Hidden states behind a layer's first norm of the current chunk, `[tokens, width]`.
    pub fn inputs(&mut self, layer: usize, inputs: &[f32], width: usize) {
        if self.request.inputs {
            self.layers[layer].inputs.extend_from_slice(inputs);
        }
        self.replay.iter_mut().for_each(|replay| replay.inputs(inputs, width));
    }

    /// Whether [`Recorder::inputs`] should be called.
    pub fn wants_inputs(&self) -> bool {
        self.request.inputs || self.replay.is_some()
    }

    /// Whether [`Recorder::output_grams`] should be called for a layer: once.
    pub fn wants_output_grams(&self, layer: usize) -> bool {
        self.request.output_grams && self.layers[layer].output_grams.is_empty()
    }

    /// `W_oᵀ W_o` of each query head, of the output projection, `[hidden_size, query_heads * head_dim]`.
    pub fn output_grams(&mut self, layer: usize, output: &[f32]) {
        let HeadLayout { query_heads, head_dim, .. } = self.layout;
        let width = query_heads * head_dim;
        let rows = output.len() / width;
        let of_heads = pool::map(query_heads, |head| {
            let column = |channel| (0..rows).map(move |row| output[row * width + head * head_dim + channel]);
            let columns: Vec<f32> = (0..head_dim).flat_map(column).collect();
            let mut gram = vec![0.0; head_dim * head_dim];
            multiply_transposed(&columns, &columns, rows, &mut gram);
            gram
        });
        self.layers[layer].output_grams = of_heads.concat();
    }

    /// Whether [`Recorder::answer_queries`] should be called.
    pub fn wants_answer_queries(&self) -> bool {
        self.answer.is_some()
    }

    /// Queries of new tokens after RoPE, `[tokens, query_heads, head_dim]`.
    pub fn answer_queries(&mut self, layer: usize, queries: &[f32]) {
        self.answer.iter_mut().for_each(|answer| answer.add(layer, queries));
    }

    /// The last queries of an answer, `[tokens, query_heads, head_dim]`; none where no answer is watched.
    pub fn last_queries(&self, layer: usize) -> Vec<f32> {
        self.answer.as_ref().map_or(Vec::new(), |answer| answer.of_layer(layer).to_vec())
    }

    /// Whether [`Recorder::chunk_queries`] should be called.
    pub fn wants_chunk_queries(&self) -> bool {
        self.replay.is_some() || !self.request.block_sums.is_empty()
    }

    /// The chunk's queries after RoPE, `[tokens, query_heads, head_dim]`; `keys` puts those of a range of a KV head's tokens behind
    /// others.
    pub fn chunk_queries(
        &mut self,
        layer: usize,
        queries: &[f32],
        keys: impl Fn(usize, Range<usize>, &mut Vec<f32>) + Sync,
    ) {
        match &mut self.replay {
            Some(replay) => replay.attention(layer, queries, keys),
            None => self.layers[layer].blocks.add(self.layout, self.prompt_len, self.seen, queries, keys),
        }
    }

    /// What a layer's chunk got of fed tokens; nothing where none were fed.
    pub fn replayed(&mut self, layer: usize) -> Replayed {
        self.replay.as_mut().map(|replay| replay.of_layer(layer)).unwrap_or_default()
    }

    /// Whether [`Recorder::value_output_norms`] should be called.
    pub fn wants_value_output_norms(&self) -> bool {
        self.request.value_output_norms
    }

    /// `[query_heads, tokens]` of the current chunk.
    pub fn value_output_norms(&mut self, layer: usize, norms: &[f32]) {
        let HeadLayout { query_heads, .. } = self.layout;
        let all = &mut self.layers[layer].value_output_norms;
        all.resize(query_heads * self.prompt_len, 0.0);
        let chunk = norms.chunks_exact(norms.len() / query_heads);
        for (head, norms) in all.chunks_exact_mut(self.prompt_len).zip(chunk) {
            head[self.seen..][..norms.len()].copy_from_slice(norms);
        }
    }

    /// The chunk's queries after RoPE, its cache, and the normalisers of its attention.
    pub(crate) fn attention(&mut self, layer: usize, row: &attention::Row<'_>, log_sum_exp: &[f32]) {
        if self.wants_answer_queries() {
            return self.answer_queries(layer, row.queries);
        }
        let HeadLayout { query_heads, head_dim, .. } = self.layout;
        let width = query_heads * head_dim;
        let observed = &mut self.layers[layer];
        let window_start = self.prompt_len.saturating_sub(self.request.last_queries());
        let from = window_start.saturating_sub(self.seen).min(row.queries.len() / width);
        observed.window_queries.extend_from_slice(&row.queries[from * width..]);
        if self.wants_chunk_queries() {
            self.chunk_queries(layer, row.queries, |kv_head, range, behind: &mut Vec<f32>| {
                if !range.is_empty() {
                    let mut scratch = Vec::new();
                    let head = row.cache.head(layer, kv_head);
                    behind.extend_from_slice(head.load(HeadRows::keys, range, head_dim, &mut scratch));
                }
            });
        }

        if self.request.column_sums {
            let observed = &mut self.layers[layer];
            observed.column_sums.resize(query_heads * self.prompt_len, 0.0);
            let chunk = column_sums(self.layout, layer, row, log_sum_exp);
            let keys = chunk.len() / query_heads;
            let totals = observed.column_sums.chunks_exact_mut(self.prompt_len);
            for (total, chunk) in totals.zip(chunk.chunks_exact(keys)) {
                total.iter_mut().zip(chunk).for_each(|(total, more)| *total += more);
            }
        }
    }
}

impl Recorder {
    /// What compressors see of a layer. `prompt` is a cache that holds the whole prompt in every head, and perhaps what follows it.
    pub fn summaries(&self, layer: Layer, prompt: CacheView<'_>) -> LayerSummaries {
        let Layer { index: layer, window: sliding } = layer;
        let HeadLayout { query_heads, head_dim, .. } = self.layout;
        let observed = &self.layers[layer];
        // Computed when a layer is looked at, so that it never exists for all layers at once.
        let attention = match observed.window_queries.as_slice() {
            [] => Vec::new(),
            _ if self.request.window == 0 && self.request.window_sums.is_empty() => Vec::new(),
            queries => window_attention(self.layout, layer, queries, (prompt, self.prompt_len), sliding),
        };
        let of_a_head = attention.len() / query_heads;
        let head = |query_head: usize| &attention[query_head * of_a_head..][..of_a_head];
        let of_heads = |sum: WindowSum| pool::map(query_heads, |at| sum.of(head(at), self.prompt_len)).concat();
        let window_sums = self.request.window_sums.iter().map(|&sum| (sum, of_heads(sum))).collect();
        let recorded = observed.window_queries.len() / (query_heads * head_dim);
        let window = self.request.window.min(recorded);
        let window_attention = match window == recorded {
            true => attention,
            // Sums look further back.
            false => {
                (0..query_heads).flat_map(|at| &head(at)[of_a_head - window * self.prompt_len..]).copied().collect()
            }
        };
        let widened = |wanted: bool, part: fn(&HeadRows) -> &Elements| match wanted {
            true => self.widened(layer, prompt, part),
            false => Vec::new(),
        };
        LayerSummaries {
            window,
            window_attention,
            window_sums,
            column_sums: observed.column_sums.clone(),
            block_sums: observed.blocks.sums(self.layout, self.prompt_len),
            query_statistics: observed.moments.statistics(self.layout),
            keys: widened(self.request.keys, HeadRows::keys),
            values: widened(self.request.values, HeadRows::values),
            value_output_norms: observed.value_output_norms.clone(),
            output_grams: observed.output_grams.clone(),
            inputs: observed.inputs.clone(),
            queries: observed.window_queries
                [(recorded - self.request.queries.min(recorded)) * query_heads * head_dim..]
                .to_vec(),
        }
    }

    /// `[kv_heads, prompt_len, head_dim]`
    fn widened(&self, layer: usize, prompt: CacheView<'_>, part: fn(&HeadRows) -> &Elements) -> Vec<f32> {
        let HeadLayout { kv_heads, head_dim, .. } = self.layout;
        let mut all = Vec::with_capacity(kv_heads * self.prompt_len * head_dim);
        for kv_head in 0..kv_heads {
            let mut scratch = Vec::new();
            all.extend_from_slice(prompt.head(layer, kv_head).load(part, 0..self.prompt_len, head_dim, &mut scratch));
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_do_not_depend_on_the_chunks() {
        let layout = HeadLayout::new(1, 2, 1, 3).unwrap();
        let queries: Vec<f32> = (0..10 * 6).map(|i| (i as f32 * 0.7).sin()).collect();
        let record = |chunks: &[usize]| {
            let request = ObservationRequest { query_statistics: true, ..Default::default() };
            let mut recorder = Recorder::new(request, layout, 10);
            let mut seen = 0;
            for &tokens in chunks {
                recorder.begin_chunk(seen);
                recorder.queries_before_rope(0, &queries[seen * 6..(seen + tokens) * 6]);
                seen += tokens;
            }
            recorder.layers[0].moments.statistics(layout).unwrap()
        };
        let whole = record(&[10]);
        assert_eq!(record(&[3, 4, 3]), whole);
        let mean: f32 = (4..10).map(|token| queries[token * 6 + 4]).sum::<f32>() / 6.0;
        assert!((whole.mean[4] - mean).abs() < 1e-6);
        let variance: f32 = (4..10).map(|token| (queries[token * 6 + 4] - mean).powi(2)).sum::<f32>() / 6.0;
        assert!((whole.covariance[9 + 4] - variance).abs() < 1e-6);
    }
}
