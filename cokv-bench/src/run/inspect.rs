//! What a method does to one prompt: which tokens every head keeps, and what it thought of them.

use cokv_core::{HeadLayout, HeadSelection, Method, MethodSettings, Selection, TokenScores};
use serde::Serialize;

use super::kept_tokens::KeptTokens;
use crate::scores::HeadName;

/// What a method keeps of a prompt.
#[derive(Debug, Serialize)]
pub struct Inspection {
    /// The method with all settings.
    pub method: MethodSettings,
    /// Tokens that all heads together may keep.
    pub total: usize,
    /// Tokens that they do keep together.
    pub kept_tokens: usize,
    /// The prompt's tokens as text.
    pub tokens: Vec<String>,
    /// One for each KV head, layer by layer.
    pub heads: Vec<InspectedHead>,
}

/// What one KV head keeps.
#[derive(Debug, Serialize)]
pub struct InspectedHead {
    /// `layer.head`
    pub head: HeadName,
    /// Tokens kept.
    pub budget: usize,
    /// Positions of the tokens kept, ascending.
    pub kept: Vec<u32>,
    /// Score of every token; the method's protected tokens are kept whatever it is.
    pub scores: Vec<f32>,
}

impl Inspection {
    /// Puts together what was scored and selected.
    pub fn new(
        layout: HeadLayout,
        method: &Method,
        total: usize,
        tokens: Vec<String>,
        scores: &TokenScores,
        selection: &Selection,
    ) -> Self {
        let head = |(flat, selected): (usize, &HeadSelection)| InspectedHead {
            head: HeadName::of(flat, layout.kv_heads),
            budget: selected.len(tokens.len()),
            kept: match selected {
                HeadSelection::Everything => (0..tokens.len() as u32).collect(),
                HeadSelection::Tokens(kept) => kept.clone(),
            },
            scores: scores.head(flat).to_vec(),
        };
        let heads = selection.heads.iter().enumerate().map(head).collect();
        Self { method: method.settings(), total, kept_tokens: selection.total(tokens.len()), tokens, heads }
    }

    /// Which tokens they are.
    pub fn kept(&self) -> KeptTokens<'_> {
        let heads = self.heads.iter().map(|head| (head.head, &head.kept[..])).collect();
        KeptTokens { length: self.tokens.len(), heads }
    }
}
