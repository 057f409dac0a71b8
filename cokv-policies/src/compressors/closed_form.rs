//! A prompt whose keys, queries and values are formulas.

use cokv_core::testing::MadeUpPrompt;
use cokv_core::{ConfigTable, HeadLayout, HeadSelection, LayerView, Method, TokenScores};

use crate::registry;

/// Two KV heads of two query heads each, head_dim 4.
pub const LAYOUT: HeadLayout = HeadLayout { layers: 1, query_heads: 4, kv_heads: 2, head_dim: 4 };

/// One layer of a prompt: k = sin(1.7(t+1)(c+1)/(h+2) + 0.3h), q = 2 cos(0.9(t+1)(c+1)/(hq+1)),
/// v = sin(0.5(t+1) + c + h) · (1 + ((7t + 3h) mod 5) / 4), and causal attention over it.
pub struct Prompt(MadeUpPrompt);

impl Prompt {
    pub fn new(tokens: usize) -> Self {
        let query = |h: usize, t: usize, c: usize| 2.0 * (0.9 * ((t + 1) * (c + 1)) as f64 / (h + 1) as f64).cos();
        let key =
            |h: usize, t: usize, c: usize| (1.7 * ((t + 1) * (c + 1)) as f64 / (h + 2) as f64 + 0.3 * h as f64).sin();
        let value = |h: usize, t: usize, c: usize| {
            (0.5 * (t + 1) as f64 + (c + h) as f64).sin() * (1.0 + ((7 * t + 3 * h) % 5) as f64 / 4.0)
        };
        Self(MadeUpPrompt::of(LAYOUT, tokens, &query, &key, &value))
    }

    /// The same, its last tokens those of a chat template.
    pub fn with_tail(self, tail: usize) -> Self {
        Self(self.0.with_tail(tail))
    }

    /// All that there is but sums of the window.
    pub fn view(&self) -> LayerView<'_> {
        self.0.view()
    }

    /// The same with what a method asks for.
    pub fn shown_to(&self, method: &Method) -> MadeUpPrompt {
        self.0.clone().showing_also(method.observations(self.view().frame))
    }

    pub fn score(&self, method: &Method) -> Vec<f32> {
        method.score(&self.shown_to(method).view()).unwrap()
    }

    /// What a method keeps of each KV head with so many tokens for each on average.
    pub fn kept(&self, compressor: &str, budget: usize) -> [Vec<u32>; 2] {
        let method = method(compressor);
        let (tokens, frame) = (self.view().prompt_len, self.view().frame);
        let mut all = TokenScores::with_capacity(LAYOUT, tokens).within(frame);
        all.push_layer(&self.score(&method));
        let selection = method.select(LAYOUT, &all, 2 * budget).unwrap();
        [0, 1].map(|head| match &selection.heads[head] {
            HeadSelection::Tokens(kept) => kept.clone(),
            HeadSelection::Everything => (0..tokens as u32).collect(),
        })
    }
}

/// A method as a TOML file writes it, from behind `compressor =`.
pub fn method(compressor: &str) -> Method {
    let text = format!("compressor = {compressor}");
    registry().method(ConfigTable::parse("test", &text).unwrap()).unwrap()
}
