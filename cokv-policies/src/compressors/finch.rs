//! Finch (Corallo and Papotti, TACL 2024): tokens that the question looks at, moved together.

use cokv_core::{CacheCompressor, Frame, HeadSelection, LayerView, ObservationRequest, Pairs, PolicyError, Protected};
use serde::{Deserialize, Serialize};

use super::group::group_mean;
use super::rewriting::moved_together;

/// Scores a token of the context by the attention of the question's queries, each times the number of tokens before it
/// that it sees, mean over the queries and the group. The question, and what a chat template has behind it, is kept.
///
/// A prompt of which nobody knows where its question begins has its chat template's tail to ask with, or its last
/// token.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Finch {
    /// Whether kept tokens move together, as [`KeyRerotation`](super::KeyRerotation) does it.
    pub rerotate: bool,
}

impl Default for Finch {
    fn default() -> Self {
        Self { rerotate: true }
    }
}

/// Tokens that ask.
fn window(frame: Frame) -> usize {
    (frame.question + frame.tail).max(1)
}

impl CacheCompressor for Finch {
    fn observations(&self, frame: Frame) -> ObservationRequest {
        let rerotate = self.rerotate;
        ObservationRequest { window: window(frame), keys: rerotate, values: rerotate, ..Default::default() }
    }

    fn protected(&self, frame: Frame) -> Protected {
        Protected { sinks: 0, window: window(frame) }
    }

    fn needs_question(&self) -> bool {
        true
    }

    fn rewrites(&self) -> bool {
        self.rerotate
    }

    fn moves_keys(&self) -> bool {
        self.rewrites()
    }

    fn rewrite(&self, layer: &LayerView<'_>, kept: &[HeadSelection]) -> Result<Vec<Pairs>, PolicyError> {
        moved_together(layer, kept)
    }

    fn score(&self, layer: &LayerView<'_>) -> Result<Vec<f32>, PolicyError> {
        let (layout, tokens) = (layer.layout, layer.prompt_len);
        let context = self.protected(layer.frame).candidates(tokens).end;
        let mut sums = vec![0.0; layout.query_heads * tokens];
        for query_head in 0..layout.query_heads {
            let rows = layer.last_rows(query_head, window(layer.frame))?.chunks_exact(tokens.max(1));
            let (sums, count) = (&mut sums[query_head * tokens..][..context], rows.len() as f32);
            for (place, row) in rows.enumerate() {
                // Attention is spread the thinner, the more tokens there are to see.
                let seen = (context + place) as f32;
                sums.iter_mut().zip(row).for_each(|(sum, weight)| *sum += seen * weight / count);
            }
        }
        Ok(group_mean(layout, &sums, tokens))
    }
}

#[cfg(test)]
mod tests {
    use cokv_core::Frame;

    use crate::compressors::closed_form::{Prompt, method};

    #[test]
    fn the_question_scores_the_closed_form() {
        let prompt = Prompt::new(16).within(Frame { head: 1, question: 3, tail: 1 });
        prompt.assert_scores(
            "'finch'",
            0,
            [
                [
                    1.5231995, 1.0045783, 0.7884519, 0.4270814, 0.416778, 0.557433, 1.1208127, 2.4741154, 1.9418179,
                    0.7804572, 0.5719673, 0.4088724,
                ],
                [
                    0.4316519, 0.3141187, 0.6312296, 0.8086193, 0.7825718, 2.8712379, 1.7470169, 1.4555315, 1.379145,
                    0.6088107, 0.5192922, 0.4547411,
                ],
            ],
        );
        assert_eq!(prompt.kept("'finch'", 8), [[0, 6, 7, 8, 12, 13, 14, 15], [5, 6, 7, 8, 12, 13, 14, 15]]);
    }

    #[test]
    fn without_a_question_the_tail_asks() {
        let finch = method("'finch'");
        assert!(finch.needs_question() && finch.rewrites());
        assert!(!method("{ name = 'finch', rerotate = false }").rewrites());
        assert_eq!(finch.protected(Frame::with_tail(5)).window, 5);
        assert_eq!(finch.window_within(Frame::with_tail(5)), Some(5), "which is told");
        assert_eq!(finch.window_within(Frame { question: 2, ..Frame::with_tail(5) }), None);
        assert_eq!(finch.protected(Frame::default()).window, 1);
    }
}
