//! A prompt whose keys, queries and values are formulas, and what other programs made of it.

use cokv_core::testing::{MadeUpPrompt, grams_of};
use cokv_core::{
    ConfigTable, Frame, HeadLayout, LayerView, Method, Replay, Replayed, RotaryEmbedding, RotaryPairs, Selection,
    TokenScores,
};

use crate::registry;

/// Two KV heads of two query heads each, head_dim 4.
pub const LAYOUT: HeadLayout = HeadLayout { layers: 1, query_heads: 4, kv_heads: 2, head_dim: 4 };

/// One layer of a prompt: k = sin(1.7(t+1)(c+1)/(h+2) + 0.3h), q = 2 cos(0.9(t+1)(c+1)/(hq+1)), v = sin(0.5(t+1) + c +
/// h) · (1 + ((7t + 3h) mod 5) / 4), causal attention over it, and W_o = cos(0.5(hq+1)(c+1)(o+1)) behind it.
#[derive(Clone)]
pub struct Prompt {
    made_up: MadeUpPrompt,
    /// What queries are multiplied with: 2, or 1 in another layer.
    loudness: f64,
}

impl Prompt {
    pub fn new(tokens: usize) -> Self {
        Self::as_loud(tokens, 2.0)
    }

    /// Another layer of the prompt: queries are half as long, all else is the same.
    pub fn second_layer(tokens: usize) -> Self {
        Self::as_loud(tokens, 1.0)
    }

    fn as_loud(tokens: usize, loudness: f64) -> Self {
        let value = |h: usize, t: usize, c: usize| {
            (0.5 * (t + 1) as f64 + (c + h) as f64).sin() * (1.0 + ((7 * t + 3 * h) % 5) as f64 / 4.0)
        };
        let query = |h, t, c| query(loudness, 0.0, h, t, c);
        let output = |h: usize, c: usize, o: usize| (0.5 * ((h + 1) * (c + 1) * (o + 1)) as f64).cos();
        let made_up = MadeUpPrompt::of(LAYOUT, tokens, &query, &|h, t, c| key(0.0, h, t, c), &value)
            .with_output_grams(grams_of(LAYOUT, 4, &output));
        Self { made_up, loudness }
    }

    /// The same, its last tokens those of a chat template.
    pub fn with_tail(self, tail: usize) -> Self {
        self.within(Frame::with_tail(tail))
    }

    /// The same, made of these parts.
    pub fn within(self, frame: Frame) -> Self {
        Self { made_up: self.made_up.within(frame), ..self }
    }

    /// The same with a budget, of so many tokens for each head.
    pub fn with_budget(self, kept: usize) -> Self {
        Self { made_up: self.made_up.with_budget(kept), ..self }
    }

    /// The same in a model that turns nothing: keys before RoPE are those behind it.
    pub fn without_rotation(self) -> Self {
        self.turned_by(vec![0.0; 2])
    }

    /// The same in a model that turns by these angles.
    pub fn turned_by(self, frequencies: Vec<f32>) -> Self {
        let rotary = RotaryEmbedding { frequencies, scale: 1.0, pairs: RotaryPairs::Halves };
        Self { made_up: self.made_up.with_rotary(rotary), ..self }
    }

    /// All that there is but sums of the window and of blocks, and second passes.
    pub fn view(&self) -> LayerView<'_> {
        self.made_up.view()
    }

    /// The same with what a method asks for: half of the prompt as a budget, if there is no other.
    pub fn shown_to(&self, method: &Method) -> MadeUpPrompt {
        let view = self.view();
        let mut shown = self.made_up.clone().showing_also(method.observations(view.frame));
        if method.follows_budget() {
            shown = shown.with_budget(view.kept.unwrap_or(view.prompt_len / 2));
        }
        match method.replay() {
            Some(replay) => shown.replayed(replay.clone(), self.replayed(&replay)),
            None => shown,
        }
    }

    pub fn score(&self, method: &Method) -> Vec<f32> {
        method.score(&self.shown_to(method).view()).unwrap()
    }

    /// Holds what a compressor says of the tokens from `first` on, one row for each KV head, to what another program
    /// does, to a part in 100,000.
    pub fn assert_scores<const N: usize>(&self, compressor: &str, first: usize, expected: [[f64; N]; 2]) {
        let (tokens, scores) = (self.view().prompt_len, self.score(&method(compressor)));
        for (head, expected) in expected.iter().enumerate() {
            for (at, expected) in expected.iter().enumerate() {
                let ours = f64::from(scores[head * tokens + first + at]);
                let close = (ours - expected).abs() <= 1e-5 * expected.abs().max(0.1);
                assert!(close, "{compressor}, head {head}, token {}: {ours} and not {expected}", first + at);
            }
        }
    }

    /// What a method keeps of each KV head with so many tokens for each on average.
    pub fn kept(&self, compressor: &str, budget: usize) -> [Vec<u32>; 2] {
        let selection = select(&[self], compressor, 2 * budget);
        [0, 1].map(|head| positions(&selection, head, self.view().prompt_len))
    }

    /// What a second pass sees that feeds nothing but the prompt's own tokens, with other queries and keys: 0.4 more
    /// inside of the cosine, 0.2 more inside of the sine, the norm of a fed token's input 1 + 0.25 sin(t+1).
    fn replayed(&self, replay: &Replay) -> Replayed {
        let (tokens, dim) = (self.view().prompt_len, LAYOUT.head_dim);
        let mut seen = Replayed { weights: vec![0.0; LAYOUT.query_heads * tokens], ..Replayed::default() };
        seen.weights_by_input = seen.weights.clone();
        let kept = replay.queries.min(tokens);
        let numbers =
            (0..LAYOUT.query_heads).flat_map(|head| (0..kept * dim).map(move |at| (head, at / dim, at % dim)));
        seen.queries = numbers.map(|(head, row, c)| query(self.loudness, 0.4, head, row, c) as f32).collect();
        let logit = |head: usize, row: usize, key: &dyn Fn(usize) -> f64| {
            (0..dim).map(|c| query(self.loudness, 0.4, head, row, c) * key(c)).sum::<f64>() / (dim as f64).sqrt()
        };
        for start in (0..tokens).step_by(replay.chunk) {
            let chunk = start..tokens.min(start.saturating_add(replay.chunk));
            for (head, row) in (0..LAYOUT.query_heads).flat_map(|head| chunk.clone().map(move |row| (head, row))) {
                let of = head / LAYOUT.group();
                let of_prompt = |token: usize| logit(head, row, &|c| key(0.0, of, token, c)).exp();
                let fed = (start..=row).map(|token| logit(head, row, &|c| key(0.2, of, token, c)).exp());
                let normaliser: f64 =
                    (0..replay.sinks.min(start)).chain(chunk.clone()).map(of_prompt).sum::<f64>() + fed.sum::<f64>();
                let by_input = 1.0 + 0.25 * ((row + 1) as f64).sin();
                for token in chunk.clone() {
                    let (at, weight) = (head * tokens + token, of_prompt(token) / normaliser);
                    seen.weights[at] = seen.weights[at].max(weight as f32);
                    seen.weights_by_input[at] = seen.weights_by_input[at].max((weight / by_input) as f32);
                }
            }
        }
        seen
    }
}

fn key(phase: f64, head: usize, token: usize, channel: usize) -> f64 {
    (1.7 * ((token + 1) * (channel + 1)) as f64 / (head + 2) as f64 + 0.3 * head as f64 + phase).sin()
}

fn query(loudness: f64, phase: f64, head: usize, token: usize, channel: usize) -> f64 {
    loudness * (0.9 * ((token + 1) * (channel + 1)) as f64 / (head + 1) as f64 + phase).cos()
}

/// A method as a TOML file writes it, from behind `compressor =`.
pub fn method(compressor: &str) -> Method {
    let text = format!("compressor = {compressor}");
    registry().method(ConfigTable::parse("test", &text).unwrap()).unwrap()
}

/// What a method keeps of a prompt of these layers, `total` tokens in all.
pub fn select(layers: &[&Prompt], compressor: &str, total: usize) -> Selection {
    let (layout, scores) = score_layers(layers, compressor, total);
    method(compressor).select(layout, &scores, total).unwrap()
}

/// What a method says of a prompt of these layers, of which it may keep `total` tokens in all.
pub fn score_layers(layers: &[&Prompt], compressor: &str, total: usize) -> (HeadLayout, TokenScores) {
    let (method, view) = (method(compressor), layers[0].view());
    let layout = HeadLayout { layers: layers.len(), ..LAYOUT };
    let mut all = TokenScores::with_capacity(layout, view.prompt_len).within(view.frame);
    for &layer in layers {
        let shown = layer.clone().with_budget(total / layout.heads()).shown_to(&method);
        all.push_layer(&method.score(&shown.view()).unwrap());
        method.layer_preference(&shown.view()).unwrap().into_iter().for_each(|needed| all.push_preference(needed));
    }
    (layout, all)
}

/// What a head keeps.
pub fn positions(selection: &Selection, head: usize, prompt_len: usize) -> Vec<u32> {
    selection.heads[head].positions(prompt_len).into_iter().map(|position| position as u32).collect()
}

/// The best tokens of a layer, whichever head they are of, `[tokens]` of each in ascending order.
pub fn best_of_layer(scores: &[f32], count: usize) -> [Vec<usize>; 2] {
    let tokens = scores.len() / 2;
    let best = &super::ranking::best_first(scores)[..count];
    [0, 1].map(|head| {
        let mut of_head: Vec<usize> = best.iter().filter(|&at| at / tokens == head).map(|at| at % tokens).collect();
        of_head.sort_unstable();
        of_head
    })
}
