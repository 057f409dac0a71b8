//! DuoAttention (Xiao et al., arXiv 2410.10819), as deployed: retrieval heads keep the prompt, streaming heads sinks and
//! recent tokens.

use cokv_core::{AllocationRequest, BudgetAllocator, BudgetPlan, HeadLayout, HeadScores, PolicyError};
use serde::{Deserialize, Serialize};

use super::pool::share_out;
use super::weights::head_scores;
use crate::apportion::even;
use crate::settings::Share;

const RETRIEVAL_SHARE: Share = Share::new(0.5).unwrap();

/// Splits the heads into two classes. Streaming heads come first with their few tokens, then the retrieval heads share
/// what is left, up to the whole prompt, and what these cannot use goes back to the streaming heads.
///
/// With `r` of `n` heads in the first class, a total of `r · prompt + (n - r) · (sinks + recent)` is the published form.
/// Which tokens a streaming head keeps is the compressor's to say: `{ name = "streaming-llm", sinks = 64 }` is the
/// published one.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DuoAttention {
    /// Share of the heads that are retrieval heads, those with the highest scores; the lower index among equals. The paper
    /// uses 0.25 for models without and 0.5 for models with grouped queries.
    pub retrieval_share: Share,
    /// First tokens of a streaming head; 64 as deployed.
    pub sinks: usize,
    /// Latest tokens of a streaming head; 256 as deployed.
    pub recent: usize,
}

impl Default for DuoAttention {
    fn default() -> Self {
        Self { retrieval_share: RETRIEVAL_SHARE, sinks: 64, recent: 256 }
    }
}

impl DuoAttention {
    /// Whether each head is a retrieval head.
    fn retrieval_heads(&self, scores: &[f64]) -> Vec<bool> {
        let mut best_first: Vec<usize> = (0..scores.len()).collect();
        best_first.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
        best_first.truncate((self.retrieval_share.get() * scores.len() as f64).round() as usize);
        let mut retrieval = vec![false; scores.len()];
        best_first.into_iter().for_each(|head| retrieval[head] = true);
        retrieval
    }
}

impl BudgetAllocator for DuoAttention {
    fn check(&self, layout: HeadLayout, scores: Option<&HeadScores>) -> Result<(), PolicyError> {
        head_scores("duo-attention", layout, scores).map(|_| ())
    }

    fn allocate(&self, request: &AllocationRequest<'_>) -> Result<BudgetPlan, PolicyError> {
        let scores = head_scores("duo-attention", request.layout, request.head_scores)?;
        let retrieval = self.retrieval_heads(scores.values());
        let streaming_tokens = self.sinks.saturating_add(self.recent);
        let beside_protected = streaming_tokens.saturating_sub(request.protected_tokens()?);
        share_out(request, |pool| {
            // Retrieval heads too first get what a streaming head has, so that they never keep less.
            let mut counts = even(pool.total, &vec![beside_protected.min(pool.cap); pool.heads]);
            for class in [true, false] {
                let room = |(&is, &count): (&bool, &usize)| if is == class { pool.cap - count } else { 0 };
                let room: Vec<usize> = retrieval.iter().zip(&counts).map(room).collect();
                let more = even(pool.total - counts.iter().sum::<usize>(), &room);
                counts.iter_mut().zip(more).for_each(|(count, more)| *count += more);
            }
            Ok(counts)
        })
    }
}
