//! A prompt and a method become a small cache.

use cokv_core::{Budget, HeadLayout, HeadSelection, Method, Pairs, Selection, TokenScores};

use crate::cache::RaggedCache;
use crate::error::ModelError;
use crate::eviction::Eviction;
use crate::kernel::pool;
use crate::prefill::Prefill;

/// What a method makes of a prompt at a budget.
pub struct Compressed {
    /// What is kept.
    pub cache: RaggedCache,
    /// The same, as positions.
    pub selection: Selection,
    /// Tokens that all heads together were allowed to keep.
    pub allowed: usize,
    /// What evicts while the model answers, if anything does.
    pub eviction: Option<Eviction>,
}

impl Prefill {
    /// Score, allocate, select, cut: the way from a prompt to a small cache.
    pub fn compress(&self, method: &Method, budget: Budget) -> Result<Compressed, ModelError> {
        let scores = self.score(method, self.allowed(method, budget))?;
        self.compress_scored(method, &scores, budget)
    }

    /// The same from scores that are known already.
    pub fn compress_scored(
        &self,
        method: &Method,
        scores: &TokenScores,
        budget: Budget,
    ) -> Result<Compressed, ModelError> {
        let allowed = self.allowed(method, budget);
        let selection = method.select(self.prompt().layout(), scores, allowed)?;
        let eviction = Eviction::new(self, method, budget, &selection)?;
        Ok(Compressed { cache: self.cut(method, &selection)?, selection, allowed, eviction })
    }

    /// The same where no head shares the prompt's memory, not even one that keeps everything.
    pub fn compress_apart(&self, method: &Method, budget: Budget) -> Result<Compressed, ModelError> {
        let allowed = self.allowed(method, budget);
        let selection = self.select(method, allowed)?;
        let mut apart = selection.clone();
        for (head, kept) in apart.heads.iter_mut().enumerate() {
            if *kept == HeadSelection::Everything {
                *kept = HeadSelection::Tokens((0..self.prompt().len(head) as u32).collect());
            }
        }
        let eviction = Eviction::new(self, method, budget, &selection)?;
        Ok(Compressed { cache: self.cut(method, &apart)?, selection, allowed, eviction })
    }

    /// What is kept, as it is or rewritten.
    fn cut(&self, method: &Method, selection: &Selection) -> Result<RaggedCache, ModelError> {
        if !method.rewrites() {
            return RaggedCache::compressed(self.prompt(), selection);
        }
        let HeadLayout { layers, kv_heads, .. } = self.prompt().layout();
        let of_layers = pool::map(layers, |layer| {
            let kept = &selection.heads[layer * kv_heads..(layer + 1) * kv_heads];
            self.view(layer, |view| method.rewrite(view, kept))
        });
        let mut pairs = Vec::with_capacity(selection.heads.len());
        for of_layer in of_layers {
            pairs.extend(of_layer??);
        }
        // These heads share the prompt's memory.
        let shares = selection.heads.iter().map(|kept| *kept == HeadSelection::Everything);
        pairs.iter_mut().zip(shares).filter(|(_, shares)| *shares).for_each(|(pairs, _)| *pairs = Pairs::default());
        RaggedCache::rewritten(self.prompt(), selection, &pairs)
    }
}
