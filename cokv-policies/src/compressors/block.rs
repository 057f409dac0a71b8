//! Block (KeyDiff, Park et al., arXiv 2504.15364): the prompt is read block by block into a cache that never grows.

use std::num::NonZeroUsize;

use cokv_core::{CacheCompressor, ConfigError, ConfigTable, Frame, LayerView, PolicyError};
use serde::{Deserialize, Serialize};

use super::base::OnBase;
use super::part::Part;
use super::ranking::{protected_first, rearrange};

/// Starts with as many of the first tokens as the budget has; then lets another compressor score what is kept together
/// with each next block, and keeps the best. Only for compressors that look at keys and values alone: all else that a
/// prefill records is of the whole prompt.
///
/// A head's scores keep their values and only change places, so that allocators see the other compressor's; who gets
/// more than an even share keeps the more of those that were evicted last.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Block {
    /// Tokens of a block; the last may have fewer.
    pub block: NonZeroUsize,
}

const BLOCK: NonZeroUsize = NonZeroUsize::new(128).unwrap();

impl Default for Block {
    fn default() -> Self {
        Self { block: BLOCK }
    }
}

impl OnBase<Block> {
    /// Reads the settings and the base, which must look at keys and values alone.
    pub fn of_blocks(settings: &ConfigTable<'_>) -> Result<Self, ConfigError> {
        Self::read(settings, "keydiff")?.of_keys_and_values(settings, "what scores a cache as it grows")
    }
}

impl CacheCompressor for OnBase<Block> {
    fn base(&self) -> Option<&dyn CacheCompressor> {
        Some(&*self.base)
    }

    fn follows_budget(&self) -> bool {
        true
    }

    fn score(&self, layer: &LayerView<'_>) -> Result<Vec<f32>, PolicyError> {
        let (tokens, block, kv_heads) = (layer.prompt_len, self.settings.block.get(), layer.layout.kv_heads);
        let budget = layer.recorded("the budget", layer.kept)?.min(tokens);
        let mut scores = self.base.score(layer)?;
        let (whole, part) = (self.base.protected(layer.frame), self.base.protected(Frame::default()));
        let of_prompt = scores.chunks_exact(tokens.max(1)).map(|head| protected_first(head, whole));
        // Best first. A budget of the whole prompt has nothing to read into.
        let mut ranking: Vec<Vec<usize>> = match budget < tokens {
            true => vec![(0..budget).collect(); kv_heads],
            false => of_prompt.collect(),
        };
        for start in (budget..tokens).step_by(block) {
            let end = tokens.min(start.saturating_add(block));
            let with_block = |kept: &Vec<usize>| {
                let mut cached = [&kept[..budget], &(start..end).collect::<Vec<_>>()].concat();
                cached.sort_unstable();
                cached
            };
            let cached: Vec<Vec<usize>> = ranking.iter().map(with_block).collect();
            let scored = self.base.score(&Part::of(layer, &cached).view(layer))?;
            for ((ranking, cached), scores) in
                ranking.iter_mut().zip(&cached).zip(scored.chunks_exact(budget + end - start))
            {
                let best = protected_first(scores, part).into_iter().map(|at| cached[at]);
                ranking.splice(..budget, best);
            }
        }
        let candidates = whole.candidates(tokens);
        for (head, ranking) in scores.chunks_exact_mut(tokens.max(1)).zip(&ranking) {
            rearrange(head, candidates.clone(), ranking);
        }
        Ok(scores)
    }
}

#[cfg(test)]
mod tests {
    use crate::compressors::closed_form::Prompt;

    #[test]
    fn the_closed_form_block_by_block() {
        let kept =
            |block: usize| Prompt::new(16).kept(&format!("{{ name = 'block', block = {block}, base = 'keydiff' }}"), 8);
        assert_eq!(kept(4), [[2, 3, 6, 7, 9, 11, 13, 15], [2, 5, 6, 7, 8, 12, 13, 14]]);
        assert_eq!(kept(8), Prompt::new(16).kept("'keydiff'", 8), "one block is all");
    }

    /// Who scores tokens by themselves keeps the same, whichever way they come.
    #[test]
    fn lengths_of_keys_do_not_depend_on_blocks() {
        for budget in 0..=16 {
            let prompt = Prompt::new(16);
            let blocks = prompt.kept("{ name = 'block', block = 3, base = 'knorm' }", budget);
            assert_eq!(blocks, prompt.kept("'knorm'", budget), "{budget} tokens");
        }
    }

    #[test]
    fn the_cache_keeps_its_sinks() {
        let kept = Prompt::new(40).kept("{ name = 'block', block = 5, base = { name = 'cur', sinks = 3 } }", 10);
        assert!(kept.iter().all(|head| head.len() == 10 && head.starts_with(&[0, 1, 2])), "{kept:?}");
    }
}
