//! KVCompose's layers (arXiv 2509.05165): they compete with their heads' k-th best tokens together.

use cokv_core::{AllocationRequest, BudgetAllocator, BudgetPlan, PolicyError};
use serde::{Deserialize, Serialize};

use super::pool::share_out;
use super::tokens::Candidates;
use crate::apportion::greedy;

/// The k-th best tokens of all heads of a layer are one composite token, worth their mean score. The best composite
/// tokens of all layers are kept, so that the heads of a layer keep as many, each its own. The first layer's count for
/// as much as any other's of their rank, as published. Every head keeps at least one token, where the total pays for
/// it.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CompositeRanks {}

/// What each rank of each layer is worth: `[layers][ranks]`.
fn composites(scores: &[Vec<f64>], kv_heads: usize) -> Vec<Vec<f64>> {
    let ranks = scores.first().map_or(0, Vec::len);
    let mean = |heads: &[Vec<f64>], rank: usize| heads.iter().map(|head| head[rank]).sum::<f64>() / heads.len() as f64;
    let of_layer = |heads: &[Vec<f64>]| (0..ranks).map(|rank| mean(heads, rank)).collect();
    let mut layers: Vec<Vec<f64>> = scores.chunks_exact(kv_heads).map(of_layer).collect();
    if let Some((first, others)) = layers.split_first_mut() {
        for other in others {
            first.iter_mut().zip(&*other).for_each(|(first, &other)| *first = first.max(other));
        }
    }
    layers
}

impl BudgetAllocator for CompositeRanks {
    fn allocate(&self, request: &AllocationRequest<'_>) -> Result<BudgetPlan, PolicyError> {
        let kv_heads = request.layout.kv_heads;
        share_out(request, |pool| {
            let candidates = Candidates::of(request, 0..pool.heads)?;
            let worth = composites(candidates.scores(), kv_heads);
            let one_each: Vec<usize> = (0..pool.heads).map(|head| pool.even_share(head).min(1)).collect();
            Ok(greedy(pool.total, &one_each, &pool.caps(), |head, count| worth[head / kv_heads][count]))
        })
    }
}

#[cfg(test)]
mod tests {
    use cokv_core::Protected;

    use super::*;
    use crate::compressors::closed_form::{Prompt, score_layers};

    #[test]
    fn composite_tokens_of_the_closed_form() {
        let layers = [Prompt::new(16), Prompt::second_layer(16)];
        let (layout, token_scores) = score_layers(&layers.each_ref(), "'kvcompose'", 0);
        let protected = Protected::default();
        let request = AllocationRequest {
            layout,
            prompt_len: 16,
            total: 32,
            protected,
            token_scores: &token_scores,
            head_scores: None,
        };
        let worth = composites(Candidates::of(&request, 0..4).unwrap().scores(), 2);
        for (layer, expected) in
            [[0.5216912, 0.4565018, 0.4378121, 0.4088739], [0.257338, 0.2382698, 0.2322959, 0.2250902]]
                .iter()
                .enumerate()
        {
            for (ours, expected) in worth[layer].iter().zip(expected) {
                assert!((ours - expected).abs() < 1e-6, "layer {layer}: {ours} and not {expected}");
            }
        }
        let counts = CompositeRanks {}.allocate(&request).unwrap();
        assert_eq!(counts.kept(), [14, 14, 2, 2]);
    }

    #[test]
    fn the_first_layer_is_worth_as_much_as_any() {
        let scores = [[9.0, 1.0], [5.0, 3.0], [10.0, 0.0], [6.0, 1.0]].map(|head| head.to_vec());
        assert_eq!(composites(&scores, 2), [[8.0, 2.0], [8.0, 0.5]]);
        assert_eq!(composites(&scores, 4), [[7.5, 1.25]]);
        assert_eq!(composites(&[vec![], vec![]], 1), [[0.0; 0]; 2]);
    }
}
