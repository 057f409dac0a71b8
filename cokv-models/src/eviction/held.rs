//! One KV head of a cache, as compressors see it while a model answers.

use cokv_core::{HeadLayout, LayerView, ObservationRequest, Pairs, QueryStatistics, RotaryEmbedding, WindowSum};

use crate::backend::host::Moments;
use crate::cache::RaggedCache;
use crate::error::ModelError;
use crate::kernel::attention::max_row;
use crate::kernel::matmul::multiply_transposed;
use crate::kernel::simd::exp_row;

/// The last queries of a layer.
pub struct Queries {
    /// After RoPE, oldest first: `[count, query_heads, head_dim]`.
    pub of_layer: Vec<f32>,
    /// Where the oldest of them stands; the others follow one after the other.
    pub first_position: usize,
    /// How many there are.
    pub count: usize,
}

/// What is known of the tokens that a head holds.
pub struct HeldHead<'a> {
    layer: usize,
    kv_head: usize,
    /// Of the head and its group alone.
    layout: HeadLayout,
    positions: Vec<u32>,
    pairs: Pairs,
    /// Rows of `attention`.
    window: usize,
    /// `[group, window, held]`
    attention: Vec<f32>,
    window_sums: Vec<(WindowSum, Vec<f32>)>,
    /// `[group, held]`, if asked for.
    column_sums: Option<Vec<f32>>,
    /// If asked for.
    statistics: Option<QueryStatistics>,
    /// `[queries, group, head_dim]`
    queries: Vec<f32>,
    request: &'a ObservationRequest,
    rotary: &'a RotaryEmbedding,
}

impl<'a> HeldHead<'a> {
    /// Looks at a head, counted flat. `sums` is the attention that its tokens got until the last look, and how many tokens came
    /// since; `sliding` the layer's window.
    pub fn look(
        cache: &RaggedCache,
        head: usize,
        queries: &Queries,
        request: &'a ObservationRequest,
        sums: Option<(&[f32], usize)>,
        sliding: Option<usize>,
        rotary: &'a RotaryEmbedding,
    ) -> Result<Self, ModelError> {
        let model = cache.layout();
        let (layer, kv_head) = model.place(head);
        let (group, dim) = (model.group(), model.head_dim);
        let layout = HeadLayout { query_heads: group, kv_heads: 1, ..model };
        let (positions, pairs) = (cache.positions(layer, kv_head), cache.read(head)?);
        // [count, group, head_dim]
        let of_tokens = queries.of_layer.chunks_exact(model.query_heads * dim);
        let own: Vec<f32> = of_tokens.flat_map(|all| &all[kv_head * group * dim..][..group * dim]).copied().collect();
        let mut held = Self {
            layer,
            kv_head,
            layout,
            window: 0,
            attention: Vec::new(),
            window_sums: Vec::new(),
            column_sums: None,
            statistics: request
                .query_statistics
                .then(|| statistics(layout, &own, queries.first_position, rotary))
                .flatten(),
            queries: own[own.len() - request.queries.min(queries.count) * group * dim..].to_vec(),
            positions,
            pairs,
            request,
            rotary,
        };
        if request.last_queries() > request.queries || sums.is_some() {
            let attention = held.attention_of(&own, queries, sliding);
            held.observe(attention, queries.count, sums);
        }
        Ok(held)
    }

    /// Softmax attention of the queries to what is held, `[group, count, held]`: to what stands before them, and not before their
    /// sliding window.
    fn attention_of(&self, own: &[f32], queries: &Queries, sliding: Option<usize>) -> Vec<f32> {
        let (group, dim, held) = (self.layout.group(), self.layout.head_dim, self.positions.len());
        let scale = (dim as f32).sqrt().recip();
        let scaled: Vec<f32> = own.iter().map(|x| x * scale).collect();
        let mut logits = vec![0.0; queries.count * group * held];
        if held > 0 {
            multiply_transposed(&scaled, &self.pairs.keys, dim, &mut logits);
        }
        let mut attention = vec![0.0; logits.len()];
        for (index, row) in logits.chunks_exact_mut(held.max(1)).enumerate() {
            let (query, member) = (index / group, index % group);
            let end = queries.first_position + query + 1;
            let before = |position: usize| self.positions.partition_point(|&at| (at as usize) < position);
            let visible = before(end.saturating_sub(sliding.unwrap_or(end)))..before(end);
            let row = &mut row[visible.clone()];
            if let Some(biases) = self.pairs.biases.get(visible.clone()) {
                row.iter_mut().zip(biases).for_each(|(logit, bias)| *logit += bias);
            }
            let sum = exp_row(row, max_row(row));
            let target = &mut attention[(member * queries.count + query) * held..][..held];
            target[visible].iter_mut().zip(row).for_each(|(target, weight)| *target = *weight / sum);
        }
        attention
    }

    /// Takes what was asked for out of the attention of all queries, `[group, count, held]`.
    fn observe(&mut self, attention: Vec<f32>, count: usize, sums: Option<(&[f32], usize)>) {
        let held = self.positions.len();
        let members = || attention.chunks_exact((count * held).max(1));
        let of_heads = |sum: WindowSum| members().flat_map(|rows| sum.of(rows, held)).collect();
        self.window_sums = self.request.window_sums.iter().map(|&sum| (sum, of_heads(sum))).collect();
        self.column_sums = sums.map(|(before, since)| {
            let old = before.len() / self.layout.group();
            let mut all = Vec::with_capacity(self.layout.group() * held);
            for (member, rows) in members().enumerate() {
                let mut sums = vec![0.0; held];
                sums[..old].copy_from_slice(&before[member * old..(member + 1) * old]);
                for row in rows[(count - since.min(count)) * held..].chunks_exact(held) {
                    sums.iter_mut().zip(row).for_each(|(sum, weight)| *sum += weight);
                }
                all.extend(sums);
            }
            all
        });
        self.window = self.request.window.min(count);
        self.attention = members().flat_map(|rows| &rows[(count - self.window) * held..]).copied().collect();
    }

    /// The head as a compressor sees it.
    pub fn view(&self) -> LayerView<'_> {
        LayerView {
            first_kv_head: self.kv_head,
            prompt_len: self.positions.len(),
            positions: Some(&self.positions),
            window: self.window,
            window_attention: &self.attention,
            window_sums: &self.window_sums,
            column_sums: self.column_sums.as_deref(),
            query_statistics: self.statistics.as_ref(),
            keys: self.request.keys.then_some(&self.pairs.keys),
            values: self.request.values.then_some(&self.pairs.values),
            queries: &self.queries,
            rotary: Some(self.rotary),
            ..LayerView::new(self.layer, self.layout, &[])
        }
    }

    /// Attention that its tokens got so far, `[group, held]`.
    pub fn take_column_sums(&mut self) -> Vec<f32> {
        self.column_sums.take().unwrap_or_default()
    }
}

/// Mean and covariance of queries `[count, query_heads, head_dim]` before they were turned by their positions.
fn statistics(layout: HeadLayout, queries: &[f32], first: usize, rotary: &RotaryEmbedding) -> Option<QueryStatistics> {
    let HeadLayout { query_heads, head_dim, .. } = layout;
    let mut before = queries.to_vec();
    for (token, heads) in before.chunks_exact_mut(query_heads * head_dim).enumerate() {
        heads.chunks_exact_mut(head_dim).for_each(|query| rotary.turn_back(query, first + token));
    }
    let mut moments = Moments::default();
    moments.add(layout, &before);
    moments.statistics(layout)
}
