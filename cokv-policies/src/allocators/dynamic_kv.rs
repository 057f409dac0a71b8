//! DynamicKV (Zhou et al., arXiv 2412.14838): layers compete with their tokens' scores.

use cokv_core::{AllocationRequest, BudgetAllocator, BudgetPlan, PolicyError};
use serde::{Deserialize, Serialize};

use super::pool::share_out;
use super::tokens::Candidates;
use crate::apportion::even;
use crate::settings::AtLeastOne;

const MOST: AtLeastOne = AtLeastOne::new(10.0).unwrap();

/// The best tokens of all layers together decide how many each layer keeps, which its heads share evenly. Decides once,
/// when all scores are known; the paper does so again and again as layers are read, and gives what is left to the last.
///
/// Scores of different layers must be comparable, as the paper's are: SnapKV's. A larger total may take a token from a
/// head where `most` holds its layer back.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DynamicKv {
    /// How many times its even share a head may put into the competition.
    pub most: AtLeastOne,
}

impl Default for DynamicKv {
    fn default() -> Self {
        Self { most: MOST }
    }
}

impl BudgetAllocator for DynamicKv {
    fn allocate(&self, request: &AllocationRequest<'_>) -> Result<BudgetPlan, PolicyError> {
        let kv_heads = request.layout.kv_heads;
        share_out(request, |pool| {
            let most = (self.most.get() * pool.total as f64 / pool.heads as f64).ceil() as usize;
            let winners = Candidates::of(request, 0..pool.heads)?.at_most(most).best(pool.total, &vec![0; pool.heads]);
            let of_layer = |winners: &[usize]| even(winners.iter().sum(), &vec![pool.cap; kv_heads]);
            Ok(winners.chunks_exact(kv_heads).flat_map(of_layer).collect())
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::compressors::closed_form::{Prompt, select};

    #[test]
    fn layers_of_the_closed_form_compete() {
        let snapkv = "{ name = 'snapkv', window = 4, pooling = 'avg', kernel = 3 }";
        let selection = select(
            &[&Prompt::new(16), &Prompt::second_layer(16)],
            &format!("{snapkv}\nallocator = 'dynamic-kv'"),
            4 * (4 + 4),
        );
        let beside_the_window: Vec<usize> = selection.heads.iter().map(|head| head.len(16) - 4).collect();
        assert_eq!(beside_the_window, [5, 4, 4, 3], "9 and 7 of 16");
    }
}
