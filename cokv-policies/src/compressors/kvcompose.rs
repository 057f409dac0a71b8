//! KVCompose (arXiv 2509.05165): what the model looks at while it reads the prompt again.

use cokv_core::{CacheCompressor, LayerView, PolicyError, Replay};
use serde::{Deserialize, Serialize};

use super::group::group_mean;

/// Feeds the prompt again in one piece, as it is. A token's score is the largest weight that any fed token gives it,
/// mean over the group, to which the mean of all heads of the layer is added.
///
/// The published form keeps as many tokens in all heads of a layer, and lets layers compete with their k-th best: the
/// preset `kvcompose-paper`, with the allocator `composite-ranks`.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KvCompose {}

/// More tokens than any prompt has.
const ONE_PIECE: usize = 1 << 30;

impl KvCompose {
    /// The second pass: the prompt alone, with all that a chat template put around its text, which holds the sinks.
    fn pass() -> Replay {
        let nothing = String::new;
        Replay {
            chunk: ONE_PIECE,
            verbatim: true,
            first: nothing(),
            further: nothing(),
            overlap: 0,
            sinks: 0,
            queries: 0,
        }
    }
}

impl CacheCompressor for KvCompose {
    fn replay(&self) -> Option<Replay> {
        Some(Self::pass())
    }

    fn score(&self, layer: &LayerView<'_>) -> Result<Vec<f32>, PolicyError> {
        let tokens = layer.prompt_len;
        let mut scores = group_mean(layer.layout, &layer.replayed(&Self::pass())?.weights, tokens);
        let heads = scores.chunks_exact(tokens.max(1));
        let mut mean = vec![0.0; tokens];
        for head in heads {
            mean.iter_mut().zip(head).for_each(|(sum, score)| *sum += score / layer.layout.kv_heads as f32);
        }
        scores.iter_mut().zip(mean.iter().cycle()).for_each(|(score, mean)| *score += mean);
        Ok(scores)
    }
}

#[cfg(test)]
mod tests {
    use crate::compressors::closed_form::{Prompt, positions, select};

    #[test]
    fn weights_of_two_layers_of_the_closed_form() {
        for (layer, expected) in [
            (
                Prompt::new(16),
                [
                    [
                        0.261189, 0.2632509, 0.2709919, 0.2701756, 0.3253326, 0.4398672, 0.3849354, 0.539229,
                        0.4173757, 0.3429614, 0.0965647, 0.4488165, 0.3657761, 0.3290997, 0.1641193, 0.2711785,
                    ],
                    [
                        0.3023791, 0.3126493, 0.2567496, 0.2133843, 0.2241457, 0.5041535, 0.3270221, 0.435757,
                        0.4641871, 0.400372, 0.0954127, 0.3659588, 0.3298157, 0.2654859, 0.1872172, 0.2260157,
                    ],
                ],
            ),
            (
                Prompt::second_layer(16),
                [
                    [
                        0.1784137, 0.1809089, 0.177195, 0.184563, 0.1924931, 0.2446463, 0.2279562, 0.248895, 0.2212475,
                        0.2044365, 0.114641, 0.2410786, 0.2197498, 0.212874, 0.1385833, 0.1803057,
                    ],
                    [
                        0.2011054, 0.2035684, 0.1732541, 0.1553862, 0.1549474, 0.2657811, 0.1942535, 0.2180166,
                        0.2318933, 0.2235131, 0.1149758, 0.2222243, 0.2097554, 0.1814195, 0.1471304, 0.1583924,
                    ],
                ],
            ),
        ] {
            layer.assert_scores("'kvcompose'", 0, expected);
        }
    }

    /// 16 of 32 ranks: the second layer keeps two tokens of each head.
    #[test]
    fn layers_of_the_closed_form_compete_by_rank() {
        let layers = [Prompt::new(16), Prompt::second_layer(16)];
        let selection = select(&layers.each_ref(), "'kvcompose'\nallocator = 'composite-ranks'", 32);
        let kept = [0, 1, 2, 3].map(|head| positions(&selection, head, 16));
        let all_but = |evicted: [u32; 2]| (0..16).filter(|token| !evicted.contains(token)).collect::<Vec<_>>();
        assert_eq!(kept, [all_but([10, 14]), all_but([10, 14]), vec![5, 7], vec![5, 8]]);
    }
}
