//! KVzip+ (kvpress issue 222, after KVzip, arXiv 2505.23416): what a token writes while the model repeats the prompt.

use cokv_core::{CacheCompressor, Frame, LayerView, ObservationRequest, PolicyError};
use serde::{Deserialize, Serialize};

use super::KvZip;
use super::linear_algebra::lengths_behind;

/// As [`KvZip`], where a weight counts times the length of the value behind the output projection, over the norm of the
/// fed token's normalised layer input: `A · ‖W_o v‖₂ / ‖h‖₂`.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KvZipPlus {
    /// The second pass and what is kept besides.
    pub kvzip: KvZip,
}

impl CacheCompressor for KvZipPlus {
    fn base(&self) -> Option<&dyn CacheCompressor> {
        Some(&self.kvzip)
    }

    fn observations(&self, _frame: Frame) -> ObservationRequest {
        ObservationRequest { values: true, output_grams: true, ..Default::default() }
    }

    fn score(&self, layer: &LayerView<'_>) -> Result<Vec<f32>, PolicyError> {
        let (layout, tokens, dim) = (layer.layout, layer.prompt_len, layer.layout.head_dim);
        let values = layer.recorded("values", layer.values)?;
        let grams = layer.recorded("output grams", layer.output_grams)?;
        let mut weights = layer.replayed(&self.kvzip.pass())?.weights_by_input.clone();
        for (query_head, weights) in weights.chunks_exact_mut(tokens.max(1)).enumerate() {
            let values = &values[query_head / layout.group() * tokens * dim..][..tokens * dim];
            let gram = &grams[query_head * dim * dim..][..dim * dim];
            let written = lengths_behind(gram, values.chunks_exact(dim), dim);
            weights.iter_mut().zip(written).for_each(|(weight, length)| *weight *= length);
        }
        Ok(self.kvzip.of_weights(layer, &weights))
    }
}

#[cfg(test)]
mod tests {
    use crate::compressors::closed_form::{Prompt, best_of_layer, method};

    #[test]
    fn written_lengths_of_the_closed_form() {
        let two_chunks = "{ name = 'kvzip-plus', chunk = 8, sinks = 2 }";
        Prompt::new(16).assert_scores(
            two_chunks,
            0,
            [
                [
                    0.2665619, 0.6280802, 0.8939429, 0.8410707, 1.4033462, 0.6481294, 0.9924362, 1.8037916, 0.742189,
                    1.4199831, 0.2934384, 1.5815663, 1.2734541, 0.3921932, 0.6494231, 0.410376,
                ],
                [
                    0.9698157, 0.4961813, 0.6266909, 0.649167, 0.3068569, 0.5152365, 0.3342947, 0.7806898, 0.638097,
                    0.2988111, 0.3953637, 0.2801893, 0.4379117, 0.8590967, 0.2912535, 0.7836284,
                ],
            ],
        );
        let best = best_of_layer(&Prompt::new(16).score(&method(two_chunks)), 16);
        assert_eq!(best, [vec![2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 14], vec![0, 3, 7, 13, 15]]);
    }
}
