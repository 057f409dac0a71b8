//! SimLayerKV (Zhang et al., arXiv 2410.13846): layers that look at little but the prompt's ends are lazy.

use std::num::NonZeroUsize;

use cokv_core::{CacheCompressor, Frame, LayerView, ObservationRequest, PolicyError, Protected};
use serde::{Deserialize, Serialize};

use super::window::WindowFrom;

const RECENT: NonZeroUsize = NonZeroUsize::new(1024).unwrap();

/// Scores a token by the attention of the prompt's last query, mean over all heads of the layer, and keeps what a lazy
/// layer does: sinks, and the recent tokens but one, the last included. What share of that attention lies on sinks and
/// recent tokens before the last says how lazy a layer is: the less it needs,
/// [`layer_preference`](CacheCompressor::layer_preference) is 1 minus it.
///
/// The published form gives lazy layers that and all others the whole prompt, which is no budget: the preset
/// `simlayerkv-paper`, with the allocator `lazy-layers`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SimLayerKv {
    /// Tokens at the start.
    pub sinks: usize,
    /// Tokens at the end that a lazy layer looks at, before the last one.
    pub recent: NonZeroUsize,
}

impl Default for SimLayerKv {
    fn default() -> Self {
        Self { sinks: 4, recent: RECENT }
    }
}

impl CacheCompressor for SimLayerKv {
    fn observations(&self, _frame: Frame) -> ObservationRequest {
        ObservationRequest { window: 1, ..Default::default() }
    }

    fn protected(&self, _frame: Frame) -> Protected {
        Protected { sinks: self.sinks, window: self.recent.get() - 1 }
    }

    fn prefers_layers(&self) -> bool {
        true
    }

    fn layer_preference(&self, layer: &LayerView<'_>) -> Result<f64, PolicyError> {
        let row = WindowFrom::PromptEnd.mean_last_row(layer)?;
        let prefix = &row[..layer.prompt_len.saturating_sub(1)];
        // Nothing lies between the ends of a short prompt: no layer is lazy.
        let Some(between) = prefix.len().checked_sub(self.sinks.saturating_add(self.recent.get())).filter(|&n| n > 0)
        else {
            return Ok(1.0);
        };
        let ends = prefix[..self.sinks].iter().chain(&prefix[self.sinks + between..]);
        Ok((1.0 - ends.map(|&weight| f64::from(weight)).sum::<f64>()).max(0.0))
    }

    fn score(&self, layer: &LayerView<'_>) -> Result<Vec<f32>, PolicyError> {
        Ok(WindowFrom::PromptEnd.mean_last_row(layer)?.repeat(layer.layout.kv_heads))
    }
}

#[cfg(test)]
mod tests {
    use crate::compressors::closed_form::{Prompt, method, select};

    #[test]
    fn the_closed_form_is_not_lazy() {
        let (prompt, toy) = (Prompt::new(16), method("{ name = 'simlayerkv', sinks = 2, recent = 4 }"));
        let preference = toy.layer_preference(&prompt.shown_to(&toy).view()).unwrap().unwrap();
        assert!((1.0 - preference - 0.2837999).abs() < 1e-6, "{preference}");
        let row = [0.0274521, 0.0478926, 0.0886415, 0.0406475, 0.0307531, 0.1032463, 0.1180447, 0.0524543, 0.1245178];
        prompt.assert_scores("{ name = 'simlayerkv', sinks = 2, recent = 4 }", 0, [row, row]);
    }

    #[test]
    fn a_lazy_layer_keeps_the_ends_and_any_other_all() {
        let kept = |threshold: f64| {
            let lazy = format!("{{ name = 'lazy-layers', threshold = {threshold} }}");
            let method = format!("{{ name = 'simlayerkv', sinks = 2, recent = 4 }}\nallocator = {lazy}");
            let selection = select(&[&Prompt::new(16), &Prompt::second_layer(16)], &method, 4 * 8);
            selection.heads.iter().map(|head| head.len(16)).collect::<Vec<_>>()
        };
        // The first layer's share of the ends is 0.2838, the second's is higher.
        assert_eq!(kept(0.29), [16, 16, 5, 5]);
        assert_eq!(kept(0.28), [5; 4]);
        assert_eq!(kept(1.0), [16; 4]);
    }

    #[test]
    fn short_prompts_have_no_lazy_layers() {
        let toy = method("{ name = 'simlayerkv', sinks = 2, recent = 4 }");
        for (tokens, lazy) in [(1, false), (2, false), (7, false), (8, true)] {
            let preference = toy.layer_preference(&Prompt::new(tokens).shown_to(&toy).view()).unwrap().unwrap();
            assert_eq!(preference < 1.0, lazy, "{tokens} tokens: {preference}");
        }
    }
}
