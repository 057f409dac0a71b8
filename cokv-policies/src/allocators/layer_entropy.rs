//! LAVa's layers (Shen et al., arXiv 2509.09754): the more evenly a layer's scores lie, the more it gets.

use cokv_core::{AllocationRequest, BudgetAllocator, BudgetPlan, PolicyError};
use serde::{Deserialize, Serialize};

use super::AdaKv;
use super::pool::share_out;
use super::tokens::Candidates;
use super::weights::by_layer;
use crate::apportion::sainte_lague;
use crate::settings::Share;

const NO_FLOOR: Share = Share::new(0.0).unwrap();

/// Shares out between layers in proportion to the entropy of all their tokens' scores, as a share of the largest that
/// it could be; inside a layer its heads compete as in [`AdaKv`], without a floor.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LayerEntropy {}

impl BudgetAllocator for LayerEntropy {
    fn allocate(&self, request: &AllocationRequest<'_>) -> Result<BudgetPlan, PolicyError> {
        let kv_heads = request.layout.kv_heads;
        let heads_of = |layer: usize| layer * kv_heads..(layer + 1) * kv_heads;
        share_out(request, |pool| {
            let evenness = |layer: usize| Ok(Candidates::of(request, heads_of(layer))?.evenness());
            let layers = (0..request.layout.layers).map(evenness).collect::<Result<Vec<f64>, PolicyError>>()?;
            let shares = sainte_lague(pool.total, &by_layer(request.layout, |layer| layers[layer]), &pool.caps());
            AdaKv { floor: NO_FLOOR, ..AdaKv::default() }.compete_by_layer(request, |head| shares[head])
        })
    }
}

#[cfg(test)]
mod tests {
    use cokv_core::Protected;

    use super::*;
    use crate::compressors::closed_form::{Prompt, score_layers};

    #[test]
    fn layers_of_the_closed_form_are_as_even_as_lava_finds_them() {
        let layers = [Prompt::new(16), Prompt::second_layer(16)];
        let (layout, token_scores) = score_layers(&layers.each_ref(), "{ name = 'lava', window = 4, kernel = 1 }", 0);
        let request = AllocationRequest {
            layout,
            prompt_len: 16,
            total: 16 + 8,
            protected: Protected { sinks: 0, window: 4 },
            token_scores: &token_scores,
            head_scores: None,
        };
        for (heads, expected) in [(0..2, 0.9137544104104552), (2..4, 0.9765906952226109)] {
            let ours = Candidates::of(&request, heads).unwrap().evenness();
            assert!((ours - expected).abs() < 1e-7, "{ours} and not {expected}");
        }
        // 3.867 and 4.133 of 8, in whole tokens.
        let kept = LayerEntropy {}.allocate(&request).unwrap().kept().to_vec();
        assert_eq!([kept[0] + kept[1], kept[2] + kept[3]], [8 + 4, 8 + 4]);
    }
}
