//! Chunks of a prompt, for methods whose heads all keep the same tokens.

use std::ops::Range;

use super::ranking::best_first;

/// Consecutive tokens that are kept or evicted together.
#[derive(Debug)]
pub struct ScoredChunk {
    /// Its tokens.
    pub tokens: Range<usize>,
    /// The mean of their scores.
    pub mean: f64,
}

impl ScoredChunk {
    /// Its tokens by score, highest first.
    pub fn best_first(&self, scores: &[f32]) -> impl Iterator<Item = usize> + use<> {
        let start = self.tokens.start;
        best_first(&scores[self.tokens.clone()]).into_iter().map(move |at| start + at)
    }
}

/// Chunks by their mean scores, highest first. What is left behind the last whole one is a chunk of its own.
pub fn best_chunks_first(scores: &[f32], chunk: usize) -> Vec<ScoredChunk> {
    let scored = |start: usize| {
        let tokens = start..scores.len().min(start.saturating_add(chunk));
        let sum: f64 = scores[tokens.clone()].iter().map(|&score| f64::from(score)).sum();
        ScoredChunk { mean: sum / tokens.len() as f64, tokens }
    };
    let mut chunks: Vec<ScoredChunk> = (0..scores.len()).step_by(chunk).map(scored).collect();
    chunks.sort_by(|a, b| b.mean.total_cmp(&a.mean));
    chunks
}

/// Scores of a layer, `[kv_heads, tokens]`, added up over its heads. Tokens that are no candidates first get 1 more
/// than the highest candidate of all heads, so that chunks that hold some of them come first.
pub fn summed(scores: &[f32], tokens: usize, candidates: &Range<usize>) -> Vec<f32> {
    let heads = || scores.chunks_exact(tokens.max(1));
    let of_candidates = heads().flat_map(|head| &head[candidates.clone()]).copied();
    let protected = of_candidates.reduce(f32::max).unwrap_or(0.0) + 1.0;
    let score = |head: &[f32], token: usize| if candidates.contains(&token) { head[token] } else { protected };
    let sum = |token: usize| heads().map(|head| f64::from(score(head, token))).sum::<f64>() as f32;
    (0..tokens).map(sum).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compressors::closed_form::{Prompt, method};

    /// Of SnapKV without pooling: means over chunks of 4 and of 5 tokens, the last of which is one token.
    #[test]
    fn chunks_of_the_closed_form() {
        let snapkv = method("{ name = 'snapkv', window = 4, pooling = 'none' }");
        let summed = summed(&Prompt::new(16).score(&snapkv), 16, &(0..12));
        for (chunk, expected) in [
            (4, [(3, 2.4352163), (1, 0.2152053), (2, 0.1228552), (0, 0.1099521)]),
            (5, [(3, 2.4352163), (2, 1.490146), (1, 0.2232077), (0, 0.1061862)]),
        ] {
            for (found, (place, mean)) in best_chunks_first(&summed, chunk).into_iter().zip(expected) {
                assert_eq!(found.tokens.start, place * chunk);
                assert!((found.mean - mean).abs() < 1e-6, "{} and not {mean}", found.mean);
            }
        }
    }
}
