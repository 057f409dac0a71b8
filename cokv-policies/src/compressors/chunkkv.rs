//! ChunkKV (Liu et al., arXiv 2502.00299): whole chunks of tokens, the same in all heads.

use std::num::NonZeroUsize;

use cokv_core::{CacheCompressor, LayerView, PolicyError};
use serde::{Deserialize, Serialize};

use super::base::OnBase;
use super::chunks::{best_chunks_first, summed};
use super::ranking::rearrange;

/// Adds another compressor's scores up over the KV heads of a layer and keeps the chunks whose mean is highest, so that
/// phrases stay together. Budgets are spent to the token: whole chunks as long as they fit, then the best tokens of the
/// next one. (As published the number of chunks is rounded, and what is kept is a multiple of a chunk.)
///
/// A prompt of less than a chunk is the other compressor's alone.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ChunkKv {
    /// Tokens of a chunk; what is left at the end is a chunk too.
    pub chunk: NonZeroUsize,
}

const CHUNK: NonZeroUsize = NonZeroUsize::new(20).unwrap();

impl Default for ChunkKv {
    fn default() -> Self {
        Self { chunk: CHUNK }
    }
}

impl CacheCompressor for OnBase<ChunkKv> {
    fn base(&self) -> Option<&dyn CacheCompressor> {
        Some(&*self.base)
    }

    fn score(&self, layer: &LayerView<'_>) -> Result<Vec<f32>, PolicyError> {
        let (tokens, chunk) = (layer.prompt_len, self.settings.chunk.get());
        let scores = self.base.score(layer)?;
        if tokens < chunk {
            return Ok(scores);
        }
        let candidates = self.base.protected(layer.frame).candidates(tokens);
        let mut summed = summed(&scores, tokens, &candidates);
        let chunks = best_chunks_first(&summed, chunk).into_iter();
        // Whatever the budget is, its tokens come chunk by chunk.
        let ranking: Vec<usize> = chunks.flat_map(|chunk| chunk.best_first(&summed)).collect();
        rearrange(&mut summed, candidates, &ranking);
        Ok(summed.repeat(layer.layout.kv_heads))
    }
}

#[cfg(test)]
mod tests {
    use crate::compressors::closed_form::{Prompt, method};

    const SNAPKV: &str = "base = { name = 'snapkv', window = 4, pooling = 'none' }";

    #[test]
    fn whole_chunks_are_kept_and_then_the_best_of_the_next() {
        let kept = |budget: usize| {
            let [first, second] = Prompt::new(16).kept(&format!("{{ name = 'chunkkv', chunk = 4, {SNAPKV} }}"), budget);
            assert_eq!(first, second);
            first
        };
        assert_eq!(kept(4), [12, 13, 14, 15]);
        assert_eq!(kept(8), [4, 5, 6, 7, 12, 13, 14, 15]);
        // Chunk 2 comes next: its best are 8 (0.2445) and 9 (0.1018).
        assert_eq!(kept(9), [4, 5, 6, 7, 8, 12, 13, 14, 15]);
        assert_eq!(kept(10), [4, 5, 6, 7, 8, 9, 12, 13, 14, 15]);
        assert_eq!(kept(12), [4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]);
    }

    /// Chunk 2 of five tokens holds three of the window, and is therefore the best that is not kept anyway.
    #[test]
    fn a_chunk_that_the_window_reaches_into_comes_first() {
        let kept = Prompt::new(16).kept(&format!("{{ name = 'chunkkv', chunk = 5, {SNAPKV} }}"), 6);
        assert_eq!(kept, [[10, 11, 12, 13, 14, 15]; 2]);
    }

    #[test]
    fn less_than_a_chunk_is_the_bases_own() {
        let score = |tokens, compressor: &str| Prompt::new(tokens).score(&method(compressor));
        let chunkkv = "{ name = 'chunkkv', chunk = 8, base = 'knorm' }";
        assert_eq!(score(7, chunkkv), score(7, "'knorm'"));
        assert_ne!(score(8, chunkkv), score(8, "'knorm'"));
        assert_eq!(score(1, chunkkv), score(1, "'knorm'"));
    }
}
