//! What a method does to one prompt: which tokens every head keeps, and what it thought of them.

use cokv_core::{HeadLayout, HeadSelection, Method, MethodSettings, Selection, TokenScores};
use serde::Serialize;

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

    /// Share of tokens kept in each of `bins` equal stretches of the prompt: `[heads][bins]`.
    pub fn shares(&self, bins: usize) -> Vec<Vec<f64>> {
        let length = self.tokens.len();
        let bins = bins.clamp(1, length.max(1));
        let start = |bin: usize| bin * length / bins;
        let shares = |head: &InspectedHead| {
            let share = |bin: usize| {
                let (from, to) = (start(bin) as u32, start(bin + 1) as u32);
                let kept = head.kept.partition_point(|&at| at < to) - head.kept.partition_point(|&at| at < from);
                kept as f64 / f64::from(to - from)
            };
            (0..bins).map(share).collect()
        };
        self.heads.iter().map(shares).collect()
    }

    /// The map on a terminal: a line for each head, a character for each stretch of the prompt, darker where more is kept.
    pub fn map(&self, bins: usize) -> String {
        const SHADES: [char; 5] = [' ', '░', '▒', '▓', '█'];
        let shade = |share: &f64| SHADES[(share * 4.0).ceil() as usize];
        let lines = self.heads.iter().zip(self.shares(bins)).map(|(head, shares)| {
            format!("{:>6} {:>6} {}", head.head.to_string(), head.budget, shares.iter().map(shade).collect::<String>())
        });
        format!("  head   kept  from the first token to the last\n{}", lines.collect::<Vec<_>>().join("\n"))
    }

    /// The text that a head keeps and the text that it evicts, each stretch passed to one of the two.
    pub fn text(
        &self,
        head: &InspectedHead,
        kept: impl Fn(&str) -> String,
        evicted: impl Fn(&str) -> String,
    ) -> String {
        let is_kept = |at: usize| head.kept.binary_search(&(at as u32)).is_ok();
        let mut text = String::new();
        let mut from = 0;
        while from < self.tokens.len() {
            let state = is_kept(from);
            let to = (from..self.tokens.len()).find(|&at| is_kept(at) != state).unwrap_or(self.tokens.len());
            let stretch = self.tokens[from..to].concat();
            text += &if state { kept(&stretch) } else { evicted(&stretch) };
            from = to;
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use cokv_core::ConfigTable;

    use super::*;

    fn inspection(kept: Vec<u32>) -> Inspection {
        let head = InspectedHead { head: HeadName::of(0, 1), budget: kept.len(), kept, scores: vec![0.0; 6] };
        let tokens = ["a", "b", "c", "d", "e", "f"].map(str::to_owned).to_vec();
        let full = ConfigTable::parse("test", "compressor = 'full'").unwrap();
        let method = cokv_policies::registry().method(full).unwrap().settings();
        Inspection { method, total: 3, kept_tokens: head.budget, tokens, heads: vec![head] }
    }

    #[test]
    fn shares_and_shades_count_what_is_kept() {
        let inspection = inspection(vec![0, 1, 5]);
        assert_eq!(inspection.shares(3), [[1.0, 0.0, 0.5]]);
        assert_eq!(inspection.shares(100)[0].len(), 6, "no more stretches than tokens");
        assert!(inspection.map(3).ends_with("     3 █ ▒"), "{}", inspection.map(3));
    }

    #[test]
    fn kept_and_evicted_text_is_the_prompt() {
        let inspection = inspection(vec![0, 1, 5]);
        let text = inspection.text(&inspection.heads[0], |kept| kept.into(), |evicted| format!("[{evicted}]"));
        assert_eq!(text, "ab[cde]f");
    }
}
