//! EntropyGatedChunkKV (kvpress 0.5.5): ChunkKV, where a chunk that a few tokens stand out of gives these alone.

use std::num::NonZeroUsize;

use cokv_core::{CacheCompressor, LayerView, PolicyError};
use serde::{Deserialize, Serialize};

use super::base::OnBase;
use super::chunks::{best_chunks_first, summed};
use super::ranking::{best_first, rearrange};
use crate::evenness::evenness;

/// Takes chunks by their mean score as [`ChunkKv`](super::ChunkKv) does. Of a chunk that is at least as good as the
/// median and whose scores are less even than the median's (by their entropy), only the best tokens are taken; what is
/// left of such chunks comes after all others.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EntropyGatedChunkKv {
    /// Tokens of a chunk; what is left at the end is a chunk too.
    pub chunk: NonZeroUsize,
    /// Tokens that a spiky chunk gives.
    pub spiky: usize,
}

const CHUNK: NonZeroUsize = NonZeroUsize::new(10).unwrap();

impl Default for EntropyGatedChunkKv {
    fn default() -> Self {
        Self { chunk: CHUNK, spiky: 4 }
    }
}

impl EntropyGatedChunkKv {
    /// Tokens in the order in which they are kept.
    fn ranking(&self, scores: &[f32]) -> Vec<usize> {
        let chunks = best_chunks_first(scores, self.chunk.get());
        let entropies: Vec<f64> = chunks.iter().map(|chunk| evenness_of(&scores[chunk.tokens.clone()])).collect();
        let mean = lower_median(chunks.iter().map(|chunk| chunk.mean));
        let entropy = lower_median(entropies.iter().copied());
        let mut ranking = Vec::with_capacity(scores.len());
        let mut last = vec![false; scores.len()];
        for (chunk, own) in chunks.iter().zip(entropies) {
            let gives = if chunk.mean >= mean && own < entropy { self.spiky } else { usize::MAX };
            for (place, token) in chunk.best_first(scores).enumerate() {
                if place < gives { ranking.push(token) } else { last[token] = true }
            }
        }
        ranking.extend(best_first(scores).into_iter().filter(|&token| last[token]));
        ranking
    }
}

/// How evenly scores lie on the tokens of a chunk; 0 of a single one.
fn evenness_of(scores: &[f32]) -> f64 {
    let lowest = scores.iter().copied().fold(0.0, f32::min);
    evenness(scores.iter().map(|score| f64::from(score - lowest))).unwrap_or(0.0)
}

/// The middle one, or the lower of the two; 0 of none.
fn lower_median(numbers: impl Iterator<Item = f64>) -> f64 {
    let mut ascending: Vec<f64> = numbers.collect();
    ascending.sort_by(f64::total_cmp);
    ascending.len().checked_sub(1).map_or(0.0, |last| ascending[last / 2])
}

impl CacheCompressor for OnBase<EntropyGatedChunkKv> {
    fn base(&self) -> Option<&dyn CacheCompressor> {
        Some(&*self.base)
    }

    fn score(&self, layer: &LayerView<'_>) -> Result<Vec<f32>, PolicyError> {
        let candidates = self.base.protected(layer.frame).candidates(layer.prompt_len);
        let mut summed = summed(&self.base.score(layer)?, layer.prompt_len, &candidates);
        let ranking = self.settings.ranking(&summed);
        rearrange(&mut summed, candidates, &ranking);
        Ok(summed.repeat(layer.layout.kv_heads))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compressors::closed_form::{Prompt, method};

    #[test]
    fn entropies_of_the_closed_form() {
        let snapkv = "{ name = 'snapkv', window = 4, pooling = 'none' }";
        let scores = summed(&Prompt::new(16).score(&method(snapkv)), 16, &(0..12));
        let entropies: Vec<f64> = scores.chunks(4).map(evenness_of).collect();
        for (ours, expected) in entropies.iter().zip([0.9855249, 0.9458607, 0.8918364, 1.0]) {
            assert!((ours - expected).abs() < 1e-6, "{ours} and not {expected}");
        }
        let gated = format!("{{ name = 'entropy-gated-chunkkv', chunk = 4, spiky = 2, base = {snapkv} }}");
        let kept = |budget| Prompt::new(16).kept(&gated, budget);
        assert_eq!(kept(8), [[4, 5, 6, 7, 12, 13, 14, 15]; 2], "an entropy that is the median is not below it");
        // Chunk 2 is as good as the median and less even: it gives 8 and 9; then comes chunk 0, and last its rest.
        assert_eq!(kept(10), [[4, 5, 6, 7, 8, 9, 12, 13, 14, 15]; 2]);
        assert_eq!(kept(14), [[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 13, 14, 15]; 2]);
        assert_eq!(kept(15), [[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 13, 14, 15]; 2], "10 (0.0808), not 11 (0.0643)");
    }

    #[test]
    fn chunks_of_one_token_and_medians_of_two() {
        assert_eq!((evenness_of(&[3.0]), evenness_of(&[-1.0; 3])), (0.0, 0.0), "nothing above the lowest");
        assert_eq!(lower_median([4.0, 1.0, 3.0, 2.0].into_iter()), 2.0);
        assert_eq!(lower_median(std::iter::empty()), 0.0);
    }
}
