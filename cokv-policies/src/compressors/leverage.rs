//! LeverageScore (Compactor, arXiv 2507.08143): keys that others do not say already.

use std::num::NonZeroUsize;

use cokv_core::{CacheCompressor, Frame, LayerView, ObservationRequest, PolicyError};
use serde::{Deserialize, Serialize};

use super::linear_algebra::Symmetric;
use super::random_matrix::RandomMatrix;
use super::z_score::z_score;

/// Scores a token by the statistical leverage of its key before RoPE, `xᵀ (XᵀX + 0.01)⁻¹ x` of centred keys, as a
/// z-score of the layer. Says nothing of a prompt of hardly more tokens than a key has numbers: leverages are then all
/// alike.
///
/// Exact by default: that costs `head_dim²` products for each token, less than a layer's prefill, and needs no chance.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Leverage {
    /// Numbers to which a random matrix first reduces each key; 48 as published. None keeps keys as they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sketch: Option<NonZeroUsize>,
    /// Which random matrix.
    pub seed: u64,
}

impl CacheCompressor for Leverage {
    fn observations(&self, _frame: Frame) -> ObservationRequest {
        ObservationRequest { keys: true, ..Default::default() }
    }

    fn score(&self, layer: &LayerView<'_>) -> Result<Vec<f32>, PolicyError> {
        let dim = layer.layout.head_dim;
        let keys = layer.keys_before_rope()?;
        let sketch = self.sketch.map(|columns| RandomMatrix::new(self.seed, dim, columns.get()));
        let heads = keys.chunks_exact((layer.prompt_len * dim).max(1));
        let mut scores: Vec<f32> = heads.flat_map(|keys| leverages(keys, dim, sketch.as_ref())).collect();
        z_score(&mut scores);
        Ok(scores)
    }
}

/// Leverage of each key of a head, `[tokens, head_dim]`, at least 0.
pub fn leverages(keys: &[f32], head_dim: usize, sketch: Option<&RandomMatrix>) -> Vec<f32> {
    let tokens = (keys.len() / head_dim).max(1) as f64;
    let mut mean = vec![0.0; head_dim];
    for key in keys.chunks_exact(head_dim) {
        mean.iter_mut().zip(key).for_each(|(sum, &x)| *sum += f64::from(x) / tokens);
    }
    let centred = keys.iter().zip(mean.iter().cycle()).map(|(&x, mean)| (f64::from(x) - mean) as f32);
    let mut vectors: Vec<f32> = centred.collect();
    let mut dim = head_dim;
    if let Some(sketch) = sketch {
        vectors = vectors.chunks_exact(head_dim).flat_map(|key| sketch.project(key)).collect();
        dim = sketch.columns();
    }
    let mut squares = Symmetric::diagonal(dim, 0.0);
    vectors.chunks_exact(dim).for_each(|vector| squares.add_square(1.0, vector));
    // Keys that all but repeat each other may need more than the published 0.01 to be told apart in floating point.
    let jittered = |jitter: f64| {
        let mut squares = squares.clone();
        squares.add_diagonal(jitter);
        squares.cholesky()
    };
    let factor = (0..5).find_map(|tenfold| jittered(0.01 * 10f64.powi(tenfold)));
    let leverage = |vector| factor.as_ref().map_or(0.0, |factor| factor.inverse_quadratic(vector) as f32);
    vectors.chunks_exact(dim).map(leverage).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compressors::closed_form::{Prompt, method};

    #[test]
    fn leverages_of_the_closed_form() {
        let prompt = Prompt::new(16).without_rotation();
        let expected = [
            [
                0.1889702, 0.3254178, 0.3909439, 0.2562961, 0.3393563, 0.3053699, 0.2451598, 0.2817437, 0.2344736,
                0.2677323, 0.0248896, 0.2751028, 0.2620654, 0.2813069, 0.0939104, 0.2220643,
            ],
            [
                0.292671, 0.2721745, 0.2452823, 0.1958033, 0.1231967, 0.3989443, 0.3269168, 0.2965767, 0.3305419,
                0.3254426, 0.0092287, 0.3202574, 0.2663145, 0.2323035, 0.1919301, 0.1673928,
            ],
        ];
        for (keys, expected) in prompt.view().keys.unwrap().chunks_exact(16 * 4).zip(expected) {
            for (ours, expected) in leverages(keys, 4, None).into_iter().zip(expected) {
                assert!((f64::from(ours) - expected).abs() < 1e-6, "{ours} and not {expected}");
            }
        }
        prompt.assert_scores(
            "'leverage'",
            0,
            [
                [
                    -0.6667625, 0.8317961, 1.5514463, 0.0726552, 0.9848779, 0.6116169, -0.0496511, 0.3521379,
                    -0.1670133, 0.1982557, -2.4688039, 0.2792027, 0.1360176, 0.3473412, -1.7107714, -0.3033012,
                ],
                [
                    0.4721483, 0.2470428, -0.0483048, -0.5917162, -1.3891303, 1.639312, 0.8482591, 0.5150435,
                    0.8880715, 0.8320686, -2.6408016, 0.7751207, 0.1826842, -0.1908475, -0.6342549, -0.9037391,
                ],
            ],
        );
        let kept = prompt.kept("'leverage'", 8);
        assert_eq!(kept, [[1, 2, 4, 5, 7, 9, 11, 13], [0, 1, 5, 6, 7, 8, 9, 11]]);
    }

    /// Of keys before RoPE, wherever they stand.
    #[test]
    fn a_rotation_of_the_prompt_changes_nothing() {
        let still = Prompt::new(16).without_rotation();
        let rotary = cokv_core::RotaryEmbedding { frequencies: vec![0.7, 0.1], ..still.view().rotary.unwrap().clone() };
        let mut turned = still.view().keys.unwrap().to_vec();
        for (at, key) in turned.chunks_exact_mut(4).enumerate() {
            rotary.turn(key, (at % 16) as f64);
        }
        let view = LayerView { keys: Some(&turned), rotary: Some(&rotary), ..still.view() };
        let ours = Leverage::default().score(&view).unwrap();
        let expected = still.score(&method("'leverage'"));
        assert!(ours.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-4), "{ours:?}");
    }

    /// They add up to the rank, but for the jitter: at most a key's numbers, and one less than there are tokens.
    #[test]
    fn leverages_add_up_to_the_rank() {
        for (tokens, rank) in [(1, 0.0), (2, 1.0), (3, 2.0), (5, 4.0), (40, 4.0), (300, 4.0)] {
            let prompt = Prompt::new(tokens);
            for keys in prompt.view().keys.unwrap().chunks_exact(tokens * 4) {
                let all = leverages(keys, 4, None);
                let sum: f32 = all.iter().sum();
                assert!(all.iter().all(|leverage| (0.0..=1.0).contains(leverage)));
                assert!(sum <= rank && rank - sum < 0.15, "{tokens} tokens: {sum}");
            }
        }
        assert_eq!(Prompt::new(1).score(&method("'leverage'")), [0.0; 2], "one token is the mean of all");
    }

    #[test]
    fn keys_that_repeat_each_other_are_survived() {
        assert!(leverages(&[1e18, 1e18, -1e18, -1e18], 2, None).iter().all(|leverage| leverage.is_finite()));
        assert_eq!(leverages(&[3.0; 8], 2, None), [0.0; 4]);
    }

    #[test]
    fn a_sketch_is_drawn_by_its_seed() {
        let score = |settings: &str| {
            let sketched = format!("{{ name = 'leverage', sketch = 2, {settings} }}");
            Prompt::new(40).score(&method(&sketched))
        };
        assert_eq!(score("seed = 1"), score("seed = 1"));
        assert_ne!(score("seed = 1"), score("seed = 2"));
    }
}
