//! Q-Filters (Godey et al., arXiv 2503.02812): keys that lie where queries point.

use cokv_core::{CacheCompressor, Frame, LayerView, ObservationRequest, PolicyError, Protected};
use serde::{Deserialize, Serialize};

use super::linear_algebra::dot;

/// Scores a token by its key's projection on the direction along which the head's queries point, which `cokv learn` finds once. Looks at
/// no query of the prompt, and needs no question.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct QFilter {
    /// Latest tokens that are always kept: kvpress keeps none, the authors' cache has some.
    pub window: usize,
}

impl CacheCompressor for QFilter {
    fn observations(&self, _frame: Frame) -> ObservationRequest {
        ObservationRequest { keys: true, ..Default::default() }
    }

    fn protected(&self, _frame: Frame) -> Protected {
        Protected { sinks: 0, window: self.window }
    }

    fn needs_learned(&self) -> bool {
        true
    }

    fn score(&self, layer: &LayerView<'_>) -> Result<Vec<f32>, PolicyError> {
        let (learned, dim) = (layer.learned()?, layer.layout.head_dim);
        let keys = layer.recorded("keys", layer.keys)?;
        let mut scores = Vec::with_capacity(keys.len() / dim);
        for (kv_head, keys) in keys.chunks_exact((layer.prompt_len * dim).max(1)).enumerate() {
            let direction = learned.direction(layer.layout, layer.first_kv_head + kv_head);
            scores.extend(keys.chunks_exact(dim).map(|key| dot(direction, key)));
        }
        Ok(scores)
    }
}

#[cfg(test)]
mod tests {
    use cokv_core::select::best_tokens;
    use cokv_core::{LayerView, LearnedLayer, Protected};

    use crate::compressors::closed_form::{Prompt, method};

    #[test]
    fn projections_of_the_closed_form() {
        let directions = vec![0.3632, 0.0324, -0.6074, -0.6491, -0.4462, 0.6251, -0.5331, 0.2887];
        let (prompt, learned) = (Prompt::new(16), LearnedLayer { directions, ..LearnedLayer::default() });
        let view = LayerView { learned: Some(&learned), ..prompt.view() };
        let scores = method("'q-filter'").score(&view).unwrap();
        for (head, expected) in
            [[0.1321, 0.5935, 0.0321, -0.2094], [-0.0486, -0.1061, -0.1145, -1.2350]].iter().enumerate()
        {
            for (token, expected) in expected.iter().enumerate() {
                let ours: f32 = scores[head * 16 + token];
                assert!((ours - expected).abs() < 3e-4, "head {head}, token {token}: {ours} and not {expected}");
            }
        }
        let kept = |head: usize| best_tokens(&scores[head * 16..][..16], 8, Protected::default()).positions(16);
        assert_eq!([kept(0), kept(1)], [[0, 1, 4, 6, 8, 11, 13, 15], [0, 5, 6, 8, 9, 10, 11, 13]]);
    }
}
