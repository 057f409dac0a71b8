//! A layer of a prompt that nobody wrote, with everything that a compressor may look at.

use crate::random::mix;
use crate::{
    BlockSums, Frame, HeadLayout, LayerView, LearnedLayer, ObservationRequest, QueryStatistics, Replay, Replayed,
    RotaryEmbedding, RotaryPairs, WindowSum,
};

/// Queries, keys and values of one layer, and causal attention over them.
#[derive(Clone, Debug)]
pub struct MadeUpPrompt {
    layout: HeadLayout,
    tokens: Vec<u32>,
    frame: Frame,
    kept: Option<usize>,
    /// `[query_heads, tokens, head_dim]`
    queries: Vec<f32>,
    /// `[query_heads, tokens, tokens]`
    attention: Vec<f32>,
    /// The last rows of the same, as many as are shown.
    window_attention: Vec<f32>,
    /// `[query_heads, tokens]` each.
    window_sums: Vec<(WindowSum, Vec<f32>)>,
    /// `[query_heads, tokens]` each.
    block_sums: Vec<(BlockSums, Vec<f32>)>,
    shown: ObservationRequest,
    column_sums: Vec<f32>,
    keys: Vec<f32>,
    values: Vec<f32>,
    value_output_norms: Vec<f32>,
    output_grams: Vec<f32>,
    inputs: Vec<f32>,
    /// `[shown, query_heads, head_dim]`
    last_queries: Vec<f32>,
    replays: Vec<(Replay, Vec<Replayed>)>,
    statistics: Option<QueryStatistics>,
    rotary: RotaryEmbedding,
    learned: LearnedLayer,
}

/// A number for a head, a token and a channel.
type Formula<'a> = &'a dyn Fn(usize, usize, usize) -> f64;

impl MadeUpPrompt {
    /// Numbers between -1 and 1 that are the same every time.
    pub fn new(layout: HeadLayout, tokens: usize) -> Self {
        let number = |seed: u64, head: usize, token: usize, channel: usize| {
            let bits = [head, token, channel].iter().fold(seed, |bits, &part| mix(bits ^ part as u64));
            2.0 * (bits >> 11) as f64 / (1u64 << 53) as f64 - 1.0
        };
        Self::of(layout, tokens, &|h, t, c| 3.0 * number(1, h, t, c), &|h, t, c| number(2, h, t, c), &|h, t, c| {
            number(3, h, t, c)
        })
    }

    /// Queries of the query heads, keys and values of the KV heads, by formulas.
    pub fn of(layout: HeadLayout, tokens: usize, query: Formula<'_>, key: Formula<'_>, value: Formula<'_>) -> Self {
        let HeadLayout { query_heads, kv_heads, head_dim, .. } = layout;
        let vectors = |heads: usize, of: Formula<'_>| -> Vec<f64> {
            let places = (0..heads).flat_map(|head| (0..tokens).map(move |token| (head, token)));
            places.flat_map(|(head, token)| (0..head_dim).map(move |c| of(head, token, c))).collect()
        };
        let single = |numbers: &[f64]| numbers.iter().map(|&number| number as f32).collect::<Vec<f32>>();
        let (queries, keys) = (vectors(query_heads, query), vectors(kv_heads, key));
        let mut attention = Vec::with_capacity(query_heads * tokens * tokens);
        for (head, queries) in queries.chunks_exact((tokens * head_dim).max(1)).enumerate() {
            let keys = &keys[head / layout.group() * tokens * head_dim..][..tokens * head_dim];
            for (row, query) in queries.chunks_exact(head_dim).enumerate() {
                let product = |key: &[f64]| query.iter().zip(key).map(|(q, k)| q * k).sum::<f64>();
                let weight = |(token, key)| {
                    if token <= row { (product(key) / (head_dim as f64).sqrt()).exp() } else { 0.0 }
                };
                let weights: Vec<f64> = keys.chunks_exact(head_dim).enumerate().map(weight).collect();
                let sum: f64 = weights.iter().sum();
                attention.extend(weights.iter().map(|weight| (weight / sum) as f32));
            }
        }
        let column = |at: usize| {
            let (head, token) = (at / tokens, at % tokens);
            (0..tokens).map(|row| attention[(head * tokens + row) * tokens + token]).sum()
        };
        let column_sums = (0..query_heads * tokens).map(column).collect();
        Self {
            layout,
            tokens: (0..tokens as u32).collect(),
            frame: Frame::default(),
            kept: None,
            queries: single(&queries),
            window_attention: attention.clone(),
            attention,
            window_sums: Vec::new(),
            block_sums: Vec::new(),
            shown: ObservationRequest {
                window: tokens,
                window_sums: Vec::new(),
                column_sums: true,
                block_sums: Vec::new(),
                query_statistics: true,
                keys: true,
                values: true,
                value_output_norms: true,
                output_grams: true,
                inputs: true,
                queries: tokens,
            },
            column_sums,
            keys: single(&keys),
            values: single(&vectors(kv_heads, value)),
            value_output_norms: (0..query_heads * tokens).map(|at| 1.0 + (at * 7 % 11) as f32).collect(),
            output_grams: grams(layout),
            inputs: (0..tokens * INPUTS).map(|at| (at as f32 * 0.7).sin()).collect(),
            last_queries: last_queries(layout, &single(&queries), tokens),
            replays: Vec::new(),
            statistics: statistics(layout, tokens, &queries),
            rotary: RotaryEmbedding {
                frequencies: (0..head_dim / 2).map(|pair| 0.01f32.powi(pair as i32)).collect(),
                scale: 1.0,
                pairs: RotaryPairs::Halves,
            },
            learned: learned(layout, &queries),
        }
    }

    /// The same, its last tokens those of a chat template.
    pub fn with_tail(self, tail: usize) -> Self {
        self.within(Frame::with_tail(tail))
    }

    /// The same, made of these parts.
    pub fn within(self, frame: Frame) -> Self {
        Self { frame, ..self }
    }

    /// The same with a budget, of so many tokens for each head.
    pub fn with_budget(self, kept: usize) -> Self {
        Self { kept: Some(kept), ..self }
    }

    /// The same with other products of the output projection with itself, `[query_heads, head_dim, head_dim]`.
    pub fn with_output_grams(self, output_grams: Vec<f32>) -> Self {
        Self { output_grams, ..self }
    }

    /// The same under another rotation. Keys and queries stay as they are: they are what was turned.
    pub fn with_rotary(self, rotary: RotaryEmbedding) -> Self {
        Self { rotary, ..self }
    }

    /// The same after a second pass.
    pub fn replayed(mut self, replay: Replay, seen: Replayed) -> Self {
        self.replays.push((replay, vec![seen]));
        self
    }

    /// The same where prefill has recorded no more than what a compressor asked for.
    pub fn showing(mut self, request: ObservationRequest) -> Self {
        let (tokens, window) = (self.tokens.len(), request.window.min(self.tokens.len()));
        let heads = self.attention.chunks_exact((tokens * tokens).max(1));
        self.window_attention = heads.clone().flat_map(|rows| &rows[(tokens - window) * tokens..]).copied().collect();
        let of_heads = |sum: WindowSum| heads.clone().flat_map(|rows| sum.of(rows, tokens)).collect();
        self.window_sums = request.window_sums.iter().map(|&sum| (sum, of_heads(sum))).collect();
        self.block_sums = request.block_sums.iter().map(|&sums| (sums, self.sums_of_blocks(sums))).collect();
        self.last_queries = last_queries(self.layout, &self.queries, request.queries.min(tokens));
        self.shown = ObservationRequest { window, ..request };
        self
    }

    /// The same where prefill has also recorded this. A prompt that nobody asked anything shows all that there is but
    /// sums of its window, of which there are too many.
    pub fn showing_also(self, request: ObservationRequest) -> Self {
        let all = self.shown.clone().union(request);
        self.showing(all)
    }

    /// `[query_heads, tokens]`
    fn sums_of_blocks(&self, sums: BlockSums) -> Vec<f32> {
        let (tokens, dim) = (self.tokens.len(), self.layout.head_dim);
        let mut all = vec![0.0; self.layout.query_heads * tokens];
        for query_head in 0..self.layout.query_heads {
            let queries = &self.queries[query_head * tokens * dim..][..tokens * dim];
            let keys = &self.keys[query_head / self.layout.group() * tokens * dim..][..tokens * dim];
            for block in sums.blocks(tokens) {
                let of_block = |vectors| <[f32]>::chunks_exact(vectors, dim).skip(block.start).take(block.len());
                let dot = |(query, key): (&[f32], &[f32])| query.iter().zip(key).map(|(q, k)| q * k).sum::<f32>();
                let pairs = of_block(queries).flat_map(|query| of_block(keys).map(move |key| (query, key)));
                let mut logits: Vec<f32> = pairs.map(dot).collect();
                all[query_head * tokens..][block.clone()].copy_from_slice(&sums.of(&mut logits, block.len()));
            }
        }
        all
    }

    /// The layer as a compressor sees it.
    pub fn view(&self) -> LayerView<'_> {
        let shown = &self.shown;
        LayerView {
            layer: 0,
            layout: self.layout,
            first_kv_head: 0,
            prompt_len: self.tokens.len(),
            tokens: &self.tokens,
            positions: None,
            frame: self.frame,
            kept: self.kept,
            window: shown.window,
            window_attention: &self.window_attention,
            window_sums: &self.window_sums,
            column_sums: shown.column_sums.then_some(&self.column_sums),
            block_sums: &self.block_sums,
            query_statistics: self.statistics.as_ref().filter(|_| shown.query_statistics),
            keys: shown.keys.then_some(&self.keys),
            values: shown.values.then_some(&self.values),
            value_output_norms: shown.value_output_norms.then_some(&self.value_output_norms),
            output_grams: shown.output_grams.then_some(&self.output_grams),
            inputs: shown.inputs.then_some(&self.inputs),
            queries: &self.last_queries,
            replays: &self.replays,
            rotary: Some(&self.rotary),
            learned: Some(&self.learned),
        }
    }

    /// The same with the KV heads moved on by one, the last to the front.
    pub fn rotated(&self) -> Self {
        let mut rotated = self.clone();
        let statistics = rotated.statistics.iter_mut().flat_map(|s| [&mut s.mean, &mut s.covariance]);
        let observations = [
            &mut rotated.queries,
            &mut rotated.attention,
            &mut rotated.window_attention,
            &mut rotated.column_sums,
            &mut rotated.keys,
            &mut rotated.values,
            &mut rotated.value_output_norms,
            &mut rotated.output_grams,
        ];
        let sums = rotated.window_sums.iter_mut().map(|(_, of_heads)| of_heads);
        let of_blocks = rotated.block_sums.iter_mut().map(|(_, of_heads)| of_heads);
        let replays = rotated
            .replays
            .iter_mut()
            .flat_map(|(_, layers)| layers)
            .flat_map(|seen| [&mut seen.weights, &mut seen.weights_by_input, &mut seen.queries]);
        let LearnedLayer { queries, lengths, directions, guess } = &mut rotated.learned;
        let learned = [&mut queries.mean, &mut queries.covariance, lengths, directions, guess];
        for heads in
            observations.into_iter().chain(statistics).chain(learned).chain(sums).chain(of_blocks).chain(replays)
        {
            let of_a_head = heads.len() / self.layout.kv_heads;
            heads.rotate_right(of_a_head);
        }
        rotated.last_queries = last_queries(self.layout, &rotated.queries, rotated.shown.queries);
        rotated
    }
}

/// `[count, query_heads, head_dim]` of queries `[query_heads, tokens, head_dim]`.
fn last_queries(layout: HeadLayout, queries: &[f32], count: usize) -> Vec<f32> {
    let HeadLayout { query_heads, head_dim, .. } = layout;
    let tokens = queries.len() / (query_heads * head_dim).max(1);
    let place = |token: usize, head: usize| (head * tokens + token) * head_dim;
    let places =
        (tokens.saturating_sub(count)..tokens).flat_map(|token| (0..query_heads).map(move |head| (token, head)));
    places.flat_map(|(token, head)| &queries[place(token, head)..][..head_dim]).copied().collect()
}

/// What is learned of a model from the prompt's own queries, `[query_heads, tokens, head_dim]`, for two elements that lie half a
/// vector apart; directions are their means, and the guess means nothing.
fn learned(layout: HeadLayout, queries: &[f64]) -> LearnedLayer {
    let HeadLayout { query_heads, kv_heads, head_dim, .. } = layout;
    let tokens = queries.len() / (query_heads * head_dim).max(1);
    let statistics = statistics(layout, tokens, queries);
    let mut lengths = vec![0.0f32; query_heads * (head_dim / 2)];
    for (at, query) in queries.chunks_exact(head_dim).enumerate() {
        let of_head = &mut lengths[at / tokens * (head_dim / 2)..][..head_dim / 2];
        let pairs = query.iter().zip(&query[head_dim / 2..]);
        of_head.iter_mut().zip(pairs).for_each(|(sum, (x, y))| *sum += (x.hypot(*y) / tokens as f64) as f32);
    }
    let directions = (0..kv_heads * head_dim).map(|at| (at as f32 * 0.9).cos()).collect();
    let guess = (0..kv_heads * (INPUTS + 1)).map(|at| (at as f32 * 1.3).sin()).collect();
    let nothing = || QueryStatistics {
        mean: vec![0.0; query_heads * head_dim],
        covariance: vec![0.0; query_heads * head_dim * head_dim],
    };
    LearnedLayer { queries: statistics.unwrap_or_else(nothing), lengths, directions, guess }
}

/// Width of made-up hidden states.
const INPUTS: usize = 6;

/// `[query_heads, head_dim, head_dim]` of some output projection with three outputs.
fn grams(layout: HeadLayout) -> Vec<f32> {
    let weight =
        |head: usize, channel: usize, output: usize| (0.5 * ((head + 1) * (channel + 1) * (output + 1)) as f64).cos();
    grams_of(layout, 3, &weight)
}

/// `W_oᵀ W_o` of every query head, `[query_heads, head_dim, head_dim]`, of an output projection by a formula for a head, a channel
/// and an output.
pub fn grams_of(layout: HeadLayout, outputs: usize, weight: &dyn Fn(usize, usize, usize) -> f64) -> Vec<f32> {
    let dim = layout.head_dim;
    let place = |at: usize| (at / (dim * dim), at / dim % dim, at % dim);
    let product = |(head, a, b): (usize, usize, usize)| {
        (0..outputs).map(|output| weight(head, a, output) * weight(head, b, output)).sum::<f64>() as f32
    };
    (0..layout.query_heads * dim * dim).map(|at| product(place(at))).collect()
}

/// Of queries `[query_heads, tokens, head_dim]`; none where the prompt ends before the first that counts.
fn statistics(layout: HeadLayout, tokens: usize, queries: &[f64]) -> Option<QueryStatistics> {
    let (dim, first) = (layout.head_dim, QueryStatistics::FIRST_POSITION);
    let counted = tokens.checked_sub(first).filter(|&counted| counted > 0)?;
    let (mut means, mut covariances) = (Vec::new(), Vec::new());
    for head in queries.chunks_exact(tokens * dim) {
        let head = &head[first * dim..];
        let mean = |of: &dyn Fn(&[f64]) -> f64| head.chunks_exact(dim).map(of).sum::<f64>() / counted as f64;
        let of_channels: Vec<f64> = (0..dim).map(|channel| mean(&|query| query[channel])).collect();
        for (a, b) in (0..dim * dim).map(|at| (at / dim, at % dim)) {
            covariances.push((mean(&|query| query[a] * query[b]) - of_channels[a] * of_channels[b]) as f32);
        }
        means.extend(of_channels.into_iter().map(|mean| mean as f32));
    }
    Some(QueryStatistics { mean: means, covariance: covariances })
}
