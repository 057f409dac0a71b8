//! A prompt whose keys, queries and values are formulas, with everything that a compressor may look at.

use cokv_core::{
    ConfigTable, HeadLayout, HeadSelection, LayerView, Method, QueryStatistics, RotaryEmbedding, RotaryPairs,
    TokenScores,
};

use crate::registry;

/// Two KV heads of two query heads each, head_dim 4.
pub const LAYOUT: HeadLayout = HeadLayout { layers: 1, query_heads: 4, kv_heads: 2, head_dim: 4 };

/// One layer of a prompt: k = sin(1.7(t+1)(c+1)/(h+2) + 0.3h), q = 2 cos(0.9(t+1)(c+1)/(hq+1)),
/// v = sin(0.5(t+1) + c + h) · (1 + ((7t + 3h) mod 5) / 4), and causal attention over it.
#[derive(Clone)]
pub struct Prompt {
    tokens: usize,
    tail: usize,
    ids: Vec<u32>,
    /// `[query_heads, tokens, tokens]`
    attention: Vec<f32>,
    column_sums: Vec<f32>,
    keys: Vec<f32>,
    values: Vec<f32>,
    value_output_norms: Vec<f32>,
    statistics: Option<QueryStatistics>,
    rotary: RotaryEmbedding,
}

impl Prompt {
    pub fn new(tokens: usize) -> Self {
        let key =
            |h: usize, t: usize, c: usize| (1.7 * ((t + 1) * (c + 1)) as f64 / (h + 2) as f64 + 0.3 * h as f64).sin();
        let query = |h: usize, t: usize, c: usize| 2.0 * (0.9 * ((t + 1) * (c + 1)) as f64 / (h + 1) as f64).cos();
        let value = |h: usize, t: usize, c: usize| {
            (0.5 * (t + 1) as f64 + (c + h) as f64).sin() * (1.0 + ((7 * t + 3 * h) % 5) as f64 / 4.0)
        };
        let vectors = |of: &dyn Fn(usize, usize, usize) -> f64| -> Vec<f32> {
            let heads = (0..LAYOUT.kv_heads).flat_map(|h| (0..tokens).map(move |t| (h, t)));
            heads.flat_map(|(h, t)| (0..4).map(move |c| of(h, t, c) as f32)).collect()
        };
        let mut attention = Vec::new();
        for head in 0..LAYOUT.query_heads {
            for row in 0..tokens {
                let logit = |t: usize| (0..4).map(|c| query(head, row, c) * key(head / 2, t, c)).sum::<f64>() / 2.0;
                let weights: Vec<f64> = (0..tokens).map(|t| if t <= row { logit(t).exp() } else { 0.0 }).collect();
                let sum: f64 = weights.iter().sum();
                attention.extend(weights.iter().map(|weight| (weight / sum) as f32));
            }
        }
        let column = |at: usize| {
            let (head, token) = (at / tokens, at % tokens);
            (0..tokens).map(|row| attention[(head * tokens + row) * tokens + token]).sum()
        };
        let first = QueryStatistics::FIRST_POSITION;
        let statistics = (tokens > first).then(|| {
            let mean_of = |of: &dyn Fn(usize) -> f64| (first..tokens).map(of).sum::<f64>() / (tokens - first) as f64;
            let mean = |h: usize, c: usize| mean_of(&|t| query(h, t, c));
            let heads = 0..LAYOUT.query_heads;
            let means = heads.clone().flat_map(|h| (0..4).map(move |c| mean(h, c) as f32));
            let pairs = heads.flat_map(|h| (0..16).map(move |at| (h, at / 4, at % 4)));
            let covariance =
                pairs.map(|(h, a, b)| (mean_of(&|t| query(h, t, a) * query(h, t, b)) - mean(h, a) * mean(h, b)) as f32);
            QueryStatistics { mean: means.collect(), covariance: covariance.collect() }
        });
        Self {
            tokens,
            tail: 0,
            ids: (0..tokens as u32).collect(),
            column_sums: (0..LAYOUT.query_heads * tokens).map(column).collect(),
            attention,
            keys: vectors(&key),
            values: vectors(&value),
            value_output_norms: (0..LAYOUT.query_heads * tokens).map(|at| 1.0 + (at * 7 % 11) as f32).collect(),
            statistics,
            rotary: RotaryEmbedding { frequencies: vec![1.0, 0.01], pairs: RotaryPairs::Halves },
        }
    }

    /// The same, its last tokens those of a chat template.
    pub fn with_tail(self, tail: usize) -> Self {
        Self { tail, ..self }
    }

    pub fn view(&self) -> LayerView<'_> {
        LayerView {
            layer: 0,
            layout: LAYOUT,
            prompt_len: self.tokens,
            tokens: &self.ids,
            tail: self.tail,
            window: self.tokens,
            window_attention: &self.attention,
            column_sums: Some(&self.column_sums),
            query_statistics: self.statistics.as_ref(),
            keys: Some(&self.keys),
            values: Some(&self.values),
            value_output_norms: Some(&self.value_output_norms),
            rotary: Some(&self.rotary),
        }
    }

    /// The same with the two KV heads in each other's place.
    pub fn swapped(&self) -> Self {
        let mut swapped = self.clone();
        let statistics = swapped.statistics.iter_mut().flat_map(|s| [&mut s.mean, &mut s.covariance]);
        let observations = [
            &mut swapped.attention,
            &mut swapped.column_sums,
            &mut swapped.keys,
            &mut swapped.values,
            &mut swapped.value_output_norms,
        ];
        for heads in observations.into_iter().chain(statistics) {
            let half = heads.len() / 2;
            heads.rotate_left(half);
        }
        swapped
    }

    pub fn score(&self, method: &Method) -> Vec<f32> {
        method.score(&self.view()).unwrap()
    }

    /// What a method keeps of each KV head with so many tokens for each on average.
    pub fn kept(&self, compressor: &str, budget: usize) -> [Vec<u32>; 2] {
        let method = method(compressor);
        let mut all = TokenScores::with_capacity(LAYOUT, self.tokens).with_tail(self.tail);
        all.push_layer(&self.score(&method));
        let selection = method.select(LAYOUT, &all, 2 * budget).unwrap();
        [0, 1].map(|head| match &selection.heads[head] {
            HeadSelection::Tokens(tokens) => tokens.clone(),
            HeadSelection::Everything => (0..self.tokens as u32).collect(),
        })
    }
}

/// A method as a TOML file writes it, from behind `compressor =`.
pub fn method(compressor: &str) -> Method {
    let text = format!("compressor = {compressor}");
    registry().method(ConfigTable::parse("test", &text).unwrap()).unwrap()
}
