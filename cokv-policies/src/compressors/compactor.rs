//! Compactor (Chari et al., arXiv 2507.08143): leverage of keys and attention in blocks, together.

use std::num::NonZeroUsize;

use cokv_core::{BlockSums, CacheCompressor, Frame, LayerView, ObservationRequest, PolicyError, Protected};
use serde::{Deserialize, Serialize};

use super::leverage::leverages;
use super::non_causal_attention::{NonCausalAttention, Padding, attention_in_blocks};
use super::z_score::z_score;
use crate::settings::Share;

/// Scores a token by its leverage ([`Leverage`](super::Leverage)), blended into the attention that it gets in its block
/// ([`NonCausalAttention`]), both z-scores of the layer. Sinks and the latest tokens are kept; both measures see what
/// lies between as if it were the prompt.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Compactor {
    /// Tokens kept at the start.
    pub sinks: usize,
    /// Tokens kept at the end.
    pub recent: usize,
    /// Weight of the leverage; 0.35 in the paper. None makes it the share of the prompt that is evicted, as kvpress
    /// does: the less is kept, the more it matters that what is kept does not repeat itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blend: Option<Share>,
    /// As in [`NonCausalAttention`].
    pub block: NonZeroUsize,
    /// As in [`NonCausalAttention`].
    pub padding: Padding,
}

impl Default for Compactor {
    fn default() -> Self {
        let NonCausalAttention { block, padding } = NonCausalAttention::default();
        Self { sinks: 8, recent: 4, blend: None, block, padding }
    }
}

impl Compactor {
    fn sums(&self) -> BlockSums {
        let padded = self.padding == Padding::Kvpress;
        BlockSums { block: self.block.get(), first: self.sinks, last: self.recent, padded }
    }

    fn blend(&self, layer: &LayerView<'_>) -> Result<f32, PolicyError> {
        match self.blend {
            Some(blend) => Ok(blend.get() as f32),
            None => {
                let kept = layer.recorded("the budget", layer.kept)? as f32;
                Ok((1.0 - kept / layer.prompt_len as f32).max(0.0))
            }
        }
    }
}

impl CacheCompressor for Compactor {
    fn observations(&self, _frame: Frame) -> ObservationRequest {
        ObservationRequest { block_sums: vec![self.sums()], keys: true, values: true, ..Default::default() }
    }

    fn protected(&self, _frame: Frame) -> Protected {
        Protected { sinks: self.sinks, window: self.recent }
    }

    fn follows_budget(&self) -> bool {
        self.blend.is_none()
    }

    fn score(&self, layer: &LayerView<'_>) -> Result<Vec<f32>, PolicyError> {
        let (tokens, dim) = (layer.prompt_len, layer.layout.head_dim);
        let inner = self.protected(layer.frame).candidates(tokens);
        if inner.is_empty() {
            return Ok(vec![0.0; layer.layout.kv_heads * tokens]);
        }
        let keys = layer.keys_before_rope()?;
        let of_inner = |keys: &[f32]| leverages(&keys[inner.start * dim..inner.end * dim], dim, None);
        let mut leverage: Vec<f32> = keys.chunks_exact(tokens * dim).flat_map(of_inner).collect();
        let mut attention = attention_in_blocks(layer, self.sums(), inner.clone())?;
        z_score(&mut leverage);
        z_score(&mut attention);

        let blend = self.blend(layer)?;
        let blended: Vec<f32> = leverage.iter().zip(&attention).map(|(l, a)| blend * l + a).collect();
        let highest = blended.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let mut scores = vec![highest; layer.layout.kv_heads * tokens];
        for (head, blended) in scores.chunks_exact_mut(tokens).zip(blended.chunks_exact(inner.len())) {
            head[inner.clone()].copy_from_slice(blended);
        }
        Ok(scores)
    }
}

#[cfg(test)]
mod tests {
    use crate::compressors::closed_form::{Prompt, method};

    #[test]
    fn blended_scores_of_the_closed_form() {
        let prompt = Prompt::new(16).without_rotation();
        let compactor = |settings: &str| {
            format!("{{ name = 'compactor', sinks = 1, recent = 1, block = 8, blend = 0.5, {settings} }}")
        };
        let (own, kvpress) = (compactor("padding = 'own'"), compactor("padding = 'kvpress'"));
        prompt.assert_scores(
            &own,
            1,
            [
                [
                    -1.1310883, 0.0696636, 1.2803118, 1.8147669, 1.7032916, -0.4643197, -0.1597528, 0.810725,
                    -0.2053392, -1.1004537, -1.0787473, -0.2648155, 0.8678515, -0.7295984,
                ],
                [
                    0.2102759, 1.0575859, -0.493139, -1.9742614, -1.4577499, -1.0872033, 0.8889507, 1.8130461,
                    2.3140582, -0.9435093, 0.7078963, -0.5465987, -0.4854139, -1.416433,
                ],
            ],
        );
        assert_eq!(prompt.kept(&own, 8), [[0, 2, 3, 4, 5, 8, 13, 15], [0, 1, 2, 7, 8, 9, 11, 15]]);
        prompt.assert_scores(
            &kvpress,
            1,
            [
                [
                    -1.2155076, 0.0063684, 1.2720582, 1.8029283, 1.6903039, -0.5206251, -0.2228789, 0.9385559,
                    0.0270296, -0.7215437, -0.6118574, 0.1597028, 1.3111734, -0.5851883,
                ],
                [
                    0.1685858, 1.0438793, -0.5475173, -2.0638884, -1.5646246, -1.1705857, 0.858892, 1.559213,
                    1.8949405, -1.4633637, 0.4502463, -0.62974, -0.4431858, -1.4233708,
                ],
            ],
        );
        assert_eq!(prompt.kept(&kvpress, 8), [[0, 3, 4, 5, 8, 12, 13, 15], [0, 1, 2, 7, 8, 9, 11, 15]]);
    }

    /// Half of the prompt is a blend of a half.
    #[test]
    fn the_budget_blends_where_nobody_says_how() {
        let prompt = Prompt::new(16);
        let score = |settings: &str, kept| {
            let compressor = format!("{{ name = 'compactor', sinks = 1, recent = 1, {settings} }}");
            prompt.clone().with_budget(kept).score(&method(&compressor))
        };
        assert_eq!(score("", 8), score("blend = 0.5", 8));
        assert_eq!(score("", 4), score("blend = 0.75", 4));
        assert_ne!(score("", 4), score("", 8));
        assert_eq!(score("", 20), score("blend = 0", 1), "more than the prompt");
    }

    #[test]
    fn up_to_12_tokens_are_all_kept() {
        for tokens in [1, 8, 12] {
            assert_eq!(Prompt::new(tokens).score(&method("'compactor'")), vec![0.0; 2 * tokens]);
        }
        assert!(Prompt::new(13).score(&method("'compactor'")).iter().all(|score| score.is_finite()));
    }
}
