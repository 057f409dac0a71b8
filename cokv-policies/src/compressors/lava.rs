//! LAVa (Shen et al., arXiv 2509.09754): attention, as loud as a head's values can be.

use cokv_core::{
    CacheCompressor, ConfigError, ConfigTable, Frame, LayerView, ObservationRequest, PolicyError, Protected,
};
use serde::{Deserialize, Serialize};

use super::group::group_max;
use super::pooling::{Pooling, check_kernel};
use super::window::{WindowFrom, check_window};

/// Scores a token by the mean attention of the observation window, maximum-pooled, times the largest `‖v‖₁` that its KV
/// head has before the window, maximum over the group: a bound on what its absence does to the layer's output,
/// comparable between heads.
///
/// The published form lets the heads of a layer compete, and shares out between layers by how evenly their scores lie:
/// the preset `lava-paper`, with the allocator `layer-entropy`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Lava {
    /// Queries at the end of the prompt that vote; their own tokens are always kept.
    pub window: usize,
    /// Where the window ends.
    pub window_from: WindowFrom,
    /// Width of the maximum pooling, odd; 1 is none.
    pub kernel: usize,
}

impl Default for Lava {
    fn default() -> Self {
        Self { window: 32, window_from: WindowFrom::default(), kernel: 7 }
    }
}

impl Lava {
    /// Refuses settings that contradict themselves.
    pub fn checked(self, settings: &ConfigTable<'_>) -> Result<Self, ConfigError> {
        check_window(settings, "lava", self.window)?;
        check_kernel(settings, "lava", self.kernel)?;
        Ok(self)
    }
}

impl CacheCompressor for Lava {
    fn observations(&self, frame: Frame) -> ObservationRequest {
        let window_sums = vec![self.window_from.sum(self.window, frame.tail)];
        ObservationRequest { window_sums, values: true, ..Default::default() }
    }

    fn protected(&self, frame: Frame) -> Protected {
        Protected { sinks: 0, window: self.window_from.reach(self.window, frame.tail) }
    }

    fn score(&self, layer: &LayerView<'_>) -> Result<Vec<f32>, PolicyError> {
        let (layout, tokens, dim) = (layer.layout, layer.prompt_len, layer.layout.head_dim);
        let prefix = self.protected(layer.frame).candidates(tokens).end;
        let window = self.window_from.sum(self.window, layer.frame.tail);
        let queries = window.queries(tokens).len() as f32;
        let values = layer.recorded("values", layer.values)?;
        let mut scores = Vec::with_capacity(layout.query_heads * tokens);
        for query_head in 0..layout.query_heads {
            let of_head = &values[query_head / layout.group() * tokens * dim..][..prefix * dim];
            let loudness = |value: &[f32]| value.iter().map(|x| x.abs()).sum::<f32>();
            let loudest = of_head.chunks_exact(dim).map(loudness).fold(0.0, f32::max);
            let sum = &layer.window_sum(query_head, window)?[..prefix];
            let loud: Vec<f32> = sum.iter().map(|sum| sum / queries * loudest).collect();
            scores.extend(Pooling::Max.pool(&loud, self.kernel));
            scores.resize((query_head + 1) * tokens, 0.0);
        }
        Ok(group_max(layout, &scores, tokens))
    }
}

#[cfg(test)]
mod tests {
    use crate::compressors::closed_form::{Prompt, positions, select};

    const TOY: &str = "{ name = 'lava', window = 4, kernel = 1 }";

    #[test]
    fn loud_attention_of_the_closed_form() {
        for (layer, expected) in [
            (
                Prompt::new(16),
                [
                    [
                        0.9525331, 0.4464246, 0.3737672, 0.1985854, 0.202225, 0.3765621, 0.6297063, 1.2631377,
                        0.8766597, 0.3851785, 0.2505606, 0.1964657,
                    ],
                    [
                        0.1794346, 0.1258054, 0.3373981, 0.5886578, 0.5357058, 2.1600014, 1.1191826, 0.8863969,
                        0.7519243, 0.2762962, 0.2231375, 0.1885213,
                    ],
                ],
            ),
            (
                Prompt::second_layer(16),
                [
                    [
                        0.6924535, 0.4749463, 0.4312646, 0.3275908, 0.3108014, 0.3426562, 0.4890639, 0.7497977,
                        0.6037911, 0.442039, 0.362766, 0.315431,
                    ],
                    [
                        0.2941199, 0.2472381, 0.3325263, 0.5056602, 0.4663761, 1.0795036, 0.7728893, 0.5831341,
                        0.5496366, 0.3524965, 0.318977, 0.3029945,
                    ],
                ],
            ),
        ] {
            layer.assert_scores(TOY, 0, expected);
        }
    }

    /// Eight tokens of the first layer beside the windows, whichever head they are of.
    #[test]
    fn heads_of_the_closed_form_compete() {
        let selection = select(&[&Prompt::new(16)], &format!("{TOY}\nallocator = 'layer-entropy'"), 16);
        let with_window = |head: [u32; 4]| [head.as_slice(), &[12, 13, 14, 15]].concat();
        let kept = [0, 1].map(|head| positions(&selection, head, 16));
        assert_eq!(kept, [with_window([0, 6, 7, 8]), with_window([5, 6, 7, 8])]);
    }
}
