//! TriAttention (arXiv 2604.04921): what queries of any later time give to a key, in closed form.

use cokv_core::{CacheCompressor, Frame, LayerView, ObservationRequest, PolicyError, Protected};
use serde::{Deserialize, Serialize};

/// Before RoPE, queries of a head lie close to their mean; what RoPE makes of a product with a key depends on the distance alone. A
/// token's score is the mean of that product over some distances to come, and what the queries' lengths add that their mean lacks;
/// standardised over the tokens of each query head, the largest of the group. What queries look like is learned once (`cokv learn`).
///
/// Made for long answers: `while_decoding = { every = 128, compressor = "tri-attention" }`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TriAttention {
    /// Distances from now are 1, 2, 4, … up to this one, a power of two.
    pub furthest: usize,
    /// Latest tokens that are always kept; published code keeps none.
    pub window: usize,
}

impl Default for TriAttention {
    fn default() -> Self {
        Self { furthest: 65_536, window: 0 }
    }
}

impl CacheCompressor for TriAttention {
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
        let (layout, tokens, dim) = (layer.layout, layer.prompt_len, layer.layout.head_dim);
        let learned = layer.learned()?;
        let keys = layer.keys_before_rope()?;
        let rotary = layer.recorded("the model's rotation", layer.rotary)?;
        let group = layout.group();
        let distances: Vec<f64> = std::iter::successors(Some(1usize), |at| at.checked_mul(2))
            .take_while(|&at| at <= self.furthest)
            .map(|at| at as f64)
            .collect();
        let now = layer.next_position() as f64;
        let mut scores = Vec::with_capacity(layout.kv_heads * tokens);
        for (kv_head, keys) in keys.chunks_exact((tokens * dim).max(1)).enumerate() {
            let mut best = vec![f32::NEG_INFINITY; tokens];
            for member in 0..group {
                let (mean, lengths) = learned.query(layout, (layer.first_kv_head + kv_head) * group + member);
                let of_key = |(token, key): (usize, &[f32])| -> f64 {
                    let age = now - layer.position(token) as f64;
                    let of_pair = |(pair, &frequency): (usize, &f32)| {
                        let [first, second] = rotary.pairs.elements(pair, dim);
                        let complex = |vector: &[f32]| (f64::from(vector[first]), f64::from(vector[second]));
                        let ((a, b), (x, y)) = (complex(mean), complex(key));
                        let (mean_length, key_length) = (a.hypot(b), x.hypot(y));
                        let phase = (b * x - a * y).atan2(a * x + b * y);
                        let turned = |distance: &f64| ((age + distance) * f64::from(frequency) + phase).cos();
                        let mean_of_turns = distances.iter().map(turned).sum::<f64>() / distances.len().max(1) as f64;
                        mean_length * key_length * mean_of_turns + (f64::from(lengths[pair]) - mean_length) * key_length
                    };
                    rotary.frequencies.iter().enumerate().map(of_pair).sum()
                };
                let raw: Vec<f64> = keys.chunks_exact(dim).enumerate().map(of_key).collect();
                best.iter_mut().zip(standardised(&raw)).for_each(|(best, score)| *best = best.max(score));
            }
            scores.extend(best);
        }
        Ok(scores)
    }
}

/// Distances from the mean in standard deviations (n − 1); 0 where all are the same.
fn standardised(scores: &[f64]) -> impl Iterator<Item = f32> {
    let count = scores.len() as f64;
    let mean = scores.iter().sum::<f64>() / count.max(1.0);
    let variance = scores.iter().map(|score| (score - mean).powi(2)).sum::<f64>() / (count - 1.0).max(1.0);
    let deviation = variance.sqrt().max(1e-12);
    scores.iter().map(move |score| ((score - mean) / deviation) as f32)
}

#[cfg(test)]
mod tests {
    use cokv_core::select::best_tokens;
    use cokv_core::{LayerView, LearnedLayer, Protected, QueryStatistics};

    use crate::compressors::closed_form::{Prompt, method};

    /// Distances 1, 2, 4 and 8; keys of the closed form are taken for those before RoPE, so that they are turned first.
    #[test]
    fn the_closed_form_keeps_its_tokens() {
        let prompt = Prompt::new(16).turned_by(vec![1.0, 0.1]);
        let view = prompt.view();
        let (rotary, mut keys) = (view.rotary.unwrap(), view.keys.unwrap().to_vec());
        keys.chunks_exact_mut(4).enumerate().for_each(|(at, key)| rotary.turn(key, (at % 16) as f64));
        let learned = view.learned.unwrap();
        let learned = LearnedLayer { queries: of_all_tokens(view.queries), ..learned.clone() };
        let view = LayerView { keys: Some(&keys), learned: Some(&learned), ..view };
        let scores = method("{ name = 'tri-attention', furthest = 8 }").score(&view).unwrap();
        let kept = |head: usize| best_tokens(&scores[head * 16..][..16], 8, Protected::default()).positions(16);
        assert_eq!([kept(0), kept(1)], [[2, 4, 5, 6, 7, 8, 13, 15], [0, 1, 2, 5, 8, 9, 11, 14]]);
    }

    /// Means of queries `[tokens, query_heads, head_dim]`, those of the first tokens included.
    fn of_all_tokens(queries: &[f32]) -> QueryStatistics {
        let mut mean = vec![0.0; 16];
        queries.chunks_exact(16).flat_map(|token| token.iter().enumerate()).for_each(|(at, x)| mean[at] += x / 16.0);
        QueryStatistics { mean, covariance: Vec::new() }
    }
}
