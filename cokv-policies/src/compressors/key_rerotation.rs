//! KeyRerotation (kvpress; StreamingLLM, arXiv 2309.17453, has it too): kept tokens move together.

use cokv_core::{
    CacheCompressor, ConfigError, ConfigTable, Frame, HeadSelection, LayerView, ObservationRequest, Pairs, PolicyError,
};
use serde::{Deserialize, Serialize};

use super::base::OnBase;
use super::rewriting::moved_together;

/// Keeps what another compressor keeps, and turns keys as if nothing had been between them. The tokens of a head that
/// keeps n of T move to positions T − n … T − 1, right before what follows: products of queries and keys are those of
/// published code, which moves them to 0 … n − 1 and counts on from n, whatever the numbers of heads are.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyRerotation {}

impl OnBase<KeyRerotation> {
    /// Refuses a base that turns or changes keys itself.
    pub fn checked(self, settings: &ConfigTable<'_>) -> Result<Self, ConfigError> {
        let name = self.base.settings().name();
        match self.base.rewrites() {
            true => Err(settings.error_at(
                "base",
                format!(
                    "key-rerotation turns the keys of the prompt, and `{name}` makes pairs of its own: leave \
                     key-rerotation out where that turns keys itself, or write it as the base of `{name}`"
                ),
            )),
            false => Ok(self),
        }
    }
}

impl CacheCompressor for OnBase<KeyRerotation> {
    fn base(&self) -> Option<&dyn CacheCompressor> {
        Some(&*self.base)
    }

    fn observations(&self, frame: Frame) -> ObservationRequest {
        self.base.observations(frame).union(ObservationRequest { keys: true, values: true, ..Default::default() })
    }

    fn rewrites(&self) -> bool {
        true
    }

    fn moves_keys(&self) -> bool {
        true
    }

    fn rewrite(&self, layer: &LayerView<'_>, kept: &[HeadSelection]) -> Result<Vec<Pairs>, PolicyError> {
        moved_together(layer, kept)
    }

    fn score(&self, layer: &LayerView<'_>) -> Result<Vec<f32>, PolicyError> {
        self.base.score(layer)
    }
}

#[cfg(test)]
mod tests {
    use cokv_core::HeadSelection;

    use crate::compressors::closed_form::{Prompt, method};

    #[test]
    fn the_bases_tokens_are_kept_and_turned() {
        let (prompt, turned) = (Prompt::new(16), "{ name = 'key-rerotation', base = 'tova' }");
        assert_eq!(prompt.kept(turned, 8), prompt.kept("'tova'", 8));
        let method = method(turned);
        let kept = [HeadSelection::Tokens(vec![14, 15]), HeadSelection::Tokens(vec![0, 15])];
        let pairs = method.rewrite(&prompt.shown_to(&method).view(), &kept).unwrap();
        let keys = prompt.view().keys.unwrap();
        assert_eq!(pairs[0].keys, keys[14 * 4..16 * 4], "nothing between them and the end");
        assert_ne!(pairs[1].keys[..4], keys[16 * 4..17 * 4]);
        assert_eq!(pairs[1].keys[4..], keys[31 * 4..]);
    }
}
