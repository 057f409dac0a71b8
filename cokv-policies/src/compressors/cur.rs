//! CUR (CurDKV, Sengupta et al., arXiv 2509.15038): tokens whose keys and values are long beside those of their
//! neighbours.

use std::num::NonZeroUsize;

use cokv_core::{CacheCompressor, Frame, LayerView, ObservationRequest, PolicyError, Protected};
use serde::{Deserialize, Serialize};

use super::group::per_token;
use super::random_matrix::RandomMatrix;

const BLOCK: NonZeroUsize = NonZeroUsize::new(16).unwrap();

/// Scores a token by the squared lengths of its key and value, each as a share of what its block of neighbours has
/// together: approximate leverages of a CUR decomposition. A head's scores add up to 1.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Cur {
    /// What is made of the two.
    pub kind: Kind,
    /// Tokens of a block.
    pub block: NonZeroUsize,
    /// Tokens kept at the start.
    pub sinks: usize,
    /// Numbers to which one random matrix first reduces keys and values; 20 as published. None keeps them as they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub projection: Option<NonZeroUsize>,
    /// Which random matrix.
    pub seed: u64,
}

/// What a score is made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The product of a key's and a value's share.
    #[default]
    KvProduct,
    /// The mean of both.
    KvAvg,
    /// The key's share.
    Key,
    /// The value's share.
    Value,
}

impl Default for Cur {
    fn default() -> Self {
        Self { kind: Kind::KvProduct, block: BLOCK, sinks: 4, projection: None, seed: 0 }
    }
}

impl Cur {
    /// Squared lengths as shares of their blocks, `[kv_heads, prompt_len]`.
    fn shares(&self, layer: &LayerView<'_>, vectors: &[f32]) -> Vec<f32> {
        let dim = layer.layout.head_dim;
        let projection = self.projection.map(|columns| RandomMatrix::new(self.seed, dim, columns.get()));
        let square = |vector: &[f32]| vector.iter().map(|x| x * x).sum::<f32>();
        let mut shares = per_token(layer.layout, vectors, |vector| match &projection {
            Some(projection) => square(&projection.project(vector)),
            None => square(vector),
        });
        for head in shares.chunks_exact_mut(layer.prompt_len.max(1)) {
            head.chunks_mut(self.block.get()).for_each(to_shares);
        }
        shares
    }
}

/// Divides by the sum; where that is 0 nobody has a share.
fn to_shares(numbers: &mut [f32]) {
    let sum: f32 = numbers.iter().sum();
    numbers.iter_mut().for_each(|number| *number = if sum > 0.0 { *number / sum } else { 0.0 });
}

impl CacheCompressor for Cur {
    fn observations(&self, _frame: Frame) -> ObservationRequest {
        let (keys, values) = (self.kind != Kind::Value, self.kind != Kind::Key);
        ObservationRequest { keys, values, ..Default::default() }
    }

    fn protected(&self, _frame: Frame) -> Protected {
        Protected { sinks: self.sinks, window: 0 }
    }

    fn score(&self, layer: &LayerView<'_>) -> Result<Vec<f32>, PolicyError> {
        let keys = || Ok(self.shares(layer, layer.recorded("keys", layer.keys)?));
        let values = || Ok(self.shares(layer, layer.recorded("values", layer.values)?));
        let both = |of: fn(f32, f32) -> f32| -> Result<Vec<f32>, PolicyError> {
            Ok(keys()?.into_iter().zip(values()?).map(|(key, value)| of(key, value)).collect())
        };
        let mut scores = match self.kind {
            Kind::KvProduct => both(|key, value| key * value)?,
            Kind::KvAvg => both(|key, value| (key + value) / 2.0)?,
            Kind::Key => keys()?,
            Kind::Value => values()?,
        };
        for head in scores.chunks_exact_mut(layer.prompt_len.max(1)) {
            to_shares(head);
            head.iter_mut().take(self.sinks).for_each(|sink| *sink = 1.0);
        }
        Ok(scores)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compressors::closed_form::{LAYOUT, Prompt, method};

    #[test]
    fn shares_of_the_closed_form() {
        let cur = |kind: &str| format!("{{ name = 'cur', block = 4, sinks = 1, kind = '{kind}' }}");
        let prompt = Prompt::new(16);
        prompt.assert_scores(
            &cur("kv-product"),
            0,
            [
                [
                    1.0, 0.0607256, 0.1501931, 0.0331531, 0.0729311, 0.0204561, 0.0401589, 0.1133371, 0.0760439,
                    0.1283013, 0.0029864, 0.0665912, 0.0877703, 0.0477573, 0.0429208, 0.037305,
                ],
                [
                    1.0, 0.0311147, 0.0509133, 0.0604221, 0.0215462, 0.1215762, 0.0373138, 0.0890271, 0.1392749,
                    0.0460628, 0.0046955, 0.0396935, 0.0687532, 0.1105832, 0.0323929, 0.0420482,
                ],
            ],
        );
        assert_eq!(prompt.kept(&cur("kv-product"), 8), [[0, 2, 4, 7, 8, 9, 11, 12], [0, 2, 3, 5, 7, 8, 12, 13]]);
        for (kind, expected) in [
            ("key", [[0.0653213, 0.0795084, 0.0467107], [0.0685117, 0.0602417, 0.0489211]]),
            ("value", [[0.0602142, 0.1223542, 0.0459716], [0.0285244, 0.0530821, 0.0775735]]),
            ("kv-avg", [[0.0627678, 0.1009313, 0.0463411], [0.048518, 0.0566619, 0.0632473]]),
        ] {
            prompt.assert_scores(&cur(kind), 1, expected);
        }
    }

    #[test]
    fn a_block_of_nothing_has_no_shares() {
        let nothing = vec![0.0; LAYOUT.kv_heads * 16 * LAYOUT.head_dim];
        let prompt = Prompt::new(16);
        for kind in [Kind::KvProduct, Kind::KvAvg, Kind::Key, Kind::Value] {
            let view = LayerView { keys: Some(&nothing), values: Some(&nothing), ..prompt.view() };
            let scores = Cur { kind, sinks: 0, ..Cur::default() }.score(&view).unwrap();
            assert_eq!(scores, [0.0; 32], "{kind:?}");
        }
    }

    #[test]
    fn heads_add_up_to_1() {
        for settings in ["", "projection = 20, seed = 3", "kind = 'kv-avg', block = 7"] {
            let scores = Prompt::new(40).score(&method(&format!("{{ name = 'cur', sinks = 0, {settings} }}")));
            for head in scores.chunks_exact(40) {
                assert!((head.iter().sum::<f32>() - 1.0).abs() < 1e-5, "{settings}");
            }
        }
    }
}
