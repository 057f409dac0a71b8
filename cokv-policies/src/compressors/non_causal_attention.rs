//! NonCausalAttn (Compactor, arXiv 2507.08143): tokens that all others near them look at, those before them too.

use std::num::NonZeroUsize;
use std::ops::Range;

use cokv_core::{BlockSums, CacheCompressor, Frame, LayerView, ObservationRequest, PolicyError};
use serde::{Deserialize, Serialize};

use super::group::{group_mean, norm};
use super::pooling::Pooling;
use super::z_score::z_score;

/// Kernel of the average over neighbours.
const KERNEL: usize = 3;

/// Cuts the prompt into blocks in which every token sees every other. A token's score is the attention that its block
/// pays it, mean over the group, times the length of its value, averaged with its neighbours, as a z-score of the
/// layer.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NonCausalAttention {
    /// Tokens of a block.
    pub block: NonZeroUsize,
    /// What becomes of a last block with fewer tokens.
    pub padding: Padding,
}

/// A last block with fewer tokens than the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Padding {
    /// Its tokens share the attention out among themselves.
    #[default]
    Own,
    /// Padding takes part in it, as in kvpress: keys of logit 0, and queries that look at all keys alike.
    Kvpress,
}

const BLOCK: NonZeroUsize = NonZeroUsize::new(256).unwrap();

impl Default for NonCausalAttention {
    fn default() -> Self {
        Self { block: BLOCK, padding: Padding::Own }
    }
}

impl NonCausalAttention {
    fn sums(&self) -> BlockSums {
        let padded = self.padding == Padding::Kvpress;
        BlockSums { block: self.block.get(), first: 0, last: 0, padded }
    }
}

impl CacheCompressor for NonCausalAttention {
    fn observations(&self, _frame: Frame) -> ObservationRequest {
        ObservationRequest { block_sums: vec![self.sums()], values: true, ..Default::default() }
    }

    fn score(&self, layer: &LayerView<'_>) -> Result<Vec<f32>, PolicyError> {
        let mut scores = attention_in_blocks(layer, self.sums(), 0..layer.prompt_len)?;
        z_score(&mut scores);
        Ok(scores)
    }
}

/// Attention that tokens of a range get in their blocks times the lengths of their values, averaged over neighbours in
/// the range: `[kv_heads, range]`.
pub fn attention_in_blocks(
    layer: &LayerView<'_>,
    sums: BlockSums,
    range: Range<usize>,
) -> Result<Vec<f32>, PolicyError> {
    let (layout, tokens) = (layer.layout, layer.prompt_len);
    let mut received = Vec::with_capacity(layout.query_heads * tokens);
    for query_head in 0..layout.query_heads {
        received.extend_from_slice(layer.block_sum(query_head, sums)?);
    }
    let values = layer.recorded("values", layer.values)?;
    let mut weighted = group_mean(layout, &received, tokens);
    let lengths = values.chunks_exact(layout.head_dim).map(norm);
    weighted.iter_mut().zip(lengths).for_each(|(weight, length)| *weight *= length);
    let heads = weighted.chunks_exact(tokens.max(1));
    Ok(heads.flat_map(|head| Pooling::Avg.pool(&head[range.clone()], KERNEL)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compressors::closed_form::{Prompt, method};

    #[test]
    fn attention_in_blocks_of_the_closed_form() {
        for (settings, ends, kept) in [
            (
                "block = 8",
                [[0.8136879, 1.4081959, 1.797917, 1.4120807], [2.2183024, 3.5441826, 2.2433313, 1.7399466]],
                [[3, 4, 5, 6, 7, 8, 9, 13], [0, 1, 2, 3, 7, 8, 9, 14]],
            ),
            (
                "block = 6",
                [[1.2599499, 2.0164476, 2.2622486, 1.7850531], [2.2141157, 3.3505826, 2.8824589, 1.3856491]],
                [[1, 3, 4, 5, 8, 9, 10, 14], [0, 1, 2, 6, 7, 8, 13, 14]],
            ),
            (
                "block = 6, padding = 'kvpress'",
                [[1.2599499, 2.0164476, 2.7394725, 2.1235144], [2.2141157, 3.3505826, 2.6432318, 1.5818236]],
                [[3, 5, 8, 10, 12, 13, 14, 15], [0, 1, 2, 6, 7, 8, 13, 14]],
            ),
        ] {
            let compressor = format!("{{ name = 'non-causal-attention', {settings} }}");
            let (prompt, method) = (Prompt::new(16), method(&compressor));
            assert_eq!(prompt.kept(&compressor, 8), kept, "{settings}");
            let shown = prompt.shown_to(&method);
            let sums = method.observations(Frame::default()).block_sums[0];
            let before = attention_in_blocks(&shown.view(), sums, 0..16).unwrap();
            for (head, ends) in ends.iter().enumerate() {
                for (token, expected) in [0, 1, 14, 15].into_iter().zip(ends) {
                    let ours = f64::from(before[head * 16 + token]);
                    assert!((ours - expected).abs() < 2e-6, "{settings}, {head}, {token}: {ours} and not {expected}");
                }
            }
        }
    }

    #[test]
    fn scores_are_z_scores_of_the_layer() {
        Prompt::new(16).assert_scores(
            "{ name = 'non-causal-attention', block = 6 }",
            0,
            [
                [
                    -0.9954399, -0.0273622, -0.0882181, 0.2533461, 0.0500008, 0.4271573, -0.2966868, -0.4568909,
                    0.7127487, 0.0526834, 0.9010425, -0.4579314, -0.0971047, -0.4459328, 0.2871854, -0.323474,
                ],
                [
                    0.2255905, 1.6799087, 0.9553219, -0.3189892, -1.6108278, -0.8736568, 1.1916507, 2.4416786,
                    1.1279518, -0.9312266, -2.2839344, -1.839188, -0.0480066, 0.5423303, 1.0808584, -0.8345847,
                ],
            ],
        );
    }
}
