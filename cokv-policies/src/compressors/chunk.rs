//! Chunk (Finch, Corallo and Papotti, TACL 2024): every chunk of the prompt keeps its share.

use std::num::NonZeroUsize;

use cokv_core::{CacheCompressor, ConfigError, ConfigTable, Frame, LayerView, PolicyError};
use serde::{Deserialize, Serialize};

use super::base::OnBase;
use super::part::Part;
use super::ranking::{protected_first, rearrange};

/// Lets another compressor score each chunk as if it were the prompt, and keeps the same share of each, whatever the
/// budget is. Only for compressors that look at keys and values alone: all else that a prefill records is of the whole
/// prompt.
///
/// A head's scores keep their values and only change places, so that allocators see the other compressor's.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Chunk {
    /// Tokens of a chunk; what is left at the end is a chunk too.
    pub chunk: NonZeroUsize,
}

const CHUNK: NonZeroUsize = NonZeroUsize::new(1024).unwrap();

impl Default for Chunk {
    fn default() -> Self {
        Self { chunk: CHUNK }
    }
}

impl OnBase<Chunk> {
    /// Reads the settings and the base, which must look at keys and values alone.
    pub fn of_chunks(settings: &ConfigTable<'_>) -> Result<Self, ConfigError> {
        Self::read(settings, "knorm")?.of_keys_and_values(settings, "what scores chunks as if they were prompts")
    }
}

impl CacheCompressor for OnBase<Chunk> {
    fn base(&self) -> Option<&dyn CacheCompressor> {
        Some(&*self.base)
    }

    fn score(&self, layer: &LayerView<'_>) -> Result<Vec<f32>, PolicyError> {
        let (tokens, chunk, kv_heads) = (layer.prompt_len, self.settings.chunk.get(), layer.layout.kv_heads);
        let mut scores = self.base.score(layer)?;
        // How much of its chunk is kept when a token is: the lower, the earlier the token's turn comes.
        let mut turns = vec![0.0; kv_heads * tokens];
        let protected = self.base.protected(Frame::default());
        for start in (0..tokens).step_by(chunk) {
            let positions: Vec<usize> = (start..tokens.min(start.saturating_add(chunk))).collect();
            let len = positions.len();
            let part = Part::of(layer, &vec![positions; kv_heads]);
            for (head, of_chunk) in self.base.score(&part.view(layer))?.chunks_exact(len).enumerate() {
                for (rank, token) in protected_first(of_chunk, protected).into_iter().enumerate() {
                    turns[head * tokens + start + token] = (rank + 1) as f64 / len as f64;
                }
            }
        }
        let candidates = self.base.protected(layer.frame).candidates(tokens);
        for (head, turns) in scores.chunks_exact_mut(tokens.max(1)).zip(turns.chunks_exact(tokens.max(1))) {
            let mut ranking: Vec<usize> = (0..tokens).collect();
            ranking.sort_by(|&a, &b| turns[a].total_cmp(&turns[b]));
            rearrange(head, candidates.clone(), &ranking);
        }
        Ok(scores)
    }
}

#[cfg(test)]
mod tests {
    use crate::compressors::closed_form::{Prompt, method};

    #[test]
    fn every_chunk_keeps_its_share_of_the_closed_form() {
        let prompt = Prompt::new(16);
        let chunks = |budget| prompt.kept("{ name = 'chunk', chunk = 6, base = 'knorm' }", budget);
        assert_eq!(chunks(8), [[0, 1, 3, 9, 10, 11, 12, 14], [2, 3, 4, 6, 7, 10, 14, 15]]);
        for budget in 0..=16 {
            for head in chunks(budget) {
                for (start, len) in [(0, 6), (6, 6), (12, 4)] {
                    let kept = head.iter().filter(|&&token| (start..start + len).contains(&token)).count();
                    let share = budget as f64 * f64::from(len) / 16.0;
                    assert!((kept as f64 - share).abs() <= 1.5, "budget {budget}, chunk at {start}: {kept}");
                }
            }
        }
    }

    #[test]
    fn one_chunk_is_the_base() {
        for base in ["'knorm'", "'keydiff'", "{ name = 'lagkv', sinks = 2, lag = 4 }", "{ name = 'cur', block = 4 }"] {
            let (prompt, alone) = (Prompt::new(16), format!("{{ name = 'chunk', chunk = 16, base = {base} }}"));
            for budget in 4..=16 {
                assert_eq!(prompt.kept(&alone, budget), prompt.kept(base, budget), "{base}, {budget} tokens");
            }
        }
    }

    /// Sinks of every chunk, as of every prompt.
    #[test]
    fn what_a_base_protects_comes_first_in_every_chunk() {
        let lagkv = "{ name = 'chunk', chunk = 8, base = { name = 'lagkv', sinks = 2, lag = 4 } }";
        assert_eq!(Prompt::new(16).kept(lagkv, 4), [[0, 1, 8, 9]; 2]);
    }

    #[test]
    fn scores_keep_their_values() {
        let sorted = |compressor: &str| {
            let mut scores = Prompt::new(16).score(&method(compressor))[..16].to_vec();
            scores.sort_by(f32::total_cmp);
            scores
        };
        assert_eq!(sorted("{ name = 'chunk', chunk = 6, base = 'knorm' }"), sorted("'knorm'"));
    }
}
